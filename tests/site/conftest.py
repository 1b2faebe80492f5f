"""The built book: its folder, its pages, and a browser to open them in."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

SITE = Path(__file__).parents[2] / "_build" / "html"
# Chromium as root and without a network: no sandbox, and nothing fetched on its own account.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes a ``page`` runs for every page of the built book, and fails where there is none."""
    if "page" in metafunc.fixturenames:
        found = [path.relative_to(SITE).as_posix() for path in SITE.glob("**/*.html")]
        metafunc.parametrize("page", sorted(name for name in found if not name.startswith("_")) or ["index.html"])


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built book."""
    if not (SITE / "index.html").is_file():
        pytest.fail("there is no built book in _build/html: run make book")
    return SITE.resolve()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    executable = shutil.which("chromium")
    if executable is None:
        reason = "no chromium on the PATH (Debian: apt-get install chromium): the built book cannot be opened"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()
