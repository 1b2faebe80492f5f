"""A tiny book in a folder of its own: all that the press needs, and nothing of the science."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest import mock

import nbformat
import papermill
import psutil
import pytest
import yaml
from nbformat.v4 import new_output

from slowmanifold.press import build as building
from slowmanifold.press import publish as publishing
from slowmanifold.press.chapters import Chapter
from slowmanifold.press.cli import Lines
from slowmanifold.press.project import Project

ROOT = Path(__file__).parents[2]

# A run in the background of a shell ignores Ctrl-C, and so would what the tests start: they hear it again.
signal.signal(signal.SIGINT, signal.default_int_handler)

HEADER = """\
---
jupytext:
  formats: md:myst
  text_representation: {extension: .md, format_name: myst}
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""

# A chapter tells of each of its runs itself: the press is not asked whether it ran.
TELL = 'import os\nwith open(os.environ["RUNS"], "a") as runs:\n    runs.write("{name}\\n")'

# The command line with a site that is only copied: Sphinx takes seconds and is not the point.
DRIVER = """\
import shutil
from slowmanifold.press import cli, publish
publish.build_site = lambda staged, output, **options: shutil.copytree(staged, output)
cli.main()
"""


class Workshop:
    """A folder with a book in it, and ways to set the press on it."""

    HEADER = HEADER
    DRIVER = DRIVER
    ROOT = ROOT

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def project(self) -> Project:
        """The project as the press would find it now."""
        return Project(self.root)

    def edit(self, path: Path | str, old: str, new: str) -> None:
        """Replace the one place of ``old`` in a file."""
        path = self.root / path
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
        path.write_text(text.replace(old, new))

    def start(self, *arguments: str, driver: str | None = DRIVER) -> subprocess.Popen:
        """Start the command line in a process and a process group of its own."""
        command = [sys.executable, "-c", driver] if driver else [sys.executable, "-m", "slowmanifold.press.cli"]
        return subprocess.Popen(
            [*command, *arguments],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(self.root / "src")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def press(self, *arguments: str, driver: str | None = DRIVER) -> subprocess.CompletedProcess:
        """Run the command line to its end; with ``driver=None`` all of it, Sphinx too."""
        process = self.start(*arguments, driver=driver)
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


class Book(Workshop):
    """The sources of a small book that grows as a test wants it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.parameters: dict[str, dict] = {}
        self.records: list[dict] = []
        shutil.copytree(ROOT / "book" / "_static", self.folder / "_static")
        for name in ("_config.yml", "requirements.txt"):
            shutil.copy(ROOT / name, root)
        (root / "src").symlink_to(ROOT / "src")
        (self.folder / "references.bib").write_text("")
        shutil.copy(ROOT / "book" / "papers.yml", self.folder)
        (self.folder / "index.md").write_text("# A small book\n\nIts front page.\n")
        self.write()

    @property
    def folder(self) -> Path:
        return self.root / "book"

    def page(self, name: str) -> Path:
        return self.folder / f"{name}.md"

    def chapter(self, name: str, *cells: str, prose: str = "Some prose.", size: str = "size = 3  # how many") -> None:
        """Add a chapter with a cell of parameters, one that tells of the run, and ``cells``."""
        fences = [f"```{{code-cell}} ipython3\n:tags: [parameters]\n\n{size}\n```"]
        fences += [f"```{{code-cell}} ipython3\n{cell}\n```" for cell in (TELL.format(name=name), *cells)]
        head = f"({name})=\n# Chapter {name}\n\n{prose}\n"
        self.page(name).write_text(HEADER + "\n\n".join([head, *fences]) + "\n\nThe end.\n")
        values = Chapter(name, self.page(name)).parameters
        self.parameters[name] = {"quick": values, "paper": dict(values)}
        self.write()

    def claim(self, id: str, **fields: object) -> None:
        """Add a record to claims.yml."""
        usual = {"source": "graceful", "where": "Sec. 1", "says": f"what {id} says", "status": "holds"}
        self.records.append({"id": id, **usual, **fields})
        self.write()

    def write(self) -> None:
        """Write the settings."""
        files = [{"file": f"book/{name}"} for name in (*self.parameters, "ledger", "execution")]
        toc = {"format": "jb-book", "root": "book/index", "chapters": files}
        (self.root / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
        (self.folder / "profiles.yml").write_text(yaml.safe_dump(self.parameters))
        (self.folder / "claims.yml").write_text(yaml.safe_dump(self.records, sort_keys=False))

    def own_package(self) -> None:
        """Give the book a copy of the package, with a chain of three modules and one that stands alone."""
        (self.root / "src").unlink()
        shutil.copytree(ROOT / "src", self.root / "src", ignore=shutil.ignore_patterns("__pycache__"))
        package = self.root / "src" / "slowmanifold"
        (package / "networks" / "deep.py").write_text("VALUE = 1\n")
        (package / "dynamics" / "middle.py").write_text("from slowmanifold.networks.deep import VALUE\n")
        (package / "upper.py").write_text("def value():\n    from .dynamics import middle\n    return middle.VALUE\n")
        (package / "networks" / "alone.py").write_text("VALUE = 2\n")

    def build(self, *names: str, profile: str = "quick", jobs: int = 2, timeout: int = 60) -> building.Built:
        """Build in this process."""
        return building.build(self.project, names, profile, jobs=jobs, timeout=timeout, reporter=Lines())

    @property
    def runs(self) -> Counter:
        """How often each chapter ran since the last look."""
        log = Path(os.environ["RUNS"])
        found = Counter(log.read_text().split()) if log.exists() else Counter()
        log.unlink(missing_ok=True)
        return found

    def notebook(self, kind: str, name: str, profile: str = "quick") -> nbformat.NotebookNode:
        return nbformat.read(self.root / "_build" / kind / profile / f"{name}.ipynb", as_version=4)

    def shown(self, name: str) -> str:
        """The page of a chapter in a site that is only copied."""
        return "\n".join(cell.source for cell in self.staged(name).cells)

    def staged(self, name: str) -> nbformat.NotebookNode:
        return nbformat.read(self.root / "_build" / "html" / "book" / f"{name}.ipynb", as_version=4)

    @property
    def processes(self) -> list[psutil.Process]:
        """What lives of the processes that this test started, however orphaned: they have its environment."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get("RUNS") == os.environ["RUNS"] and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def has_at_work(self, words: str) -> bool:
        """Whether one of these processes has ``words`` in its command line."""
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                if words in " ".join(process.cmdline()):
                    return True
        return False


@pytest.fixture(autouse=True)
def environment(tmp_path):
    """What the press puts into the environment for its kernels ends with the test."""
    with mock.patch.dict(os.environ, RUNS=str(tmp_path / "runs")):
        yield


@pytest.fixture
def copy(tmp_path):
    """A copy of the project itself."""
    root = tmp_path / "copy"
    for name in ("src", "book"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_toc.yml", "_config.yml", "requirements.txt"):
        shutil.copy(ROOT / name, root)
    return Workshop(root)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """An empty book whose site, made in this process, is only copied."""
    monkeypatch.setattr(publishing, "build_site", lambda staged, output, **options: shutil.copytree(staged, output))
    root = tmp_path / "project"
    (root / "book").mkdir(parents=True)
    return Book(root)


prepare = papermill.execute_notebook
ONE_AT_A_TIME = threading.Lock()


def run_here(source, path, *, parameters, **options):
    """papermill without a kernel: the cells run in this process; what they print and display is their output."""
    notebook = prepare(source, path, parameters=parameters, prepare_only=True)
    outputs: list[nbformat.NotebookNode] = []

    def show(*words):
        outputs.append(new_output("stream", name="stdout", text=" ".join(map(str, words)) + "\n"))

    def display(data, *, raw, metadata):
        outputs.append(new_output("display_data", data=data, metadata=metadata))

    names = {"print": show}
    with ONE_AT_A_TIME, mock.patch("IPython.display.display", display):
        for number, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
            exec(cell.source, names)
            cell.execution_count = number
            cell.metadata.papermill = {"duration": 0.0, "status": "completed"}
            cell.outputs = outputs.copy()
            outputs.clear()
    notebook.metadata.papermill = {"duration": 0.0}
    return notebook


@pytest.fixture
def instant(book, monkeypatch):
    """No kernels in this process, for what is not about them: each costs more than a second."""
    monkeypatch.setattr(papermill, "execute_notebook", run_here)
    monkeypatch.chdir(book.folder)


@pytest.fixture
def until():
    """Wait until something is so; fail after ``seconds``."""

    def wait(so: Callable[[], object], seconds: float = 60.0) -> object:
        end = time.monotonic() + seconds
        while not (found := so()):
            assert time.monotonic() < end, "it did not come to pass"
            time.sleep(0.02)
        return found

    return wait
