"""Roles that lead from a sentence to the claim behind it, on any page of the book.

``{claim}`id``` or ``{claim}`words <id>``` is a link to the cell that measured the claim; ``{measured}`id:.2f``` is that
link with the measured value, so formatted, for its words. What they know stands in ``evidence.json`` beside the pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import ReferenceRole

from slowmanifold.press.ledger import Measurement
from slowmanifold.press.typography import signs

FILE = "evidence.json"


def evidence(claims: Iterable[str], measurements: Mapping[str, Measurement]) -> str:
    """What the roles know of all ``claims``, as JSON: where and with which result they were measured, null if not."""
    return json.dumps({name: asdict(measurements[name]) if name in measurements else None for name in claims})


class ClaimRole(ReferenceRole):
    """A link to a claim; the claim's name in the colour of its verdict, or words of one's own."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The link; only its words in a site without evidence, or while nobody has measured the claim."""
        file = Path(self.env.srcdir, Path(self.env.docname).parent, FILE)
        if not file.is_file():
            return [nodes.literal("", self.title)], []
        known = json.loads(file.read_text(encoding="utf-8"))
        name, words = self.named()
        if name not in known:
            return self.refused(f"no claim {name!r} in claims.yml")
        found = known[name]
        if found is None:
            return [nodes.inline("", words or "not yet measured", classes=["claim-verdict", "claim-open"])], []
        try:
            words = self.words(found["measured"])
        except ValueError as error:
            return self.refused(f"claim {name!r}, measured {found['measured']!r}: {error}")
        classes = [] if words != name else ["claim-verdict", f"claim-{found['verdict']}"]
        uri = f"{found['chapter']}.html#claim-{name}"
        return [nodes.reference("", "", nodes.Text(words), internal=True, refuri=uri, classes=classes)], []

    def named(self) -> tuple[str, str]:
        """The claim's id, and the words of the link that do not depend on what was measured."""
        return self.target, self.title

    def words(self, measured: Any) -> str:
        """The words of the link."""
        return self.title

    def refused(self, why: str) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The role as it stands in the text, and a warning."""
        message = self.inliner.reporter.warning(why, line=self.lineno)
        return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]


class MeasuredRole(ClaimRole):
    """A link to a claim whose words are the measured value, in the format after the colon."""

    def named(self) -> tuple[str, str]:
        """The claim's id; there are no words without a measurement."""
        return self.text.partition(":")[0], ""

    def words(self, measured: Any) -> str:
        """The measured value in Python's format, with powers of ten as one writes them."""
        return signs(format(measured, self.text.partition(":")[2]))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the roles with Sphinx."""
    app.add_role("claim", ClaimRole())
    app.add_role("measured", MeasuredRole())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
