"""How a staged folder becomes a site: complete or not at all, with every fault named; and how it is served."""

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from matplotlib.figure import Figure

from slowmanifold.press.site import SiteError, build

ROOT = Path(__file__).parents[2]
SERVE = """
import sys
from pathlib import Path
from slowmanifold.press.site import serve
serve(Path(sys.argv[1]), int(sys.argv[2]))
"""
PAGE = """# A chapter

:::{figure} files/line.light.png
:name: fig-line
:alt: A straight line that rises from left to right.
A line.

The strip · {download}`data (CSV) <files/line.csv>`
:::

{numref}`fig-line` shows {prf:ref}`thm-line`.

```{prf:theorem}
:label: thm-line
Lines rise: $x = t$.
```
"""


def stage(folder: Path, text: str = PAGE) -> Path:
    """A staged book of one page, with the settings and the style of the real one."""
    files = folder / "book" / "files"
    files.mkdir(parents=True)
    shutil.copy(ROOT / "_config.yml", folder)
    shutil.copytree(ROOT / "book" / "_static", folder / "book" / "_static")
    (folder / "book" / "references.bib").touch()
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    (folder / "book" / "index.md").write_text(text)
    (files / "line.csv").write_text("t,x\n0,0\n")
    for theme in ("light", "dark"):
        figure = Figure(figsize=(4, 3))
        figure.add_subplot().plot([0, 1], [0, 1])
        figure.savefig(files / f"line.{theme}.png", dpi=200)
    return folder


def test_a_site_is_made_beside_nothing_else(tmp_path: Path) -> None:
    staged = stage(tmp_path / "staged")
    before = sorted(staged.rglob("*"))
    build(staged, tmp_path / "out" / "html")
    assert sorted(staged.rglob("*")) == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["html"]
    page = (tmp_path / "out" / "html" / "book" / "index.html").read_text()
    for theme in ("light", "dark"):
        assert f'class="only-{theme}" height="288" loading="lazy" src="../_images/line.{theme}.png"' in page
    assert page.count('alt="A straight line that rises from left to right."') == 2
    mathjax = tmp_path / "out" / "html" / "_static" / "mathjax"
    assert sum(path.stat().st_size for path in mathjax.rglob("*") if path.is_file()) < 2.5e6


def test_every_fault_of_a_book_is_named_and_no_site_appears(tmp_path: Path) -> None:
    staged = stage(tmp_path / "staged", PAGE + "\nSee {numref}`fig-lost` and [there](gone.md) and {cite}`nobody`.\n")
    (staged / "book" / "files" / "line.dark.png").unlink()
    with pytest.raises(SiteError) as error:
        build(staged, tmp_path / "html")
    for fault in ("fig-lost", "gone.md", "nobody", "line.dark.png"):
        assert fault in str(error.value)
    assert str(tmp_path) not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["staged"]


def test_without_strictness_warnings_do_not_matter(tmp_path: Path) -> None:
    build(stage(tmp_path / "staged", PAGE + "\nSee {numref}`fig-lost`.\n"), tmp_path / "html", strict=False)
    assert (tmp_path / "html" / "index.html").is_file()


SECOND = """# Another chapter

(a-place)=
## A place

{numref}`fig-line` is in [](./index.md). It is a {cite}`someone`.
"""


def stage_three(folder: Path) -> Path:
    """A staged book of two pages that show something of each other, and a third."""
    staged = stage(folder, PAGE + "\nSee {ref}`a-place` and {index}`zebra`.\n\n```{bibliography}\n```\n")
    (staged / "book" / "references.bib").write_text("@misc{someone, author={A. One}, title={A work}, year={1999}}\n")
    (staged / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/second\n- file: book/third\n"
    )
    (staged / "book" / "second.md").write_text(SECOND)
    (staged / "book" / "third.md").write_text("# A third\n")
    return staged


def pages(site: Path) -> dict[str, bytes]:
    """What the files of a site hold, but for Sphinx's mark of its settings, which names their folder."""
    return {
        str(path.relative_to(site)): path.read_bytes()
        for path in sorted(site.rglob("*"))
        if path.is_file() and path.name != ".buildinfo"
    }


ALL = {"index", "second", "third"}
FIGURE = ":::{figure} files/line.light.png\n:alt: Again.\nMore.\n:::\n\n"


@pytest.mark.parametrize(
    ("edited", "old", "new", "again"),
    [
        ("second", "It is", "Here is a thing; it is", {"index", "second"}),
        ("second", "## A place", "## Somewhere", ALL),
        ("index", "# A chapter\n", f"# The chapter\n\n{FIGURE}", ALL),
    ],
    ids=["prose", "a heading that another page refers to", "a title, and a figure before another"],
)
def test_an_edited_text_gives_the_site_that_clean_doctrees_give(tmp_path, edited, old, new, again) -> None:
    staged, workshop = stage_three(tmp_path / "staged"), tmp_path / "workshop"
    build(staged, tmp_path / "first", workshop=workshop)
    written = {path.stem: path.stat().st_mtime_ns for path in (workshop / "made" / "html" / "book").glob("*.html")}
    text = staged / "book" / f"{edited}.md"
    text.write_text(text.read_text().replace(old, new, 1))
    build(staged, tmp_path / "second", workshop=workshop)
    build(staged, tmp_path / "clean")
    assert pages(tmp_path / "second") == pages(tmp_path / "clean") != pages(tmp_path / "first")
    now = {path.stem: path.stat().st_mtime_ns for path in (workshop / "made" / "html" / "book").glob("*.html")}
    # The page with the table of contents is always written again.
    assert {name for name in now if now[name] != written[name]} == again


def test_a_build_that_failed_fails_again(tmp_path) -> None:
    staged, workshop = stage_three(tmp_path / "staged"), tmp_path / "workshop"
    build(staged, tmp_path / "first", workshop=workshop)
    text = staged / "book" / "second.md"
    text.write_text(SECOND.replace("(a-place)=\n", ""))
    for attempt in ("second", "third"):
        with pytest.raises(SiteError, match="a-place"):
            build(staged, tmp_path / attempt, workshop=workshop)
        assert not (tmp_path / attempt).exists()
    text.write_text(SECOND)
    build(staged, tmp_path / "fourth", workshop=workshop)
    assert pages(tmp_path / "fourth") == pages(tmp_path / "first")


def test_a_new_file_or_other_settings_give_the_site_that_clean_doctrees_give(tmp_path) -> None:
    staged, workshop = stage_three(tmp_path / "staged"), tmp_path / "workshop"
    build(staged, tmp_path / "first", workshop=workshop)
    (staged / "book" / "fourth.md").write_text("# A fourth\n")
    with (staged / "_toc.yml").open("a") as toc:
        toc.write("- file: book/fourth\n")
    (staged / "book" / "files" / "line.csv").write_text("t,x\n0,0\n1,1\n")
    build(staged, tmp_path / "second", workshop=workshop)
    build(staged, tmp_path / "clean")
    assert pages(tmp_path / "second") == pages(tmp_path / "clean")


def test_a_taken_port_is_replaced_by_a_free_one(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("hello")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-c", SERVE, str(tmp_path), port]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            address = server.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            assert port not in address
            assert urlopen(address).read() == b"hello"
            server.send_signal(signal.SIGINT)
            assert server.wait(10) == 0


def test_a_formula_and_the_punctuation_around_it_stay_on_one_line(tmp_path: Path) -> None:
    text = "# A chapter\n\nWords ($a$), more ([$b$]), $c$. A $d$ alone, and $e$ (f), $g$\n"
    build(stage(tmp_path / "staged", text), tmp_path / "html", strict=False)
    page = (tmp_path / "html" / "book" / "index.html").read_text()
    plain = page.replace('<span class="math notranslate nohighlight">', "").replace("</span>", "")
    for held in (r"(\(a\)),", r"([\(b\)]),", r"\(c\)."):
        assert f'<span class="held">{held}' in plain
    assert page.count('class="held"') == 3
    assert r"A \(d\) alone, and \(e\) (f), \(g\)" in plain
