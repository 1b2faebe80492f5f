"""Ring attractors: a closed curve of equilibria."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from slowmanifold.networks.matvec import matvec


@dataclass(frozen=True)
class PlanarRing:
    """The simplest ring attractor: every point of the unit circle is an equilibrium, the origin is a source.

        r' = r (1 - r),  theta' = 0,      that is  x' = (1 - |x|) x

    On the circle the eigenvalues are -1 (radial) and 0 (along it). Dimensionless, time in units of tau.
    Source: Ságodi et al., Sec. 3.6. Used in: fenichel, rings, limit_cycles.
    """

    def velocity(self, x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """x' = (1 - |x|) x."""
        return (1 - torch.linalg.vector_norm(x, dim=-1, keepdim=True)) * x

    def jacobian(self, x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2 2"]:
        """(1 - |x|) 1 - x x^T / |x|; at the origin, where the second term vanishes, the identity."""
        r = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        e = x / torch.where(r > 0, r, 1)
        return (1 - r).unsqueeze(-1) * torch.eye(2, dtype=x.dtype) - x.unsqueeze(-1) * e.unsqueeze(-2)


@dataclass(frozen=True, eq=False)
class HeadDirectionRing:
    """N heading-tuned units on a circle: a ring of equilibria made of few neurons, at certain excitations.

        h' = -h + W relu(h) + b,      W_jk = (J_I + J_E cos(theta_j - theta_k)) / N,   b = c_ff,   theta_j = 2 pi j / N

    The state h is each unit's input (so it may be negative), relu(h) its rate. Dimensionless, time in units of tau.
    ``W`` and ``b`` may carry batch axes in front, one network each; they broadcast against those of the states.

    Source: Ságodi et al., Sec. 3.6.1, after Noorman et al. (2022). Used in: rings.
    """

    W: Float[Tensor, "*#networks N N"]
    b: Float[Tensor, "*#networks N"]

    def velocity(self, h: Float[Tensor, "*#batch N"]) -> Float[Tensor, "*batch N"]:
        """h' = -h + W relu(h) + b, per tau."""
        return matvec(self.W, torch.relu(h)) + self.b - h

    def jacobian(self, h: Float[Tensor, "*#batch N"]) -> Float[Tensor, "*batch N N"]:
        """-1 + W diag(h > 0); a unit at its threshold counts as silent."""
        return self.W * (h > 0).to(h.dtype).unsqueeze(-2) - torch.eye(h.shape[-1], dtype=h.dtype)

    def perturbed(self, V: Float[Tensor, "... N N"]) -> "HeadDirectionRing":
        """The same network with the weights W + V (the factor 1/N is part of W)."""
        return replace(self, W=self.W + V)


def preferred_headings(N: int) -> Float[Tensor, " N"]:
    """theta_j = 2 pi j / N, in radians. Raises ``ValueError`` unless N >= 3. Used in: rings."""
    _require_units(N, 3)
    return 2 * torch.pi * torch.arange(N, dtype=torch.float64) / N


def head_direction_ring(N: int = 6, J_E: float = 4.0, J_I: float = -2.4, c_ff: float = 1.0) -> HeadDirectionRing:
    """The network of N units with local excitation J_E, uniform input J_I (negative: inhibition) and drive c_ff.

    The defaults are those of the paper's published figures; its text has J_E = 2.4. It holds a ring of equilibria if
    J_E is one of :func:`optimal_excitation` and J_I is low enough (:func:`ring_of_equilibria`).

    Raises ``ValueError`` unless N >= 3, and for values that are not finite. Source: Ságodi et al., Sec. 3.6.1.
    Used in: rings.
    """
    for name, value in (("J_E", J_E), ("J_I", J_I), ("c_ff", c_ff)):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}; allowed: finite numbers")
    theta = preferred_headings(N)
    W = (J_I + J_E * torch.cos(theta.unsqueeze(-1) - theta)) / N
    return HeadDirectionRing(W=W, b=torch.full((N,), c_ff, dtype=torch.float64))


def optimal_excitation(N: int) -> Float[Tensor, " optima"]:
    """The N - 3 excitations J_E at which N units hold a ring of equilibria, in descending order.

        J_E = 2 N / (n - sin(2 pi n / N) / sin(2 pi / N)),      n = 2, ..., N - 2 units active

    Raises ``ValueError`` unless N >= 4. Source: Noorman et al. (2022). Used in: rings.
    """
    _require_units(N, 4)
    n = torch.arange(2, N - 1, dtype=torch.float64)
    step = 2 * torch.pi / N
    return 2 * N / (n - torch.sin(n * step) / math.sin(step))


def ring_of_equilibria(N: int, active: int, J_I: float = -2.4, c_ff: float = 1.0) -> Float[Tensor, "N N"]:
    """The N corners of the polygon of equilibria whose edges have ``active`` active units, in order round the ring.

    At the corner with the heading psi, halfway between units or on one of them, so that active - 1 units are above
    threshold and the next one on either side exactly at it,

        h_j = B (cos(theta_j - psi) - cos(pi n / N)),       n = active
        B = -c_ff / (cos(pi n / N) + (J_I / N) sum_j [cos(theta_j - psi) - cos(pi n / N)]_+)

    The corners are equilibria, and so is every point of the edges between them, if J_E is the corresponding one of
    :func:`optimal_excitation` (its entry ``active - 2``).

    Raises ``ValueError`` unless 2 <= active <= N - 2, and if B is not positive: J_I is then too high for a bump.
    Source: derived in the chapter. Used in: rings.
    """
    _require_units(N, 4)
    if not 2 <= active <= N - 2:
        raise ValueError(f"active is {active}; allowed: 2, ..., N - 2 = {N - 2}")
    theta = preferred_headings(N)
    border = math.cos(math.pi * active / N)
    psi = theta + math.pi * active / N
    shape = torch.cos(theta - psi.unsqueeze(-1)) - border
    at_border = shape.abs() < 1e-12
    shape = shape.masked_fill(at_border, 0)
    denominator = border + J_I / N * torch.relu(shape[0]).sum().item()
    if not -c_ff / denominator > 0:
        highest = -N * border / torch.relu(shape[0]).sum().item()
        raise ValueError(f"J_I is {J_I}; allowed with {active} of {N} units active and c_ff > 0: below {highest:.6g}")
    return -c_ff / denominator * shape


def ring_plane(h: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch 2"]:
    """The ring plane: (2/N) sum_j h_j (cos theta_j, sin theta_j), whose angle is the heading. Used in: rings."""
    N = h.shape[-1]
    theta = preferred_headings(N)
    return 2 / N * h @ torch.stack([torch.cos(theta), torch.sin(theta)], -1)


def _require_units(N: int, least: int) -> None:
    if N - least < 0:
        raise ValueError(f"N is {N}; allowed: {least}, {least + 1}, ...")
