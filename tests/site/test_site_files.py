"""What the files of the built book promise: links that lead somewhere, pictures in words, nothing from elsewhere."""

import functools
import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]
LOADED = {"link": "href", "script": "src", "img": "src", "source": "src", "iframe": "src"}


@functools.cache
def parse(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@functools.cache
def anchors(path: Path) -> set[str]:
    named = parse(path).find_all("a", attrs={"name": True})
    return {tag["id"] for tag in parse(path).find_all(id=True)} | {tag["name"] for tag in named}


def local_target(page: Path, reference: str) -> tuple[Path, str] | None:
    """File and anchor that a reference of ``page`` names; None for one that leaves the site."""
    parts = urlsplit(reference)
    if parts.scheme or parts.netloc:
        return None
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    return path, unquote(parts.fragment)


def broken(page: Path, site: Path) -> list[str]:
    """The links of ``page`` whose file or anchor does not exist."""
    wrong = []
    for link in parse(page).find_all("a", href=True):
        target = local_target(page, link["href"])
        if target is None:
            continue
        path, anchor = target
        there = path.is_file() and path.is_relative_to(site)
        if not there or (anchor and path.suffix == ".html" and anchor not in anchors(path)):
            wrong.append(link["href"])
    return wrong


def test_links_and_anchors_exist(site: Path, page: str) -> None:
    assert broken(site / page, site) == []


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<p id="here"><a href="#here"></a><a href="#gone"></a><a href="lost.html"></a><a href="https://x.org/"></a>'
    )
    assert broken(page, tmp_path) == ["#gone", "lost.html"]


def test_nothing_is_loaded_from_elsewhere(site: Path, page: str) -> None:
    missing = []
    for tag, attribute in LOADED.items():
        for element in parse(site / page).find_all(tag, attrs={attribute: True}):
            target = local_target(site / page, element[attribute])
            if target is None or not target[0].is_file():
                missing.append(element[attribute])
    assert missing == []


def test_every_picture_is_put_in_words(site: Path, page: str) -> None:
    for image in parse(site / page).find_all("img"):
        alt = image.get("alt")
        if "logo__image" in image.get("class", []):
            assert alt == "", "the logo stands beside the title: it is decorative"
            continue
        assert alt, image["src"]
        assert len(alt.split()) >= 5, alt
        assert not re.search(r"\w/\w+[./]|\.(png|svg|jpe?g)\b", alt), alt


def test_downloads_are_there_and_not_empty(site: Path, page: str) -> None:
    for link in parse(site / page).select("a.download"):
        path, _ = local_target(site / page, link["href"])
        assert path.is_file(), link["href"]
        assert path.stat().st_size > 0, link["href"]


def test_no_path_of_the_machine_leaks(site: Path, page: str) -> None:
    text = (site / page).read_text(encoding="utf-8")
    assert [leak for leak in (str(ROOT), str(Path.home()) + "/", "/tmp/", "/_build") if leak in text] == []


def test_no_path_of_the_machine_leaks_into_downloads(site: Path) -> None:
    texts = [path for path in (site / "_downloads").rglob("*") if path.suffix in {".ipynb", ".md", ".csv"}]
    assert texts
    assert [path.name for path in texts if str(ROOT) in path.read_text(encoding="utf-8")] == []


def test_every_figure_has_a_twin_a_caption_and_its_data(site: Path, page: str) -> None:
    for figure in parse(site / page).find_all("figure"):
        pictures = [image["src"] for image in figure.find_all("img")]
        themes = [re.search(r"\.(light|dark)\d*\.png$", source)[1] for source in pictures]
        assert themes == ["light", "dark"] * (len(themes) // 2), pictures
        frames = json.loads(figure.select_one(".figure-frame").get("data-values", '[""]'))
        assert len(themes) == 2 * len(frames)
        assert len({image["alt"] for image in figure.find_all("img")}) == len(frames), "each frame in its own words"
        assert figure.find("figcaption").get_text(strip=True)
        assert figure.select(".legend a.download"), "the strip under a figure offers its data"


def test_pages_are_light(site: Path) -> None:
    sizes = {path.relative_to(site).as_posix(): path.stat().st_size for path in site.rglob("*.html")}
    assert {name: size for name, size in sizes.items() if size > 4e6} == {}
    assert sum(sizes.values()) < 40e6


def test_every_chapter_has_a_parameter_for_the_reader_to_move(site: Path, page: str) -> None:
    chapter = parse(site / page).select_one("div.colophon")
    sliders = parse(site / page).select(".figure-frame[data-values]")
    assert sliders or not chapter
    for slider in sliders:
        assert 5 <= len(json.loads(slider["data-values"])) <= 9
        frames = [local_target(site / page, image["src"])[0] for image in slider.find_all("img")]
        assert max(frame.stat().st_size for frame in frames) < 60_000, "a page loads all of them"
        assert len({(image["width"], image["height"]) for image in slider.find_all("img")}) == 1


@pytest.mark.parametrize(
    "part", ["figure", "[data-values]", "div.claim", "div.solution", "div.math", "div.colophon", "table.ledger"]
)
def test_the_book_has_what_the_other_tests_look_at(site: Path, part: str) -> None:
    assert any(parse(path).select_one(part) for path in site.glob("book/*.html")), part


def test_the_ledger_holds_every_claim_and_leads_to_its_cell(site: Path) -> None:
    page = site / "book" / "ledger.html"
    rows = parse(page).select("table.ledger tr[data-paper]")
    records = yaml.safe_load((ROOT / "book" / "claims.yml").read_text(encoding="utf-8"))
    assert sorted(row["id"] for row in rows) == sorted(f"ledger-{record['id']}" for record in records)
    measured = [row for row in rows if row["data-chapter"]]
    assert measured
    for row in measured:
        path, anchor = local_target(page, row.select_one("a")["href"])
        cell = parse(path).find(id=anchor)
        assert "claim" in cell["class"]
        assert cell.select_one("dl.claim-numbers output").get_text(strip=True)
    assert all(row["data-status"] == "open" for row in rows if not row["data-chapter"])
