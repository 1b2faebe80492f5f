"""From sources to a finished book: run what is stale, then publish; or one chapter, aside from the book."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from slowmanifold.claims import REPORT
from slowmanifold.press import paper_runs
from slowmanifold.press.chapters import Chapter, Failed, Refused
from slowmanifold.press.execute import Failure, Reporter, Run, read, record, run_all, write
from slowmanifold.press.keys import changes, claims_measured, digest, records_key
from slowmanifold.press.project import Project
from slowmanifold.press.publish import make_site, publish, stage_aside

if TYPE_CHECKING:
    from nbformat import NotebookNode


@dataclass(frozen=True)
class State:
    """A chapter in a profile: its parameters, the key it has now, and what its last good run says of itself."""

    chapter: Chapter
    parameters: dict[str, Any]
    key: dict[str, str]
    record: dict[str, Any] | None  # without a run: None
    kept: Path  # where the last good run lies

    @cached_property
    def executed(self) -> NotebookNode | None:
        """The last good run, if there is one."""
        return read(self.kept) if self.record is not None else None

    @property
    def stale(self) -> list[str]:
        """The parts of the key that changed since the last good run; ``never executed`` without one."""
        if self.record is None:
            return ["never executed"]
        return changes(self.record["key"], self.key)


def states(project: Project, profile: str) -> dict[str, State]:
    """The state of every chapter."""
    found = {}
    for name, chapter in project.chapters.items():
        parameters = project.parameters(chapter, profile)
        kept = project.executed(profile, name)
        last = record(kept)
        told = claims_measured(last["key"]) if last else []
        key = project.key(chapter, parameters) | records_key(project.records, told)
        found[name] = State(chapter, parameters, key, last, kept)
    return found


@contextmanager
def alone(project: Project) -> Iterator[None]:
    """Hold the lock of the book; ``Failed`` if another build holds it. The lock ends with its process."""
    project.made.mkdir(exist_ok=True)
    lock = FileLock(project.made / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Failed("another build is at work in this book; wait for it or stop it") from None
    try:
        yield
    finally:
        lock.release()


def execute(
    project: Project,
    stale: Mapping[str, Mapping[str, Any]],
    profile: str,
    *,
    jobs: int,
    timeout: int,
    reporter: Reporter,
) -> dict[str, Failure]:
    """Run the chapters ``stale`` (name: parameters) and keep each good run the moment it is done; return the failures.

    A failed run is kept aside and leaves the last good one in place.
    """
    os.environ.pop(REPORT, None)  # whatever a reader's shell says, the book stands by its claims

    def keep(name: str, outcome: Run | Failure) -> None:
        if isinstance(outcome, Failure):
            write(outcome.notebook, project.failed(profile, name))
        else:
            write(outcome.notebook, project.executed(profile, name))
            project.failed(profile, name).unlink(missing_ok=True)

    outcomes = run_all(project, stale, profile, jobs=jobs, timeout=timeout, reporter=reporter, keep=keep)
    return {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Failure)}


def to_run(chapters: Iterable[State], at_paper_scale: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Name and parameters of those of ``chapters`` that are stale; what took longest last time comes first.

    So the cores end together. Those that never ran here come before the others, and among them what took longest
    ``at_paper_scale`` (name: seconds); one that was never recorded may take any time.
    """

    def expected(state: State) -> tuple[bool, float]:
        if state.record is not None:
            return False, state.record["seconds"]
        return True, at_paper_scale.get(state.chapter.name, math.inf)

    stale = sorted((state for state in chapters if state.stale), key=expected, reverse=True)
    return {state.chapter.name: state.parameters for state in stale}


@dataclass(frozen=True)
class Built:
    """What a build did."""

    executed: list[str]
    failures: dict[str, Failure]
    site: Path
    remade: bool


def build(
    project: Project, names: Iterable[str], profile: str, *, jobs: int, timeout: int, reporter: Reporter
) -> Built:
    """Run the chapters ``names`` (all, if empty) that are stale, then make the site if anything in it changed."""
    project.check_profile(profile)
    chosen = [project.chapter(name).name for name in names] or list(project.chapters)
    with alone(project):
        before = states(project, profile)
        stale = to_run((before[name] for name in chosen), paper_runs.seconds(project))
        failures = execute(project, stale, profile, jobs=jobs, timeout=timeout, reporter=reporter)
        after = states(project, profile) if stale else before
        remade = publish(project, profile, after, failures)
    return Built(list(stale), failures, project.made / "html", remade)


def fresh_runs(
    project: Project, names: Iterable[str], profile: str, *, jobs: int, timeout: int, reporter: Reporter
) -> dict[str, NotebookNode]:
    """Up-to-date runs of the chapters ``names`` (all, if empty); ``Failed`` names one that fails."""
    chosen = [project.chapter(name).name for name in names] or list(project.chapters)
    with alone(project):
        before = states(project, profile)
        stale = to_run((before[name] for name in chosen), paper_runs.seconds(project))
        failures = execute(project, stale, profile, jobs=jobs, timeout=timeout, reporter=reporter)
        for name, failure in failures.items():
            raise Failed(f"chapter {name} failed in {failure}")
        after = states(project, profile)
    return {name: after[name].executed for name in chosen}


def run_aside(
    project: Project,
    chapter: Chapter,
    parameters: Mapping[str, Any],
    profile: str,
    output: Path | None,
    *,
    timeout: int,
    reporter: Reporter,
) -> tuple[Run | Failure, Path]:
    """Run one chapter with other parameters into a folder of its own: notebook and page; the book stays as it is.

    The folder appears when all of it is there; without the page if the run fails or the page cannot be made.
    ``Refused`` if a given ``output`` exists already.
    """
    folder = output or project.made / "runs" / f"{chapter.name}-{digest(json.dumps(dict(parameters), sort_keys=True))}"
    if output is not None and output.exists():
        raise Refused(f"{output} exists already; name a new folder with -o")
    os.environ[REPORT] = "report"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=folder.parent) as scratch:
        asked = {chapter.name: parameters}
        [outcome] = run_all(project, asked, profile, jobs=1, timeout=timeout, reporter=reporter).values()
        draft = Path(scratch, "run")
        write(outcome.notebook, draft / f"{chapter.name}.ipynb")
        try:
            if isinstance(outcome, Run):
                stage_aside(project, chapter, outcome, Path(scratch, "staged"))
                make_site(Path(scratch, "staged"), draft / "html", strict=False)
        finally:
            if folder.exists():
                shutil.rmtree(folder)
            draft.rename(folder)
    return outcome, folder
