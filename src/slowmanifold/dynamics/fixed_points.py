"""Fixed points and their stability: exactly all of a threshold-linear network's; by Newton those of a smooth field."""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int
from scipy.optimize import linprog
from torch import Tensor

from slowmanifold.dynamics.flow import Field, linearisation

_ON_THE_AXIS = 1e-9  # a real part this small against the largest eigenvalue counts as zero
_ROUNDING = 16 * torch.finfo(torch.float64).eps  # relative error of a few operations
_SINGULAR = 1e13  # ratio of the pivots from which on a linear system counts as singular


class Stability(IntEnum):
    """What the linearisation says of a fixed point of a flow."""

    NONE = 0  # there is no fixed point here
    STABLE = 1  # all eigenvalues in the open left half-plane
    SADDLE = 2  # some left, some right, none on the imaginary axis
    UNSTABLE = 3  # all right
    NONHYPERBOLIC = 4  # an eigenvalue on the imaginary axis: the linearisation does not decide
    BORDER = 5  # a unit is exactly at its threshold: there is no one linearisation


@dataclass(frozen=True, eq=False)
class FixedPoints:
    """Fixed points of a flow with the derivative of the field there; leading axes are batch axes, n counts points.

    A Jacobian of NaN stands for "no fixed point here": eigenvalues NaN, kind ``Stability.NONE``, index 0.
    """

    points: Float[Tensor, "*batch n d"]
    jacobians: Float[Tensor, "*batch n d d"]

    @cached_property
    def eigenvalues(self) -> Complex[Tensor, "*batch n d"]:
        """Eigenvalues of the Jacobians (per tau), in no particular order."""
        found = ~self.jacobians[..., 0, 0].isnan()
        eigenvalues = torch.full(self.points.shape, torch.nan, dtype=torch.complex128)
        eigenvalues[found] = torch.linalg.eigvals(self.jacobians[found])
        return eigenvalues

    @cached_property
    def kind(self) -> Int[Tensor, "*batch n"]:
        """One of :class:`Stability` for each point; say ``points[kind == Stability.SADDLE]``."""
        rate = self.eigenvalues.real
        zero = _ON_THE_AXIS * self.eigenvalues.abs().amax(-1, keepdim=True)
        left, right = (rate < -zero).all(-1), (rate > zero).all(-1)
        kind = torch.full(left.shape, Stability.SADDLE, dtype=torch.int8)
        kind[(rate.abs() <= zero).any(-1)] = Stability.NONHYPERBOLIC
        kind[left] = Stability.STABLE
        kind[right] = Stability.UNSTABLE
        kind[rate.isnan().any(-1)] = Stability.NONE
        return kind

    @cached_property
    def index(self) -> Int[Tensor, "*batch n"]:
        """Poincaré index, the sign of det J: in the plane +1 for nodes and foci, -1 for saddles; 0 if undecided."""
        size = self.eigenvalues.abs()
        decided = (size > _ON_THE_AXIS * size.amax(-1, keepdim=True)).all(-1)
        sign = (self.eigenvalues / size).prod(-1).real.round()
        return torch.where(decided, sign, 0).to(torch.int8)


@dataclass(frozen=True, eq=False)
class ReluFixedPoints(FixedPoints):
    """The 2^d candidates of a threshold-linear network, one for each set of active units (n = 2^d).

    ``points`` holds the solution of each support's linear system also where it is not a fixed point of the network
    (a virtual one: its linear flow is felt in the support's region all the same), and NaN where the system is singular.
    """

    supports: Bool[Tensor, "n d"]  # the active units of each candidate
    exists: Bool[Tensor, "*batch n"]  # isolated candidates that are fixed points of the network
    border: Bool[Tensor, "*batch n"]  # those of them with a silent unit exactly at its threshold
    degenerate: Bool[Tensor, "*batch n"]  # supports with a singular linear system: a continuum, or nothing
    continuum: Bool[Tensor, "*batch n"]  # those of them that do hold a continuum of fixed points

    @cached_property
    def kind(self) -> Int[Tensor, "*batch n"]:
        """One of :class:`Stability` for each candidate, ``BORDER`` where the field has no derivative."""
        return super().kind.masked_fill(self.border, Stability.BORDER)

    @cached_property
    def index(self) -> Int[Tensor, "*batch n"]:
        """Poincaré index, the sign of det J; 0 where there is no fixed point, no derivative, or det J = 0."""
        return super().index.masked_fill(self.border, 0)


def relu_fixed_points(
    W: Float[Tensor, "*#batch d d"], b: Float[Tensor, "*#batch d"], form: str = "rate"
) -> ReluFixedPoints:
    """All fixed points of a threshold-linear network, exactly: one batched linear solve over all 2^d supports.

        form="rate":            x' = -x + relu(W x + b)
        form="preactivation":   h' = -h + W relu(h) + b         (h may be negative)

    At a fixed point with the set S of active units, x_S = W_SS x_S + b_S and the others are silent. The candidate of S
    is a fixed point iff each unit of S is driven above threshold and no other one is. The two forms have the same fixed
    points, h = W x + b and x = relu(h), with the same eigenvalues; ``points`` holds x or h. ``W`` and ``b`` may carry
    batch axes, which broadcast and come before the axis of the supports in the result.

    At the border: a unit at threshold, to the rounding error of the solve, counts as silent. So a point on a corner is
    found once, for its smallest support, flagged ``border`` and of kind ``Stability.BORDER``; its ``jacobians`` are
    those of the silent side. The ends of an unperturbed bounded line attractor are such points.

    Raises ``ValueError`` for shapes that do not fit, values that are not finite, or an unknown form.
    Source: Ságodi et al., Secs 1, 3.4. Used in: Fenichel theory.
    """
    d = b.shape[-1]
    if W.ndim < 2 or W.shape[-2:] != (d, d):
        raise ValueError(f"W has shape {tuple(W.shape)} and b {tuple(b.shape)}; allowed: (..., d, d) and (..., d)")
    for name, values in (("W", W), ("b", b)):
        if not values.isfinite().all():
            raise ValueError(f"{name} has {int((~values.isfinite()).sum())} values that are not finite")
    if form not in ("rate", "preactivation"):
        raise ValueError(f"form is {form!r}; allowed: 'rate', 'preactivation'")

    identity = torch.eye(d, dtype=W.dtype)
    supports = torch.cartesian_prod(*[torch.tensor([False, True])] * d).view(-1, d)
    batch = torch.broadcast_shapes(W.shape[:-2], b.shape[:-1])
    W, b = W.expand(*batch, d, d), b.expand(*batch, d)
    A = identity - supports.unsqueeze(-1) * W.unsqueeze(-3)
    factors, pivots, _ = torch.linalg.lu_factor_ex(A)
    x = torch.linalg.lu_solve(factors, pivots, (supports * b.unsqueeze(-2)).unsqueeze(-1)).squeeze(-1)
    h = x @ W.mT + b.unsqueeze(-2)

    diagonal = factors.diagonal(dim1=-2, dim2=-1).abs()
    condition = (diagonal.amax(-1) / diagonal.amin(-1)).unsqueeze(-1)
    degenerate = ~(condition < _SINGULAR).squeeze(-1)  # not >=: an exactly singular system may give 0/0
    largest = x.abs().amax(-1, keepdim=True)
    x_error = _ROUNDING * condition * largest
    weight, bias = W.abs().sum(-1).unsqueeze(-2), b.abs().unsqueeze(-2)
    h_error = weight * (x_error + _ROUNDING * largest) + _ROUNDING * bias
    exists = torch.where(supports, x > x_error, h <= h_error).all(-1) & ~degenerate
    border = exists & (~supports & (h.abs() <= h_error)).any(-1)

    jacobians = torch.full_like(A, torch.nan)
    if form == "rate":
        jacobians[exists] = -A[exists]
    else:
        jacobians[exists] = (W.unsqueeze(-3) * supports.unsqueeze(-2))[exists] - identity
    points = x if form == "rate" else h
    return ReluFixedPoints(
        points=points.masked_fill(degenerate.unsqueeze(-1), torch.nan),
        jacobians=jacobians,
        supports=supports,
        exists=exists,
        border=border,
        degenerate=degenerate,
        continuum=_continua(W, b, supports, degenerate),
    )


def _continua(
    W: Float[Tensor, "*batch d d"],
    b: Float[Tensor, "*batch d"],
    supports: Bool[Tensor, "n d"],
    degenerate: Bool[Tensor, "*batch n"],
) -> Bool[Tensor, "*batch n"]:
    """Which of the singular supports hold fixed points: those whose affine set of solutions meets their region.

    A linear program for each: maximise the smallest activity t of the active units, the silent ones being silent. Its
    feasibility is decided to 1e-7 of the largest bias.
    """
    continuum = torch.zeros_like(degenerate)
    d = b.shape[-1]
    for *place, support in degenerate.nonzero().tolist():
        active = supports[support].numpy()
        w, drive = W[tuple(place)].numpy(), b[tuple(place)].numpy()
        drive = drive / (np.abs(drive).max() or 1)
        on, off = active.sum(), d - active.sum()
        program = linprog(
            c=np.r_[np.zeros(d), -1],
            A_eq=np.c_[np.eye(d) - active[:, None] * w, np.zeros(d)],
            b_eq=active * drive,
            A_ub=np.r_[np.c_[-np.eye(d)[active], np.ones(on)], np.c_[w[~active], np.zeros(off)]],
            b_ub=np.r_[np.zeros(on), -drive[~active]],
            bounds=[*[(None, None)] * d, (None, 1)],
        )
        continuum[(*place, support)] = bool(program.success and -program.fun > 1e-6)
    return continuum


def find_fixed_points(
    field: Field, starts: Float[Tensor, "m d"], tol: float = 1e-12, max_iterations: int = 100
) -> FixedPoints:
    """Fixed points of a smooth field, by damped Newton iteration from many starts at once.

    Steps are shortened until they pass Deuflhard's natural monotonicity test, which is blind to how slow the field is
    in one direction and fast in another; singular derivatives are met with the pseudo-inverse. Returned are the starts
    that converged, |field| <= tol and a last step below sqrt(tol) (1 + |x|), duplicates merged, in the order of
    the starts; never one that has not converged, and perhaps none. Whether all fixed points are found depends on the
    starts: along a slow manifold the steps are short, start from its own points. On a continuum each start gives a
    point of its own, of kind ``Stability.NONHYPERBOLIC``.

    Raises ``ValueError`` for starts that are not finite, or tol or max_iterations that are not positive.
    Source: Deuflhard, Newton Methods for Nonlinear Problems (2011), Sec. 3.3. Used in: Fenichel theory.
    """
    if not starts.isfinite().all():
        raise ValueError(f"starts has {int((~starts.isfinite()).sum())} values that are not finite")
    for name, value in (("tol", tol), ("max_iterations", max_iterations)):
        if not value > 0:
            raise ValueError(f"{name} is {value}; allowed: positive numbers")

    linearised = linearisation(field)
    x = starts[field(starts).isfinite().all(-1)]
    damping = torch.ones_like(x[:, :1])
    converged = torch.zeros(len(x), dtype=torch.bool)
    for _ in range(max_iterations):
        at = (~converged).nonzero().squeeze(-1)
        if len(at) == 0:
            break
        here = x[at]
        velocity, J = linearised(here)
        inverse = torch.linalg.pinv(J, rtol=1e-13)
        step = -(inverse @ velocity.unsqueeze(-1)).squeeze(-1)
        there = here + damping[at] * step
        correction = (inverse @ field(there).unsqueeze(-1)).squeeze(-1)
        length = step.norm(dim=-1, keepdim=True)
        better = correction.norm(dim=-1, keepdim=True) <= (1 - damping[at] / 4) * length
        near = length.squeeze(-1) <= tol**0.5 * (1 + here.norm(dim=-1))
        converged[at] = near & (velocity.norm(dim=-1) <= tol)
        x[at] = torch.where(better, there, here)
        damping[at] = (damping[at] * torch.where(better, 2, 0.5)).clamp(max=1)

    x = x[converged & (field(x).norm(dim=-1) <= tol)]
    merge = 2 * tol**0.5 * (1 + x.norm(dim=-1))
    repeats = (torch.cdist(x, x) <= merge).tril(-1).any(-1)
    x = x[~repeats]
    return FixedPoints(points=x, jacobians=linearised(x)[1])
