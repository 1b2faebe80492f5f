"""The built book in a browser: from the disk and from a web server, light and dark, on a desk and on a phone."""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

PREFIX = "/some/sub/path/"
DESK = {"width": 1280, "height": 900}
PHONE = {"width": 380, "height": 800}

# Raw TeX that was left in the text, formulas without a typeset form, and TeX errors.
UNTYPESET = r"""
() => {
  const text = document.body.cloneNode(true);
  for (const hidden of text.querySelectorAll("script, pre, code, mjx-container")) hidden.remove();
  return [
    ...(text.textContent.match(/\\[(\[][^]{0,40}|\$[^]{0,40}/g) || []),
    ...[...document.querySelectorAll(".math")].filter((it) => !it.querySelector("mjx-container"))
      .map((it) => it.textContent),
    ...[...document.querySelectorAll("mjx-merror")].map((it) => it.textContent),
  ];
}
"""

LOAD_PICTURES = """
async () => {
  const pictures = [...document.images];
  for (const it of pictures) it.loading = "eager";
  await Promise.all(pictures.map((it) => it.decode()));
}
"""

# Of every figure's pictures: source, whether it is shown, its filter, its widths on the screen and as drawn, and the
# room that it has on the page. A picture in a line of text, that of a card, may be of any size.
PICTURES = """
() => [...document.querySelectorAll(".bd-article :is(.only-light, .only-dark)")].map((it) => ({
  source: it.src, shown: it.checkVisibility(), frame: !it.hidden, filter: getComputedStyle(it).filter,
  width: it.clientWidth, drawn: Number(it.getAttribute("width")), room: it.closest("figure")?.clientWidth ?? null,
}))
"""


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder below PREFIX and nothing else."""

    def translate_path(self, path: str) -> str:
        inside = path.startswith(PREFIX)
        return super().translate_path(path.removeprefix(PREFIX.rstrip("/")) if inside else "/no/such/file")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """The address of the book on a web server, below a path of its own."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
    server.shutdown()
    server.server_close()


@contextmanager
def opened(browser: Browser, root: str, name: str, theme: str, viewport: dict[str, int]) -> Iterator[Page]:
    """A page with its mathematics typeset; at the end it must have asked for nothing outside ``root`` and run clean."""
    context = browser.new_context(viewport=viewport, color_scheme=theme)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: request.url.startswith((root, "data:")) or wrong.append(request.url))
    # Leaving a page aborts what it was still loading: no fault of the page.
    page.on("requestfailed", lambda it: it.failure == "net::ERR_ABORTED" or wrong.append(f"{it.failure}: {it.url}"))
    page.on("response", lambda response: response.status < 400 or wrong.append(f"{response.status}: {response.url}"))
    page.goto(root + name)
    if name == "index.html":
        page.wait_for_url("**/book/index.html")
    page.evaluate("MathJax.startup.promise")
    page.evaluate("document.fonts.ready")
    yield page
    page.evaluate("document.fonts.ready")
    context.close()
    assert wrong == []


def check_pictures(page: Page, theme: str, scale: float) -> None:
    """Of each pair the picture of the theme is shown, undimmed: as drawn or page-wide, at least to ``scale``."""
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    for picture in page.evaluate(PICTURES):
        assert picture["shown"] is (picture["frame"] and f".{theme}" in picture["source"]), picture
        if picture["shown"]:
            assert picture["filter"] == "none", picture
            if picture["room"] is not None:
                due = max(min(picture["drawn"], picture["room"]), scale * picture["drawn"])
                assert abs(picture["width"] - due) <= 1, picture


def check_sliders(page: Page) -> None:
    """The keyboard moves each slider from its first to its last frame; each value shows one picture, and its own.

    So does a click on the value, and nothing else on the page moves meanwhile.
    """
    for slider in page.locator(".slider").all():
        box = slider.locator("xpath=preceding-sibling::*[1]")
        values = json.loads(box.get_attribute("data-values"))
        handle = slider.get_by_role("slider", name=json.loads(box.get_attribute("data-parameter")), exact=True)
        assert handle.input_value() == box.get_attribute("data-first")
        handle.press("Home")
        size = box.evaluate("(it) => [it.offsetWidth, it.offsetHeight]")
        seen = []
        for value in values:
            assert slider.locator("output").inner_text() == value
            assert slider.locator(".stops .now").all_inner_texts() == [value]
            assert handle.get_attribute("aria-valuetext") == value
            [picture] = [it for it in box.locator("img").all() if it.is_visible()]
            assert picture.get_attribute("alt").endswith(f": {value})")
            assert box.evaluate("(it) => [it.offsetWidth, it.offsetHeight]") == size
            seen.append(picture.get_attribute("src"))
            handle.press("ArrowRight")
        assert len(set(seen)) == len(values)
        slider.locator(".stops span").first.click()
        assert slider.locator("output").inner_text() == values[0]


def check_solutions(page: Page) -> None:
    """Each solution is hidden until its title is clicked."""
    for solution in page.locator(".solution").all():
        text = solution.locator("section")
        assert not text.is_visible()
        solution.locator(".admonition-title").click(position={"x": 4, "y": 4})
        assert text.is_visible()
        assert text.bounding_box()["height"] > 10


def test_page_from_disk_on_a_desk(browser: Browser, site: Path, page: str) -> None:
    with opened(browser, f"{site.as_uri()}/", page, "light", DESK) as shown:
        shown.evaluate(LOAD_PICTURES)
        assert shown.evaluate(UNTYPESET) == []
        check_pictures(shown, "light", 0.0)
        for theme in ("light", "dark"):  # the button goes round, from the system's theme on
            for _ in range(3):
                shown.locator(".theme-switch-button").first.click()
                if shown.evaluate("document.documentElement.dataset.theme") == theme:
                    break
            check_pictures(shown, theme, 0.0)
        check_sliders(shown)


def test_page_from_a_server_on_a_phone(browser: Browser, served: str, page: str) -> None:
    with opened(browser, served, page, "dark", PHONE) as shown:
        shown.evaluate(LOAD_PICTURES)
        assert shown.evaluate(UNTYPESET) == []
        check_pictures(shown, "dark", 0.7)
        check_solutions(shown)
        check_sliders(shown)
        wide, narrow = shown.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= narrow, "the page scrolls sideways"


def test_without_a_script_each_slider_shows_its_first_frame(browser: Browser, site: Path, page: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    shown = context.new_page()
    shown.goto(f"{site.as_uri()}/{page}")
    for box in shown.locator(".figure-frame[data-values]").all():
        first = json.loads(box.get_attribute("data-values"))[int(box.get_attribute("data-first"))]
        [picture] = [it for it in box.locator("img").all() if it.is_visible()]
        assert picture.get_attribute("alt").endswith(f": {first})")
    context.close()


@pytest.mark.parametrize("name", ["notation", "benchmarks", "ledger"])
def test_tables_of_words_do_not_scroll_sideways_on_a_phone(browser: Browser, site: Path, name: str) -> None:
    with opened(browser, f"{site.as_uri()}/", f"book/{name}.html", "light", PHONE) as shown:
        tables = shown.locator("article table")
        assert tables.count()
        assert tables.evaluate_all("(all) => all.filter((it) => it.offsetWidth > it.parentElement.clientWidth)") == []
        narrow = "(all) => all.map((it) => it.offsetWidth < 200 ? it.innerText : '').filter((it) => it.length > 40)"
        assert tables.locator("td:last-child:visible").evaluate_all(narrow) == []


def test_the_menus_open_on_a_phone(browser: Browser, site: Path) -> None:
    with opened(browser, f"{site.as_uri()}/", "book/notation.html", "light", PHONE) as shown:
        shown.locator(".bd-header-article .secondary-toggle").click()
        shown.get_by_role("link", name="Manifolds", exact=True).click()
        shown.wait_for_url("**#manifolds")
        assert shown.locator("#manifolds").is_visible()
        shown.locator(".bd-header-article .primary-toggle").click()
        shown.get_by_role("link", name="References", exact=True).first.click()
        shown.wait_for_url("**/book/references.html")
        assert shown.get_by_role("heading", name="References").is_visible()


def test_the_ledger_can_be_filtered_and_linked_to(browser: Browser, site: Path) -> None:
    shown_rows = "[...document.querySelectorAll('table.ledger tr[data-paper]')].filter((it) => it.checkVisibility())"
    with opened(browser, f"{site.as_uri()}/", "book/ledger.html", "light", DESK) as shown:
        every = shown.evaluate(f"{shown_rows}.map((it) => ({{...it.dataset}}))")
        for key in ("paper", "chapter", "said", "status", "scale"):
            chosen = shown.locator(f".ledger-filters select[name={key}]")
            for value in sorted({row[key] for row in every}):
                chosen.select_option(value)
                left = shown.evaluate(f"{shown_rows}.map((it) => it.dataset.{key})")
                expected = [row[key] for row in every if row[key] == value]
                assert left == expected
                sections = shown.locator("table.ledger tbody:visible")
                assert sections.count() == sections.filter(has=shown.locator("tr[data-paper]:visible")).count()
                assert f"{len(left)} of {len(every)}" in shown.locator(".ledger-filters output").inner_text()
                assert f"({len(left)})" in chosen.locator("option:checked").inner_text()
            chosen.select_option("*")
        first = every[0]
        shown.locator("select[name=paper]").select_option(first["paper"])
        shown.locator("select[name=status]").select_option(first["status"])
        both = shown.evaluate(f"{shown_rows}.length")
        shown.reload()
        assert shown.evaluate(f"{shown_rows}.length") == both
        assert shown.locator("select[name=status]").input_value() == first["status"]


@pytest.mark.parametrize("source", ["disk", "server"])
def test_search_finds_a_chapter(browser: Browser, site: Path, served: str, source: str) -> None:
    root = f"{site.as_uri()}/" if source == "disk" else served
    with opened(browser, root, "search.html?q=Fenichel", "light", DESK) as shown:
        found = shown.locator("#search-results li a")
        found.first.wait_for()
        links = [link.get_attribute("href").split("#")[0] for link in found.all()]
        assert "book/fenichel.html" in links
        titles = found.all_inner_texts()
        assert len(set(titles)) == len(titles)
