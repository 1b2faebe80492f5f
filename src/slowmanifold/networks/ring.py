"""Ring attractors: a closed curve of equilibria."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PlanarRing:
    """The simplest ring attractor: every point of the unit circle is an equilibrium, the origin is a source.

        r' = r (1 - r),  theta' = 0,      that is  x' = (1 - |x|) x

    On the circle the eigenvalues are -1 (radial) and 0 (along it). Dimensionless, time in units of tau.
    Source: Ságodi et al., Sec. 3.6. Used in: Fenichel theory.
    """

    def velocity(self, x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """x' = (1 - |x|) x."""
        return (1 - torch.linalg.vector_norm(x, dim=-1, keepdim=True)) * x

    def jacobian(self, x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2 2"]:
        """(1 - |x|) 1 - x x^T / |x|; at the origin, where the second term vanishes, the identity."""
        r = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        e = x / torch.where(r > 0, r, 1)
        return (1 - r).unsqueeze(-1) * torch.eye(2, dtype=x.dtype) - x.unsqueeze(-1) * e.unsqueeze(-2)
