"""All fixed points of random threshold-linear networks with their eigenvalues, on one thread.

Compared per network: relu_fixed_points, one batched solve over all 2^d sets of active units of all networks, and what
one would write first, a loop over networks and sets with NumPy. Both must find the same points.
"""

import sys
from itertools import product
from time import perf_counter

import numpy as np
import torch

from slowmanifold.dynamics.fixed_points import relu_fixed_points

DIMENSIONS, ENTRIES, LOOPED, REPEATS = (2, 4, 6, 8), 2**19, 2**12, 3


def by_loop(W: np.ndarray, b: np.ndarray) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Fixed points and eigenvalues, one network and one set of active units at a time."""
    d = W.shape[-1]
    found = []
    for w in W:
        points = []
        for support in product([0.0, 1.0], repeat=d):
            active = np.diag(support)
            x = np.linalg.solve(np.eye(d) - active @ w, active @ b)
            if np.array_equal(w @ x + b > 0, np.array(support) > 0):
                points.append((x, np.linalg.eigvals(active @ w - np.eye(d))))
        found.append(points)
    return found


def by_batch(W: torch.Tensor, b: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Which sets hold fixed points, these, and their eigenvalues, for 16384 sets at a time."""
    parts = [relu_fixed_points(part, b) for part in W.split(max(1, 2**14 >> W.shape[-1]))]
    return [(found.exists, found.points, found.eigenvalues) for found in parts]


def disagree(looped: list, batched: list) -> bool:
    exists, points, eigenvalues = (torch.cat(parts) for parts in zip(*batched, strict=True))
    for one, at, x, rates in zip(looped, exists, points, eigenvalues, strict=False):
        if at.sum() != len(one):
            return True
        for (point, spectrum), y, values in zip(one, x[at].numpy(), rates[at].numpy(), strict=True):
            if not np.allclose(point, y, atol=1e-8):
                return True
            if not np.allclose(np.sort_complex(spectrum), np.sort_complex(values), atol=1e-6):
                return True
    return False


def main() -> int:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    print(f"All fixed points and eigenvalues of random networks, one thread, best of {REPEATS}:")
    for d in DIMENSIONS:
        W = torch.from_numpy(rng.normal(size=(ENTRIES >> d, d, d)))
        b = torch.ones(d, dtype=torch.float64)
        few = W[: max(1, LOOPED >> d)]
        times = {"loop": [], "batch": []}
        for _ in range(REPEATS):
            start = perf_counter()
            looped = by_loop(few.numpy(), b.numpy())
            times["loop"].append((perf_counter() - start) / len(few))
            start = perf_counter()
            batched = by_batch(W, b)
            times["batch"].append((perf_counter() - start) / len(W))
        if disagree(looped, batched):
            print(f"  {d} units: the two disagree")
            return 1
        loop, batch = min(times["loop"]), min(times["batch"])
        print(
            f"  {d} units, {2**d:4d} sets:  loop {1e6 * loop:9.1f} us a network   "
            f"relu_fixed_points {1e6 * batch:7.1f} us   ratio {loop / batch:5.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
