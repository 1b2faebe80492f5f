"""The ledger: every claim of the three papers, with what this build measured and what was recorded at paper scale."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slowmanifold.claims import OURS, Record, as_text, load, with_maths
from slowmanifold.press import outline
from slowmanifold.press.chapters import Failed
from slowmanifold.press.execute import measured
from slowmanifold.press.paper_runs import PaperRun
from slowmanifold.press.typography import signs, typeset

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


@dataclass(frozen=True)
class Entry:
    """A claim with what this build measured and, if a paper run told of it, the value recorded then."""

    record: Record
    measurement: Measurement | None
    run: PaperRun | None

    @property
    def verdict(self) -> str:
        """The verdict in this build; a claim that no chapter measures is open."""
        return self.measurement.verdict if self.measurement else "open"

    @property
    def paper_verdict(self) -> str:
        """The verdict that today's record gives the value of the paper run."""
        if self.run is None:
            return "open"
        return self.record.status if self.record.agrees(self.run.claims[self.record.id]) else "contradicted"

    @property
    def scale(self) -> str:
        """How the paper run stands to this build."""
        if self.run is None:
            return "not recorded"
        return "agrees" if self.paper_verdict == self.verdict else "differs"


def entries(
    records: Mapping[str, Record], measurements: Mapping[str, Measurement], runs: Mapping[str, PaperRun]
) -> dict[str, Entry]:
    """The entry of each claim, in the order of the records."""
    told = {name: run for run in runs.values() for name in run.claims}
    return {name: Entry(record, measurements.get(name), told.get(name)) for name, record in records.items()}


def result(value: float | bool | str, verdict: str, within: float | None) -> str:
    """A measured value, or the words that stand for it, with its verdict."""
    text = value if isinstance(value, str) else signs(as_text(value, within))
    return f'{text} <span class="claim-verdict claim-{verdict}">{verdict}</span>'


def row(entry: Entry) -> str:
    """One row of the ledger."""
    record, measurement, run = entry.record, entry.measurement, entry.run
    chapter = measurement.chapter if measurement else ""
    name = f'<a href="{chapter}.html#claim-{record.id}">{record.id}</a>' if measurement else record.id
    expected = signs(html.escape(str(record.expectation)))
    if record.instead is not None:
        expected += f'<br><span class="claim-instead">we find {signs(html.escape(str(record.instead)))}</span>'
    here = result(measurement.measured if measurement else "not yet", entry.verdict, record.within)
    there = result(run.claims[record.id], entry.paper_verdict, record.within) if run else "not recorded"
    if entry.scale == "differs":
        there += ' <strong class="ledger-differs">differs from this build</strong>'
    if run is not None and run.changed:
        there += ' <a class="ledger-earlier" href="execution.html#paper-runs">earlier state</a>'
    cells = [
        f'<th scope="row">{name}</th>',
        f"<td>{html.escape(record.where)}{OURS if record.ours else ''}</td>",
        f"<td>{typeset(with_maths(record.says))}</td>",
        f"<td>{expected}</td>",
        f"<td>{here}</td>",
        f"<td>{there}</td>",
    ]
    return (
        f'<tr id="ledger-{record.id}" data-paper="{record.source}" data-chapter="{chapter}" '
        f'data-said="{"by us" if record.ours else "by the paper"}" data-status="{entry.verdict}" '
        f'data-scale="{entry.scale}">' + "".join(cells) + "</tr>"
    )


def ledger_page(book: Path, measurements: Mapping[str, Measurement], runs: Mapping[str, PaperRun]) -> str:
    """The ledger page in MyST: a summary and one table of all claims, which the page's script can filter.

    ``book`` is the folder with ``claims.yml`` and ``papers.yml``; ``measurements`` are by claim, ``runs`` by chapter.
    """
    found = entries(load(book / "claims.yml"), measurements, runs)
    papers = outline.load(book / "papers.yml")
    groups = outline.grouped((entry.record for entry in found.values()), papers)
    columns = ("claim", "where", "what is said", "expected", "this build", "paper scale")
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    body = "\n".join(
        f'<tbody><tr class="ledger-section"><th scope="rowgroup" colspan="{len(columns)}">'
        f"<span>{source}</span> {html.escape(heading)}</th></tr>\n"
        + "\n".join(row(found[record.id]) for record in records)
        + "</tbody>"
        for (source, heading), records in groups.items()
    )
    theirs = [entry for entry in found.values() if not entry.record.ours]
    titles = "; ".join(f"*{source}*: {paper.title}" for source, paper in papers.items())
    return f"""# The ledger

Every claim of the papers that the book measures, in the order of the papers, with the value that the paper gives or
that follows from it, the tolerance, and what was measured, here and at the papers' own size. A claim *holds* as
printed; it is *corrected* where it holds once a misprint is mended or a missing condition supplied; it *deviates* where
we could not confirm it, and then we say what we find; it is *open* while no chapter measures it. What the papers do not
say and we add, a consequence, a control or a check of our own, is marked as{OURS}. Each name leads to the cell that
measured it.

The verdicts on the {len(theirs)} claims of the papers: {counted(entry.verdict for entry in theirs)}. We add
{len(found) - len(theirs)}.

The papers are {titles}.

{at_paper_scale(found.values())}

```{{raw}} html
<div class="ledger-box" tabindex="0" role="region" aria-label="Ledger of claims">
<table class="ledger"><thead><tr>{head}</tr></thead>
{body}
</table></div>
```
"""


def counted(words: Iterable[str]) -> str:
    """How often each word comes, the most frequent one first."""
    return ", ".join(f"*{word}* {number}" for word, number in Counter(words).most_common())


def at_paper_scale(found: Iterable[Entry]) -> str:
    """What the paper runs say of the claims, in a paragraph; it names each claim on which this build differs."""
    found = list(found)
    text = "The runs at paper scale are recorded ({ref}`when and how <paper-runs>`) and judged by today's tolerances. "
    text += f"Beside this build: {counted(entry.scale for entry in found)}. "
    if differing := [entry.record.id for entry in found if entry.scale == "differs"]:
        links = [f'<a href="#ledger-{name}">{name}</a>' for name in differing]
        text += f"They differ in {', '.join(links)}. "
    if earlier := sum(entry.run is not None and bool(entry.run.changed) for entry in found):
        text += f"{earlier} of these values were recorded at an *earlier state* of their chapter."
    return text.strip()
