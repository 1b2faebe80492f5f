"""The papers' outlines: under which section of its paper a claim stands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from slowmanifold.claims import Record
from slowmanifold.press.chapters import Refused
from slowmanifold.press.project import settings

ELSEWHERE = "Elsewhere in the paper"


@dataclass(frozen=True)
class Paper:
    """A paper: its title, and the names of each section by heading, in the paper's order."""

    title: str
    sections: dict[str, list[str]]

    def heading(self, where: str) -> str:
        """The heading of the section that ``where`` names first; of two names there, the longer one counts."""
        places = [
            (found.start(), -len(name), heading)
            for heading, names in self.sections.items()
            for name in names
            if (found := re.search(rf"(?<!\w){re.escape(name)}(?!\.?\d)", where))
        ]
        return min(places)[2] if places else ELSEWHERE


def load(path: Path) -> dict[str, Paper]:
    """The papers of ``papers.yml``, in its order; ``Refused`` says what is wrong with it."""
    papers = {}
    for source, fields in settings(path.read_text(), path.name).items():
        try:
            papers[source] = Paper(
                str(fields["title"]), {str(head): list(map(str, names)) for head, names in fields["sections"].items()}
            )
        except (KeyError, TypeError, AttributeError):
            raise Refused(f"{path.name}: {source} needs a title and its sections, each with a list of names") from None
    return papers


def grouped(records: Iterable[Record], papers: dict[str, Paper]) -> dict[tuple[str, str], list[Record]]:
    """The records by source and heading, in the order of the papers; within a section in their own."""
    groups: dict[tuple[str, str], list[Record]] = {
        (source, heading): [] for source, paper in papers.items() for heading in (*paper.sections, ELSEWHERE)
    }
    for record in records:
        groups[record.source, papers[record.source].heading(record.where)].append(record)
    return {place: found for place, found in groups.items() if found}
