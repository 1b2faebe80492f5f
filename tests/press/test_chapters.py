"""What a chapter is, what its parameters are, and what its key depends on."""

import ast
import subprocess
import sys

import grimp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slowmanifold.press.chapters import Chapter, Refused, fitting, with_values
from slowmanifold.press.keys import changes, records_key, short
from slowmanifold.press.project import Project

# The table of contents


def test_the_project_is_found_from_anywhere_inside(book, tmp_path):
    deep = book.folder / "_static" / "fonts"
    assert {Project.around(folder).root for folder in (book.root, book.folder, deep)} == {book.root}
    with pytest.raises(Refused, match="no book here"):
        Project.around(tmp_path)


def test_chapters_are_the_listed_pages_with_a_kernel_in_the_order_of_the_contents(book):
    for name in ("one", "two", "unlisted"):
        book.chapter(name)
    (book.root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nparts:\n"
        "- caption: First\n  chapters:\n  - file: book/two\n    sections:\n    - file: book/one.md\n"
        "- caption: Second\n  chapters:\n  - file: book/notes\n  - file: book/ledger\n"
    )
    (book.folder / "notes.md").write_text("---\ntitle: no kernel\n---\n# Notes\n\n```python\nx = 1\n```\n")
    assert list(book.project.chapters) == ["two", "one"]
    with pytest.raises(Refused, match="no chapter 'unlisted'; there are two, one"):
        book.project.chapter("unlisted")


def test_a_page_with_code_cells_that_would_never_run_is_refused(book):
    book.chapter("one")
    book.edit("book/one.md", "kernelspec:\n  display_name: Python 3\n  language: python\n  name: python3\n", "")
    with pytest.raises(Refused, match=r"one\.md: has code cells, but its header has no kernelspec"):
        _ = book.project.chapters


@pytest.mark.parametrize("file", ["_toc.yml", "book/profiles.yml"])
@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n"])
def test_settings_that_cannot_be_read_are_refused_by_name(book, file, text):
    book.chapter("one")
    (book.root / file).write_text(text)
    with pytest.raises(Refused, match=file.rpartition("/")[2]) as refusal:
        book.project.parameters(book.project.chapters["one"], "quick")
    assert "\n" not in str(refusal.value)


def test_claims_that_cannot_be_read_are_refused_by_name(book):
    book.chapter("one")
    book.claim("one.claim", status="true")
    with pytest.raises(Refused, match=r"claims\.yml: one\.claim: status is 'true'"):
        _ = book.project.records


# Parameters


def chapter(book, cell):
    book.page("one").write_text(
        f"{book.HEADER}# One\n\n```{{code-cell}} ipython3\n:tags: [parameters]\n\n{cell}\n```\n"
    )
    return Chapter("one", book.page("one"))


def test_parameters_are_the_literals_of_the_tagged_cell(book):
    cell = 'n = 3  # one\nshift = -1.5e-3\nname = "α = 1"\ngrid = [\n    1,  # first\n    2,\n]\non = True\nnone = None'
    found = chapter(book, cell).parameters
    assert found == {"n": 3, "shift": -0.0015, "name": "α = 1", "grid": [1, 2], "on": True, "none": None}


@pytest.mark.parametrize("cell", ["n = 3 * 2", "n = m", "n = (", "n = list()"])
def test_parameters_that_are_no_literals_are_refused(book, cell):
    with pytest.raises(Refused, match="chapter one: the parameters must be literals"):
        _ = chapter(book, cell).parameters


def test_a_chapter_has_one_cell_of_parameters(book):
    book.chapter("one")
    book.edit("book/one.md", ":tags: [parameters]\n", "")
    with pytest.raises(Refused, match="chapter one: has 0 cells tagged parameters; it needs one"):
        _ = book.project.chapters["one"].parameters


values = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(),
    st.lists(st.integers(), max_size=4),
)


@given(first=values, second=values, third=values)
def test_the_cell_with_other_values_has_them_and_its_comments(first, second, third):
    source = '# über α\nfirst = 3  # die erste\nsecond = "ß"; third = [\n    1,\n    2,\n]  # die dritte\nfourth = 4'
    shown = with_values(source, {"first": first, "second": second, "third": third})
    names = {}
    exec(shown, names)
    assert [names[name] for name in ("first", "second", "third", "fourth")] == [first, second, third, 4]
    assert [comment for comment in ("# über α\n", "  # die erste\n", "  # die dritte\n") if comment not in shown] == []


def test_the_cell_with_its_own_values_is_itself():
    source = "first = 3  # one\nsecond = -1.5  # two"
    assert with_values(source, {"first": 3, "second": -1.5}) == source


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [("n", 4, 4), ("x", 2, 2.0), ("x", 0.5, 0.5), ("on", False, False), ("word", "b", "b"), ("grid", [], [])],
)
def test_a_value_of_the_type_of_the_default_fits_and_an_int_is_a_float(book, name, value, result):
    found = fitting(chapter(book, "n = 3\nx = 1.0\non = True\nword = 'a'\ngrid = [1]"), name, value)
    assert (found, type(found)) == (result, type(result))


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", 2.0), ("n", True), ("n", "2"), ("n", None), ("x", "1"), ("x", True), ("on", 1), ("word", 1), ("grid", 1)],
)
def test_a_value_of_another_type_is_refused_naming_all_three(book, name, value):
    with pytest.raises(Refused, match=f"parameter {name} of chapter one: .* is {type(value).__name__}; .* is wanted"):
        fitting(chapter(book, "n = 3\nx = 1.0\non = True\nword = 'a'\ngrid = [1]"), name, value)


def test_an_unknown_parameter_is_refused_and_the_known_are_listed(book):
    with pytest.raises(Refused, match="chapter one has no parameter 'm'; there are n, x"):
        fitting(chapter(book, "n = 3\nx = 1.0"), "m", 1)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"size": 3, "more": 1}, "only profiles.yml has the parameter 'more'"),
        ({}, "only the chapter has the parameter 'size'"),
        ({"size": "3"}, "parameter size of chapter one: '3' is str; int is wanted"),
    ],
)
def test_a_profile_that_does_not_fit_its_chapter_is_refused(book, profile, message):
    book.chapter("one")
    book.parameters["one"]["paper"] = profile
    book.write()
    project = book.project
    assert project.parameters(project.chapters["one"], "quick") == {"size": 3}
    with pytest.raises(Refused, match=message):
        project.parameters(project.chapters["one"], "paper")


def test_an_unknown_profile_is_refused_and_the_known_are_listed(book):
    book.chapter("one")
    assert book.project.check_profile("paper") == "paper"
    with pytest.raises(Refused, match="no profile 'draft'; there are quick, paper"):
        book.project.check_profile("draft")


# The key


def key(book, **parameters):
    project = book.project
    return project.key(project.chapters["one"], {"size": 3, **parameters})


def test_each_part_of_the_key_changes_with_its_cause_alone(book, monkeypatch):
    book.own_package()
    (book.folder / "data.csv").write_text("1")
    (book.folder / "other.csv").write_text("1")
    code = "import numpy\nfrom slowmanifold.claims import claim"
    book.chapter("one", code, "print('data.csv')", prose="Prose on other.csv.")
    first = key(book)
    assert set(first) == {
        "code cells",
        "parameters",
        "requirements.txt",
        "Python",
        "slowmanifold",
        "slowmanifold.claims",
        "book/data.csv",
    }
    package = book.root / "src" / "slowmanifold"
    for path in (package / "figures.py", book.folder / "other.csv", book.folder / "_static" / "book.css"):
        path.write_text(path.read_text() + "\n")
    book.edit("book/one.md", "Prose on", "Better prose on")
    book.edit("book/one.md", "The end.", "% a comment\n\nThe very end.")
    assert key(book) == first
    assert changes(first, key(book, size=4)) == ["parameters"]
    for path, part in (
        (package / "__init__.py", "slowmanifold"),
        (package / "claims.py", "slowmanifold.claims"),
        (book.folder / "data.csv", "book/data.csv"),
        (book.root / "requirements.txt", "requirements.txt"),
    ):
        before = key(book)
        path.write_text(path.read_text() + "\n")
        assert changes(before, key(book)) == [part]
    before = key(book)
    book.edit("book/one.md", "import numpy", "import numpy as np")
    assert changes(before, key(book)) == ["code cells"]
    before = key(book)
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    assert changes(before, key(book)) == ["Python"]


def test_the_records_of_measured_claims_are_part_of_the_key(book):
    for name in ("one.claim", "one.other"):
        book.claim(name, verdict_only=True)
    measured = ["one.claim", "one.none"]
    key = records_key(book.project.records, measured)
    book.edit("book/claims.yml", "what one.other says", "something else")
    assert records_key(book.project.records, measured) == key
    book.claim("one.none", verdict_only=True)
    assert changes(key, records_key(book.project.records, measured)) == ["claim one.none"]
    book.edit("book/claims.yml", "what one.claim says", "something else")
    assert changes(key, records_key(book.project.records, measured)) == ["claim one.claim", "claim one.none"]


def test_the_short_key_changes_with_any_part(book):
    book.chapter("one")
    first = key(book)
    assert short(first) == short(dict(reversed(first.items())))
    assert len({short(first)} | {short({**first, part: "other"}) for part in first}) == len(first) + 1


def test_a_literal_may_be_longer_than_a_file_name(book):
    book.chapter("one", f"caption = {'a long caption. ' * 400!r}", "null = 'a.b\\0'")
    assert "code cells" in key(book)


def test_a_cell_that_is_not_python_is_refused_with_its_line(book):
    book.chapter("one", "x = 1\ny = = 2")
    with pytest.raises(Refused, match="chapter one: a code cell is not Python: invalid syntax: y = = 2"):
        key(book)


# A package of the same name, in which packages import too.
TREE = {
    "__init__.py": "",
    "lone.py": "",
    "side.py": "",
    "below.py": "import slowmanifold.side",
    "top.py": "from .pack import inner\nvalue = 1",
    "pack/__init__.py": "from slowmanifold import below\nfrom .within import B",
    "pack/within.py": "B = 1",
    "pack/inner.py": "A = 1",
}
LOADED = "print(*sorted(name for name in sys.modules if name.partition('.')[0] == 'slowmanifold'))"
GRAPH = """
import grimp
graph = grimp.build_graph("slowmanifold", cache_dir=None)
print({name: sorted(graph.find_modules_directly_imported_by(name)) for name in graph.modules})
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Runs Python where that package is the one there is, and returns what it prints."""
    folder = tmp_path_factory.mktemp("tree")
    for name, text in TREE.items():
        path = folder / "slowmanifold" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def python(script):
        options = {"env": {"PYTHONPATH": str(folder)}, "capture_output": True, "text": True, "check": True}
        return subprocess.run([sys.executable, "-c", script], **options).stdout

    return python


@pytest.fixture(scope="module")
def graph(elsewhere):
    imports = ast.literal_eval(elsewhere(GRAPH))
    found = grimp.ImportGraph()
    for name in imports:
        found.add_module(name)
    for importer, importeds in imports.items():
        for imported in importeds:
            found.add_import(importer=importer, imported=imported)
    return found


@pytest.mark.parametrize(
    "statement",
    [
        "import slowmanifold.top",
        "from slowmanifold import top",
        "from slowmanifold.top import value",
        "from slowmanifold.pack.inner import A",
        "from slowmanifold.pack import inner as other",
        "from slowmanifold.pack import *",
        "if True:\n    import slowmanifold.lone",
        "import os",
    ],
)
def test_the_modules_of_a_chapter_are_those_that_python_loads(book, elsewhere, graph, statement):
    book.chapter("one", statement)
    project = book.project
    project.__dict__["imports"] = graph
    loaded = elsewhere(f"import sys\n{statement}\n{LOADED}")
    assert project.modules(project.chapters["one"]) == loaded.split()
