"""Fixed points and their stability: exactly all of a threshold-linear network's; by Newton those of a smooth field."""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from slowmanifold.dynamics.eigenvalues import eigenvalues
from slowmanifold.dynamics.flow import Field, linearisation
from slowmanifold.dynamics.supports import all_supports, continua, enumerate_supports

_ON_THE_AXIS = 1e-9  # a real part this small against the largest eigenvalue counts as zero


class Stability(IntEnum):
    """What the linearisation says of a fixed point of a flow.

    Used in: fenichel, clicks, rings, limit_cycles.
    """

    NONE = 0  # there is no fixed point here
    STABLE = 1  # all eigenvalues in the open left half-plane
    SADDLE = 2  # some left, some right, none on the imaginary axis
    UNSTABLE = 3  # all right
    NONHYPERBOLIC = 4  # an eigenvalue on the imaginary axis: the linearisation does not decide
    BORDER = 5  # a unit is exactly at its threshold: there is no one linearisation


class Equilibria:
    """Fixed points of a flow and what its linearisation says of them; leading axes are batch axes, n counts points.

    Where there is none: eigenvalues NaN, kind ``Stability.NONE``, index 0.
    """

    points: Float[Tensor, "*batch n d"]
    jacobians: Float[Tensor, "*batch n d d"]  # derivative of the field at each point, NaN where there is none

    @cached_property
    def _found(self) -> Bool[Tensor, "*batch n"]:
        return ~self.jacobians[..., 0, 0].isnan()

    @cached_property
    def rates(self) -> Complex[Tensor, "found d"]:
        """Eigenvalues (per tau) at the points that there are, in their order: ``eigenvalues`` without its gaps."""
        return torch.linalg.eigvals(self.jacobians[self._found])

    @cached_property
    def eigenvalues(self) -> Complex[Tensor, "*batch n d"]:
        """Eigenvalues of the Jacobians (per tau), in no particular order."""
        eigenvalues = torch.full(self.points.shape, torch.nan, dtype=torch.complex128)
        eigenvalues[self._found] = self.rates
        return eigenvalues

    @cached_property
    def kind(self) -> Int[Tensor, "*batch n"]:
        """One of :class:`Stability` for each point; say ``points[kind == Stability.SADDLE]``."""
        rate = self.rates.real
        zero = _ON_THE_AXIS * self.rates.abs().amax(-1, keepdim=True)
        left, right = (rate < -zero).all(-1), (rate > zero).all(-1)
        found = torch.full(left.shape, Stability.SADDLE, dtype=torch.int8)
        found[(rate.abs() <= zero).any(-1)] = Stability.NONHYPERBOLIC
        found[left] = Stability.STABLE
        found[right] = Stability.UNSTABLE
        kind = torch.full(self._found.shape, Stability.NONE, dtype=torch.int8)
        kind[self._found] = found
        return kind

    @cached_property
    def index(self) -> Int[Tensor, "*batch n"]:
        """Poincaré index, the sign of det J: in the plane +1 for nodes and foci, -1 for saddles; 0 if undecided."""
        size = self.rates.abs()
        decided = (size > _ON_THE_AXIS * size.amax(-1, keepdim=True)).all(-1)
        sign = (self.rates / size).prod(-1).real.round()
        index = torch.zeros(self._found.shape, dtype=torch.int8)
        index[self._found] = torch.where(decided, sign, 0).to(torch.int8)
        return index


@dataclass(frozen=True, eq=False)
class FixedPoints(Equilibria):
    """Fixed points with the derivative of the field there; a Jacobian of NaN stands for "no fixed point here".

    Used in: rings.
    """

    points: Float[Tensor, "*batch n d"]
    jacobians: Float[Tensor, "*batch n d d"]


@dataclass(frozen=True, eq=False)
class ReluFixedPoints(Equilibria):
    """The fixed points of a threshold-linear network, at most one isolated for each set of active units (n = 2^d).

    ``states`` and ``rates`` list the points and their eigenvalues without gaps, the networks one after the other, in
    the order of their supports; ``points`` and ``eigenvalues`` have NaN in place of the supports that hold none.
    """

    states: Float[Tensor, "found d"]  # the fixed points, in the order of ``exists``
    supports: Bool[Tensor, "n d"]  # the active units of each candidate
    exists: Bool[Tensor, "*batch n"]  # isolated candidates that are fixed points of the network
    border: Bool[Tensor, "*batch n"]  # those of them with a silent unit exactly at its threshold
    degenerate: Bool[Tensor, "*batch n"]  # supports with a singular linear system: a continuum, or nothing
    continuum: Bool[Tensor, "*batch n"]  # those of them that do hold a continuum of fixed points
    weights: Float[Tensor, "*batch d d"]  # the network's
    form: str  # "rate" or "preactivation"
    leak: Float[Tensor, "*batch d d"] | None  # None for 1

    @property
    def _found(self) -> Bool[Tensor, "*batch n"]:
        return self.exists

    @cached_property
    def points(self) -> Float[Tensor, "*batch n d"]:
        """The fixed points, NaN elsewhere."""
        points = self.states.new_full((*self.exists.shape, self.supports.shape[-1]), torch.nan)
        points[self.exists] = self.states
        return points

    @cached_property
    def _where(self) -> tuple[Int[Tensor, " found"], Int[Tensor, " found"]]:
        """Of each fixed point the network and the support, by number."""
        return self.exists.reshape(-1, len(self.supports)).nonzero().unbind(-1)

    @cached_property
    def jacobians(self) -> Float[Tensor, "*batch n d d"]:
        """Derivative of the field at each fixed point, NaN elsewhere."""
        jacobians = self.states.new_full((*self.exists.shape, *self.weights.shape[-2:]), torch.nan)
        jacobians[self.exists] = self._jacobians_there()
        return jacobians

    def _jacobians_there(self) -> Float[Tensor, "found d d"]:
        network, support = self._where
        d = self.weights.shape[-1]
        active, W = self.supports[support], self.weights.reshape(-1, d, d)[network]
        if self.form == "rate":
            return active.unsqueeze(-1) * W - torch.eye(d, dtype=W.dtype)
        rest = torch.eye(d, dtype=W.dtype) if self.leak is None else self.leak.reshape(-1, d, d)[network]
        return W * active.unsqueeze(-2) - rest

    @cached_property
    def rates(self) -> Complex[Tensor, "found d"]:
        """Without a leak matrix silent units have the eigenvalue -1; the others' are those of the active block."""
        if self.leak is not None:
            return torch.linalg.eigvals(self._jacobians_there())
        network, support = self._where
        rates = torch.full(self.states.shape, -1, dtype=torch.complex128)
        W, d = self.weights.flatten(), self.supports.shape[-1]
        size = self.supports.sum(-1)[support]
        active_first = self.supports.to(torch.int8).argsort(dim=-1, descending=True, stable=True).T
        for k in range(1, d + 1):
            at = (size == k).nonzero().squeeze(-1)
            units = active_first[:k, support[at]]
            blocks = W[(network[at] * d + units.unsqueeze(1)) * d + units]
            rates[at, :k] = eigenvalues(blocks.permute(2, 0, 1)) - 1
        return rates

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

    Method: one Gauss-Jordan pivot leads from a support to the one with one more active unit, about 2 d multiplications
    each where a linear solve takes d^3/3. What has no sign in doubt and solves the equations is a fixed point; what is
    in doubt is factorised, with pivot search. Eigenvalues, made when asked for, are those of the active block, and -1
    for each silent unit (without ``leak``).

    At the border: a unit at threshold, to the rounding error of the solve, counts as silent. So a point on a corner is
    found once, for its smallest support, flagged ``border`` and of kind ``Stability.BORDER``; its ``jacobians`` are
    those of the silent side. The ends of an unperturbed bounded line attractor are such points.

    Raises ``ValueError`` for shapes that do not fit, values that are not finite, an unknown form, a leak in the rate
    form, or a singular one. Source: Ságodi et al., Secs 1, 3.4, 3.6. Used in: fenichel, clicks, rings.
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

    batch = np.broadcast_shapes(W.shape[:-2], b.shape[:-1], () if leak is None else leak.shape[:-2])
    # Copies: Jacobians are made when asked for, from the weights of now.
    weights, rest = W.expand(*batch, d, d).clone(), None if leak is None else leak.expand(*batch, d, d).clone()
    if leak is not None:
        inverse, singular = torch.linalg.inv_ex(leak)
        if singular.any():
            raise ValueError(f"leak is singular in {int((singular > 0).sum())} networks; allowed: regular matrices")
        W, b = inverse @ W, (inverse @ b.unsqueeze(-1)).squeeze(-1)
    W, b = W.expand(*batch, d, d).reshape(-1, d, d), b.expand(*batch, d).reshape(-1, d)

    supports = all_supports(d)
    found = enumerate_supports(W, b)
    exists, border, degenerate = torch.zeros(3, len(W), len(supports), dtype=torch.bool)
    exists[found.network, found.support] = found.exists
    border[found.network, found.support] = found.border
    degenerate[found.network, found.support] = found.degenerate
    continuum = continua(W, b, supports, degenerate)
    states = found.h[found.exists]
    if form == "rate":
        states *= supports[found.support[found.exists]]

    def whole(values: Bool[Tensor, "networks n"]) -> Bool[Tensor, "*batch n"]:
        return values.view(*batch, len(supports))

    return ReluFixedPoints(
        states=states,
        supports=supports,
        exists=whole(exists),
        border=whole(border),
        degenerate=whole(degenerate),
        continuum=whole(continuum),
        weights=weights,
        form=form,
        leak=rest,
    )


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
    Source: Deuflhard, Newton Methods for Nonlinear Problems (2011), Sec. 3.3.
    Used in: fenichel, rings, limit_cycles, long_memory.
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
