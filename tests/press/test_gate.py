"""The gate: it opens for what the book computes, and no way of comparing nothing opens it."""

import re
import shutil

import nbformat
import pytest
from nbformat.v4 import new_output

from slowmanifold.press import gate
from slowmanifold.press.build import fresh_runs
from slowmanifold.press.chapters import Failed
from slowmanifold.press.cli import Lines

MEASURE = "from slowmanifold.claims import claim\nclaim('{}.size', size + noise)"
# A digit that is another on every machine, here with every run, and that the claim's tolerance makes safe.
NOISE = "import time\nnoise = (time.time_ns() % 1000) / 10000"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the book with its references is kept between the tests of this file."""
    return tmp_path_factory.mktemp("gate") / "project"


@pytest.fixture
def guarded(book, kept, monkeypatch):
    """A book of one chapter with a data file, a figure, a claim and prints, and its reference."""
    if kept.exists():
        shutil.rmtree(book.root)
        shutil.copytree(kept, book.root, symlinks=True)
        book.parameters = {"one": {profile: {"size": 3} for profile in ("quick", "paper")}}
        return book
    book.claim("one.size", expect=3, within=0.5, says="the size is <3>")
    (book.folder / "data.txt").write_text("data of the book")
    book.chapter(
        "one",
        "print(open('data.txt').read())",
        NOISE,
        MEASURE.format("one"),
        "from slowmanifold.figures import figure\n"
        "figure('line', lambda ax: ax.plot([1, size]), size=(1, 1), caption='A line.',\n"
        "       alt='A line rises to the right.', data={'y': [1, size]})",
        "size * 2",
    )
    rewrite(book)
    shutil.copytree(book.root, kept, symlinks=True)
    return book


def rewrite(book):
    for name, run in fresh_runs(book.project, [], "quick", jobs=2, timeout=60, reporter=Lines()).items():
        gate.rewrite(book.project.reference(name), run)


def change(book, edit):
    """Change the reference of the chapter by hand."""
    path = book.project.reference("one")
    notebook = nbformat.read(path, as_version=4)
    edit(notebook)
    nbformat.write(notebook, path)


def test_sweeps_are_run_and_not_read(book, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "slowmanifold" / "sweeps").mkdir(parents=True)
    book.claim("one.size", expect=3, within=0.5)
    folder = "from slowmanifold.sweep import default_folder\nsize, noise = 3, 0\nprint(default_folder().exists())"
    book.chapter("one", folder, MEASURE.format("one"))
    rewrite(book)
    assert "the gate is open" in gate.check(book.project, 1, 60)


def check(book, timeout=60):
    return gate.check(book.project, 2, timeout)


def closed(book, message=None, timeout=60):
    with pytest.raises(Failed, match=message) as failed:
        check(book, timeout)
    return str(failed.value)


# Open


def test_it_opens_for_a_book_that_computes_what_it_did_and_says_how_much_it_compared(guarded):
    assert check(guarded) == "the gate is open: 1 chapters, 8 cells run, 4 outputs compared"


def test_a_reference_holds_nothing_that_differs_between_machines_or_runs(guarded):
    path = guarded.project.reference("one")
    text = path.read_text()
    run = guarded.notebook("executed", "one")
    for word in ("image/png", "papermill", "duration", str(guarded.root), "/tmp", run.metadata.slowmanifold.date[:10]):
        assert word not in text, word
    assert not {cell.id for cell in run.cells} & {cell.id for cell in nbformat.read(path, as_version=4).cells}
    guarded.project.executed("quick", "one").unlink()
    rewrite(guarded)
    assert path.read_text() == text, "two runs give the same bytes"


# Closed, as there is nothing to compare: each way has its own message, and none runs a cell


def unexecuted(notebook):
    notebook.cells[2].execution_count = None


def other_code(notebook):
    notebook.cells[4].source = "noise = 0"


def other_parameters(notebook):
    notebook.cells[1].source = "# Parameters\nsize = 4\n"


def without_parameters(notebook):
    del notebook.cells[1]


def without_claim(notebook):
    for cell in notebook.cells:
        for output in cell.outputs:
            output.pop("metadata", None) if output.output_type == "stream" else output.metadata.clear()


def without_outputs(notebook):
    for cell in notebook.cells:
        cell.outputs = []


def without_cells(notebook):
    notebook.cells = []


def fewer_cells(notebook):
    del notebook.cells[-1]


def tagged(tag):
    def edit(notebook):
        notebook.cells[3].metadata.tags = [tag]

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (unexecuted, "one: cell 3 of the reference was never executed; run: slowmanifold reference one"),
        (other_code, "one: its code differs from the reference's; run: slowmanifold reference one"),
        (fewer_cells, "one: its code differs from the reference's"),
        (without_cells, "one: its code differs from the reference's"),
        (other_parameters, "one: its quick parameters differ from the reference's; run: slowmanifold reference one"),
        (without_parameters, "one: its quick parameters differ from the reference's"),
        (without_claim, "one: the reference checks no claim"),
        (without_outputs, "one: the reference has no output to compare"),
        (tagged("nbval-ignore-output"), "one: cell 4 tells nbval to pass over it"),
        (tagged("nbval-skip"), "one: cell 4 tells nbval to pass over it"),
        (tagged("raises-exception"), "one: cell 4 tells nbval to pass over it"),
    ],
)
def test_a_reference_that_would_compare_nothing_closes_it(guarded, monkeypatch, edit, message):
    change(guarded, edit)
    monkeypatch.setattr(gate.subprocess, "run", None)
    assert message in closed(guarded, "the references do not cover the book")


def test_a_chapter_whose_comments_tell_nbval_to_look_away_closes_it(guarded, monkeypatch):
    guarded.edit("book/one.md", "print(open", "# NBVAL_IGNORE_OUTPUT\nprint(open")
    change(guarded, lambda notebook: notebook.cells[3].update(source=guarded.project.chapters["one"].parsed.code[2]))
    monkeypatch.setattr(gate.subprocess, "run", None)
    assert closed(guarded).splitlines()[1:] == ["  one: cell 4 tells nbval to pass over it"]


def test_a_chapter_without_a_reference_and_a_reference_without_a_chapter_close_it(guarded, monkeypatch):
    monkeypatch.setattr(gate.subprocess, "run", None)
    guarded.chapter("two")
    shutil.copy(guarded.project.reference("one"), guarded.project.reference("three"))
    assert closed(guarded).splitlines()[1:] == [
        "  two: has no reference that can be read; run: slowmanifold reference two",
        "  three.ipynb: is a reference without a chapter; remove it",
    ]
    guarded.project.reference("one").write_text("<<<<<<< HEAD\n{")
    assert "one: has no reference that can be read" in closed(guarded)


def test_a_chapter_or_a_profile_that_changed_closes_it(guarded, monkeypatch):
    monkeypatch.setattr(gate.subprocess, "run", None)
    guarded.edit("book/one.md", "size * 2", "size * 3")
    assert "one: its code differs" in closed(guarded)
    guarded.edit("book/one.md", "size * 3", "size * 2")
    guarded.parameters["one"]["quick"] = {"size": 4}
    (guarded.folder / "profiles.yml").write_text("one: {quick: {size: 4}, paper: {size: 3}}")
    assert "one: its quick parameters differ" in closed(guarded)


def test_a_book_without_chapters_closes_it(book, monkeypatch):
    monkeypatch.setattr(gate.subprocess, "run", None)
    assert "_toc.yml: lists no chapter" in closed(book)


# Closed, as something differs


def test_every_difference_closes_it_and_is_shown(guarded):
    def edit(notebook):
        _, _, told, data, *_, size = notebook.cells
        told.outputs.append(new_output("stream", text="no longer there\n"))
        data.outputs.clear()
        size.outputs[0].data["text/plain"] = "7"

    change(guarded, edit)
    guarded.edit("book/claims.yml", "the size is <3>", "the size is three")
    told = closed(guarded, "the gate is closed: 8 of 8 cells ran, 4 of them failed or were passed over")
    assert set(re.findall(r"^FAILED book/one\.ipynb::Cell (\d)", told, re.MULTILINE)) == {"2", "3", "5", "7"}
    for words in ("Missing output fields", "Unexpected output fields", "e size is three", "'7' == '6'"):
        assert words in told


def test_a_claim_that_turns_red_closes_it_whatever_the_shell_says(guarded, monkeypatch):
    monkeypatch.setenv("SLOWMANIFOLD_CLAIMS", "report")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--nbval-lax -k nothing")
    guarded.edit("book/claims.yml", "expect: 3", "expect: 4")
    assert "ClaimContradicted" in closed(guarded, "1 of them failed")


def test_a_time_out_closes_it_though_nbval_expects_the_rest_to_fail(guarded):
    guarded.edit("book/one.md", "import time\n", "import time\ntime.sleep(60)\n")
    change(guarded, lambda notebook: notebook.cells[4].update(source=guarded.project.chapters["one"].parsed.code[3]))
    told = closed(guarded, "the gate is closed: 8 of 8 cells ran", timeout=3)
    assert "Timeout of 3 seconds exceeded" in told
    assert "1 xfailed" in told


def test_a_kernel_that_dies_closes_it(guarded):
    guarded.edit("book/one.md", "import time\n", "import time\nos._exit(0)\n")
    change(guarded, lambda notebook: notebook.cells[4].update(source=guarded.project.chapters["one"].parsed.code[3]))
    told = closed(guarded, "the gate is closed: 8 of 8 cells ran", timeout=3)
    assert re.findall(r"^FAILED book/one\.ipynb::Cell (\d)", told, re.MULTILINE) == ["4"]
    assert "3 xfailed" in told
