"""A sweep against a plain loop: what a point costs beyond its work, and the speed-up that two workers give.

Every ratio is of times measured in this run, in turns; of each, the best of several rounds counts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from slowmanifold.sweep import sweep
from slowmanifold.workers import generator

SHORT = list(range(400))
LONG = list(range(24))
STEPS = 600_000


def short(x: int, generator: np.random.Generator) -> dict[str, float]:
    """Some microseconds of work."""
    return {"y": x + generator.standard_normal()}


def long(x: int, generator: np.random.Generator) -> dict[str, float]:
    """Some tens of milliseconds: a path of the logistic map, one step at a time."""
    y = generator.uniform(0.1, 0.9)
    for _ in range(STEPS):
        y = 3.9 * y * (1 - y)
    return {"y": y}


def plain(function: Callable, xs: list[int]) -> np.ndarray:
    """What a user would write instead of a sweep: a loop."""
    return np.array([function(x, generator(0, 0))["y"] for x in xs])


def plain_joblib(function: Callable, xs: list[int]) -> np.ndarray:
    """What a user would write instead of a sweep with workers: joblib, which keeps nothing."""
    return np.array([result["y"] for result in Parallel(2)(delayed(function)(x, generator(0, 0)) for x in xs)])


def best(ways: dict[str, Callable[[Path], np.ndarray]], rounds: int) -> dict[str, float]:
    """Seconds of each way, the best of ``rounds`` in turns; all must give the same numbers."""
    seconds = dict.fromkeys(ways, float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            results = []
            for name, way in ways.items():
                start = time.perf_counter()
                results.append(way(Path(folder, str(turn), name.split(",")[0])))
                seconds[name] = min(seconds[name], time.perf_counter() - start)
            assert all(np.array_equal(result, results[0]) for result in results)
    return seconds


def swept(function: Callable, xs: list[int], n_jobs: int) -> Callable[[Path], np.ndarray]:
    """A sweep into a given folder."""
    return lambda folder: sweep(function, {"x": xs}, 1, folder=folder, n_jobs=n_jobs)["y"]


def main() -> None:
    warm = Parallel(2)(delayed(short)(x, generator(0, 0)) for x in range(4))
    assert len(warm) == 4

    seconds = best(
        {
            "plain loop": lambda folder: plain(short, SHORT),
            "sweep, here": swept(short, SHORT, 1),
            "sweep, read again": swept(short, SHORT, 1),
            "sweep 2, 2 workers": swept(short, SHORT, 2),
        },
        rounds=3,
    )
    print(f"{len(SHORT)} short points, milliseconds a point:")
    for name, value in seconds.items():
        print(f"  {name:<20}{value / len(SHORT) * 1e3:8.3f}")

    seconds = best(
        {
            "plain loop": lambda folder: plain(long, LONG),
            "plain joblib, 2 workers": lambda folder: plain_joblib(long, LONG),
            "sweep, here": swept(long, LONG, 1),
            "sweep 2, 2 workers": swept(long, LONG, 2),
        },
        rounds=3,
    )
    point = seconds["plain loop"] / len(LONG) * 1e3
    print(f"{len(LONG)} points of {point:.0f} ms, times as fast as the plain loop:")
    for name, value in seconds.items():
        print(f"  {name:<24}{seconds['plain loop'] / value:6.2f}")


if __name__ == "__main__":
    main()
