"""The index of the book is made of its glossary: each ``{term}`` in a chapter is an entry, whether indexed or not.

The directive ``{index-of-terms}`` lists all entries that Sphinx has collected, those of ``{index}`` roles included,
with the pages where they stand.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from itertools import groupby
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode


class listing(nodes.General, nodes.Element):
    """The place of the index, which is written when all pages have been read."""


class IndexOfTerms(SphinxDirective):
    """``{index-of-terms}``: the index of the book."""

    def run(self) -> list[nodes.Node]:
        """A place for it."""
        return [listing()]


class IndexTerms(SphinxTransform):
    """Make an entry of the index of each use of a term of the glossary."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        for number, use in enumerate(list(self.document.findall(addnodes.pending_xref))):
            if use.get("reftype") != "term":
                continue
            label = f"use-{number}"
            place = nodes.target("", "", ids=[label])
            entry = ("single", use["reftarget"], label, "", None)
            use.parent.insert(use.parent.index(use), [addnodes.index(entries=[entry]), place])


class WriteIndex(SphinxPostTransform):
    """Write the index: letters, and for each entry the pages where it stands, its definition first."""

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        for place in list(self.document.findall(listing)):
            place.replace_self(self.letters() or [nodes.paragraph("", "Nothing has been indexed.")])

    def letters(self) -> list[nodes.Node]:
        """A rubric for each letter, with a list of its entries."""
        uses: dict[str, dict[str, tuple[bool, str]]] = defaultdict(dict)
        names: dict[str, str] = {}
        pages = [page for page in self.env.toctree_includes.get(self.config.root_doc, ()) if page in self.env.titles]
        entries = self.env.get_domain("index").entries
        for page in sorted(entries, key=lambda page: pages.index(page) if page in pages else len(pages)):
            for _, name, label, main, _ in entries[page]:
                key = plain(name)
                if main or key not in names:
                    names[key] = name  # as the glossary writes it
                if main or page not in uses[key]:
                    uses[key][page] = (not main, label)
        found = []
        for letter, keys in groupby(sorted(uses), key=lambda key: key[0]):
            found += [nodes.rubric("", letter.upper()), nodes.bullet_list(classes=["index-of-terms"])]
            found[-1] += [self.entry(names[key], uses[key]) for key in keys]
        return found

    def entry(self, name: str, pages: dict[str, tuple[bool, str]]) -> nodes.list_item:
        """An entry and links to its pages by their titles."""
        line = nodes.paragraph("", "", nodes.strong("", name))
        for page, (_, label) in sorted(pages.items(), key=lambda item: item[1][0]):
            title = nodes.Text(self.env.titles[page].astext())
            line += [nodes.Text(" · "), make_refnode(self.app.builder, self.env.docname, page, label, title)]
        return nodes.list_item("", line)


def plain(name: str) -> str:
    """A name as it is sorted: in lower case, without accents and dashes; itself if no letter or digit is left."""
    letters = unicodedata.normalize("NFKD", name).lower()
    return re.sub(r"[^a-z0-9 ]", "", letters.replace("–", " ").replace("-", " ")).strip() or name


def setup(app: Sphinx) -> dict[str, Any]:
    """Register directive and transforms with Sphinx."""
    app.add_node(listing)
    app.add_directive("index-of-terms", IndexOfTerms)
    app.add_transform(IndexTerms)
    app.add_post_transform(WriteIndex)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
