"""Limit cycles of a flow: a point, the period, and what becomes of small perturbations in one turn."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from slowmanifold.dynamics.flow import Field, Jacobian, flow, tangent_flow


class NoCycle(RuntimeError):
    """No periodic orbit was found where one was looked for."""


@dataclass(frozen=True, eq=False)
class Cycle:
    """A periodic orbit of a flow: a point of it, the period (in tau), and the Floquet multipliers, largest first.

    One multiplier is 1: that of a shift along the orbit. The exponents of a stable cycle are log|multiplier|/period.
    """

    point: Float[Tensor, " d"]
    period: float
    multipliers: Complex[Tensor, " d"]


def floquet_multipliers(
    field: Field,
    jacobian: Jacobian,
    x0: Float[Tensor, " d"],
    *,
    transient: float = 100.0,
    longest: float = 1000.0,
    tol: float = 1e-8,
) -> Cycle:
    """The stable cycle of a flow that the trajectory from x0 tends to, and its Floquet multipliers.

    The state is followed for ``transient`` tau. Through where it is then goes a Poincaré section, at a right angle to
    the velocity; the first return close by, within ``longest`` tau, is the first guess for Newton's iteration on
    point and period together, phi_T(x) - x = 0 on the section. It ends with the first step shorter than ``tol``; the
    flow over a period is integrated the more accurately the shorter the steps, at last to ``tol``/1000. The
    multipliers are the eigenvalues of the tangent map over a period. Dimensionless, time in units of tau.

    Raises ``ValueError`` for a transient that is not positive and finite; :class:`NoCycle` where the state comes to
    rest, does not come back, or the iteration does not converge. Used in: limit_cycles.
    """
    if not 0 < transient < math.inf:
        raise ValueError(f"transient is {transient}; allowed: positive finite numbers")
    settled = flow(field, x0, torch.tensor([0.0, transient], dtype=x0.dtype), 1e-6, 1e-9)[-1]
    velocity = field(settled)
    if velocity.norm() < 1e-7:
        raise NoCycle(f"the state is at rest after {transient:g} tau")
    # The time in which the state moves by a twentieth of its size at the present speed.
    resolution = (0.05 * (1 + settled.norm()) / velocity.norm()).item()
    horizon, period = 20 * resolution, None
    while period is None:
        if horizon > longest:
            raise NoCycle(f"the state does not come back within {longest:g} tau")
        times = torch.arange(0, horizon, min(resolution, horizon / 200), dtype=x0.dtype)
        orbit = flow(field, settled, times, 1e-6, 1e-9)
        ahead = (orbit - settled) @ velocity
        near = (orbit[1:] - settled).norm(dim=-1) <= 2 * orbit.diff(dim=0).norm(dim=-1).max()
        returns = ((ahead[:-1] < 0) & (ahead[1:] >= 0) & near).nonzero()
        if len(returns):
            before, after = returns[0], returns[0] + 1
            share = ahead[before] / (ahead[before] - ahead[after])
            period = (times[before] + share * (times[after] - times[before])).item()
        horizon *= 3
    point, guess, rtol = settled, period, tol

    d = len(point)
    for _ in range(20):
        x, M = tangent_flow(field, jacobian, point, torch.tensor([0.0, period], dtype=x0.dtype), rtol, rtol / 10)
        miss = x[-1] - point
        system = torch.zeros(d + 1, d + 1, dtype=x0.dtype)
        system[:d, :d] = M[-1] - torch.eye(d, dtype=x0.dtype)
        system[:d, d], system[d, :d] = field(x[-1]), velocity / velocity.norm()
        change = torch.linalg.solve(system, torch.cat([-miss, miss.new_zeros(1)]))
        point, period = point + change[:d], period + change[d].item()
        if change.norm() <= tol:
            multipliers = torch.linalg.eigvals(M[-1])
            return Cycle(point, period, multipliers[multipliers.abs().argsort(descending=True)])
        if not 0 < period < 2 * longest:
            break
        # A step leaves an error of the order of its square.
        rtol = max(1e-3 * tol, min(rtol, 1e-3 * change.norm().item() ** 2))
    raise NoCycle(f"Newton's iteration for a cycle near period {guess:g} does not converge")
