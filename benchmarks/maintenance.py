"""Back-propagation through time of 20 two-unit integrators, 1000 trials of 500 steps, in float64 on one thread.

Compared per network and epoch (loss, and its gradient with respect to all 15 parameters): the package's written-out
passes; torch.nn.RNN with a torch.nn.Linear readout and automatic differentiation; the same equations as a loop
under automatic differentiation. All get their inputs in the layout they like best, and must agree.
"""

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch
from table import Ratio, show

from slowmanifold.learning.landscape import flatten, unflatten
from slowmanifold.learning.maintenance import loss_and_gradient
from slowmanifold.learning.tasks import clicks
from slowmanifold.networks.line import RateNetwork, bounded_line_attractor

NETWORKS, TRIALS, STEPS, REPEATS, TARGET = 20, 1000, 500, 9, 5


def library_epoch(network: RateNetwork, inputs: torch.Tensor, targets: torch.Tensor):
    """One epoch of torch.nn.RNN: time first, as it prefers; W_in, W, b, W_out, b_out and x0 learn."""
    rnn, readout = torch.nn.RNN(2, 2, nonlinearity="relu"), torch.nn.Linear(2, 1)
    learned = {
        "W_in": rnn.weight_ih_l0,
        "W": rnn.weight_hh_l0,
        "b": rnn.bias_ih_l0,
        "W_out": readout.weight,
        "b_out": readout.bias,
        "x0": torch.nn.Parameter(network.x0.clone()),
    }
    with torch.no_grad():
        rnn.bias_hh_l0.zero_()
        for name, parameter in learned.items():
            parameter.copy_(getattr(network, name).view_as(parameter))
    inputs, targets = inputs.permute(1, 0, 2).contiguous(), targets.mT.contiguous()

    def epoch() -> tuple[float, torch.Tensor]:
        states, _ = rnn(inputs, learned["x0"].expand(1, TRIALS, 2).contiguous())
        loss = (readout(states).squeeze(-1) - targets).square().mean()
        gradient = torch.autograd.grad(loss, tuple(learned.values()))
        return loss.item(), torch.cat([part.flatten() for part in gradient])

    return epoch


def loop_epoch(network: RateNetwork, inputs: torch.Tensor, targets: torch.Tensor):
    """One epoch of the equations written as a loop, for automatic differentiation to go through."""
    start = flatten(network)
    drives, targets = inputs.permute(1, 0, 2).contiguous().unbind(), targets.mT.contiguous()

    def epoch() -> tuple[float, torch.Tensor]:
        vector = start.clone().requires_grad_()
        theta = unflatten(vector, network)
        x, outputs = theta["x0"], []
        for drive in drives:
            x = torch.relu(drive @ theta["W_in"].mT + x @ theta["W"].mT + theta["b"])
            outputs.append(x @ theta["W_out"] + theta["b_out"])
        loss = (torch.stack(outputs) - targets).square().mean()
        return loss.item(), torch.autograd.grad(loss, vector)[0]

    return epoch


def main() -> Iterator[Ratio]:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    network = bounded_line_attractor(1.0, 100.0)
    noise = 1e-3 * torch.from_numpy(np.random.default_rng(1).standard_normal((NETWORKS, 15)))
    parameters = flatten(network) + noise
    drawn = [clicks(TRIALS, STEPS, STEPS, child) for child in np.random.default_rng(0).spawn(NETWORKS)]
    # As maintain() stacks them: time first in memory.
    inputs = torch.stack([run.inputs.permute(1, 2, 0) for run in drawn], dim=1).permute(1, 3, 0, 2)
    targets = torch.stack([run.targets.mT for run in drawn], dim=1).permute(1, 2, 0)

    first = replace(network, **unflatten(parameters[0], network))
    own = (network, parameters.unsqueeze(1), inputs, targets, STEPS)
    shared = (network, parameters.unsqueeze(0), inputs[:1], targets[:1], STEPS)
    contestants = {
        "torch.nn.RNN": (library_epoch(first, inputs[0], targets[0]), 1),
        "loop under autograd": (loop_epoch(first, inputs[0], targets[0]), 1),
        "written out, each network its own trials": (lambda: loss_and_gradient(*own), NETWORKS),
        "written out, all networks the same trials": (lambda: loss_and_gradient(*shared), NETWORKS),
    }
    memory = torch.ones(2**24)  # 128 MiB, more than a cache
    target = torch.empty_like(memory)

    seconds, results, copies = {name: [] for name in contestants}, {}, []
    for _ in range(REPEATS):
        for name, (epoch, networks) in contestants.items():
            start = perf_counter()
            results[name] = epoch()
            seconds[name].append((perf_counter() - start) / networks)
        start = perf_counter()
        target.copy_(memory)
        copies.append(perf_counter() - start)

    loss, gradient = results["torch.nn.RNN"]
    for name, (its_loss, its_gradient) in results.items():
        its_loss = its_loss if isinstance(its_loss, float) else its_loss[0, 0].item()
        off = ((its_gradient.view(-1, 15)[0] - gradient) / gradient).abs().max().item()
        if abs(its_loss / loss - 1) > 1e-10 or off > 1e-9:
            raise SystemExit(f"{name} disagrees: loss {its_loss} against {loss}, gradient off by {off:.1e}")

    best = {name: min(times) for name, times in seconds.items()}
    bandwidth = 2 * memory.nbytes / min(copies)
    # The least that must cross the memory bus: states are written once and read once, inputs and targets read twice.
    states, drives = 8 * 2 * STEPS * TRIALS, 8 * 3 * STEPS * TRIALS
    for name, moved in (("own", 2 * states + 2 * drives), ("the same", 2 * states + 2 * drives / NETWORKS)):
        rate = moved / best[next(key for key in best if name in key)]
        print(
            f"{name} trials: {rate / 1e9:.1f} GB/s of states and inputs, "
            f"{rate / bandwidth:.0%} of what a copy moves ({bandwidth / 1e9:.1f} GB/s)"
        )
    what = f"loss and gradient of an integrator of two units, {TRIALS} trials of {STEPS} steps"
    how = f"float64, one thread, best of {REPEATS}, a network; {NETWORKS} networks here"
    own, shared = (name for name in best if name.startswith("written out"))
    yield Ratio(what, own, best[own], "torch.nn.RNN", best["torch.nn.RNN"], how, aim=TARGET)
    yield Ratio(what, shared, best[shared], "torch.nn.RNN", best["torch.nn.RNN"], how)
    yield Ratio(what, own, best[own], "loop under autograd", best["loop under autograd"], how)


if __name__ == "__main__":
    show(main())
