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
_GROWTH = 1e8  # ratio of the pivots up to which elimination without pivot search is trusted
_DOUBT = 1e-6  # a drive has the wrong sign if it is wrong by this much of the largest one
_CHUNK = 256  # networks at a time: their tables stay in the processor's cache
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
    W: Float[Tensor, "*#batch d d"],
    b: Float[Tensor, "*#batch d"],
    form: str = "rate",
    leak: Float[Tensor, "*#batch rows columns"] | None = None,
) -> ReluFixedPoints:
    """All fixed points of a threshold-linear network, exactly: the solutions for all 2^d supports at once.

        form="rate":            x' = -x + relu(W x + b)
        form="preactivation":   h' = -L h + W relu(h) + b       (h may be negative; L = 1 unless ``leak`` is given)

    At a fixed point with the set S of active units, h = W x + b and x_S = h_S, the others are silent. The candidate of
    S is a fixed point iff each unit of S is driven above threshold and no other one is. The two forms have the same
    fixed points (L = 1), h = W x + b and x = relu(h), with the same eigenvalues; ``points`` holds x or h. A leak L
    multiplies them all: the fixed points are those of the weights L^-1 W and biases L^-1 b. ``W``, ``b`` and ``leak``
    may carry batch axes, which broadcast and come before the axis of the supports in the result.

    Method: the supports are the leaves of a tree, unit by unit silent or active, and a unit that becomes active costs
    one Gauss-Jordan pivot for the whole subtree: about 2 d multiplications a support where a linear solve takes d^3/3.
    This sieves; the few candidates without a clearly wrong sign are factorised, with pivot search.

    At the border: a unit at threshold, to the rounding error of the solve, counts as silent. So a point on a corner is
    found once, for its smallest support, flagged ``border`` and of kind ``Stability.BORDER``; its ``jacobians`` are
    those of the silent side. The ends of an unperturbed bounded line attractor are such points.

    Raises ``ValueError`` for shapes that do not fit, values that are not finite, an unknown form, a leak in the rate
    form, or a singular one. Source: Ságodi et al., Secs 1, 3.4, 3.6. Used in: Fenichel theory, Rings.
    """
    d = b.shape[-1]
    if W.ndim < 2 or W.shape[-2:] != (d, d):
        raise ValueError(f"W has shape {tuple(W.shape)} and b {tuple(b.shape)}; allowed: (..., d, d) and (..., d)")
    if form not in ("rate", "preactivation"):
        raise ValueError(f"form is {form!r}; allowed: 'rate', 'preactivation'")
    if leak is not None and (form == "rate" or leak.ndim < 2 or leak.shape[-2:] != (d, d)):
        raise ValueError(f"leak has shape {tuple(leak.shape)}, form {form!r}; allowed: (..., {d}, {d}), preactivation")
    for name, values in (("W", W), ("b", b), ("leak", leak)):
        if values is not None and not values.isfinite().all():
            raise ValueError(f"{name} has {int((~values.isfinite()).sum())} values that are not finite")

    weights, identity = W, torch.eye(d, dtype=W.dtype)
    if leak is not None:
        inverse, singular = torch.linalg.inv_ex(leak)
        if singular.any():
            raise ValueError(f"leak is singular in {int((singular > 0).sum())} networks; allowed: regular matrices")
        W, b = inverse @ W, (inverse @ b.unsqueeze(-1)).squeeze(-1)
    batch = torch.broadcast_shapes(W.shape[:-2], b.shape[:-1])
    W, b = W.expand(*batch, d, d).reshape(-1, d, d), b.expand(*batch, d).reshape(-1, d)
    supports = torch.cartesian_prod(*[torch.tensor([False, True])] * d).view(-1, d)

    h = torch.empty(len(W), len(supports), d, dtype=W.dtype)
    possible = torch.empty(len(W), len(supports), dtype=torch.bool)
    for part in torch.arange(len(W)).split(_CHUNK):
        h[part], possible[part] = _eliminate(W[part], b[part], supports)
    exists, border, degenerate = (torch.zeros_like(possible) for _ in range(3))
    at, support = possible.nonzero().unbind(-1)
    h[at, support], exists[at, support], border[at, support], degenerate[at, support] = _factorise(
        W[at], b[at], supports[support]
    )
    continuum = _continua(W, b, supports, degenerate)

    at, support = exists.nonzero().unbind(-1)
    active = supports[support]
    jacobians = torch.full((*exists.shape, d, d), torch.nan, dtype=W.dtype)
    if form == "rate":
        jacobians[at, support] = active.unsqueeze(-1) * W[at] - identity
    else:
        rest = identity if leak is None else leak.expand(*batch, d, d).reshape(-1, d, d)[at]
        weights = weights.expand(*batch, d, d).reshape(-1, d, d)
        jacobians[at, support] = weights[at] * active.unsqueeze(-2) - rest
    points = h * supports if form == "rate" else h

    def whole(values: Tensor) -> Tensor:
        return values.view(*batch, *values.shape[1:])

    return ReluFixedPoints(
        points=whole(points),
        jacobians=whole(jacobians),
        supports=supports,
        exists=whole(exists),
        border=whole(border),
        degenerate=whole(degenerate),
        continuum=whole(continuum),
    )


def _eliminate(
    W: Float[Tensor, "m d d"], b: Float[Tensor, "m d"], supports: Bool[Tensor, "n d"]
) -> tuple[Float[Tensor, "m n d"], Bool[Tensor, "m n"]]:
    """The drives h of every support, and which of them may be fixed points: no sign is clearly wrong.

    With z = relu(h) >= 0 and y = h - z <= 0 a fixed point is y + (1 - W) z = b, y_i z_i = 0. Silent units have z = 0,
    active ones y = 0; a Gauss-Jordan pivot makes a unit active. Networks are the last axis, next to each other in
    memory.
    """
    d = b.shape[-1]
    table = torch.cat([torch.eye(d, dtype=W.dtype) - W, b.unsqueeze(-1)], -1).permute(1, 2, 0).unsqueeze(0).contiguous()
    smallest = torch.full_like(table[:, 0, 0], torch.inf)
    largest = torch.zeros_like(smallest)
    for unit in range(d):
        pivot = table[:, unit, 0]
        row = table[:, unit, 1:] / pivot.unsqueeze(1)
        active = torch.addcmul(table[:, :, 1:], table[:, :, :1], row.unsqueeze(1), value=-1)
        active[:, unit] = row
        table = torch.stack([table[:, :, 1:], active], 1).flatten(0, 1)
        size = pivot.abs()
        smallest = torch.stack([smallest, torch.minimum(smallest, size)], 1).flatten(0, 1)
        largest = torch.stack([largest, torch.maximum(largest, size)], 1).flatten(0, 1)
    h = table.squeeze(2)
    wrong = torch.where(supports.unsqueeze(-1), -h, h).amax(1)
    # Not the other way round: NaN, after a pivot of zero, is possible.
    impossible = (wrong > _DOUBT * h.abs().amax(1)) & (smallest * _GROWTH > largest)
    return h.permute(2, 0, 1), ~impossible.T


def _factorise(
    W: Float[Tensor, "m d d"], b: Float[Tensor, "m d"], supports: Bool[Tensor, "m d"]
) -> tuple[Float[Tensor, "m d"], Bool[Tensor, " m"], Bool[Tensor, " m"], Bool[Tensor, " m"]]:
    """Drives of one candidate each, and whether it exists, is at a border, is degenerate, within rounding errors."""
    A = torch.eye(b.shape[-1], dtype=W.dtype) - supports.unsqueeze(-1) * W
    factors, pivots, _ = torch.linalg.lu_factor_ex(A)
    x = torch.linalg.lu_solve(factors, pivots, (supports * b).unsqueeze(-1)).squeeze(-1)
    h = (W @ x.unsqueeze(-1)).squeeze(-1) + b

    diagonal = factors.diagonal(dim1=-2, dim2=-1).abs()
    condition = (diagonal.amax(-1) / diagonal.amin(-1)).unsqueeze(-1)
    degenerate = ~(condition < _SINGULAR).squeeze(-1)  # not >=: an exactly singular system may give 0/0
    largest = x.abs().amax(-1, keepdim=True)
    x_error = _ROUNDING * condition * largest
    h_error = W.abs().sum(-1) * (x_error + _ROUNDING * largest) + _ROUNDING * b.abs()
    exists = torch.where(supports, x > x_error, h <= h_error).all(-1) & ~degenerate
    border = exists & (~supports & (h.abs() <= h_error)).any(-1)
    h = torch.where(supports, x, h).masked_fill(degenerate.unsqueeze(-1), torch.nan)
    return h, exists, border, degenerate


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
