"""Exponents and adjoints: linear systems, identities, limits, independent computations."""

import math

import pytest
import torch
from torch.testing import assert_close

from slowmanifold.dynamics.cycles import floquet_multipliers
from slowmanifold.dynamics.flow import iterate, linearisation, tangent_map
from slowmanifold.dynamics.lyapunov import (
    adjoint_norms,
    largest_exponent,
    lyapunov_spectrum,
    planar_spectrum,
)
from slowmanifold.networks.initialisation import block_rotation
from slowmanifold.networks.oscillator import TanhRNN, rotation


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def spectrum_of_map(net, x0, steps, **options):
    return lyapunov_spectrum(net.step, net.step_jacobian, x0, steps, **options)


start = numbers(0.3, 0.1)
dense = TanhRNN(1.5 * torch.linalg.qr(normal(5, 6, 6))[0], 0.1 * normal(5, 6))


class TestSpectrum:
    def test_linear_map(self):
        """For a constant matrix with real eigenvalues the exponents are the logarithms of their sizes."""
        P, rates = normal(4, 4), numbers(1.3, -0.9, 0.5, 0.1)
        A = P @ torch.diag(rates) @ torch.linalg.inv(P)
        found = lyapunov_spectrum(lambda x: x, lambda x: A, normal(4), 40, transient=160)
        assert_close(found.exponents, rates.abs().log(), rtol=0, atol=1e-12)
        assert found.error.max() < 1e-12

    @pytest.mark.parametrize("order", [0, 1])
    def test_linear_flow(self, order):
        A = numbers(-0.3, -1.0).diag() + torch.tensor([[0.0, 5.0], [0.0, 0.0]], dtype=torch.float64)
        A = A.flip(0, 1) if order else A
        found = lyapunov_spectrum(lambda x: x @ A.mT, lambda x: A, start, 200, transient=400, dt=0.1)
        assert_close(found.exponents, numbers(-0.3, -1.0), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("every", [1, 4])
    def test_sum_is_the_logarithm_of_a_constant_determinant(self, every):
        """Hénon's map, whose Jacobian has the determinant -0.3 everywhere."""

        def henon(x):
            return torch.stack([1 - 1.4 * x[..., 0] ** 2 + x[..., 1], 0.3 * x[..., 0]], -1)

        found = lyapunov_spectrum(
            henon, lambda x: linearisation(henon)(x)[1], 0.1 * normal(5, 2), 800, transient=80, every=every
        )
        assert_close(found.exponents.sum(-1), numbers(0.3).log().expand(5), rtol=0, atol=1e-10)
        assert_close(found.exponents[:, 0], numbers(0.419).expand(5), rtol=0, atol=0.06)

    def test_sum_is_the_mean_logarithm_of_the_determinant(self):
        net = TanhRNN(rotation(numbers(1.2, 1.5), numbers(0.4, 0.6)))
        x0 = start.expand(2, 2)
        found = spectrum_of_map(net, x0, 400, transient=100)
        orbit = iterate(net.step, x0, 2500)[100:-1]
        mean = torch.linalg.det(net.step_jacobian(orbit)).abs().log().mean(0)
        assert_close(found.exponents.sum(-1), mean, rtol=0, atol=1e-3)

    def test_interval_does_not_matter(self):
        net = TanhRNN(rotation(numbers(1.2, 1.5), numbers(0.4, 0.6)))
        one, four = (spectrum_of_map(net, start.expand(2, 2), 800, every=every).exponents for every in (1, 4))
        assert_close(one, four, rtol=0, atol=1e-3)

    def test_fewer_directions_find_the_largest_exponents(self):
        x0, frame = 0.5 * normal(5, 6), normal(6, 2, seed=2)
        every = spectrum_of_map(dense, x0, 400, transient=400).exponents
        found = spectrum_of_map(dense, x0, 400, transient=400, frame=frame).exponents
        assert_close(found, every[:, :2], rtol=0, atol=0.02)

    def test_batch_is_a_loop(self):
        x0 = 0.5 * normal(5, 6)
        batch = spectrum_of_map(dense, x0, 100).exponents
        for k in range(5):
            alone = spectrum_of_map(TanhRNN(dense.W[k], dense.b[k]), x0[k], 100).exponents
            assert_close(batch[k], alone, rtol=0, atol=1e-9)

    def test_blocks_have_the_exponents_of_the_blocks(self):
        W = block_rotation(8, torch.Generator().manual_seed(1))
        x0 = 0.4 * normal(8)
        whole = spectrum_of_map(TanhRNN(W), x0, 800, transient=200, every=4).exponents
        blocks = torch.stack([W[k : k + 2, k : k + 2] for k in range(0, 8, 2)])
        parts = spectrum_of_map(TanhRNN(blocks), x0.view(4, 2), 800, transient=200, every=4).exponents
        assert_close(whole, parts.flatten().sort(descending=True).values, rtol=0, atol=1e-10)
        assert (whole[:4].abs() < 1e-5).all()
        assert (whole[4:] < -0.5).all()

    def test_runge_kutta_is_of_fourth_order(self):
        net = TanhRNN(rotation(2.0, 1.0))
        fine, *coarse = (
            lyapunov_spectrum(net.velocity, net.jacobian, start, n, dt=8 / n).exponents for n in (256, 32, 64)
        )
        errors = [(x - fine).abs().max().item() for x in coarse]
        assert errors[0] / errors[1] == pytest.approx(16, rel=0.25)

    @pytest.mark.parametrize("least", [1e-2, 1e-7])  # M^T M serves for the first, not for the second
    @pytest.mark.parametrize("every", [1, 2])
    def test_however_wide_the_exponents_lie_apart(self, least, every):
        P, rates = torch.linalg.qr(normal(5, 3, 3))[0], numbers(1.5, 0.3, least)
        A = P * rates @ P.mT
        found = lyapunov_spectrum(lambda x: x, lambda x: A, normal(5, 3), 40, transient=40, every=every)
        assert_close(found.exponents, rates.log().expand(5, 3), rtol=0, atol=1e-11 / least**0.5)

    @pytest.mark.parametrize("size", [1e-200, 1e-150, 1e-20, 1e20, 1e150])
    def test_perturbations_may_become_very_short_or_long(self, size):
        turn = torch.linalg.qr(normal(4, 4))[0]
        found = lyapunov_spectrum(lambda x: x, lambda x: size * turn, normal(4), 8)
        assert_close(found.exponents, numbers(size).log().expand(4), rtol=1e-13, atol=1e-13)

    def test_perturbations_need_no_jacobian(self):
        x0 = 0.5 * normal(5, 6)
        given = spectrum_of_map(dense, x0, 40).exponents
        assert_close(lyapunov_spectrum(dense.pushforward, None, x0, 40).exponents, given, rtol=0, atol=1e-10)

        def tangent(x, M):
            return dense.velocity(x), dense.jacobian(x) @ M

        given = lyapunov_spectrum(dense.velocity, dense.jacobian, x0, 40, dt=0.1).exponents
        assert_close(lyapunov_spectrum(tangent, None, x0, 40, dt=0.1).exponents, given, rtol=0, atol=1e-10)

    def test_error_estimates_convergence(self):
        net = TanhRNN(rotation(1.5, 0.5))
        short, long = (spectrum_of_map(net, start, n).error for n in (60, 1200))
        assert (long < short / 1000).all()

    def test_bad_input(self):
        net = TanhRNN(rotation(1.5, 0.5))
        for steps, transient, every in [(0, 0, 1), (7, 0, 1), (8, 0, 3), (8, 3, 2), (8, 0, 0), (8, -1, 1)]:
            with pytest.raises(ValueError, match=f"steps, transient, every are {steps}, {transient}, {every}"):
                spectrum_of_map(net, start, steps, transient=transient, every=every)
            with pytest.raises(ValueError, match=f"steps, transient, every are {steps}, {transient}, {every}"):
                planar_spectrum(net.planar(), start, steps, transient=transient, every=every)
        for dt in (0.0, -0.1):
            with pytest.raises(ValueError, match=f"dt is {dt}; allowed"):
                lyapunov_spectrum(net.velocity, net.jacobian, start, 10, dt=dt)
            with pytest.raises(ValueError, match=f"dt is {dt}; allowed"):
                planar_spectrum(net.planar(), start, 16, dt=dt)
        with pytest.raises(FloatingPointError, match="over- or underflowed"):
            lyapunov_spectrum(lambda x: x, lambda x: 1e200 * torch.eye(2, dtype=torch.float64), start, 8, every=2)


class TestPlanar:
    nets = TanhRNN(rotation(numbers(0.8, 1.5, 2.0, 5.0), numbers(0.4, 0.5, 0.5, 1.0)))

    @pytest.mark.parametrize("dt", [None, 0.1])
    def test_agrees_with_the_decomposition(self, dt):
        x0 = start.expand(4, 2)
        field, jacobian = (
            (self.nets.step, self.nets.step_jacobian) if dt is None else (self.nets.velocity, self.nets.jacobian)
        )
        same = numbers(0.8, -0.6, 0.6, 0.8).view(2, 2)  # the direction that it begins with
        expected = lyapunov_spectrum(field, jacobian, x0, 240, transient=40, dt=dt, frame=same)
        found = planar_spectrum(self.nets.planar(), x0, 240, transient=40, every=1, dt=dt)
        # A flow's determinant is the integral of the divergence, to the order of the integrator.
        assert_close(found.exponents, expected.exponents, rtol=0, atol=1e-10 if dt is None else 1e-4)
        assert_close(found.error, expected.error, rtol=0, atol=1e-6)

    def test_below_a_gain_of_one_both_exponents_of_the_map_are_its_logarithm(self):
        alpha = numbers(0.3, 0.8, 0.95)
        found = planar_spectrum(TanhRNN(rotation(alpha, 0.7)).planar(), start.expand(3, 2), 80, transient=400)
        assert_close(found.exponents, alpha.log().unsqueeze(-1).expand(3, 2), rtol=0, atol=2e-3)

    def test_small_amplitudes_turn_by_the_angle(self):
        theta = numbers(-1.0, 0.2, 0.5, 3.0)
        found = planar_spectrum(TanhRNN(rotation(0.99, theta)).planar(), 1e-5 * start.expand(4, 2), 80)
        assert_close(found.rotation, theta, rtol=0, atol=1e-9)

    def test_turns_once_a_period(self):
        net = TanhRNN(rotation(1.5, 0.5))
        period = floquet_multipliers(net.velocity, net.jacobian, start, transient=30.0).period
        found = planar_spectrum(net.planar(), start, 800, transient=200, dt=0.2)
        assert found.rotation.item() == pytest.approx(2 * math.pi / period, rel=0.02)

    def test_ends_where_the_orbit_ends(self):
        found = planar_spectrum(self.nets.planar(), start.expand(4, 2), 40, transient=8)
        assert_close(found.states, iterate(self.nets.step, start.expand(4, 2), 48)[-1])


class TestTwoTrajectories:
    def test_agree_with_the_tangent(self):
        x0, kick = 0.5 * normal(5, 6), 1e-6 * normal(6, seed=3)
        tangent = spectrum_of_map(dense, x0, 400, transient=200).exponents[:, 0]
        apart = largest_exponent(dense.step, x0, kick, 400, 200)
        assert_close(apart, tangent, rtol=0, atol=0.02)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="shortest kick 0; allowed"):
            largest_exponent(dense.step, normal(5, 6), torch.zeros(6, dtype=torch.float64), 10)
        with pytest.raises(ValueError, match="steps is 0"):
            largest_exponent(dense.step, normal(5, 6), normal(6), 0)


class TestAdjoint:
    def test_is_the_transpose_of_the_tangent_map(self):
        x0, a = 0.5 * normal(5, 6), normal(5, 6, seed=4)
        orbit, M = tangent_map(dense.step, dense.step_jacobian, x0, 12)
        found = adjoint_norms(dense.pullback, orbit, a)
        expected = (M[-1].mT @ a.unsqueeze(-1)).squeeze(-1).norm(dim=-1).log()
        assert_close(found[0], a.norm(dim=-1).log())
        assert_close(found[-1], expected, rtol=0, atol=1e-11)

    def test_is_the_gradient(self):
        x0 = (0.5 * normal(5, 6)).requires_grad_()
        a = normal(5, 6, seed=4)
        orbit = iterate(dense.step, x0, 12)
        (gradient,) = torch.autograd.grad((orbit[-1] * a).sum(), x0)
        found = adjoint_norms(dense.pullback, orbit.detach(), a)
        assert_close(found[-1], gradient.norm(dim=-1).log(), rtol=0, atol=1e-11)

    def test_far_beyond_the_range_of_floating_point_numbers(self):
        orbit = torch.zeros(2001, 2, dtype=torch.float64)
        found = adjoint_norms(lambda x, a: 0.1 * a, orbit, numbers(3, 4))
        assert_close(found, math.log(5) + torch.arange(2001, dtype=torch.float64) * math.log(0.1))

    def test_a_gradient_of_zero_stays_zero(self):
        found = adjoint_norms(lambda x, a: 0 * a, torch.zeros(4, 2).double(), start)
        assert (found[1:] == -math.inf).all()
        a = normal(5, 6, seed=4)
        a[2] = 0
        found = adjoint_norms(dense.pullback, iterate(dense.step, 0.5 * normal(5, 6), 3), a)
        assert (found[:, 2] == -math.inf).all()
        assert found[:, [0, 1, 3, 4]].isfinite().all()
