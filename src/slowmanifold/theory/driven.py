"""Chaos under a periodic drive: what is left of it in a large random network that is driven at one frequency."""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from slowmanifold.theory.gaussian import SmoothAverages


def driven_exponent(
    gain: float, amplitude: float, frequency: float, phases: int = 48, tol: float = 1e-9, max_iterations: int = 4000
) -> float:
    """The largest Lyapunov exponent of a network whose neurons are driven at one frequency, each at its own phase.

        x' = -x + W tanh(x) + I cos(w t + theta),    W_ij ~ N(0, gain^2/N),  theta uniform,  N -> infinity

    It is that of the state in which all repeat with the period of the drive. Below zero chaos is suppressed; above, the
    state is unstable, at this rate. There the input from the network is Gaussian; its autocovariance D and that of the
    rates, C, which repeat too, follow from each other,

        (1 - d^2/dtau^2) D = gain^2 C[D],

    and are found by iteration at ``phases`` lags. The exponent is the largest one that leaves the covariance of
    perturbations, exp(lambda (t + s)) psi(t - s), a periodic solution (E[..] the autocovariance of the slopes):

        ((1 + lambda)^2 - d^2/dtau^2) psi = gain^2 E[tanh'(x(t)) tanh'(x(t + tau))] psi.

    Dimensionless, rates per unit of tau. Raises ``ValueError`` for what is not positive and finite or for fewer than 8
    phases, and ``RuntimeError`` where the iteration does not converge. Source: Rajan, Abbott and Sompolinsky, Phys.
    Rev. E 82, 011903 (2010). Used in: reservoir.
    """
    for name, value in (("gain", gain), ("amplitude", amplitude), ("frequency", frequency)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}; allowed: positive finite numbers")
    if phases < 8:
        raise ValueError(f"phases is {phases}; allowed: 8, 9, 10, ...")
    averages = SmoothAverages(torch.tanh, gain)
    angle = 2 * math.pi * torch.arange(phases, dtype=torch.float64) / phases
    squares = (frequency * torch.fft.fftfreq(phases, 1 / phases, dtype=torch.float64)) ** 2  # of -d/dtau, by harmonics
    mean = amplitude / math.sqrt(1 + frequency**2) * torch.cos(angle)
    D = gain**2 * torch.cos(angle)
    for _ in range(max_iterations):
        value, slopes = covariances(averages, mean, D)
        new = torch.fft.ifft(torch.fft.fft(gain**2 * value) / (1 + squares)).real
        if (new - D).abs().max() <= tol:
            break
        D = new
    else:
        raise RuntimeError(
            f"gain {gain}, amplitude {amplitude}, frequency {frequency}: the covariance still changes after "
            f"{max_iterations} iterations; raise max_iterations"
        )
    harmonics = torch.fft.fft(torch.eye(phases, dtype=torch.float64), dim=0)
    curvature = torch.fft.ifft(squares[:, None] * harmonics, dim=0).real
    return math.sqrt(torch.linalg.eigvalsh(gain**2 * slopes.diag() - curvature)[-1]) - 1


def covariances(
    averages: SmoothAverages, mean: Float[Tensor, " t"], D: Float[Tensor, " t"]
) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"]]:
    """Autocovariances, at each lag, of phi(x) and phi'(x), for x of the given mean and the autocovariance ``D``.

    Mean and result are averaged over the time of the first. Used in: reservoir.
    """
    sigma = D[0].sqrt()
    a = averages.phi(mean[:, None] + sigma * averages.nodes) @ averages.hermite
    k = torch.arange(a.shape[-1], dtype=torch.float64)
    powers = (D / D[0])[:, None] ** k
    slopes = k[1:].sqrt() * a[:, 1:] / sigma
    return (shifted(a) * powers).sum(-1), (shifted(slopes) * powers[:, :-1]).sum(-1)


def shifted(a: Float[Tensor, "t k"]) -> Float[Tensor, "t k"]:
    """The mean of a(t) a(t + lag) over t, at each lag, for an ``a`` that repeats. Used in: reservoir."""
    spectrum: Complex[Tensor, "f k"] = torch.fft.rfft(a, dim=0)
    return torch.fft.irfft(spectrum.abs() ** 2, n=len(a), dim=0) / len(a)
