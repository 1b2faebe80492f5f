"""The experiments on long memory: a network, a start, a task and a seed in; learning curve, result and dynamics out."""

import copy
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from slowmanifold.dynamics.lyapunov import lyapunov_spectrum
from slowmanifold.learning.digits import Images, Split
from slowmanifold.learning.recurrent import Interrupted, Recurrent, initialise_
from slowmanifold.learning.tasks import Trials, random_delay, sequential_images
from slowmanifold.learning.training import accuracy, train
from slowmanifold.networks.cornn import CoRNN

SYMBOLS, LENGTH = 8, 10
BLANK = torch.eye(SYMBOLS + 2)[0]  # the input of a step at which nothing is shown

Result = dict[str, np.ndarray]


def train_memory(
    *,
    cell: str,
    structure: str,
    gain: float,
    input_scale: float,
    learning_rate: float,
    weighted: bool,
    delays: tuple[int, int],
    tested: tuple[int, ...],
    units: int,
    batch: int,
    steps: int,
    every: int,
    enough: float,
    probe: bool = True,
    reset: str | None = None,
    initial: float = 0.0,
    generator: np.random.Generator,
) -> Result:
    """Train one network at copy memory with a delay uniform on ``delays``, in float32, and say what became of it.

    ``cell``, ``structure``, ``gain``, ``input_scale`` and ``units`` are those of :func:`network`. With ``weighted`` the
    blank counts 1/delays[1] in the loss, so that all blanks weigh about as much as one letter. Training ends after
    ``steps``, or when the recall on 256 fresh trials has reached ``enough`` at one of the looks, ``every`` steps apart.

    With ``reset``, "phases" or "amplitudes", the oscillators are :class:`Interrupted` before each cue. A coRNN has
    neither a reset nor a probe. The state before the first step is zero; with ``initial`` it is normal with that
    standard deviation, drawn once for the network (not a coRNN) and kept.

    Returned are the history's columns "step", "loss", "recall", NaN after the end; "trained", the steps made;
    "solved"; "recall_at" the delays ``tested``; "seconds" of the processor, for all of it; and with ``probe``, before
    and after training, the Lyapunov exponents under blanks ("exponents", 2 x units) and "adjoint", both of
    :func:`signals`, and "swing", its :func:`swing` (median over 32 words, the last 100 of 300 blanks), which take as
    long as some ten steps of training. These three are NaN where the weights are not finite, or so large that
    perturbations leave the range of numbers.

    Raises ``ValueError`` for what the network, the task and the training refuse, for a reset at random delays, and for
    a probe or a reset of a coRNN.
    Source: Park, slides, "Results"; what they do not say is disclosed in the chapter. Used in: long_memory.
    """
    began = time.process_time()
    if reset is not None and delays[0] != delays[1]:
        raise ValueError(f"delays is {delays}; allowed with a reset: one delay, twice")
    for name, value, allowed in (("probe", probe, False), ("reset", reset, None), ("initial", initial, 0.0)):
        if cell == "coRNN" and value != allowed:
            raise ValueError(f"{name} is {value!r}; allowed for a coRNN: {allowed}")
    model = network(cell, SYMBOLS + 2, SYMBOLS + 1, units, generator, structure, gain, input_scale)
    if initial:
        model.initial = torch.from_numpy(initial * generator.standard_normal(units)).float()
    trained = model if reset is None else Interrupted(model, LENGTH + delays[0] - 1, reset)
    weights = torch.ones(SYMBOLS + 1)
    if weighted:
        weights[0] = 1 / delays[1]

    def recall(model: nn.Module, generator: np.random.Generator, delays: tuple[int, int] = delays) -> dict[str, float]:
        trials = random_delay(256, delays, generator)
        with torch.no_grad():
            return {"recall": accuracy(model(trials.inputs), trials.targets, blank=0)}

    def probed() -> tuple[np.ndarray, float, float]:
        trials = random_delay(32, delays, generator)
        try:
            exponents, adjoint = signals(model, trials, generator)
        except FloatingPointError:
            return np.full(units, np.nan), math.nan, math.nan
        states = model.held(trials.inputs[:, :LENGTH], BLANK, 300)
        return exponents, adjoint, swing(states[-100:]).median().item()

    stages = [probed()] if probe else []
    history = train(
        trained,
        lambda generator: random_delay(batch, delays, generator),
        steps=steps,
        learning_rate=learning_rate,
        generator=generator,
        class_weights=weights,
        evaluate=recall,
        every=every,
        stop=lambda row: row["recall"] >= enough,
        device="cpu",
    )
    stages += [probed()] if probe else []
    missing = math.ceil(steps / every) - len(history["step"])
    padded = {name: np.pad(column, (0, missing), constant_values=np.nan) for name, column in history.items()}
    result = {
        "trained": history["step"][-1],
        "solved": bool(history["recall"][-1] >= enough),
        "recall_at": np.array([recall(trained, generator, (delay, delay))["recall"] for delay in tested]),
    }
    if probe:
        result["exponents"], result["adjoint"], result["swing"] = (
            np.stack(values) for values in zip(*stages, strict=True)
        )
    return padded | result | {"seconds": time.process_time() - began}


def train_digits(
    *,
    split: Callable[[np.random.Generator], Split],
    cell: str,
    structure: str,
    gain: float,
    input_scale: float,
    dt: float,
    learning_rate: float,
    parameters: int,
    batch: int,
    steps: int,
    every: int,
    judge: bool,
    generator: np.random.Generator,
) -> Result:
    """Train one network at digits that are read pixel by pixel in a random order, in float32, on a GPU if there is one.

    The network is one of :func:`network`, with as many units as bring the number of its ``parameters`` closest to the
    one given. Drawn first are the ``split`` and the order: the same for all networks of a seed. The network is kept as
    it was at its best look (each ``every`` steps) at the validation images; with ``judge`` it is tried on the test.

    Returned are "step", "loss" and "validation" (accuracy) at the looks, "best", the highest of these, "test", NaN
    unless judged, "units", the number of parameters as "size", and "seconds" of the processor.
    Source: Le et al. (2015); Park, slides. Used in: long_memory.
    """
    began = time.process_time()
    images = split(generator)
    classes, pixels = int(images.training.labels.max()) + 1, images.training.pixels.shape[1]
    order = torch.from_numpy(generator.permutation(pixels))

    def size(units: int) -> int:
        drawn = network(cell, 1, classes, units, np.random.default_rng(0), "default")
        return sum(parameter.numel() for parameter in drawn.parameters())

    units = min(range(2, 2 * math.isqrt(parameters), 2), key=lambda units: abs(size(units) - parameters))
    model = network(cell, 1, classes, units, generator, structure, gain, input_scale, dt)
    best: dict = {"accuracy": -1.0, "state": None}

    def look(model: nn.Module, generator: np.random.Generator) -> dict[str, float]:
        found = share_right(model, images.validation, order)
        if found > best["accuracy"]:
            best.update(accuracy=found, state=copy.deepcopy(model.state_dict()))
        return {"validation": found}

    def draw(generator: np.random.Generator) -> Trials:
        chosen = images.training[torch.from_numpy(generator.integers(len(images.training), size=batch))]
        return sequential_images(chosen.pixels, chosen.labels, order)

    history = train(
        model,
        draw,
        steps=steps,
        learning_rate=learning_rate,
        generator=generator,
        evaluate=look,
        every=every,
    )
    model.load_state_dict(best["state"])
    test = share_right(model, images.test, order) if judge else math.nan
    result = {"best": best["accuracy"], "test": test, "units": units, "size": size(units)}
    return history | result | {"seconds": time.process_time() - began}


def share_right(model: nn.Module, images: Images, order: Int[Tensor, " pixels"], part: int = 500) -> float:
    """The share of images that are classified rightly, tried ``part`` at a time: the states of all take gigabytes.

    Used in: long_memory.
    """
    right = 0.0
    for first in range(0, len(images), part):
        some = images[first : first + part]
        trials = sequential_images(some.pixels, some.labels, order)
        with torch.no_grad():
            right += accuracy(model(trials.inputs), trials.targets) * len(some)
    return right / len(images)


def network(
    cell: str,
    inputs: int,
    classes: int,
    units: int,
    generator: np.random.Generator,
    structure: str,
    gain: float = 1.0,
    input_scale: float = 1.0,
    dt: float = 0.076,
) -> Recurrent:
    """An untrained network in float32: ``cell`` is "tanh", "GRU" or "coRNN".

    ``structure``, ``gain`` and ``input_scale`` go to ``initialise_``. Structure "default" is torch's own start of a
    tanh network or GRU, all parameters uniform on (-1, 1)/sqrt(units). A coRNN has but one start, and the step ``dt``.
    Raises ``ValueError`` for an unknown cell.

    Used in: long_memory.
    """
    seed = torch.Generator().manual_seed(int(generator.integers(2**63)))
    if cell == "coRNN":
        return Recurrent(CoRNN(inputs, units, seed, dt=dt, dtype=torch.float32), classes, seed)
    if cell not in ("tanh", "GRU"):
        raise ValueError(f"cell is {cell!r}; allowed: 'tanh', 'GRU', 'coRNN'")
    core = (nn.RNN if cell == "tanh" else nn.GRU)(inputs, units, dtype=torch.float32)
    if structure == "default":
        for parameter in core.parameters():
            nn.init.uniform_(parameter, -(units**-0.5), units**-0.5, generator=seed)
    else:
        initialise_(core, structure, gain, input_scale, seed)
    return Recurrent(core, classes, seed)


def signals(model: Recurrent, trials: Trials, generator: np.random.Generator) -> tuple[np.ndarray, float]:
    """How signals travel through the delay: Lyapunov exponents under blanks, and the growth of an adjoint.

    The :func:`lyapunov_exponents` are those under blanks, from the state in which the first trial's word leaves the
    network. The adjoint is a random unit vector at the end of a trial, taken back to the end of the word: log10 of its
    norm there, median over trials. Used in: long_memory.
    """
    word, rest = trials.inputs.tensor_split([LENGTH], 1)
    state = model.read(word)[1].detach().requires_grad_()
    end = model.core(rest.transpose(0, 1).to(model.readout.weight), state)[1]
    a = torch.from_numpy(generator.standard_normal(end.shape)).to(end)
    a = a / a.norm(dim=-1, keepdim=True)
    (adjoint,) = torch.autograd.grad((a * end).sum(), state)
    return lyapunov_exponents(model, state[0, 0], BLANK), adjoint.norm(dim=-1).log10().median().item()


def lyapunov_exponents(model: Recurrent, state: Float[Tensor, " d"], constant: Float[Tensor, " K"]) -> np.ndarray:
    """All Lyapunov exponents under a constant input, per step, descending: in float64, over 200 steps after 100.

    Used in: long_memory.
    """
    spectrum = lyapunov_spectrum(
        model.pushforward(constant), None, state.detach().double(), 200, transient=100, every=4
    )
    return spectrum.exponents.numpy()


def swing(states: Float[Tensor, "steps trials d"]) -> Float[Tensor, " trials"]:
    """How much a state swings: the root mean square of its motion about a straight line in time, over that of its size.

    0 at rest or in a steady drift, 1 on an orbit around the origin of many turns. Used in: long_memory.
    """
    t = torch.linspace(-1, 1, len(states), dtype=states.dtype)[:, None, None]
    motion = states - states.mean(0)
    motion = motion - t * (t * motion).sum(0) / t.square().sum()
    return (motion.square().sum(-1).mean(0) / states.square().sum(-1).mean(0)).sqrt()
