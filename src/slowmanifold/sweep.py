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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from slowmanifold.sources import default_dtype, digest, environment, is_tensor, sources
from slowmanifold.workers import Raised, cluster, generator, packed, pickled, run

SCHEDULER = "SLOWMANIFOLD_SCHEDULER"

Table = dict[str, np.ndarray]


@dataclass(frozen=True)
class Value:
    """A value of a parameter: as given, by its lasting name, with the modules behind it, and as sent to workers."""

    given: Any
    key: str
    modules: tuple[str, ...]
    sent: bytes

    @classmethod
    def of(cls, value: Any, name: str) -> Value:
        """``value``, which messages call ``name``."""
        known = sources(value, name)
        return cls(value, known.key, known.modules, pickled(value, name, known.own))


@dataclass(frozen=True)
class Point:
    """One call of the function: its parameters, and the entropy and the number of its seed if it has one."""

    parameters: dict[str, Value]
    seed: tuple[int, int] | None

    @property
    def index(self) -> int:
        """The number of the seed, 0 for a function that takes no generator."""
        return self.seed[1] if self.seed else 0

    @property
    def key(self) -> str:
        """The name under which the result is kept."""
        return digest(repr((sorted((name, value.key) for name, value in self.parameters.items()), self.seed)))

    @property
    def arguments(self) -> dict[str, Any]:
        """What the function is called with, for a look at what a point does: ``function(**point.arguments)``."""
        given = {name: value.given for name, value in self.parameters.items()}
        return given | ({"generator": generator(*self.seed)} if self.seed else {})

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value.given!r}" for name, value in self.parameters.items())
        return f"({values}), seed {self.index}"


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
    of numbers, strings or arrays, with the same names and shapes at every point. A NumPy number in the grid arrives
    as Python's.

    ``generator`` is a ``numpy.random.Generator``, that of seed k made from ``SeedSequence(entropy).spawn(seeds)[k]``:
    the same for all parameters (common random numbers), and whatever ``seeds`` is. (torch seeds its own by 32 bits,
    where a thousand seeds would sometimes meet; ``torch.Generator().manual_seed(int(generator.integers(2**32)))`` is
    one.) A function without an argument ``generator`` has one seed. Each call has copies of its arguments, one thread
    and its caller's default type in torch, so the results depend neither on ``n_jobs`` nor on the order of the calls.

    The calls run in ``n_jobs`` processes of joblib's default backend (-1: one a core; 1: in this process), or on the
    Dask cluster whose scheduler has the address ``scheduler``, by default that in the environment variable
    ``SLOWMANIFOLD_SCHEDULER``, if any. A terminal shows a progress bar.

    A point is kept in ``folder`` when it is finished; by default in ``_build/sweeps`` of the book around the working
    directory, outside a book in the user's cache. It is read, not computed, for the same parameters and seed as long
    as the code behind it is the same (:mod:`slowmanifold.sources`). A point that raises stops no other. One whose
    worker dies is run again; it fails if its worker dies again with no other point beside it.

    Raises ``PointsFailed`` at the end if a point failed; ``ValueError`` for a grid that does not fit the function's
    signature, for ``seeds`` below 1, for what cannot be named or sent to a worker, and for points whose results differ
    in names or shapes; ``RuntimeError`` where this process or a worker has other code than what is on disk here.
    Used in: the page on sweeps, and every chapter with distributions over runs.
    """
    values = checked(function, grid, seeds)
    code = sources(function, "function")
    axes = {name: [Value.of(value, f"grid[{name!r}]") for value in given] for name, given in values.items()}
    random = "generator" in inspect.signature(function).parameters
    points = [
        Point(dict(zip(axes, combination, strict=True)), (entropy, k) if random else None)
        for *combination, k in itertools.product(*axes.values(), range(seeds))
    ]
    modules = {*code.modules, *(module for axis in axes.values() for value in axis for module in value.modules)}
    package = packed(pickled(partial(row_of, function), "function", code.own), modules)
    name = re.sub(r"\W", "", getattr(function, "__name__", type(function).__name__))
    version = digest(repr((code.key, environment(()), default_dtype())))
    place = Path(folder or default_folder()) / f"{name}-{version[:12]}"

    def arguments(number: int) -> tuple[dict[str, bytes], tuple[int, int] | None]:
        return {name: value.sent for name, value in points[number].parameters.items()}, points[number].seed

    results = {n: kept for n, point in enumerate(points) if (kept := read(place / point.key)) is not None}
    failures = {}
    if missing := [n for n in range(len(points)) if n not in results]:
        place.mkdir(parents=True, exist_ok=True)
        with progress() as bar, cluster(scheduler or os.environ.get(SCHEDULER)):
            task = bar.add_task(name, total=len(points), completed=len(results))
            for n, outcome in run(missing, package, arguments, n_jobs):
                if isinstance(outcome, Raised):
                    failures[n] = Failure(points[n], outcome)
                    bar.update(task, description=f"{name} [red]{len(failures)} failed")
                else:
                    write(place / points[n].key, outcome)
                    results[n] = outcome
                bar.advance(task)
    table = tabulate(list(axes), [(point, results[n]) for n, point in enumerate(points) if n in results])
    if failures:
        raise PointsFailed(name, [failures[n] for n in sorted(failures)], table)
    return table


def checked(function: Callable[..., Any], grid: Mapping[str, Iterable[Any]], seeds: int) -> dict[str, list[Any]]:
    """The values of each parameter as a list; ``ValueError`` says what is wrong with the arguments of a sweep."""
    if not callable(function):
        raise ValueError(f"function is {function!r}; allowed is something to call")
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise ValueError(f"seeds is {seeds!r}; allowed: 1, 2, 3, ...")
    arguments = inspect.signature(function).parameters
    any_name = any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values())
    known = [n for n, a in arguments.items() if a.kind in (a.POSITIONAL_OR_KEYWORD, a.KEYWORD_ONLY) if n != "generator"]
    for name in grid:
        if name in ("generator", "seed") or (name not in known and not any_name):
            raise ValueError(f"grid has {name!r}; the function's parameters are {', '.join(known) or 'none'}")
    for name in known:
        if arguments[name].default is inspect.Parameter.empty and name not in grid:
            raise ValueError(f"grid has no {name!r}, which the function needs")
    if seeds > 1 and "generator" not in arguments:
        raise ValueError(f"seeds is {seeds}; allowed is 1, as the function takes no generator")
    return {name: listed(name, values) for name, values in grid.items()}


def listed(name: str, values: Iterable[Any]) -> list[Any]:
    """The values of a parameter, NumPy's and torch's numbers as Python's."""
    if (isinstance(values, np.ndarray) or is_tensor(values)) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | set | Mapping):
        raise ValueError(f"grid[{name!r}] is {values!r}; allowed is a list or an array of values")
    if not (values := [value.item() if isinstance(value, np.generic) else value for value in values]):
        raise ValueError(f"grid[{name!r}] is empty; allowed is at least one value")
    return values


def row_of(function: Callable[..., Mapping[str, Any]], /, **arguments: Any) -> dict[str, np.ndarray]:
    """What ``function`` returns, as arrays; raises unless these can be a row of the table."""
    result = function(**arguments)
    if not isinstance(result, Mapping) or not result or not all(isinstance(name, str) for name in result):
        raise TypeError(f"the function returned {result!r:.80}; allowed is a dict of named results")
    if taken := sorted(set(result) & {*arguments, "seed"}):
        raise ValueError(f"the function returned {taken[0]!r}, which is the name of another column")
    row = {name: np.asarray(value) for name, value in result.items()}
    if strange := [name for name, array in row.items() if array.dtype == object]:
        raise TypeError(
            f"the function returned {strange[0]} = {result[strange[0]]!r:.80}; allowed: numbers, text, arrays"
        )
    return row


def tabulate(names: list[str], rows: list[tuple[Point, dict[str, np.ndarray]]]) -> Table:
    """Points and their results as columns; ``ValueError`` names a point whose results are unlike those of the first."""
    table = {name: column([point.parameters[name].given for point, _ in rows]) for name in names}
    table["seed"] = np.array([point.index for point, _ in rows], dtype=np.int64)
    for point, row in rows:
        shapes, first = ({name: array.shape for name, array in results.items()} for results in (row, rows[0][1]))
        if shapes != first:
            raise ValueError(f"the function returned {shapes} at {point}, but {first} at {rows[0][0]}")
    return table | {name: np.stack([row[name] for _, row in rows]) for name in (rows[0][1] if rows else ())}


def column(values: list[Any]) -> np.ndarray:
    """Numbers, truth values or strings as an array of their type, anything else as an array of objects."""
    for kind in (bool, (int, float), str):
        if all(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) for value in values):
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


def read(path: Path) -> dict[str, np.ndarray] | None:
    """A result that was kept; ``None`` where there is none, or what a power cut left of it."""
    try:
        return pickle.loads(path.read_bytes())
    except (FileNotFoundError, EOFError, pickle.UnpicklingError):
        return None


def write(path: Path, row: dict[str, np.ndarray]) -> None:
    """Keep a result: under its name there is all of it or nothing, whatever happens in between."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        pickle.dump(row, file, protocol=5)
    os.replace(file.name, path)


def progress() -> Progress:
    """A bar on a terminal; nothing in a notebook, a pipe or a log."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    times = TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(*columns, *times, console=Console(stderr=True), disable=not sys.stderr.isatty())
