"""Mean-field theory of a trained reservoir: identities, closed forms, limits, and other ways to the same numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import dblquad
from scipy.stats import multivariate_normal, norm
from torch.testing import assert_close

from slowmanifold.networks.reservoir import rate_function
from slowmanifold.theory.gaussian import RectifierAverages, SmoothAverages, feedback_rule, triple_averages
from slowmanifold.theory.mean_field import NoSolution, single_target, solve

THREE = [0.5, 1.0, 1.5]
gains = st.floats(0.2, 1.2)
levels = st.floats(0.2, 3.0)


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


class TestSingleTarget:
    @given(gains, levels)
    def test_dc_gain_is_the_logarithmic_derivative_of_sigma(self, gain, level):
        h = 1e-4
        s = single_target(level * tensor([1.0, np.exp(h), np.exp(-h)]), tensor(gain))
        rate = (s.sigma[1] / s.sigma[2]).log() / (2 * h)
        assert_close(level * s.beta_0[0] / (1 - s.beta_1[0]), rate, rtol=1e-6, atol=1e-9)

    @given(gains, levels, st.floats(0.0, 0.15))
    def test_of_a_rectifier(self, gain, level, threshold):
        """beta_1 = rho^2 and lambda_out = threshold g^2 <phi>/sigma^2: unstable for any positive threshold."""
        s = single_target(tensor(level), tensor(gain), "relu", threshold)
        w, p = feedback_rule("uniform", level, 400)
        a = (w * level - threshold) / s.sigma
        mean = s.sigma * (a * torch.special.ndtr(a) + torch.exp(-(a**2) / 2) / (2 * torch.pi) ** 0.5) @ p
        assert_close(s.beta_1, s.spectral_radius**2, rtol=1e-10, atol=1e-12)
        assert_close(s.pole, threshold * gain**2 * mean / s.sigma**2, rtol=1e-6, atol=1e-8)

    def test_erf_with_normal_feedback_has_closed_forms(self):
        """x ~ N(0, v), v = A^2 + sigma^2: <phi^2> = (2/pi) asin(pi v / (2 + pi v)), <phi'^2> = (1 + pi v)^{-1/2}."""
        s = single_target(tensor([0.3, 1.0, 2.0]), tensor(1.3), "erf", feedback="normal")
        v = tensor([0.3, 1.0, 2.0]) ** 2 + s.sigma**2
        square = 2 / torch.pi * torch.asin(torch.pi * v / (2 + torch.pi * v))
        assert_close(s.sigma**2, 1.3**2 * square, rtol=1e-10, atol=0)
        assert_close(s.spectral_radius**2, 1.3**2 / (1 + torch.pi * v).sqrt(), rtol=1e-10, atol=0)

    def test_against_quadrature_of_another_kind(self):
        s = single_target(tensor(1.0), tensor(1.5))
        sigma = float(s.sigma)
        square, _ = dblquad(
            lambda y, w: np.tanh(w + sigma * y) ** 2 * norm.pdf(y) / 2, -1, 1, -9, 9, epsabs=1e-10, epsrel=1e-10
        )
        assert abs(sigma**2 - 1.5**2 * square) < 1e-8

    def test_weak_targets_are_nearly_neutral(self):
        """Small A: phi is linear, its output scales with A; lambda_out -> 0 from below like A^2."""
        pole = single_target(tensor([0.04, 0.02, 0.01]), tensor(0.8)).pole
        assert (pole < 0).all()
        assert_close(pole[:-1] / pole[1:], tensor([4.0, 4.0]), rtol=0.03, atol=0)

    def test_a_batch_is_its_elements(self):
        targets, gain = tensor([0.4, 1.0, 2.0])[:, None], tensor([0.5, 1.1, 1.5])
        grid = single_target(targets, gain)
        one = single_target(targets[2, 0], gain[1])
        assert_close(grid.pole[2, 1], one.pole, rtol=1e-11, atol=1e-12)
        assert_close(grid.sigma[2, 1], one.sigma, rtol=1e-11, atol=0)


class TestSolve:
    @pytest.mark.parametrize(("phi", "threshold", "gain"), [("tanh", 0.0, 1.0), ("erf", 0.0, 0.9), ("relu", 0.1, 1.1)])
    def test_dc_gain_is_the_slope_of_the_output_map(self, phi, threshold, gain):
        field = solve(THREE, gain, phi, threshold)
        h = 1e-3
        for n, target in enumerate(THREE):
            ahead, behind = field.output_map(tensor([target + h, target - h]))
            slope = field.open_loop_gain(n, torch.zeros(1, dtype=torch.complex128)).real
            assert_close(((ahead - behind) / (2 * h)).reshape(1), slope, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("phi", ["tanh", "relu"])
    def test_the_targets_are_fixed_points_of_the_output_map(self, phi):
        field = solve(THREE, 1.0, phi, 0.1 if phi == "relu" else 0.0)
        assert_close(field.output_map(field.targets), field.targets, rtol=1e-6, atol=1e-6)

    def test_one_target_is_the_single_target(self):
        field, single = solve([1.0], 1.5), single_target(tensor(1.0), tensor(1.5))
        assert_close(field.poles(0).real[0], single.pole, rtol=1e-10, atol=1e-12)
        assert_close(field.spectral_radius[0], single.spectral_radius)

    def test_poles_are_where_the_open_loop_gain_is_one(self):
        field = solve(THREE, 1.0)
        for n in range(3):
            assert_close(
                field.open_loop_gain(n, field.poles(n)), torch.ones(3, dtype=torch.complex128), rtol=1e-8, atol=1e-8
            )

    def test_closed_loop_gain(self):
        field, s = solve(THREE, 0.9), 1j * torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(3, 4)
        G = field.open_loop_gain(1, s)
        assert_close(field.closed_loop_gain(1, s), G / (1 - G))

    def test_impulse_response_is_the_transform_of_the_gain(self):
        field = solve(THREE, 0.9)
        t = torch.linspace(0, 4000, 400001, dtype=torch.float64)
        s = torch.tensor([0.02 + 0.3j, 0.1 + 0.0j], dtype=torch.complex128)
        z = field.impulse_response(0, t[:40001:1])
        transform = torch.trapezoid(z * torch.exp(-s[:, None] * t[:40001]), t[:40001])
        assert_close(transform, field.closed_loop_gain(0, s), rtol=1e-4, atol=1e-4)

    def test_eq_18(self):
        """G_OL as the paper's sum of rational functions, with p_nm in place of the repeated pole."""
        field, s, n = solve(THREE, 1.0), torch.tensor([0.1 + 0.7j], dtype=torch.complex128), 0
        J, B = field.open_loop[n].to(s.dtype), field.drive[n].to(s.dtype)
        G = []
        for m in range(3):
            own = B[n] / (s - J[n, n])
            zero = J[n, n] - J[m, n] * B[n] / B[m]
            G.append(own if m == n else B[m] * (s - zero) / ((s - J[n, n]) * (s - J[m, m])))
        total = sum(k * gain for k, gain in zip(field.readout, G, strict=True))
        assert_close(total, field.open_loop_gain(n, s), rtol=1e-12, atol=1e-12)

    def test_a_user_function_is_as_good_as_a_name(self):
        named, own = solve(THREE, 1.0), solve(THREE, 1.0, torch.tanh)
        assert_close(named.poles(0), own.poles(0))

    def test_a_finer_rule_changes_nothing(self):
        """The quadrature is chosen by the gain; here that of a gain of 3 answers for one of 1."""
        w, p = feedback_rule("uniform", 12.0, 16)
        coarse = solve(THREE, 1.0)
        size = coarse.sigma[:, None] * coarse.sigma
        mean = coarse.targets[:, None] * w
        C, Gamma, B, D = SmoothAverages(torch.tanh, 3.0).pairs(mean, coarse.sigma, w, p)(coarse.covariance / size)
        assert_close(C, coarse.covariance, rtol=1e-10, atol=1e-11)
        assert_close(B, coarse.drive, rtol=1e-10, atol=1e-11)
        loop = (
            torch.diag_embed(Gamma)
            + D.unsqueeze(-1) * torch.eye(3, dtype=w.dtype).unsqueeze(-2)
            - torch.eye(3, dtype=w.dtype)
        )
        assert_close(loop, coarse.open_loop, rtol=1e-9, atol=1e-10)

    def test_batches_of_targets(self):
        sets = tensor([THREE, [0.7, 1.1, 1.6]])
        field, one = solve(sets, 1.0), solve(THREE, 1.0)
        s = 1j * torch.linspace(0, 1, 5, dtype=torch.float64)
        assert_close(field.poles(0)[0], one.poles(0), rtol=1e-9, atol=1e-10)
        assert_close(field.open_loop_gain(0, s)[0], one.open_loop_gain(0, s), rtol=1e-9, atol=1e-10)
        assert field.impulse_response(0, s.imag).shape == (2, 5)

    def test_input_power_of_one_target(self):
        """M = 1 by hand: kappa = k/(q - beta_1), Q = <phi^2 phi'^2>."""
        field, single = solve([1.0], 1.1), single_target(tensor(1.0), tensor(1.1))
        s = 1j * tensor([0.0, 0.4, 2.0])
        w, p = feedback_rule("uniform", 1.0, 16)
        y = torch.linspace(-9, 9, 301, dtype=torch.float64)
        density = torch.exp(-(y**2) / 2)
        phi = torch.tanh(w[:, None] + single.sigma * y)
        Q = p @ ((phi * (1 - phi**2)) ** 2 @ density) / density.sum()
        q = (1 + s).abs() ** 2
        k = 1.1**2 / single.sigma**2
        expected = k**2 * Q * q / ((1 + s - single.beta_1).abs() ** 2 * (q - single.spectral_radius**2))
        assert_close(field.input_power(0, s), expected, rtol=1e-6, atol=0)


class TestRectifierAverages:
    @pytest.mark.parametrize("c", [-0.9, -0.2, 0.5, 0.95, 0.9999])
    def test_against_the_bivariate_normal(self, c):
        a, b, sn, sm = 0.3, -0.4, 0.7, 1.2
        averages = RectifierAverages(0.1)
        mean = tensor([[sn * a + 0.1], [sm * b + 0.1]])
        _, Gamma, _, D = averages.pairs(mean, tensor([sn, sm]), tensor([1.0]), tensor([1.0]))(
            tensor([[1.0, c], [c, 1.0]])
        )
        assert (
            abs(Gamma[0, 1] - multivariate_normal.cdf([a, b], cov=[[1, c], [c, 1]], abseps=1e-10, releps=1e-10)) < 1e-6
        )
        h, density = 1e-4, norm.pdf(a) / sn
        # d<phi_n phi_m>/dc = s_n s_m <phi'_n phi'_m> (Price).
        shifted = averages.pairs(mean, tensor([sn, sm]), tensor([1.0]), tensor([1.0]))
        if c < 0.99:
            near = [shifted(tensor([[1.0, c + d], [c + d, 1.0]]))[0][0, 1] for d in (h, -h)]
            assert_close((near[0] - near[1]) / (2 * h), sn * sm * Gamma[0, 1], rtol=1e-5, atol=0)
        u, rest = b - c * a, np.sqrt(1 - c**2)
        assert_close(
            D[0, 1], tensor(density * sm * (u * norm.cdf(u / rest) + rest * norm.pdf(u / rest))), rtol=1e-10, atol=0
        )

    def test_stein(self):
        """<y_n phi'_n phi_m> = s_n <phi''_n phi_m> + c s_m <phi'_n phi'_m>, by quadrature of the left-hand side."""
        a, b, sn, sm, c = 0.3, -0.4, 0.7, 1.2, 0.6
        mean = tensor([[sn * a], [sm * b]])
        C, Gamma, B, D = RectifierAverages().pairs(mean, tensor([sn, sm]), tensor([1.0]), tensor([1.0]))(
            tensor([[1.0, c], [c, 1.0]])
        )
        y = np.linspace(-a, 12, 200001)
        u, rest = b + c * y, np.sqrt(1 - c**2)
        inner = sm * (u * norm.cdf(u / rest) + rest * norm.pdf(u / rest)) * norm.pdf(y)
        assert_close(sn * D[0, 1] + c * sm * Gamma[0, 1], tensor(np.trapezoid(y * inner, y)), rtol=1e-7, atol=0)
        assert_close(B[0, 1], tensor(np.trapezoid(inner, y)), rtol=1e-7, atol=0)
        assert_close(C[0, 1], tensor(np.trapezoid(sn * (a + y) * inner, y)), rtol=1e-7, atol=0)


def test_triple_averages_of_a_line():
    """phi(x) = x: <x_l x_l'> is a matter of moments."""
    covariance = tensor([[0.5, 0.2], [0.2, 0.4]])
    w, p = feedback_rule("uniform", 1.0, 16)
    targets = tensor([0.5, 1.0])
    Q = triple_averages(lambda x: x, 0, targets, covariance, w, p)
    assert_close(Q, covariance + torch.outer(targets, targets) / 3, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_triple_averages_of_a_rectifier(threshold):
    """In <phi_l phi_l' phi'_n^2> phi'^2 is a step; by hand: given x_n the other field is normal, with known moments."""
    covariance, targets = tensor([[0.32, 0.25], [0.25, 0.45]]), tensor([0.5, 1.0])
    w, p = feedback_rule("uniform", 1.0, RectifierAverages.w_nodes)
    Q = triple_averages(rate_function("relu", threshold), 0, targets, covariance, w, p)
    s0, s1, c = 0.32**0.5, 0.45**0.5, 0.25 / (0.32 * 0.45) ** 0.5
    w = w.numpy()[:, None]
    y = (threshold - w * 0.5) / s0 + np.linspace(0, 12, 6001)
    u, rest = (w + c * s1 * y - threshold) / s1, (1 - c**2) ** 0.5
    a, first = u / rest, w * 0.5 + s0 * y - threshold
    mean = s1 * (u * norm.cdf(a) + rest * norm.pdf(a))
    square = s1**2 * ((rest**2 + u**2) * norm.cdf(a) + u * rest * norm.pdf(a))
    by_hand = [p.numpy() @ np.trapezoid(f * norm.pdf(y), y) for f in (first**2, first * mean, square)]
    assert_close(torch.stack([Q[0, 0], Q[0, 1], Q[1, 1]]), tensor(by_hand), rtol=0, atol=1e-3)


@pytest.mark.parametrize("feedback", ["uniform", "normal", "signs"])
def test_feedback_rules_have_the_moments_of_their_laws(feedback):
    w, p = feedback_rule(feedback, 1.0, 16)
    moments = {"uniform": (1 / 3, 1 / 5), "normal": (1, 3), "signs": (1, 1)}[feedback]
    assert_close(p.sum(), tensor(1.0))
    assert_close(tensor([float(p @ w**2), float(p @ w**4)]), tensor(moments), rtol=1e-12, atol=0)


class TestErrors:
    def test_no_fading_memory(self):
        with pytest.raises(ValueError, match="no fading memory"):
            solve([0.3], 1.5)

    @pytest.mark.parametrize("targets", [[0.5, -0.5], [1.0, 1.0]])
    def test_dependent_targets(self, targets):
        with pytest.raises(ValueError, match="linearly dependent"):
            solve(targets, 0.8)

    def test_silent_reservoir(self):
        with pytest.raises(ValueError, match="silent"):
            solve([0.0, 1.0], 0.8)

    def test_runaway(self):
        with pytest.raises(NoSolution, match="lower the gain"):
            solve([1.0], 1.5, "relu", 0.1)

    def test_steep(self):
        with pytest.raises(ValueError, match="Hermite"):
            solve([0.5, 1.0], 0.4, lambda x: torch.relu(x - 0.1))

    @pytest.mark.parametrize(
        ("arguments", "name"),
        [
            (([1.0], -1.0), "gain"),
            (([float("nan")], 1.0), "targets"),
            (([1.0], 1.0, "step"), "phi"),
            (([1.0], 1.0, "tanh", 0.1), "threshold"),
            (([1.0], 1.0, "tanh", 0.0, "sparse"), "feedback"),
            (([], 1.0), "targets"),
        ],
    )
    def test_bad_input_is_named(self, arguments, name):
        with pytest.raises(ValueError, match=name):
            solve(*arguments)

    def test_input_power_inside_the_disk(self):
        with pytest.raises(ValueError, match="disk"):
            solve([1.0], 1.0).input_power(0, torch.tensor([-0.9 + 0j], dtype=torch.complex128))
