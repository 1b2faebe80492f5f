"""A build that is killed at any moment, or has no room to write, loses nothing and shows nothing half made."""

import random
import signal
import time

import nbformat

from slowmanifold.press.build import states
from slowmanifold.press.execute import RECORD

KILLS = 20
# The site is copied file by file, slowly enough that a kill may come in between.
SLOWLY = """\
import shutil, time
from slowmanifold.press import build, cli

def copy(source, target):
    time.sleep(0.005)
    return shutil.copy2(source, target)

build.build_site = lambda staged, output, *, strict=True: shutil.copytree(staged, output, copy_function=copy)
cli.main()
"""


def fresh(book):
    """The chapters whose last run is up to date."""
    return {name for name, state in states(book.project, "quick").items() if not state.stale}


def check_nothing_is_half(book):
    """Each run that is kept is whole, and so is the site that readers see, if there is one."""
    for path in (book.root / "_build").glob("executed/quick/*.ipynb"):
        run = nbformat.read(path, as_version=4)
        assert run.metadata[RECORD]["seconds"] > 0
        assert run.cells[-1].source == "The end."
    shown = book.root / "_build" / "html"
    if shown.is_symlink():
        pages = sorted(path.name for path in (shown / "book").iterdir() if path.is_file())
        assert pages == sorted(
            ["one.ipynb", "two.ipynb", "index.md", "references.bib", "claims.yml", "profiles.yml"]
            + ["api.md", "benchmarks.md", "execution.md", "ledger.md"]
        )
        for name in ("one", "two"):
            assert "The end." in book.shown(name)
        assert (shown / "book" / "_static" / "book.css").read_bytes() == (
            book.folder / "_static" / "book.css"
        ).read_bytes()


def test_a_build_killed_at_any_moment_loses_nothing_and_shows_no_half_page(book, until):
    for name in ("one", "two"):
        book.chapter(name, "version = 0", "import time\ntime.sleep(0.2)\nprint(version)")
    start = time.monotonic()
    assert book.press("build", driver=SLOWLY).returncode == 0
    whole = time.monotonic() - start
    moments, killed, version = random.Random(0), 0, 0
    while killed < KILLS:
        before = fresh(book)
        if before == {"one", "two"}:
            version += 1
            for name in before:
                book.edit(f"book/{name}.md", f"version = {version - 1}", f"version = {version}")
            before = set()
        assert book.runs.keys() <= {"one", "two"}
        build = book.start("build", driver=SLOWLY)
        time.sleep(moments.uniform(0.2, 1.0) * whole)
        killed += build.poll() is None
        build.send_signal(signal.SIGKILL)
        build.communicate()
        until(lambda: not book.processes)  # its kernels end with it
        check_nothing_is_half(book)
        assert before <= fresh(book), "what was finished is kept"
        assert not before & book.runs.keys(), "what was finished is not run again"
    assert book.press("build", driver=SLOWLY).returncode == 0
    check_nothing_is_half(book)
    assert fresh(book) == {"one", "two"}
    for name in ("one", "two"):
        assert f"version = {version}" in book.shown(name)
    assert len(list((book.root / "_build" / "sites").iterdir())) == 1
