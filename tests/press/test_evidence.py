"""What leads from a sentence to its evidence and from a word to its definition, as Sphinx makes it."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from PIL import Image

from slowmanifold.press import site
from slowmanifold.press.evidence import FILE, evidence
from slowmanifold.press.ledger import Measurement

ROOT = Path(__file__).parents[2]
MEASURED = {
    "a.third": Measurement("two", 1 / 3, "holds"),
    "a.small": Measurement("two", -2.5e-7, "deviates"),
    "a.true": Measurement("one", True, "corrected"),
}
CLAIMS = [*MEASURED, "a.open"]

PAGES = {
    "index": "# First\n\nWords.\n",
    "two": "# Second page\n\nA {term}`pole`, another {term}`pole`, many {term}`adjoints <adjoint>`.\n",
    "one": "# First page\n\n(here)=\n\nAn {term}`Adjoint` and a {index}`Zebra`, with {index}`τ`.\n",
    "words": "# Glossary\n\n```{glossary}\nadjoint\nco-state\n  Not a {term}`pole`.\n\npole\n  A rate.\n```\n",
    "list": "# Index\n\n```{index-of-terms}\n```\n",
    "roles": (
        "# Roles\n\n{claim}`a.true`, {claim}`so it is <a.true>`, {measured}`a.third:.3f`, {measured}`a.small:.1e`,\n"
        "{claim}`a.open`, {measured}`a.open:.2f`.\n\n![A line that rises.](line.light.png)\n"
    ),
}


def staged(folder, pages):
    """Sources of a site with these pages in the order of the table of contents."""
    (folder / "book").mkdir(parents=True)
    shutil.copytree(ROOT / "book" / "_static", folder / "book" / "_static")
    shutil.copy(ROOT / "_config.yml", folder)
    (folder / "book" / "references.bib").write_text("")
    (folder / "book" / FILE).write_text(evidence(CLAIMS, MEASURED))
    for name, text in pages.items():
        path = folder / f"book/{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    files = [{"file": f"book/{name}"} for name in pages if name != "index"]
    (folder / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "book/index", "chapters": files}))
    return folder


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The pages as Sphinx makes them, by name."""
    folder = tmp_path_factory.mktemp("book")
    anchors = "# Cells\n\n```{raw} html\n<div id='claim-a.third'></div><div id='claim-a.small'></div>\n```\n"
    pages = {**PAGES, "two": PAGES["two"] + anchors[8:], "aside/roles": "# Aside\n\n{claim}`words <a.nothing>`\n"}
    sources = staged(folder / "staged", pages)
    for theme in ("light", "dark"):
        Image.new("RGB", (4, 3)).save(sources / "book" / f"line.{theme}.png")
    (sources / "book" / "line.slider.json").write_text('{"parameter": "x", "values": ["1", "2"], "first": 0}')
    site.build(sources, folder / "html")
    return {name: BeautifulSoup((folder / f"html/book/{name}.html").read_text(), "html.parser") for name in pages}


def links(page):
    return {link.get_text(): link for link in page.article.select("p a[href*='#claim-']")}


def test_what_the_roles_know_is_what_was_measured():
    known = json.loads(evidence(CLAIMS, MEASURED))
    assert known.pop("a.open") is None
    assert {name: Measurement(**told) for name, told in known.items()} == MEASURED


def test_a_claim_leads_to_the_cell_that_measured_it_in_the_colour_of_its_verdict(book):
    found = links(book["roles"])
    assert found["a.true"]["href"] == found["so it is"]["href"] == "one.html#claim-a.true"
    assert "claim-corrected" in found["a.true"]["class"]
    assert "claim-verdict" not in found["so it is"]["class"]


def test_a_measured_value_stands_in_its_format_and_is_the_link(book):
    found = links(book["roles"])
    assert found["0.333"]["href"] == "two.html#claim-a.third"
    assert found["−2.5·10⁻⁷"]["href"] == "two.html#claim-a.small"


def test_what_nobody_has_measured_says_so_and_leads_nowhere(book):
    assert len(links(book["roles"])) == 4
    opened = [word.get_text() for word in book["roles"].select(".claim-open")]
    assert opened == ["a.open", "not yet measured"]


def test_where_there_is_no_evidence_there_are_words_alone(book):
    assert book["aside/roles"].article.p.get_text() == "words"
    assert not book["aside/roles"].article.p.select("a")


def test_a_claim_that_is_not_there_and_a_format_that_does_not_fit_end_the_build(tmp_path):
    wrong = "# Wrong\n\n{claim}`a.nothing`\n\n{measured}`a.third:.2q`\n\n{measured}`a.small`, {measured}`b.small:.1f`\n"
    with pytest.raises(site.SiteError) as caught:
        site.build(staged(tmp_path / "staged", {"index": PAGES["index"], "wrong": wrong}), tmp_path / "html")
    message = str(caught.value)
    for told in ("no claim 'a.nothing'", "claim 'a.third', measured 0.333", "no claim 'b.small'"):
        assert re.search(rf"book/wrong\.md.*{re.escape(told)}", message), message
    assert "a.small" not in message


def test_a_picture_of_a_slider_is_its_first_frame_in_both_themes_and_does_not_move(book):
    assert not book["roles"].select(".figure-frame")
    pictures = book["roles"].select("article img")
    assert [image["alt"] for image in pictures] == ["A line that rises."] * 2
    assert [theme for image in pictures for theme in image["class"]] == ["only-light", "only-dark"]


# The index


def entries(book):
    """Each entry of the index with its pages and where they lead."""
    found = {}
    for line in book["list"].select("ul.index-of-terms li"):
        found[line.strong.get_text()] = [(link.get_text(), link["href"]) for link in line.select("a")]
    return found


def test_the_index_has_every_term_and_every_entry_in_the_order_of_the_alphabet(book):
    assert list(entries(book)) == ["adjoint", "co-state", "pole", "Zebra", "τ"]
    assert [letter.get_text() for letter in book["list"].select("p.rubric")] == ["A", "C", "P", "Z", "Τ"]


def test_an_entry_has_its_definition_first_and_then_its_pages_once_each_in_the_order_of_the_book(book):
    titles = {name: [title for title, _ in pages] for name, pages in entries(book).items()}
    assert titles == {
        "adjoint": ["Glossary", "Second page", "First page"],
        "co-state": ["Glossary"],
        "pole": ["Glossary", "Second page"],
        "Zebra": ["First page"],
        "τ": ["First page"],
    }


def test_each_link_of_the_index_leads_to_the_very_place(book):
    for name, pages in entries(book).items():
        for _, link in pages:
            page, label = link.split("#")
            place = book[page.removesuffix(".html")].find(id=label)
            around = place if place.get_text().strip() else place.find_parent(["p", "dt"])
            assert name.lower() in around.get_text().lower(), link
