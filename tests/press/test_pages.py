"""Pages: an executed notebook becomes text and pictures that say where they come from."""

import base64
import csv
import io
import json
import re
from html import unescape

import nbformat
import numpy as np
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from slowmanifold.press import publish as publishing
from slowmanifold.press import site
from slowmanifold.press.chapters import Failed
from slowmanifold.press.execute import RECORD
from slowmanifold.press.keys import short
from slowmanifold.press.pages import environments, execution_page, put_under_title
from slowmanifold.press.paper_runs import PaperRun

ALT = 'A curve: it rises "from" the left to the right, 5 < 6 & so on, by \\ and `ticks`.'
CAPTION = "A line, with $x^2$: and a colon.\n\nIts second paragraph."
DRAW = f"""\
import numpy as np
from slowmanifold.figures import figure
x = np.linspace(0, 1, size)


def draw(ax):
    ax.plot(x, x**3)


figure("line", draw, caption={CAPTION!r}, alt={ALT!r},
       data={{"x": x, "cube": x**3}}, size=(2, 1.5), seed=size + 4)"""
MEASURE = "from slowmanifold.claims import claim\nclaim('one.third', 1 / 3)\nclaim('one.true', True)"
PROSE = "See {numref}`fig-line`; a third is {glue:text}`one.third:.2f`."


@pytest.fixture
def drawn(book, instant):
    """A book with a chapter that has a figure, claims and a print."""
    book.claim("one.third", expect=0.3, within=0.05)
    book.claim("one.true", verdict_only=True)
    book.chapter("one", DRAW, MEASURE, "print('told')", prose=PROSE, size="size = 3  # how many\nname = 'a'  # it")
    book.edit("book/profiles.yml", "quick:\n    name: a\n    size: 3", "quick:\n    name: ß\n    size: 5")
    return book


def files(book):
    return book.root / "_build" / "html" / "book" / "files" / "one"


def cells(book, kind):
    return [cell for cell in book.staged("one").cells if cell.cell_type == kind]


def figure_cell(book):
    [cell] = [cell for cell in cells(book, "markdown") if ":::{figure}" in cell.source]
    return cell.source


# A figure


def test_a_figure_has_its_label_its_alternative_text_and_its_caption_unharmed(drawn):
    drawn.build()
    opening, head, body = figure_cell(drawn).split("---\n")
    assert opening == ":::{figure} files/one/line.light.png\n"
    assert yaml.safe_load(head) == {"name": "fig-line", "alt": ALT, "class": "only-light"}
    assert body.startswith(CAPTION + "\n\n")


def test_a_figure_stands_after_the_cell_that_drew_it_and_its_image_is_gone_from_there(drawn):
    drawn.build()
    staged = drawn.staged("one").cells
    place = [cell.cell_type == "code" and cell.source == DRAW for cell in staged].index(True)
    assert staged[place].outputs == []
    assert ":::{figure}" in staged[place + 1].source
    assert staged[place + 2].source == MEASURE


def test_the_strip_names_the_lines_of_the_cell_at_its_commit_with_parameters_seed_and_seconds(drawn, monkeypatch):
    monkeypatch.setattr("slowmanifold.press.execute.commit", lambda root: "abcdef0123+")
    drawn.build()
    strip = figure_cell(drawn).splitlines()[-2]
    first, last = map(int, re.match(r"lines (\d+)–(\d+) at `abcdef0123\+` · ", strip).groups())
    source = (files(drawn) / "one.md").read_text().splitlines()
    assert "\n".join(source[first - 1 : last]) == DRAW
    told = "quick: `name = 'ß'`, `size = 5` · seed 9 · 0.0\N{NO-BREAK SPACE}s · "
    assert told + "{download}`data (CSV) <files/one/line.csv>`" in strip


def test_without_a_seed_the_strip_says_so(drawn):
    drawn.edit("book/one.md", "seed=size + 4", "seed=None")
    drawn.build()
    assert " · no random draw · " in figure_cell(drawn)


def test_the_files_of_a_figure_are_those_that_the_run_made(drawn):
    drawn.build()
    [output] = [
        output
        for cell in drawn.notebook("executed", "one").cells
        for output in cell.get("outputs", [])
        if "figure" in output.get("metadata", {})
    ]
    light, dark = ((files(drawn) / f"line.{theme}.png").read_bytes() for theme in ("light", "dark"))
    assert light == base64.b64decode(output.data["image/png"])
    assert dark == base64.b64decode(output.metadata["figure"]["dark"])
    assert light != dark
    table = np.array(list(csv.DictReader(io.StringIO((files(drawn) / "line.csv").read_text()))))
    x = np.linspace(0, 1, 5)
    np.testing.assert_array_equal([float(row["x"]) for row in table], x)
    np.testing.assert_array_equal([float(row["cube"]) for row in table], x**3)


def test_the_frames_of_a_slider_lie_beside_its_figure_each_once(drawn):
    drawn.edit("book/one.md", "def draw(ax):\n    ax.plot(x, x**3)", "def draw(ax, k):\n    ax.plot(x, x**k)")
    drawn.edit("book/one.md", "import figure", "import Slider, figure")
    drawn.edit("book/one.md", "size=(2, 1.5)", "size=(2, 1.5), slider=Slider('power', ['0', '1', '2'], first=2)")
    drawn.build()
    stems = ("line.0", "line.1", "line")
    assert json.loads((files(drawn) / "line.slider.json").read_text()) == {
        "parameter": "power",
        "values": ["0", "1", "2"],
        "first": 2,
    }
    images = [(files(drawn) / f"{stem}.{theme}.png").read_bytes() for stem in stems for theme in ("light", "dark")]
    assert len(set(images)) == 6 == len(list(files(drawn).glob("*.png")))


# The rest of a page


def test_the_cell_of_parameters_shows_the_values_of_the_run_and_the_injected_one_is_gone(drawn):
    drawn.build()
    first, *rest = [cell.source for cell in cells(drawn, "code")]
    assert first == "size = 5  # how many\nname = 'ß'  # it"
    assert rest == drawn.project.chapters["one"].parsed.code[1:]


def test_a_claim_keeps_its_row_and_its_value_can_be_glued(drawn):
    drawn.build()
    [cell] = [cell for cell in cells(drawn, "code") if cell.source == MEASURE]
    shown = [output for output in cell.outputs if "text/html" in output.data]
    glued = [output for output in cell.outputs if "scrapbook" in output.metadata]
    assert [output.data["text/plain"] for output in shown] == ["one.third: holds: 0.3 ± 0.05", "one.true: holds: true"]
    assert [output.metadata.scrapbook.name for output in glued] == ["one.third", "one.true"]
    assert [eval(*output.data.values()) for output in glued] == [1 / 3, True], "every digit"


def test_what_a_cell_prints_stays_with_it(drawn):
    drawn.build()
    [cell] = [cell for cell in cells(drawn, "code") if cell.source == "print('told')"]
    assert cell.outputs[0].text == "told\n"


def test_the_foot_of_a_chapter_has_the_facts_of_its_run_and_its_downloads(drawn):
    drawn.build()
    record = drawn.notebook("executed", "one").metadata[RECORD]
    foot = drawn.staged("one").cells[-1].source
    for fact in (
        "Profile\n: quick\n",
        "Parameters\n: `name = 'ß'`, `size = 5`\n",
        f"Key\n: `{short(record.key)}`\n",
        f"Executed\n: {record.date} in 0.0 s, Python {record.key.Python}\n",
    ):
        assert fact in foot
    for name in re.findall(r"{download}`[^<]*<([^>]*)>`", foot):
        assert (drawn.root / "_build" / "html" / "book" / name).stat().st_size > 0
    assert nbformat.read(files(drawn) / "one.ipynb", as_version=4) == drawn.notebook("executed", "one")
    assert (files(drawn) / "one.md").read_text() == drawn.page("one").read_text()


def test_the_same_run_makes_the_same_page(drawn):
    drawn.build()
    page = drawn.root / "_build" / "html" / "book" / "one.ipynb"
    first = page.read_bytes()
    drawn.edit("book/index.md", "Its front page.", "Its new page.")
    assert drawn.build().remade
    assert page.read_bytes() == first


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["(one)=\n# One\n\nProse."], ["(one)=\n# One\n\nNOTICE\n\n\nProse."]),
        (["# One"], ["# One\n\nNOTICE\n"]),
        (["Before.", "# One\nProse."], ["Before.", "# One\n\nNOTICE\n\nProse."]),
        (["## A section"], ["NOTICE", "## A section"]),
    ],
)
def test_a_notice_stands_under_the_title_or_at_the_head(sources, expected):
    page = new_notebook(cells=[new_code_cell("# no title"), *map(new_markdown_cell, sources)])
    put_under_title(page, "NOTICE")
    assert [cell.source for cell in page.cells if cell.cell_type == "markdown"] == expected
    assert [cell.source for cell in page.cells if cell.cell_type == "code"] == ["# no title"]


def test_the_execution_page_lists_every_run_and_their_sum(drawn):
    drawn.chapter("two")
    drawn.build()
    records = {name: {**drawn.notebook("executed", name).metadata[RECORD]} for name in ("one", "two")}
    records["one"]["seconds"], records["two"]["seconds"] = 1.25, 2.5
    run = PaperRun({**records["two"], "seconds": 77.7, "commit": "abcdef"}, {}, ["code cells", "parameters"])
    page, paper = execution_page(records, {"two": run}).split("(paper-runs)=")
    assert "Together 3.8 s of kernel time." in page
    assert " | 1.2 | – | " in page
    assert " | 2.5 | 77.7 | " in page
    assert page.count(f"\nAll chapters: Python {records['one']['key']['Python']}, ") == 1
    [row] = [line for line in paper.splitlines() if line.startswith("| [](./two) |")]
    for fact in ("77.7", records["two"]["date"], "`abcdef`", "`code cells`, `parameters`"):
        assert fact in row
    packages = [f"{name} {number}" for name, number in records["two"]["versions"].items()]
    assert f"\nAll chapters: {', '.join(packages)}; {records['two']['processor']}." in paper
    for name, record in records.items():
        [row] = [line for line in page.splitlines() if line.startswith(f"| [](./{name}) |")]
        for fact in ("quick", f"{record['seconds']:.1f}", record["date"], record["commit"], short(record["key"])):
            assert fact in row
        assert row.count("|") == 8


def test_each_environment_of_the_runs_is_told_once_with_its_chapters():
    assert list(environments({"one": "here", "two": "there", "three": "here"})) == [
        "[](./one), [](./three): here.",
        "",
        "[](./two): there.",
        "",
    ]


# What Sphinx makes of it


@pytest.fixture
def sphinx(monkeypatch):
    """The site is made, not copied."""
    monkeypatch.setattr(publishing, "build_site", site.build)


def page(book, name):
    return (book.root / "_build" / "html" / "book" / f"{name}.html").read_text()


def words(html):
    """The text of a page as it is read."""
    return unescape(re.sub("<[^>]*>", "", html))


def test_a_reader_finds_figure_claims_and_numbers_in_their_places(drawn, sphinx):
    drawn.chapter("two", prose="See {numref}`fig-line` in {ref}`one`.")
    drawn.build()
    html = page(drawn, "one")
    images = re.findall(r'<img[^>]*src="[^"]*/line\.[^>]*>', html)
    assert [unescape(re.search('alt="([^"]*)"', image)[1]) for image in images] == [ALT, ALT]
    assert 'id="fig-line"' in html
    assert 'href="#fig-line"' in html
    assert 'href="one.html#fig-line"' in page(drawn, "two")
    assert "a third is 0.33." in words(html)
    assert 'id="claim-one.third"' in html
    assert '<a href="one.html#claim-one.third">one.third</a>' in page(drawn, "ledger")
    assert 'href="one.html"' in page(drawn, "execution")
    for link in re.findall(r'href="(\.\./_downloads/[^"]*)"', html):
        assert (drawn.root / "_build" / "html" / "book" / link).stat().st_size > 0


def test_a_chapter_that_never_ran_and_one_that_failed_have_pages_that_say_so(drawn, sphinx, monkeypatch):
    def fails(*arguments, **options):
        raise RuntimeError("a `tick` and <more>")

    monkeypatch.setattr("papermill.execute_notebook", fails)
    drawn.chapter("two")
    assert set(drawn.build("two").failures) == {"two"}
    assert "This chapter has not been executed." in page(drawn, "one")
    text = words(page(drawn, "two"))
    said = text.index("This chapter failed in cell 1: RuntimeError: a 'tick' and <more> It has never run to its end.")
    assert text.rindex("Chapter two", 0, said) < said < text.index("Some prose.")


def test_a_reference_that_leads_nowhere_ends_the_build(drawn, sphinx):
    drawn.edit("book/one.md", "{numref}`fig-line`", "{numref}`fig-lime`")
    with pytest.raises(Failed, match=r"the site could not be made:(.|\n)*book/one\.ipynb.*fig-lime"):
        drawn.build()
    assert not (drawn.root / "_build" / "html").exists()
