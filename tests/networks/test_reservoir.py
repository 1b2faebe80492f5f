"""The random reservoir: its law, its open and closed loop, and the least-squares readout."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slowmanifold.dynamics.flow import flow, linearisation
from slowmanifold.networks.reservoir import Linearised, NotSettled, sample

A = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)


def reservoir(N=200, gain=0.8, seed=0, **kind):
    return sample(N, gain, np.random.default_rng(seed), **kind)


def test_the_law_of_the_weights():
    N, g = 400, 1.3
    W = reservoir(N, g).W
    assert abs(W.mean()) < 5 * g / N**1.5
    assert abs(W.var() * N / g**2 - 1) < 5 * np.sqrt(2) / N
    assert abs(torch.linalg.eigvals(W).abs().max() / g - 1) < 0.1


@pytest.mark.parametrize(("feedback", "fourth"), [("uniform", 9 / 5), ("normal", 3.0), ("signs", 1.0)])
def test_the_law_of_the_feedback(feedback, fourth):
    w = reservoir(2500, 0.1, feedback=feedback).w_FB
    assert abs((w**4).mean() / (w**2).mean() ** 2 - fourth) < 0.35
    assert abs(w.mean()) < 5 / 50


def test_settled_states_are_at_rest():
    r = reservoir()
    x = r.settle(A)
    assert r.velocity(x, A).abs().max() <= 1e-10


def test_the_flow_ends_where_settle_says():
    r = reservoir(60)
    f = torch.tensor(1.0, dtype=torch.float64)
    end = flow(lambda x: r.velocity(x, f), r.w_FB, torch.tensor([0.0, 200.0], dtype=torch.float64))[-1]
    assert_close(end, r.settle(A[1:2])[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("phi", ["tanh", "relu", "erf"])
def test_targets_are_stationary_outputs_of_the_closed_loop(phi):
    r = reservoir(phi=phi, threshold=0.1 if phi == "relu" else 0.0)
    x = r.settle(A)
    trained = r.train(A, x)
    assert_close(trained.output(x), A, rtol=1e-9, atol=1e-9)
    assert trained.velocity(x).abs().max() < 1e-8


def test_the_readout_is_the_shortest():
    r = reservoir()
    x = r.settle(A)
    expected = torch.linalg.lstsq(r.phi(x), A.unsqueeze(-1), driver="gelsd").solution.squeeze(-1)
    assert_close(r.train(A, x).w_out, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("phi", ["tanh", "relu"])
def test_linearised_is_the_derivative(phi):
    r = reservoir(50, phi=phi, threshold=0.1 if phi == "relu" else 0.0)
    x = r.settle(A)
    trained = r.train(A, x)
    near = trained.linearised(x[1])
    assert_close(near.matrix(closed=True), linearisation(trained.velocity)(x[1])[1], rtol=1e-10, atol=1e-12)
    v = torch.arange(50, dtype=torch.float64)
    assert_close(near.apply(v), near.matrix(closed=False) @ v)
    assert_close(near.apply_transposed(v), near.matrix(closed=False).mT @ v)


def test_several_states_at_once():
    r = reservoir(50)
    near = [r.train(A, r.settle(A)).linearised(x) for x in r.settle(A)]
    all_three = Linearised(r.W, torch.stack([n.slope for n in near]), r.w_FB, torch.stack([n.c for n in near]))
    v = torch.arange(150, dtype=torch.float64).reshape(3, 50)
    for k, one in enumerate(near):
        assert_close(all_three.apply(v)[k], one.apply(v[k]))
        assert_close(all_three.apply_transposed(v)[k], one.apply_transposed(v[k]))


def test_without_a_threshold_a_rectifier_cannot_tell_sizes_apart():
    r = reservoir(50, phi="relu")
    with pytest.raises(ValueError, match="linearly dependent"):
        r.train(A, r.settle(A))


def test_chaos_does_not_settle():
    with pytest.raises(NotSettled, match="lower the gain"):
        reservoir(300, 3.0).settle(A[:1], max_iterations=300)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"N": 0}, "N"),
        ({"gain": 0.0}, "gain"),
        ({"phi": "step"}, "phi"),
        ({"threshold": 0.1}, "threshold"),
        ({"feedback": "sparse"}, "feedback"),
    ],
)
def test_bad_input_is_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        reservoir(**arguments)
