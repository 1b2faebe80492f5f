"""Perturbed head-direction rings on one thread: exact fixed points with eigenvalues, and the survival of the circle.

Fixed points are compared, per network, with a loop over networks and sets of active units in NumPy; both must find the
same. How the cost grows with N: the tree of supports needs some 2 N 2^N multiplications, the loop N^3 2^N / 3.
"""

import sys
from itertools import product
from time import perf_counter

import numpy as np
import torch

from slowmanifold.dynamics.circles import Circle, invariant_circles
from slowmanifold.dynamics.fixed_points import relu_fixed_points
from slowmanifold.networks.ring import (
    HeadDirectionRing,
    head_direction_ring,
    optimal_excitation,
    ring_of_equilibria,
    ring_plane,
)

UNITS, REPEATS, TRACED = (6, 8, 10), 3, 500
BATCHED = {6: 4096, 8: 512, 10: 64}
LOOPED = {6: 32, 8: 8, 10: 2}


def by_loop(W: np.ndarray, b: np.ndarray) -> list[list[np.ndarray]]:
    """Eigenvalues at the fixed points of each network, one network and one set of active units at a time."""
    d = len(b)
    found = []
    for w in W:
        rates = []
        for support in product([0.0, 1.0], repeat=d):
            active = np.diag(support)
            h = np.linalg.solve(np.eye(d) - w @ active, b)
            if np.array_equal(h > 0, np.array(support) > 0):
                rates.append(np.linalg.eigvals(w @ active - np.eye(d)))
        found.append(rates)
    return found


def by_batch(W: torch.Tensor, b: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    parts = [relu_fixed_points(part, b, "preactivation") for part in W.split(max(1, 2**14 >> W.shape[-1]))]
    return [(found.exists, found.eigenvalues) for found in parts]


def disagree(looped: list[list[np.ndarray]], batched: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    exists, eigenvalues = (torch.cat(parts) for parts in zip(*batched, strict=True))
    for one, at, rates in zip(looped, exists, eigenvalues, strict=False):
        if at.sum() != len(one):
            return True
        for spectrum, values in zip(one, rates[at].numpy(), strict=True):
            if not np.allclose(np.sort(spectrum.real), np.sort(values.real), atol=1e-6):
                return True
    return False


def survival(generator: torch.Generator) -> tuple[float, float]:
    """Seconds a network and share of circles, noise of 0.01 inside the connectivity, J_E = 2.4."""
    ring = head_direction_ring(6, 2.4)
    W = ring.W + 0.01 / 6 * torch.randn(TRACED, 6, 6, generator=generator, dtype=torch.float64)
    start = perf_counter()
    found = relu_fixed_points(W, ring.b, "preactivation")
    circles = invariant_circles(
        lambda i: HeadDirectionRing(W[i], ring.b).velocity, found, ring_plane, ring_of_equilibria(6, 4)[0]
    )
    seconds = (perf_counter() - start) / TRACED
    return seconds, ((circles.kind == Circle.CONNECTED) | (circles.kind == Circle.CYCLE)).double().mean().item()


def main() -> int:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    print(f"Fixed points and eigenvalues of perturbed rings, one thread, best of {REPEATS}:")
    for N in UNITS:
        ring = head_direction_ring(N, optimal_excitation(N)[N // 2 - 2].item())
        noise = torch.randn(BATCHED[N], N, N, generator=generator, dtype=torch.float64)
        W, few = ring.W + 0.01 / N * noise, LOOPED[N]
        times = {"loop": [], "batch": []}
        for _ in range(REPEATS):
            start = perf_counter()
            looped = by_loop(W[:few].numpy(), ring.b.numpy())
            times["loop"].append((perf_counter() - start) / few)
            start = perf_counter()
            batched = by_batch(W, ring.b)
            times["batch"].append((perf_counter() - start) / len(W))
        if disagree(looped, batched):
            print(f"  {N} units: the two disagree")
            return 1
        loop, batch = min(times["loop"]), min(times["batch"])
        print(
            f"  {N:2d} units, {2**N:4d} sets:  loop {1e6 * loop:9.1f} us a network   "
            f"relu_fixed_points {1e6 * batch:7.1f} us   ratio {loop / batch:5.0f}"
        )
    seconds, share = survival(generator)
    print(f"Survival of the circle, {TRACED} networks: {60 / seconds:.0f} a minute, {share:.1%} survive")
    return 0


if __name__ == "__main__":
    sys.exit(main())
