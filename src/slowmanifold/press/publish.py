"""Runs become a site: stage the sources of its pages, have it made, and show it all at once."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from slowmanifold.press import api, benchmarks, ledger, paper_runs
from slowmanifold.press.chapters import Chapter, Failed
from slowmanifold.press.execute import RECORD, Failure, Run
from slowmanifold.press.keys import digest
from slowmanifold.press.project import Project
from slowmanifold.press.site import SiteError
from slowmanifold.press.site import build as build_site

if TYPE_CHECKING:
    from slowmanifold.press.build import State


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
