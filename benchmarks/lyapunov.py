"""Lyapunov exponents of many networks, on one thread.

Compared per network: a loop over networks with NumPy's QR each step, and the package's batches. Both exponents of a
200 x 200 grid of rotation tanh-maps over 1000 steps (the loop on a few networks; lyapunov_spectrum, a decomposition
each fourth step, on a tenth of the grid; planar_spectrum, one vector and the determinant); full spectra of networks of
16 and 64 units, a decomposition each 25th step: the largest and the smallest exponent lie 0.23 apart, so that the
frame's columns then differ in length by exp(6). All must find the same exponents.

How far lyapunov_spectrum is from the limit of the arithmetic: its products of matrices alone, 2 d^3 a step for the
frame and 3 d^3 a decomposition, at the speed of one large product. They are also what bounds the ratio. The loop's
time a step is a product and a decomposition; a decomposition of 64 columns takes LAPACK some ten times as long as the
product, of 16 columns much longer, as calls cost more than the work. Decomposing seldom saves the one and not the
other, so that with 64 units no more than some fifteen times the speed of the loop can be had on one thread.
"""

import math
from collections.abc import Callable, Iterator
from time import process_time

import numpy as np
import torch
from table import Ratio, show

from slowmanifold.dynamics.lyapunov import lyapunov_spectrum, planar_spectrum
from slowmanifold.networks.oscillator import TanhRNN, rotation

GRID, STEPS, LOOPED, REPEATS = 200, 1000, 8, 3
NETWORKS = {16: 256, 64: 16}  # by units; weights, frames and products fit in 2 MB of cache
EVERY = 25  # steps between decompositions
AIMS = {"planar": 300, "decomposed": 50, 16: 30, 64: 7}


def by_loop(W: np.ndarray, x: np.ndarray, steps: int) -> np.ndarray:
    """Exponents with the weights of lyapunov_spectrum, one network and one step at a time."""
    s = (np.arange(steps) + 0.5) / steps
    weights = np.exp(-1 / (s * (1 - s)))
    found = []
    for w, state in zip(W, x, strict=True):
        Q, total = np.eye(len(state)), np.zeros(len(state))
        for weight in weights / weights.sum():
            state = np.tanh(w @ state)
            Q, R = np.linalg.qr((1 - state**2)[:, None] * w @ Q)
            total += weight * np.log(np.abs(np.diag(R)))
        found.append(np.sort(total)[::-1])
    return np.stack(found)


def race(*runs: Callable, repeats: int = REPEATS) -> list[tuple[float, object]]:
    """The shortest processor time of each, and its result; by turns, as what slows the machine down is to slow all."""
    times, results = [[] for _ in runs], [None for _ in runs]
    for _ in range(repeats):
        for index, run in enumerate(runs):
            start = process_time()
            results[index] = run()
            times[index].append(process_time() - start)
    return list(zip(map(min, times), results, strict=True))


def grid(generator: torch.Generator) -> Iterator[Ratio]:
    axis = torch.linspace(0.6, 4, GRID, dtype=torch.float64), torch.linspace(0.01, math.pi / 2, GRID).double()
    W = rotation(*torch.meshgrid(*axis, indexing="ij")).flatten(0, 1)
    x0 = torch.tensor([0.3, 0.1], dtype=torch.float64).expand(len(W), 2)
    some = torch.randperm(len(W), generator=generator)
    few, tenth = some[:LOOPED], some[: len(W) // 10]
    part = TanhRNN(W[tenth])
    (loop, looped), (planar, found), (batch, decomposed) = race(
        lambda: by_loop(W[few].numpy(), x0[few].numpy(), STEPS),
        lambda: planar_spectrum(TanhRNN(W).planar(), x0, STEPS).exponents,
        lambda: lyapunov_spectrum(part.pushforward, None, x0[tenth], STEPS, every=4).exponents,
    )
    gaps = np.median(np.abs(looped - found[few].numpy())), (decomposed - found[tenth]).abs().median().item()
    if max(gaps) > 1e-3:
        raise SystemExit(f"the grid: exponents disagree by {max(gaps):.1e}")
    what = f"both exponents of tanh-maps of two units, {STEPS} steps"
    for name, seconds, networks in (("planar", planar, len(W)), ("decomposed", batch, len(tenth))):
        yield Ratio(
            what,
            {"planar": "planar_spectrum", "decomposed": "lyapunov_spectrum"}[name] + f", {networks} networks at once",
            seconds / networks,
            "NumPy, one network, QR each step",
            loop / LOOPED,
            f"processor time a network, one thread; the loop on {LOOPED} networks, best of {REPEATS}",
            AIMS[name],
        )


def spectra(d: int, generator: torch.Generator) -> Ratio:
    """All exponents of networks of d units."""
    networks, steps = NETWORKS[d], 200
    W = 1.1 * torch.linalg.qr(torch.randn(networks, d, d, generator=generator, dtype=torch.float64))[0]
    x0 = 0.5 * torch.randn(networks, d, generator=generator, dtype=torch.float64)
    A = torch.randn(1500, 1500, generator=generator, dtype=torch.float64)
    net = TanhRNN(W)
    (loop, looped), (batch, found), (large, _) = race(
        lambda: by_loop(W[:4].numpy(), x0[:4].numpy(), steps),
        lambda: lyapunov_spectrum(net.pushforward, None, x0, steps, every=EVERY).exponents,
        lambda: A @ A,
        repeats=2 * REPEATS,
    )
    gap = np.median(np.abs(looped - found[:4].numpy()))
    if gap > 0.05:
        raise SystemExit(f"{d} units: exponents disagree by {gap:.1e}")
    loop, batch, speed = loop / 4, batch / networks, 2 * len(A) ** 3 / large
    products = steps * (2 + 3 / EVERY) * d**3 / speed
    return Ratio(
        f"all exponents of tanh-maps of {d} units, {steps} steps",
        f"lyapunov_spectrum, {networks} networks at once, a decomposition each {EVERY} steps",
        batch,
        "NumPy, one network, QR each step",
        loop,
        f"processor time a network, one thread, best of {2 * REPEATS} by turns, the loop on 4 networks; ours takes "
        f"{batch / products:.1f} times as long as its products of matrices at {1e-9 * speed:.0f} GFLOP/s, with which "
        f"alone the ratio were {loop / products:.0f}",
        AIMS[d],
    )


def main() -> Iterator[Ratio]:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    yield from grid(generator)
    for d in NETWORKS:
        yield spectra(d, generator)


if __name__ == "__main__":
    show(main())
