"""Averages of a nonlinearity over Gaussian variables: one, or two that are correlated.

All that mean-field theory asks of phi is in four averages over a pair x_n = m_n + s_n y_n, x_m = m_m + s_m y_m of
standard normal y with correlation c:

    <phi_n phi_m>,  <phi'_n phi'_m>,  <phi'_n phi_m>,  <phi''_n phi_m>.

For a smooth phi they are power series in c (Mehler's formula), whose coefficients are products of the two functions'
Hermite coefficients, and differentiating phi only shifts these (Stein's lemma): no derivative of phi is ever needed.
For a rectifier they are closed forms of the bivariate normal distribution.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from slowmanifold.networks.reservoir import slope

Moments = tuple[Tensor, Tensor, Tensor, Tensor]
"""<phi_n phi_m>, <phi'_n phi'_m>, <phi'_n phi_m>, <phi''_n phi_m>."""


_FAR = 9.0  # standard deviations beyond which a normal variable is not felt in float64; Hermite functions reach further


@dataclass(frozen=True, eq=False)
class SmoothAverages:
    """Averages of a smooth phi, by quadrature and Hermite series.

    The trapezoidal rule in y converges like exp(-2 pi d / (s h)) for spacing h, standard deviation s and a phi that
    is analytic within d of the real axis (d = pi/2 for tanh); the series of a pair like exp(-2 d sqrt(k) / s) at
    least. ``scale`` is the largest s to be expected: it sets both.

    Dimensionless. Used in: reservoir.
    """

    phi: Callable[[Tensor], Tensor]
    scale: float = 1.0
    w_nodes: ClassVar[int] = 16

    @cached_property
    def nodes(self) -> Float[Tensor, " y"]:
        half = math.ceil(12 * max(1.0, self.scale) / 0.3)
        return 12 * torch.arange(-half, half + 1, dtype=torch.float64) / half

    @cached_property
    def weights(self) -> Float[Tensor, " y"]:
        density = torch.exp(-(self.nodes**2) / 2)
        return density / density.sum()

    @cached_property
    def hermite(self) -> Float[Tensor, "y k"]:
        """Normalised Hermite polynomials at the nodes, times their weights: phi(x) @ hermite is phi's coefficients."""
        order = 64 * math.ceil(max(1.0, self.scale) ** 2)
        rows = [self.weights, self.nodes * self.weights]
        for k in range(1, order - 1):
            rows.append((self.nodes * rows[-1] - math.sqrt(k) * rows[-2]) / math.sqrt(k + 1))
        return torch.stack(rows, dim=-1)

    def single(self, mean: Float[Tensor, "*batch w"], sigma: Float[Tensor, "*batch"]) -> Moments:
        """<phi^2>, <phi'^2>, <phi phi'> and <y phi phi'> of x = mean + sigma y, shapes (*batch, w)."""
        near = self.nodes.abs() <= _FAR
        y, weights = self.nodes[near], self.weights[near]
        x = mean.unsqueeze(-1) + sigma[..., None, None] * y
        phi, r_prime = self.phi(x), slope(self.phi, x)
        both = phi * r_prime
        return phi**2 @ weights, r_prime**2 @ weights, both @ weights, both @ (weights * y)

    def square(self, mean: Float[Tensor, "*batch w"], variance: Float[Tensor, "*batch"]) -> tuple[Tensor, Tensor]:
        """<phi^2> and its derivative with respect to the variance, which is <(y^2 - 1) phi^2> / (2 variance)."""
        near = self.nodes.abs() <= _FAR
        y, weights = self.nodes[near], self.weights[near]
        square = self.phi(mean.unsqueeze(-1) + variance.sqrt()[..., None, None] * y) ** 2
        return square @ weights, square @ (weights * (y**2 - 1) / 2) / variance.unsqueeze(-1)

    def pairs(
        self, mean: Float[Tensor, "*batch M w"], sigma: Float[Tensor, "*batch M"], w: Tensor, p: Tensor
    ) -> Callable[[Tensor], Moments]:
        """The averages of all pairs as a function of their correlations ``c`` (*batch, M, M), averaged over w.

        The third is <w phi'_n phi_m>. Raises ``ValueError`` where phi is too steep for the series.
        """
        x = mean.unsqueeze(-1) + sigma[..., None, None] * self.nodes
        a = self.phi(x) @ self.hermite
        k = torch.arange(a.shape[-1], dtype=torch.float64)
        first = torch.sqrt(k[1:]) * a[..., 1:] / sigma[..., None, None]
        second = torch.sqrt(k[1:-1]) * first[..., 1:] / sigma[..., None, None]
        value = torch.einsum("w,...nwk,...mwk->...nmk", p, a, a)
        if not (value[..., -2:].abs().amax(-1) <= 1e-11 * value.abs().amax(-1)).all():
            raise ValueError(
                f"phi: its Hermite series has not converged after {len(k)} terms; allowed: a smooth phi that is "
                "less steep on the scale of the reservoir's fluctuations (lower the gain)"
            )
        coefficients = (
            value,
            torch.einsum("w,...nwk,...mwk->...nmk", p, first, first),
            torch.einsum("w,...nwk,...mwk->...nmk", p * w, first, a[..., :-1]),
            torch.einsum("w,...nwk,...mwk->...nmk", p, second, a[..., :-2]),
        )

        def moments(c: Tensor) -> Moments:
            powers = c.unsqueeze(-1) ** k
            return tuple((series * powers[..., : series.shape[-1]]).sum(-1) for series in coefficients)

        return moments


@dataclass(frozen=True, eq=False)
class RectifierAverages:
    """Averages of phi(x) = max(0, x - threshold), in closed form but for one smooth integral over an angle.

    P(y_n > -a, y_m > -b) is Plackett's integral over the correlation sin(theta), by 48 Gauss-Legendre nodes.
    Dimensionless. Used in: reservoir.
    """

    threshold: float = 0.0
    w_nodes: ClassVar[int] = 192  # the kink is smoothed by the fluctuations only, over sigma/A in w

    def single(self, mean: Float[Tensor, "*batch w"], sigma: Float[Tensor, "*batch"]) -> Moments:
        """<phi^2>, <phi'^2>, <phi phi'> and <y phi phi'> of x = mean + sigma y, shapes (*batch, w)."""
        s = sigma.unsqueeze(-1)
        a = (mean - self.threshold) / s
        active, density = torch.special.ndtr(a), _density(a)
        return s**2 * ((1 + a**2) * active + a * density), active, s * (a * active + density), s * active

    def square(self, mean: Float[Tensor, "*batch w"], variance: Float[Tensor, "*batch"]) -> tuple[Tensor, Tensor]:
        """<phi^2> and its derivative with respect to the variance, which is the share of active neurons."""
        square, active, _, _ = self.single(mean, variance.sqrt())
        return square, active

    def pairs(
        self, mean: Float[Tensor, "*batch M w"], sigma: Float[Tensor, "*batch M"], w: Tensor, p: Tensor
    ) -> Callable[[Tensor], Moments]:
        """The averages of all pairs as a function of their correlations ``c`` (*batch, M, M), averaged over w.

        The third is <w phi'_n phi_m>.
        """
        a = (mean - self.threshold) / sigma.unsqueeze(-1)
        a, b = a.unsqueeze(-2), a.unsqueeze(-3)
        sn, sm = sigma[..., :, None, None], sigma[..., None, :, None]
        z, weight = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(48))
        # Nodes crowd where the correlation is largest: there the integrand drops to zero within |a - b| if a != b.
        u = (1 + z) / 2
        weight = 2 * u**3 * weight

        def moments(c: Tensor) -> Moments:
            c = c.clamp(-1 + 1e-13, 1 - 1e-13).unsqueeze(-1)
            angle = torch.asin(c).unsqueeze(-1) * (1 - u**4)
            A, B = a.unsqueeze(-1), b.unsqueeze(-1)
            bulge = torch.exp(-(A**2 - 2 * A * B * torch.sin(angle) + B**2) / (2 * torch.cos(angle) ** 2))
            both = torch.special.ndtr(a) * torch.special.ndtr(b) + torch.asin(c) / (2 * math.pi) * (bulge @ weight)
            rest = torch.sqrt(1 - c**2)
            edge_n = _density(a) * torch.special.ndtr((b - c * a) / rest)
            edge_m = _density(b) * torch.special.ndtr((a - c * b) / rest)
            corner = rest * _density(a) * _density((b - c * a) / rest)
            value = sn * sm * ((a * b + c) * both + b * edge_n + a * edge_m + corner)
            first = sm * (b * both + edge_m + c * edge_n)
            # Of the two: x_n sits at the threshold, which leaves x_m the mean s_m (b - c a) above it.
            second = sm / sn * ((b - c * a) * edge_n + rest * _density(a) * _density((b - c * a) / rest))
            return value @ p, both @ p, first @ (p * w), second @ p

        return moments


def _density(a: Tensor) -> Tensor:
    return torch.exp(-(a**2) / 2) / math.sqrt(2 * math.pi)


def feedback_rule(name: str, reach: float, nodes: int) -> tuple[Float[Tensor, " w"], Float[Tensor, " w"]]:
    """Nodes and weights of the average over the feedback weights w.

    ``"uniform"`` on (-1, 1), ``"normal"`` of variance 1, ``"signs"``: +1 or -1. ``reach`` is the largest |target|: how
    much x = w A varies; ``nodes`` is how many a target of size zero needs.
    Raises ``ValueError`` for another name. Used in: reservoir.
    """
    if name == "uniform":
        w, p = np.polynomial.legendre.leggauss(nodes + math.ceil(8 * reach))
        return torch.from_numpy(w), torch.from_numpy(p / 2)
    if name == "normal":
        half = math.ceil(9 * max(1.0, reach) * nodes / 3)
        w = 9 * torch.arange(-half, half + 1, dtype=torch.float64) / half
        density = torch.exp(-(w**2) / 2)
        return w, density / density.sum()
    if name == "signs":
        return torch.tensor([-1.0, 1.0], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    raise ValueError(f"feedback is {name!r}; allowed: 'uniform', 'normal', 'signs'")


def triple_averages(
    phi: Callable[[Tensor], Tensor], n: int, targets: Tensor, covariance: Tensor, w: Tensor, p: Tensor
) -> Float[Tensor, "M M"]:
    """<phi_l phi_l' phi'_n^2> for all l, l', by 24^3 Gauss-Hermite nodes.

    Along the axes of the three fields' covariance. To about 1e-6 for a smooth phi, 1e-3 for a rectifier.
    Used in: reservoir.
    """
    z, weight = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(24))
    weight = weight / weight.sum()
    grid, weight = torch.cartesian_prod(z, z, z), torch.cartesian_prod(weight, weight, weight).prod(-1)
    M = len(targets)
    Q = torch.zeros(M, M, dtype=torch.float64)
    for i, j in torch.combinations(torch.arange(M), with_replacement=True).tolist():
        fields = torch.tensor([n, i, j])
        variance, axes = torch.linalg.eigh(covariance[fields][:, fields])
        y = grid @ (axes * variance.clamp(min=0).sqrt()).mT
        x = w[:, None, None] * targets[fields] + y
        Q[i, j] = Q[j, i] = p @ ((slope(phi, x[..., 0]) ** 2 * phi(x[..., 1]) * phi(x[..., 2])) @ weight)
    return Q
