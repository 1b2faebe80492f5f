"""Trajectories of flows and maps, and of the tangent vectors that ride on them."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import solve_ivp
from torch import Tensor

Field = Callable[[Tensor], Tensor]
"""A vector field or a map: states ``(..., d)`` to velocities (or next states) ``(..., d)``."""

Jacobian = Callable[[Tensor], Tensor]
"""The derivative of a field or a map: states ``(..., d)`` to matrices ``(..., d, d)``."""


class IntegrationFailed(RuntimeError):
    """The integrator could not follow a trajectory to the end of the time asked for."""


def flow(
    field: Field,
    x0: Float[Tensor, "*batch d"],
    times: Float[Tensor, " T"],
    rtol: float = 1e-9,
    atol: float = 1e-12,
) -> Float[Tensor, "T *batch d"]:
    """The solutions of x' = field(x) with x(times[0]) = x0, at the given times.

    All trajectories of the batch are one system for SciPy's DOP853 (Dormand and Prince, order 8); the error of each
    step is held below ``atol + rtol |x|`` on every trajectory of the batch, not on their average. Decreasing times
    run backwards. Dimensionless, time in units of tau.

    Raises ``ValueError`` for fewer than two times or times that are not finite or not strictly monotone, for states
    that are not finite and for a field that changes the shape of its argument; :class:`IntegrationFailed` when a
    trajectory leaves the range of floating-point numbers or needs steps below rounding.
    Used in: fenichel, clicks, rings, limit_cycles, reservoir.
    """
    steps = times.diff()
    if len(steps) == 0 or not times.isfinite().all() or not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"times is {times.tolist()}; allowed: two or more, finite, strictly increasing or decreasing")
    if not x0.isfinite().all():
        raise ValueError(f"x0 has {int((~x0.isfinite()).sum())} values that are not finite; allowed: finite states")
    if field(x0).shape != x0.shape:
        raise ValueError(
            f"field maps states of shape {tuple(x0.shape)} to {tuple(field(x0).shape)}; allowed: the same shape"
        )

    def velocity(_: float, y: np.ndarray) -> np.ndarray:
        return field(torch.from_numpy(y).view(x0.shape)).detach().numpy().ravel()

    # SciPy bounds the root mean square over all components of the batch: this makes it a bound on each trajectory.
    share = 1 / math.sqrt(max(1, x0[..., 0].numel()))
    with np.errstate(over="ignore", invalid="ignore"):
        solution = solve_ivp(
            velocity,
            (times[0].item(), times[-1].item()),
            x0.detach().numpy().ravel(),
            method="DOP853",
            t_eval=times.numpy(),
            rtol=max(rtol * share, 100 * np.finfo(float).eps),
            atol=atol * share,
        )
    if not solution.success:
        raise IntegrationFailed(f"stopped before t = {times[-1]:g}: {solution.message}")
    if not np.isfinite(solution.y).all():
        raise IntegrationFailed(f"a trajectory left the floating-point range before t = {times[-1]:g}")
    return torch.from_numpy(solution.y.T.copy()).view(len(times), *x0.shape)


def tangent_flow(
    field: Field,
    jacobian: Jacobian,
    x0: Float[Tensor, "*batch d"],
    times: Float[Tensor, " T"],
    rtol: float = 1e-9,
    atol: float = 1e-12,
) -> tuple[Float[Tensor, "T *batch d"], Float[Tensor, "T *batch d d"]]:
    """Trajectories together with the derivative M_t = dx_t/dx_0 of the flow, from M' = J(x) M, M_0 = 1.

    Returns the states and the matrices M (row: component of x_t; column: component of x_0). A gradient that is sent
    back from time t to time 0 is multiplied by the transpose of M_t: the norm of M_t tells whether it vanishes or
    explodes. Raises what :func:`flow` raises. Source: the variational equation. Used in: fenichel, limit_cycles.
    """
    d = x0.shape[-1]

    def augmented(y: Tensor) -> Tensor:
        x, M = y[..., :d], y[..., d:].unflatten(-1, (d, d))
        return torch.cat([field(x), (jacobian(x) @ M).flatten(-2)], dim=-1)

    identity = torch.eye(d, dtype=x0.dtype).flatten().expand(*x0.shape[:-1], d * d)
    y = flow(augmented, torch.cat([x0, identity], dim=-1), times, rtol, atol)
    return y[..., :d], y[..., d:].unflatten(-1, (d, d))


def iterate(step: Field, x0: Float[Tensor, "*batch d"], steps: int) -> Float[Tensor, "T *batch d"]:
    """The orbits of the map x -> step(x): ``steps + 1`` states, x0 first. Raises ``ValueError`` if steps < 0.

    Used in: fenichel, limit_cycles.
    """
    _require_steps(steps)
    orbit = [x0]
    for _ in range(steps):
        orbit.append(step(orbit[-1]))
    return torch.stack(orbit)


def tangent_map(
    step: Field, jacobian: Jacobian, x0: Float[Tensor, "*batch d"], steps: int
) -> tuple[Float[Tensor, "T *batch d"], Float[Tensor, "T *batch d d"]]:
    """Orbits together with the derivative M_n = dx_n/dx_0 of the n-th iterate, from M_{n+1} = J(x_n) M_n, M_0 = 1.

    ``jacobian`` is that of the map. Returns ``steps + 1`` states and matrices. Raises ``ValueError`` if steps < 0.
    Used in: fenichel, limit_cycles.
    """
    orbit = iterate(step, x0, steps)
    M = [torch.eye(x0.shape[-1], dtype=x0.dtype).expand(*x0.shape, -1)]
    for x in orbit[:-1]:
        M.append(jacobian(x) @ M[-1])
    return orbit, torch.stack(M)


def linearisation(field: Field) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The function x -> (field(x), its derivative J(x)), by automatic differentiation: exact to rounding.

    The field may be any differentiable field or map. Leading axes of the states, and of parameters that the field
    carries, stay batch axes: each velocity must depend on its own state only, as that of a field does.
    """

    def linearised(
        x: Float[Tensor, "*batch d"],
    ) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d d"]]:
        with torch.enable_grad():
            # One copy of the states for each row of the matrix: one backward pass gives them all.
            copies = x.detach().expand(x.shape[-1], *x.shape).clone().requires_grad_()
            velocity = field(copies)
            rows = velocity.diagonal(dim1=0, dim2=-1).sum()
            # Zero times the states: so that a constant field has a derivative too.
            (J,) = torch.autograd.grad(rows + 0 * copies.sum(), copies)
        return velocity[0].detach(), J.movedim(0, -2)

    return linearised


def _require_steps(steps: int) -> None:
    if steps < 0:
        raise ValueError(f"steps is {steps}; allowed: 0, 1, 2, ...")
