"""The coRNN against its differential equation."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from slowmanifold.networks.cornn import CoRNN


def oscillator(dt, generator_seed=0, **settings):
    return CoRNN(2, 5, torch.Generator().manual_seed(generator_seed), dt=dt, dtype=torch.float64, **settings)


def solution(network, u, time):
    """y at ``time``, from rest, of y'' = tanh(W y + W' y' + V u + b) - gamma y - epsilon y'."""
    d = network.hidden_size
    V, W, b = (p.detach().numpy() for p in (network.weight_ih, network.weight_hh, network.bias))

    def velocity(_, state):
        y, z = state[:d], state[d:]
        force = np.tanh(W[:, d:] @ y + W[:, :d] @ z + V @ u + b)
        return np.concatenate([z, force - network.gamma * y - network.epsilon * z])

    return solve_ivp(velocity, (0, time), np.zeros(2 * d), rtol=1e-10, atol=1e-12).y[:d, -1]


def test_steps_converge_to_the_equation_at_first_order():
    u, errors = np.array([0.7, -1.2]), []
    for halvings in range(4):
        network = oscillator(0.1 / 2**halvings, gamma=2.0, epsilon=1.0)
        steps = 40 * 2**halvings
        positions, _ = network(torch.from_numpy(u).expand(steps, 1, 2))
        errors.append(np.abs(positions[-1, 0].detach().numpy() - solution(network, u, 4.0)).max())
    ratios = np.array(errors[:-1]) / errors[1:]
    assert np.abs(ratios - 2).max() < 0.15
    assert errors[-1] < 0.01


def test_a_run_can_be_cut_in_two():
    network = oscillator(0.1)
    inputs = torch.randn(20, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole, end = network(inputs)
    first, state = network(inputs[:8])
    second, last = network(inputs[8:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=0, atol=0)
    torch.testing.assert_close(last, end, rtol=0, atol=0)


@pytest.mark.parametrize(("gamma", "epsilon"), [(0.4, 8.0), (4.0, 0.5), (100.0, 0.1)])
def test_the_bound_on_the_step_is_where_the_undriven_step_loses_stability(gamma, epsilon):
    # dt epsilon + dt^2 gamma / 2 = 2
    dt = (-epsilon + np.sqrt(epsilon**2 + 4 * gamma)) / gamma
    for factor, stable in ((0.999, True), (1.001, False)):
        h = factor * dt
        z = np.array([1 - h * epsilon, -h * gamma])
        radius = np.abs(np.linalg.eigvals(np.array([z, [h * z[0], 1 + h * z[1]]]))).max()
        assert (radius < 1) == stable
        if stable:
            oscillator(h, gamma=gamma, epsilon=epsilon)
        else:
            with pytest.raises(ValueError, match="dt"):
                oscillator(h, gamma=gamma, epsilon=epsilon)


@pytest.mark.parametrize("wrong", [{"gamma": 0.0}, {"epsilon": -1.0}, {"dt": 0.0}])
def test_settings_without_an_oscillator_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        oscillator(**{"dt": 0.1} | wrong)
