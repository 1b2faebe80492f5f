"""The tasks: random trials, each a sequence of inputs with the outputs that are asked for."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Trials:
    """A batch of trials: what goes in at each step, and what should come out after it."""

    inputs: Float[Tensor, "trials steps channels"]
    targets: Float[Tensor, "trials steps"]


def clicks(trials: int, steps: int, input_steps: int, generator: np.random.Generator, rate: float = 0.2) -> Trials:
    """Continuous-valued clicks on two channels; the target is their running difference.

        I_{t,i} = m_{t,i} u_{t,i},   m ~ Bernoulli(rate),  u ~ Uniform(0, 1);   0 from step ``input_steps`` on   [eq. 4]
        D_t = sum_{s<=t} (I_{s,2} - I_{s,1})                                    [eq. 5, the sign of the integrators]

    Eq. 5 has the opposite sign, against which the three integrators of the paper would all be wrong. D_t counts the
    click of its own step. Time in steps, inputs and targets in clicks. Drawn are first all m, then all u, in the order
    (trial, step, channel), so that a seed stands for the same trials everywhere and whatever ``steps`` is.

    Raises ``ValueError`` for numbers of trials or steps that are not positive, for more input steps than steps, and
    for a rate outside [0, 1]. Source: Ságodi et al., Sec. 3.1. Used in: Clicks, Landscape, Maintenance.
    """
    if trials < 1:
        raise ValueError(f"trials is {trials}; allowed: 1, 2, 3, ...")
    if not 1 <= input_steps <= steps:
        raise ValueError(f"input_steps is {input_steps}; allowed: 1, ..., {steps} (steps)")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}; allowed: 0 to 1")
    shape = (trials, input_steps, 2)
    m = generator.random(shape) < rate
    u = generator.random(shape)
    # Time comes first in memory and trials last: networks read the steps one by one, of all trials at once.
    inputs = torch.zeros(steps, 2, trials, dtype=torch.float64)
    inputs[:input_steps] = torch.from_numpy(np.multiply(u, m, out=u)).permute(1, 2, 0)
    targets = (inputs[:, 1] - inputs[:, 0]).cumsum(0)
    return Trials(inputs.permute(2, 0, 1), targets.mT)
