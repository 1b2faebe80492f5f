"""The tasks: random trials, each a sequence of inputs with the outputs that are asked for."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

UNMARKED = -100  # the class of a step at which nothing is asked: what torch's cross-entropy leaves out


@dataclass(frozen=True, eq=False)
class Trials:
    """A batch of trials: what goes in at each step, and what should come out after it: a number, or a class."""

    inputs: Float[Tensor, "trials steps channels"]
    targets: Float[Tensor, "trials steps"] | Int[Tensor, "trials steps"]


def clicks(trials: int, steps: int, input_steps: int, generator: np.random.Generator, rate: float = 0.2) -> Trials:
    """Continuous-valued clicks on two channels; the target is their running difference.

        I_{t,i} = m_{t,i} u_{t,i},   m ~ Bernoulli(rate),  u ~ Uniform(0, 1);   0 from step ``input_steps`` on   [eq. 4]
        D_t = sum_{s<=t} (I_{s,2} - I_{s,1})                                    [eq. 5, the sign of the integrators]

    Eq. 5 has the opposite sign, against which the three integrators of the paper would all be wrong. D_t counts the
    click of its own step. Time in steps, inputs and targets in clicks. Drawn are first all m, then all u, in the order
    (trial, step, channel), so that a seed stands for the same trials everywhere and whatever ``steps`` is.

    Raises ``ValueError`` for numbers of trials or steps that are not positive, for more input steps than steps, and
    for a rate outside [0, 1]. Source: Ságodi et al., Sec. 3.1. Used in: clicks, landscape, maintenance.
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


def copy_memory(trials: int, delay: int, generator: np.random.Generator, symbols: int = 8, length: int = 10) -> Trials:
    """Remember a word for ``delay`` steps, and write it down when asked.

        in:   s_1 ... s_10  _ _ ... _ ?  _ _ _ _ _ _ _ _ _ _          s_i uniform on {1, ..., symbols}
        out:  _ _ _ _ _ _ _ _ ... _ _ _  s_1 ... s_10                 delay + 2 length steps

    Inputs are one-hot, (blank, symbols, cue); the cue ? is the last of the ``delay`` steps after the word. Targets
    are classes: 0 is the blank _, and the symbols follow. A network that knows when, but not what, has the mean
    cross-entropy length ln(symbols) / (delay + 2 length).

    Raises ``ValueError`` for sizes that are not positive. Source: Hochreiter and Schmidhuber (1997), Arjovsky et al.
    (2016); Park, slides. Used in: long_memory.
    """
    if delay < 1:
        raise ValueError(f"delay is {delay}; allowed: 1, 2, 3, ...")
    return random_delay(trials, (delay, delay), generator, symbols, length)


def random_delay(
    trials: int, delays: tuple[int, int], generator: np.random.Generator, symbols: int = 8, length: int = 10
) -> Trials:
    """Copy memory with a delay that is drawn afresh for each trial, uniform on delays[0], ..., delays[1].

    All trials have the steps of the longest; after its word is written a short one has blanks. When the word is due
    is known from the cue only. Drawn are first all words, then all delays. Raises ``ValueError`` for sizes that are
    not positive and for delays out of order. Source: Park, slides, "Random-delay version". Used in: long_memory.
    """
    shortest, longest = delays
    for name, size in (("trials", trials), ("symbols", symbols), ("length", length)):
        if size < 1:
            raise ValueError(f"{name} is {size}; allowed: 1, 2, 3, ...")
    if not 1 <= shortest <= longest:
        raise ValueError(f"delays is {delays}; allowed: (shortest, longest) with 1 <= shortest <= longest")
    word = torch.from_numpy(generator.integers(1, symbols + 1, (trials, length)))
    delay = torch.from_numpy(generator.integers(shortest, longest + 1, trials))
    steps, places = longest + 2 * length, torch.arange(length)
    shown = torch.zeros(trials, steps, dtype=torch.long)
    shown[:, :length] = word
    shown[torch.arange(trials), length + delay - 1] = symbols + 1
    targets = torch.zeros(trials, steps, dtype=torch.long)
    targets.scatter_(1, (length + delay).unsqueeze(1) + places, word)
    inputs = torch.zeros(steps, trials, symbols + 2, dtype=torch.float64).scatter_(2, shown.T.unsqueeze(2), 1.0)
    return Trials(inputs.transpose(0, 1), targets)


def sequential_images(
    pixels: Float[Tensor, "trials steps"], labels: Int[Tensor, " trials"], order: Int[Tensor, " steps"] | None = None
) -> Trials:
    """Images that are read pixel by pixel, in the given ``order`` of the pixels; asked for, at the last, is the class.

    A fixed random order takes away the neighbourhoods ("permuted" digits). Targets are ``UNMARKED`` at all steps but
    the last. Raises ``ValueError`` for an order that is no permutation. Source: Le et al. (2015). Used in: long_memory.
    """
    steps = pixels.shape[1]
    order = torch.arange(steps) if order is None else order
    if not torch.equal(order.sort().values, torch.arange(steps)):
        raise ValueError(f"order is {order.tolist()}; allowed: each of 0, ..., {steps - 1} once")
    targets = torch.full(pixels.shape, UNMARKED, dtype=torch.long)
    targets[:, -1] = labels
    return Trials(pixels[:, order].T.contiguous().T.unsqueeze(-1), targets)
