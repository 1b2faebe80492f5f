"""The clicks task: its convention, its statistics, and its target."""

import numpy as np
import pytest
import torch

from slowmanifold.learning.tasks import clicks


def test_the_input_convention_gives_the_checksums_of_the_reference_trials():
    drawn = clicks(1000, 500, 500, np.random.default_rng(0))
    assert drawn.inputs.sum().item() == pytest.approx(100150.0595451423, rel=1e-14)
    assert drawn.targets.square().mean().item() == pytest.approx(28.8684389402, rel=1e-11)


def test_draws_are_all_occurrences_and_then_all_sizes_in_the_order_trial_step_channel():
    drawn = clicks(7, 20, 9, np.random.default_rng(3))
    generator = np.random.default_rng(3)
    m, u = generator.random((7, 9, 2)) < 0.2, generator.random((7, 9, 2))
    torch.testing.assert_close(drawn.inputs[:, :9], torch.from_numpy(m * u), rtol=0, atol=0)


def test_the_target_counts_channel_two_up_and_channel_one_down_the_click_of_the_step_included():
    drawn = clicks(5, 30, 12, np.random.default_rng(1))
    for inputs, targets in zip(drawn.inputs, drawn.targets, strict=True):
        count = 0.0
        for (down, up), target in zip(inputs.tolist(), targets.tolist(), strict=True):
            count += up - down
            assert target == pytest.approx(count, abs=1e-12)


def test_longer_trials_are_the_same_trials_followed_by_silence():
    short, long = (clicks(6, steps, 10, np.random.default_rng(2)) for steps in (10, 25))
    assert torch.equal(long.inputs[:, :10], short.inputs)
    assert not long.inputs[:, 10:].any()
    assert torch.equal(long.targets[:, :10], short.targets)
    torch.testing.assert_close(long.targets[:, 10:], short.targets[:, -1:].expand(-1, 15), rtol=0, atol=1e-15)


@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_clicks_are_independent_of_size_uniform_and_the_target_a_random_walk(rate):
    trials, steps = 4000, 50
    drawn = clicks(trials, steps, steps, np.random.default_rng(5), rate=rate)
    sizes = drawn.inputs[drawn.inputs > 0]
    draws = drawn.inputs.numel()
    assert abs(len(sizes) - rate * draws) < 5 * (draws * rate * (1 - rate)) ** 0.5
    assert abs(sizes.mean().item() - 1 / 2) < 5 * (1 / 12 / len(sizes)) ** 0.5
    assert 0.99 < sizes.max().item() < 1
    # Var I = rate/3 - rate^2/4 for each channel and step; the variance of a variance is 2/n of its square.
    variance = 2 * (rate / 3 - rate**2 / 4) * torch.arange(1, steps + 1)
    found = drawn.targets.square().mean(0)
    assert ((found / variance - 1).abs() < 6 * (2 / trials) ** 0.5).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trials": 0}, "trials is 0; allowed: 1, 2, 3"),
        ({"input_steps": 11}, "input_steps is 11; allowed: 1, ..., 10"),
        ({"input_steps": 0}, "input_steps is 0; allowed: 1, ..., 10"),
        ({"rate": 1.5}, "rate is 1.5; allowed: 0 to 1"),
    ],
)
def test_bad_input_is_named(arguments, message):
    good = {"trials": 3, "steps": 10, "input_steps": 10, "generator": np.random.default_rng(0)}
    with pytest.raises(ValueError, match=message):
        clicks(**{**good, **arguments})
