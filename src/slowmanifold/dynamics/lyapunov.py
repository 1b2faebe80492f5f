"""How small perturbations grow: Lyapunov exponents, norms of adjoints."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from slowmanifold.dynamics.flow import Field, Jacobian

Tangent = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""States x (..., d) and perturbations M (..., d, k) to the field f(x) and J(x) M."""

_SAFE = 1e-4  # ratio of the lengths of perturbations down to which products of them are precise enough
_TINY = 1e-100  # length of perturbations whose products come near the end of the range of numbers

Planar = Callable[[Tensor, Tensor], tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]
"""A map of the plane: (x, y) to its value (u, v) and its derivative's entries (J11, J12, J21, J22), all separate."""


@dataclass(frozen=True, eq=False)
class LyapunovSpectrum:
    """Lyapunov exponents, per step of a map or per tau of a flow; leading axes are batch axes."""

    exponents: Float[Tensor, "*batch k"]  # descending
    error: Float[Tensor, "*batch k"]  # half the difference between the estimates from the run's two halves


@dataclass(frozen=True, eq=False)
class PlanarSpectrum(LyapunovSpectrum):
    """Both exponents of systems of two variables, and how fast the state turns about the origin."""

    rotation: Float[Tensor, "*batch"]  # mean angle over the second half, in (-pi, pi] each step; per step or per tau
    states: Float[Tensor, "*batch 2"]  # at the end of the run


def lyapunov_spectrum(
    field: Field | Tangent,
    jacobian: Jacobian | None,
    x0: Float[Tensor, "*batch d"],
    steps: int,
    *,
    transient: int = 0,
    every: int = 1,
    dt: float | None = None,
    frame: Float[Tensor, "*#batch d k"] | None = None,
) -> LyapunovSpectrum:
    """The exponents lim 1/T log|growth| of k-dimensional volumes of perturbations, by repeated QR decomposition.

    Perturbations follow M_{t+1} = J(x_t) M_t (a map, ``dt=None``) or M' = J(x) M (a flow, by the classical Runge-Kutta
    method with step ``dt``, in tau). Each ``every`` steps M = QR is replaced by Q; the exponents are the weighted mean
    of log|R_ii| with the weights exp(-1/(s (1 - s))), s in (0, 1) the place in the run. The limit is that of the plain
    mean; but on a cycle or a torus the plain mean's error falls like 1/steps, the weighted one's faster than any power,
    so that a zero exponent shows as one. ``transient`` steps are thrown away first: they take the state to the
    attractor and the frame to its place. ``frame`` are the k initial perturbations, by default the identity (all
    exponents); for fewer give directions that no invariant subspace contains, say random ones. With ``jacobian=None``
    the field itself takes x and M and gives f(x) and J(x) M, without a need to form J: ``TanhRNN.pushforward``. Batch
    axes of x0 and of the field's parameters stay. Rounding limits ``every``: what contracts exp(30) times more than
    something else between two decompositions is lost; up to exp(9) the decompositions are of the fast kind. Batches
    whose frames and weights fit the processor's cache are fastest (on 2 MB: 256 networks of 16 units, 16 of 64).

    Raises ``ValueError`` unless 2 ``every`` divides ``steps``, ``every`` divides ``transient`` and dt is positive;
    ``FloatingPointError`` if a perturbation over- or underflows between two decompositions.
    Source: Benettin et al. (1980); the weights: Das et al. (2017). Used in: limit_cycles.
    """
    _require_parts(steps, transient, every)
    advance = _advance(field if jacobian is None else lambda x, M: (field(x), jacobian(x) @ M), dt)
    d = x0.shape[-1]
    x, Q = x0, torch.eye(d, dtype=x0.dtype, device=x0.device) if frame is None else torch.linalg.qr(frame)[0]
    Q = Q.expand(*x0.shape, Q.shape[-1])
    rates, weights = Q.new_zeros(3, *x0.shape[:-1], Q.shape[-1]), _weights(steps // every, x0)
    for index in range(-transient // every, steps // every):
        for _ in range(every):
            x, Q = advance(x, Q)
        Q, growth = _orthonormalise(Q)
        if index >= 0:
            _accumulate(rates, weights[index], growth.log())
    return LyapunovSpectrum(*_estimate(rates / (every * (dt or 1.0))))


def _orthonormalise(M: Float[Tensor, "*batch d k"]) -> tuple[Float[Tensor, "*batch d k"], Float[Tensor, "*batch k"]]:
    """Q and the sizes of R's diagonal for M = QR, by Cholesky's decomposition M^T M = R^T R where that is safe.

    Q = M R^-1 is then orthonormal to 1e-16 times the squared ratio of the diagonal, here at most 1e-8, and M = QR holds
    to rounding: so what Q lacks in one decomposition the next one makes up for, and the errors do not add up. The
    Householder decomposition, for wider ratios, takes about three times as long.
    """
    L, failed = torch.linalg.cholesky_ex(M.mT @ M)
    size = L.diagonal(dim1=-2, dim2=-1)
    if not failed.any() and (size.amin(-1) > _SAFE * size.amax(-1).clamp(min=_TINY)).all():
        return torch.linalg.solve_triangular(L.mT, M, upper=True, left=False), size
    Q, R = torch.linalg.qr(M)
    return Q, R.diagonal(dim1=-2, dim2=-1).abs()


def _require_parts(steps: int, transient: int, every: int) -> None:
    if not (every >= 1 and steps >= 1 and steps % (2 * every) == 0 and transient >= 0 and transient % every == 0):
        raise ValueError(
            f"steps, transient, every are {steps}, {transient}, {every}; allowed: every >= 1, steps a multiple of "
            "2 every, transient one of every"
        )


def _weights(n: int, like: Tensor) -> Float[Tensor, "n 3"]:
    """Weights of n summands in the mean over a run, over its first half, and over its second half."""

    def bump(n: int) -> Tensor:
        s = (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) / n
        w = torch.exp(-1 / (s * (1 - s)))
        return w / w.sum()

    half, none = bump(n // 2), torch.zeros_like(bump(n // 2))
    return torch.stack([bump(n), torch.cat([half, none]), torch.cat([none, half])], -1)


def _accumulate(rates: Tensor, weights: Float[Tensor, " 3"], growth: Tensor) -> None:
    for rate, weight in zip(rates, weights.tolist(), strict=True):
        if weight:
            rate.add_(growth, alpha=weight)


def _estimate(rates: Float[Tensor, "3 *batch k"]) -> tuple[Tensor, Tensor]:
    """The rates over the run, descending, and half the difference between those over its halves."""
    if not rates.isfinite().all():
        raise FloatingPointError("a perturbation over- or underflowed: put it back to size more often (every)")
    whole, first, second = rates
    order = whole.argsort(-1, descending=True)
    return whole.gather(-1, order), ((first - second).abs() / 2).gather(-1, order)


def _advance(tangent: Tangent, dt: float | None) -> Tangent:
    """One step of a map, or a Runge-Kutta step of a flow, for states and perturbations together."""
    if dt is None:
        return tangent
    _require_positive(dt)

    def runge_kutta(x: Tensor, M: Tensor) -> tuple[Tensor, Tensor]:
        k1, K1 = tangent(x, M)
        k2, K2 = tangent(x.add(k1, alpha=dt / 2), M.add(K1, alpha=dt / 2))
        k3, K3 = tangent(x.add(k2, alpha=dt / 2), M.add(K2, alpha=dt / 2))
        k4, K4 = tangent(x.add(k3, alpha=dt), M.add(K3, alpha=dt))
        return _average(x, k1, k2, k3, k4, dt), _average(M, K1, K2, K3, K4, dt)

    return runge_kutta


def _average(y: Tensor | float, k1: Tensor, k2: Tensor, k3: Tensor, k4: Tensor, dt: float) -> Tensor:
    """Where the classical Runge-Kutta method arrives, y + dt/6 (k1 + 2 k2 + 2 k3 + k4)."""
    return y + (k2 + k3).mul_(2).add_(k1).add_(k4).mul_(dt / 6)


def _require_positive(dt: float) -> None:
    if not dt > 0:
        raise ValueError(f"dt is {dt}; allowed: None (a map) or a positive number")


def planar_spectrum(
    planar: Planar,
    x0: Float[Tensor, "*batch 2"],
    steps: int,
    *,
    transient: int = 0,
    every: int = 4,
    dt: float | None = None,
) -> PlanarSpectrum:
    """Both Lyapunov exponents in the plane, without a decomposition: one tangent vector and the determinant.

    The larger exponent is the growth of one vector, and the sum of both is the mean of log|det J| (a map) or of the
    divergence (a flow). ``planar`` gives g and its derivative; with ``dt=None`` the system is the map x -> g(x), with a
    step it is the flow x' = -x + g(x), by the classical Runge-Kutta method. The vector is put back to length one each
    ``every`` steps. Any number of systems costs a few vector operations a step; the values are those of
    :func:`lyapunov_spectrum`.

    Raises ``ValueError`` unless 2 ``every`` divides ``steps``, ``every`` divides ``transient`` and dt is positive;
    ``FloatingPointError`` if a perturbation over- or underflows in between. Used in: limit_cycles.
    """
    _require_parts(steps, transient, every)
    advance = _planar_map(planar) if dt is None else _planar_flow(planar, dt)
    x, y = x0.movedim(-1, 0).contiguous().unbind(0)
    v, w = torch.full_like(x, 0.8), torch.full_like(x, 0.6)
    rates, turned = x.new_zeros(3, *x.shape, 2), torch.zeros_like(x)
    weights = _weights(steps // every, x)
    for index in range(-transient // every, steps // every):
        volume = torch.ones_like(x)
        for _ in range(every):
            (x1, y1), (v, w), det = advance(x, y, v, w)
            volume *= det
            if 2 * index * every >= steps:
                turned += torch.atan2(x * y1 - y * x1, x * x1 + y * y1)
            x, y = x1, y1
        size = torch.hypot(v, w)
        v, w = v / size, w / size
        if index >= 0:
            _accumulate(rates[..., 0], weights[index], size.log())
            _accumulate(rates[..., 1], weights[index], (volume.abs() / size).log())
    duration = dt or 1.0
    return PlanarSpectrum(
        *_estimate(rates / (every * duration)),
        rotation=turned / (steps // 2 * duration),
        states=torch.stack([x, y], -1),
    )


def _planar_map(planar: Planar) -> Callable:
    def advance(x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> tuple:
        value, (a, b, c, d) = planar(x, y)
        return value, (a * v + b * w, c * v + d * w), a * d - b * c

    return advance


def _planar_flow(planar: Planar, dt: float) -> Callable:
    _require_positive(dt)

    def rates(x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        (f, g), (a, b, c, d) = planar(x, y)
        return f - x, g - y, a * v + b * w - v, c * v + d * w - w, a + d - 2

    def advance(x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> tuple:
        z = (x, y, v, w)
        k1 = rates(*z)
        k2 = rates(*(s.add(k, alpha=dt / 2) for s, k in zip(z, k1, strict=False)))
        k3 = rates(*(s.add(k, alpha=dt / 2) for s, k in zip(z, k2, strict=False)))
        k4 = rates(*(s.add(k, alpha=dt) for s, k in zip(z, k3, strict=False)))
        x, y, v, w, volume = (_average(*slopes, dt) for slopes in zip((*z, 0), k1, k2, k3, k4, strict=True))
        return (x, y), (v, w), volume.exp()

    return advance


def largest_exponent(
    step: Field, x0: Float[Tensor, "*batch d"], kick: Float[Tensor, "*#batch d"], steps: int, transient: int = 0
) -> Float[Tensor, "*batch"]:
    """The largest exponent from two trajectories of a map, without any derivative: a check of the others.

    The second trajectory starts a ``kick`` away, a finite one, and after each step is put back to that distance in the
    direction in which it went; returned is the mean logarithm of the growth, per step, after ``transient`` steps. Its
    bias is of the order of the kick. A flow is followed by a map that takes it some time ahead.

    Raises ``ValueError`` for steps < 1, transient < 0 or a kick of zero.
    Source: Benettin, Galgani and Strelcyn (1976). Used in: limit_cycles.
    """
    size = torch.linalg.vector_norm(kick, dim=-1, keepdim=True)
    if steps < 1 or transient < 0 or not (size > 0).all():
        raise ValueError(
            f"steps is {steps}, transient {transient}, the shortest kick {size.min():g}; allowed: at least 1, 0, > 0"
        )
    x, y = x0, x0 + kick
    total = torch.zeros_like(x0[..., 0])
    for index in range(-transient, steps):
        x, y = step(x), step(y)
        apart = y - x
        distance = torch.linalg.vector_norm(apart, dim=-1, keepdim=True)
        y = x + apart * (size / distance)
        if index >= 0:
            total = total + (distance / size).log().squeeze(-1)
    return total / steps


def adjoint_norms(
    pullback: Callable[[Tensor, Tensor], Tensor],
    orbit: Float[Tensor, "T *batch d"],
    adjoint: Float[Tensor, "*#batch d"],
) -> Float[Tensor, "T ..."]:
    """log|a_n| of the adjoint a_n = J(x_{T-n})^T a_{n-1}, n = 1, 2, ..., that a gradient a_0 at the end becomes.

    ``orbit`` are the T + 1 states of a map; ``pullback(x, a)`` gives J(x)^T a for a step from x. Natural logarithms for
    n = 0 ... T; norms may pass far beyond the range of floating-point numbers. A norm of exactly zero has the logarithm
    -inf. Used in: limit_cycles.
    """
    a, sizes = adjoint.expand(orbit.shape[1:]), []
    for t in range(len(orbit) - 1, -1, -1):
        size = torch.linalg.vector_norm(a, dim=-1, keepdim=True)
        sizes.append(size)
        if t > 0:
            a = pullback(orbit[t - 1], a / torch.where(size > 0, size, 1))
    return torch.stack(sizes).squeeze(-1).log().cumsum(0)
