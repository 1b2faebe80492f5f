"""How a large linear system answers through one input and one output, open and closed, from one small basis."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn.functional import normalize

LAST = 6  # vectors of a basis that a pole has to do without to count as converged


@runtime_checkable
class LinearSystem(Protocol):
    """x' = A x + b u, z = c . x, given by what A does to vectors; one system for each leading axis of c.

    Used in: reservoir.
    """

    b: Float[Tensor, "*#systems N"]
    c: Float[Tensor, "*systems N"]

    def apply(self, v: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch N"]:
        """A v."""

    def apply_transposed(self, v: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch N"]:
        """A^T v."""

    def single(self) -> "LinearSystem":
        """The same in single precision."""


@dataclass(frozen=True, eq=False)
class LinearResponse:
    """The system x' = A x + b u, z = c . x, projected on an orthonormal basis Q of what b and c can reach.

    Q spans b, A b, A^2 b, ... and c, A^T c, (A^T)^2 c, ..., so many of each. What is neglected enters the output twice,
    as the part of the state that Q misses and as the part of its readout that Q misses: the error of a gain is their
    product. The feedback u = z turns A into A + b c^T, for which Q spans the same: so one basis gives both loops.
    Dimensionless, rates per unit of time. Used in: reservoir.
    """

    basis: Float[Tensor, "N m"]
    A: Float[Tensor, "m m"]  # A, b and c on the basis
    b: Float[Tensor, " m"]
    c: Float[Tensor, " m"]

    @property
    def closed(self) -> Float[Tensor, "m m"]:
        """A + b c^T on the basis."""
        return self.A + torch.outer(self.b, self.c)

    def open_loop_gain(self, s: Complex[Tensor, "*s"]) -> Complex[Tensor, "*s"]:
        """G_OL(s) = c^T (s - A)^{-1} b."""
        return resolve(self.A, s, self.b) @ self.c.to(s.dtype)

    def closed_loop_gain(self, s: Complex[Tensor, "*s"]) -> Complex[Tensor, "*s"]:
        """G_CL(s) = c^T (s - A - b c^T)^{-1} b, which is G_OL / (1 - G_OL)."""
        return resolve(self.closed, s, self.b) @ self.c.to(s.dtype)

    def input_power(self, s: Complex[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The open loop's gains from each state to the output, their power summed: |(s - A^T)^{-1} c|^2."""
        return resolve(self.A.mT, s, self.c).abs().square().sum(-1)

    def poles(self, tol: float = 1e-6) -> Complex[Tensor, " p"]:
        """The closed loop's eigenvalues that have converged, by decreasing real, then imaginary part.

        Those that are found within ``tol`` without the last six vectors of the basis, too: the ones outside the bulk of
        the spectrum. A basis of the whole space has them all.
        """
        values = torch.linalg.eigvals(self.closed)
        N, m = self.basis.shape
        if m < N:
            before = torch.linalg.eigvals(self.closed[: max(m - LAST, 0), : max(m - LAST, 0)])
            values = values[((values[:, None] - before).abs() <= tol).any(-1)]
        values = values[values.imag.argsort(descending=True)]
        return values[values.real.argsort(descending=True, stable=True)]

    def impulse_response(self, t: Float[Tensor, " t"], closed: bool = True) -> Float[Tensor, " t"]:
        """z(t) of the closed loop, or the open one, after the kick x(0) = b."""
        return self._kicked(t, closed) @ self.c

    def impulse_states(self, t: Float[Tensor, " t"], units: slice, closed: bool = True) -> Float[Tensor, "t n"]:
        """x(t) of the given units after the kick x(0) = b; of single precision where z(t) is of double."""
        return self._kicked(t, closed) @ self.basis[units].mT

    def _kicked(self, t: Tensor, closed: bool) -> Tensor:
        steps, which = t.diff(prepend=t.new_zeros(1)).unique(return_inverse=True)
        moves = torch.linalg.matrix_exp((self.closed if closed else self.A) * steps[:, None, None])
        states = [self.b]
        for move in which.tolist():
            states.append(moves[move] @ states[-1])
        return torch.stack(states[1:])


def resolve(A: Float[Tensor, "m m"], s: Complex[Tensor, "*s"], b: Float[Tensor, " m"]) -> Complex[Tensor, "*s m"]:
    """(s - A)^{-1} b. Used in: reservoir."""
    shifted = s[..., None, None] * torch.eye(len(b), dtype=b.dtype) - A
    return torch.linalg.solve(shifted, b.to(s.dtype).expand(*s.shape, -1))


def linear_response(system: LinearSystem, order: int = 30) -> LinearResponse:
    """Krylov bases of A from b and of A^T from c, ``order`` vectors each, and the system projected on both together.

    The vectors are made in single precision, where the products with A, which cost the most, are twice as fast: any
    basis will do that is close to the Krylov spaces. b, c and the projection are in double precision. Gains,
    outlying poles and z(t) have errors like (rho / |1 + s|)^(2 order) for a bulk of radius rho around -1, the states
    x(t) and ``input_power`` like half that power.

    Raises ``ValueError`` for an order below 1, and for b or c that are zero or not finite. Source: Grimme, Krylov
    Projection Methods for Model Reduction (1997), Sec. 3; Saad (2003), Sec. 6.3. Used in: reservoir.
    """
    if system.c.ndim != 1:
        raise ValueError(f"c has shape {tuple(system.c.shape)}; allowed: one axis (linear_responses takes two)")
    return _project(system, order)[0]


def linear_responses(system: LinearSystem, order: int = 30) -> list[LinearResponse]:
    """:func:`linear_response` of each of the systems along the leading axis of c, in step.

    For systems that share a large matrix, whose products with several vectors cost little more than with one.

    Used in: reservoir.
    """
    if system.c.ndim != 2:
        raise ValueError(f"c has shape {tuple(system.c.shape)}; allowed: two axes (linear_response takes one)")
    return _project(system, order)


def _project(system: LinearSystem, order: int) -> list[LinearResponse]:
    if order < 1:
        raise ValueError(f"order is {order}; allowed: 1, 2, ...")
    ends = torch.stack([system.b.expand_as(system.c), system.c])
    sizes = ends.norm(dim=-1)
    if not ((sizes > 0) & sizes.isfinite()).all():
        raise ValueError(f"b and c have the norms {sizes.tolist()}; allowed: positive and finite")
    single = system.single()
    order = min(order, ends.shape[-1])
    spaces = ends.new_zeros(*ends.shape[:-1], order, ends.shape[-1], dtype=single.c.dtype)  # (2, *systems, order, N)
    spaces[..., 0, :] = normalize(ends, dim=-1)
    for j in range(1, order):
        before, after = spaces[..., j - 1, :]
        new = torch.stack([single.apply(before), single.apply_transposed(after)])
        so_far = spaces[..., :j, :]
        for _ in range(2):
            new = new - ((so_far @ new.unsqueeze(-1)).mT @ so_far).squeeze(-2)
        spaces[..., j, :] = normalize(new, dim=-1)
    vectors = spaces.to(ends.dtype).movedim(0, -2).flatten(-3, -2)  # b, c, A b, A^T c, ...
    vectors[..., :2, :] = ends.movedim(0, -2)
    basis = torch.linalg.qr(vectors.mT).Q
    A = basis.mT @ system.apply(basis.movedim(-1, 0).contiguous()).movedim(0, -1)
    b, c = (ends.unsqueeze(-2) @ basis).squeeze(-2)
    if system.c.ndim == 1:
        return [LinearResponse(basis, A, b, c)]
    return [LinearResponse(*parts) for parts in zip(basis, A, b, c, strict=True)]
