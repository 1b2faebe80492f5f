"""Where the points of a sweep are computed: in this process, in others on this machine, or on a Dask cluster."""

from __future__ import annotations

import pickle
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import joblib
import numpy as np
import torch
from joblib.externals.loky.process_executor import BrokenProcessPool
from threadpoolctl import threadpool_limits

from slowmanifold import sources

DIED = (
    "its worker died twice, the second time with no other point beside it: out of memory, or a crash in compiled code"
)
QUEUED = 1000  # points that a cluster has at hand, also for workers that join it later
PATIENCE = 300  # seconds in which a cluster's first worker should come
TURN = threading.RLock()  # torch's default type and the number of threads are one for a process

Row = dict[str, np.ndarray]


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
                pre_dispatch=QUEUED if scheduler else "n_jobs",
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
