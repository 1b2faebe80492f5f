"""One small basis: both gains, the outlying poles and the transient, against dense linear algebra."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slowmanifold.dynamics.response import linear_response, linear_responses


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class System:
    """One dense matrix for each of the systems."""

    def __init__(self, A, b, c):
        self.A, self.b, self.c = A, b, c

    def apply(self, v):
        return (self.A @ v.unsqueeze(-1)).squeeze(-1)

    def apply_transposed(self, v):
        return (self.A.mT @ v.unsqueeze(-1)).squeeze(-1)

    def single(self):
        return System(self.A.float(), self.b.float(), self.c.float())

    @property
    def closed(self):
        return self.A + torch.outer(self.b, self.c)

    def states(self, A, s):
        N = len(self.b)
        return torch.linalg.solve(s[:, None, None] * torch.eye(N) - A, self.b.to(s.dtype).expand(len(s), N))

    def gain(self, A, s):
        return self.states(A, s) @ self.c.to(s.dtype)


def random_system(N=150, seed=0):
    """A random bulk of radius 0.5 around -1, with a feedback strong enough to move poles out of it."""
    rng = np.random.default_rng(seed)
    A = tensor(0.5 * rng.normal(size=(N, N)) / np.sqrt(N)) - torch.eye(N, dtype=torch.float64)
    b = tensor(rng.normal(size=N))
    return System(A, b, 1.5 * b / b.square().sum() + 0.3 * tensor(rng.normal(size=N)) / N)


S = 1j * torch.linspace(0, 3, 7, dtype=torch.float64)


@pytest.fixture(scope="module")
def system():
    return random_system()


def test_gains(system):
    response = linear_response(system)
    assert_close(response.open_loop_gain(S), system.gain(system.A, S), rtol=1e-9, atol=1e-11)
    assert_close(response.closed_loop_gain(S), system.gain(system.closed, S), rtol=1e-9, atol=1e-11)


def test_closing_the_loop(system):
    response = linear_response(system, order=4)
    G = response.open_loop_gain(S)
    assert_close(response.closed_loop_gain(S), G / (1 - G), rtol=1e-10, atol=1e-12)


def test_outlying_poles(system):
    poles = linear_response(system).poles(1e-8)
    dense = torch.linalg.eigvals(system.closed)
    outside = dense[(dense + 1).abs() > 0.7]
    assert len(outside) >= 1
    for value in outside:
        assert (poles - value).abs().min() < 1e-9
    for value in poles:
        assert (dense - value).abs().min() < 1e-8


def test_poles_that_have_not_converged_are_not_given():
    """Without feedback nothing lies outside the bulk, and a basis smaller than the system finds no eigenvalue in it."""
    alone = random_system()
    alone.c = 1e-9 * alone.c
    for order in (1, 3, 10, 40):
        assert len(linear_response(alone, order).poles()) == 0


def test_transients(system):
    t = tensor([0.0, 0.5, 3.0])
    states = torch.stack([torch.linalg.matrix_exp(system.closed * time) @ system.b for time in t])
    response = linear_response(system)
    assert_close(response.impulse_response(t), states @ system.c, rtol=1e-9, atol=1e-10)
    assert_close(response.impulse_states(t, slice(3)), states[:, :3], rtol=1e-6, atol=1e-7)


def test_input_power(system):
    """From each state to the output: c is what the transposed system is driven through."""
    backwards = System(system.A.mT, system.c, system.b)
    power = backwards.states(backwards.A, S).abs().square().sum(-1)
    assert_close(linear_response(system).input_power(S), power, rtol=1e-7, atol=0)


def test_the_basis_is_orthonormal_and_the_system_is_projected_on_it(system):
    r = linear_response(system, order=20)
    assert_close(r.basis.mT @ r.basis, torch.eye(40, dtype=torch.float64), rtol=0, atol=1e-13)
    assert_close(r.A, r.basis.mT @ system.A @ r.basis, rtol=0, atol=1e-13)
    assert_close(r.basis @ r.b, system.b, rtol=0, atol=1e-12)
    assert_close(r.basis @ r.c, system.c, rtol=0, atol=1e-13)


def test_the_error_of_the_gain_shrinks_with_both_halves_of_the_basis(system):
    """Of the state, a basis of a given order misses a part like 0.5^order; of the gain, like 0.25^order."""
    exact = system.gain(system.A, S[:1]), system.states(system.A, S[:1])[0].real
    gains, states = [], []
    for order in (4, 8, 12):
        r = linear_response(system, order)
        gains.append(float((r.open_loop_gain(S[:1]) - exact[0]).abs()))
        states.append(float((r.basis @ torch.linalg.solve(-r.A, r.b) - exact[1]).norm()))
    assert 0.5**9 < states[2] / states[0] < 0.5**6
    assert gains[2] / gains[0] < 0.25**6


def test_the_full_space_is_exact():
    small = random_system(N=12)
    r = linear_response(small)
    assert r.basis.shape == (12, 12)
    dense = torch.linalg.eigvals(small.closed)
    assert (r.poles()[:, None] - dense).abs().min(0).values.max() < 1e-12
    identity = torch.eye(12, dtype=torch.float64)
    line = linear_response(System(2 * identity, small.b, small.c), order=3)
    assert_close(line.open_loop_gain(S), (small.b @ small.c) / (S - 2), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("b", "c", "order", "name"),
    [
        ([1.0], [1.0], 0, "order"),
        ([0.0], [1.0], 5, "norm"),
        ([1.0], [0.0], 5, "norm"),
        ([1.0], [float("nan")], 5, "norm"),
        ([1.0], [[1.0]], 5, "linear_responses"),
    ],
)
def test_bad_input_is_named(b, c, order, name):
    with pytest.raises(ValueError, match=name):
        linear_response(System(tensor([[1.0]]), tensor(b), tensor(c)), order)


def test_several_systems_have_two_axes(system):
    with pytest.raises(ValueError, match="linear_response takes one"):
        linear_responses(system)


def test_in_step_is_one_by_one():
    """Three systems at once, of which the last one's spaces are invariant after two products."""
    small = random_system(40, seed=2)
    A = torch.stack([small.A, 0.5 * small.A, torch.zeros_like(small.A)])
    A[2, 1, 0] = 3.0
    c = torch.stack([small.c, small.b, small.c])
    for k, response in enumerate(linear_responses(System(A, small.b, c), order=10)):
        alone = linear_response(System(A[k], small.b, c[k]), order=10)
        assert_close(response.open_loop_gain(S + 0.5), alone.open_loop_gain(S + 0.5), rtol=1e-7, atol=1e-10)
        exact = System(A[k], small.b, c[k]).gain(A[k], S + 0.5)
        assert_close(response.open_loop_gain(S + 0.5), exact, rtol=1e-5, atol=1e-6)


def test_the_transposed_system_has_the_same_gain_and_poles(system):
    forwards, backwards = linear_response(system), linear_response(System(system.A.mT, system.c, system.b))
    assert_close(backwards.open_loop_gain(S), forwards.open_loop_gain(S), rtol=1e-9, atol=1e-11)
    assert_close(backwards.poles(1e-8)[:1], forwards.poles(1e-8)[:1], rtol=1e-9, atol=1e-9)
