"""Theory and networks of trained reservoirs against what one would write first, on one thread.

- Gain at 61 frequencies, outlying eigenvalues and transient of a closed loop: one Krylov basis, against all eigenvalues
  of the dense matrix (numpy.linalg.eigvals), which gives the eigenvalues only. The Krylov basis alone up to N = 10,000.
- Mean-field poles of three targets: Hermite series, against Monte Carlo (at the accuracy that Monte Carlo reaches).
- A phase diagram of 40 x 40 gains and targets: one batch, against a loop.
"""

import sys
from time import perf_counter

import numpy as np
import torch

from slowmanifold.dynamics.response import linear_response
from slowmanifold.networks.reservoir import sample
from slowmanifold.theory.mean_field import single_target, solve

TARGETS, GAIN = [0.5, 1.0, 1.5], 1.0
LARGEST = int(sys.argv[1]) if len(sys.argv) > 1 else 3000  # neurons of the network whose dense eigenvalues are found


def timed(function, repeats=3):
    """Best time of some repeats, and the last result."""
    times = []
    for _ in range(repeats):
        start = perf_counter()
        result = function()
        times.append(perf_counter() - start)
    return min(times), result


def closed_loop(N: int):
    """The network of panel D, linearised at its first target."""
    reservoir = sample(N, GAIN, np.random.default_rng(0))
    targets = torch.tensor(TARGETS)
    states = reservoir.settle(targets, tol=1e-8)
    return reservoir.train(targets, states).linearised(states[0])


def answers(near):
    response = linear_response(near.apply, near.b, near.c)
    s = 1j * torch.linspace(0, 3, 61)
    return response.open_loop_gain(s), response.poles(), response.impulse_response(torch.linspace(0, 40, 401))


def krylov() -> bool:
    near = closed_loop(LARGEST)
    fast, (_, poles, _) = timed(lambda: answers(near))
    matrix = near.matrix(closed=True).numpy()
    slow, spectrum = timed(lambda: np.linalg.eigvals(matrix), repeats=1)
    print(
        f"N = {LARGEST}: gain, outliers, transient {fast:.3f} s; eigvals {slow:.1f} s: {slow / fast:.0f} times as long"
    )
    for N in (1000, 3000, 10000):
        if N <= LARGEST or LARGEST >= 3000:
            near = closed_loop(N)
            print(f"  N = {N:6d}: {timed(lambda n=near: answers(n), repeats=2)[0]:.3f} s")
    return abs(spectrum - complex(poles[0])).min() < 1e-6


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


def poles() -> bool:
    time, field = timed(lambda: solve(TARGETS, GAIN))
    exact, rng = field.poles(0)[0].real, np.random.default_rng(0)
    print(f"three targets: {time:.4f} s")
    for samples in (10**4, 10**6):
        slow, found = timed(lambda n=samples: monte_carlo(field, n, rng), repeats=3)
        print(f"  Monte Carlo, {samples} samples: {slow:.3f} s, error {abs(found - exact):.0e}")
        print(f"    to an error of 1e-8 at this rate: about {slow * (abs(found - exact) / 1e-8) ** 2:.0e} s")
    return time < 0.2


def phase_diagram() -> bool:
    A, g = torch.linspace(0.1, 2.5, 40)[:, None], torch.linspace(0.1, 1.9, 40)
    batched, grid = timed(lambda: single_target(A, g), repeats=2)
    few = range(0, 40, 8)
    start = perf_counter()
    looped = torch.stack([single_target(A[i, 0], g[j]).pole for i in few for j in few])
    one_by_one = (perf_counter() - start) * 1600 / len(looped)
    print(f"phase diagram, 1600 points: batched {batched:.2f} s, loop {one_by_one:.2f} s (from {len(looped)} points)")
    return torch.allclose(looped, grid.pole[::8, ::8].flatten(), atol=1e-9)


def main() -> int:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    return 0 if krylov() & poles() & phase_diagram() else 1


if __name__ == "__main__":
    sys.exit(main())
