"""Calls in worker processes that may die: joblib on this machine or on a Dask cluster, and the code that they run."""

from __future__ import annotations

import pickle
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import BrokenProcessPool
from threadpoolctl import ThreadpoolController

from slowmanifold.sources import AT_IMPORT, default_dtype, environment

DIED = "its worker died twice, the second time with no other call beside it: out of memory, or a crash in compiled code"
UNDER_WAY = 256  # calls that a cluster has at hand, for the workers that join it later


class Raised(str):
    """The traceback of a call that raised, or ``DIED``: what is had in place of a result."""


def pickled(value: Any, name: str, own: Iterable[ModuleType]) -> bytes:
    """``value`` as it is sent to workers; ``ValueError`` calls it ``name`` if it cannot be.

    Functions and classes of the modules ``own`` travel with it: workers need no copy of these, and cannot have an old
    one.
    """
    travelling = [module for module in own if module.__name__ not in cloudpickle.list_registry_pickle_by_value()]
    for module in travelling:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(value)
    except Exception as error:
        raise ValueError(f"{name} is {value!r:.80}, which cannot be sent to a worker: {error}") from None
    finally:
        for module in travelling:
            cloudpickle.unregister_pickle_by_value(module)


def packed(function: bytes, modules: Iterable[str]) -> bytes:
    """A pickled function with what its worker must share with its caller.

    That is to have the same ``modules`` of the package, the same versions of the libraries, and torch's default type.
    """
    return pickle.dumps((function, environment(modules), default_dtype()))


@lru_cache(maxsize=1)
def unpacked(package: bytes) -> tuple[Callable[..., Any], str, ThreadpoolController]:
    """The function in a package, torch's default type, and the control of the threads of the loaded libraries.

    Raises ``RuntimeError`` if this worker would run other code than its caller.
    """
    function, expected, dtype = pickle.loads(package)
    here = environment(AT_IMPORT)
    if other := [name for name in expected if here.get(name) != expected[name]]:
        raise RuntimeError(f"a worker has another {', '.join(other)} than its caller: restart or update the workers")
    return pickle.loads(function), dtype, ThreadpoolController()


@contextmanager
def torch_default(dtype: str) -> Iterator[None]:
    """Give torch's new tensors the type ``dtype`` unless told otherwise."""
    if dtype == default_dtype():
        yield
        return
    import torch  # here, as a worker without need of it should not wait for it

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def call(number: int, package: bytes, arguments: dict[str, bytes], seed: tuple[int, int] | None) -> tuple[int, Any]:
    """One call in a worker: its number, and its result or ``Raised``.

    It has copies of its arguments, a generator made from child k of ``SeedSequence(entropy)`` where ``seed`` is
    (entropy, k), one thread, and its caller's default type in torch.
    """
    function, dtype, threads = unpacked(package)
    values = {name: pickle.loads(argument) for name, argument in arguments.items()}
    if seed is not None:
        values["generator"] = generator(*seed)
    try:
        with threads.limit(limits=1), torch_default(dtype):
            return number, function(**values)
    except Exception:
        return number, Raised(traceback.format_exc())


def generator(entropy: int, k: int) -> np.random.Generator:
    """A generator seeded by ``SeedSequence(entropy).spawn(n)[k]``, which is the same for every n > k."""
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(k,)))


def run(
    numbers: Iterable[int], package: bytes, arguments: Callable[[int], tuple[Any, ...]], n_jobs: int
) -> Iterator[tuple[int, Any]]:
    """The outcomes of the calls ``numbers`` as they come; ``arguments(number)`` are those of :func:`call` for one.

    When a worker dies, the calls that were under way are run again, in halves, so that one that kills its worker is
    soon alone. It is given up when its worker has died twice, the second time with no other call beside it.
    """
    groups = [list(numbers)]
    deaths: Counter[int] = Counter()
    while groups:
        group = groups.pop()
        begun: set[int] = set()
        done: set[int] = set()

        def tasks(group: list[int] = group, begun: set[int] = begun) -> Iterator[Any]:
            for number in group:
                begun.add(number)
                yield delayed(call)(number, package, *arguments(number))

        try:
            # One call a batch, so that none that is finished is lost with those of its batch.
            for outcome in Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered")(tasks()):
                if outcome is not None:
                    done.add(outcome[0])
                    yield outcome
        except BrokenProcessPool:
            pass
        lost = [number for number in group if number in begun and number not in done]
        rest = [number for number in group if number not in begun]
        deaths.update(lost)
        if lost == group and len(lost) == 1 and deaths[lost[0]] > 1:
            yield lost[0], Raised(DIED)
        else:
            middle = len(lost) // 2
            groups += [part for part in (lost[:middle], lost[middle:], rest) if part]


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Let joblib run on the Dask cluster with the scheduler ``address``; on this machine if it is ``None``.

    Raises ``ModuleNotFoundError`` without dask.distributed, ``OSError`` if no scheduler answers.
    """
    if address is None:
        yield
        return
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a scheduler needs dask.distributed: pip install 'slowmanifold[cluster]'") from None
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        """joblib's, for workers that come and go.

        It waits for none, and keeps calls under way for those that join later. Where joblib's would wait for ever for
        a call that Dask gave up because its workers died, it hands on that there is no outcome.
        """

        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(UNDER_WAY, super().effective_n_jobs(n_jobs))

        def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
            future = super().submit(func, callback)
            future.add_done_callback(lambda future: callback([None]) if future.exception() else None)
            return future

    with (
        Client(address, set_as_default=False) as client,
        parallel_config(Backend(client=client, wait_for_workers_timeout=0)),
    ):
        yield
