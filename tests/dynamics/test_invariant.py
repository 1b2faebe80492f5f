"""Slow manifolds against closed forms, first-order theory, invariances, and the flow itself."""

import math

import pytest
import torch
from torch.testing import assert_close

from slowmanifold.dynamics.fixed_points import find_fixed_points
from slowmanifold.dynamics.flow import flow
from slowmanifold.dynamics.invariant import NoInvariantCurve, slow_manifold
from slowmanifold.dynamics.perturbation import bump, linear, perturbed, random_matrix
from slowmanifold.networks.line import bounded_line_attractor, identity_rnn
from slowmanifold.networks.ring import PlanarRing

ring = PlanarRing()


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def circle(n: int = 128) -> torch.Tensor:
    angle = torch.arange(n, dtype=torch.float64) * math.tau / n
    return torch.stack([angle.cos(), angle.sin()], -1)


def segment(n: int = 100, start=(0.0, 1.0), end=(1.0, 0.0)) -> torch.Tensor:
    s = torch.linspace(0, 1, n, dtype=torch.float64)[:, None]
    return (1 - s) * tensor(start) + s * tensor(end)


def full(value: float, *shape: int) -> torch.Tensor:
    return torch.full(shape, value, dtype=torch.float64)


def matrices(n: int, seed: int = 0) -> torch.Tensor:
    """Directions of perturbation, shaped to act on the points of a curve."""
    return random_matrix(2, torch.Generator().manual_seed(seed), (n, 1))


def off_polar_curve(curve: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Difference in radius of points x from a curve r(theta), known at even angles from 0 on: trigonometric sums."""
    wave = torch.fft.rfft(curve.norm(dim=-1))
    k = torch.arange(len(wave), dtype=torch.float64)
    weights = (2 - ((k == 0) | (k == len(curve) / 2)).to(k)) / len(curve)
    series = (wave * torch.exp(1j * k * torch.atan2(x[:, 1], x[:, 0])[:, None])).real
    return (x.norm(dim=-1) - series @ weights).abs()


def ring_theory(V: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """On the ring: max |eig sym V|, and theta' = eps (A + B cos(2 theta - phi)) whatever r."""
    a, b, c, d = V.flatten(-2).unbind(-1)
    return (
        torch.linalg.eigvalsh((V + V.mT) / 2).abs().amax(-1),
        (c - b) / 2,
        torch.hypot((b + c) / 2, (d - a) / 2),
    )


class TestClosedForms:
    @pytest.mark.parametrize(
        ("closed", "field", "curve"),
        [
            (True, ring.velocity, circle()),
            (False, bounded_line_attractor(activation="celu").velocity, segment()),
        ],
    )
    def test_without_perturbation_nothing_moves(self, closed, field, curve):
        found = slow_manifold(field, curve, closed)
        assert_close(found.points, curve, rtol=0, atol=1e-12)
        for size in (found.distance, found.drift, found.residual):
            assert size.abs().max() < 1e-12

    def test_inflated_ring(self):
        """(1 - r) x + eps x: the circle of radius 1 + eps, at rest."""
        eps = tensor([[-0.3], [0.1], [0.5]])
        found = slow_manifold(perturbed(ring.velocity, eps, lambda x: x), circle(), closed=True)
        assert_close(found.points, (1 + eps)[..., None] * circle(), rtol=0, atol=1e-9)
        assert_close(found.hausdorff, eps[:, 0].abs(), rtol=0, atol=1e-9)
        assert_close(found.normal_rate, -(1 + eps).expand(3, 128), rtol=0, atol=1e-8)
        assert_close(found.tangential_rate, full(0, 3, 128), rtol=0, atol=1e-8)

    @pytest.mark.parametrize("push", [0.1, 0.24])
    def test_pushed_ring(self, push):
        """(1 - r) x + push e_1 has fixed points on the axis; those at the back meet, and the circle ends, at 1/4."""
        found = slow_manifold(lambda x: ring.velocity(x) + tensor([push, 0]), circle(), closed=True)
        front, back = 0.5 + math.sqrt(0.25 + push), 0.5 + math.sqrt(0.25 - push)
        assert_close(found.points[[0, 64]], tensor([[front, 0], [-back, 0]]), rtol=0, atol=1e-7)
        assert_close(found.hausdorff, tensor(1 - back), rtol=0, atol=1e-7)
        assert_close(found.normal_rate[[0, 64]], tensor([1 - 2 * front, 1 - 2 * back]), rtol=0, atol=1e-6)
        assert_close(found.tangential_rate[[0, 64]], tensor([1 - front, 1 - back]), rtol=0, atol=1e-6)

    def test_turning_ring(self):
        turn = tensor([[0, -1], [1, 0]])
        found = slow_manifold(perturbed(ring.velocity, 0.2, linear(turn)), circle(), closed=True)
        assert_close(found.points, circle(), rtol=0, atol=1e-8)
        assert_close(found.drift, full(0.2, 128), rtol=0, atol=1e-8)
        assert_close(found.tangents, circle() @ turn.T, rtol=0, atol=1e-8)

    def test_drift_that_contracts_and_enters_at_both_ends(self):
        """y' = -eps (y - 1/2), z' = -z + eps y: the line z = eps/(1 - eps) (y - eps/2)."""
        eps = 0.2

        def field(x):
            y, z = x.unbind(-1)
            return torch.stack([-eps * (y - 0.5), -z + eps * y], -1)

        found = slow_manifold(field, segment(start=(0.0, 0.0), end=(1.0, 0.0)), closed=False)
        y = found.points[:, 0]
        assert_close(found.points[:, 1], eps / (1 - eps) * (y - eps / 2), rtol=0, atol=1e-10)
        assert_close(found.tangential_rate, full(-eps, 100), rtol=0, atol=1e-10)
        assert_close(found.normal_rate, full(-1.0, 100), rtol=0, atol=1e-10)

    def test_drift_through_the_segment_forgets_how_it_entered(self):
        """y' = eps, z' = -z + eps sin 4y; at a distance s from the entry what is left of a choice is exp(-s/eps)."""
        eps = 0.02

        def field(x):
            y, z = x.unbind(-1)
            return torch.stack([eps + 0 * y, -z + eps * torch.sin(4 * y)], -1)

        y = torch.linspace(0, 1, 200, dtype=torch.float64)
        exact = eps * (torch.sin(4 * y) - 4 * eps * torch.cos(4 * y)) / (1 + 16 * eps**2)
        found = slow_manifold(field, torch.stack([y, 0 * y], -1), closed=False)
        error = (found.points[:, 1] - exact).abs()
        assert error.max() < 2 * eps**3 * 16
        assert (error <= 2 * error[0] * torch.exp(-y / eps) + 1e-10).all()


class TestFirstOrder:
    eps = torch.logspace(-4, -2, 3, dtype=torch.float64)

    def slopes(self, values):
        return values.log().diff(dim=0) / self.eps.log().diff().view(-1, *[1] * (values.ndim - 1))

    def test_ring(self):
        V = matrices(6)
        field = perturbed(ring.velocity, self.eps[:, None, None], linear(V))
        found = slow_manifold(field, circle(400), closed=True)
        radius, A, B = (value[:, 0] for value in ring_theory(V))
        eps = self.eps[:, None]
        drift = found.drift.abs().amax(-1)
        for measured, limit in ((found.hausdorff, radius), (drift, A.abs() + B)):
            # The largest value falls between points: 1 - cos of half a spacing, at twice the angle.
            assert ((measured / eps / limit - 1).abs() < 2 * eps + (math.tau / 400) ** 2).all()
            assert_close(self.slopes(measured), full(1, 2, 6), rtol=0, atol=1e-2)
        assert_close(found.gap, torch.ones_like(found.gap), rtol=0, atol=0.05)

    def test_bounded_line_attractor(self):
        """Across the segment the attraction is 2: distance/eps -> max |n.Vx|/2, drift/eps -> max |t.Vx|."""
        V = matrices(6)
        network = bounded_line_attractor(activation="celu").perturbed(self.eps[:, None, None, None, None] * V)
        found = slow_manifold(network.velocity, segment(), closed=False)
        g = linear(V)(segment())
        normal, along = tensor([1, 1]) / math.sqrt(2), tensor([1, -1]) / math.sqrt(2)
        eps = self.eps[:, None]
        for measured, limit in (
            (found.hausdorff, (g @ normal / 2).abs().amax(-1)),
            (found.drift.abs().amax(-1), (g @ along).abs().amax(-1)),
        ):
            assert ((measured / eps / limit - 1).abs() < 2 * eps).all()
            assert_close(self.slopes(measured), full(1, 2, 6), rtol=0, atol=1e-2)
        assert_close(found.gap, torch.full_like(found.gap, 2.0), rtol=0, atol=0.05)


class TestInvariance:
    """The flow is the judge: nothing here knows how the curve was found."""

    V = tensor([[0.5, 0.3], [0.1, -0.5]])
    fields = pytest.mark.parametrize(
        "field",
        [
            perturbed(ring.velocity, 0.2, linear(V)),
            perturbed(ring.velocity, 1.0, bump(tensor([1, 0]), 0.7, tensor([1, 0.5]), 0.3)),
        ],
    )

    @fields
    def test_attracts_what_is_near_and_keeps_what_is_on_it(self, field):
        found = slow_manifold(field, circle(256), closed=True)
        assert found.residual.max() < 1e-6 * found.drift.abs().max()
        assert (found.gap > 0).all()
        times = tensor([0, 2, 30])
        stay = flow(field, found.points[::20], times, rtol=1e-11, atol=1e-13)
        assert max(off_polar_curve(found.points, x).max() for x in stay) < 1e-6
        fall = flow(field, 1.2 * found.points[::20], times, rtol=1e-11, atol=1e-13)
        assert off_polar_curve(found.points, fall[0]).min() > 0.1
        assert off_polar_curve(found.points, fall[2]).max() < 1e-6

    def test_period_of_the_limit_cycle(self):
        """2 pi / (eps sqrt(A^2 - B^2)), exact at any eps: the angle does not care for the radius."""
        V, eps = tensor([[0.3, -0.7], [0.4, 0.1]]), 0.2
        field = perturbed(ring.velocity, eps, linear(V))
        found = slow_manifold(field, circle(400), closed=True)
        _, A, B = ring_theory(V)
        period = math.tau / (eps * torch.sqrt(A**2 - B**2))
        back = flow(field, found.points[::50], torch.stack([0 * period, period]), rtol=1e-12, atol=1e-14)[-1]
        assert_close(back, found.points[::50], rtol=0, atol=1e-7)
        assert (found.drift > 0).all()

    def test_fixed_points_lie_on_it_with_its_rates(self):
        field = perturbed(ring.velocity, 0.1, linear(self.V))
        found = slow_manifold(field, circle(400), closed=True)
        points = find_fixed_points(field, found.points)
        assert len(points.points) == 4
        for x, eigenvalues in zip(points.points, points.eigenvalues.real, strict=True):
            nearest = (found.points - x).norm(dim=-1).argmin()
            apart = x - found.points[nearest]
            across = apart - (apart @ found.tangents[nearest]) * found.tangents[nearest]
            assert across.norm() < 2 * apart.norm() ** 2
            rates = torch.stack([found.normal_rate[nearest], found.tangential_rate[nearest]])
            assert_close(rates, eigenvalues.sort().values, rtol=0, atol=0.01)

    def test_drift_vanishes_outside_a_bump_and_the_circle_stays(self):
        centre, size = tensor([1, 0]), 0.3
        field = perturbed(ring.velocity, 1.0, bump(centre, size, tensor([0, 1]), 0.2))
        found = slow_manifold(field, circle(400), closed=True)
        touched = (circle(400) - centre).norm(dim=-1) < size
        assert found.drift[touched].max() > 0.05
        assert found.drift[~touched].abs().max() < 1e-9
        # Downstream of the bump the curve may keep what the flow carries there; upstream it cannot.
        upstream = ~touched & (circle(400)[:, 1] < 0)
        assert found.distance[upstream].max() < 1e-9

    def test_error_is_of_fourth_order_in_the_spacing(self):
        field = perturbed(ring.velocity, 0.2, linear(self.V))
        exact, *coarse = (slow_manifold(field, circle(n), closed=True).points for n in (256, 32, 64, 128))
        errors = torch.stack([off_polar_curve(exact, points).mean() for points in coarse])
        assert_close((errors[:-1] / errors[1:]).log2(), full(4, 2), rtol=0, atol=0.3)


class TestSymmetries:
    V = tensor([[0.5, 0.3], [0.1, -0.5]])

    @pytest.mark.parametrize("d", [3, 6])
    def test_turned_and_put_into_more_dimensions(self, d):
        """The ring in a plane of R^d, all else decaying (faster: other steps): the same curve, turned."""
        generator = torch.Generator().manual_seed(d)
        Q = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
        plane = perturbed(ring.velocity, 0.1, linear(self.V))

        def field(x):
            y = x @ Q
            return torch.cat([plane(y[..., :2]), -3 * y[..., 2:]], -1) @ Q.T

        flat = slow_manifold(plane, circle(), closed=True)
        found = slow_manifold(field, circle() @ Q[:, :2].T, closed=True)
        assert_close(found.points, flat.points @ Q[:, :2].T, rtol=0, atol=1e-8)
        for name in ("distance", "drift", "normal_rate", "tangential_rate"):
            assert_close(getattr(found, name), getattr(flat, name), rtol=0, atol=1e-7)

    def test_a_curve_that_bends_out_of_its_plane(self):
        """Lift the plane to the surface z = x^2/2, to which all else decays: the same curve, lifted."""
        plane = perturbed(ring.velocity, 0.1, linear(self.V))

        def lifted(y):
            return torch.cat([y, y[..., :1] ** 2 / 2], -1)

        def field(x):
            v, above = plane(x[..., :2]), x[..., 2:] - x[..., :1] ** 2 / 2
            return torch.cat([v, x[..., :1] * v[..., :1] - 2 * above], -1)

        found = slow_manifold(field, lifted(circle()), closed=True)
        assert_close(found.points, lifted(found.points[:, :2]), rtol=0, atol=1e-8)
        assert found.residual.max() < 1e-6 * found.drift.abs().max()
        # The same radius at the same angle, both by trigonometric interpolation.
        flat = slow_manifold(plane, circle(), closed=True)
        assert off_polar_curve(flat.points, found.points[:, :2]).max() < 1e-7

    @pytest.mark.parametrize("closed", [True, False])
    def test_the_sense_of_the_curve_does_not_matter(self, closed):
        if closed:
            field, curve = perturbed(ring.velocity, 0.1, linear(self.V)), circle()
        else:
            field, curve = (
                bounded_line_attractor(activation="celu").perturbed(0.05 * self.V).velocity,
                segment(),
            )
        there, back = slow_manifold(field, curve, closed), slow_manifold(field, curve.flip(0), closed)
        assert_close(back.points.flip(0), there.points, rtol=0, atol=1e-9)
        assert_close(-back.drift.flip(0), there.drift, rtol=0, atol=1e-9)
        assert_close(-back.tangents.flip(0), there.tangents, rtol=0, atol=1e-6)

    def test_many_perturbations_at_once(self):
        V = matrices(3, seed=4)
        together = slow_manifold(perturbed(ring.velocity, 0.1, linear(V)), circle(), closed=True)
        assert together.points.shape == (3, 128, 2)
        assert together.hausdorff.shape == (3,)
        for i in range(3):
            alone = slow_manifold(perturbed(ring.velocity, 0.1, linear(V[i, 0])), circle(), closed=True)
            assert_close(together.points[i], alone.points, rtol=0, atol=1e-8)
            assert_close(together.drift[i], alone.drift, rtol=0, atol=1e-8)


class TestNoCurve:
    @pytest.mark.parametrize(
        ("field", "curve", "closed", "message"),
        [
            (
                identity_rnn().velocity,
                segment(start=(0.1, 1.0), end=(1.0, 0.1)),
                False,
                "not normally attracting",
            ),
            (lambda x: -ring.velocity(x), circle(), True, "not normally attracting"),
            (lambda x: ring.velocity(x) - 1.5 * x, circle(), True, "folds over or shrinks"),
            (lambda x: ring.velocity(x) + tensor([0.26, 0]), circle(), True, "folds over"),
        ],
    )
    def test_says_so(self, field, curve, closed, message):
        with pytest.raises(NoInvariantCurve, match=message):
            slow_manifold(field, curve, closed)

    def test_residual_is_checked(self):
        """With a ReLU the curve has corners at fixed points, where a tangent cannot be had."""
        network = bounded_line_attractor().perturbed(tensor([[0.002, -0.003], [0.004, 0.003]]))
        with pytest.raises(NoInvariantCurve, match="the curve is not invariant: across it"):
            slow_manifold(network.velocity, segment(), closed=False, tol=1e-6)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"curve": circle(7)}, "curve has 7 points"),
            (
                {"curve": torch.cat([circle(), circle()[:1]])},
                "1 points equal to the next .* does not repeat its first",
            ),
            ({"curve": circle() * tensor([math.nan, 1])}, "128 values that are not finite"),
            ({"tol": 0.0}, "tol is 0.0; allowed: positive"),
            ({"field": lambda x: x[:1]}, r"field maps states of shape \(128, 2\) to \(1, 2\)"),
        ],
    )
    def test_bad_input(self, unchecked, change, message):
        with pytest.raises(ValueError, match=message):
            slow_manifold(**({"field": ring.velocity, "curve": circle(), "closed": True} | change))
