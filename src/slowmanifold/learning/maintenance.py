"""Diffusion against repair: many runs of an integrator that noise perturbs and gradient descent mends."""

# ruff: noqa: E741  (I is the papers' symbol for the input)

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from slowmanifold.learning.landscape import PARAMETERS, flatten, unflatten
from slowmanifold.learning.tasks import clicks
from slowmanifold.networks.line import RateNetwork

# Bytes of states between the two passes: few enough to stay in the last cache, many enough to outweigh the calls.
_BLOCK = 2**26


@dataclass(frozen=True, eq=False)
class History:
    """What became of the runs of each network, at each learning rate."""

    losses: Float[Tensor, "networks runs rates epochs"]  # before each epoch's step of learning; infinite on overflow
    parameters: Float[Tensor, "networks runs rates p"]  # after the last epoch, in the order of landscape.PARAMETERS

    def diverged_at(self, threshold: float = math.inf) -> Int[Tensor, "networks runs rates"]:
        """The first epoch with a loss of ``threshold`` or more, or the number of epochs if there is none.

        The paper calls a loss of 1 divergence; without a threshold it is one beyond the floating-point range.
        """
        above = self.losses >= threshold
        return torch.where(above.any(-1), above.int().argmax(-1), self.losses.shape[-1])


def maintain(
    networks: Sequence[RateNetwork],
    learning_rates: Float[Tensor, "*#networks rates"],
    generators: Sequence[np.random.Generator],
    *,
    trials: int,
    steps: int,
    input_steps: int,
    epochs: int,
    momentum: float = 0.0,
    parameter_noise: float = 0.0,
    pulses: Collection[int] | None = None,
    input_noise: float = 0.0,
    noisy_steps: int = 10,
) -> History:
    """Keep integrators at the clicks task by gradient descent while noise drives them away, in many runs.

    In each epoch a run draws new trials and makes one step on all of its parameters, x0 included,

        v <- momentum v + dL/dtheta,    theta <- theta - learning_rate v,

    and then, under S-type noise, theta <- theta + parameter_noise xi, xi ~ N(0, 1): after every epoch (Fig. 3B) or
    after those in ``pulses``, counted from 0 (Fig. 3C: 1, 11, 21). D-type noise (Fig. 3E), Uniform(-input_noise,
    input_noise), is added to both channels in the first ``noisy_steps`` of each trial and not to its target, so that it
    reaches the parameters by the gradient. A learning rate of 0 shows the diffusion alone.

    A run is what one generator draws: all networks and all learning rates see the same trials and the same noise.
    ``learning_rates`` may have a row for each network. All are computed in one batch and do not touch each other: one
    that diverges goes on with infinite losses, see :meth:`History.diverged_at`.

    Raises ``ValueError`` for no networks, networks of different shapes or any that is not threshold-linear, learning
    rates, momentum or noise that are negative or infinite, no generators, fewer than one epoch, pulses that are no
    epochs, noisy steps beyond the input, and for what :func:`clicks` and :func:`loss_and_gradient` refuse.
    Source: Ságodi et al., Sec. 3.5, Fig. 3B-E, Table 1. Used in: maintenance.
    """
    pulses = range(epochs) if pulses is None else pulses
    sizes = {"learning_rates": learning_rates, "momentum": momentum}
    sizes |= {"parameter_noise": parameter_noise, "input_noise": input_noise}
    for name, size in sizes.items():
        if not all(0 <= value < math.inf for value in np.ravel(size)):
            raise ValueError(f"{name} is {size}; allowed: 0 or more, and finite")
    shapes = {tuple(part.shape for part in vars(network).values() if torch.is_tensor(part)) for network in networks}
    if len(shapes) != 1:
        raise ValueError(f"networks has {len(networks)} of {len(shapes)} shapes; allowed: one or more, of one shape")
    for place, network in enumerate(networks):
        if network.activation != "relu":
            raise ValueError(f"networks[{place}] has activation {network.activation!r}; allowed: 'relu'")
    if not generators:
        raise ValueError("generators is empty; allowed: one for each run")
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; allowed: 1, 2, 3, ...")
    if not set(pulses) <= set(range(epochs)):
        raise ValueError(f"pulses is {sorted(pulses)}; allowed: epochs, 0 to {epochs - 1}")
    if not 0 <= noisy_steps <= input_steps:
        raise ValueError(f"noisy_steps is {noisy_steps}; allowed: 0 to {input_steps} (input_steps)")

    # One axis for all networks and rates: the copies of a run.
    starts = torch.stack([flatten(network) for network in networks])
    rates = learning_rates.expand(len(networks), -1).reshape(-1, 1)
    parameters = starts.repeat_interleave(learning_rates.shape[-1], 0).expand(len(generators), -1, -1)
    velocity = torch.zeros_like(parameters)
    losses, workspace = [], room(networks[0], steps)
    for epoch in range(epochs):
        drawn = [clicks(trials, input_steps, input_steps, generator) for generator in generators]
        inputs = torch.stack([run.inputs.permute(1, 2, 0) for run in drawn], dim=1).permute(1, 3, 0, 2)
        targets = torch.stack([run.targets.mT for run in drawn], dim=1).permute(1, 2, 0)
        if input_noise:
            noise = [generator.uniform(-input_noise, input_noise, (trials, noisy_steps, 2)) for generator in generators]
            inputs[:, :, :noisy_steps] += torch.from_numpy(np.stack(noise))
        loss, gradient = loss_and_gradient(networks[0], parameters, inputs, targets, steps, workspace)
        losses.append(loss)
        velocity = momentum * velocity + gradient
        parameters = parameters - rates * velocity
        if parameter_noise and epoch in pulses:
            xi = np.stack([generator.standard_normal((1, parameters.shape[-1])) for generator in generators])
            parameters = parameters + parameter_noise * torch.from_numpy(xi)
    by_network = (len(networks), -1)
    found = (part.unflatten(1, by_network).transpose(0, 1) for part in (torch.stack(losses, dim=-1), parameters))
    return History(*found)


def loss_and_gradient(
    network: RateNetwork,
    parameters: Float[Tensor, "runs copies p"],
    inputs: Float[Tensor, "runs trials input_steps K"],
    targets: Float[Tensor, "runs trials input_steps"],
    steps: int,
    workspace: Float[Tensor, " room"] | None = None,
) -> tuple[Float[Tensor, "runs copies"], Float[Tensor, "runs copies p"]]:
    """The loss of many threshold-linear networks and its gradient: back-propagation through time, written out.

        x_t = relu(W_in I_t + W x_{t-1} + b),   e_t = W_out x_t + b_out - D_t,    L = < e_t^2 >  over trials and steps
        delta_t = [x_t > 0] (W^T delta_{t+1} + W_out^T e_t)
        dL/d(W_in, W, b) = 2 < delta_t (I_t, x_{t-1}, 1)^T >,         dL/d(W_out, b_out) = 2 < e_t (x_t, 1)^T >
        dL/dx0 = 2 < W^T delta_1 > / steps,  the average over trials

    The networks have the shape of ``network``, their parameters the order of ``landscape.PARAMETERS``; the copies of a
    run share its trials. When the input is over, the target stays as it is to the last of the ``steps``. A loss beyond
    the floating-point range is infinite and its gradient without meaning; other networks do not feel it.

    Equal to automatic differentiation to rounding and several times faster: both passes go over one block of trials,
    whose states stay in the cache, before the next one is begun. They lie in a ``workspace``: who calls many times
    makes one with :func:`room` and gives it again, as fresh memory costs a tenth of all the time.

    Raises ``ValueError`` for a network that is not threshold-linear, for fewer steps than there are inputs, and for a
    workspace that is too small.
    Source: Ságodi et al., eq. 6, Sec. 3.1. Used in: maintenance.
    """
    if network.activation != "relu":
        raise ValueError(f"network has activation {network.activation!r}; allowed: 'relu'")
    runs, copies, _ = parameters.shape
    _, trials, input_steps, _ = inputs.shape
    if steps < input_steps:
        raise ValueError(f"steps is {steps}; allowed: {input_steps} (the steps of inputs) or more")

    left, blocks = _BLOCK // (8 * len(network.W) * (steps + 1)), []
    for length in (trials, copies, runs):
        count = math.ceil(length / max(1, left))
        size = math.ceil(length / count)
        blocks.append([slice(start, start + size) for start in range(0, length, size)])
        left //= size
    fresh = room(network, steps)
    workspace = fresh if workspace is None else workspace
    if len(workspace) < len(fresh):
        raise ValueError(f"workspace has {len(workspace)} numbers; allowed: {len(fresh)} or more")
    I, D = inputs.permute(2, 0, 3, 1).contiguous(), targets.permute(2, 0, 1).unsqueeze(2).contiguous()
    loss, gradient = parameters.new_zeros(runs, copies), torch.zeros_like(parameters)
    for j, k, i in product(*blocks):
        theta = unflatten(parameters[i, k], network)
        squares, slopes = _sums(theta, I[:, i, :, j], D[:, i, :, j], steps, workspace)
        loss[i, k] += squares
        gradient[i, k] += slopes
    loss = loss / (trials * steps)
    return loss.masked_fill(loss.isnan(), torch.inf), gradient * (2 / (trials * steps))


def room(network: RateNetwork, steps: int) -> Float[Tensor, " numbers"]:
    """A workspace for :func:`loss_and_gradient`: the states of a block of trials, or of one if that is more.

    It is not initialised; what is not used of it takes no memory. Used in: maintenance.
    """
    # From NumPy, which asks the system for large pages.
    return torch.from_numpy(np.empty(max(_BLOCK // 8, len(network.W) * (steps + 1))))


def _sums(
    theta: dict[str, Tensor],
    I: Float[Tensor, "input_steps runs K trials"],
    D: Float[Tensor, "input_steps runs 1 trials"],
    steps: int,
    workspace: Float[Tensor, " room"],
) -> tuple[Float[Tensor, "runs copies"], Float[Tensor, "runs copies p"]]:
    """e_t^2 and half its gradient, summed over trials and steps.

    States lie as (network, unit, trial): a step is one product of d x d and d x trials for each network.
    """
    runs, copies, d = theta["b"].shape
    K, trials = I.shape[-2:]
    n = runs * copies
    W_in, W, W_out = theta["W_in"].reshape(runs, -1, K), theta["W"].reshape(n, d, d), theta["W_out"].reshape(n, 1, d)
    b, b_out, x0 = (theta[name].reshape(n, -1, 1) for name in ("b", "b_out", "x0"))
    # Views are taken here, all at once: in the loops they would cost as much time as the arithmetic.
    inputs, transposed_inputs, targets = I.unbind(), I.mT.unbind(), D.unbind()
    states = workspace[: (steps + 1) * n * d * trials].view(steps + 1, n, d, trials)
    driven = states[1:].view(steps, runs, copies * d, trials).unbind()
    states, transposed_states = states.unbind(), states.mT.unbind()

    states[0].copy_(x0.expand_as(states[0]))
    for t in range(steps):
        x = torch.baddbmm(b, W, states[t], out=states[t + 1])
        if t < len(inputs):
            driven[t].baddbmm_(W_in, inputs[t])
        x.relu_()

    # delta_{t+1} above e_t in one array: both are summed against the state x_t, and pulled back to it, alike.
    adjoint = W.new_zeros(n, d + 1, trials)
    delta, error = adjoint[:, :d], adjoint[:, d:]
    pull = torch.cat([W.mT, W_out.mT], dim=-1).contiguous()
    # Twice where the products are so small that PyTorch would not give them to the library, and contiguous for the
    # same reason: it is faster by far.
    readout = W_out.expand(-1, 1 if d * trials >= 400 else 2, -1).contiguous()
    output, pulled, active = (W.new_empty(n, rows, trials) for rows in (readout.shape[1], d, d))
    squares, by_state = W.new_zeros(n, 1, 1), W.new_zeros(n, d + 1, d)
    by_input, by_one = W.new_zeros(runs, copies * (d + 1), K), W.new_empty(steps + 1, n, d + 1)
    sums, transposed_error = by_one.unbind(), error.mT
    adjoint_of_run, error_of_run = (array.view(runs, -1, trials) for array in (adjoint, error))
    output_of_run = output[:, 0].view(runs, copies, trials)
    for t in range(steps, -1, -1):
        if t > 0:
            torch.baddbmm(b_out, readout, states[t], out=output)
            torch.sub(output_of_run, targets[min(t, len(targets)) - 1], out=error_of_run)
            squares.baddbmm_(error, transposed_error)
        else:
            error.zero_()
        if t < len(inputs):
            by_input.baddbmm_(adjoint_of_run, transposed_inputs[t])
        by_state.baddbmm_(adjoint, transposed_states[t])
        torch.sum(adjoint, -1, out=sums[t])
        torch.bmm(pull, adjoint, out=pulled)
        torch.mul(pulled, torch.sign(states[t], out=active), out=delta)

    by_input, by_one = by_input.view(n, d + 1, K), by_one.sum(0)
    gradient = {
        "W_in": by_input[:, :d],
        "W": by_state[:, :d],
        "b": by_one[:, :d],
        "W_out": by_state[:, d],
        "b_out": by_one[:, d],
        "x0": pulled.sum(-1),
    }
    parts = [gradient[name].reshape(runs, copies, -1) for name in PARAMETERS]
    return squares.view(runs, copies), torch.cat(parts, dim=-1)
