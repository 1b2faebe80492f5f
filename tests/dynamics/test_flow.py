"""Trajectories and tangent vectors: closed forms, group laws, independent derivatives."""

import math

import pytest
import torch
from torch.testing import assert_close

from slowmanifold.dynamics.flow import (
    IntegrationFailed,
    flow,
    iterate,
    linearisation,
    tangent_flow,
    tangent_map,
)
from slowmanifold.networks.line import bounded_line_attractor
from slowmanifold.networks.ring import PlanarRing

ring = PlanarRing()
smooth = bounded_line_attractor(activation="softplus").perturbed(
    torch.tensor([[0.1, -0.2], [0.3, 0.05]], dtype=torch.float64)
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def apply(A: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (A @ x.unsqueeze(-1)).squeeze(-1)


class TestFlow:
    @pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
    @pytest.mark.parametrize("d", [1, 2, 5])
    def test_linear_systems_follow_the_matrix_exponential(self, d, batch):
        A, x0, t = normal(*batch, d, d), normal(*batch, d, seed=1), times(0, 0.3, 1, 2)
        expected = torch.stack([apply(torch.matrix_exp(A * s), x0) for s in t])
        found = flow(lambda x: apply(A, x), x0, t)
        assert found.shape == (4, *batch, d)
        assert_close(found, expected, rtol=1e-7, atol=1e-8)

    def test_ring_relaxes_as_a_logistic_curve(self):
        x0, t = normal(30, 2), torch.linspace(0, 6, 7, dtype=torch.float64)
        r0 = x0.norm(dim=-1, keepdim=True)
        r = 1 / (1 + (1 / r0 - 1) * torch.exp(-t[:, None, None]))
        assert_close(flow(ring.velocity, x0, t), r * x0 / r0, rtol=0, atol=1e-8)

    def test_backwards_undoes_forwards(self):
        x0 = normal(10, 2)
        there = flow(smooth.velocity, x0, times(0, 1.5), rtol=1e-12, atol=1e-14)[-1]
        back = flow(smooth.velocity, there, times(1.5, 0), rtol=1e-12, atol=1e-14)[-1]
        assert_close(back, x0, rtol=0, atol=1e-10)

    def test_only_time_differences_matter(self):
        x0 = normal(10, 2)
        early, late = (flow(smooth.velocity, x0, times(0, 2, 5) + start) for start in (0, 7))
        assert_close(early, late, rtol=0, atol=1e-8)

    def test_tolerance_controls_the_error(self):
        x0, t = normal(30, 2), times(0, 3)
        exact = flow(ring.velocity, x0, t, rtol=1e-13, atol=1e-15)[-1]
        for rtol in (1e-4, 1e-7, 1e-10):
            error = (flow(ring.velocity, x0, t, rtol=rtol, atol=rtol)[-1] - exact).abs().max()
            assert error < 10 * rtol

    def test_resting_trajectories_do_not_hide_the_error_of_a_moving_one(self):
        x0, t = times(0.01, 0.02), times(0, 8)
        crowd = torch.cat([torch.zeros(2000, 2, dtype=torch.float64), x0[None]])
        exact = flow(ring.velocity, x0, t, rtol=1e-13, atol=1e-15)[-1]
        error = (flow(ring.velocity, crowd, t, rtol=1e-5, atol=1e-8)[-1, -1] - exact).abs().max()
        assert error < 1e-5

    def test_bad_input(self, unchecked):
        x0 = normal(2)
        for t in ([0.0], [0.0, 0.0], [0.0, 1.0, 0.5], [0.0, math.inf], [-math.inf, 0.0], [0.0, math.nan, 1.0]):
            with pytest.raises(ValueError, match=r"times is .* finite, strictly increasing or decreasing"):
                flow(ring.velocity, x0, times(*t))
        with pytest.raises(ValueError, match="x0 has 1 values that are not finite"):
            flow(ring.velocity, times(0, math.nan), times(0, 1))
        with pytest.raises(ValueError, match=r"field maps states of shape \(2,\) to \(3, 2\)"):
            flow(lambda x: x.expand(3, 2), x0, times(0, 1))

    @pytest.mark.parametrize(("field", "end"), [(lambda x: x**2, 2.0), (lambda x: 10 * x, 100.0)])
    def test_divergence_is_an_error(self, field, end):
        with pytest.raises(IntegrationFailed):
            flow(field, times(1), times(0, end), rtol=1e-3)


class TestTangentFlow:
    def test_linear_systems(self):
        A, x0, t = normal(3, 4, 4), normal(3, 4, seed=1), times(0, 0.5, 1.5)
        x, M = tangent_flow(lambda x: apply(A, x), lambda x: A, x0, t)
        assert_close(M, torch.stack([torch.matrix_exp(A * s) for s in t]), rtol=1e-7, atol=1e-8)
        assert_close(x, apply(M, x0), rtol=1e-7, atol=1e-8)

    @pytest.mark.parametrize("system", [ring, smooth])
    def test_agrees_with_differences_of_trajectories(self, system):
        x0, t, h = normal(6, 2), times(0, 2), 1e-5
        _, M = tangent_flow(system.velocity, system.jacobian, x0, t)
        step = h * torch.eye(2, dtype=torch.float64)
        ends = [flow(system.velocity, (x0 + sign * step[:, None]), t, rtol=1e-13, atol=1e-15)[-1] for sign in (1, -1)]
        assert_close(M[-1], ((ends[0] - ends[1]) / (2 * h)).movedim(0, -1), rtol=0, atol=1e-7)

    def test_liouville(self):
        """det M = exp of the integral of the divergence, here carried along as a third component."""
        x0, t = normal(8, 2), times(0, 2.5)
        _, M = tangent_flow(smooth.velocity, smooth.jacobian, x0, t)

        def with_divergence(y):
            trace = smooth.jacobian(y[:, :2]).diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
            return torch.cat([smooth.velocity(y[:, :2]), trace], -1)

        divergence = flow(with_divergence, torch.cat([x0, 0 * x0[:, :1]], -1), t)[-1, :, 2]
        assert_close(torch.linalg.det(M[-1]), divergence.exp(), rtol=1e-7, atol=0)

    def test_chain_rule(self):
        x0 = normal(5, 2)
        x, whole = tangent_flow(ring.velocity, ring.jacobian, x0, times(0, 1, 3))
        _, second = tangent_flow(ring.velocity, ring.jacobian, x[1], times(1, 3))
        assert_close(second[-1] @ whole[1], whole[2], rtol=0, atol=1e-7)


class TestMaps:
    def test_orbits_of_a_linear_map(self):
        A, x0 = normal(3, 2, 2), normal(3, 2, seed=1)
        x, M = tangent_map(lambda x: apply(A, x), lambda x: A, x0, 6)
        powers = torch.stack([torch.linalg.matrix_power(A, n) for n in range(7)])
        assert_close(M, powers, rtol=1e-12, atol=1e-12)
        assert_close(x, apply(powers, x0), rtol=1e-12, atol=1e-12)
        assert_close(iterate(lambda x: apply(A, x), x0, 6), x, rtol=0, atol=0)

    def test_tangent_is_the_derivative_of_the_iterate(self):
        x0 = normal(7, 2)
        _, M = tangent_map(smooth.step, smooth.step_jacobian, x0, 9)
        derivative = linearisation(lambda x: iterate(smooth.step, x, 9)[-1])(x0)[1]
        assert_close(M[-1], derivative, rtol=0, atol=1e-12)

    def test_small_steps_converge_to_the_flow_at_first_order(self):
        x0 = normal(7, 2)
        exact = flow(smooth.velocity, x0, times(0, 1))[-1]
        errors = [(iterate(lambda x, n=n: smooth.step(x, dt=1 / n), x0, n)[-1] - exact).abs().max() for n in (100, 200)]
        assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)

    def test_no_steps_and_fewer(self):
        x0 = normal(3, 2)
        x, M = tangent_map(smooth.step, smooth.step_jacobian, x0, 0)
        assert_close(x, x0[None])
        assert_close(M, torch.eye(2, dtype=torch.float64).expand(1, 3, 2, 2))
        with pytest.raises(ValueError, match="steps is -1; allowed: 0, 1, 2"):
            iterate(smooth.step, x0, -1)
        with pytest.raises(ValueError, match="steps is -1"):
            tangent_map(smooth.step, smooth.step_jacobian, x0, -1)


class TestLinearisation:
    @pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 4, 2)])
    def test_keeps_batch_axes_of_states_and_networks(self, shape):
        network = bounded_line_attractor(activation="softplus").perturbed(normal(*shape, 2) / 4)
        x = normal(*shape, seed=1)
        assert_close(linearisation(network.velocity)(x)[1], network.jacobian(x), rtol=0, atol=1e-14)

    def test_constant_fields_have_none(self):
        constant = normal(3)
        derivative = linearisation(lambda x: constant.expand(x.shape))(normal(4, 3))[1]
        assert_close(derivative, torch.zeros(4, 3, 3, dtype=torch.float64))

    def test_works_without_gradients_switched_on(self):
        with torch.no_grad():
            assert_close(linearisation(ring.velocity)(normal(4, 2))[1], ring.jacobian(normal(4, 2)))
