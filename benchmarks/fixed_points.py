"""All fixed points of threshold-linear networks with their eigenvalues, on one thread.

Compared per network: relu_fixed_points on many networks at once, and what one would write first, a loop over networks
and sets of active units with NumPy. Both must find the same points. Random networks, and head-direction rings with
noise of 0.01 in their connectivity. How the cost grows with N: the tree of all sets needs some 2 N 2^N multiplications,
the loop N^3 2^N / 3. Both need the eigenvalues of a few small matrices: what LAPACK takes for the whole ones is told
too. Of each ring there is one with all units active, which has no closed form.
"""

from collections.abc import Iterator
from itertools import product
from time import process_time

import numpy as np
import torch
from table import Ratio, show

from slowmanifold.dynamics.fixed_points import ReluFixedPoints, relu_fixed_points
from slowmanifold.networks.ring import head_direction_ring, optimal_excitation

SETS, NETWORKS = 2**17, 2**11  # by batch: so many sets of active units, of at least so many networks
LOOPED, WHOLE, REPEATS = 2**11, 2**7, 5  # sets by loop; networks whose whole Jacobians go to LAPACK
AIMS = {"random networks": {2: 80, 4: 100, 6: 100, 8: 150}, "perturbed rings": {6: 60, 8: 90, 10: 120}}


def by_loop(W: np.ndarray, b: np.ndarray) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Fixed points and eigenvalues, one network and one set of active units at a time."""
    d = len(b)
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


def disagree(looped: list[list[tuple[np.ndarray, np.ndarray]]], found: ReluFixedPoints) -> bool:
    numbers = found.exists.sum(-1).tolist()
    for one, points, rates in zip(looped, found.states.split(numbers), found.rates.split(numbers), strict=False):
        if len(one) != len(points):
            return True
        for (x, values), y, ours in zip(one, points.numpy(), rates.numpy(), strict=True):
            pairs = (x, y), (np.sort(values.real), np.sort(ours.real)), (np.sort(values.imag), np.sort(ours.imag))
            if not all(np.allclose(*pair, atol=1e-6) for pair in pairs):
                return True
    return False


def compare(name: str, W: torch.Tensor, b: torch.Tensor) -> Ratio:
    d = len(b)
    few = max(2, LOOPED >> d)
    times = {"loop": [], "batch": [], "eigenvalues": []}
    for _ in range(REPEATS):
        start = process_time()
        looped = by_loop(W[:few].numpy(), b.numpy())
        times["loop"].append((process_time() - start) / few)
        start = process_time()
        found = relu_fixed_points(W, b)
        found.rates  # noqa: B018  (computed when asked for)
        times["batch"].append((process_time() - start) / len(W))
        some = relu_fixed_points(W[:WHOLE], b)
        jacobians = some.jacobians[some.exists]
        start = process_time()
        torch.linalg.eigvals(jacobians)
        times["eigenvalues"].append((process_time() - start) / WHOLE)
    if disagree(looped, found):
        raise SystemExit(f"{name}, {d} units: the two disagree")
    loop, batch, eigenvalues = (min(values) for values in times.values())
    return Ratio(
        f"all fixed points and eigenvalues, {name}, {d} units ({2**d} sets)",
        "relu_fixed_points, all networks at once",
        batch,
        "NumPy, one set of units of one network at a time",
        loop,
        f"processor time a network, one thread, best of {REPEATS}, {len(W)} and {few} networks with "
        f"{found.exists.sum() / len(W):.1f} fixed points each, whose whole Jacobians' eigenvalues alone take LAPACK "
        f"{1e6 * eigenvalues:.1f} µs",
        AIMS[name][d],
    )


def main() -> Iterator[Ratio]:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    for d in AIMS["random networks"]:
        W = torch.randn(max(SETS >> d, NETWORKS), d, d, generator=generator, dtype=torch.float64)
        yield compare("random networks", W, torch.ones(d, dtype=torch.float64))
    for N in AIMS["perturbed rings"]:
        ring = head_direction_ring(N, optimal_excitation(N)[N // 2 - 2].item())
        noise = torch.randn(NETWORKS, N, N, generator=generator, dtype=torch.float64)
        yield compare("perturbed rings", ring.W + 0.01 / N * noise, ring.b)


if __name__ == "__main__":
    show(main())
