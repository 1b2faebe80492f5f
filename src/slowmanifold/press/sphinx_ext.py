"""What the book adds to Sphinx: its settings, figures that follow the theme, and mathematics without a network.

The book's configuration names this module as an extension; ``slowmanifold.press.site`` runs Sphinx with its settings.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import posixpath
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import imagesize
import pybtex.plugin
import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.std import StandardDomain
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.writers.html5 import HTML5Translator
from sphinx_proof.domain import ProofDomain

from slowmanifold.press.typography import signs

# They load scripts from elsewhere or ask other sites: the book stands alone.
OUTSIDERS = {"sphinx_thebe", "sphinx_comments", "sphinx.ext.intersphinx"}

LIGHT = ".light.png"

# Pages are light without JavaScript; with it, a reader who has chosen nothing gets the system's theme at first paint.
FOLLOW_THE_SYSTEM = """
if (!localStorage.getItem("mode")) {
  const page = document.documentElement.dataset;
  page.mode = "auto";
  page.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}
"""


def configuration(staged: str) -> dict[str, Any]:
    """Sphinx's settings, translated from ``_config.yml`` in the folder ``staged`` with Jupyter Book's defaults."""
    from jupyter_book.config import get_final_config

    book = yaml.safe_load(Path(staged, "_config.yml").read_text(encoding="utf-8"))
    settings, _ = get_final_config(user_yaml=book, cli_config={"latex_individualpages": False})
    settings["extensions"] = [name for name in settings["extensions"] if name not in OUTSIDERS]
    for name in ("templates_path", "html_static_path", "bibtex_bibfiles"):
        settings[name] = [str(Path(staged, path)) for path in settings[name]]
    for name in ("html_logo", "html_favicon"):
        settings[name] = str(Path(staged, settings[name]))
    return settings


class drawing(nodes.image):
    """A figure's picture: shown at the size it was drawn for if the page is as wide, loaded when a reader sees it."""


class frame(nodes.container):
    """What a figure's pictures lie in; a slider says which of them is shown."""


class PairFigures(SphinxTransform):
    """Beside every figure ``X.light.png`` put its dark twin ``X.dark.png``, and the other frames where it has a slider.

    A slider is described by ``X.slider.json``; its frame ``k`` is ``X.k.light.png`` and ``X.k.dark.png``.
    """

    default_priority = 500  # before Sphinx collects the images

    def apply(self, **kwargs: Any) -> None:
        for image in list(self.document.findall(nodes.image)):
            if not image["uri"].endswith(LIGHT):
                continue
            stem, alt = image["uri"].removesuffix(LIGHT), image.get("alt", "")
            described = Path(self.env.srcdir, Path(self.env.docname).parent, f"{stem}.slider.json")
            alone = isinstance(image.parent, nodes.figure)  # elsewhere it stands in a line: a picture of the figure
            slider = json.loads(described.read_text(encoding="utf-8")) if alone and described.is_file() else None
            pictures = frame(slider=slider) if alone else nodes.inline()
            for k, value in enumerate(slider["values"] if slider else [""]):
                first = slider is None or k == slider["first"]
                for theme in ("light", "dark"):
                    uri = f"{stem}.{theme}.png" if first else f"{stem}.{k}.{theme}.png"
                    said = f"{alt} ({slider['parameter']}: {value})" if slider else alt
                    pictures += drawing(uri=uri, alt=said, classes=[f"only-{theme}"], hidden=not first)
            image.parent.replace(image, pictures)


def visit_frame(translator: HTML5Translator, node: frame) -> None:
    """Write the box; the page's script makes a slider of what it says of one."""
    told = {f"data-{name}": json.dumps(value) for name, value in (node["slider"] or {}).items()}
    translator.body.append(translator.starttag(node, "div", CLASS="figure-frame", **told))


def depart_frame(translator: HTML5Translator, node: frame) -> None:
    """Close the box."""
    translator.body.append("</div>\n")


def visit_drawing(translator: HTML5Translator, node: drawing) -> None:
    """Write the picture with its size in CSS pixels (96 to the inch), so that the page keeps still while it loads."""
    if node["uri"] not in translator.builder.images:
        raise nodes.SkipNode  # unreadable: Sphinx has warned of it
    path = Path(translator.builder.srcdir, node["uri"])
    dots_per_inch = max(imagesize.getDPI(path)[0], 96)  # -1 where the file does not say
    width, height = (round(96 * dots / dots_per_inch) for dots in imagesize.get(path))
    source = posixpath.join(translator.builder.imgpath, quote(translator.builder.images[node["uri"]]))
    shown = {"src": source, "alt": node["alt"], "width": width, "height": height, "loading": "lazy"}
    if node["hidden"]:
        shown["hidden"] = "hidden"
    translator.body.append(translator.emptytag(node, "img", "\n", style=f"--drawn: {width}px", **shown))


def depart_drawing(translator: HTML5Translator, node: drawing) -> None:
    """Nothing follows the picture."""


def visit_citation(translator: HTML5Translator, node: nodes.citation) -> None:
    """Write an entry of the bibliography as an item of its list; docutils gives it a role that lists may not hold."""
    HTML5Translator.visit_citation(translator, node)
    translator.body[-1] = translator.body[-1].replace('role="doc-biblioentry"', 'role="listitem"')


class HoldPunctuation(SphinxTransform):
    """Keep a formula and the punctuation around it on one line: browsers would break between them."""

    default_priority = 800  # after quotation marks have become typographic

    def apply(self, **kwargs: Any) -> None:
        for formula in list(self.document.findall(nodes.math)):
            parent, place = formula.parent, formula.parent.index(formula)
            before = parent[place - 1] if place > 0 and isinstance(parent[place - 1], nodes.Text) else ""
            after = parent[place + 1] if parent[place + 1 :] and isinstance(parent[place + 1], nodes.Text) else ""
            opening = re.search(r"[(\[‘“]*$", before)[0]
            closing = re.match(r"[,.;:!?)\]’”]*", after)[0]
            if not opening and not closing:
                continue
            held = nodes.inline(classes=["held"])
            parent[place] = held
            held += [nodes.Text(opening), formula, nodes.Text(closing)]
            if closing:
                parent[place + 1] = nodes.Text(after[len(closing) :])
            if opening:
                parent[place - 1] = nodes.Text(before.removesuffix(opening))


class SetMeasuredValues(SphinxPostTransform):
    """Give the measured values in the text their powers of ten and minus signs."""

    default_priority = 6  # right after myst-nb has put in those of other pages

    def run(self, **kwargs: Any) -> None:
        for pasted in self.document.findall(nodes.inline):
            if "pasted-text" in pasted["classes"]:
                pasted.children = [nodes.Text(signs(pasted.astext()))]


class ParallelProofDomain(ProofDomain):
    """sphinx-proof's domain for parallel reading: its records lie in the environment, where it merges them itself."""

    def merge_domaindata(self, docnames: list[str], otherdata: dict[str, Any]) -> None:
        """Nothing is left to merge."""


class PagesOnce:
    """An environment for looking things up in: it reads the tree of a page from disk once."""

    def __init__(self, env: BuildEnvironment):
        self.env = env
        self.get_doctree = functools.cache(env.get_doctree)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)


class QuickStandardDomain(StandardDomain):
    """Sphinx's own domain; it reads a page from disk once, not again for every numbered reference to it."""

    @functools.cached_property
    def pages(self) -> PagesOnce:
        """The environment that references are looked up in."""
        return PagesOnce(self.env)

    def resolve_xref(self, env: BuildEnvironment, *args: Any) -> Any:
        """Resolve a reference."""
        return super().resolve_xref(self.pages, *args)


def ship_mathematics(app: Sphinx, exception: Exception | None) -> None:
    """Copy MathJax's one script and its fonts into the site; the rest of the package (24 MB) is never asked for."""
    if exception is not None:
        return
    package = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    shipped = Path(app.outdir) / "_static" / "mathjax"
    fonts = Path("output", "chtml", "fonts", "woff-v2")
    shutil.copytree(package / fonts, shipped / fonts)
    shutil.copy(package / "tex-chtml-full.js", shipped)


def open_at_the_first_page(app: Sphinx, exception: Exception | None) -> None:
    """Write the site's ``index.html``, which leads to the first page, unless that is the first page itself."""
    if exception is not None or app.config.root_doc == "index":
        return
    first = f"{app.config.root_doc}.html"
    icon = f"_static/{Path(app.config.html_favicon).name}"
    Path(app.outdir, "index.html").write_text(
        f"""<!DOCTYPE html>
<html lang="{app.config.language}">
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url={first}">
<title>{app.config.html_title}</title>
<link rel="icon" href="{icon}">
<a href="{first}">{app.config.html_title}</a>
</html>
""",
        encoding="utf-8",
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    # It goes through all installed packages for each citation.
    pybtex.plugin.entry_points = functools.cache(pybtex.plugin.entry_points)
    app.setup_extension("sphinx_proof")
    app.setup_extension("slowmanifold.press.evidence")
    app.setup_extension("slowmanifold.press.terms")
    app.setup_extension("slowmanifold.press.unedited")
    app.add_domain(ParallelProofDomain, override=True)
    app.add_domain(QuickStandardDomain, override=True)
    # It numbers the chapters in the parent process, after all reading, but does not declare so.
    app.extensions["sphinx_multitoc_numbering"].parallel_read_safe = True
    app.add_node(frame, html=(visit_frame, depart_frame))
    app.add_node(drawing, html=(visit_drawing, depart_drawing))
    app.add_node(nodes.citation, override=True, html=(visit_citation, HTML5Translator.depart_citation))
    app.add_transform(PairFigures)
    app.add_transform(HoldPunctuation)
    app.add_post_transform(SetMeasuredValues)
    app.add_js_file(None, body=FOLLOW_THE_SYSTEM)
    app.set_html_assets_policy("always")  # claims bring mathematics that Sphinx does not see, also into the ledger
    app.connect("build-finished", ship_mathematics)
    app.connect(
        "build-finished", open_at_the_first_page, priority=100
    )  # the table of contents writes one if none is there
    return {"parallel_read_safe": True, "parallel_write_safe": True}
