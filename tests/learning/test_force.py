"""FORCE: recursive least squares inside the loop."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slowmanifold.learning.force import force
from slowmanifold.networks.reservoir import TrainedReservoir, sample

N = 120


def network(seed=0):
    r = sample(N, 1.1, np.random.default_rng(seed), "relu", 0.1)
    target = torch.ones(1, dtype=torch.float64)
    x = r.settle(target)
    return r, r.train(target, x), x[0]


def test_it_is_least_squares_over_the_past():
    """w minimises sum (w.r - f)^2 + alpha |w - w_0|^2 over the states met: solved here in one go."""
    r, trained, x = network()
    f = torch.linspace(0.8, 1.2, 25, dtype=torch.float64)
    P = torch.eye(N, dtype=torch.float64) / 3
    done = force(r, f, trained.w_out, 0.9 * x, P=P, dt=0.2)
    # The states of the run: each step repeated alone, with the weights that the run had by then.
    w, state, rates = trained.w_out, 0.9 * x, []
    for k in range(25):
        before = force(r, f[: k + 1], trained.w_out, 0.9 * x, P=P, dt=0.2)
        rates.append(r.phi(before.state))
        w, state = before.w_out, before.state
    R = torch.stack(rates)
    A = R.mT @ R + 3 * torch.eye(N, dtype=torch.float64)
    expected = torch.linalg.solve(A, R.mT @ f + 3 * trained.w_out)
    assert_close(done.w_out, expected, rtol=1e-8, atol=1e-9)
    assert_close(done.P, torch.linalg.inv(A), rtol=1e-7, atol=1e-10)
    assert_close(state, done.state)
    assert_close(w, done.w_out)


def test_at_rest_there_is_nothing_to_learn():
    r, trained, x = network()
    done = force(r, torch.ones(50, dtype=torch.float64), trained.w_out, x, P=torch.eye(N, dtype=torch.float64))
    assert_close(done.w_out, trained.w_out, rtol=0, atol=1e-7)


def test_episodes_add_up():
    r, trained, x = network()
    f, P = torch.ones(40, dtype=torch.float64), torch.eye(N, dtype=torch.float64)
    whole = force(r, f, trained.w_out, 0.5 * x, P=P)
    half = force(r, f[:20], trained.w_out, 0.5 * x, P=P)
    rest = force(r, f[20:], half.w_out, half.state, P=half.P)
    assert_close(rest.w_out, whole.w_out, rtol=1e-10, atol=1e-12)
    assert_close(torch.cat([half.output, rest.output]), whole.output, rtol=1e-10, atol=1e-12)


def test_it_stabilises_what_least_squares_leaves_unstable():
    r, trained, x = network()
    growth = torch.linalg.eigvals(trained.linearised(x).matrix(True)).real.max()
    noise = torch.randn(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    done = force(
        r, torch.ones(1500, dtype=torch.float64), trained.w_out, x + 0.1 * noise, P=torch.eye(N, dtype=torch.float64)
    )
    now = torch.linalg.eigvals(TrainedReservoir(r, done.w_out).linearised(done.state).matrix(True)).real.max()
    assert growth > 0.02
    assert now < -0.02


@pytest.mark.parametrize("dt", [0.0, 1.5])
def test_bad_step_is_named(dt):
    r, trained, x = network()
    with pytest.raises(ValueError, match="dt"):
        force(r, torch.ones(3, dtype=torch.float64), trained.w_out, x, P=torch.eye(N, dtype=torch.float64), dt=dt)
