"""The ledger: every claim of the three papers, with what the executed chapters measured."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slowmanifold.claims import Record, as_text, load, with_maths
from slowmanifold.press.chapters import Failed
from slowmanifold.press.execute import measured

if TYPE_CHECKING:
    from nbformat import NotebookNode


@dataclass(frozen=True)
class Measurement:
    """What a chapter measured for a claim, and the verdict that it got there."""

    chapter: str
    measured: float | bool
    verdict: str


def measurements(notebook: NotebookNode, chapter: str) -> list[tuple[str, Measurement]]:
    """Id and measurement of each claim in an executed notebook."""
    return [(told["id"], Measurement(chapter, told["measured"], told["verdict"])) for told in measured(notebook)]


def collect(notebooks: Mapping[str, NotebookNode]) -> dict[str, Measurement]:
    """All measurements of the book by claim; ``Failed`` names a claim that is measured twice."""
    found: dict[str, Measurement] = {}
    for chapter, notebook in notebooks.items():
        for name, measurement in measurements(notebook, chapter):
            if name in found:
                raise Failed(f"claim {name} is measured twice: in {found[name].chapter} and in {chapter}")
            found[name] = measurement
    return found


def row(record: Record, measurement: Measurement | None) -> str:
    """One row of the ledger; a claim that no chapter measures is open."""
    verdict = measurement.verdict if measurement else "open"
    chapter = measurement.chapter if measurement else ""
    name = f'<a href="{chapter}.html#claim-{record.id}">{record.id}</a>' if measurement else record.id
    value = as_text(measurement.measured) if measurement else "not yet"
    expected = html.escape(str(record.expectation))
    if record.instead is not None:
        expected += f'<br><span class="claim-instead">we find {html.escape(str(record.instead))}</span>'
    cells = [
        f'<th scope="row">{name}</th>',
        f"<td>{record.source}<br>{html.escape(record.where)}</td>",
        f"<td>{with_maths(record.says)}</td>",
        f"<td>{expected}</td>",
        f"<td>{value}</td>",
        f'<td><span class="claim-verdict claim-{verdict}">{verdict}</span></td>',
    ]
    return (
        f'<tr id="ledger-{record.id}" data-paper="{record.source}" data-chapter="{chapter}" data-status="{verdict}">'
        + "".join(cells)
        + "</tr>"
    )


def ledger_page(claims: Path, measurements: Mapping[str, Measurement]) -> str:
    """The ledger page in MyST: a summary and one table of all claims, which the page's script can filter."""
    records = load(claims)
    verdicts = [measurements[name].verdict if name in measurements else "open" for name in records]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(sorted(verdicts)))
    columns = ("claim", "where", "the paper says", "expected", "measured", "verdict")
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    body = "\n".join(row(record, measurements.get(name)) for name, record in records.items())
    return f"""# The ledger

Every claim of the papers that the book measures, with the value that the paper gives or that follows from it, the
tolerance, and what this build measured. A claim *holds* as printed; it is *corrected* where it holds once a misprint
is mended; it *deviates* where we could not confirm it, and then we say what we find; it is *open* while no chapter
measures it. Each name leads to the cell that measured it. Of {len(records)} claims: {counts}.

```{{raw}} html
<div class="ledger-box" tabindex="0" role="region" aria-label="Ledger of claims">
<table class="ledger"><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table></div>
```
"""
