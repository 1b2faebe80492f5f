"""The command line of the book."""

from __future__ import annotations

import ast
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from slowmanifold.press.chapters import Failed, Refused, fitting
from slowmanifold.press.execute import CORES, Failure, Run
from slowmanifold.press.project import Project

TIMEOUT = 900


class Lines:
    """Tells how chapters get on in plain lines, for logs and pipes."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def started(self, name: str, cells: int) -> None:
        click.echo(f"{name}: {cells} cells")

    def advanced(self, name: str) -> None:
        pass

    def finished(self, name: str, outcome: Run | Failure) -> None:
        told = f"failed in cell {outcome.cell}" if isinstance(outcome, Failure) else f"{outcome.seconds:.1f} s"
        click.echo(f"{name}: {told}")


class Bars(Lines):
    """Tells how chapters get on with a bar each, for a terminal."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def started(self, name: str, cells: int) -> None:
        self.tasks[name] = self.progress.add_task(name, total=cells)

    def advanced(self, name: str) -> None:
        self.progress.advance(self.tasks[name])

    def finished(self, name: str, outcome: Run | Failure) -> None:
        failed = isinstance(outcome, Failure)
        self.progress.update(self.tasks[name], description=f"[red]{name} failed" if failed else f"[green]{name}")
        self.progress.stop_task(self.tasks[name])


def reporter() -> Lines:
    """Bars on a terminal, lines elsewhere."""
    return Bars() if sys.stderr.isatty() else Lines()


def project() -> Project:
    """The book around the working directory."""
    return Project.around(Path.cwd())


jobs_option = click.option(
    "--jobs", type=click.IntRange(1), default=CORES, show_default="one a core", help="Chapters to run side by side."
)
profile_option = click.option(
    "--profile", default="quick", show_default=True, help="Sizes of the runs: quick, or paper for the papers' own."
)
timeout_option = click.option(
    "--timeout", type=click.IntRange(1), default=TIMEOUT, show_default=True, help="Seconds that one cell may take."
)


class Commands(click.Group):
    """A group that, asked for a command it does not have, lists those it has."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            ctx.fail(f"no command {args[0]!r}; there are {', '.join(self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="slowmanifold")
def cli() -> None:
    """Make, check and read the book. Run it anywhere inside the book's folder.

    \b
    slowmanifold build                       run what changed and make _build/html
    slowmanifold build fenichel --jobs 1     only this chapter
    slowmanifold run fenichel -p grid=80     a run with your own parameters, the book untouched
    slowmanifold status                      what is fresh, what is stale and why
    slowmanifold check                       run all chapters again and compare with the references
    """


@cli.command()
@click.argument("chapters", nargs=-1, metavar="[CHAPTER]...")
@profile_option
@jobs_option
@timeout_option
def build(chapters: tuple[str, ...], profile: str, jobs: int, timeout: int) -> None:
    """Run the chapters that changed and make the book in _build/html.

    Without CHAPTER, all of them. A chapter runs again only when its code, its parameters, the modules it imports, the
    data files that it names, its claims, the pinned packages or Python changed. A chapter that fails does not stop the
    others; its last good page stays. Stop with Ctrl-C at any time: what is finished is kept and the next build goes on
    from there.
    """
    from slowmanifold.press.build import build as make

    start = time.perf_counter()
    with reporter() as telling:
        built = make(project(), chapters, profile, jobs=jobs, timeout=timeout, reporter=telling)
    for name, failure in built.failures.items():
        kept = project().failed(profile, name).relative_to(project().root)
        click.echo(f"\n{name} failed in {failure}\n    the failed notebook is kept in {kept}", err=True)
    good, asked = len(built.executed) - len(built.failures), len(built.executed)
    done = f"{good} of {asked} chapters executed" if asked else "nothing to execute"
    made = "book made" if built.remade else "book up to date"
    click.echo(f"{done}, {made} in {time.perf_counter() - start:.1f} s: {built.site / 'index.html'}")
    if built.failures:
        raise SystemExit(1)


@cli.command()
@click.argument("chapter")
@click.option("-p", "--parameter", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the chapter.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="A new folder for the result.  [default: _build/runs/…]"
)
@profile_option
@timeout_option
def run(chapter: str, settings: tuple[str, ...], output: Path | None, profile: str, timeout: int) -> None:
    """Run one CHAPTER with your own parameters: a notebook and a page of its own, the book untouched.

    \b
    slowmanifold run fenichel -p grid=80 -p horizon=200.0 -o my-run

    Parameters that you do not name keep the value of the profile. A claim that your parameters contradict is shown as
    contradicted and does not end the run.
    """
    from slowmanifold.press.build import run_aside

    book = project()
    text = book.chapter(chapter)
    values = {**book.parameters(text, book.check_profile(profile)), **given(text, settings)}
    with reporter() as telling:
        outcome, folder = run_aside(book, text, values, profile, output, timeout=timeout, reporter=telling)
    if isinstance(outcome, Failure):
        click.echo(f"{chapter} failed in {outcome}\n    the failed notebook is kept in {folder}", err=True)
        raise SystemExit(1)
    click.echo(f"{outcome.seconds:.1f} s: {folder / f'{chapter}.ipynb'} and {folder / 'html' / 'index.html'}")


def given(chapter: Any, settings: tuple[str, ...]) -> dict[str, Any]:
    """The parameters written on the command line, each of its default's type."""
    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise Refused(f"parameter {setting!r}: write it as NAME=VALUE; there are {', '.join(chapter.parameters)}")
        values[name] = fitting(chapter, name, value(text, chapter.parameters.get(name)))
    return values


def value(text: str, default: Any) -> Any:
    """What ``text`` means for a parameter with this ``default``: itself for a word, else a literal."""
    if isinstance(default, str):
        return text
    try:
        return ast.literal_eval(text)  # not YAML, which takes 1e-3 for a word and 010 for eight
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text, text)


@cli.command()
@profile_option
def status(profile: str) -> None:
    """Say of each chapter whether it is fresh or stale, which part of its key changed, and its last seconds."""
    from slowmanifold.press.build import states

    book = project()
    found = states(book, book.check_profile(profile))
    width = max(map(len, found), default=0)
    for name, state in found.items():
        verdict = f"stale: {', '.join(state.stale)}" if state.stale else "fresh"
        last = ""
        if state.record is not None:
            last = f"  (last run {state.record['date']}, {state.record['seconds']:.1f} s)"
        click.echo(f"{name:{width}}  {verdict}{last}")


@cli.command()
@jobs_option
@timeout_option
def check(jobs: int, timeout: int) -> None:
    """Run every chapter again and compare its outputs with tests/reference: the gate.

    Fails where an output differs, a cell fails or is passed over, and where a reference is missing, out of date,
    unexecuted or checks no claim.
    """
    from slowmanifold.press import gate

    start = time.perf_counter()
    click.echo(f"{gate.check(project(), jobs, timeout)} in {time.perf_counter() - start:.1f} s")


@cli.command()
@click.argument("chapters", nargs=-1, metavar="[CHAPTER]...")
@jobs_option
@timeout_option
def reference(chapters: tuple[str, ...], jobs: int, timeout: int) -> None:
    """Rewrite the references from quick runs and show how their outputs differ from those before."""
    from slowmanifold.press import gate
    from slowmanifold.press.build import fresh_runs

    book = project()
    with reporter() as telling:
        runs = fresh_runs(book, chapters, gate.PROFILE, jobs=jobs, timeout=timeout, reporter=telling)
    for name, notebook in runs.items():
        difference = gate.rewrite(book.reference(name), notebook)
        click.echo("\n".join(difference) if difference else f"{name}: the same outputs as before")


@cli.command()
@click.argument("chapters", nargs=-1, metavar="[CHAPTER]...")
def record(chapters: tuple[str, ...]) -> None:
    """Record what fresh runs at paper scale measured, in book/results/paper.json, for the ledger.

    \b
    slowmanifold build --profile paper rings && slowmanifold record rings

    Without CHAPTER, all of them. What is recorded of other chapters stays; if any run is stale, nothing is recorded.
    """
    from slowmanifold.press import paper_runs
    from slowmanifold.press.build import alone, states

    book = project()
    profile = book.check_profile(paper_runs.PROFILE)
    paper_runs.fresh(book, chapters, states(book, profile))  # what is refused leaves nothing behind, not even the lock
    with alone(book):
        done = paper_runs.record(book, chapters, states(book, profile))
    click.echo(f"recorded {', '.join(done)} in {paper_runs.file(book).relative_to(book.root)}")


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on.")
def serve(port: int) -> None:
    """Serve the finished book on this machine and print its address."""
    from slowmanifold.press import site

    book = project().made / "html"
    if not book.is_dir():
        raise Refused("there is no book yet; run: slowmanifold build")
    site.serve(book, port)


def main() -> None:
    """Run the command line; whatever goes wrong ends in one line that names it."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"slowmanifold: {error.format_message()}", err=True)
        raise SystemExit(error.exit_code) from None
    except Refused as error:
        click.echo(f"slowmanifold: {error}", err=True)
        raise SystemExit(2) from None
    except shutil.Error as error:  # a folder could not be copied: one entry for each of its files
        _, target, why = error.args[0][0]
        click.echo(f"slowmanifold: {why}: {target}", err=True)
        raise SystemExit(1) from None
    except (Failed, OSError) as error:
        click.echo(f"slowmanifold: {error}", err=True)
        raise SystemExit(1) from None
    except (KeyboardInterrupt, click.Abort):
        click.echo("slowmanifold: stopped; what is finished is kept", err=True)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
