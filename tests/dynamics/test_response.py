"""One Krylov basis: both gains, the outlying poles and the transient, against dense linear algebra."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slowmanifold.dynamics.response import linear_response, linear_responses


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class System:
    """A random bulk of radius 0.5 around -1, with a feedback strong enough to move poles out of it."""

    def __init__(self, N=150, seed=0):
        rng = np.random.default_rng(seed)
        self.A = tensor(0.5 * rng.normal(size=(N, N)) / np.sqrt(N)) - torch.eye(N, dtype=torch.float64)
        self.b = tensor(rng.normal(size=N))
        self.c = 1.5 * self.b / self.b.square().sum() + 0.3 * tensor(rng.normal(size=N)) / N
        self.closed = self.A + torch.outer(self.b, self.c)

    def response(self, order=60):
        return linear_response(lambda v: self.A @ v, self.b, self.c, order)

    def gain(self, A, s):
        N = len(self.b)
        x = torch.linalg.solve(s[:, None, None] * torch.eye(N) - A, self.b.to(s.dtype).expand(len(s), N))
        return x @ self.c.to(s.dtype)


S = 1j * torch.linspace(0, 3, 7, dtype=torch.float64)


@pytest.fixture(scope="module")
def system():
    return System()


def test_gains(system):
    response = system.response()
    assert_close(response.open_loop_gain(S), system.gain(system.A, S), rtol=1e-9, atol=1e-11)
    assert_close(response.closed_loop_gain(S), system.gain(system.closed, S), rtol=1e-9, atol=1e-11)


def test_closing_the_loop(system):
    response = system.response(order=8)
    G = response.open_loop_gain(S)
    assert_close(response.closed_loop_gain(S), G / (1 - G), rtol=1e-10, atol=1e-12)


def test_outlying_poles(system):
    poles = system.response().poles(1e-8)
    dense = torch.linalg.eigvals(system.closed)
    outside = dense[(dense + 1).abs() > 0.7]
    assert len(outside) >= 1
    for value in outside:
        assert (poles - value).abs().min() < 1e-7
    for value in poles:
        assert (dense - value).abs().min() < 1e-6


def test_impulse_response(system):
    t = tensor([0.0, 0.5, 3.0])
    states = torch.stack([torch.linalg.matrix_exp(system.closed * time) @ system.b for time in t])
    response = system.response()
    assert_close(response.impulse_response(t), states @ system.c, rtol=1e-9, atol=1e-10)
    assert_close(response.impulse_states(t, slice(3)), states[:, :3], rtol=1e-9, atol=1e-10)


def test_power(system):
    N = len(system.b)
    x = torch.linalg.solve(S[:, None, None] * torch.eye(N) - system.A, system.b.to(S.dtype).expand(len(S), N))
    assert_close(system.response().power(S), x.abs().square().sum(-1), rtol=1e-9, atol=0)


def test_the_basis_is_orthonormal_and_the_relation_of_arnoldi_holds(system):
    r = system.response(order=40)
    assert_close(r.basis.mT @ r.basis, torch.eye(40, dtype=torch.float64), rtol=0, atol=1e-13)
    defect = system.A @ r.basis - r.basis @ r.A
    assert defect[:, :-1].abs().max() < 1e-13
    assert abs(float(defect[:, -1].norm()) - r.remainder) < 1e-13


def test_the_residual_is_what_it_says_and_shrinks_like_the_bulk(system):
    sizes = []
    for order in (10, 20, 30):
        r = system.response(order)
        coefficients = torch.linalg.solve(-r.A, r.b * torch.eye(order, dtype=torch.float64)[0])
        residual = (system.b + system.A @ (r.basis @ coefficients)).norm() / system.b.norm()
        assert_close(r.residual(torch.zeros(1, dtype=torch.complex128))[0], residual, rtol=1e-6, atol=1e-13)
        sizes.append(float(residual))
    assert sizes[1] / sizes[0] < 0.5**7
    assert sizes[2] / sizes[1] < 0.5**7


def test_the_full_space_is_exact_and_ends_early():
    small = System(N=12)
    r = small.response(order=60)
    assert r.basis.shape == (12, 12)
    assert r.remainder < 1e-12
    line = linear_response(lambda v: 2 * v, small.b, small.c)
    assert line.basis.shape == (12, 1)
    assert_close(line.open_loop_gain(S), (small.b @ small.c) / (S - 2), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("b", "c", "order", "name"),
    [([1.0], [1.0], 0, "order"), ([1.0, 0.0], [1.0], 5, "b has shape"), ([0.0], [1.0], 5, "norm")],
)
def test_bad_input_is_named(unchecked, b, c, order, name):
    with pytest.raises(ValueError, match=name):
        linear_response(lambda v: v, tensor(b), tensor(c), order)


def test_in_step_is_one_by_one():
    """Three systems at once, of which the last one's space is invariant after two products."""
    small = System(40, seed=2)
    A = torch.stack([small.A, 0.5 * small.A, torch.zeros_like(small.A)])
    A[2, 1, 0] = 3.0
    b = torch.stack([small.b, 2 * small.b, torch.eye(40, dtype=torch.float64)[0]])
    c = torch.stack([small.c, small.b, small.c])
    together = linear_responses(lambda v: torch.einsum("kij,kj->ki", A, v), b, c, order=20)
    assert [r.A.shape[0] for r in together] == [20, 20, 2]
    for k, response in enumerate(together):
        alone = linear_response(lambda v, k=k: A[k] @ v, b[k], c[k], order=20)
        assert_close(response.open_loop_gain(S + 0.5), alone.open_loop_gain(S + 0.5), rtol=1e-9, atol=1e-12)
        assert_close(response.closed, alone.closed, rtol=1e-9, atol=1e-11)
        assert abs(response.remainder - alone.remainder) < 1e-9


def test_the_transposed_system_has_the_same_gain_and_poles(system):
    forwards = system.response()
    backwards = linear_response(lambda v: v @ system.A, system.c, system.b)
    assert_close(backwards.open_loop_gain(S), forwards.open_loop_gain(S), rtol=1e-9, atol=1e-11)
    assert_close(backwards.poles(1e-8)[:1], forwards.poles(1e-8)[:1], rtol=1e-9, atol=1e-9)
