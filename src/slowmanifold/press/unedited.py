"""Pages whose own text was not edited are written again where they show something of a page that was.

A page shows of others their titles and numbers, the places of labels, terms and equations, entries of index and
bibliography. Sphinx knows of changed numbers; if anything else of all this changes, every page is written again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

# Where Sphinx and its extensions keep what they know across pages, beside the domains.
SHARED = ("longtitles", "titles", "tocs", "toc_secnumbers", "toc_fignumbers", "toctree_includes")
SHARED += ("proof_list", "sphinx_exercise_registry")


def spelled(value: Any, unordered: tuple[type, ...] = (set, frozenset)) -> str:
    """``value`` as text, the same for equal values whatever the order in which they came about.

    In collections of the types ``unordered`` the order tells nothing.
    """
    if isinstance(value, nodes.Node):
        return value.pformat()
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(f'{key!r}: {spelled(one, unordered)}' for key, one in value.items()))}}}"
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        spelt = [spelled(one, unordered) for one in value]
        return f"[{', '.join(sorted(spelt) if isinstance(value, unordered) else spelt)}]"
    if type(value).__repr__ is object.__repr__:  # which tells where it lies in memory
        return f"{type(value).__name__}({spelled(vars(value), unordered)})"
    return repr(value)


def pages_that_show_others(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """All pages, if anything that pages show of each other has changed since the last build."""
    shown = {name: spelled(getattr(env, name, None)) for name in SHARED}
    # The lists of the domains are in the order in which pages were read; an edited page comes last.
    shown["domaindata"] = spelled(env.domaindata, (set, frozenset, list))
    before, env.shown_across_pages = getattr(env, "shown_across_pages", None), shown
    return sorted(env.found_docs) if before is not None and before != shown else []


def tidy_search(app: Sphinx) -> list[tuple[str, dict[str, Any], str]]:
    """Take out of what is searched the words that stand on no page any more; return no pages to add to the site.

    And the entries of the book's index: Sphinx knows those of the pages that it writes now, and would list a page
    once more, under the same title, for each of them.
    """
    app.builder.indexer._index_entries.clear()
    for words in (app.builder.indexer._mapping, app.builder.indexer._title_mapping):
        for word in [word for word, pages in words.items() if not pages]:
            del words[word]
    return []


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("env-get-updated", pages_that_show_others, priority=900)  # when all numbers have been given
    app.connect("html-collect-pages", tidy_search)  # when all are written, before the index is
    return {"env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
