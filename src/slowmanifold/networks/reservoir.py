"""The random reservoir of Rivkind and Barak, with a readout that is trained and fed back."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Phi = str | Callable[[Tensor], Tensor]
"""``"tanh"``, ``"erf"`` (erf(sqrt(pi) x/2), of slope 1 at zero), ``"relu"``, or any smooth function of a tensor."""

FEEDBACK: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "uniform": lambda generator, N: generator.uniform(-1, 1, N),
    "normal": lambda generator, N: generator.standard_normal(N),
    "signs": lambda generator, N: generator.choice([-1.0, 1.0], N),
}


class NotSettled(RuntimeError):
    """The open loop did not come to rest: at this target the network has no fading memory.

    Used in: reservoir.
    """


def rate_function(phi: Phi, threshold: float = 0.0) -> Callable[[Tensor], Tensor]:
    """The nonlinearity itself; ``threshold`` is the rectifier's. ``ValueError`` for an unknown name.

    Used in: reservoir.
    """
    if threshold and phi != "relu":
        raise ValueError(f"threshold is {threshold}; allowed: 0, but for phi='relu'")
    if not isinstance(phi, str):
        return phi
    if phi not in ("tanh", "erf", "relu"):
        raise ValueError(f"phi is {phi!r}; allowed: 'tanh', 'erf', 'relu', or a smooth function of a tensor")
    return {
        "tanh": torch.tanh,
        "erf": lambda x: torch.erf(x * (math.sqrt(math.pi) / 2)),
        "relu": lambda x: torch.relu(x - threshold),
    }[phi]


def slope(phi: Callable[[Tensor], Tensor], x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """phi' at x, by automatic differentiation.

    Used in: reservoir.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(phi(x).sum(), x)[0]


@dataclass(frozen=True, eq=False)
class Reservoir:
    """N neurons with random weights, driven through w_FB by a number f: the open loop.

        x' = -x + W phi(x) + w_FB f                                 [eq. 2]

    Dimensionless, time in units of tau. Source: Rivkind and Barak, eqs 1-3. Used in: reservoir.
    """

    W: Float[Tensor, "N N"]
    w_FB: Float[Tensor, " N"]
    phi: Callable[[Tensor], Tensor]

    def velocity(self, x: Float[Tensor, "*batch N"], f: Float[Tensor, "*#batch"]) -> Float[Tensor, "*batch N"]:
        """x' of the open loop, per tau. Source: eq. 2."""
        return -x + self.phi(x) @ self.W.mT + f.unsqueeze(-1) * self.w_FB

    def settle(
        self, targets: Float[Tensor, " M"], tol: float = 1e-10, max_iterations: int = 4000
    ) -> Float[Tensor, "M N"]:
        """The states in which the open loop rests when driven by each of the targets, all at once.

        Euler steps of length 0.8 converge like (0.2 + 0.8 rho)^n, and no Krylov method would do much better: the
        spectrum of W R' fills its disk. (A step of 1 would ask for |eigenvalues of W R'| < 1, the flow asks only for
        real parts below 1: near the edge of chaos that differs.) They end when no neuron is pulled by more than
        ``tol``. Raises :class:`NotSettled` if that does not happen, as for rho >= 1. Source: eq. 3.
        """
        drive = targets.unsqueeze(-1) * self.w_FB
        x = drive
        for _ in range(max_iterations):
            pull = self.phi(x) @ self.W.mT + drive - x
            if pull.abs().max() <= tol:
                return x
            x = x + 0.8 * pull
        raise NotSettled(
            f"targets {targets.tolist()}: neurons are pulled by {float(pull.abs().max()):.1e} after "
            f"{max_iterations} steps; lower the gain or, for a saturating phi, take larger targets"
        )

    def train(self, targets: Float[Tensor, " M"], states: Float[Tensor, "M N"]) -> "TrainedReservoir":
        """The least-squares readout: the shortest w_out with w_out . phi(x_m) = A_m at each of the states (eq. 16).

        Raises ``ValueError`` if the rates are linearly dependent.
        """
        rates = self.phi(states)
        products = rates @ rates.mT
        if not torch.linalg.cond(products) < 1e12:
            raise ValueError(
                f"states: the rates at {targets.tolist()} are linearly dependent; allowed: independent ones"
            )
        k = torch.linalg.solve(products, targets)
        return TrainedReservoir(self, k @ rates)


@dataclass(frozen=True, eq=False)
class TrainedReservoir:
    """A reservoir whose readout is fed back: the closed loop.

        x' = -x + W phi(x) + w_FB z,     z = w_out . phi(x)         [eq. 1]

    Source: Rivkind and Barak, eq. 1. Used in: reservoir.
    """

    reservoir: Reservoir
    w_out: Float[Tensor, " N"]

    def output(self, x: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch"]:
        """z = w_out . phi(x)."""
        return self.reservoir.phi(x) @ self.w_out

    def velocity(self, x: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch N"]:
        """x' of the closed loop, per tau. Source: eq. 1."""
        rates = self.reservoir.phi(x)
        return -x + rates @ self.reservoir.W.mT + (rates @ self.w_out).unsqueeze(-1) * self.reservoir.w_FB

    def linearised(self, x: Float[Tensor, " N"]) -> "Linearised":
        """The linear system that the open loop is near the state x."""
        r_prime = slope(self.reservoir.phi, x)
        return Linearised(self.reservoir.W, r_prime, self.reservoir.w_FB, r_prime * self.w_out)


@dataclass(frozen=True, eq=False)
class Linearised:
    """The open loop near a state: dx' = A dx + b df, dz = c . dx, with A = -1 + W R'; closing it adds b c^T to A.

    Near several states, of one W, at once if ``slope`` and ``c`` have a leading axis; ``matrix`` is of one state.
    Source: Rivkind and Barak, eqs 4-6. Used in: reservoir.
    """

    W: Float[Tensor, "N N"]
    slope: Float[Tensor, "*states N"]  # the diagonal of R'
    b: Float[Tensor, " N"]  # w_FB
    c: Float[Tensor, "*states N"]  # R' w_out

    def apply(self, v: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch N"]:
        """A v."""
        return (self.slope * v) @ self.W.mT - v

    def apply_transposed(self, v: Float[Tensor, "*batch N"]) -> Float[Tensor, "*batch N"]:
        """A^T v."""
        return self.slope * (v @ self.W) - v

    def single(self) -> "Linearised":
        """The same in single precision."""
        return Linearised(*(tensor.float() for tensor in (self.W, self.slope, self.b, self.c)))

    def matrix(self, closed: bool) -> Float[Tensor, "N N"]:
        """A, or A + b c^T of the closed loop (eq. 4), as a dense matrix."""
        A = self.W * self.slope - torch.eye(len(self.slope), dtype=self.W.dtype)
        return A + torch.outer(self.b, self.c) if closed else A


def sample(
    N: int,
    gain: float,
    generator: np.random.Generator,
    phi: Phi = "tanh",
    threshold: float = 0.0,
    feedback: str = "uniform",
) -> Reservoir:
    """A random reservoir: W_ij ~ N(0, gain^2/N), w_FB i.i.d. ``"uniform"`` on (-1, 1), ``"normal"`` or ``"signs"``.

    Raises ``ValueError`` for N < 1, a gain that is not positive, an unknown phi or feedback. Source: Rivkind and
    Barak, eq. 1. Used in: reservoir.
    """
    if N < 1:
        raise ValueError(f"N is {N}; allowed: 1, 2, ...")
    if not 0 < gain < math.inf:
        raise ValueError(f"gain is {gain}; allowed: positive finite numbers")
    if feedback not in FEEDBACK:
        raise ValueError(f"feedback is {feedback!r}; allowed: {', '.join(map(repr, FEEDBACK))}")
    W = generator.standard_normal((N, N))
    W *= gain / math.sqrt(N)
    return Reservoir(
        torch.from_numpy(W), torch.from_numpy(FEEDBACK[feedback](generator, N)), rate_function(phi, threshold)
    )
