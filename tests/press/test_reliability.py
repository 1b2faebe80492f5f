"""A build that is killed at any moment, or has no room to write, loses nothing and shows nothing half made."""

import random
import shutil
import signal
import sys
import time
from pathlib import Path

import nbformat

from slowmanifold.press import cli
from slowmanifold.press import publish as publishing
from slowmanifold.press.build import states
from slowmanifold.press.execute import RECORD

KILLS = 20
# The site is copied file by file, slowly enough that a kill may come in between.
SLOWLY = """\
import shutil, time
from slowmanifold.press import cli, publish

def copy(source, target):
    time.sleep(0.005)
    return shutil.copy2(source, target)

publish.build_site = lambda staged, output, **options: shutil.copytree(staged, output, copy_function=copy)
cli.main()
"""


def fresh(book):
    """The chapters whose last run is up to date."""
    return {name for name, state in states(book.project, "quick").items() if not state.stale}


def site_files(book):
    """The files of the site that readers see."""
    shown = book.root / "_build" / "html"
    return {path.relative_to(shown).as_posix() for path in shown.rglob("*") if path.is_file()}


def check_nothing_is_half(book, names, files):
    """Each run that is kept is whole, and so is the site that readers see: it has all its ``files``, to their ends."""
    for path in (book.root / "_build").glob("executed/quick/*.ipynb"):
        run = nbformat.read(path, as_version=4)
        assert RECORD in run.metadata
        assert all(cell.execution_count for cell in run.cells if cell.cell_type == "code")
    assert site_files(book) == files
    for name in names:
        assert "The end." in book.shown(name)
    style = Path("book", "_static", "book.css")
    assert (book.root / "_build" / "html" / style).read_bytes() == (book.root / style).read_bytes()


def test_a_build_killed_at_any_moment_loses_nothing_and_shows_no_half_page(book, until):
    names = {"one", "two"}
    for name in sorted(names):
        book.chapter(name, "version = 0", "import time\ntime.sleep(0.2)\nprint(version)")
    start = time.monotonic()
    assert book.press("build", driver=SLOWLY).returncode == 0
    whole = time.monotonic() - start
    files = site_files(book)
    moments, killed, version = random.Random(0), 0, 0
    while killed < KILLS:
        before = fresh(book)
        if before == names:
            version += 1
            for name in before:
                book.edit(f"book/{name}.md", f"version = {version - 1}", f"version = {version}")
            before = set()
        assert book.runs.keys() <= names
        build = book.start("build", driver=SLOWLY)
        time.sleep(moments.uniform(0.2, 1.0) * whole)
        killed += build.poll() is None
        build.send_signal(signal.SIGKILL)
        build.communicate()
        until(lambda: not book.processes)  # its kernels end with it
        check_nothing_is_half(book, names, files)
        assert before <= fresh(book), "what was finished is kept"
        assert not before & book.runs.keys(), "what was finished is not run again"
    assert book.press("build", driver=SLOWLY).returncode == 0
    check_nothing_is_half(book, names, files)
    assert fresh(book) == names
    for name in names:
        assert f"version = {version}" in book.shown(name)
    assert len(list((book.root / "_build" / "sites").iterdir())) == 1


# A command line that can write no file longer than ``room`` bytes, and no more can what it starts.
LITTLE_ROOM = """\
import resource
from slowmanifold.press import cli
from slowmanifold.press import publish as publishing
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY))
cli.main()
"""


def test_a_disk_that_is_full_when_a_run_is_kept_is_told_in_one_line(book, instant, monkeypatch, capsys):
    book.chapter("one")
    folder = book.root / "_build" / "executed" / "quick"
    folder.mkdir(parents=True)
    (folder / ".one.ipynb.draft").symlink_to("/dev/full")
    status, err = command_line(book, monkeypatch, capsys)
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("slowmanifold: [Errno 28] No space left on device")
    assert fresh(book) == set()
    assert not (book.root / "_build" / "html").exists()
    (folder / ".one.ipynb.draft").unlink()
    assert command_line(book, monkeypatch, capsys) == (0, "")
    assert fresh(book) == {"one"}
    assert "The end." in book.shown("one")


def test_a_disk_that_is_full_when_the_site_is_copied_is_told_in_one_line(book, instant, monkeypatch, capsys):
    def onto_a_full_disk(staged, output, **options):
        output.mkdir()
        (output / "index.md").symlink_to("/dev/full")
        shutil.copytree(staged / "book", output, dirs_exist_ok=True)

    book.chapter("one")
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "build_site", onto_a_full_disk)
        status, err = command_line(book, monkeypatch, capsys)
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("slowmanifold: [Errno 28] No space left on device: ")
    assert command_line(book, monkeypatch, capsys) == (0, "")


def command_line(book, monkeypatch, capsys):
    """Exit status and errors of ``slowmanifold build`` in this process."""
    monkeypatch.setattr(sys, "argv", ["slowmanifold", "build"])
    status = 0
    try:
        cli.main()
    except SystemExit as end:
        status = end.code
    return status, capsys.readouterr().err


def test_a_disk_that_is_full_when_the_site_is_made_is_told_in_one_line_and_the_last_site_stays(book):
    book.chapter("one")
    assert book.press("build").returncode == 0
    shown = (book.root / "_build" / "html").resolve()
    book.edit("book/index.md", "Its front page.", "Its new page.")
    done = book.press("build", driver=LITTLE_ROOM.format(room=400_000))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("slowmanifold: [Errno 27] File too large: ")
    assert str(book.root / "_build" / "sites") in done.stderr
    assert (book.root / "_build" / "html").resolve() == shown
    assert "Its front page." in (shown / "book" / "index.md").read_text()
    assert fresh(book) == {"one"}
    assert book.runs == {"one": 1}
