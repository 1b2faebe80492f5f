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

# What breaks the rules of the standard and of good practice, each with its places; contrast is looked at by itself.
FAULTS = """
async () => {
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  const rules = { "color-contrast": { enabled: false } };
  const found = await axe.run(document, { runOnly: tags, rules, resultTypes: ["violations"] });
  return found.violations.map((it) => [it.id, it.help, it.nodes.map((node) => node.target.join(" "))]);
}
"""

# Contrast takes long, and is the same for each text that lies in the same kinds of elements: one of each is looked at.
PALE = """
async () => {
  const kinds = new Map();
  for (const it of document.querySelectorAll("body *")) {
    if (![...it.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim())) continue;
    if (!it.checkVisibility()) continue;
    const kind = new Set();
    for (let up = it; up; up = up.parentElement) kind.add(`${up.tagName}.${up.getAttribute("class")}`);
    kinds.set([...kind].join(), it);
  }
  const rules = { type: "rule", values: ["color-contrast"] };
  const found = await axe.run({ include: [...kinds.values()] }, { runOnly: rules, resultTypes: ["violations"] });
  return found.violations.flatMap((it) => it.nodes.map((node) => [node.target.join(" "), node.failureSummary]));
}
"""

# Colours fade into those of the other theme.
SWITCH = """
async (theme) => {
  document.documentElement.dataset.theme = theme;
  await Promise.all(document.getAnimations().map((it) => it.finished));
}
"""

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


def test_axe_finds_no_fault_and_no_lack_of_contrast(browser: Browser, site: Path, page: str) -> None:
    with opened(browser, site, page) as shown:
        shown.evaluate(AXE)
        assert shown.evaluate(FAULTS) == []
        for theme in ("light", "dark"):
            shown.evaluate(SWITCH, theme)
            assert shown.evaluate(PALE) == [], theme


def test_axe_finds_the_faults_that_are_there(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<!DOCTYPE html><p style='color: #aaa; background: #fff'>pale</p><img src='data:,'>")
    page.evaluate(AXE)
    assert {"image-alt", "html-has-lang", "landmark-one-main"} <= {fault for fault, *_ in page.evaluate(FAULTS)}
    assert [place for place, _ in page.evaluate(PALE)] == ["p"]
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
        shown.wait_for_url("**#main-content")
        assert shown.url.endswith("#main-content")
        # The way from there to the filters is short, and they work without a mouse.
        for key in ("paper", "chapter", "said", "status"):
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
