"""Survival of perturbed head-direction rings on one thread: draws decided a minute.

Compared: the circles of all draws traced at once (invariant_circles), and one draw at a time. Both must say the same.
"""

from collections.abc import Iterator
from time import process_time

import torch
from table import Ratio, show

from slowmanifold.dynamics.circles import Circle, invariant_circles
from slowmanifold.dynamics.fixed_points import relu_fixed_points
from slowmanifold.networks.ring import HeadDirectionRing, head_direction_ring, ring_of_equilibria, ring_plane

TRACED, ALONE = 500, 10  # draws at once, and one at a time
AIM = 10


def kinds(W: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """What became of the circle of each network."""
    found = relu_fixed_points(W, b, "preactivation")
    start = ring_of_equilibria(6, 4)[0]
    return invariant_circles(lambda i: HeadDirectionRing(W[i], b).velocity, found, ring_plane, start).kind


def main() -> Iterator[Ratio]:
    torch.set_num_threads(1)
    ring = head_direction_ring(6, 2.4)
    noise = torch.randn(TRACED, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    W = ring.W + 0.01 / 6 * noise
    start = process_time()
    together = kinds(W, ring.b)
    batch = (process_time() - start) / TRACED
    start = process_time()
    alone = torch.cat([kinds(w.unsqueeze(0), ring.b) for w in W[:ALONE]])
    each = (process_time() - start) / ALONE
    if not torch.equal(alone, together[:ALONE]):
        raise SystemExit("draws traced together and alone disagree")
    survive = ((together == Circle.CONNECTED) | (together == Circle.CYCLE)).double().mean()
    yield Ratio(
        "survival of a perturbed head-direction ring, 6 units",
        f"invariant_circles, {TRACED} draws at once",
        batch,
        "the same, one draw at a time",
        each,
        f"processor time a draw, one thread; {60 / batch:.0f} a minute, {survive:.1%} survive noise of 0.01",
        AIM,
    )


if __name__ == "__main__":
    show(main())
