"""Copy memory, random delay and sequential images: what is asked can be worked out from what is shown, and not else."""

import math

import numpy as np
import pytest
import torch

from slowmanifold.learning.tasks import UNMARKED, copy_memory, random_delay, sequential_images
from slowmanifold.learning.training import classification_loss


def scribe(shown, symbols):
    """What a scribe writes who notes down each symbol, and reads out the notes from the step after the cue on."""
    notes, reading, written = [], False, []
    for symbol in shown:
        written.append(notes.pop(0) if reading and notes else 0)
        if symbol == symbols + 1:
            reading = True
        elif symbol > 0:
            notes.append(symbol)
    return written


@pytest.mark.parametrize(("delays", "symbols", "length"), [((7, 7), 8, 10), ((3, 9), 2, 4), ((1, 30), 8, 10)])
def test_a_scribe_with_a_notebook_has_no_errors(delays, symbols, length):
    trials = random_delay(50, delays, np.random.default_rng(0), symbols, length)
    assert trials.inputs.shape == (50, delays[1] + 2 * length, symbols + 2)
    assert torch.equal(trials.inputs.sum(-1), torch.ones(trials.inputs.shape[:2], dtype=torch.float64))
    for shown, targets in zip(trials.inputs.argmax(-1).tolist(), trials.targets.tolist(), strict=True):
        assert scribe(shown, symbols) == targets


def test_who_knows_when_but_not_what_has_the_loss_of_the_baseline():
    T, symbols, length = 37, 8, 10
    trials = copy_memory(64, T, np.random.default_rng(1))
    logits = torch.full((64, T + 2 * length, symbols + 1), -math.inf)
    logits[:, :-length, 0] = 0.0
    logits[:, -length:, 1:] = 0.0
    expected = length * math.log(symbols) / (T + 2 * length)
    assert classification_loss(logits, trials.targets).item() == pytest.approx(expected, rel=1e-6)


def test_words_and_delays_are_uniform():
    n = 20000
    trials = random_delay(n, (4, 9), np.random.default_rng(2), symbols=5, length=3)
    delays = (trials.inputs[..., 6].argmax(-1) + 1 - 3).bincount(minlength=10)
    symbols = trials.targets[trials.targets > 0].bincount()
    assert not delays[:4].any()
    for counts, share in ((delays[4:], 1 / 6), (symbols[1:], 1 / 5)):
        total = counts.sum().item()
        assert (counts / total - share).abs().max() < 5 * math.sqrt(share * (1 - share) / total)


def test_a_fixed_delay_is_a_random_one_without_choice():
    fixed, random = copy_memory(9, 12, np.random.default_rng(3)), random_delay(9, (12, 12), np.random.default_rng(3))
    assert torch.equal(fixed.inputs, random.inputs)
    assert torch.equal(fixed.targets, random.targets)
    assert torch.equal(fixed.targets[:, -10:], fixed.inputs[:, :10].argmax(-1))


def test_images_are_read_in_the_order_given_and_asked_for_at_the_end():
    pixels, labels = torch.rand(6, 16, generator=torch.Generator().manual_seed(0)).double(), torch.arange(6)
    order = torch.from_numpy(np.random.default_rng(0).permutation(16))
    trials = sequential_images(pixels, labels, order)
    restored = torch.empty_like(pixels)
    restored[:, order] = trials.inputs.squeeze(-1)
    assert torch.equal(restored, pixels)
    assert torch.equal(trials.targets[:, -1], labels)
    assert (trials.targets[:, :-1] == UNMARKED).all()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0, (5, 5)), "trials"), ((3, (0, 5)), "delays"), ((3, (6, 5)), "delays"), ((3, (5, 5), 0), "symbols")],
)
def test_what_makes_no_task_is_refused(arguments, name):
    trials, delays, *rest = arguments
    with pytest.raises(ValueError, match=name):
        random_delay(trials, delays, np.random.default_rng(0), *rest)


@pytest.mark.parametrize("delay", [0, -3])
def test_a_delay_of_no_steps_is_refused(delay):
    with pytest.raises(ValueError, match=f"delay is {delay}; allowed: 1, 2, 3"):
        copy_memory(3, delay, np.random.default_rng(0))


def test_an_order_that_leaves_out_a_pixel_is_refused():
    with pytest.raises(ValueError, match="order"):
        sequential_images(torch.zeros(2, 3).double(), torch.zeros(2).long(), torch.tensor([0, 1, 1]))
