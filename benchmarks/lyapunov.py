"""Lyapunov exponents of many networks, on one thread.

Compared: both exponents of a 200 x 200 grid of rotation tanh-maps over 1000 steps, in three ways (a loop over networks
with NumPy's QR each step, measured on a few networks and extrapolated; lyapunov_spectrum, batched QR each step, on a
tenth of the grid and extrapolated; planar_spectrum, one vector and the determinant); and full spectra of networks of
16 and 64 units, lyapunov_spectrum with QR each fourth step against the loop. All must find the same exponents.
"""

import math
import sys
from time import perf_counter

import numpy as np
import torch

from slowmanifold.dynamics.lyapunov import lyapunov_spectrum, planar_spectrum
from slowmanifold.networks.oscillator import TanhRNN, rotation

GRID, STEPS, LOOPED, REPEATS = 200, 1000, 8, 3


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


def best(run, repeats: int = REPEATS) -> tuple[float, object]:
    """The shortest time of some runs, and the result."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        result = run()
        times.append(perf_counter() - start)
    return min(times), result


def main() -> int:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(0.6, 4, GRID, dtype=torch.float64), torch.linspace(0.01, math.pi / 2, GRID).double()
    W = rotation(*torch.meshgrid(*axis, indexing="ij")).flatten(0, 1)
    x0 = torch.tensor([0.3, 0.1], dtype=torch.float64).expand(len(W), 2)
    some = torch.randperm(len(W), generator=generator)
    few, tenth = some[:LOOPED], some[: len(W) // 10]

    loop, looped = best(lambda: by_loop(W[few].numpy(), x0[few].numpy(), STEPS), 1)
    loop *= len(W) / LOOPED
    part = TanhRNN(W[tenth])
    qr, decomposed = best(lambda: lyapunov_spectrum(part.step, part.step_jacobian, x0[tenth], STEPS).exponents, 1)
    qr *= 10
    planar, found = best(lambda: planar_spectrum(TanhRNN(W).planar(), x0, STEPS).exponents)
    print(f"Both exponents of a {GRID} x {GRID} grid, {STEPS} steps, one thread:")
    print(f"  loop (from {LOOPED} networks)     {loop:8.1f} s")
    print(f"  batched QR (from a tenth) {qr:8.1f} s   ratio {loop / qr:6.0f}")
    print(f"  planar_spectrum          {planar:9.2f} s   ratio {loop / planar:6.0f}")
    gap = np.median(np.abs(looped - found[few].numpy())), (decomposed - found[tenth]).abs().median().item()
    if max(gap) > 1e-3:
        print("  they disagree")
        return 1

    print("Full spectra, 200 steps:")
    for d, networks in ((16, 512), (64, 64)):
        W = 1.1 * torch.linalg.qr(torch.randn(networks, d, d, generator=generator, dtype=torch.float64))[0]
        x0 = 0.5 * torch.randn(networks, d, generator=generator, dtype=torch.float64)
        net = TanhRNN(W)
        loop, looped = best(lambda W=W, x0=x0: by_loop(W[:4].numpy(), x0[:4].numpy(), 200))
        batch, found = best(
            lambda net=net, x0=x0: lyapunov_spectrum(net.step, net.step_jacobian, x0, 200, every=4).exponents
        )
        loop, batch = loop / 4, batch / networks
        if np.median(np.abs(looped - found[:4].numpy())) > 0.05:
            print(f"  {d} units: the two disagree")
            return 1
        print(
            f"  {d:3d} units: loop {1e3 * loop:7.1f} ms a network   lyapunov_spectrum {1e3 * batch:6.2f} ms   "
            f"ratio {loop / batch:4.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
