"""The chapters' runs at the papers' own size, kept as data: they take too long for every build."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slowmanifold.press.chapters import Refused
from slowmanifold.press.execute import RECORD, measured
from slowmanifold.press.files import write_text
from slowmanifold.press.keys import changes
from slowmanifold.press.project import Project

if TYPE_CHECKING:
    from slowmanifold.press.build import State

PROFILE = "paper"
FACTS = ("date", "processor", "seconds", "commit", "versions", "parameters")
# What a reader's machine decides, and the claims' records, by which a value is judged anew in each build.
NOT_COMPARED = ("Python", "claim ")


@dataclass(frozen=True)
class PaperRun:
    """A recorded run: the facts of it, the value of each claim, and the parts of the chapter that changed since."""

    facts: dict[str, Any]
    claims: dict[str, float | bool]
    changed: list[str]


def file(project: Project) -> Path:
    """Where the runs are recorded."""
    return project.book / "results" / "paper.json"


def recorded(project: Project) -> dict[str, dict[str, Any]]:
    """The records by chapter as they were written; none without the file, ``Refused`` if it is not such a file."""
    try:
        found = json.loads(file(project).read_text())
        if all({*FACTS, "key", "claims"} <= set(told) for told in found.values()):
            return found
        raise Refused(f"book/results/paper.json: each chapter needs {', '.join((*FACTS, 'key', 'claims'))}")
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError) as error:
        raise Refused(f"book/results/paper.json: cannot be read: {error}") from None


def seconds(project: Project) -> dict[str, float]:
    """How long each recorded run took."""
    return {name: told["seconds"] for name, told in recorded(project).items()}


def load(project: Project) -> dict[str, PaperRun]:
    """The recorded runs of the chapters that the book has, each compared with its chapter as it is now."""
    kept, runs = recorded(project), {}
    for name, chapter in project.chapters.items():
        if told := kept.get(name):
            now = compared(project.key(chapter, project.parameters(chapter, PROFILE)))
            runs[name] = PaperRun({fact: told[fact] for fact in FACTS}, told["claims"], changes(told["key"], now))
    return runs


def compared(key: Mapping[str, str]) -> dict[str, str]:
    """The parts of a key that say whether a record is of the chapter as it is."""
    return {part: value for part, value in key.items() if not part.startswith(NOT_COMPARED)}


def fresh(project: Project, names: Iterable[str], states: Mapping[str, State]) -> list[str]:
    """The chapters ``names`` (all, if empty); ``Refused`` names every one without a fresh run at paper scale."""
    chosen = [project.chapter(name).name for name in names] or list(project.chapters)
    if stale := [name for name in chosen if states[name].stale]:
        why = "; ".join(f"{name}: {', '.join(states[name].stale)}" for name in stale)
        again = f"slowmanifold build --profile {PROFILE} {' '.join(stale)}"
        raise Refused(f"no fresh run at paper scale ({why}); run: {again}")
    return chosen


def record(project: Project, names: Iterable[str], states: Mapping[str, State]) -> list[str]:
    """Record the :func:`fresh` paper runs of the chapters ``names`` beside what is recorded of the others.

    ``states`` are those of the paper profile. If any run is not fresh, none is recorded. The file is the old one or
    the new one at any time. Returns the chapters recorded.
    """
    chosen = fresh(project, names, states)
    kept = recorded(project)
    for name in chosen:
        run = states[name].executed
        told = run.metadata[RECORD]
        values = {claim["id"]: claim["measured"] for claim in measured(run)}
        kept[name] = {fact: told[fact] for fact in FACTS} | {"key": compared(told["key"]), "claims": values}
    ordered = {name: kept[name] for name in sorted(kept)}
    write_text(file(project), json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
    return chosen
