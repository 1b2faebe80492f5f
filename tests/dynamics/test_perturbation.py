"""Bumps, linear terms and random directions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from slowmanifold.dynamics.flow import linearisation
from slowmanifold.dynamics.perturbation import bump, linear, perturbed, random_matrix


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestBump:
    centre, radius, direction = tensor([1.0, 0.5]), 0.2, tensor([3.0, -4.0])

    def field(self, amplitude=0.3):
        return bump(self.centre, self.radius, self.direction, amplitude)

    def profile(self, s):
        """The size of the bump at distances s (in radii) from its centre, along a ray."""
        return self.field()(self.centre + s[:, None] * self.radius * tensor([0.6, 0.8])).norm(dim=-1)

    def test_equation(self):
        x = self.centre + 0.1 * normal(200, 2)
        b2, r2 = self.radius**2, ((x - self.centre) ** 2).sum(-1)
        size = torch.where(r2 < b2, 0.3 * torch.exp(b2 / (r2 - b2)), 0)
        assert 20 < (size > 0).sum() < 180
        assert_close(self.field()(x), size[:, None] * tensor([0.6, -0.8]), rtol=1e-12, atol=1e-15)

    def test_largest_at_its_centre(self):
        s = torch.linspace(0, 1, 50, dtype=torch.float64)
        assert_close(self.profile(s)[0], tensor(0.3 / math.e))
        assert (self.profile(s).diff() < 0).all()

    def test_exactly_nothing_outside(self):
        s = torch.cat([tensor([1.0]), torch.linspace(1, 50, 100, dtype=torch.float64)])
        assert (self.profile(s) == 0).all()

    @pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 6])
    def test_flat_to_every_order_at_its_edge(self, order):
        delta = tensor([1e-2, 1e-3])
        near, nearer = self.profile(1 - delta) / delta**order
        assert nearer < 1e-9 * near

    def test_derivatives_exist_everywhere(self):
        x = self.centre + self.radius * tensor([[0, 0], [0.5, 0], [0.6, 0.8], [1, 0], [1, 1], [100, 100]])
        once = linearisation(self.field())(x)[1]
        assert once.isfinite().all()
        assert (once[2:] == 0).all()
        h = 1e-6
        step = h * torch.eye(2, dtype=torch.float64)[:, None]
        difference = (self.field()(x + step) - self.field()(x - step)) / (2 * h)
        assert_close(once, difference.movedim(0, -1), rtol=0, atol=1e-8)

    @given(st.floats(0, 6.28), st.floats(1e-3, 1e3), st.floats(-10, 10))
    def test_turns_with_the_plane_and_scales(self, angle, scale, amplitude):
        R = tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        x = self.centre + 0.1 * normal(30, 2)
        turned = bump(R @ self.centre, self.radius, scale * R @ self.direction, amplitude)
        assert_close(turned(x @ R.T), amplitude / 0.3 * self.field()(x) @ R.T, rtol=1e-6, atol=1e-12)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"radius": 0.0}, "radius is 0.0; allowed: positive"),
            ({"radius": -1.0}, "radius is -1.0"),
            ({"radius": math.inf}, "radius is inf"),
            ({"amplitude": math.nan}, "amplitude is nan; allowed: finite"),
            ({"direction": tensor([0.0, 0.0])}, r"direction is \[0.0, 0.0\]; allowed: .* other than zero"),
            ({"direction": tensor([math.nan, 0.0])}, "direction is"),
        ],
    )
    def test_bad_input(self, change, message):
        given = {"centre": self.centre, "radius": self.radius, "direction": self.direction, "amplitude": 1.0}
        with pytest.raises(ValueError, match=message):
            bump(**(given | change))


class TestFields:
    def test_linear(self):
        V, x = normal(4, 3, 3), normal(7, 4, 3, seed=1)
        assert_close(linear(V)(x), torch.einsum("bij,nbj->nbi", V, x))

    @pytest.mark.parametrize("eps", [0, 0.1, tensor(0.1)])
    def test_perturbed_is_the_sum(self, eps):
        x, V = normal(7, 2), normal(2, 2, seed=1)
        assert_close(perturbed(torch.sin, eps, linear(V))(x), torch.sin(x) + eps * x @ V.T)

    def test_many_sizes_at_once(self):
        x, V, eps = normal(7, 2), normal(2, 2, seed=1), tensor([[0.1], [0.2], [0.5]])
        together = perturbed(torch.sin, eps, linear(V))(x)
        assert together.shape == (3, 7, 2)
        for size, one in zip(eps[:, 0].tolist(), together, strict=True):
            assert_close(one, perturbed(torch.sin, size, linear(V))(x))


class TestRandomMatrix:
    def test_on_the_unit_sphere_and_uniform_there(self):
        V = random_matrix(3, torch.Generator().manual_seed(0), (20000,))
        assert V.shape == (20000, 3, 3)
        assert_close(torch.linalg.matrix_norm(V), torch.ones(20000).double())
        # On the sphere in nine dimensions E V = 0 and E V_ij V_kl = delta/9.
        flat = V.flatten(-2)
        assert flat.mean(0).abs().max() < 4 / math.sqrt(9 * 20000)
        second = torch.einsum("ni,nj->ij", flat, flat) / 20000
        assert (second - torch.eye(9) / 9).abs().max() < 5 * 0.12 / math.sqrt(20000)

    def test_follows_its_generator_and_no_other(self):
        torch.manual_seed(0)
        first, second = (random_matrix(2, torch.Generator().manual_seed(5)) for _ in range(2))
        assert_close(first, second, rtol=0, atol=0)
        other = random_matrix(2, torch.Generator().manual_seed(6))
        assert not torch.allclose(first, other)

    def test_bad_dimension(self):
        with pytest.raises(ValueError, match="d is 0; allowed: 1, 2"):
            random_matrix(0, torch.Generator())
