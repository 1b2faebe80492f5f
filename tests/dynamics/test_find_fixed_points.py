"""Newton from many starts: all of what is there, nothing of what is not."""

import math

import pytest
import torch
from torch.testing import assert_close

from slowmanifold.dynamics.fixed_points import FixedPoints, Stability, find_fixed_points, relu_fixed_points
from slowmanifold.dynamics.perturbation import linear, perturbed, random_matrix
from slowmanifold.networks.line import bounded_line_attractor
from slowmanifold.networks.ring import PlanarRing

ring = PlanarRing()


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_order(points: torch.Tensor) -> torch.Tensor:
    return points[(points @ normal(points.shape[-1], seed=99)).argsort()]


class TestKnownFixedPoints:
    @pytest.mark.parametrize("eps", [1e-1, 1e-2, 1e-4])
    def test_perturbed_ring_rests_at_the_eigenvectors(self, eps):
        """(1 - r) x + eps V x = 0 iff V x = mu x with r = 1 + eps mu; the origin besides."""
        generator = torch.Generator().manual_seed(1)
        angle = torch.arange(300, dtype=torch.float64) * math.tau / 300
        starts = torch.cat([torch.stack([angle.cos(), angle.sin()], -1), tensor([[0.01, 0.01]])])
        counts = set()
        for _ in range(4):
            V = random_matrix(2, generator)
            mu, vectors = torch.linalg.eig(V)
            expected = [tensor([[0, 0]])]
            if mu.imag.abs().max() == 0:
                x = vectors.real.T / vectors.real.T.norm(dim=-1, keepdim=True) * (1 + eps * mu.real)[:, None]
                expected += [x, -x]
            expected = torch.cat(expected)
            found = find_fixed_points(perturbed(ring.velocity, eps, linear(V)), starts)
            assert len(found.points) == len(expected)
            assert_close(in_order(found.points), in_order(expected), rtol=0, atol=1e-8)
            assert found.index.sum() == 1
            counts.add(len(expected))
        assert counts == {1, 5}

    def test_lorenz(self):
        sigma, rho, beta = 10, 28, 8 / 3

        def field(s):
            x, y, z = s.unbind(-1)
            return torch.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z], -1)

        found = find_fixed_points(field, 20 * normal(50, 3))
        c = math.sqrt(beta * (rho - 1))
        expected = tensor([[0, 0, 0], [c, c, rho - 1], [-c, -c, rho - 1]])
        assert_close(in_order(found.points), in_order(expected), rtol=0, atol=1e-10)
        origin = found.points.norm(dim=-1).argmin()
        rates = found.eigenvalues[origin].real.sort().values
        root = math.sqrt((sigma + 1) ** 2 + 4 * sigma * (rho - 1))
        assert_close(rates, tensor([-(sigma + 1) / 2 - root / 2, -beta, -(sigma + 1) / 2 + root / 2]))
        assert (found.kind == Stability.SADDLE).all()

    def test_agrees_with_the_exact_solver_inside_its_regions(self):
        network = bounded_line_attractor().perturbed(tensor([[0.3, -0.2], [-0.1, 0.2]]))
        exact = relu_fixed_points(network.W, network.b)
        starts = torch.cartesian_prod(*[torch.linspace(-0.5, 2, 12, dtype=torch.float64)] * 2)
        found = find_fixed_points(network.velocity, starts)
        assert_close(in_order(found.points), in_order(exact.points[exact.exists]), rtol=0, atol=1e-10)

    def test_fixed_point_of_smooth_bounded_line_attractor_lies_beyond_the_end(self):
        """The perturbed corner: outside M_0 by the order of the square root of eps."""
        eps = torch.logspace(-8, -4, 5, dtype=torch.float64)
        beyond = []
        for size in eps.tolist():
            V = tensor([[0.5, 0.1], [0.1, -0.3]])
            network = bounded_line_attractor(activation="celu").perturbed(size * V)
            found = find_fixed_points(network.velocity, tensor([[1, 0], [1.05, -0.05], [1.2, -0.2]]))
            stable = found.points[found.kind == Stability.STABLE]
            assert len(stable) == 1
            beyond.append(-stable[0, 1])
        slope = torch.stack(beyond).log().diff() / eps.log().diff()
        assert_close(slope, torch.full_like(slope, 0.5), rtol=0, atol=0.01)

    def test_starts_from_where_full_newton_steps_run_away(self):
        """Newton's iteration for arctan diverges from |x| > 1.3917 on."""
        for start in (-8.0, -1.5, 1.5, 3.0, 20.0):
            assert_close(find_fixed_points(torch.atan, tensor([[start]])).points, tensor([[0.0]]), rtol=0, atol=1e-12)

    def test_starts_at_a_fixed_point(self):
        assert_close(find_fixed_points(torch.sin, tensor([[0.0]])).points, tensor([[0.0]]))


class TestNothingFalse:
    @pytest.mark.parametrize("gap", [1.0, 1e-3, 1e-6, 1e-9])
    def test_near_misses_are_not_fixed_points(self, gap):
        found = find_fixed_points(lambda x: x**2 + gap, torch.linspace(-2, 2, 40, dtype=torch.float64)[:, None])
        assert found.points.shape == (0, 1)

    def test_fixed_points_at_infinity_are_not(self):
        assert len(find_fixed_points(lambda x: torch.exp(-x), normal(40, 1)).points) == 0

    @pytest.mark.parametrize("iterations", [1, 2, 3, 5, 50])
    def test_stopped_early_returns_less_but_nothing_unconverged(self, iterations):
        field = perturbed(ring.velocity, 0.05, linear(tensor([[0.5, 0.3], [0.1, -0.5]])))
        found = find_fixed_points(field, normal(50, 2), max_iterations=iterations)
        assert (field(found.points).norm(dim=-1) <= 1e-12).all()
        assert (len(found.points) == 5) == (iterations == 50)

    def test_starts_where_the_field_is_not_defined_are_left_out(self):
        found = find_fixed_points(lambda x: torch.log(x), tensor([[-1.0], [0.5], [2.0]]))
        assert_close(found.points, tensor([[1.0]]))

    def test_each_once(self):
        starts = normal(300, 1)
        found = find_fixed_points(lambda x: x - x**3, starts)
        assert_close(found.points.sort(dim=0).values, tensor([[-1.0], [0.0], [1.0]]))
        first = find_fixed_points(lambda x: x - x**3, starts[:1])
        assert_close(found.points[:1], first.points)

    def test_double_zero(self):
        found = find_fixed_points(lambda x: x**2, tensor([[0.3], [-1.0], [2.0]]))
        assert_close(found.points, tensor([[0.0]]), rtol=0, atol=1e-6)

    def test_continuum_gives_nonhyperbolic_points_on_it(self):
        starts = normal(60, 2)
        found = find_fixed_points(ring.velocity, starts)
        away = found.points.norm(dim=-1) > 0.5
        assert_close(found.points[away].norm(dim=-1), torch.ones(away.sum()).double(), rtol=0, atol=1e-12)
        assert away.sum() > 20
        assert (found.kind[away] == Stability.NONHYPERBOLIC).all()
        assert (found.index[away] == 0).all()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"starts": tensor([[math.nan]])}, "starts has 1 values that are not finite"),
            ({"tol": 0.0}, "tol is 0.0; allowed: positive"),
            ({"max_iterations": 0}, "max_iterations is 0; allowed: positive"),
        ],
    )
    def test_bad_input(self, change, message):
        with pytest.raises(ValueError, match=message):
            find_fixed_points(**({"field": torch.sin, "starts": tensor([[0.1]])} | change))


class TestKinds:
    @pytest.mark.parametrize(
        ("J", "kind", "index"),
        [
            ([[-1, 0], [0, -2]], Stability.STABLE, 1),
            ([[-1, 5], [-5, -1]], Stability.STABLE, 1),
            ([[1, 5], [-5, 1]], Stability.UNSTABLE, 1),
            ([[-1, 0], [0, 2]], Stability.SADDLE, -1),
            ([[0, 1], [-1, 0]], Stability.NONHYPERBOLIC, 1),
            ([[0, 0], [0, -1]], Stability.NONHYPERBOLIC, 0),
            ([[0, 0], [0, 0]], Stability.NONHYPERBOLIC, 0),
            ([[math.nan, 0], [0, 1]], Stability.NONE, 0),
        ],
    )
    def test_kind_and_index_of_a_planar_point(self, J, kind, index):
        point = FixedPoints(points=torch.zeros(1, 2).double(), jacobians=tensor([J]))
        assert point.kind.tolist() == [kind]
        assert point.index.tolist() == [index]

    def test_three_dimensions(self):
        diagonal = tensor([[-1, -1, -1], [-1, -1, 1], [-1, 1, 1], [1, 1, 1]])
        points = FixedPoints(points=torch.zeros(4, 3).double(), jacobians=torch.diag_embed(diagonal))
        expected = [Stability.STABLE, Stability.SADDLE, Stability.SADDLE, Stability.UNSTABLE]
        assert points.kind.tolist() == expected
        assert points.index.tolist() == [-1, 1, -1, 1]
