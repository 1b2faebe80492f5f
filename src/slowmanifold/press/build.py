"""From sources to a finished book: run what is stale, stage the pages, make the site, and show it all at once."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from slowmanifold.claims import REPORT
from slowmanifold.press import api, benchmarks, ledger, paper_runs
from slowmanifold.press.chapters import Chapter, Failed, Project, Refused, changes, claims_measured, digest, records_key
from slowmanifold.press.execute import RECORD, Failure, Reporter, Run, read, record, run_all, write
from slowmanifold.press.site import SiteError
from slowmanifold.press.site import build as build_site

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
    failures = {}
    with closing(run_all(project, stale, profile, jobs=jobs, timeout=timeout, reporter=reporter)) as outcomes:
        for name, outcome in outcomes:
            if isinstance(outcome, Failure):
                failures[name] = outcome
                write(outcome.notebook, project.failed(profile, name))
            else:
                write(outcome.notebook, project.executed(profile, name))
                project.failed(profile, name).unlink(missing_ok=True)
    return failures


def to_run(chapters: Iterable[State]) -> dict[str, dict[str, Any]]:
    """Name and parameters of those of ``chapters`` that are stale; what took longest last time comes first.

    So the cores end together; a chapter that never ran may take any time.
    """
    stale = [state for state in chapters if state.stale]
    stale.sort(key=lambda state: state.record["seconds"] if state.record else math.inf, reverse=True)
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
        stale = to_run(before[name] for name in chosen)
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
        stale = to_run(before[name] for name in chosen)
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
        [(_, outcome)] = run_all(project, asked, profile, jobs=1, timeout=timeout, reporter=reporter)
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


def make_site(staged: Path, output: Path, *, strict: bool, workshop: Path | None = None) -> None:
    """Make the site of the staged sources; ``Failed`` has what Sphinx says."""
    try:
        build_site(staged, output, strict=strict, workshop=workshop)
    except SiteError as error:
        raise Failed(f"the site could not be made:\n{error}") from None


def stage_aside(project: Project, chapter: Chapter, outcome: Run, staged: Path) -> None:
    """Write the sources of a site with one page, that of a single run."""
    from slowmanifold.press import pages

    shutil.copytree(project.book / "_static", staged / "book" / "_static")
    shutil.copy(project.book / "references.bib", staged / "book")
    shutil.copy(project.root / "_config.yml", staged)
    (staged / "_toc.yml").write_text(f"format: jb-book\nroot: book/{chapter.name}\n")
    pages.stage(chapter, outcome.notebook, staged / "book")


def notice(state: State, failure: Failure | None) -> str:
    """What a page that is not up to date says at its head; empty for one that is."""
    if failure is not None:
        reason = failure.reason.strip().rpartition("\n")[2].replace("`", "'")
        kept = "Below is the last good run." if state.record is not None else "It has never run to its end."
        return f"This chapter failed in cell {failure.cell}: `{reason}` {kept}"
    if state.record is None:
        return "This chapter has not been executed."
    if state.stale:
        return f"This page shows an earlier run. Changed since: {', '.join(state.stale)}."
    return ""


def publish(project: Project, profile: str, chapters: Mapping[str, State], failures: Mapping[str, Failure]) -> bool:
    """Make the site in a folder of its own and point ``_build/html`` at it in one step; False if it was up to date."""
    notices = {name: notice(state, failures.get(name)) for name, state in chapters.items()}
    key = site_key(project, profile, chapters, notices)
    site, shown = project.made / "sites" / key, project.made / "html"
    if site.is_dir() and shown.is_symlink() and shown.readlink() == Path("sites", key):
        return False
    site.parent.mkdir(exist_ok=True)
    for leftover in site.parent.glob(".draft-*"):
        shutil.rmtree(leftover, ignore_errors=True)  # an orphaned Sphinx may still write there
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=site.parent) as folder:
        staged, draft = Path(folder, "staged"), Path(folder, "html")
        stage(project, chapters, notices, staged)
        complete = not any(notices.values())
        make_site(staged, draft, strict=complete, workshop=project.made / "sphinx" if complete else None)
        if site.exists():
            shutil.rmtree(site)
        draft.rename(site)
    show(site, shown)
    return True


def show(site: Path, shown: Path) -> None:
    """Point the link ``shown`` at ``site`` in one step, and drop the sites of earlier builds."""
    link = shown.with_name(f".{shown.name}.{os.getpid()}")
    link.unlink(missing_ok=True)
    link.symlink_to(site.relative_to(shown.parent))
    os.replace(link, shown)
    for other in site.parent.iterdir():
        if other != site:
            shutil.rmtree(other, ignore_errors=True)


def tools(project: Project) -> list[Path]:
    """What pages are made with: the package and the lock file."""
    return [*sorted((project.root / "src" / "slowmanifold").rglob("*.py")), project.root / "requirements.txt"]


def site_key(project: Project, profile: str, chapters: Mapping[str, State], notices: Mapping[str, str]) -> str:
    """What the site depends on: pages, runs, notices, settings, the package and the lock file."""
    inputs = [path for path in sorted(project.book.rglob("*")) if path.is_file()]
    inputs += [*tools(project), project.root / "_config.yml", project.root / "_toc.yml"]
    parts = {str(path.relative_to(project.root)): digest(path.read_bytes()) for path in inputs}
    # A chapter counts as it was read, for that is what its page shows: it may have been edited since.
    parts |= {str(state.chapter.source.relative_to(project.root)): state.chapter.text for state in chapters.values()}
    runs = {
        name: digest(json.dumps(state.record, sort_keys=True))
        for name, state in chapters.items()
        if state.record is not None
    }
    return digest(json.dumps([profile, parts, runs, dict(notices)], sort_keys=True))


def stage(project: Project, chapters: Mapping[str, State], notices: Mapping[str, str], staged: Path) -> None:
    """Write the complete sources of the site: settings, prose pages, executed chapters, ledger and execution page."""
    from slowmanifold.press import corrections, evidence, pages

    runs = {name: state.executed for name, state in chapters.items() if state.record is not None}
    text = [path.name for path in project.book.glob("*.md") if path.stem in chapters]
    shutil.copytree(project.book, staged / "book", ignore=lambda folder, names: [*text, ".ipynb_checkpoints"])
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(project.root / name, staged)
    (staged / "made-with").write_text("\n".join(digest(path.read_bytes()) for path in tools(project)))
    package = api.modules(project.root / "src" / "slowmanifold")
    used = api.uses((state.chapter for state in chapters.values()), [name for part in package for name in part.names])
    (staged / "book" / "api.md").write_text(api.page(package, used))
    listed = any(page.stem == "api" for page in project.pages)
    for name, state in chapters.items():
        uses = [what for what, users in used.items() if listed and name in users]
        pages.stage(state.chapter, state.executed, staged / "book", notices[name], uses)
    measured = ledger.collect(runs)
    (staged / "book" / evidence.FILE).write_text(evidence.evidence(project.records, measured))
    corrections.write([state.chapter for state in chapters.values()], staged / "book")
    at_paper_scale = paper_runs.load(project)
    (staged / "book" / "ledger.md").write_text(ledger.ledger_page(project.book, measured, at_paper_scale))
    records = {name: run.metadata[RECORD] for name, run in runs.items()}
    (staged / "book" / "execution.md").write_text(pages.execution_page(records, at_paper_scale))
    recorded = project.book / "results" / "benchmarks.json"
    (staged / "book" / "benchmarks.md").write_text(benchmarks.benchmarks_page(recorded))
