"""The planar ring attractor and the head-direction ring."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from slowmanifold.dynamics.flow import linearisation
from slowmanifold.networks.ring import (
    PlanarRing,
    head_direction_ring,
    optimal_excitation,
    ring_of_equilibria,
    ring_plane,
)

EXACT = {"rtol": 0, "atol": 1e-13}
ring = PlanarRing()


def points(n: int) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_every_point_of_the_circle_rests_and_attracts():
    x = torch.nn.functional.normalize(points(50), dim=-1)
    assert_close(ring.velocity(x), torch.zeros_like(x), **EXACT)
    expected = torch.tensor([-1.0, 0.0]).double().expand(50, 2)
    assert_close(torch.linalg.eigvalsh(ring.jacobian(x)), expected, **EXACT)
    along = torch.stack([-x[:, 1], x[:, 0]], -1).unsqueeze(-1)
    assert_close(ring.jacobian(x) @ along, torch.zeros_like(along), **EXACT)


def test_the_origin_is_a_source():
    origin = torch.zeros(2).double()
    assert_close(ring.velocity(origin), origin)
    assert_close(ring.jacobian(origin), torch.eye(2).double())


def test_jacobian_is_the_derivative():
    x = torch.cat([points(50), torch.zeros(1, 2).double()])
    assert_close(ring.jacobian(x), linearisation(ring.velocity)(x)[1], **EXACT)


def test_polar_form():
    x = points(50)
    r = x.norm(dim=-1)
    radial = (ring.velocity(x) * x).sum(-1) / r
    angular = x[:, 0] * ring.velocity(x)[:, 1] - x[:, 1] * ring.velocity(x)[:, 0]
    assert_close(radial, r * (1 - r), **EXACT)
    assert_close(angular, torch.zeros(50).double(), **EXACT)


@pytest.mark.parametrize("mirror", [1.0, -1.0])
@given(angle=st.floats(0, 2 * math.pi))
def test_turns_and_mirrors_with_the_plane(angle, mirror):
    c, s = math.cos(angle), math.sin(angle)
    R = torch.tensor([[c, -s * mirror], [s, c * mirror]], dtype=torch.float64)
    x = points(20)
    assert_close(ring.velocity(x @ R.T), ring.velocity(x) @ R.T, **EXACT)
    assert_close(ring.jacobian(x @ R.T), R @ ring.jacobian(x) @ R.T, **EXACT)


class TestHeadDirectionRing:
    @pytest.mark.parametrize("N", [4, 5, 6, 7, 9, 12])
    def test_the_polygon_rests_with_a_zero_eigenvalue_along_it(self, N):
        for active, J_E in enumerate(optimal_excitation(N).tolist(), 2):
            network = head_direction_ring(N, J_E, J_I=-200.0)
            corners = ring_of_equilibria(N, active, J_I=-200.0)
            s = torch.linspace(0.1, 0.9, 5).double()[:, None, None]
            h = (1 - s) * corners + s * corners.roll(-1, 0)
            assert_close(network.velocity(h), torch.zeros_like(h), rtol=0, atol=1e-12 * J_E)
            assert ((h > 1e-9).sum(-1) == active).all()
            edge = (corners.roll(-1, 0) - corners).expand_as(h).unsqueeze(-1)
            assert_close(network.jacobian(h) @ edge, torch.zeros_like(edge), rtol=0, atol=1e-11 * J_E)

    def test_six_units_have_the_optima_of_the_paper(self):
        assert_close(optimal_excitation(6), torch.tensor([12, 4, 2.4], dtype=torch.float64), rtol=1e-13, atol=0)
        assert (optimal_excitation(11).diff() < 0).all()

    def test_turning_the_ring_by_one_unit_turns_the_heading(self):
        h = ring_of_equilibria(6, 4)
        assert_close(ring_of_equilibria(6, 4).roll(1, -1), h.roll(-1, 0), **EXACT)
        z = ring_plane(h)
        step = torch.remainder(torch.atan2(z[:, 1], z[:, 0]).diff(), 2 * math.pi)
        assert_close(step, torch.full((5,), math.pi / 3, dtype=torch.float64), rtol=0, atol=1e-12)

    def test_jacobian_is_the_derivative(self):
        network = head_direction_ring(5, 3.0)
        h = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert_close(network.jacobian(h), linearisation(network.velocity)(h)[1], **EXACT)

    def test_perturbed_weights_carry_batch_axes(self):
        V = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        network = head_direction_ring()
        h = ring_of_equilibria(6, 3)[0].expand(3, 6)
        expected = network.velocity(h) + (V @ torch.relu(h).unsqueeze(-1)).squeeze(-1)
        assert_close(network.perturbed(V).velocity(h), expected, **EXACT)

    @pytest.mark.parametrize(("active", "highest"), [(4, 6 / 7), (3, 0.0), (2, -6.0)])
    def test_the_ring_needs_a_low_enough_J_I(self, active, highest):
        assert ring_of_equilibria(6, active, highest - 1e-6).isfinite().all()
        with pytest.raises(ValueError, match="J_I is"):
            ring_of_equilibria(6, active, highest + 1e-6)

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: head_direction_ring(2), "N is 2"),
            (lambda: head_direction_ring(6, math.nan), "J_E is nan"),
            (lambda: optimal_excitation(3), "N is 3"),
            (lambda: ring_of_equilibria(6, 5), "active is 5"),
        ],
    )
    def test_bad_input(self, call, message):
        with pytest.raises(ValueError, match=message):
            call()
