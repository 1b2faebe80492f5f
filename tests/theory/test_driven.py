"""Chaos under a periodic drive: limits that are known, and a network."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from slowmanifold.theory.driven import covariances, driven_exponent
from slowmanifold.theory.gaussian import SmoothAverages


@pytest.mark.parametrize("frequency", [0.1, 2.0])
def test_a_weak_drive_of_a_silent_network_leaves_it_linear(frequency):
    """There all slopes are one, and the spectrum is the disk of radius g around -1."""
    assert abs(driven_exponent(0.8, 1e-3, frequency) - (0.8 - 1)) < 1e-5


def test_a_very_slow_drive_is_a_constant_one():
    """The phases are then a random input to each neuron, and a push has the time to grow as at rest."""
    gain, amplitude = 1.5, 0.9
    y, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    mean = amplitude * np.cos(2 * np.pi * np.arange(200) / 200)[:, None]
    variance = 1.0
    for _ in range(500):
        x = mean + math.sqrt(variance) * y
        variance = gain**2 * (np.tanh(x) ** 2 @ weights).mean()
    slopes = ((1 - np.tanh(mean + math.sqrt(variance) * y) ** 2) ** 2 @ weights).mean()
    slow = gain * math.sqrt(slopes) - 1
    errors = [abs(driven_exponent(gain, amplitude, frequency, phases=128) - slow) for frequency in (8e-3, 2e-3)]
    assert errors[1] < 4e-3
    assert errors[1] < 0.4 * errors[0]  # the spread of the ground state, which shrinks with the frequency


def test_lags_are_fine_enough():
    assert abs(driven_exponent(1.5, 0.9, 0.2, phases=32) - driven_exponent(1.5, 0.9, 0.2, phases=96)) < 1e-7


def test_covariances_are_those_of_samples():
    rng, phases = np.random.default_rng(0), 8
    angle = 2 * np.pi * np.arange(phases) / phases
    D = 0.5 * np.cos(angle) + 0.1 * np.cos(3 * angle)
    amplitudes = rng.normal(size=(4, 100_000)) * np.sqrt([[0.5], [0.5], [0.1], [0.1]])
    waves = np.stack([np.cos(angle), np.sin(angle), np.cos(3 * angle), np.sin(3 * angle)])
    x = torch.from_numpy(0.7 * np.cos(angle)[:, None] + waves.T @ amplitudes)
    averages = SmoothAverages(torch.tanh)
    value, slopes = covariances(averages, torch.from_numpy(0.7 * np.cos(angle)), torch.from_numpy(D))
    for found, rates in ((value, x.tanh()), (slopes, 1 - x.tanh() ** 2)):
        sampled = torch.stack([(rates * rates.roll(-lag, 0)).mean() for lag in range(phases)])
        assert_close(found, sampled, rtol=0, atol=4e-3)


def test_networks_have_the_exponent():
    """The mean of four networks, each of which scatters by some 0.03."""
    N, gain, amplitude, dt = 400, 1.5, 0.9, 0.1
    frequencies = torch.tensor([0.2, 0.5], dtype=torch.float64)
    measured = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        W = torch.from_numpy(rng.normal(size=(N, N)) * gain / N**0.5)
        theta = torch.from_numpy(rng.uniform(0, 2 * np.pi, N))
        x, v = torch.from_numpy(rng.normal(size=(2, 2, N)))
        logs = []
        for step in range(2000):
            rates = x.tanh()
            heard = torch.cat([rates, (1 - rates**2) * v]) @ W.mT
            x = x + dt * (heard[:2] + amplitude * (frequencies[:, None] * step * dt + theta).cos() - x)
            v = v + dt * (heard[2:] - v)
            size = v.norm(dim=-1, keepdim=True)
            v, logs = v / size, [*logs, size[:, 0].log()]
        measured.append(torch.stack(logs[500:]).mean(0) / dt)
    theory = [driven_exponent(gain, amplitude, float(frequency)) for frequency in frequencies]
    assert_close(torch.stack(measured).mean(0), torch.tensor(theory, dtype=torch.float64), rtol=0, atol=0.03)


@pytest.mark.parametrize("name", ["gain", "amplitude", "frequency"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_bad_input_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        driven_exponent(**{"gain": 1.5, "amplitude": 0.9, "frequency": 0.2} | {name: value})


@pytest.mark.parametrize("phases", [-1, 0, 1, 7])
def test_too_few_phases_are_refused(phases):
    with pytest.raises(ValueError, match=f"phases is {phases}; allowed: 8, 9, 10"):
        driven_exponent(1.5, 0.9, 0.2, phases=phases)


def test_what_does_not_converge_says_so():
    with pytest.raises(RuntimeError, match="max_iterations"):
        driven_exponent(1.5, 0.9, 0.2, max_iterations=3)
