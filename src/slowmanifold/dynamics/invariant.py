"""The slow manifold: what becomes of a normally attracting curve of equilibria when the field is perturbed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.integrate import DOP853
from scipy.interpolate import make_interp_spline
from torch import Tensor

from slowmanifold.dynamics.flow import Field, linearisation

_SHRINK = 2.0  # a transform lasts until the weakest attraction has shrunk distances from the curve by exp(2)
_STEP = 1.0  # of the integrator, in units of the fastest rate
_SETTLED = 1e-9  # the last transform moves the curve by less than this part of its distance from M_0
_ROUNDING = 1e-13  # part of the curve's length below which nothing is asked
_COLLAPSED = 1e-3  # a curve this much shorter somewhere than M_0 is none
_TRANSFORMS = 200


class NoInvariantCurve(RuntimeError):
    """No invariant curve was found near the given one; the message says what failed."""


@dataclass(frozen=True, eq=False)
class InvariantCurve:
    """An invariant curve M_eps as n points with what the field does there; leading axes are batch axes.

    Dimensionless, rates per tau. Each point lies over one of the given curve M_0, in the plane normal to it there.
    """

    closed: bool
    points: Float[Tensor, "*batch n d"]
    tangents: Float[Tensor, "*batch n d"]  # of length 1, in the sense of the points' order
    distance: Float[Tensor, "*batch n"]  # from M_0, in its normal planes
    drift: Float[Tensor, "*batch n"]  # tangential speed, positive in the sense of the tangents
    residual: Float[Tensor, "*batch n"]  # |normal component of the field|: zero on an invariant curve
    tangential_rate: Float[Tensor, "*batch n"]  # t . J t, the derivative of the drift along the curve
    normal_rate: Float[Tensor, "*batch n"]  # largest real part of J's normal block: minus the attraction

    @property
    def hausdorff(self) -> Float[Tensor, "*batch"]:
        """Hausdorff distance of M_eps from M_0: the largest of ``distance``, as long as M_eps is near."""
        return self.distance.amax(-1)

    @property
    def gap(self) -> Float[Tensor, "*batch n"]:
        """Hyperbolicity gap: how much faster the flow contracts across the curve than along it (per tau)."""
        return self.tangential_rate - self.normal_rate


def slow_manifold(field: Field, curve: Float[Tensor, "n d"], closed: bool, tol: float = 1e-3) -> InvariantCurve:
    """Follow a normally attracting curve M_0 of equilibria to the invariant curve M_eps of the perturbed field.

    ``curve`` holds n >= 8 points of M_0 in order and evenly spread: all around a closed curve (the first is not
    repeated), or from end to end of an open one. A field with batch axes, one perturbation each, maps M_0 to
    ``(..., n, d)`` and gives as many curves.

    Method: Hadamard's graph transform. M_eps is sought as a graph over M_0, one point in each of the planes normal to
    M_0 at the given points, with its tangent. The flow carries the points that arrive in these planes, and their
    tangents (DOP853; between points the distance from M_0 is interpolated by cubic Hermite polynomials); this is done
    until nothing moves. The field needs one derivative, no more. At a kink of M_eps the points beside it lose accuracy,
    the others do not.

    An open M_eps is only locally invariant. Where the drift leaves through an end, the curve there is determined by
    what is upstream. Where it enters, the curve is continued along its tangent as far as the flow comes from beyond the
    end: another choice changes M_eps by no more than exp(-attraction x time since entry), that is O(exp(-c/eps)) in the
    interior, the theorem's own freedom.

    Never returns a curve that is not invariant: ``residual`` is at most ``tol`` times the largest speed on M_0 (for
    smooth fields it is some 1e-8 of it, with points enough).

    Raises ``ValueError`` for a curve of fewer than 8 points, with values that are not finite or consecutive points
    that coincide, for a field that changes the shape of its argument, and for a tol that is not positive;
    :class:`NoInvariantCurve` if M_0 is not normally attracting or attracts less than the flow along it contracts, if
    the curve folds over, shrinks to a point or does not settle, or if what it settles to is not invariant.
    Source: Ságodi et al., Theorem 1; Fenichel (1971). Used in: fenichel, rings.
    """
    if not tol > 0:
        raise ValueError(f"tol is {tol}; allowed: positive numbers")
    base = _Base(curve, closed)
    linearised = linearisation(field)

    velocity = field(curve)
    if velocity.shape[-2:] != curve.shape:
        raise ValueError(
            f"field maps states of shape {tuple(curve.shape)} to {tuple(velocity.shape)}; "
            "allowed: the same shape, or one with batch axes in front"
        )
    x = curve.expand(velocity.shape)
    t = base.tangents.expand(velocity.shape)
    velocity, J = linearised(x)
    tangential_rate, normal_rate = _rates(J, t)
    attraction = -normal_rate.max().item()
    if not (attraction > 0 and (tangential_rate > normal_rate).all()):
        raise NoInvariantCurve(
            f"the curve is not normally attracting: along it, the weakest attraction is {attraction:.3g} and the "
            f"smallest gap to the rate along it {(tangential_rate - normal_rate).min():.3g} (per tau)"
        )
    fastest = torch.linalg.eigvals(J).abs().max().item()
    steps = max(1, round(_SHRINK * fastest / attraction / _STEP))
    time = steps * _STEP / fastest

    r = torch.arange(len(curve), dtype=x.dtype).expand(x.shape[:-1])
    for _ in range(_TRANSFORMS):
        z, w = _transport(linearised, *base.between(x, t, r), time, steps)
        stretch = (w * base.tangents).sum(-1)
        if not (stretch > _COLLAPSED * base.speed).all():
            raise NoInvariantCurve("the curve folds over or shrinks to a point: it is no graph over M_0")
        overshoot = ((z - curve) * base.tangents).sum(-1) / stretch
        r = r - overshoot
        moved = (z - overshoot.unsqueeze(-1) * w - x).norm(dim=-1)
        x, t = z - overshoot.unsqueeze(-1) * w, w / w.norm(dim=-1, keepdim=True)
        distance = (x - curve).norm(dim=-1)
        if (moved <= _SETTLED * distance.amax(-1, keepdim=True) + _ROUNDING * base.length).all():
            break
    else:
        raise NoInvariantCurve(f"the curve does not settle: the flow still moves it by {moved.max():.3g}")

    # At the given curve, which rested before it was perturbed, the field is all perturbation.
    allowed = tol * velocity.norm(dim=-1).amax(-1, keepdim=True) + _ROUNDING * base.length * fastest
    velocity, J = linearised(x)
    drift = (velocity * t).sum(-1)
    residual = (velocity - drift.unsqueeze(-1) * t).norm(dim=-1)
    if not (residual <= allowed).all():
        raise NoInvariantCurve(
            f"the curve is not invariant: across it the field reaches {residual.max():.3g}, "
            f"along it {drift.abs().max():.3g}"
        )
    tangential_rate, normal_rate = _rates(J, t)
    return InvariantCurve(closed, x, t, distance, drift, residual, tangential_rate, normal_rate)


class _Base:
    """M_0 as a quintic spline, parametrised by the number of the point, and curves as graphs over it."""

    def __init__(self, curve: Float[Tensor, "n d"], closed: bool) -> None:
        points = torch.cat([curve, curve[:1]]) if closed else curve
        steps = points.diff(dim=0).norm(dim=-1)
        if len(curve) < 8 or not curve.isfinite().all() or not (steps > 0).all():
            raise ValueError(
                f"curve has {len(curve)} points, {int((~curve.isfinite()).sum())} values that are not finite and "
                f"{int((steps == 0).sum())} points equal to the next (a closed curve does not repeat its first); "
                "allowed: 8 or more finite points, each different from the next"
            )
        self.points, self.closed = curve, closed
        self.curve = make_interp_spline(np.arange(len(points)), points, k=5, bc_type="periodic" if closed else None)
        self.slope = self.curve.derivative()
        nodes = np.arange(len(curve))
        self.velocities = torch.from_numpy(self.slope(nodes))
        self.speed = self.velocities.norm(dim=-1)
        self.length = self.speed.sum().item()
        self.tangents = self.velocities / self.speed.unsqueeze(-1)
        bend = torch.from_numpy(self.slope.derivative()(nodes))
        self.turning = (bend - (bend * self.tangents).sum(-1, keepdim=True) * self.tangents) / self.speed.unsqueeze(-1)

    def between(
        self, x: Float[Tensor, "*batch n d"], t: Float[Tensor, "*batch n d"], r: Float[Tensor, "*batch n"]
    ) -> tuple[Float[Tensor, "*batch n d"], Float[Tensor, "*batch n d"]]:
        """Point and derivative, at parameters r, of the curve with points x and unit tangents t over the nodes of M_0.

        What is interpolated (cubic Hermite) is the distance from M_0, so that the error is of the perturbation's size.
        """
        apart = x - self.points
        # (x(r) - M_0(r)) . tangent(r) = 0, differentiated: the speed of x(r) along M_0's tangent.
        pace = self.speed - (apart * self.turning).sum(-1)
        slope = t * (pace / (t * self.tangents).sum(-1)).unsqueeze(-1) - self.velocities

        n = len(self.points)
        left = r.floor().long() if self.closed else r.floor().long().clamp(0, n - 2)
        s = (r - left).unsqueeze(-1)
        inside = s.clamp(0, 1)
        p, q = _at(apart, left % n), _at(apart, (left + 1) % n)
        m, k = _at(slope, left % n), _at(slope, (left + 1) % n)
        second, third = 3 * (q - p) - 2 * m - k, m + k - 2 * (q - p)
        away = p + inside * (m + inside * (second + inside * third))
        away_slope = m + inside * (2 * second + 3 * inside * third)

        on_curve = (left % n + inside.squeeze(-1)).numpy()
        base, base_slope = torch.from_numpy(self.curve(on_curve)), torch.from_numpy(self.slope(on_curve))
        v = base_slope + away_slope
        return base + away + (s - inside) * v, v


def _at(values: Float[Tensor, "*batch n d"], place: Int[Tensor, "*batch n"]) -> Float[Tensor, "*batch n d"]:
    return values.gather(-2, place.unsqueeze(-1).expand(values.shape))


def _transport(
    linearised: Callable[[Tensor], tuple[Tensor, Tensor]],
    x: Float[Tensor, "*batch d"],
    v: Float[Tensor, "*batch d"],
    time: float,
    steps: int,
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
    """Points and tangent vectors carried along by the flow: DOP853 in equal steps."""

    def augmented(_: float, y: np.ndarray) -> np.ndarray:
        x, v = torch.from_numpy(y).view(2, *shape)
        velocity, J = linearised(x)
        return torch.stack([velocity, (J @ v.unsqueeze(-1)).squeeze(-1)]).numpy().ravel()

    shape = x.shape
    start = torch.stack([x, v]).numpy().ravel()
    h = time / steps
    # Steps that adapt would stop at each kink that any of the points meets. Equal ones lose nothing on a slow manifold,
    # where the error is not that of the fast attraction but of the slow drift.
    solver = DOP853(augmented, 0, start, time, first_step=h, max_step=h, atol=np.inf)
    while solver.status == "running":
        solver.step()
    if solver.status == "failed":
        raise NoInvariantCurve("the flow carries the curve away: it leaves the range of floating-point numbers")
    z, w = torch.from_numpy(solver.y).view(2, *shape)
    return z, w


def _rates(
    J: Float[Tensor, "*batch n d d"], t: Float[Tensor, "*batch n d"]
) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
    """Growth rates along and across unit tangents t: t . J t, and the largest real part of J's normal block."""
    frame = torch.linalg.qr(t.unsqueeze(-1), mode="complete").Q
    block = frame.mT @ J @ frame
    return block[..., 0, 0], torch.linalg.eigvals(block[..., 1:, 1:]).real.amax(-1)
