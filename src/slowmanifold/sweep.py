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
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
import torch
from joblib.externals.loky.process_executor import BrokenProcessPool
from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import track
from threadpoolctl import threadpool_limits

from slowmanifold import sources

SCHEDULER = "SLOWMANIFOLD_SCHEDULER"
DIED = (
    "its worker died twice, the second time with no other point beside it: out of memory, or a crash in compiled code"
)
QUEUED = 1000  # points that a cluster has at hand, also for workers that join it later
PATIENCE = 300  # seconds in which a cluster's first worker should come
TURN = threading.RLock()  # torch's default type and the number of threads are one for a process

Row = dict[str, np.ndarray]
Table = dict[str, np.ndarray]


@dataclass(frozen=True)
class Point:
    """One call of the function: its parameters, the entropy and number of its seed (if it has one), and its key."""

    parameters: dict[str, Any]
    entropy: int
    seed: int | None
    key: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What the function is called with, copied and seeded anew: ``function(**point.arguments)``."""
        drawn = {} if self.seed is None else {"generator": generator(self.entropy, self.seed)}
        return deepcopy(self.parameters) | drawn

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        return f"({values}), seed {self.seed or 0}"


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


def generator(entropy: int, seed: int) -> np.random.Generator:
    """A generator seeded by ``SeedSequence(entropy).spawn(n)[seed]``, which is the same for every n > seed."""
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(seed,)))


def attempt(function: Callable[..., Mapping[str, Any]], point: Point) -> tuple[str, Row | str]:
    """The point's key and what ``function`` returns, or else the traceback of its exception."""
    try:
        return point.key, row_of(function, point.arguments)
    except Exception:
        return point.key, traceback.format_exc()


def row_of(function: Callable[..., Mapping[str, Any]], arguments: dict[str, Any]) -> Row:
    """What ``function`` returns, as arrays; raises unless these can be a row of the table."""
    result = function(**arguments)
    if not isinstance(result, Mapping) or not result or not all(isinstance(name, str) for name in result):
        raise TypeError(f"the function returned {result!r:.80}; allowed is a dict of named results")
    if taken := sorted(set(result) & {*arguments, "seed"}):
        raise ValueError(f"the function returned {taken[0]!r}, which is the name of another column")
    row = {name: np.asarray(value).copy() for name, value in result.items()}
    for name, array in row.items():
        if array.dtype == object:
            raise TypeError(f"the function returned {name} = {result[name]!r:.80}; allowed: numbers, text, arrays")
    return row


def computed_here(function: Callable[..., Mapping[str, Any]], points: list[Point]) -> Iterator[tuple[str, Row | str]]:
    """Key and outcome of each point, one after the other in this process."""
    with threadpool_limits(1):
        for point in points:
            yield attempt(function, point)


def computed_by_workers(
    package: bytes, points: list[Point], n_jobs: int, scheduler: str | None
) -> Iterator[tuple[str, Row | str]]:
    """Key and outcome of each point as they come from ``n_jobs`` workers here, or from those of a Dask cluster.

    joblib ends all workers when one dies. The points that were under way then run again, in halves, so that one that
    kills its worker is soon alone. It is given up when its worker has died twice, the second time with it alone.
    """
    groups = [points]
    deaths: Counter[str] = Counter()
    with cluster(scheduler) if scheduler else joblib.parallel_config("loky", inner_max_num_threads=1):
        while groups:
            group = groups.pop(0)
            waiting = iter(group)
            done = set()
            # One point a task, so that none that is finished is lost with its neighbours.
            parallel = joblib.Parallel(
                n_jobs=-1 if scheduler else n_jobs,
                return_as="generator_unordered",
                batch_size=1,
                pre_dispatch=QUEUED if scheduler else "2*n_jobs",
                max_nbytes=None,
            )
            with suppress(BrokenProcessPool):
                for outcome in parallel(joblib.delayed(call)(package, point) for point in waiting):
                    if isinstance(outcome, BaseException):
                        raise outcome
                    if outcome is not None:
                        done.add(outcome[0])
                        yield outcome
            rest = list(waiting)
            lost = [point for point in group[: len(group) - len(rest)] if point.key not in done]
            deaths.update(point.key for point in lost)
            if len(group) == len(lost) == 1 and deaths[lost[0].key] > 1:
                yield lost[0].key, DIED
            else:
                middle = len(lost) // 2
                groups += [part for part in (lost[:middle], lost[middle:], rest) if part]


def call(package: bytes, point: Point) -> tuple[str, Row | str]:
    """A point in a worker, with its caller's default type in torch."""
    with TURN:
        function, dtype = unpacked(package)
        torch.set_default_dtype(dtype)
        return attempt(function, point)


@lru_cache(maxsize=1)
def unpacked(package: bytes) -> tuple[Callable[..., Mapping[str, Any]], torch.dtype]:
    """The function in a package, and torch's default type; ``RuntimeError`` if this worker has other code."""
    function, versions, dtype = pickle.loads(package)
    here = sources.VERSIONS | sources.AT_IMPORT
    if other := [name for name, expected in versions.items() if here.get(name) != expected]:
        raise RuntimeError(f"a worker has another {', '.join(other)} than its caller: restart or update the workers")
    return pickle.loads(function), dtype


@contextmanager
def cluster(address: str) -> Iterator[None]:
    """Let joblib run on the Dask cluster with the scheduler ``address``.

    Raises ``ModuleNotFoundError`` without dask.distributed, ``OSError`` if no scheduler answers, ``TimeoutError`` if
    no worker comes.
    """
    try:
        from distributed import Client, KilledWorker
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a scheduler needs dask.distributed: pip install 'slowmanifold[cluster]'") from None
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        """joblib's, which would run tasks here if one worker is left, and wait for ever for those that Dask gave up."""

        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, super().effective_n_jobs(n_jobs))

        def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
            def given_up(future: Any) -> None:
                if error := future.exception():
                    callback([None if isinstance(error, KilledWorker) else error])

            future = super().submit(func, callback)
            future.add_done_callback(given_up)
            return future

    with (
        Client(address, set_as_default=False) as client,
        joblib.parallel_config(Backend(client=client, wait_for_workers_timeout=PATIENCE)),
    ):
        yield


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
