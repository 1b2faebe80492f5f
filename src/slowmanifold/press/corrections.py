"""The page of corrections is gathered from the chapters' boxes, so that each correction is written down once.

A box is an admonition of the classes ``corrected`` and the paper's name in the ledger. Each of its points begins with
the place in the paper in bold:

    * **Sec. 3.2, eq. 9.** What is printed, what is right, and the claims that show it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from slowmanifold.claims import SOURCES
from slowmanifold.press.chapters import Chapter, Failed

BOX = re.compile(
    r"^(?P<fence>[`:]{3,})\{admonition\}[^\n]*\n:class: corrected *(?P<paper>\w*)\n"
    r"(?::name: (?P<name>[\w-]+)\n)?(?P<points>.*?)^(?P=fence)\s*$",
    re.MULTILINE | re.DOTALL,
)
POINT = re.compile(r"\*\*(?P<where>[^*]+?)\.\*\* +(?P<text>.+)")


@dataclass(frozen=True)
class Correction:
    """A point of a chapter's box: the paper and the place there, what we say of it, the chapter's title, the label."""

    paper: str
    where: str
    text: str
    title: str
    box: str

    @property
    def order(self) -> tuple[float, ...]:
        """By sections, the abstract first; other places follow in the order of the chapters."""
        if self.where.startswith("Abstract"):
            return (0,)
        section = re.match(r"Secs?\.? (\d+)(?:\.(\d+))?(?:\.(\d+))?", self.where)
        return tuple(int(number or 0) for number in section.groups()) if section else (math.inf,)


def corrections(chapter: Chapter) -> Iterator[Correction]:
    """The points of a chapter's boxes; ``Failed`` names a box without paper or label, or a point without its place."""
    title = re.search(r"^# (.+)$", chapter.text, re.MULTILINE)[1]
    for box in BOX.finditer(chapter.text):
        if box["paper"] not in SOURCES or not box["name"]:
            raise Failed(
                f"chapter {chapter.name}: a box of corrections has :class: corrected PAPER and :name: LABEL; "
                f"papers are {', '.join(SOURCES)}"
            )
        for point in re.split(r"^\* ", box["points"], flags=re.MULTILINE)[1:]:
            words = " ".join(point.split())
            found = POINT.fullmatch(words)
            if found is None:
                raise Failed(f"chapter {chapter.name}: a correction begins with its place in bold, not {words[:60]!r}")
            yield Correction(box["paper"], found["where"], found["text"], title, box["name"])


def write(chapters: Iterable[Chapter], folder: Path) -> None:
    """Write a list for each paper into ``folder``, which the page of corrections includes."""
    found = [one for chapter in chapters for one in corrections(chapter)]
    for paper in SOURCES:
        (folder / f"corrections-{paper}.md").write_text(listing(found, paper))


def listing(found: Iterable[Correction], paper: str) -> str:
    """The corrections to a paper as a definition list in MyST, place by place; each leads to its box."""
    own = sorted((one for one in found if one.paper == paper), key=lambda one: one.order)
    places: dict[str, list[str]] = {}
    for one in own:  # the dash stays with the title after it
        places.setdefault(one.where, []).append(f": {one.text}\N{NO-BREAK SPACE}– {{ref}}`{one.title} <{one.box}>`\n")
    return "\n".join(line for where, points in places.items() for line in (where, *points)) + "\n"
