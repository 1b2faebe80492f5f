"""The planar ring attractor."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from slowmanifold.dynamics.flow import jacobian_of
from slowmanifold.networks.ring import PlanarRing

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
    assert_close(ring.jacobian(x), jacobian_of(ring.velocity)(x), **EXACT)


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
