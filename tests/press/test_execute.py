"""A chapter that fails, a build that is stopped: the others go on, what is finished stays, no kernel outlives it."""

import os
import signal
import subprocess

import nbformat
import pytest

from slowmanifold.press import execute
from slowmanifold.press.chapters import Chapter
from slowmanifold.press.execute import code_cells, commit, lines, processor
from slowmanifold.press.keys import records_key

# Waits for a file and tells with another that it does.
WAIT = """\
import os, time
open(os.environ["RUNS"] + ".waits", "w").close()
while not os.path.exists(os.environ["RUNS"] + ".go"):
    time.sleep(0.02)"""


def waits():
    """Whether a chapter has come to the point where it waits."""
    return os.path.exists(os.environ["RUNS"] + ".waits")


def go():
    open(os.environ["RUNS"] + ".go", "w").close()


def notebooks(book):
    """All notebooks that are made, read: one that is half written does not read."""
    return {path: nbformat.read(path, as_version=4) for path in (book.root / "_build").rglob("*.ipynb")}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("1 / (size - 3)", "ZeroDivisionError: division by zero"),
        ("import time; time.sleep(60)", "the cell took more than 4 s"),
        ("import os; os._exit(1)", "the kernel died"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the kernel died"),
    ],
    ids=["raises", "takes too long", "exits", "is killed"],
)
def test_a_chapter_that_fails_does_not_stop_the_others(book, code, why):
    book.chapter("bad", "print('before')", code, "print('after')")
    book.chapter("good", "print('after all')")
    done = book.press("build", "--timeout", "4", "--jobs", "1")
    assert done.returncode == 1
    assert book.runs == {"bad": 1, "good": 1}
    # The cell that failed, why, and where its notebook is.
    assert "bad failed in cell 4:" in done.stderr
    assert f"    {code}\n" in done.stderr
    assert why in done.stderr
    assert "the failed notebook is kept in _build/failed/quick/bad.ipynb" in done.stderr
    assert "1 of 2 chapters executed" in done.stdout
    before, failed, after = code_cells(book.notebook("failed", "bad"))[2:]
    assert before.outputs[0].text == "before\n"
    assert failed.source == code
    assert after.execution_count is None
    # A site all the same: the good chapter with its outputs, the bad one with its text and what happened.
    assert book.staged("good").cells[-3].outputs[0].text == "after all\n"
    assert f"This chapter failed in cell 4: `{why}` It has never run to its end." in book.shown("bad")
    assert "Some prose." in book.shown("bad")
    assert not book.processes


def test_the_last_good_page_stays_until_the_next_good_run(book):
    book.chapter("one", "print(size)")
    book.build()
    book.edit("book/one.md", "print(size)", "print(siez)")
    book.edit("book/one.md", "Some prose.", "New prose.")
    assert set(book.build().failures) == {"one"}
    page = book.shown("one")
    assert page.startswith("(one)=\n# Chapter one\n\n:::{attention}\nThis chapter failed in cell 3: `NameError: ")
    assert "Below is the last good run." in page
    assert "Some prose." in page
    assert "New prose." not in page
    assert book.staged("one").cells[3].outputs[0].text == "3\n"
    assert book.project.failed("quick", "one").is_file()
    book.edit("book/one.md", "print(siez)", "print(size + 1)")
    assert not book.build().failures
    assert "{attention}" not in book.shown("one")
    assert "New prose." in book.shown("one")
    assert book.staged("one").cells[3].outputs[0].text == "4\n"
    assert not book.project.failed("quick", "one").exists()


def test_chapters_have_one_thread_whatever_the_shell_says(book, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    book.chapter("one", "import torch\nprint(torch.get_num_threads(), os.environ['OPENBLAS_NUM_THREADS'])")
    book.build()
    assert book.notebook("executed", "one").cells[-2].outputs[0].text == "1 1\n"


@pytest.mark.parametrize(("chapters", "jobs", "share"), [(1, 2, 8), (2, 2, 4), (2, 1, 8), (3, 3, 2), (2, 20, 4)])
def test_the_sweeps_of_chapters_share_the_cores(book, instant, monkeypatch, chapters, jobs, share):
    monkeypatch.setattr(execute, "CORES", 8)
    for number in range(chapters):
        book.chapter(f"c{number}", "print(os.environ['LOKY_MAX_CPU_COUNT'])")
    book.build(jobs=jobs)
    for number in range(chapters):
        assert book.notebook("executed", f"c{number}").cells[-2].outputs[0].text == f"{share}\n"


def test_chapters_run_in_the_folder_of_the_book(book):
    book.chapter("one", "print(os.getcwd())")
    book.build()
    assert book.notebook("executed", "one").cells[-2].outputs[0].text == f"{book.folder}\n"


def test_chapters_run_side_by_side(book):
    meet = "import time\nopen(os.environ['RUNS'] + '{}', 'w').close()\n"
    meet += "while not os.path.exists(os.environ['RUNS'] + '{}'):\n    time.sleep(0.02)"
    book.chapter("one", meet.format(1, 2))
    book.chapter("two", meet.format(2, 1))
    assert not book.build(jobs=2, timeout=30).failures


def test_a_run_records_what_it_was_made_of(book, monkeypatch):
    book.claim("one.size", expect=3, within=0.5)
    book.chapter("one", "from slowmanifold.claims import claim\nclaim('one.size', size)")
    book.build()
    record = book.notebook("executed", "one").metadata.slowmanifold
    project = book.project
    key = project.key(project.chapters["one"], {"size": 3})
    assert record.key == key | records_key(project.records, ["one.size"])
    assert record.text == book.page("one").read_text()
    assert record.profile == "quick"
    assert 0 < record.seconds < 60
    assert record.processor == processor()
    assert record.commit == "unknown", "outside git"
    assert str(book.root) not in book.project.executed("quick", "one").read_text()


def test_the_commit_says_whether_the_tree_differs_from_it(book, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *who, *words], cwd=book.root, check=True, capture_output=True, text=True).stdout

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "all")
    head = git("rev-parse", "--short=10", "HEAD").strip()
    assert commit(book.root) == head
    (book.folder / "index.md").write_text("# Edited\n")
    assert commit(book.root) == f"{head}+"
    monkeypatch.setenv("PATH", "")
    assert commit(book.root) == "unknown", "without git"


def test_the_lines_of_a_cell_are_those_where_its_code_stands_in_the_file(book):
    source = book.page("one")
    source.write_text(
        book.HEADER
        + "# One\n\n````md\n```{code-cell}\nshown = 0\n```\n````\n\n"
        + "```{code-cell} ipython3\nfirst = 1\nsecond = 2\n```\n"
        + "```{code-cell} ipython3\n:tags: [hide-input]\n\nthird = 3\n\n\n```\n"
        + "- a list\n\n~~~{code-cell} ipython3\n---\ntags: [a]\n---\nfourth = 4\n\nfifth = 5\n~~~\n"
        + "````{code-cell} ipython3\nfirst = 1\nsecond = 2\n````\n"
    )
    chapter = Chapter("one", source)
    text = source.read_text().splitlines()
    found = ["\n".join(text[first - 1 : last]) for first, last in lines(chapter)]
    assert found == [code.rstrip() for code in chapter.parsed.code]
    assert found == ["first = 1\nsecond = 2", "third = 3", "fourth = 4\n\nfifth = 5", "first = 1\nsecond = 2"]
    assert lines(chapter) == sorted(lines(chapter))


# A build that is stopped


def test_after_a_kill_the_finished_chapters_are_kept_and_the_next_build_goes_on(book, until):
    book.chapter("done")
    book.chapter("waits", WAIT)
    book.chapter("later")
    build = book.start("build", "--jobs", "1")
    until(waits)
    build.kill()
    assert build.wait() == -signal.SIGKILL
    assert [path.name for path in notebooks(book)] == ["done.ipynb"]
    assert not (book.root / "_build" / "html").exists()
    assert len(book.processes) == 1, "the kernel of the chapter that waits"
    until(lambda: not book.processes, 10)
    assert book.runs == {"done": 1, "waits": 1}
    go()
    again = book.press("build")
    assert (again.returncode, again.stderr) == (0, ""), "its lock ended with it"
    assert book.runs == {"waits": 1, "later": 1}
    assert {path.name for path in notebooks(book)} >= {"done.ipynb", "waits.ipynb", "later.ipynb"}


@pytest.mark.parametrize("command", [["build", "--jobs", "1"], ["run", "waits"]], ids=["build", "run"])
@pytest.mark.parametrize("moment", ["kernel starts", "cell runs"])
def test_ctrl_c_ends_kernels_and_keeps_what_is_finished(book, until, command, moment):
    book.chapter("done")
    book.chapter("waits", WAIT)
    book.chapter("later")
    process = book.start(*command)
    if moment == "cell runs":
        until(waits)
    else:
        while not process.stdout.readline().startswith("waits: "):
            pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.lstrip() == "slowmanifold: stopped; what is finished is kept\n"
    assert "failed" not in out
    assert not book.processes
    assert "later" not in book.runs
    assert {path.name for path in notebooks(book)} == ({"done.ipynb"} if command[0] == "build" else set())


def test_what_cannot_be_written_ends_the_build_in_one_line_and_with_it_all_kernels(book):
    book.chapter("done", "open('../_build/executed', 'w').close()")
    book.chapter("waits", WAIT)
    done = book.press("build", "--jobs", "2")
    assert done.returncode == 1
    assert done.stderr.startswith("slowmanifold: [Errno ")
    assert done.stderr.count("\n") == 1
    assert "_build/executed" in done.stderr
    assert not book.processes


def test_a_full_disk_ends_the_build_in_one_line_and_leaves_no_half_notebook(book, instant):
    full = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))\n"
    book.chapter("one")
    done = book.press("build", driver=full + book.DRIVER)
    assert (done.returncode, done.stderr) == (1, "slowmanifold: [Errno 27] File too large\n")
    assert not notebooks(book)
    assert not book.build().failures
    assert [path.name for path in (book.root / "_build" / "executed" / "quick").iterdir()] == ["one.ipynb"]
