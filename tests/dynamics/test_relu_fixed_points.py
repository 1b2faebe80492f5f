"""Exact fixed points of threshold-linear networks: the rules of the bounded line attractor, brute force, degree."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from slowmanifold.dynamics.fixed_points import Stability, relu_fixed_points
from slowmanifold.dynamics.flow import linearisation
from slowmanifold.dynamics.supports import solve
from slowmanifold.networks.line import bounded_line_attractor, identity_rnn, unbounded_line_attractor
from slowmanifold.networks.ring import optimal_excitation

NONE, SECOND, FIRST, BOTH = range(4)  # the supports of two units, in the order of the result


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def symmetric_entries(n: int, seed: int = 0) -> torch.Tensor:
    """Perturbations V with independent entries, uniform on (-1, 1)."""
    return 2 * torch.rand(n, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


def head_direction_weights(N: int = 6, J_E: float = 2.4, J_I: float = -2.4) -> torch.Tensor:
    theta = 2 * math.pi * torch.arange(N, dtype=torch.float64) / N
    return (J_I + J_E * torch.cos(theta[:, None] - theta)) / N


class TestBoundedLineAttractor:
    beta = 1.7

    def perturbed(self, V):
        network = bounded_line_attractor(beta=self.beta).perturbed(V)
        p, q = V[..., 0, 1] - V[..., 1, 1], V[..., 1, 0] - V[..., 0, 0]
        return network, p, q, relu_fixed_points(network.W, network.b)

    def test_the_signs_of_p_and_q_decide(self):
        network, p, q, found = self.perturbed(symmetric_entries(5000))
        exists = torch.stack([p > 9, p < 0, q < 0, p * q > 0], -1)
        assert torch.equal(found.exists, exists)
        a, d = network.W.diagonal(dim1=-2, dim2=-1).unbind(-1)
        zero = torch.zeros_like(a)
        first, second = torch.stack([self.beta / (1 - a), zero], -1), torch.stack([zero, self.beta / (1 - d)], -1)
        interior = self.beta * torch.stack([p, q], -1) / torch.linalg.det(torch.eye(2) - network.W)[:, None]
        points = torch.stack([torch.zeros_like(first), second, first, interior], 1)
        assert_close(found.points[exists], points[exists], rtol=1e-9, atol=1e-9)
        assert found.points[~exists].isnan().all()

    def test_corners_are_stable_and_the_interior_point_is_a_saddle_between_two(self):
        _, p, q, found = self.perturbed(symmetric_entries(5000))
        corners = found.exists[:, [SECOND, FIRST]]
        assert (found.kind[:, [SECOND, FIRST]][corners] == Stability.STABLE).all()
        assert (found.kind[:, BOTH][(p > 0) & (q > 0)] == Stability.STABLE).all()
        assert (found.kind[:, BOTH][(p < 0) & (q < 0)] == Stability.SADDLE).all()

    def test_four_classes_of_a_quarter(self):
        n = 40000
        _, p, q, found = self.perturbed(symmetric_entries(n))
        three = found.exists.sum(-1) == 3
        assert torch.equal(three, (p < 0) & (q < 0))
        shares = tensor([((p > 0) == i).logical_and((q > 0) == j).sum() for i in (0, 1) for j in (0, 1)]) / n
        assert (shares - 0.25).abs().max() < 4 * math.sqrt(3 / 16 / n)

    def test_all_indices_add_up_to_that_of_a_sink(self):
        _, _, _, found = self.perturbed(symmetric_entries(5000))
        assert (found.index.sum(-1) == 1).all()

    def test_half_stable_corner_is_one_border_point(self):
        V = symmetric_entries(2000)
        V[:, 0, 1] = V[:, 1, 1]
        _, _, q, found = self.perturbed(V)
        assert (found.exists.sum(-1) == torch.where(q < 0, 2, 1)).all()
        assert torch.equal(found.border.nonzero()[:, 1].unique(), tensor([SECOND]).long())
        assert (found.border.sum(-1) == 1).all()
        assert (found.kind[found.border] == Stability.BORDER).all()
        assert (found.index[found.border] == 0).all()
        assert found.eigenvalues[found.border].real.isfinite().all()

    @pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-9])
    def test_resolves_small_perturbations(self, size):
        _, p, q, found = self.perturbed(size * symmetric_entries(2000))
        assert torch.equal(found.exists, torch.stack([p > 9, p < 0, q < 0, p * q > 0], -1))
        assert not found.border.any()


class TestUnboundedLineAttractor:
    def test_diverges_iff_the_determinant_is_negative(self):
        """Rule: (1-a)(1-d) < (1+b)(1+c). Independently: does the Euler map grow?"""
        V = symmetric_entries(2000)
        (a, b), (c, d) = (row.unbind(-1) for row in V.unbind(-2))
        margin = (1 + b) * (1 + c) - (1 - a) * (1 - d)
        network, x = unbounded_line_attractor().perturbed(V), torch.ones(2000, 2, dtype=torch.float64)
        for _ in range(1500):
            before, x = x, network.step(x, dt=0.2)
            x, before = x / x.norm(dim=-1, keepdim=True), before / x.norm(dim=-1, keepdim=True)
        grows = before.norm(dim=-1) < 1
        clear = margin.abs() > 1e-2
        assert torch.equal(grows[clear], (margin > 0)[clear])
        assert clear.sum() > 1900
        found = relu_fixed_points(network.W, network.b)
        assert torch.equal(found.exists.sum(-1), torch.ones(2000).long())

    def test_half_of_all_perturbations_diverge(self):
        n = 40000
        (a, b), (c, d) = (row.unbind(-1) for row in symmetric_entries(n).unbind(-2))
        share = ((1 - a) * (1 - d) < (1 + b) * (1 + c)).double().mean()
        assert share == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(n))


class TestDegenerateSupports:
    @pytest.mark.parametrize(
        ("W", "b", "degenerate", "continuum"),
        [
            (identity_rnn().W, [0, 0], [SECOND, FIRST, BOTH], [SECOND, FIRST, BOTH]),
            (unbounded_line_attractor().W, [0, 0], [BOTH], [BOTH]),
            (bounded_line_attractor().W, [1, 1], [BOTH], [BOTH]),
            (bounded_line_attractor().W, [1e-8, 1e-8], [BOTH], [BOTH]),
            (bounded_line_attractor().W, [1, 2], [BOTH], []),  # parallel lines: no solution
            (bounded_line_attractor().W, [-1, -1], [BOTH], []),  # a line of solutions outside the region
            (unbounded_line_attractor().W, [1, 1], [BOTH], []),
            (unbounded_line_attractor().W, [1, -1], [BOTH], [BOTH]),
        ],
    )
    def test_a_continuum_or_nothing(self, W, b, degenerate, continuum):
        found = relu_fixed_points(W, tensor(b))
        assert found.degenerate.nonzero().flatten().tolist() == degenerate
        assert found.continuum.nonzero().flatten().tolist() == continuum
        assert not found.exists[found.degenerate].any()
        assert found.points[found.degenerate].isnan().all()
        assert (found.kind[found.degenerate] == Stability.NONE).all()

    def test_ends_of_the_segment_are_border_points(self):
        found = relu_fixed_points(bounded_line_attractor(beta=3).W, tensor([3, 3]))
        assert_close(found.points[found.exists], tensor([[0, 3], [3, 0]]))
        assert torch.equal(found.border, found.exists)

    @pytest.mark.parametrize("form", ["rate", "preactivation"])
    def test_the_six_sides_of_the_head_direction_ring(self, form):
        found = relu_fixed_points(head_direction_weights(), tensor(1.0).expand(6), form)
        four_in_a_row = {tuple(sorted((i + k) % 6 for k in range(4))) for i in range(6)}
        sides = {tuple(support.nonzero().flatten().tolist()) for support in found.supports[found.continuum]}
        assert sides == four_in_a_row
        vertices = found.points[found.border]
        assert len(vertices) == 6
        assert (found.supports[found.border].sum(-1) == 3).all()

    def test_one_batch_element_does_not_disturb_another(self):
        W = torch.stack([bounded_line_attractor().W, bounded_line_attractor().W + 0.1 * normal(2, 2)])
        together, alone = relu_fixed_points(W, tensor([1, 1])), relu_fixed_points(W[1], tensor([1, 1]))
        assert torch.equal(together.exists[1], alone.exists)
        assert_close(together.points[1], alone.points, rtol=0, atol=0, equal_nan=True)
        assert together.degenerate[:, BOTH].tolist() == [True, False]


class TestAnyNetwork:
    @given(st.integers(1, 5), st.integers(0, 2**32))
    def test_against_brute_force(self, d, seed):
        """One support at a time, with NumPy, and the definition of a fixed point."""
        W, b = (2 * normal(d, d, seed=seed)).numpy(), normal(d, seed=seed + 1).numpy()
        expected = {}
        for active in itertools.product([False, True], repeat=d):
            on = np.array(active)
            x = np.zeros(d)
            x[on] = np.linalg.solve(np.eye(on.sum()) - W[np.ix_(on, on)], b[on])
            if ((W @ x + b > 0) == on).all():
                expected[active] = (x, np.linalg.eigvals(on[:, None] * W - np.eye(d)))
        found = relu_fixed_points(torch.from_numpy(W), torch.from_numpy(b))
        assert {tuple(s.tolist()) for s in found.supports[found.exists]} == set(expected)
        for support, x, eigenvalues in zip(
            found.supports[found.exists],
            found.points[found.exists],
            found.eigenvalues[found.exists],
            strict=True,
        ):
            point, rates = expected[tuple(support.tolist())]
            np.testing.assert_allclose(x.numpy(), point, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(
                np.sort_complex(eigenvalues.numpy()), np.sort_complex(rates), rtol=1e-6, atol=1e-6
            )

    @given(st.integers(1, 6), st.integers(0, 2**32))
    def test_both_forms_have_the_same_fixed_points(self, d, seed):
        W, b = normal(3, d, d, seed=seed), normal(3, d, seed=seed + 1)
        rate, pre = relu_fixed_points(W, b), relu_fixed_points(W, b, form="preactivation")
        assert torch.equal(rate.exists, pre.exists)
        x, h = rate.points[rate.exists], pre.points[rate.exists]
        assert_close(torch.relu(h), x, rtol=1e-9, atol=1e-9)
        weights, drive = (v.unsqueeze(1).expand(3, 2**d, *v.shape[1:])[rate.exists] for v in (W, b))

        def preactivation_field(h):
            return (weights @ torch.relu(h).unsqueeze(-1)).squeeze(-1) + drive - h

        assert_close(preactivation_field(h), torch.zeros_like(h), rtol=0, atol=1e-9)
        assert_close(pre.jacobians[pre.exists], linearisation(preactivation_field)(h)[1])
        ordered = [np.sort_complex(found.eigenvalues[found.exists].numpy()) for found in (rate, pre)]
        np.testing.assert_allclose(*ordered, rtol=1e-6, atol=1e-6)
        assert torch.equal(rate.kind, pre.kind)

    @given(st.permutations(range(4)), st.integers(0, 2**32))
    def test_the_names_of_the_units_do_not_matter(self, order, seed):
        W, b = 2 * normal(4, 4, seed=seed), normal(4, seed=seed + 1)
        found, renamed = relu_fixed_points(W, b), relu_fixed_points(W[order][:, order], b[order])
        there = [found.supports.tolist().index(s) for s in renamed.supports[:, np.argsort(order)].tolist()]
        assert torch.equal(renamed.exists, found.exists[there])
        assert torch.equal(renamed.kind, found.kind[there])
        assert_close(renamed.points, found.points[there][:, order], rtol=1e-9, atol=1e-9, equal_nan=True)

    @given(st.floats(1e-6, 1e6), st.integers(0, 2**32))
    def test_activity_scales_with_the_bias(self, scale, seed):
        W, b = 2 * normal(3, 3, seed=seed), normal(3, seed=seed + 1)
        small, large = relu_fixed_points(W, b), relu_fixed_points(W, scale * b)
        assert torch.equal(small.exists, large.exists)
        assert_close(large.points / scale, small.points, rtol=1e-9, atol=1e-9, equal_nan=True)

    def test_degree(self):
        """Inhibition keeps activity bounded: whatever the fixed points, their indices add up to that of one sink."""
        for d in range(1, 7):
            W, b = -2 * normal(500, d, d, seed=d).abs(), normal(500, d, seed=d + 10).abs()
            found = relu_fixed_points(W, b)
            assert (found.index.sum(-1) == (-1) ** d).all()
            assert d < 3 or found.exists.sum(-1).max() > 2

    def test_batches_broadcast(self):
        W, b = normal(3, 1, 4, 4), normal(5, 4)
        together = relu_fixed_points(W, b)
        assert together.points.shape == (3, 5, 16, 4)
        for i, j in itertools.product(range(3), range(5)):
            alone = relu_fixed_points(W[i, 0], b[j])
            assert torch.equal(together.exists[i, j], alone.exists)
            assert_close(together.points[i, j], alone.points, equal_nan=True)
            assert torch.equal(together.kind[i, j], alone.kind)

    @pytest.mark.parametrize(("form", "leaky"), [("rate", False), ("preactivation", False), ("preactivation", True)])
    def test_one_network_alone_is_a_batch_of_one(self, form, leaky):
        W, b = normal(4, 4), normal(4, seed=1)
        leak = torch.eye(4) + 0.2 * normal(4, 4, seed=2) if leaky else None
        alone = relu_fixed_points(W, b, form, leak)
        batch = relu_fixed_points(W[None], b[None], form, None if leak is None else leak[None])
        assert alone.exists.any()
        for name in ("points", "jacobians", "eigenvalues", "kind", "index"):
            one, first = getattr(alone, name), getattr(batch, name)[0]
            assert_close(one, first, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(alone.rates, batch.rates)

    @pytest.mark.parametrize(
        ("W", "b", "form", "message"),
        [
            (
                torch.zeros(2, 3),
                torch.zeros(2),
                "rate",
                r"W has shape \(2, 3\) and b \(2,\); allowed: \(..., d, d\)",
            ),
            (torch.zeros(2), torch.zeros(2), "rate", "W has shape"),
            (torch.full((2, 2), math.nan), torch.zeros(2), "rate", r"W has 4 values that are not finite"),
            (torch.zeros(2, 2), tensor([math.inf, 0]), "rate", "b has 1 values that are not finite"),
            (
                torch.zeros(2, 2),
                torch.zeros(2),
                "voltage",
                "form is 'voltage'; allowed: 'rate', 'preactivation'",
            ),
        ],
    )
    def test_bad_input(self, unchecked, W, b, form, message):
        with pytest.raises(ValueError, match=message):
            relu_fixed_points(W, b, form)


class TestLeak:
    def test_fixed_points_of_a_network_with_a_linear_term(self):
        W, V, b = head_direction_weights(), 0.1 * normal(50, 6, 6), tensor(1.0).expand(6)
        found = relu_fixed_points(W, b, "preactivation", torch.eye(6) - V)

        def field(h, V=V):
            return (torch.relu(h).unsqueeze(-2) @ W.mT).squeeze(-2) + b - h + (h.unsqueeze(-2) @ V.mT).squeeze(-2)

        at, support = found.exists.nonzero().unbind(-1)
        h = found.points[at, support]
        assert len(h) > 100
        assert_close(field(h, V[at]), torch.zeros_like(h), rtol=0, atol=1e-10)
        assert_close(found.jacobians[at, support], linearisation(lambda h: field(h, V[at]))(h)[1])

    def test_a_leak_multiplies_weights_and_biases_by_its_inverse(self):
        W, L, b = normal(20, 3, 3), torch.eye(3) + 0.2 * normal(20, 3, 3, seed=1), normal(20, 3, seed=2)
        leaky = relu_fixed_points(W, b, "preactivation", L)
        inverse = torch.linalg.inv(L)
        plain = relu_fixed_points(inverse @ W, (inverse @ b.unsqueeze(-1)).squeeze(-1), "preactivation")
        assert torch.equal(leaky.exists, plain.exists)
        assert_close(leaky.points, plain.points, rtol=1e-9, atol=1e-9, equal_nan=True)

    @pytest.mark.parametrize(
        ("form", "leak", "message"),
        [
            ("rate", torch.eye(2), "leak has shape"),
            ("preactivation", torch.eye(3), "leak has shape"),
            ("preactivation", torch.zeros(2, 2), "leak is singular"),
        ],
    )
    def test_bad_leaks(self, form, leak, message):
        with pytest.raises(ValueError, match=message):
            relu_fixed_points(torch.zeros(2, 2).double(), torch.ones(2).double(), form, leak.double())


class TestElimination:
    """The tree of supports against one factorisation for each of them."""

    @pytest.mark.parametrize("J_E", [2.4, 4.0])  # at 4, units two apart form a singular block
    @pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-6])
    def test_signs_of_each_support_decide(self, J_E, size):
        W, b = head_direction_weights(J_E=J_E) + size * normal(30, 6, 6) / 6, tensor(1.0).expand(6)
        found = relu_fixed_points(W, b, "preactivation")
        A = torch.eye(6) - W.unsqueeze(1) * found.supports.unsqueeze(-2)
        direct = torch.linalg.solve(A, b.expand(30, 64, 6))
        assert torch.equal(found.exists, ((direct > 0) == found.supports).all(-1))

    @pytest.mark.parametrize(("N", "draws"), [(4, 3000), (6, 600), (8, 100), (10, 10)])
    @pytest.mark.parametrize("rings", [True, False])
    def test_the_tree_finds_what_a_factorisation_of_each_support_finds(self, N, draws, rings):
        W, b = normal(draws, N, N, seed=N), tensor(1.0).expand(draws, N)
        if rings:
            W = head_direction_weights(N, J_E=optimal_excitation(N)[N // 2 - 2].item()) + 1e-2 * W / N
        else:
            b = b + normal(draws, N, seed=N + 1)
        found = relu_fixed_points(W, b, "preactivation")
        n = 2**N
        each = solve(W.repeat_interleave(n, 0), b.repeat_interleave(n, 0), found.supports.repeat(draws, 1))
        h, exists, border, _ = (values.unflatten(0, (draws, n)) for values in each)
        assert torch.equal(found.exists, exists)
        assert torch.equal(found.border, border)
        error = (found.points - h)[exists].abs().amax(-1)
        assert (error <= 1e-10 * h[exists].abs().amax(-1)).all()
        residual = (W.unsqueeze(1) @ torch.relu(found.points).unsqueeze(-1)).squeeze(-1) + b.unsqueeze(1) - found.points
        assert (residual[exists].abs().amax(-1) <= 1e-10 * h[exists].abs().amax(-1)).all()

    def test_no_network_no_points(self):
        found = relu_fixed_points(torch.zeros(0, 3, 3).double(), torch.zeros(3).double())
        assert found.points.shape == (0, 8, 3)
        assert found.rates.shape == (0, 3)

    @pytest.mark.parametrize("J_E", [2.4, 4.0])
    @pytest.mark.parametrize("size", [1e-3, 1e-6])
    def test_little_noise_leaves_isolated_points_in_balance(self, J_E, size):
        W = head_direction_weights(J_E=J_E) + size * normal(100, 6, 6) / 6
        found = relu_fixed_points(W, tensor(1.0).expand(6), "preactivation")
        assert not found.continuum.any()
        assert (found.index.sum(-1) == 1).all()

    @given(st.integers(1, 5), st.integers(0, 2**32), st.sampled_from([None, 1, 2]))
    def test_nothing_is_lost_in_the_sieve(self, d, seed, digits):
        """Rounded weights make singular systems, pivots of zero and units at threshold."""
        W, b = normal(8, d, d, seed=seed), normal(8, d, seed=seed + 1)
        if digits:
            W, b = (digits * W).round() / digits, (digits * b).round() / digits
        found = relu_fixed_points(W, b)
        n = 2**d
        each = solve(W.repeat_interleave(n, 0), b.repeat_interleave(n, 0), found.supports.repeat(8, 1))
        h, exists, border, degenerate = (values.unflatten(0, (8, n)) for values in each)
        assert torch.equal(found.exists, exists)
        assert torch.equal(found.border, border)
        assert not (found.degenerate & ~degenerate).any()
        condition = torch.linalg.cond(torch.eye(d) - W.unsqueeze(1) * found.supports.unsqueeze(-2))[exists]
        error = (found.states - (h * found.supports)[exists]).abs().amax(-1)
        assert (error <= 1e-11 * condition * h[exists].abs().amax(-1)).all()

    @pytest.mark.parametrize("form", ["rate", "preactivation"])
    def test_eigenvalues_are_those_of_the_jacobians(self, form):
        W = normal(200, 5, 5) * torch.rand(200, 1, 1, generator=torch.Generator().manual_seed(1)).double()
        found = relu_fixed_points(W, normal(200, 5, seed=2), form)
        values, whole = found.eigenvalues[found.exists], torch.linalg.eigvals(found.jacobians[found.exists])
        assert len(whole) > 150
        for power in range(1, 6):
            assert_close((values**power).sum(-1), (whole**power).sum(-1), rtol=1e-9, atol=1e-9)
        assert found.eigenvalues[~found.exists].isnan().all()
        assert torch.equal(found.rates, values)

    def test_many_networks_are_those_of_each_alone(self):
        """More than are worked on at a time."""
        W, b = head_direction_weights() + 1e-2 * normal(600, 6, 6), tensor(1.0).expand(6)
        together = relu_fixed_points(W, b, "preactivation")
        parts = [relu_fixed_points(part, b, "preactivation") for part in W.split(100)]
        assert torch.equal(together.exists, torch.cat([part.exists for part in parts]))
        assert torch.equal(together.kind, torch.cat([part.kind for part in parts]))
        assert_close(
            together.points, torch.cat([part.points for part in parts]), rtol=1e-12, atol=1e-12, equal_nan=True
        )
