"""Ways to perturb a vector field: a local bump, a linear term, a random direction.

A field is a function from states ``(..., d)`` to velocities ``(..., d)``; every function here returns one, or what one
needs to make one.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from slowmanifold.dynamics.flow import Field
from slowmanifold.networks.matvec import matvec


def perturbed(field: Field, eps: float | Float[Tensor, "..."], g: Field) -> Field:
    """The field f + eps g.

    A tensor ``eps`` of shape ``(...)`` stands for one field each: the result takes states of shape ``(..., d)``, the
    axes of ``eps`` broadcast against those of the states. Used in: fenichel, rings.
    """
    size = torch.as_tensor(eps, dtype=torch.float64).unsqueeze(-1)
    return lambda x: field(x) + size * g(x)


def linear(V: Float[Tensor, "... d d"]) -> Field:
    """The field x -> V x, the paper's global perturbation; ``V`` may carry batch axes.

    Source: Ságodi et al., Sec. 3.6. Used in: fenichel, rings.
    """
    return lambda x: matvec(V, x)


def bump(centre: Float[Tensor, " d"], radius: float, direction: Float[Tensor, " d"], amplitude: float = 1.0) -> Field:
    """A local perturbation: infinitely often differentiable, zero outside a ball, pointing one way.

        g(x) = amplitude u exp(radius^2 / (|x - centre|^2 - radius^2))   for |x - centre| < radius,  0 elsewhere

    with u = direction/|direction|. It is largest at the centre, amplitude/e. The paper's Psi is radius 1, a planar
    ring's own radius. Dimensionless.

    Raises ``ValueError`` unless the radius is positive and finite, the amplitude finite, the direction finite and not
    zero. Source: Ságodi et al., Sec. 3.6.1. Used in: rings.
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"radius is {radius}; allowed: positive finite numbers")
    if not math.isfinite(amplitude):
        raise ValueError(f"amplitude is {amplitude}; allowed: finite numbers")
    length = torch.linalg.vector_norm(direction)
    if not 0 < length < math.inf:
        raise ValueError(f"direction is {direction.tolist()}; allowed: finite vectors other than zero")
    peak = amplitude * direction / length

    def field(x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        gap = ((x - centre) ** 2).sum(-1, keepdim=True) / radius**2 - 1
        inside = gap < 0
        # The harmless -1 keeps the exponential, and its derivative, finite where it is not used.
        return torch.where(inside, torch.exp(1 / torch.where(inside, gap, -1)), 0) * peak

    return field


def random_matrix(d: int, generator: torch.Generator, batch: tuple[int, ...] = ()) -> Float[Tensor, "*batch d d"]:
    """Matrices of Frobenius norm 1, uniform on that sphere: random directions for :func:`linear`.

    Raises ``ValueError`` unless d >= 1. Used in: fenichel.
    """
    if d < 1:
        raise ValueError(f"d is {d}; allowed: 1, 2, 3, ...")
    V = torch.randn(*batch, d, d, generator=generator, dtype=torch.float64)
    return V / torch.linalg.matrix_norm(V, keepdim=True)
