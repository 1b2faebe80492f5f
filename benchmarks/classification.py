"""Exact classification of 10^6 perturbed bounded line attractors, on one thread.

Compared per draw: the p,q rule (a comparison of weights), relu_fixed_points in batches (all fixed points with their
stability), and what one would write first, a loop over draws that solves for each set of active units with NumPy. The
three must give every draw the same class.
"""

from collections.abc import Iterator
from itertools import product
from time import perf_counter

import numpy as np
import torch
from table import Ratio, show

from slowmanifold.dynamics.fixed_points import Stability, relu_fixed_points
from slowmanifold.networks.line import bounded_line_attractor

DRAWS, BATCH, LOOPED, SIZE = 10**6, 10**4, 2000, 0.3


def by_rule(V: torch.Tensor) -> torch.Tensor:
    """Stable fixed points and saddles from the signs of p = b - d and q = c - a."""
    p, q = V[:, 0, 1] - V[:, 1, 1], V[:, 1, 0] - V[:, 0, 0]
    two = (p < 0) & (q < 0)
    return torch.stack([1 + two.int(), two.int()], dim=-1)


def by_batch(W: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Stable fixed points and saddles as relu_fixed_points finds them."""
    kinds = [relu_fixed_points(part, b).kind for part in W.split(BATCH)]
    return torch.cat(
        [torch.stack([(kind == k).sum(-1) for k in (Stability.STABLE, Stability.SADDLE)], -1) for kind in kinds]
    )


def by_loop(W: np.ndarray, b: np.ndarray) -> list[tuple[int, int]]:
    """Stable fixed points and saddles, one draw and one set of active units at a time."""
    classes = []
    for w in W:
        stable = saddles = 0
        for support in product([0.0, 1.0], repeat=2):
            active = np.diag(support)
            x = np.linalg.solve(np.eye(2) - active @ w, active @ b)
            h = w @ x + b
            if np.array_equal(h > 0, np.array(support) > 0):
                rates = np.linalg.eigvals(active @ w - np.eye(2)).real
                stable += bool((rates < 0).all())
                saddles += bool(rates.min() < 0 < rates.max())
        classes.append((stable, saddles))
    return classes


def main() -> Iterator[Ratio]:
    torch.set_num_threads(1)
    network = bounded_line_attractor()
    V = torch.from_numpy(np.random.default_rng(0).uniform(-SIZE, SIZE, (DRAWS, 2, 2)))
    W = network.W + V

    seconds, classes = {}, {}
    for name, classify, draws in (
        ("per-draw loop", lambda: torch.tensor(by_loop(W[:LOOPED].numpy(), network.b.numpy())), LOOPED),
        ("relu_fixed_points in batches", lambda: by_batch(W, network.b), DRAWS),
        ("p,q rule", lambda: by_rule(V), DRAWS),
    ):
        times = []
        for _ in range(3):
            start = perf_counter()
            classes[name] = classify()
            times.append((perf_counter() - start) / draws)
        seconds[name] = min(times)

    rule = classes["p,q rule"]
    for name, found in classes.items():
        different = int((found != rule[: len(found)]).any(-1).sum())
        if different:
            raise SystemExit(f"{name} disagrees with the p,q rule on {different} draws of {len(found)}")
    how = f"one thread, best of 3, a draw; {DRAWS:,} draws, {LOOPED:,} of them for the loop"
    for name in ("relu_fixed_points in batches", "p,q rule"):
        loop = "NumPy, one draw at a time", seconds["per-draw loop"]
        yield Ratio("class of a perturbed bounded line attractor", name, seconds[name], *loop, how)


if __name__ == "__main__":
    show(main())
