"""Oscillators made of two units, rotation tanh-RNN and GRU, and the angle below which they are at rest."""

# ruff: noqa: E741  (I is the papers' symbol for the input)

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize.elementwise import find_minimum
from torch import Tensor

from slowmanifold.networks.euler import Flow
from slowmanifold.networks.matvec import matvec


def rotation(
    alpha: float | Float[Tensor, "*#batch"], theta: float | Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch 2 2"]:
    """alpha R(theta): a turn by theta (radians) times a gain; the weights of one oscillator.

    Source: Park, slides on learning signals. Used in: limit_cycles.
    """
    alpha, theta = torch.broadcast_tensors(
        torch.as_tensor(alpha, dtype=torch.float64), torch.as_tensor(theta, dtype=torch.float64)
    )
    cos, sin = alpha * theta.cos(), alpha * theta.sin()
    return torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))


@dataclass(frozen=True, eq=False)
class TanhRNN(Flow):
    """The tanh-RNN of d units, as a flow and as the map that is its Euler step of one.

        x' = -x + tanh(W x + b + I)            x_{t+1} = tanh(W x_t + b + I_t)

    With ``W = rotation(alpha, theta)`` two units oscillate: in the flow iff saddle_node_angle(alpha) < |theta| <
    arccos(1/alpha). Without the leak -x, as the slide prints the flow, there is no cycle. ``I`` is the input as it
    reaches the units. Dimensionless, time in units of tau. ``W`` and ``b`` may carry batch axes, one network each.

    Source: Park, slides on learning signals, with the leak added. Used in: limit_cycles.
    """

    W: Float[Tensor, "*#networks d d"]
    b: Float[Tensor, "*#networks d"] = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))

    def rate(
        self, x: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch d"] | None = None
    ) -> Float[Tensor, "*batch d"]:
        """tanh(W x + b + I); ``I=None`` means no input."""
        h = matvec(self.W, x) + self.b
        return torch.tanh(h if I is None else h + I)

    def velocity(
        self, x: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch d"] | None = None
    ) -> Float[Tensor, "*batch d"]:
        """x' = -x + tanh(W x + b + I), per tau."""
        return self.rate(x, I) - x

    def jacobian(
        self, x: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch d"] | None = None
    ) -> Float[Tensor, "*batch d d"]:
        """Derivative of the velocity with respect to the state, -1 + diag(1 - tanh^2) W."""
        slope = 1 - self.rate(x, I) ** 2
        return slope.unsqueeze(-1) * self.W - torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)

    def step_jacobian(
        self, x: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch d"] | None = None, dt: float = 1.0
    ) -> Float[Tensor, "*batch d d"]:
        """Derivative of :meth:`step` with respect to the state; for the map just diag(1 - tanh^2) W."""
        if dt == 1:
            return (1 - self.rate(x, I) ** 2).unsqueeze(-1) * self.W
        return super().step_jacobian(x, I, dt)

    def pushforward(
        self, x: Float[Tensor, "*#batch d"], M: Float[Tensor, "*#batch d k"]
    ) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d k"]]:
        """The map's next state and what k perturbations, the columns of M, become: diag(1 - tanh^2) W M."""
        rate = self.rate(x)
        slope = torch.addcmul(rate.new_ones(()), rate, rate, value=-1)
        return rate, (self.W @ M).mul_(slope.unsqueeze(-1))

    def pullback(
        self, x: Float[Tensor, "*#batch d"], a: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch d"] | None = None
    ) -> Float[Tensor, "*batch d"]:
        """J^T a for the map: what the gradient ``a`` after a step from x becomes before it, W^T ((1 - tanh^2) a)."""
        return matvec(self.W.mT, (1 - self.rate(x, I) ** 2) * a)

    def planar(self) -> Callable[[Tensor, Tensor], tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]:
        """Two units, component by component: (x, y) to tanh(W (x, y) + b) and its derivative's J11, J12, J21, J22.

        State, value and entries are separate tensors with one number for each network, for grids of many thousand
        networks. The map is this function, the flow is x' = -x + this function.
        """
        (a, b), (c, d) = self.W.movedim((-2, -1), (0, 1)).contiguous()
        bias, other = self.b.expand(*self.b.shape[:-1], 2).movedim(-1, 0).contiguous()
        one = torch.ones_like(a)

        def value_and_slopes(x: Tensor, y: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
            u = torch.addcmul(bias, a, x).addcmul_(b, y).tanh_()
            v = torch.addcmul(other, c, x).addcmul_(d, y).tanh_()
            p, q = torch.addcmul(one, u, u, value=-1), torch.addcmul(one, v, v, value=-1)
            return (u, v), (p * a, p * b, q * c, q * d)

        return value_and_slopes

    def perturbed(
        self, V: Float[Tensor, "*#networks d d"], bias: Float[Tensor, "*#networks d"] | float = 0.0
    ) -> "TanhRNN":
        """The same network with the weights W + V and the biases b + bias."""
        return replace(self, W=self.W + V, b=self.b + bias)


@dataclass(frozen=True, eq=False)
class GRU(Flow):
    """The gated recurrent unit without input, as a flow and as the map that is its Euler step of one.

        z = sigmoid(U_z x + b_z),   r = sigmoid(U_r x + b_r),   h = tanh(U_h (r x) + b_h + I)
        x' = (1 - z)(h - x)         x_{t+1} = z x_t + (1 - z) h

    ``z`` keeps the old state (update gate, as in PyTorch), ``r`` resets what the candidate h sees of it. PyTorch
    multiplies by r after U_h instead of before: the same where r is the same for all units. ``I`` reaches the
    candidate. Dimensionless, time in units of tau. Weights and biases may carry batch axes.

    With both gates' weights and biases zero, z = r = 1/2: the tanh-RNN of weights U_h/2 at half the speed.
    Source: Jordan et al. (2021), eqs 1-4; Park, slides. Used in: limit_cycles.
    """

    U_z: Float[Tensor, "*#networks d d"]
    U_r: Float[Tensor, "*#networks d d"]
    U_h: Float[Tensor, "*#networks d d"]
    b_z: Float[Tensor, "*#networks d"]
    b_r: Float[Tensor, "*#networks d"]
    b_h: Float[Tensor, "*#networks d"]

    @classmethod
    def with_open_gates(cls, U_h: Float[Tensor, "*networks d d"], b_z: float = 0.0, b_r: float = 0.0) -> "GRU":
        """A GRU whose gates do not see the state: z = sigmoid(b_z), r = sigmoid(b_r), b_h = 0."""
        none, zero = torch.zeros_like(U_h), torch.zeros_like(U_h[..., 0])
        return cls(U_z=none, U_r=none, U_h=U_h, b_z=zero + b_z, b_r=zero + b_r, b_h=zero)

    def _parts(self, x: Tensor, I: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        z = torch.sigmoid(matvec(self.U_z, x) + self.b_z)
        r = torch.sigmoid(matvec(self.U_r, x) + self.b_r)
        drive = matvec(self.U_h, r * x) + self.b_h
        return z, r, torch.tanh(drive if I is None else drive + I)

    def velocity(
        self, x: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch d"] | None = None
    ) -> Float[Tensor, "*batch d"]:
        """x' = (1 - z)(h - x), per tau."""
        z, _, h = self._parts(x, I)
        return (1 - z) * (h - x)

    def jacobian(
        self, x: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch d"] | None = None
    ) -> Float[Tensor, "*batch d d"]:
        """Derivative of the velocity with respect to the state."""
        z, r, h = self._parts(x, I)
        identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        seen = r.unsqueeze(-1) * identity + (x * r * (1 - r)).unsqueeze(-1) * self.U_r
        candidate = (1 - h**2).unsqueeze(-1) * (self.U_h @ seen)
        gate = (z * (1 - z)).unsqueeze(-1) * self.U_z
        return (1 - z).unsqueeze(-1) * (candidate - identity) - (h - x).unsqueeze(-1) * gate


def saddle_node_angle(alpha: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The angle theta_SN(alpha) at which the four stable equilibria of two units meet their saddles, and vanish.

    An equilibrium x = tanh(alpha R(theta) x) other than 0 has alpha R x = rho (cos phi, sin phi) with

        rho = alpha |tanh(rho cos phi), tanh(rho sin phi)|,   theta = phi - arg(tanh(rho cos phi), tanh(rho sin phi)),

    so every phi belongs to one theta, and theta_SN is the largest of these: (alpha - 1)/(2 sqrt 2) near 1, pi/4 in the
    limit of large alpha. The flow and the map share it. Radians; absolute error below 1e-8 for 1 < alpha <= 50.

    Raises ``ValueError`` unless every alpha is finite and above 1. Source: derived in the chapter on limit cycles.
    Used in: limit_cycles.
    """
    if not ((alpha > 1) & alpha.isfinite()).all():
        raise ValueError(f"alpha is {alpha.tolist()}; allowed: finite numbers above 1")
    gain = alpha.double().flatten().numpy()

    def minus_theta(phi: np.ndarray, gain: np.ndarray) -> np.ndarray:
        cos, sin = np.cos(phi), np.sin(phi)
        rho = math.sqrt(2) * gain
        # alpha |tanh(rho e)| is concave in rho: Newton's iteration from above falls on the root, and stops there.
        while True:
            u, v = np.tanh(rho * cos), np.tanh(rho * sin)
            size = np.hypot(u, v)
            slope = gain * (u * (1 - u * u) * cos + v * (1 - v * v) * sin) / size
            lower = rho - (rho - gain * size) / (1 - slope)
            if not (lower < rho * (1 - 1e-13)).any():
                return np.arctan2(v, u) - phi
            rho = np.minimum(lower, rho)

    # The turn pulls the angle towards the diagonal: it peaks once between the diagonal and the axis, near the axis for
    # large gains.
    diagonal, axis = np.full_like(gain, math.pi / 4), np.full_like(gain, math.pi / 2)
    middle = axis - np.minimum(math.pi / 8, 0.5 / gain)
    found = find_minimum(minus_theta, (diagonal, middle, axis), args=(gain,), tolerances={"xatol": 1e-8, "xrtol": 0})
    return torch.from_numpy(-found.f_x).view(alpha.shape)
