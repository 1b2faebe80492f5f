"""Oscillators of two units: closed forms, bifurcations found independently."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from slowmanifold.dynamics.fixed_points import find_fixed_points
from slowmanifold.dynamics.flow import linearisation
from slowmanifold.networks.oscillator import GRU, TanhRNN, rotation, saddle_node_angle


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def random_gru(*batch: int, d: int = 3) -> GRU:
    weights = normal(3, *batch, d, d, seed=1)
    biases = normal(3, *batch, d, seed=2)
    return GRU(*weights, *biases)


class TestRotation:
    def test_is_a_turn_times_a_gain(self):
        A = rotation(number(2.0), torch.linspace(0, 6, 7, dtype=torch.float64))
        assert_close(A @ A.mT, 4 * torch.eye(2, dtype=torch.float64).expand(7, 2, 2))
        turned = A @ torch.tensor([1.0, 0.0], dtype=torch.float64)
        assert_close(torch.atan2(turned[:, 1], turned[:, 0]).remainder(2 * math.pi), torch.linspace(0, 6, 7).double())

    def test_angles_add_and_gains_multiply(self):
        assert_close(rotation(1.5, 0.3) @ rotation(2.0, 0.5), rotation(3.0, 0.8))


@pytest.mark.parametrize(
    ("network", "d"),
    [
        (TanhRNN(normal(3, 3), normal(3)), 3),
        (TanhRNN(normal(5, 3, 3), normal(5, 3)), 3),
        (TanhRNN(rotation(1.5, 0.5)), 2),
        (random_gru(), 3),
        (random_gru(5), 3),
    ],
    ids=["tanh", "tanh batch", "rotation", "gru", "gru batch"],
)
class TestFlows:
    def test_jacobians_are_derivatives(self, network, d):
        x, I = normal(5, d, seed=3), normal(5, d, seed=4)  # noqa: E741
        assert_close(network.jacobian(x, I), linearisation(lambda x: network.velocity(x, I))(x)[1], rtol=0, atol=1e-13)
        step = linearisation(lambda x: network.step(x, I, dt=0.3))(x)[1]
        assert_close(network.step_jacobian(x, I, dt=0.3), step, rtol=0, atol=1e-13)

    def test_no_input_is_input_zero(self, network, d):
        x = normal(5, d, seed=3)
        assert_close(network.velocity(x), network.velocity(x, torch.zeros(d, dtype=torch.float64)))


class TestTanhRNN:
    def test_pulls_gradients_back_through_a_step_with_its_input(self):
        network = TanhRNN(normal(3, 3), normal(3, seed=1))
        x, a, I = (normal(5, 3, seed=seed) for seed in (2, 3, 4))  # noqa: E741
        expected = (network.step_jacobian(x, I).mT @ a.unsqueeze(-1)).squeeze(-1)
        assert_close(network.pullback(x, a, I), expected, rtol=0, atol=1e-13)

    def test_planar_is_the_rate_and_its_derivative(self):
        W, b, x = normal(4, 5, 2, 2), normal(4, 5, 2, seed=1), normal(4, 5, 2, seed=2)
        network = TanhRNN(W, b)
        value, entries = network.planar()(x[..., 0], x[..., 1])
        assert_close(torch.stack(value, -1), network.rate(x))
        derivative = network.jacobian(x) + torch.eye(2, dtype=torch.float64)
        assert_close(torch.stack(entries, -1).unflatten(-1, (2, 2)), derivative)

    def test_agrees_with_torch(self):
        cell = nn.RNNCell(2, 6, dtype=torch.float64)
        network = TanhRNN(cell.weight_hh.detach(), (cell.bias_hh + cell.bias_ih).detach())
        u, x = normal(4, 2), normal(4, 6, seed=1)
        assert_close(network.step(x, u @ cell.weight_ih.detach().mT), cell(u, x).detach())

    def test_the_slide_without_the_leak_climbs_a_hill(self):
        """V = sum log cosh(alpha R x) has V' = alpha cos(theta) |tanh(alpha R x)|^2 along x' = tanh(alpha R x)."""
        alpha, theta = 1.7, 0.6
        A, x = rotation(alpha, theta), normal(50, 2)
        h = x @ A.mT
        gradient = torch.tanh(h) @ A
        climbed = (gradient * torch.tanh(h)).sum(-1)
        assert_close(climbed, alpha * math.cos(theta) * (torch.tanh(h) ** 2).sum(-1))


class TestGRU:
    def test_agrees_with_torch_where_the_reset_gate_is_one_number(self):
        cell = nn.GRUCell(1, 4, dtype=torch.float64)
        with torch.no_grad():
            cell.weight_hh[:4].zero_(), cell.bias_hh.zero_(), cell.bias_ih[:4].fill_(0.3)
        U = cell.weight_hh.detach()
        b = cell.bias_ih.detach()
        network = GRU(U[4:8], U[:4], U[8:], b[4:8], b[:4], b[8:])
        x = normal(7, 4)
        assert_close(network.step(x), cell(torch.zeros(7, 1, dtype=torch.float64), x).detach())

    def test_open_gates_give_the_tanh_network_at_half_the_speed(self):
        x = normal(9, 2)
        gru, rnn = GRU.with_open_gates(rotation(3.0, 0.5)), TanhRNN(rotation(1.5, 0.5))
        assert_close(gru.velocity(x), rnn.velocity(x) / 2)

    def test_biases_of_the_gates_scale_time_and_gain(self):
        x, b = normal(9, 2), number(0.7)
        gru = GRU.with_open_gates(rotation(3.0, 0.5), b_z=0.7, b_r=0.7)
        rnn = TanhRNN(rotation(3 * torch.sigmoid(b), number(0.5)))
        assert_close(gru.velocity(x), (1 - torch.sigmoid(b)) * rnn.velocity(x))


class TestSaddleNodeAngle:
    def test_nine_equilibria_below_and_one_above(self):
        for alpha in (1.3, 2.0, 4.0):
            edge = saddle_node_angle(number(alpha)).item()
            for theta, count in [(edge - 0.002, 9), (edge + 0.002, 1)]:
                axis = torch.linspace(-1, 1, 21, dtype=torch.float64)
                found = find_fixed_points(TanhRNN(rotation(alpha, theta)).velocity, torch.cartesian_prod(axis, axis))
                assert len(found.points) == count

    @settings(max_examples=8)
    @given(st.floats(1.0001, 50))
    def test_is_the_largest_angle_of_any_equilibrium(self, alpha):
        """On the curve of equilibria, its radius found by bisection: no angle is larger, and one is as large."""
        phi = math.pi / 4 + torch.linspace(0, 1, 40_001, dtype=torch.float64)[1:-1] * math.pi / 4
        direction = torch.stack([phi.cos(), phi.sin()])
        low, high = torch.full_like(phi, 1e-3), torch.full_like(phi, 1.5 * alpha)
        for _ in range(60):
            middle = (low + high) / 2
            small = alpha * torch.tanh(middle * direction).norm(dim=0) > middle
            low, high = torch.where(small, middle, low), torch.where(small, high, middle)
        x = torch.tanh(low * direction)
        theta = phi - torch.atan2(x[1], x[0])
        assert -1e-12 < saddle_node_angle(number(alpha)) - theta.max() < 1e-8

    def test_limits(self):
        near = 1 + torch.tensor([1e-3, 1e-4, 1e-5], dtype=torch.float64)
        error = saddle_node_angle(near) / ((near - 1) / math.sqrt(8)) - 1
        assert_close(error[:-1] / error[1:], torch.full((2,), 10.0, dtype=torch.float64), rtol=0.01, atol=0)
        far = saddle_node_angle(torch.tensor([1e3, 1e4], dtype=torch.float64))
        assert (math.pi / 4 - far < torch.tensor([1e-2, 1e-3])).all()
        assert (far < math.pi / 4).all()

    def test_shapes_order_and_bad_input(self):
        alpha = torch.linspace(1.01, 20, 24, dtype=torch.float64)
        angles = saddle_node_angle(alpha)
        assert_close(saddle_node_angle(alpha.view(2, 3, 4)), angles.view(2, 3, 4))
        assert (angles.diff() > 0).all()
        for bad in (1.0, 0.5, math.inf, math.nan):
            with pytest.raises(ValueError, match=r"alpha is .*; allowed: finite numbers above 1"):
                saddle_node_angle(number(bad))
