"""FORCE: a readout trained inside its own feedback loop, by recursive least squares (Sussillo and Abbott 2009)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from slowmanifold.networks.reservoir import Reservoir


@dataclass(frozen=True, eq=False)
class Forced:
    """What FORCE leaves behind."""

    w_out: Float[Tensor, " N"]
    output: Float[Tensor, " T"]  # z before each update of the weights
    state: Float[Tensor, " N"]  # where the network is at the end
    P: Float[Tensor, "N N"]  # inverse of alpha plus the sum of r r^T over the past: to go on with


def force(
    reservoir: Reservoir,
    target: Float[Tensor, " T"],
    w_out: Float[Tensor, " N"],
    state: Float[Tensor, " N"],
    P: Float[Tensor, "N N"],
    dt: float = 0.1,
) -> Forced:
    """Run the closed loop by Euler steps of ``dt`` (in tau); after each correct w_out towards the target f.

        e = w_out . r - f,   P <- P - P r r^T P / (1 + r^T P r),   w_out <- w_out - e P r

    so that at every time w_out minimises the sum of (w . r - f)^2 over the past plus (w - w_0)^T P_0^{-1} (w - w_0):
    start with P_0 = 1/alpha, and hand over P from one episode to the next. Raises ``ValueError`` if dt is not in
    (0, 1].
    Source: Sussillo and Abbott, Neuron 63 (2009). Used in: reservoir.
    """
    if not 0 < dt <= 1:
        raise ValueError(f"dt is {dt}; allowed: 0 < dt <= 1")
    x, w, P, output = state, w_out.clone(), P.clone(), []
    r = reservoir.phi(x)
    for f in target:
        z = r @ w
        x = x + dt * (reservoir.W @ r - x + z * reservoir.w_FB)
        r = reservoir.phi(x)
        z = r @ w
        output.append(z)
        Pr = P @ r
        step = Pr / (1 + r @ Pr)
        w -= (z - f) * step
        P.addr_(Pr, step, alpha=-1)
    return Forced(w, torch.stack(output), x, P)
