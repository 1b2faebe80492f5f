"""One training loop for every network of the book: seeded, resumable, stopped early, with its history as a table."""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.adam import adam

from slowmanifold.learning.tasks import UNMARKED, Trials

Row = dict[str, float]
History = dict[str, np.ndarray]
"""A table: one array a column, one row each time that the training was looked at."""


def train(
    model: nn.Module,
    draw: Callable[[np.random.Generator], Trials],
    *,
    steps: int,
    learning_rate: float,
    generator: np.random.Generator,
    class_weights: Float[Tensor, " classes"] | None = None,
    evaluate: Callable[[nn.Module, np.random.Generator], Row] | None = None,
    every: int = 25,
    stop: Callable[[Row], bool] | None = None,
    device: str | torch.device | None = None,
    checkpoint: Path | None = None,
) -> History:
    """Train ``model`` in place by Adam on fresh trials, and return the history.

        theta <- Adam(theta, dL/dtheta),   L = cross-entropy of the logits at all marked steps, weighted by class

    in nats a step. There is no clipping, no schedule, no regularisation. After every ``every`` steps a row is added to
    the history: "step", "loss" (the mean since the last row) and what ``evaluate(model, generator)`` returns. Training
    ends after ``steps``, when ``stop(row)`` is true, or with a loss that is not finite, which the last row then shows.

    All that is random is drawn from ``generator``. ``device`` is a GPU where there is one, if not given. With
    ``checkpoint``, the name of a file, parameters, Adam's moments, the state of ``generator`` and the history are
    written there with every row. If the file exists, all four are taken from it, and training resumes after its last
    row: the steps since are made again. A run that was killed and started again with the same arguments has the same
    result, to the last bit on the same machine; what ``evaluate`` and ``stop`` remember by themselves is not kept.

    Raises ``ValueError`` for numbers of steps and a learning rate that are not positive, and for a checkpoint of a
    training with another learning rate or rhythm. Used in: long_memory.
    """
    for name, value in (("steps", steps), ("every", every)):
        if value < 1:
            raise ValueError(f"{name} is {value}; allowed: 1, 2, 3, ...")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate is {learning_rate}; allowed: positive numbers")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.to(device)
    weights = None if class_weights is None else class_weights.to(next(model.parameters()))
    optimiser = _Adam(model, learning_rate)
    rows: list[Row] = []
    settings = {"learning_rate": learning_rate, "every": every}
    if checkpoint is not None and checkpoint.exists():
        rows = _restore(checkpoint, model, optimiser, generator, settings)

    def over() -> bool:
        return bool(rows) and (not math.isfinite(rows[-1]["loss"]) or (stop is not None and stop(rows[-1])))

    first, total = (int(rows[-1]["step"]) if rows else 0), 0.0
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        bar = progress.add_task("training", total=steps, completed=first)
        for step in range(first + 1, steps + 1):
            if over():
                break
            trials = draw(generator)
            logits = model(trials.inputs.to(device))
            loss = classification_loss(logits, trials.targets.to(device), weights)
            optimiser.step(loss)
            total += loss.item()
            progress.advance(bar)
            if step % every == 0 or step == steps:
                row = {"step": float(step), "loss": total / (step - (rows[-1]["step"] if rows else 0))}
                rows.append(row | (evaluate(model, generator) if evaluate else {}))
                total = 0.0
                if checkpoint is not None:
                    _save(checkpoint, model, optimiser, generator, rows, settings)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def classification_loss(
    logits: Float[Tensor, "trials steps classes"],
    targets: Int[Tensor, "trials steps"],
    class_weights: Float[Tensor, " classes"] | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy over the marked steps, in nats; with weights, the weighted mean. Used in: long_memory."""
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), class_weights, ignore_index=UNMARKED)


def accuracy(
    logits: Float[Tensor, "trials steps classes"], targets: Int[Tensor, "trials steps"], blank: int = UNMARKED
) -> float:
    """The share of right answers at the steps that ask for one: those with a target other than ``blank``.

    With ``blank=0`` the recall of copy memory, for which chance is 1/8. Used in: long_memory.
    """
    targets = targets.to(logits.device)
    asked = (targets != blank) & (targets != UNMARKED)
    return (logits.argmax(-1) == targets)[asked].double().mean().item()


class _Adam:
    """torch's Adam, without its class: that one imports torch's compiler first, which takes seconds."""

    def __init__(self, model: nn.Module, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.parameters = list(model.parameters())
        self.moments = [[torch.zeros_like(values) for values in self.parameters] for _ in range(2)]
        self.counts = [torch.zeros((), device=values.device) for values in self.parameters]

    def step(self, loss: Float[Tensor, ""]) -> None:
        """One step down the gradient of the loss."""
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            adam(
                self.parameters,
                list(gradients),
                *self.moments,
                [],
                self.counts,
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=self.learning_rate,
                weight_decay=0,
                eps=1e-8,
                maximize=False,
            )

    def state(self) -> list[Tensor]:
        """All that it remembers, to be kept and written into."""
        return [*self.moments[0], *self.moments[1], *self.counts]


def _save(
    path: Path,
    model: nn.Module,
    optimiser: _Adam,
    generator: np.random.Generator,
    rows: list[Row],
    settings: Row,
) -> None:
    state = {"model": model.state_dict(), "optimiser": optimiser.state(), "rows": rows, "settings": settings}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    torch.save(state | {"generator": generator.bit_generator.state}, partial)
    os.replace(partial, path)


def _restore(
    path: Path, model: nn.Module, optimiser: _Adam, generator: np.random.Generator, settings: Row
) -> list[Row]:
    state = torch.load(path, map_location=next(model.parameters()).device)
    for name, value in settings.items():
        if state["settings"][name] != value:
            kept = state["settings"][name]
            raise ValueError(f"{name} is {value}; allowed: {kept}, that of the checkpoint {path.name}")
    model.load_state_dict(state["model"])
    for values, kept in zip(optimiser.state(), state["optimiser"], strict=True):
        values.copy_(kept)
    generator.bit_generator.state = state["generator"]
    return state["rows"]
