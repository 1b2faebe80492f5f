"""The page of the recorded benchmarks: what takes how long, against what, on which machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slowmanifold.press.typography import signs

TITLE = "# How fast it is\n\n"
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def benchmarks_page(recorded: Path) -> str:
    """The page in MyST, from the file that ``make bench`` writes; without one it says how to record it."""
    if not recorded.is_file():
        return f"{TITLE}No benchmarks are recorded yet; `make bench` runs and records them.\n"
    record = json.loads(recorded.read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines = [
        "Each row sets the package's way of doing something against what one would write or pick instead; both had to",
        "give the same answer. A benchmark runs in a process of its own, with one thread for linear algebra unless the",
        "row says otherwise. `make bench` runs them all again on your machine and rewrites this page.",
        "",
        "Processor\n: " + record["processor"] + "\n",
        "Packages\n: " + versions + "\n",
        f"Recorded\n: {record['date']} at `{record['commit']}`, in {record['seconds']} s\n",
        *faults(record["failed"]),
        "{.benchmarks}",
        "| what | here | compared with | ratio | how measured |",
        "|---|---|---|---:|---|",
        *(row(told) for told in record["rows"]),
    ]
    return TITLE + "\n".join(lines) + "\n"


def faults(failed: Mapping[str, str]) -> list[str]:
    """A box that names every benchmark that failed or missed its aim; nothing where none did."""
    if not failed:
        return []
    return [":::{attention}", *(f"- `{name}`: {cell(fault)}" for name, fault in failed.items()), ":::", ""]


def row(told: Mapping[str, Any]) -> str:
    """A row of the table."""
    ratio = told["their_seconds"] / told["seconds"]
    aim = "" if told["aim"] is None else f" (aim: {told['aim']:g})"
    cells = (
        told["what"],
        f"{signs(told['ours'])}: {duration(told['seconds'])}",
        f"{told['theirs']}: {duration(told['their_seconds'])}",
        f"{ratio:,.{0 if ratio >= 10 else 1}f}{aim}",
        signs(told["how"]),
    )
    return f"| {' | '.join(map(cell, cells))} |"


def cell(text: str) -> str:
    """``text`` on one line, with nothing in it that ends a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def duration(seconds: float) -> str:
    """Three digits and the unit that suits them."""
    seconds = float(f"{seconds:.3g}")  # rounded first: what rounds up to a whole unit is told in that unit
    scale, unit = next((pair for pair in UNITS if seconds >= pair[0]), UNITS[-1])
    return f"{seconds / scale:.3g}\N{NO-BREAK SPACE}{unit}"
