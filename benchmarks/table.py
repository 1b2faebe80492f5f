"""What every benchmark yields, one row a comparison, and how it is told."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """The package's way of doing something against what a user would pick instead; both must give the same answer.

    ``what`` is done, at which size; ``ours`` takes ``seconds`` and ``theirs`` ``their_seconds``, each for one unit (a
    network, a draw, a grid); ``how`` tells how the times were taken. ``aim`` is the least ratio that the project
    stands by, where it stands by one.
    """

    what: str
    ours: str
    seconds: float
    theirs: str
    their_seconds: float
    how: str
    aim: float | None = None

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return self.their_seconds / self.seconds

    @property
    def missed(self) -> bool:
        """Whether it stays below its aim."""
        return self.aim is not None and self.ratio < self.aim

    def __str__(self) -> str:
        aim = "" if self.aim is None else f", aim {self.aim:g} {'missed' if self.missed else 'met'}"
        return (
            f"{self.what}: {self.ours} {self.seconds:.3g} s, {self.theirs} {self.their_seconds:.3g} s, "
            f"ratio {self.ratio:.3g}{aim} ({self.how})"
        )


def show(rows: Iterable[Ratio]) -> None:
    """Print the rows as they come; end with status 1 where one misses its aim."""
    missed = 0
    for row in rows:
        print(row, flush=True)
        missed += row.missed
    if missed:
        raise SystemExit(f"{missed} missed")


def collect(benchmark: str) -> tuple[list[Ratio], str]:
    """The rows of the benchmark of that name, and why it ended before its end, if it did."""
    rows = []
    try:
        for row in importlib.import_module(benchmark).main():
            print(row, flush=True)
            rows.append(row)
    except (Exception, SystemExit) as error:
        return rows, f"{type(error).__name__}: {error}"
    return rows, ""
