"""Theory and networks of trained reservoirs against what one would write first, on one thread.

- Gain at 61 frequencies, outlying eigenvalues and transient of a closed loop: one basis of 60 vectors, against all
  eigenvalues of the dense matrix (numpy.linalg.eigvals), which gives the eigenvalues only. What bounds it: 58 products
  with the weights, which are read from memory each time; so the three loops of a network are also found together. Ours
  alone up to N = 10,000.
- Mean-field poles of three targets: Hermite series, against Monte Carlo (at the accuracy that Monte Carlo reaches).
- A phase diagram of 40 x 40 gains and targets: one batch, against a loop.
"""

import sys
from collections.abc import Iterator
from time import process_time

import numpy as np
import torch
from table import Ratio, show

from slowmanifold.dynamics.response import LinearResponse, linear_response, linear_responses
from slowmanifold.networks.reservoir import Linearised, sample
from slowmanifold.theory.mean_field import single_target, solve

TARGETS, GAIN = [0.5, 1.0, 1.5], 1.0
LARGEST = (
    int(sys.argv[1]) if __name__ == "__main__" and sys.argv[1:] else 3000
)  # neurons of the network whose dense eigenvalues are found
AIMS = {"one loop": 40, "three loops": 60, "phase diagram": 2}


def timed(function, repeats=3):
    """Least processor time of some repeats, and the last result."""
    times = []
    for _ in range(repeats):
        start = process_time()
        result = function()
        times.append(process_time() - start)
    return min(times), result


def linearised(N: int) -> list[Linearised]:
    """The network of panel D, linearised at its first target, and at all three of them at once."""
    reservoir = sample(N, GAIN, np.random.default_rng(0))
    targets = torch.tensor(TARGETS)
    states = reservoir.settle(targets, tol=1e-8)
    trained = reservoir.train(targets, states)
    return [trained.linearised(states[0]), trained.linearised(states)]


def answers(response: LinearResponse):
    s = 1j * torch.linspace(0, 3, 61)
    return response.open_loop_gain(s), response.poles(), response.impulse_response(torch.linspace(0, 40, 401))


def one(near: Linearised):
    return answers(linear_response(near))


def each(near: Linearised):
    return [answers(response) for response in linear_responses(near)]


def loops() -> Iterator[Ratio]:
    near, all_three = linearised(LARGEST)
    fast, (_, poles, _) = timed(lambda: one(near), repeats=5)
    together, (first, *_) = timed(lambda: each(all_three), repeats=5)
    single = near.single()
    product = timed(lambda: single.apply(single.b), repeats=20)[0]
    matrix = near.matrix(closed=True).numpy()
    slow, spectrum = timed(lambda: np.linalg.eigvals(matrix), repeats=1)
    gap = max(abs(spectrum - complex(found[0])).min() for found in (poles, first[1]))
    if not gap < 1e-6:
        raise SystemExit(f"N = {LARGEST}: the leading poles differ by {gap:.1e}")
    growth = []
    for N in (1000, 3000, 10000):
        if N <= LARGEST or LARGEST >= 3000:
            near, _ = linearised(N)
            growth.append(f"{timed(lambda n=near: one(n), repeats=2)[0]:.2f} s at N = {N}")
    yield Ratio(
        f"gain at 61 frequencies, outlying eigenvalues and transient of a closed loop, N = {LARGEST}",
        "linear_response",
        fast,
        "numpy.linalg.eigvals",
        slow,
        f"processor time, one thread, best of 5 against once; 58 products with the weights in single precision, "
        f"{4e-9 * LARGEST**2 / product:.1f} GB/s, take {58 * product / fast:.0%} of ours; {', '.join(growth)}",
        AIMS["one loop"],
    )
    yield Ratio(
        f"the same, for the three closed loops of a network with three targets, N = {LARGEST}",
        "linear_responses, all three at once",
        together / 3,
        "numpy.linalg.eigvals",
        slow,
        "processor time a loop, one thread, best of 5 against once; the weights are read once for all three",
        AIMS["three loops"],
    )


def monte_carlo(field, samples: int, rng) -> torch.Tensor:
    """Leading pole at the first target from sampled averages, given the covariances."""
    w = torch.from_numpy(rng.uniform(-1, 1, samples))
    L = torch.linalg.cholesky(field.covariance)
    x = w[:, None] * field.targets + torch.from_numpy(rng.standard_normal((samples, 3))) @ L.mT
    phi, slope = torch.tanh(x), 1 - torch.tanh(x) ** 2
    second = -2 * phi * slope
    C = phi.mT @ phi / samples
    Gamma, D, B = (
        (a[:, None] * b).mean(0) for a, b in ((slope[:, 0], slope), (second[:, 0], phi), (w * slope[:, 0], phi))
    )
    k = torch.linalg.solve(C, field.targets)
    J = torch.diag(Gamma) - torch.eye(3) + torch.outer(B, k)
    J[:, 0] += D
    return torch.linalg.eigvals(J).real.max()


def poles() -> Ratio:
    """Monte Carlo at the largest number of samples, and what its rate says of an error of 1e-8."""
    seconds, field = timed(lambda: solve(TARGETS, GAIN))
    if not seconds < 0.2:
        raise SystemExit(f"three targets: poles took {seconds:.2f} s; allowed: 0.2 s")
    exact, rng, samples = field.poles(0)[0].real, np.random.default_rng(0), 10**6
    slow, found = timed(lambda: monte_carlo(field, samples, rng))
    error = abs(found - exact)
    return Ratio(
        "mean-field poles of three targets",
        "solve, errors below 1e-8",
        seconds,
        f"Monte Carlo, {samples:,} samples, covariances given",
        slow,
        f"processor time, one thread, best of 3; its error is {error:.0e}, and 1e-8 would take about "
        f"{slow * (error / 1e-8) ** 2:.0e} s",
    )


def phase_diagram() -> Ratio:
    A, g = torch.linspace(0.1, 2.5, 40)[:, None], torch.linspace(0.1, 1.9, 40)
    batched, grid = timed(lambda: single_target(A, g), repeats=2)
    few = range(0, 40, 8)
    each, looped = timed(lambda: torch.stack([single_target(A[i, 0], g[j]).pole for i in few for j in few]), repeats=1)
    if not torch.allclose(looped, grid.pole[::8, ::8].flatten(), atol=1e-9):
        raise SystemExit("phase diagram: the batch and the loop disagree")
    return Ratio(
        "phase diagram of one target, 40 × 40 points",
        "single_target, all points at once",
        batched,
        "the same, one point at a time",
        each * 1600 / len(looped),
        f"processor time, one thread; the loop from {len(looped)} points",
        AIMS["phase diagram"],
    )


def main() -> Iterator[Ratio]:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    yield from loops()
    yield poles()
    yield phase_diagram()


if __name__ == "__main__":
    show(main())
