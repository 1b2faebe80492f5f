"""A sweep against a plain loop: what a point costs beyond its work, and the speed-up that two workers give.

All times are of this run, each way in its turn, the best of several rounds; all ways must give the same numbers.
"""

import tempfile
from collections.abc import Callable, Iterator
from time import perf_counter

import joblib
import numpy as np
from joblib.externals.loky import get_reusable_executor
from table import Ratio, show

from slowmanifold.sweep import sweep
from slowmanifold.workers import generator

ROUNDS, SHORT, LONG, STEPS = 3, range(500), range(24), 500_000
OVERHEAD, SPEED_UP = 5e-3, 1.5


def short(x: int, generator: np.random.Generator) -> dict[str, float]:
    """Some microseconds of work."""
    return {"y": x + generator.standard_normal()}


def long(x: int, generator: np.random.Generator) -> dict[str, float]:
    """A path of the logistic map, one step at a time."""
    y = generator.uniform(0.1, 0.9)
    for _ in range(STEPS):
        y = 3.9 * y * (1 - y)
    return {"y": y}


def loop(function: Callable, xs: range) -> list[float]:
    """What a user would write instead of a sweep."""
    return [function(x, generator(0, 0))["y"] for x in xs]


def plain_joblib(function: Callable, xs: range) -> list[float]:
    """What a user would write instead of a sweep with two workers; nothing is kept."""
    calls = (joblib.delayed(function)(x, generator(0, 0)) for x in xs)
    return [row["y"] for row in joblib.Parallel(2)(calls)]


def swept(function: Callable, xs: range, n_jobs: int, folder: str) -> list[float]:
    """A sweep into ``folder``."""
    return sweep(function, {"x": xs}, 1, folder=folder, n_jobs=n_jobs)["y"].tolist()


def compare(function: Callable, xs: range) -> dict[str, float]:
    """Seconds of each way to call ``function`` on all of ``xs``."""
    seconds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            ways = {
                "plain loop": lambda xs: loop(function, xs),
                "sweep, in this process": lambda xs, one=one: swept(function, xs, 1, one),
                "sweep, read from disk": lambda xs, one=one: swept(function, xs, 1, one),
                "sweep, two workers": lambda xs, two=two: swept(function, xs, 2, two),
                "plain joblib, two workers": lambda xs: plain_joblib(function, xs),
            }
            results = []
            for name, way in ways.items():
                way(range(-4, 0))  # workers start, and load what they need
                start = perf_counter()
                results.append(way(xs))
                seconds.setdefault(name, []).append(perf_counter() - start)
        if any(result != results[0] for result in results):
            raise SystemExit(f"the ways to call {function.__name__} disagree")
    return {name: min(times) for name, times in seconds.items()}


def main() -> Iterator[Ratio]:
    best = compare(short, SHORT)
    overheads = {name: (time - best["plain loop"]) / len(SHORT) for name, time in best.items() if name != "plain loop"}
    print(f"{len(SHORT)} short points, best of {ROUNDS}, a point beyond what the plain loop takes:")
    for name, overhead in overheads.items():
        print(f"  {1e3 * overhead:8.3f} ms   {name}")
    if (worst := max(overhead for name, overhead in overheads.items() if "sweep" in name)) > OVERHEAD:
        raise SystemExit(f"a point costs {1e3 * worst:.1f} ms beyond its work; aim: below {1e3 * OVERHEAD:.0f} ms")
    best = compare(long, LONG)
    get_reusable_executor().shutdown()  # idle workers would keep the process for minutes
    what, how = f"{len(LONG)} paths of the logistic map, {STEPS} steps each", f"best of {ROUNDS} rounds, all points"
    loop = "plain loop", best["plain loop"]
    yield Ratio(what, "sweep, two workers", best["sweep, two workers"], *loop, f"{how}, two processes", SPEED_UP)
    plain = "plain joblib, two workers"
    yield Ratio(what, "sweep, two workers", best["sweep, two workers"], plain, best[plain], f"{how}, two processes")
    yield Ratio(what, "sweep, read from disk", best["sweep, read from disk"], *loop, how)


if __name__ == "__main__":
    show(main())
