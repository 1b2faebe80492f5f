"""Nothing stale, nothing twice: which edit runs which chapter again, and what readers see meanwhile."""

import os

import pytest

from slowmanifold.press import build as building
from slowmanifold.press import publish as publishing
from slowmanifold.press.build import State, run_aside, states, to_run
from slowmanifold.press.chapters import Chapter, Failed, Refused
from slowmanifold.press.cli import Lines
from slowmanifold.press.execute import Failure, Run
from slowmanifold.press.site import SiteError


def snapshot(folder):
    """Every file and link below ``folder`` with what a rewrite would change."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }


def stale(book):
    return {name: state.stale for name, state in states(book.project, "quick").items()}


def test_an_edit_in_the_package_runs_the_chapters_that_import_it_and_no_others(book):
    book.own_package()
    book.chapter("chain", "from slowmanifold.upper import value\nprint(value())")
    book.chapter("single", "from slowmanifold.networks.alone import VALUE\nprint(VALUE)")
    book.chapter("plain", "print(0)")
    book.press("build")
    assert book.runs == {"chain": 1, "single": 1, "plain": 1}
    networks = "src/slowmanifold/networks"
    book.edit(f"{networks}/deep.py", "1", "10")
    assert book.press("build").returncode == 0
    assert book.runs == {"chain": 1}
    assert book.notebook("executed", "chain").cells[-2].outputs[0].text == "10\n"
    book.edit(f"{networks}/alone.py", "2", "20")
    told = dict(line.split(maxsplit=1) for line in book.press("status").stdout.splitlines())
    assert told["single"].startswith("stale: slowmanifold.networks.alone  (last run 2")
    assert told["chain"].startswith("fresh")
    assert told["plain"].startswith("fresh")


def test_an_edit_runs_again_the_chapter_whose_key_it_changes_and_the_status_names_the_part(book, instant):
    # The ids are put together in the run, where no reading of the code can find them.
    measure = "from slowmanifold.claims import claim\nclaim('.'.join(['{}', 'size']), size)"
    for name in ("one", "two"):
        book.claim(f"{name}.size", expect=3, within=1)
    (book.folder / "heights.csv").write_text("1\n2\n")
    book.chapter("one", measure.format("one"), "heights = open('heights.csv').read()")
    book.chapter("two", measure.format("two"))
    book.build()
    assert book.runs == {"one": 1, "two": 1}
    for path, old, new, part, ran in (
        ("book/one.md", "heights =", "height =", "code cells", {"one"}),
        ("book/profiles.yml", "quick:\n    size: 3\ntwo", "quick:\n    size: 4\ntwo", "parameters", {"one"}),
        ("book/claims.yml", "what one.size says", "what one says", "claim one.size", {"one"}),
        ("book/heights.csv", "1\n2", "1\n3", "book/heights.csv", {"one"}),
        ("requirements.txt", "\nnumpy==", "\n\nnumpy==", "requirements.txt", {"one", "two"}),
    ):
        book.edit(path, old, new)
        assert stale(book) == {name: [part] * (name in ran) for name in ("one", "two")}
        assert set(book.build().executed) == ran
        assert book.runs == dict.fromkeys(ran, 1), part
        assert stale(book) == {"one": [], "two": []}
    assert book.notebook("executed", "one").metadata.slowmanifold.parameters == {"size": 4}


def test_a_prose_edit_runs_nothing_and_shows_the_new_prose_with_the_outputs_of_the_run(book, instant):
    book.chapter("one", "import time\nprint(time.time_ns())")
    book.build()
    printed = [cell.outputs for cell in book.staged("one").cells if cell.cell_type == "code"]
    run = snapshot(book.root / "_build" / "executed")
    book.edit("book/one.md", "Some prose.", "Better prose.")
    built = book.build()
    assert (built.executed, built.remade) == ([], True)
    assert book.runs == {"one": 1}
    assert "Better prose." in book.shown("one")
    assert "Some prose." not in book.shown("one")
    assert [cell.outputs for cell in book.staged("one").cells if cell.cell_type == "code"] == printed
    assert snapshot(book.root / "_build" / "executed") == run


def test_a_second_build_changes_nothing_at_all(book, instant):
    book.chapter("one")
    book.build()
    before = snapshot(book.root / "_build")
    built = book.build()
    assert (built.executed, built.remade) == ([], False)
    assert snapshot(book.root / "_build") == before
    assert book.runs == {"one": 1}


@pytest.mark.parametrize(
    "path", ["book/index.md", "book/references.bib", "book/_static/book.css", "_config.yml", "book/claims.yml"]
)
def test_an_edit_that_no_chapter_depends_on_remakes_the_site_alone(book, instant, path):
    book.chapter("one")
    book.claim("other.claim", verdict_only=True, status="open")
    book.build()
    (book.root / path).write_text((book.root / path).read_text() + "\n")
    built = book.build()
    assert (built.executed, built.remade) == ([], True)


def test_an_edit_in_the_press_remakes_the_site(book, instant):
    book.own_package()
    book.chapter("one")
    book.build()
    with (book.root / "src" / "slowmanifold" / "press" / "pages.py").open("a") as module:
        module.write("\n")
    assert book.build().remade


@pytest.mark.parametrize(
    ("old", "new", "runs"), [("Some prose.", "Better prose.", 1), ("print(1)", "print(2)", 2)], ids=["prose", "code"]
)
def test_an_edit_while_the_build_is_at_work_is_not_lost(book, instant, old, new, runs):
    class Editor(Lines):
        def started(self, name, cells):
            book.edit("book/one.md", old, new)

    book.chapter("one", "print(1)")
    building.build(book.project, [], "quick", jobs=1, timeout=60, reporter=Editor())
    assert old in book.shown("one")
    assert book.build().remade
    assert new in book.shown("one")
    assert book.runs == {"one": runs}


def test_a_module_edited_while_the_chapter_runs_makes_it_stale(book):
    class Editor(Lines):
        def advanced(self, name):
            (book.root / "src" / "slowmanifold" / "networks" / "deep.py").write_text("VALUE = 3\n")

    book.own_package()
    book.chapter("one", "from slowmanifold.claims import claim")
    project = book.project
    project.imports.add_module("slowmanifold.networks.deep")
    project.imports.add_import(importer="slowmanifold.claims", imported="slowmanifold.networks.deep")
    building.build(project, [], "quick", jobs=1, timeout=60, reporter=Editor())
    assert states(project, "quick")["one"].stale == ["slowmanifold.networks.deep"]
    assert "Changed since: slowmanifold.networks.deep." in book.shown("one")


def test_only_the_chapters_asked_for_run_and_the_others_say_that_they_did_not(book, instant):
    book.chapter("one", "print(1)")
    book.chapter("two", "print(2)")
    book.build("two")
    assert book.runs == {"two": 1}
    assert "This chapter has not been executed." in book.shown("one")
    assert "{attention}" not in book.shown("two")
    book.build()
    assert book.runs == {"one": 1}
    assert "{attention}" not in book.shown("one")


def test_a_stale_page_is_that_of_its_run_and_says_what_changed(book, instant):
    book.chapter("one", "print(1)")
    book.chapter("two")
    book.build()
    book.edit("book/one.md", "print(1)", "print(2)")
    book.edit("book/one.md", "Some prose.", "Prose on two.")
    book.build("two")
    assert "This page shows an earlier run. Changed since: code cells." in book.shown("one")
    assert "Some prose." in book.shown("one")
    assert "print(2)" not in book.shown("one")


def test_each_profile_keeps_its_runs(book, instant):
    book.chapter("one", "print(size)")
    book.edit("book/profiles.yml", "paper:\n    size: 3", "paper:\n    size: 300")
    book.build()
    book.build(profile="paper")
    assert "size = 300" in book.shown("one")
    built = book.build()
    assert (built.executed, built.remade) == ([], True)
    assert "size = 3 " in book.shown("one")
    assert book.runs == {"one": 2}


def test_earlier_sites_and_drafts_are_cleared_away(book, instant):
    book.chapter("one")
    for prose in ("First.", "Second.", "Third."):
        (book.folder / "index.md").write_text(f"# A small book\n\n{prose}\n")
        book.build()
        assert [path.name for path in (book.root / "_build" / "sites").iterdir()] == [
            (book.root / "_build" / "html").readlink().name
        ]


def test_a_site_that_cannot_be_made_leaves_the_last_one(book, instant, monkeypatch):
    def broken(staged, output, **options):
        output.mkdir()
        raise SiteError("WARNING: undefined label")

    book.chapter("one")
    book.build()
    before = snapshot(book.root / "_build" / "html" / "book")
    book.edit("book/index.md", "Its front page.", "Its new page.")
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "build_site", broken)
        with pytest.raises(Failed, match="undefined label"):
            book.build()
    assert snapshot(book.root / "_build" / "html" / "book") == before
    assert book.build().remade
    assert "Its new page." in (book.root / "_build" / "html" / "book" / "index.md").read_text()


def test_a_claim_measured_twice_fails_the_build_and_names_the_chapters(book, instant):
    book.claim("shared.size", expect=3, within=0.5)
    measure = "from slowmanifold.claims import claim\nclaim('shared.size', size)"
    book.chapter("one", measure)
    book.build()
    book.chapter("two", measure)
    with pytest.raises(Failed, match=r"shared\.size is measured twice: in one and in two"):
        book.build()
    assert "Chapter one" in book.shown("one"), "the last site stays"


def test_a_reader_cannot_silence_the_claims_of_the_book(book, monkeypatch):
    monkeypatch.setenv("SLOWMANIFOLD_CLAIMS", "report")
    book.claim("one.size", expect=4, within=0.5)
    book.chapter("one", "from slowmanifold.claims import claim\nclaim('one.size', size)")
    failure = book.build().failures["one"]
    assert "ClaimContradicted" in failure.reason
    assert "one.size" in failure.reason


def test_a_claim_without_a_record_fails_its_chapter(book):
    book.chapter("one", "from slowmanifold.claims import claim\nclaim('one.none', 3.0)")
    assert "one.none" in book.build().failures["one"].reason.splitlines()[-1]


def test_a_damaged_run_is_as_good_as_none(book, instant):
    book.chapter("one")
    book.build()
    path = book.project.executed("quick", "one")
    path.write_text(path.read_text()[:100])
    assert stale(book) == {"one": ["never executed"]}
    assert not book.build().failures
    assert book.runs == {"one": 2}


# A run with a reader's own parameters


def aside(book, name="one", output=None, **parameters):
    project = book.project
    values = {**project.parameters(project.chapters[name], "quick"), **parameters}
    return run_aside(project, project.chapters[name], values, "quick", output, timeout=60, reporter=Lines())


def test_a_run_of_ones_own_has_its_parameters_and_leaves_the_book_untouched(book, tmp_path):
    book.claim("one.size", expect=3, within=0.5)
    book.chapter("one", "from slowmanifold.claims import claim\nclaim('one.size', size)\nprint(size)")
    book.build()
    before = snapshot(book.root)
    outcome, folder = aside(book, output=tmp_path / "mine", size=50)
    assert isinstance(outcome, Run)
    assert folder == tmp_path / "mine"
    assert sorted(path.name for path in folder.iterdir()) == ["html", "one.ipynb"]
    assert outcome.notebook.metadata.slowmanifold.parameters == {"size": 50}
    page = (folder / "html" / "book" / "one.ipynb").read_text()
    assert "size = 50" in page
    assert "claim-contradicted" in page, "what the parameters contradict is shown, not raised"
    assert snapshot(book.root) == before
    assert stale(book) == {"one": []}
    assert not book.build().remade


def test_a_run_of_ones_own_goes_to_a_folder_for_its_parameters(book, instant):
    book.chapter("one", "print(size)")
    folders = [aside(book, size=size)[1] for size in (4, 5, 4)]
    assert folders[0] == folders[2] != folders[1]
    assert set((book.root / "_build" / "runs").iterdir()) == set(folders)


def test_a_failed_run_of_ones_own_keeps_its_notebook(book, tmp_path):
    book.chapter("one", "1 / (size - 3)")
    outcome, folder = aside(book, output=tmp_path / "mine", size=3)
    assert isinstance(outcome, Failure)
    assert [path.name for path in folder.iterdir()] == ["one.ipynb"]
    assert "ZeroDivisionError" in (folder / "one.ipynb").read_text()


@pytest.mark.parametrize("output", ["taken", "file/mine"])
def test_a_run_of_ones_own_that_cannot_be_kept_is_not_begun(book, output):
    book.chapter("one")
    (book.root / "taken").mkdir()
    (book.root / "file").write_text("")
    with pytest.raises((Refused, OSError), match=output.split("/")[0]):
        aside(book, output=book.root / output)
    assert not book.runs
    assert not list((book.root / "taken").iterdir())


def test_a_page_that_cannot_be_made_does_not_lose_the_run(book, instant, tmp_path, monkeypatch):
    def broken(staged, output, **options):
        raise SiteError("no Sphinx")

    monkeypatch.setattr(publishing, "build_site", broken)
    book.chapter("one")
    with pytest.raises(Failed, match="no Sphinx"):
        aside(book, output=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["one.ipynb"]


# Several at once, and none to its end

WAIT = "import os, time\nwhile not os.path.exists(os.environ['RUNS'] + '-go'):\n    time.sleep(0.02)"


def go():
    open(os.environ["RUNS"] + "-go", "w").close()


def test_what_took_longest_runs_first_and_what_never_ran_here_before_all(book):
    def state(name, seconds, key):
        record = {"key": {"code cells": "a"}, "seconds": seconds} if seconds else None
        return State(Chapter(name, book.page(name)), {}, {"code cells": key}, record, book.root)

    states = [state("short", 1.0, "b"), state("fresh", 9.0, "a"), state("long", 3.0, "b")]
    states += [state(name, None, "b") for name in ("quick", "slow", "new")]
    order = ["new", "slow", "quick", "long", "short"]
    assert list(to_run(states, {"long": 1.0, "quick": 10.0, "short": 90.0, "slow": 50.0})) == order


def test_a_second_build_says_that_another_is_at_work_and_leaves_it_alone(book, until):
    book.chapter("one", WAIT)
    first = book.start("build")
    until(lambda: book.runs == {"one": 1})
    second = book.press("build")
    assert second.returncode == 1
    assert second.stderr == "slowmanifold: another build is at work in this book; wait for it or stop it\n"
    go()
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert not book.runs
    assert "Chapter one" in book.shown("one")


# A build that a kill -9 ends in the middle of a function, when half of its work is done.
KILLED = """\
import os, shutil, signal
from slowmanifold.press import cli, execute, publish
def die(*arguments, **options):
    {half}
    os.kill(os.getpid(), signal.SIGKILL)
publish.build_site = lambda staged, output, **options: shutil.copytree(staged, output)
{function} = die
cli.main()
"""


def test_a_build_killed_while_it_writes_a_notebook_shows_no_half_of_it(book, instant):
    book.chapter("one")
    half = KILLED.format(function="os.replace", half="arguments[0].write_text('{half')")
    assert book.press("build", driver=half).returncode == -9
    assert book.runs == {"one": 1}
    assert not list((book.root / "_build").rglob("*.ipynb"))
    assert not (book.root / "_build" / "html").exists()
    assert book.build().executed == ["one"]
    assert [path.name for path in (book.root / "_build" / "executed" / "quick").iterdir()] == ["one.ipynb"]


@pytest.mark.parametrize(
    ("function", "half"),
    [
        ("publish.build_site", "os.mkdir(arguments[1]); shutil.copy(arguments[0] / '_toc.yml', arguments[1])"),
        ("publish.show", "pass"),
    ],
    ids=["site", "its link"],
)
def test_a_build_killed_while_it_makes_the_site_leaves_the_one_before(book, instant, function, half):
    book.chapter("one")
    book.build()
    before = snapshot(book.root / "_build" / "html" / "book")
    book.edit("book/index.md", "Its front page.", "Its new page.")
    assert book.press("build", driver=KILLED.format(function=function, half=half)).returncode == -9
    assert snapshot(book.root / "_build" / "html" / "book") == before
    assert book.build().remade
    assert "Its new page." in (book.root / "_build" / "html" / "book" / "index.md").read_text()
    assert len(list((book.root / "_build" / "sites").iterdir())) == 1
    assert book.runs == {"one": 1}


def test_a_build_killed_with_sphinx_at_work_is_in_nobodys_way(book, until):
    book.chapter("one")
    first = book.start("build", driver=None)
    until(lambda: book.has_at_work("slowmanifold.press.sphinx_process"), 60)
    first.kill()
    first.communicate()
    assert not (book.root / "_build" / "html").exists()
    again = book.press("build", driver=None)
    assert (again.returncode, again.stderr) == (0, "")
    assert book.runs == {"one": 1}
    page = book.root / "_build" / "html" / "book" / "one.html"
    assert page.read_text().rstrip().endswith("</html>")
    until(lambda: not book.processes)
