"""Run chapters through papermill, several at once, and keep each good run the moment it is done."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import click
import joblib
import psutil

from slowmanifold.press.chapters import Chapter
from slowmanifold.press.files import write_text
from slowmanifold.press.forks import kernel_managers
from slowmanifold.press.keys import records_key
from slowmanifold.press.project import Project

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager
    from nbformat import NotebookNode

# Jupyter's libraries are imported where they are used: they take longer than a build that has nothing to do.

CORES = joblib.cpu_count()  # that this process may use, not all that the machine has
SHOWN_VERSIONS = ("numpy", "scipy", "torch", "matplotlib", "jupyter-book")
RECORD = "slowmanifold"
# A kernel lives for one chapter: to look for garbage less often saves a twentieth of its time.
GARBAGE = "__import__('gc').set_threshold(50_000, 50, 50)"


def limits(jobs: int, chapters: int) -> dict[str, str]:
    """The environment of the kernels of ``chapters`` chapters, of which ``jobs`` run side by side.

    Each has one thread, as then sums do not depend on how they are split, and its share of the cores for its sweeps.
    """
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "BLIS")}
    return {**threads, "LOKY_MAX_CPU_COUNT": str(max(1, CORES // max(1, min(jobs, chapters))))}


@runtime_checkable
class Reporter(Protocol):
    """Hears how the chapters get on; called from several threads."""

    def started(self, name: str, cells: int) -> None: ...

    def advanced(self, name: str) -> None: ...

    def finished(self, name: str, outcome: Run | Failure) -> None: ...


@dataclass(frozen=True)
class Run:
    """A good run of a chapter."""

    notebook: NotebookNode
    seconds: float


@dataclass(frozen=True)
class Failure:
    """A run that raised, timed out or lost its kernel: in which code cell, why, and the notebook as far as it got."""

    cell: int
    source: str
    reason: str
    notebook: NotebookNode

    def __str__(self) -> str:
        tail = "\n".join(self.reason.splitlines()[-12:])
        return f"cell {self.cell}:\n{indented(self.source)}\n{indented(tail)}"


def indented(text: str) -> str:
    """Each line four spaces to the right."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook so that a reader sees the old file or the new one, never a part."""
    import nbformat

    write_text(path, nbformat.writes(notebook) + "\n")


def read(path: Path) -> NotebookNode | None:
    """The notebook in ``path``; ``None`` where there is none that can be read."""
    import nbformat
    from nbformat.reader import NotJSONError

    try:
        return nbformat.read(path, as_version=4)
    except (FileNotFoundError, NotJSONError):
        return None


def record(path: Path) -> dict[str, Any] | None:
    """What the run in ``path`` says of itself; ``None`` where there is no notebook that can be read.

    Far quicker than ``read``, which checks every cell.
    """
    try:
        return json.loads(path.read_bytes())["metadata"][RECORD]
    except (FileNotFoundError, ValueError):
        return None


def commit(root: Path) -> str:
    """The commit of the working tree, with ``+`` where files differ from it; ``unknown`` outside git."""
    if not shutil.which("git"):
        return "unknown"
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def processor() -> str:
    """The name of this machine's processor and its number of cores."""
    info = Path("/proc/cpuinfo")  # Linux's
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def run(
    project: Project,
    chapter: Chapter,
    parameters: Mapping[str, Any],
    profile: str,
    *,
    timeout: int,
    reporter: Reporter,
    kernels: type[AsyncKernelManager],
) -> Run | Failure:
    """Execute one chapter in a kernel of its own, in the book's folder; no cell may take more than ``timeout`` s."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.engines import NBClientEngine, papermill_engines

    managed = []

    class Engine(NBClientEngine):
        """papermill's own engine; it also tells the reporter and keeps hold of the notebook of a failed run."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            managed.append(nb_man.nb)
            complete = nb_man.cell_complete

            def cell_complete(*args: Any, **kwargs: Any) -> None:
                complete(*args, **kwargs)
                reporter.advanced(chapter.name)

            nb_man.cell_complete = cell_complete
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what goes wrong is told once, by the press
    engine = f"press-{chapter.name}"
    papermill_engines.register(engine, Engine)
    source = chapter.notebook()
    # Before the run: an edit that comes while it is at work makes it stale, never wrongly fresh.
    key, records, tree = project.key(chapter, parameters), project.records, commit(project.root)
    reporter.started(chapter.name, len(source.cells) + 1)
    try:
        notebook = papermill.execute_notebook(
            source,
            None,
            parameters=dict(parameters),
            engine_name=engine,
            kernel_name="python3",
            progress_bar=False,
            execution_timeout=timeout,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL", f"--IPKernelApp.exec_lines={GARBAGE}"],
            shutdown_kernel="immediate",  # by then all is told; its own farewell takes seconds
            resources={"metadata": {"path": str(project.book)}},
            kernel_manager_class=kernels,
        )
    except papermill.PapermillExecutionError as error:
        outcome: Run | Failure = failure(managed[0], "\n".join(error.traceback) or f"{error.ename}: {error.evalue}")
    except CellTimeoutError:
        outcome = failure(managed[0], f"the cell took more than {timeout} s")
    except DeadKernelError:
        outcome = failure(managed[0], "the kernel died")
    except Exception as error:  # whatever ends one chapter, a kernel that does not start say, must not end the others
        outcome = failure(managed[0] if managed else source, f"{type(error).__name__}: {error}")
    else:
        seconds = notebook.metadata.papermill["duration"]
        notebook.metadata[RECORD] = {
            "profile": profile,
            "parameters": dict(parameters),
            "key": key | records_key(records, (told["id"] for told in measured(notebook))),
            "seconds": round(seconds, 2),
            "commit": tree,
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "processor": processor(),
            "versions": {name: version(name) for name in SHOWN_VERSIONS},
            "lines": lines(chapter),
            "text": chapter.text,
        }
        outcome = Run(without_paths(notebook), seconds)
    return outcome


def failure(notebook: NotebookNode, reason: str) -> Failure:
    """The failure of the last cell that was begun."""
    cells = code_cells(notebook)
    begun = [cell for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    number = max(1, len(begun))
    return Failure(number, cells[number - 1].source, click.unstyle(reason), notebook)


def code_cells(executed: NotebookNode) -> list[NotebookNode]:
    """The code cells of a run that stand in the text chapter, in order: all but the one that papermill injected."""
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    return [cell for cell in cells if "injected-parameters" not in cell.metadata.get("tags", [])]


def measured(executed: NotebookNode) -> list[dict[str, Any]]:
    """What each claim of a run told: its ``id``, the value ``measured`` and the ``verdict``."""
    outputs = [output for cell in code_cells(executed) for output in cell.outputs]
    return [output.metadata["claim"] for output in outputs if "claim" in output.get("metadata", {})]


def lines(chapter: Chapter) -> list[list[int]]:
    """First and last line of each code cell in the text chapter, in order, counted from 1."""
    from jupytext.myst import myst_to_notebook

    text = chapter.text.splitlines()
    notebook = myst_to_notebook(chapter.text, add_source_map=True)
    found = []
    for cell, start in zip(notebook.cells, notebook.metadata.source_map, strict=True):
        if cell.cell_type == "code":
            source = cell.source.splitlines()
            first = next(number for number in count(start) if text[number : number + len(source)] == source)
            found.append([first + 1, first + len(source)])
    return found


def without_paths(notebook: NotebookNode) -> NotebookNode:
    """Drop what tells of the machine's folders: papermill's input and output paths."""
    for name in ("input_path", "output_path", "environment_variables"):
        notebook.metadata.papermill.pop(name, None)
    return notebook


def run_all(
    project: Project,
    asked: Mapping[str, Mapping[str, Any]],
    profile: str,
    *,
    jobs: int,
    timeout: int,
    reporter: Reporter,
    keep: Callable[[str, Run | Failure], None] = lambda name, outcome: None,
) -> dict[str, Run | Failure]:
    """Run the chapters ``asked`` (name: parameters) side by side; ``keep`` gets each outcome the moment its run ends.

    Whatever ends this early, Ctrl-C or a full disk, ends the kernels and starts no more.
    """
    os.environ.update(limits(jobs, len(asked)))
    with kernel_managers(len(asked)) as kernels:
        stopped = Event()

        def run_and_keep(name: str) -> Run | Failure:
            outcome = run(
                project,
                project.chapter(name),
                asked[name],
                profile,
                timeout=timeout,
                reporter=reporter,
                kernels=kernels,
            )
            # In the thread of the run: no Ctrl-C comes between. A run that it ended is no failure of the chapter's.
            if isinstance(outcome, Run) or not stopped.is_set():
                keep(name, outcome)
            return outcome

        # Not in this thread, where nbclient would take Ctrl-C for itself.
        pool = ThreadPoolExecutor(jobs)
        futures: dict[Future[Run | Failure], str] = {pool.submit(run_and_keep, name): name for name in asked}
        try:
            waiting = set(futures)
            while waiting:
                # Never for long: Python does not notice a Ctrl-C that comes just before a wait without end.
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    reporter.finished(futures[future], future.result())
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            # Again and again, as a run may be about to start its kernel.
            while not all(future.done() for future in futures):
                for kernel in psutil.Process().children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        kernel.kill()
                time.sleep(0.05)
            raise
        pool.shutdown()
        return {name: future.result() for future, name in futures.items()}
