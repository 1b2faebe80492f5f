"""How a large linear system answers through one input and one output, open and closed, from one Krylov basis."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LinearResponse:
    """The system x' = A x + b u, z = c . x, projected on an orthonormal basis of span(b, A b, A^2 b, ...).

    The feedback u = z turns A into A + b c^T, which has the same basis: so one basis gives both loops. Errors shrink
    geometrically with the order for whatever lies outside the bulk of the spectrum, and are small where
    :meth:`residual` is. Dimensionless, rates per unit of time. Used in: reservoir.
    """

    basis: Float[Tensor, "N m"]
    A: Float[Tensor, "m m"]  # A on the basis: upper Hessenberg
    remainder: float  # how much A maps out of the basis
    b: float  # b is this number times the first vector of the basis
    c: Float[Tensor, " m"]  # c on the basis

    @property
    def closed(self) -> Float[Tensor, "m m"]:
        """A + b c^T on the basis."""
        closed = self.A.clone()
        closed[0] += self.b * self.c
        return closed

    def _states(self, matrix: Tensor, s: Tensor) -> Tensor:
        """(s - matrix)^{-1} b on the basis, (*s, m)."""
        identity = torch.eye(len(self.c), dtype=self.c.dtype)
        b = self.b * identity[0]
        return torch.linalg.solve(s[..., None, None] * identity - matrix, b.to(s.dtype).expand(*s.shape, -1))

    def open_loop_gain(self, s: Complex[Tensor, "*s"]) -> Complex[Tensor, "*s"]:
        """G_OL(s) = c^T (s - A)^{-1} b."""
        return self._states(self.A, s) @ self.c.to(s.dtype)

    def closed_loop_gain(self, s: Complex[Tensor, "*s"]) -> Complex[Tensor, "*s"]:
        """G_CL(s) = c^T (s - A - b c^T)^{-1} b, which is G_OL / (1 - G_OL)."""
        return self._states(self.closed, s) @ self.c.to(s.dtype)

    def residual(self, s: Complex[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """|b - (s - A) x| / |b| for the projected solution x of the open loop."""
        return self.remainder * self._states(self.A, s)[..., -1].abs() / self.b

    def power(self, s: Complex[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """|(s - A)^{-1} b|^2. Of the transposed system: the summed power of the gains from each state to the output."""
        return self._states(self.A, s).abs().square().sum(-1)

    def poles(self, tol: float = 1e-6) -> Complex[Tensor, " p"]:
        """The closed loop's eigenvalues that have converged, by decreasing real, then imaginary part.

        Those whose vectors y solve |(A + b c^T) y - lambda y| <= tol |y|: the ones outside the bulk of the spectrum.
        """
        values, vectors = torch.linalg.eig(self.closed)
        values = values[self.remainder * vectors[-1].abs() <= tol * vectors.norm(dim=0)]
        values = values[values.imag.argsort(descending=True)]
        return values[values.real.argsort(descending=True, stable=True)]

    def impulse_response(self, t: Float[Tensor, " t"], closed: bool = True) -> Float[Tensor, " t"]:
        """z(t) of the closed loop, or the open one, after the kick x(0) = b."""
        return self._kicked(t, closed) @ self.c

    def impulse_states(self, t: Float[Tensor, " t"], units: slice, closed: bool = True) -> Float[Tensor, "t n"]:
        """x(t) of the given units after the kick x(0) = b."""
        return self._kicked(t, closed) @ self.basis[units].mT

    def _kicked(self, t: Tensor, closed: bool) -> Tensor:
        steps, which = t.diff(prepend=t.new_zeros(1)).unique(return_inverse=True)
        moves = torch.linalg.matrix_exp((self.closed if closed else self.A) * steps[:, None, None])
        states = [self.b * torch.eye(len(self.c), dtype=self.c.dtype)[0]]
        for move in which.tolist():
            states.append(moves[move] @ states[-1])
        return torch.stack(states[1:])


def linear_response(
    apply: Callable[[Tensor], Tensor], b: Float[Tensor, " N"], c: Float[Tensor, " N"], order: int = 60
) -> LinearResponse:
    """Arnoldi's method from b with ``order`` products v -> A v, each orthogonalised twice.

    Ends early, with the exact answer, if the space is invariant. Raises ``ValueError`` for an order below 1, b = 0, or
    shapes that do not fit. Source: Saad, Iterative Methods for Sparse Linear Systems (2003), Sec. 6.3.
    Used in: reservoir.
    """
    return linear_responses(lambda v: apply(v[0]).unsqueeze(0), b.unsqueeze(0), c.unsqueeze(0), order)[0]


def linear_responses(
    apply: Callable[[Tensor], Tensor], b: Float[Tensor, "K N"], c: Float[Tensor, "K N"], order: int = 60
) -> list[LinearResponse]:
    """:func:`linear_response` of K systems in step: ``apply`` maps row k of a (K, N) matrix by the k-th system's A.

    For systems that share a large matrix, whose products with K vectors cost little more than with one.

    Used in: reservoir.
    """
    if order < 1:
        raise ValueError(f"order is {order}; allowed: 1, 2, ...")
    if b.shape != c.shape:
        raise ValueError(f"b has shape {tuple(b.shape)}, c {tuple(c.shape)}; allowed: the same")
    sizes = b.norm(dim=-1)
    if not ((sizes > 0) & sizes.isfinite()).all():
        raise ValueError(f"b has the norm {sizes.tolist()}; allowed: positive and finite")
    K, N = b.shape
    order = min(order, N)
    V = b.new_zeros(K, order + 1, N)
    H = b.new_zeros(K, order + 1, order)
    V[:, 0] = b / sizes.unsqueeze(-1)
    for j in range(order):
        v = apply(V[:, j])
        scale = v.norm(dim=-1)
        so_far = V[:, : j + 1]
        for _ in range(2):
            overlap = so_far @ v.unsqueeze(-1)
            H[:, : j + 1, j] += overlap.squeeze(-1)
            v = v - (overlap.mT @ so_far).squeeze(-2)
        left = v.norm(dim=-1)
        grown = left > 1e-14 * scale
        H[:, j + 1, j] = torch.where(grown, left, 0)
        V[:, j + 1] = torch.where(grown.unsqueeze(-1), v / left.unsqueeze(-1), 0)
    responses = []
    for size, basis, matrix, readout in zip(sizes.tolist(), V, H, c, strict=True):
        ended = (matrix.diagonal(-1) == 0).nonzero()
        m = int(ended[0]) + 1 if len(ended) else order
        vectors = basis[:m].mT
        responses.append(LinearResponse(vectors, matrix[:m, :m], float(matrix[m, m - 1]), size, readout @ vectors))
    return responses
