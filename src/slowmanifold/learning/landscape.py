"""The loss as a function of a network's parameters: its slices, its gradient over time, its curvature."""

# ruff: noqa: E741  (I is the papers' symbol for the input)

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from slowmanifold.networks.line import ACTIVATIONS, RateNetwork

PARAMETERS = tuple(field.name for field in fields(RateNetwork) if field.name != "activation")
"""The trainable parameters in their order in a parameter vector: W_in, W, b, W_out, b_out, x0."""


def flatten(network: RateNetwork) -> Float[Tensor, " p"]:
    """The parameters of one network as a vector, in the order of :data:`PARAMETERS`; 15 numbers for two units.

    Used in: maintenance.
    """
    return torch.cat([getattr(network, name).flatten() for name in PARAMETERS])


def unflatten(vectors: Shaped[Tensor, "*batch p"], network: RateNetwork) -> dict[str, Tensor]:
    """The named parts of parameter vectors (or of gradients) of networks of the shape of ``network``; views.

    Used in: landscape, maintenance.
    """
    shapes = [getattr(network, name).shape for name in PARAMETERS]
    parts = vectors.split([shape.numel() for shape in shapes], dim=-1)
    return {
        name: part.reshape((*vectors.shape[:-1], *shape))
        for name, part, shape in zip(PARAMETERS, parts, shapes, strict=True)
    }


def squared_error(
    network: RateNetwork,
    inputs: Float[Tensor, "trials steps K"],
    targets: Float[Tensor, "trials steps"],
    dt: float = 1.0,
) -> Float[Tensor, "*networks steps"]:
    """Squared error at each step, (O_t - D_t)^2 averaged over the trials, of every network of a batch at once.

    The loss is its average over the steps, ``squared_error(...).mean(-1)``. Batch axes are those of ``network.W`` and
    ``network.b``: give ``network.perturbed(V)`` with V of shape (m, n, d, d) for a two-dimensional slice. The states
    take Euler steps of ``dt`` (in units of tau; 1 is the paper's map), and no trajectory is kept. A click of one step
    moves the state by dt: with dt < 1 give inputs divided by dt for the same targets. What overflows is infinite.

    Raises ``ValueError`` if inputs and targets differ in trials or steps. Source: Ságodi et al., eq. 6, Sec. 3.3.
    Used in: landscape.
    """
    _require_equal_steps(inputs, targets)
    phi, _ = ACTIVATIONS[network.activation]
    batch = np.broadcast_shapes(network.W.shape[:-2], network.b.shape[:-1])
    d = len(network.x0)
    # Units first, (unit, network, trial): as so many products of d x d matrices, one for each network, a step would
    # cost several times what it does as d x d sums over all networks and trials.
    W = [row.unbind() for row in network.W.expand(*batch, d, d).reshape(-1, d, d, 1).movedim(0, 2)]
    b = network.b.expand(*batch, d).reshape(-1, d, 1).unbind(1)
    x = network.x0.view(d, 1, 1).expand(d, len(b[0]), len(inputs))
    W_out = network.W_out.view(d, 1, 1)
    errors = []
    for I, D in zip(inputs.permute(1, 2, 0).contiguous(), targets.mT.contiguous(), strict=True):
        h = [bias + drive for bias, drive in zip(b, network.W_in @ I, strict=True)]
        for total, weights in zip(h, W, strict=True):
            for weight, unit in zip(weights, x, strict=True):
                total.addcmul_(weight, unit)
        x = torch.lerp(x, phi(torch.stack(h)), dt)
        errors.append(((W_out * x).sum(0) + (network.b_out - D)).square().mean(-1))
    errors = torch.stack(errors, dim=-1).view(*batch, -1)
    return errors.masked_fill(errors.isnan(), torch.inf)


def loss_slice(
    network: RateNetwork,
    deltas: Float[Tensor, " m"],
    inputs: Float[Tensor, "trials steps K"],
    targets: Float[Tensor, "trials steps"],
    entry: tuple[int, int] = (0, 0),
    dt: float = 1.0,
) -> Float[Tensor, " m"]:
    """The loss along one weight: mean squared error over trials and steps with W_ij + Delta, for each Delta.

    See :func:`squared_error` for ``dt``, the inputs that go with it, and overflow. Raises ``ValueError`` for an entry
    outside W, for a network with batch axes and for inputs and targets that differ in trials or steps.
    Source: Ságodi et al., eq. 11, Fig. 3A. Used in: landscape.
    """
    _require_one(network)
    d = len(network.W)
    if not all(0 <= index < d for index in entry):
        raise ValueError(f"entry is {entry}; allowed: two indices from 0 to {d - 1}")
    V = torch.zeros(len(deltas), d, d, dtype=network.W.dtype)
    V[:, *entry] = deltas
    return squared_error(network.perturbed(V), inputs, targets, dt).mean(-1)


def growth_rate(W: Float[Tensor, "*batch d d"], dt: float = 1.0) -> Float[Tensor, "*batch"]:
    """The exponent at which the loss of a linear excursion grows, 2 log rho(1 + dt (W - 1)) per step.

    rho is the spectral radius of the Euler step while all units are active: a deviation grows as rho^t and its square
    as rho^2t. With Delta added to W_11 it is rho = 1 + Delta for the identity RNN and (Delta + sqrt(Delta^2 + 4))/2
    for the unbounded line attractor at dt = 1. For the bounded one it holds only until a unit falls silent.
    Source: Ságodi et al., Sec. 3.3. Used in: landscape, maintenance.
    """
    step = torch.eye(W.shape[-1], dtype=W.dtype) + dt * (W - torch.eye(W.shape[-1], dtype=W.dtype))
    return 2 * torch.linalg.eigvals(step).abs().amax(-1).log()


def gradient_by_horizon(
    network: RateNetwork,
    inputs: Float[Tensor, "trials steps K"],
    targets: Float[Tensor, "trials steps"],
    dt: float = 1.0,
) -> Float[Tensor, "steps p"]:
    """The gradient of the loss over the first T steps, for every horizon T = 1, ..., steps, of one network.

        dL_T/dtheta = 2/T sum_{t<=T} < (O_t - D_t) dO_t/dtheta >

    <> is the average over trials; :func:`unflatten` names the parts. Raises ``ValueError`` if inputs and targets
    differ in trials or steps, and for a network with batch axes. Source: Ságodi et al., Sec. 3.3. Used in: landscape.
    """
    _require_one(network)
    _require_equal_steps(inputs, targets)
    sensitivities = _sensitivities(network, inputs, dt)
    terms = [J @ (O - D) / len(D) for (O, J), D in zip(sensitivities, targets.mT, strict=True)]
    horizons = torch.arange(1, len(terms) + 1, dtype=targets.dtype)
    return 2 * torch.stack(terms).cumsum(0) / horizons.unsqueeze(-1)


def gauss_newton_hessian(
    network: RateNetwork, inputs: Float[Tensor, "trials steps K"], dt: float = 1.0
) -> Float[Tensor, "p p"]:
    """The Gauss-Newton matrix of the loss of one network, 2/T sum_t < dO_t/dtheta (dO_t/dtheta)^T >.

    Where the residuals vanish, as for the three integrators in range, it is the Hessian itself, and gradient descent
    is stable iff its learning rate is below 2/lambda_max. With T_I = T, at dt = 1, for large T and large beta,

        lambda_max = 2 (beta T/alpha)^2 / 3     unbounded line attractor
                     (beta T/alpha)^2 / 6       bounded line attractor
                     0.004 T^4                  identity RNN, at 0.2 clicks a step of mean size 1/2

    Raises ``ValueError`` for a network with batch axes. Source: Ságodi et al., Sec. 3.5. Used in: landscape,
    maintenance.
    """
    _require_one(network)
    return 2 * sum(J @ J.mT for _, J in _sensitivities(network, inputs, dt)) / (inputs.shape[0] * inputs.shape[1])


def _sensitivities(
    network: RateNetwork, inputs: Float[Tensor, "trials steps K"], dt: float
) -> Iterator[tuple[Float[Tensor, " trials"], Float[Tensor, "p trials"]]]:
    """For each step the outputs O_t and J_t = dO_t/dtheta of all trials, nothing kept.

    S = dx/dtheta follows the trajectory: dt phi'(h) (W S + dh/dtheta) is added to (1 - dt) S at each step. So one pass
    serves all horizons, where one backward pass serves one.
    """
    phi, slope = ACTIVATIONS[network.activation]
    theta = unflatten(torch.arange(len(flatten(network))), network)
    d = len(network.W)
    units = torch.arange(d)
    x = network.x0.unsqueeze(-1).expand(d, len(inputs))
    S = torch.zeros(d, len(flatten(network)), len(inputs), dtype=x.dtype)
    S[units, theta["x0"]] = 1
    for I in inputs.permute(1, 2, 0).contiguous():
        h = torch.addmm(network.b.unsqueeze(-1), network.W, x) + network.W_in @ I
        dh = (network.W @ S.flatten(1)).view_as(S)
        dh[units.unsqueeze(-1), theta["W_in"]] += I
        dh[units.unsqueeze(-1), theta["W"]] += x
        dh[units, theta["b"]] += 1
        S = torch.lerp(S, dh.mul_(slope(h).unsqueeze(1)), dt)
        x = torch.lerp(x, phi(h), dt)
        J = (network.W_out @ S.flatten(1)).view(S.shape[1:])
        J[theta["W_out"]] += x
        J[theta["b_out"]] += 1
        yield network.W_out @ x + network.b_out, J


def _require_one(network: RateNetwork) -> None:
    if network.W.ndim != 2 or network.b.ndim != 1:
        raise ValueError(
            f"network has W of shape {tuple(network.W.shape)} and b of {tuple(network.b.shape)}; "
            "allowed: one network, without batch axes"
        )


def _require_equal_steps(inputs: Tensor, targets: Tensor) -> None:
    if inputs.shape[:2] != targets.shape:
        raise ValueError(
            f"inputs has shape {tuple(inputs.shape)} and targets {tuple(targets.shape)}; "
            "allowed: (trials, steps, K) and (trials, steps)"
        )
