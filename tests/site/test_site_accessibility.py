"""The built book for readers who do not see it, do not see colours, or use no mouse."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
DESK = {"width": 1280, "height": 900}

NO_MATHJAX = "window.MathJax = { startup: { promise: Promise.resolve() } }"

# What is there a thousand times is looked at a few times: a token of code of each class, and of long tables some rows.
THIN_OUT = """
() => {
  const seen = new Set();
  for (const token of document.querySelectorAll(".highlight span")) {
    if (seen.has(token.className)) token.replaceWith(token.textContent);
    seen.add(token.className);
  }
  for (const table of document.querySelectorAll("tbody")) {
    const rows = [...table.rows];
    rows.filter((_, number) => number % Math.ceil(rows.length / 40)).forEach((row) => row.remove());
  }
}
"""

# The faults against the rules of that kind, each with its places: {type: "tag", values: ["wcag2a"]}, for instance.
FAULTS = """
async (rules) => {
  const found = await axe.run(document, { runOnly: rules, resultTypes: ["violations"] });
  return found.violations.map((it) => [it.id, it.help, it.nodes.map((node) => node.target.join(" "))]);
}
"""
RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
CONTRAST = {"type": "rule", "values": ["color-contrast"]}

FOCUS = """
() => {
  const it = document.activeElement, style = getComputedStyle(it), box = it.getBoundingClientRect();
  return {
    name: it.tagName, text: it.textContent.trim(), label: it.labels?.[0]?.textContent.trim(),
    marked: (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none",
    inside: box.width > 0 && box.top >= 0 && box.left >= 0 && box.bottom <= innerHeight && box.right <= innerWidth,
  };
}
"""


@contextmanager
def opened(browser: Browser, site: Path, name: str) -> Iterator[Page]:
    """A page from the disk, in the light theme and with its formulas as TeX: what MathJax makes of them is its own."""
    context = browser.new_context(viewport=DESK, color_scheme="light")
    page = context.new_page()
    page.route("**/tex-chtml-full.js", lambda route: route.fulfill(body=NO_MATHJAX))
    page.goto(f"{site.as_uri()}/{name}")
    if name == "index.html":
        page.wait_for_url("**/book/index.html")
    yield page
    context.close()


def test_axe_finds_no_fault_in_the_light_and_no_lack_of_contrast_in_the_dark(
    browser: Browser, site: Path, page: str
) -> None:
    with opened(browser, site, page) as shown:
        shown.evaluate(THIN_OUT)
        shown.evaluate(AXE)
        assert shown.evaluate(FAULTS, RULES) == []
        shown.evaluate("document.documentElement.dataset.theme = 'dark'")
        assert shown.evaluate(FAULTS, CONTRAST) == []


def test_axe_finds_the_faults_that_are_there(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<!DOCTYPE html><p style='color: #aaa; background: #fff'>pale</p><img src='data:,'>")
    page.evaluate(AXE)
    faults = {fault for fault, *_ in page.evaluate(FAULTS, RULES)}
    assert {"color-contrast", "image-alt", "html-has-lang", "landmark-one-main"} <= faults
    page.close()


def tab_to(page: Page, name: str, most: int) -> dict:
    """Press Tab until an element ``name`` has the focus, ``most`` times; every stop on the way shows where it is."""
    for _ in range(most):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUS)
        assert stop["marked"], stop
        if stop["name"] == name:
            return stop
    pytest.fail(f"no {name} within {most} stops")


def test_the_first_stop_skips_to_the_content(browser: Browser, site: Path) -> None:
    with opened(browser, site, "book/ledger.html") as shown:
        first = tab_to(shown, "A", 1)
        assert first["text"] == "Skip to main content"
        shown.wait_for_function(f"({FOCUS})().inside")
        shown.keyboard.press("Enter")
        assert shown.url.endswith("#main-content")
        # The way from there to the filters is short, and they work without a mouse.
        for key in ("paper", "chapter", "status"):
            stop = tab_to(shown, "SELECT", 20)
            assert key in stop["label"]
            assert stop["inside"]
        shown.keyboard.press("ArrowDown")
        assert shown.get_by_label("status").input_value() != "*"


def test_a_slider_is_a_stop_of_the_tab_key(browser: Browser, site: Path) -> None:
    name = next(path for path in sorted(site.glob("book/*.html")) if "data-values" in path.read_text(encoding="utf-8"))
    with opened(browser, site, name.relative_to(site).as_posix()) as shown:
        slider = shown.get_by_role("slider").first
        slider.focus()
        shown.keyboard.press("Shift+Tab")
        assert not slider.evaluate("(it) => it === document.activeElement")
        assert tab_to(shown, "INPUT", 1)["marked"]
        assert slider.evaluate("(it) => it === document.activeElement")
