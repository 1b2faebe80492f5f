"""One way to run anything many times: a function over a grid of parameters and independent seeds.

In parallel on this machine, or on a Dask cluster; finished points are kept on disk, so that a sweep that was
interrupted goes on where it stopped, and one that is complete is only read.
"""

from __future__ import annotations

import inspect
import itertools
import os
import pickle
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
import torch
from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import track

from slowmanifold import sources
from slowmanifold.workers import Point, Row, computed_by_workers, computed_here

SCHEDULER = "SLOWMANIFOLD_SCHEDULER"
Table = dict[str, np.ndarray]


@dataclass(frozen=True)
class Failure:
    """A point without a result, and why: the traceback of its exception, or that its worker died of it."""

    point: Point
    error: str


class PointsFailed(RuntimeError):
    """Some points of a sweep failed: ``failures`` says which and why, ``table`` holds the others.

    The others are on disk too: the same sweep, run again, computes only what failed.
    """

    def __init__(self, name: str, failures: list[Failure], table: Table) -> None:
        self.failures = failures
        self.table = table
        shown = [f"{name}{failure.point}: {failure.error.splitlines()[-1]}" for failure in failures[:5]]
        if len(failures) > len(shown):
            shown.append(f"and {len(failures) - len(shown)} more")
        head = f"{len(failures)} of {len(failures) + table['seed'].size} points failed; the others are kept"
        super().__init__("\n".join([head, *shown, "", failures[0].error]))


def sweep(
    function: Callable[..., Mapping[str, Any]],
    grid: Mapping[str, Iterable[Any]],
    seeds: int,
    *,
    entropy: int = 0,
    folder: Path | str | None = None,
    n_jobs: int = -1,
    scheduler: str | None = None,
) -> Table:
    """Call ``function`` with every combination of the values in ``grid`` and each of ``seeds`` independent seeds.

        table = sweep(train, {"rate": [0.01, 0.1], "noise": np.linspace(0, 1, 11)}, seeds=20)

    calls ``train(rate=…, noise=…, generator=…)`` 440 times. The table has one row a point, in the order of the grid:
    the last parameter runs faster than the first and the seed fastest, so ``table["loss"].reshape(2, 11, 20)`` is
    what one expects. Its columns are the parameters, ``seed`` (0, 1, …) and the results: ``function`` returns a dict
    of numbers, strings or arrays, with the same names and shapes at every point.

    ``generator`` is a ``numpy.random.Generator``, that of seed k made from ``SeedSequence(entropy).spawn(seeds)[k]``:
    the same for all parameters (common random numbers). A function without an argument ``generator`` has one seed.
    Each call has copies of its arguments, one thread and its caller's default type in torch, so the results depend
    neither on ``n_jobs`` nor on the order of the calls.

    The calls run in ``n_jobs`` processes of joblib's default backend (-1: one a core, at most ``LOKY_MAX_CPU_COUNT``;
    1: in this process), or on the Dask cluster whose scheduler has the address ``scheduler``, by default that in the
    environment variable ``SLOWMANIFOLD_SCHEDULER``. A terminal shows a progress bar.

    A point is kept in ``folder`` when it is finished (by default ``_build/sweeps`` of the book around the working
    directory, outside a book the user's cache), and read, not computed, for the same parameters and seed as long as
    the code behind it is the same (:mod:`slowmanifold.sources`). A point that raises stops no other. One whose worker
    dies is run again; it fails if its worker dies again with no other point beside it.

    Raises ``PointsFailed`` at the end if a point failed; ``ValueError`` for a grid that does not fit the function's
    signature, for what has no lasting description, and for results that differ in names or shapes; ``RuntimeError``
    where a worker has other code than its caller.
    Used in: the page on sweeps, and every chapter with distributions over runs.
    """
    values = checked(function, grid, seeds)
    code, versions = sources.fingerprint(function, "function")
    axes: dict[str, list[tuple[Any, str]]] = {name: [] for name in values}
    for name, axis in values.items():
        for value in axis:
            key, needed = sources.fingerprint(value, f"grid[{name!r}]")
            axes[name].append((value, key))
            versions |= needed
    points = []
    for *chosen, seed in itertools.product(*axes.values(), range(seeds) if draws(function) else [None]):
        parameters = {name: value for name, (value, _) in zip(axes, chosen, strict=True)}
        keys = {name: key for name, (_, key) in zip(axes, chosen, strict=True)}
        points.append(Point(parameters, entropy, seed, joblib.hash((keys, entropy, seed))))
    name = re.sub(r"\W", "", getattr(function, "__name__", type(function).__name__))
    dtype = torch.get_default_dtype()
    place = Path(folder or default_folder()) / f"{name}-{joblib.hash((code, str(dtype)))[:12]}"
    results = {point.key: kept for point in points if (kept := read(place / point.key)) is not None}
    errors: dict[str, str] = {}
    if missing := {point.key: point for point in points if point.key not in results}:
        place.mkdir(parents=True, exist_ok=True)
        scheduler = scheduler or os.environ.get(SCHEDULER)
        if scheduler is None and joblib.effective_n_jobs(n_jobs) == 1:
            outcomes = computed_here(function, list(missing.values()))
        else:
            package = pickle.dumps((cloudpickle.dumps(function), versions, dtype))
            outcomes = computed_by_workers(package, list(missing.values()), n_jobs, scheduler)
        quiet = not sys.stderr.isatty()
        bar = track(outcomes, name, len(points), len(results), console=Console(stderr=True), disable=quiet)
        with closing(outcomes):
            for key, outcome in bar:
                if isinstance(outcome, str):
                    errors[key] = outcome
                else:
                    write(place / key, outcome)
                    results[key] = outcome
    table = tabulate(list(grid), [(point, results[point.key]) for point in points if point.key in results])
    if errors:
        raise PointsFailed(name, [Failure(point, errors[point.key]) for point in points if point.key in errors], table)
    return table


def checked(function: Callable[..., Any], grid: Mapping[str, Iterable[Any]], seeds: int) -> dict[str, list[Any]]:
    """The values of each parameter as a list; ``ValueError`` says what is wrong with the arguments of a sweep."""
    if not callable(function):
        raise ValueError(f"function is {function!r}; allowed is something to call")
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise ValueError(f"seeds is {seeds!r}; allowed: 1, 2, 3, ...")
    if seeds > 1 and not draws(function):
        raise ValueError(f"seeds is {seeds}; allowed is 1, as the function takes no generator")
    if taken := sorted({"generator", "seed"} & set(grid)):
        raise ValueError(f"grid has {taken[0]!r}, which is made from entropy and seeds; allowed are the parameters")
    try:
        inspect.signature(function).bind(**grid, **({"generator": None} if draws(function) else {}))
    except TypeError as error:
        raise ValueError(f"grid has {list(grid)}; the function takes {inspect.signature(function)}: {error}") from None
    return {name: listed(name, values) for name, values in grid.items()}


def draws(function: Callable[..., Any]) -> bool:
    """Whether a function takes a generator."""
    return "generator" in inspect.signature(function).parameters


def listed(name: str, values: Iterable[Any]) -> list[Any]:
    """The values of a parameter, NumPy's and torch's numbers as Python's."""
    if isinstance(values, np.ndarray | torch.Tensor) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | set | Mapping):
        raise ValueError(f"grid[{name!r}] is {values!r}; allowed is a list or an array of values")
    if not (values := [value.item() if isinstance(value, np.generic) else value for value in values]):
        raise ValueError(f"grid[{name!r}] is empty; allowed is at least one value")
    return values


def tabulate(names: list[str], rows: list[tuple[Point, Row]]) -> Table:
    """Points and their results as columns; ``ValueError`` names a point whose results are unlike those of the first."""
    table = {name: column([point.parameters[name] for point, _ in rows]) for name in names}
    table["seed"] = np.array([point.seed or 0 for point, _ in rows], dtype=np.int64)
    for point, row in rows:
        shapes, first = ({name: array.shape for name, array in results.items()} for results in (row, rows[0][1]))
        if shapes != first:
            raise ValueError(f"the function returned {shapes} at {point}, but {first} at {rows[0][0]}")
    return table | {name: np.stack([row[name] for _, row in rows]) for name in (rows[0][1] if rows else ())}


def column(values: list[Any]) -> np.ndarray:
    """Numbers, truth values or strings as an array of their type, anything else as an array of objects."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float} or kinds in ({bool}, {str}):
        return np.array(values)
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    return objects


def default_folder() -> Path:
    """Where results are kept: ``_build/sweeps`` of the book around the working directory, else the user's cache."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "_toc.yml").is_file():
            return folder / "_build" / "sweeps"
    return user_cache_path("slowmanifold") / "sweeps"


def read(path: Path) -> Row | None:
    """A result that was kept; ``None`` where there is none, or what a power cut left of it."""
    try:
        return pickle.loads(path.read_bytes())
    except (FileNotFoundError, EOFError, pickle.UnpicklingError):
        return None


def write(path: Path, row: Row) -> None:
    """Keep a result: under its name there is all of it or nothing, whatever happens in between."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        pickle.dump(row, file, protocol=5)
    os.replace(file.name, path)
