"""Mean-field theory of a reservoir trained to hold M values: sizes, correlations, poles, gains (Rivkind and Barak).

    x' = -x + W phi(x) + w_FB z,   z = w_out . phi(x),   W_ij ~ N(0, g^2/N)

In the limit of large N the field at the n-th target, x_n = w A_n + y_n, is Gaussian given the feedback weight w, with
covariances sigma_nm = g^2 <phi_n phi_m>; what the network does near the target follows from four averages over it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from slowmanifold.networks.reservoir import Phi, rate_function
from slowmanifold.theory.gaussian import RectifierAverages, SmoothAverages, feedback_rule, triple_averages


class NoSolution(RuntimeError):
    """The self-consistency equation of the mean field has no finite solution."""


@dataclass(frozen=True, eq=False)
class SingleTarget:
    """The mean field around one target by itself, for a batch of targets and gains (eqs 8, 11 and 14 of the paper).

    ``pole`` is the closed-loop pole if the network is trained to this target only. Defined also where
    ``spectral_radius`` is 1 or more: then it describes a state that the open loop does not settle to.
    """

    sigma: Float[Tensor, "*batch"]  # standard deviation of the recurrent input W phi(x)
    spectral_radius: Float[Tensor, "*batch"]  # rho of W R', the disk of the open loop's spectrum
    beta_0: Float[Tensor, "*batch"]  # gain from the feedback, g^2 <w phi phi'> / sigma^2
    beta_1: Float[Tensor, "*batch"]  # gain of the fluctuations on themselves, g^2 <y phi phi'> / sigma
    pole: Float[Tensor, "*batch"]  # lambda_out = -(1 - A beta_0 - beta_1), per tau


@dataclass(frozen=True, eq=False)
class MeanField:
    """A network trained to hold each of M targets, in the limit of many neurons; ``n`` counts targets from 0.

    Leading axes are batch axes, of sets of targets. Dimensionless, time and rates in units of tau; ``s`` is the
    Laplace variable, i omega on the imaginary axis. Used in: reservoir.
    """

    targets: Float[Tensor, "*batch M"]
    gain: float
    phi: Phi
    threshold: float
    feedback: str
    sigma: Float[Tensor, "*batch M"]  # standard deviation of the recurrent input at each target
    spectral_radius: Float[Tensor, "*batch M"]  # of W R', at each target
    covariance: Float[Tensor, "*batch M M"]  # sigma_nm = g^2 <phi_n phi_m>
    readout: Float[Tensor, "*batch M"]  # k: w_out = (1/N) sum_m k_m r_m  (eq. 16)
    drive: Float[Tensor, "*batch M M"]  # B_nm = <w phi'_n phi_m>
    open_loop: Float[Tensor, "*batch M M M"]  # J_n without feedback: -1 + g^2 diag(Gamma_n) + g^2 D_n e_n^T

    def closed_loop(self, n: int) -> Float[Tensor, "*batch M M"]:
        """J_n = -1 + g^2 diag_m(Gamma_nm) + g^2 D_n e_n^T + B_n k^T: the M x M matrix that moves the output."""
        return self.open_loop[..., n, :, :] + self.drive[..., n, :, None] * self.readout[..., None, :]

    def poles(self, n: int) -> Complex[Tensor, "*batch M"]:
        """The M poles of the closed loop at target n, by decreasing real, then imaginary part.

        They solve G_OL(s) = 1: the eigenvalues that training adds to the disk, or hides in it.
        """
        poles = torch.linalg.eigvals(self.closed_loop(n))
        poles = poles.gather(-1, poles.imag.argsort(dim=-1, descending=True))
        # Conjugate poles have the same real part but for rounding, which must not decide on their order.
        return poles.gather(-1, (1e-9 * (poles.real * 1e9).round()).argsort(dim=-1, descending=True, stable=True))

    def open_loop_gain(self, n: int, s: Complex[Tensor, "..."]) -> Complex[Tensor, "..."]:
        """G_OL(s) = k^T (s - J_n^OL)^{-1} B_n, of shape (*batch, *s): eqs 13 and 17, with eq. 18 put right."""
        return _transfer(self.open_loop[..., n, :, :], self.drive[..., n, :], self.readout, s)

    def closed_loop_gain(self, n: int, s: Complex[Tensor, "..."]) -> Complex[Tensor, "..."]:
        """G_CL = G_OL / (1 - G_OL) (eq. 7), of shape (*batch, *s)."""
        return _transfer(self.closed_loop(n), self.drive[..., n, :], self.readout, s)

    def impulse_response(self, n: int, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """z(t) = k^T exp(J_n t) B_n, of shape (*batch, *t): the output after a kick of w_FB, per size of the kick."""
        J = self.closed_loop(n).unsqueeze(-3)
        moved = torch.linalg.matrix_exp(J * t.reshape(-1, 1, 1)) @ self.drive[..., n, None, :, None]
        return (moved.squeeze(-1) * self.readout.unsqueeze(-2)).sum(-1).reshape(*self.targets.shape[:-1], *t.shape)

    def input_power(self, n: int, s: Complex[Tensor, "..."]) -> Float[Tensor, "..."]:
        """N E|G_in(s)|^2 / <w_in^2> of the open loop, for an input through weights w_in that know of nothing else.

        The mean of that gain is zero: what is left is of order N^{-1/2}, with the variance (q = 1 + s)

            kappa^T Q conj(kappa) |q|^2 / (|q|^2 - rho_n^2),    kappa = (q - (1 + J_n^OL)^T)^{-1} k,
            Q_ll' = <phi_l phi_l' phi'_n^2>.

        The closed loop has the same divided by |1 - G_OL|^2. For one set of targets; of the shape of ``s``, which must
        lie outside the disk, |1 + s| > rho_n, or ``ValueError``. Not in the paper.
        """
        q = 1 + s.reshape(-1)
        rho = float(self.spectral_radius[n])
        if not (q.abs() > rho).all():
            raise ValueError(f"s has values within {rho:.4f} of -1, in the disk; allowed: outside of it")
        M = len(self.targets)
        identity = torch.eye(M, dtype=torch.float64)
        A = q[:, None, None] * identity - (identity + self.open_loop[n]).mT
        kappa = torch.linalg.solve(A, self.readout.expand(len(q), M).to(q.dtype))
        w, p = feedback_rule(self.feedback, float(self.targets.abs().max()), SmoothAverages.w_nodes)
        Q = triple_averages(rate_function(self.phi, self.threshold), n, self.targets, self.covariance, w, p)
        power = torch.einsum("sl,lm,sm->s", kappa, Q.to(q.dtype), kappa.conj()).real
        return (power * q.abs() ** 2 / (q.abs() ** 2 - rho**2)).reshape(s.shape)

    def output_map(self, z: Float[Tensor, " z"]) -> Float[Tensor, " z"]:
        """T(z) = sum_m k_m <phi(x_z) phi(x_m)>: what is read out when z is fed back, for one set of targets.

        Its fixed points are the network's stationary outputs, and its slope at a target is the gain G_OL(0). Raises
        ``ValueError`` where the open loop clamped to z does not settle, and for z = 0 if phi is odd.
        """
        M = len(self.targets)
        both = torch.cat([z.unsqueeze(-1), self.targets.expand(len(z), M)], dim=-1)
        C, *_ = _averages(both, self.gain, self.phi, self.threshold, self.feedback)[1]
        return C[:, 0, 1:] @ self.readout


def single_target(
    target: Float[Tensor, "*#batch"],
    gain: Float[Tensor, "*#batch"],
    phi: Phi = "tanh",
    threshold: float = 0.0,
    feedback: str = "uniform",
) -> SingleTarget:
    """Solve sigma^2 = g^2 <phi^2(w A + sigma y)> for many targets and gains at once, by Newton's method.

    Raises what :func:`solve` raises, but not for a spectral radius of 1 or more. Source: Rivkind and Barak, eqs 8-14.
    Used in: reservoir.
    """
    target, gain = torch.broadcast_tensors(target, gain)
    if not (gain.isfinite() & (gain > 0)).all():
        raise ValueError(f"gain is {gain.tolist()}; allowed: positive finite numbers")
    if not target.isfinite().all():
        raise ValueError(f"targets has {int((~target.isfinite()).sum())} values that are not finite")
    averages = _gaussian(phi, threshold, float(gain.max()))
    w, p = feedback_rule(feedback, float(target.abs().max()), averages.w_nodes)
    mean = target.unsqueeze(-1) * w

    def excess(variance: Tensor) -> tuple[Tensor, Tensor]:
        square, rise = averages.square(mean, variance)
        return variance - gain**2 * (square @ p), 1 - gain**2 * (rise @ p)

    upper = torch.ones_like(target)
    while (low := excess(upper)[0] < 0).any():
        upper = torch.where(low, 2 * upper, upper)
        if upper.max() > 1e12:
            raise NoSolution(
                f"the fluctuations grow without bound at gain {gain[low].min():g}; "
                "lower the gain (a rectifier needs less than sqrt 2)"
            )
    sigma = _root(excess, torch.zeros_like(upper), upper, torch.full_like(upper, 1e-15)).sqrt()
    if (silent := sigma < 1e-7).any():
        raise ValueError(
            f"targets: {target[silent][0]:g} leaves the reservoir silent, nothing can be read from it; "
            "allowed: targets that drive it, for odd phi not zero"
        )
    _, slope, product, y_product = averages.single(mean, sigma)
    beta_0 = (gain / sigma) ** 2 * (product @ (p * w))
    beta_1 = gain**2 * (y_product @ p) / sigma
    return SingleTarget(sigma, gain * (slope @ p).sqrt(), beta_0, beta_1, target * beta_0 + beta_1 - 1)


def solve(
    targets: Float[Tensor, "*batch M"] | list[float],
    gain: float,
    phi: Phi = "tanh",
    threshold: float = 0.0,
    feedback: str = "uniform",
) -> MeanField:
    """The mean field of a reservoir of gain g with a least-squares readout of all ``targets``.

    ``phi`` is ``"tanh"``, ``"erf"``, ``"relu"`` (with ``threshold``) or a smooth function of a tensor; no derivative is
    asked for. ``feedback`` is the law of w_FB: ``"uniform"`` on (-1, 1), ``"normal"``, ``"signs"``.

    Raises ``ValueError`` for a gain or targets that are not allowed, where the spectral radius at a target is 1 or
    more (no fading memory: the open loop does not settle), and for targets that cannot be told apart by a linear
    readout (equal ones; A and -A if phi is odd; 0 if phi(0) = 0); :class:`NoSolution` if the fluctuations have no
    finite size. Source: Rivkind and Barak, eqs 8-18 and supplement. Used in: reservoir.
    """
    targets = torch.as_tensor(targets, dtype=torch.float64)
    if targets.ndim == 0 or targets.shape[-1] == 0:
        raise ValueError(f"targets has shape {tuple(targets.shape)}; allowed: (..., M) with M >= 1")
    single, (C, Gamma, B, D) = _averages(targets, gain, phi, threshold, feedback)
    if not (torch.linalg.cond(C) < 1e12).all():
        raise ValueError(
            f"targets: the states at {targets.tolist()} are linearly dependent; "
            "allowed: different targets, for odd phi of different size"
        )
    identity = torch.eye(targets.shape[-1], dtype=C.dtype)
    return MeanField(
        targets=targets,
        gain=gain,
        phi=phi,
        threshold=threshold,
        feedback=feedback,
        sigma=single.sigma,
        spectral_radius=single.spectral_radius,
        covariance=gain**2 * C,
        readout=torch.linalg.solve(C, targets.unsqueeze(-1)).squeeze(-1),
        drive=B,
        open_loop=gain**2 * (torch.diag_embed(Gamma) + D.unsqueeze(-1) * identity.unsqueeze(-2)) - identity,
    )


def _gaussian(phi: Phi, threshold: float, scale: float) -> SmoothAverages | RectifierAverages:
    rate = rate_function(phi, threshold)
    return RectifierAverages(threshold) if phi == "relu" else SmoothAverages(rate, scale)


def _averages(
    targets: Tensor, gain: float, phi: Phi, threshold: float, feedback: str
) -> tuple[SingleTarget, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Each target by itself, and <phi_n phi_m>, <phi'_n phi'_m>, <w phi'_n phi_m>, <phi''_n phi_m> of all pairs.

    Off the diagonal sigma_nm = g^2 <phi_n phi_m> has exactly one solution: by Cauchy and Schwarz the right-hand side
    contracts with factor rho_n rho_m < 1.
    """
    single = single_target(targets, torch.tensor(float(gain), dtype=targets.dtype), phi, threshold, feedback)
    if (chaotic := single.spectral_radius >= 1).any():
        raise ValueError(
            f"the spectral radius at target {targets[chaotic][0]:g} is {single.spectral_radius[chaotic][0]:.4f}: no "
            f"fading memory; allowed: less than 1 (lower the gain {gain:g}, or, if phi saturates, take larger targets)"
        )
    averages = _gaussian(phi, threshold, gain)
    w, p = feedback_rule(feedback, float(targets.abs().max()), averages.w_nodes)
    pairs = averages.pairs(targets.unsqueeze(-1) * w, single.sigma, w, p)
    size = single.sigma.unsqueeze(-1) * single.sigma.unsqueeze(-2)

    def excess(covariance: Tensor) -> tuple[Tensor, Tensor]:
        value, slope, _, _ = pairs(covariance / size)
        return covariance - gain**2 * value, 1 - gain**2 * slope

    covariance = _root(excess, -size, size, size)
    moments = pairs(covariance / size)
    # On the diagonal the averages are known better: the correlation is 1.
    rho2 = single.spectral_radius**2
    diagonals = single.sigma**2, rho2, single.beta_0 * single.sigma**2, single.beta_1 - rho2
    diagonal = torch.eye(targets.shape[-1], dtype=torch.bool)
    exact = (torch.where(diagonal, torch.diag_embed(d / gain**2), m) for d, m in zip(diagonals, moments, strict=True))
    return single, tuple(exact)


def _transfer(J: Tensor, b: Tensor, k: Tensor, s: Tensor) -> Tensor:
    """k^T (s - J)^{-1} b for all s, of shape (*batch, *s)."""
    A = s.reshape(-1, 1, 1) * torch.eye(J.shape[-1], dtype=J.dtype) - J.unsqueeze(-3)
    x = torch.linalg.solve(A, b[..., None, :, None].to(A.dtype)).squeeze(-1)
    return (x * k.unsqueeze(-2)).sum(-1).reshape(*J.shape[:-2], *s.shape)


def _root(function: Callable[[Tensor], tuple[Tensor, Tensor]], lower: Tensor, upper: Tensor, floor: Tensor) -> Tensor:
    """Where functions that go from below to above zero cross it: Newton's method within a bracket, element by element.

    To a step of 1e-10 of the larger of |x| and ``floor``; as Newton converges quadratically the error is far smaller.
    """
    x = (lower + upper) / 2
    for _ in range(200):
        value, slope = function(x)
        lower, upper = torch.where(value <= 0, x, lower), torch.where(value > 0, x, upper)
        newton = x - value / slope
        new = torch.where((newton >= lower) & (newton <= upper), newton, (lower + upper) / 2)
        if ((new - x).abs() <= 1e-10 * torch.maximum(x.abs(), floor)).all():
            return new
        x = new
    raise NoSolution("the self-consistency equation has not converged; change the gain or the targets a little")
