"""Limit cycles: the period and the multipliers, against a closed form and against Lyapunov exponents."""

import math

import pytest
import torch
from torch.testing import assert_close

from slowmanifold.dynamics.cycles import NoCycle, floquet_multipliers
from slowmanifold.dynamics.lyapunov import lyapunov_spectrum
from slowmanifold.networks.oscillator import GRU, TanhRNN, rotation
from slowmanifold.networks.ring import PlanarRing

start = torch.tensor([0.3, 0.1], dtype=torch.float64)


@pytest.mark.parametrize("network", [TanhRNN(rotation(1.5, 0.5)), GRU.with_open_gates(rotation(3.0, 0.5))])
def test_multipliers_are_the_exponents_over_a_period(network):
    cycle = floquet_multipliers(network.velocity, network.jacobian, start, transient=30.0)
    assert abs(cycle.multipliers[0] - 1) < 1e-7
    exponents = lyapunov_spectrum(
        network.velocity, network.jacobian, cycle.point, 240, dt=cycle.period / 40, transient=80, every=4
    ).exponents
    assert_close(cycle.multipliers.abs().log() / cycle.period, exponents, rtol=0, atol=1e-5)


def test_circle_with_a_closed_form():
    """r' = r (1 - r), theta' = 2: period pi, multipliers 1 and exp(-pi)."""
    ring, turn = PlanarRing(), torch.tensor([[0.0, -2.0], [2.0, 0.0]], dtype=torch.float64)
    cycle = floquet_multipliers(
        lambda x: ring.velocity(x) + x @ turn.mT,
        lambda x: ring.jacobian(x) + turn,
        start,
        transient=30.0,
        tol=1e-10,
    )
    assert cycle.period == pytest.approx(math.pi, abs=1e-9)
    assert_close(cycle.multipliers.real, torch.tensor([1, math.exp(-math.pi)], dtype=torch.float64), rtol=0, atol=1e-9)
    assert cycle.point.norm().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("transient", [0.0, -1.0, math.inf, math.nan])
def test_a_transient_that_takes_no_time_or_for_ever_is_refused(transient):
    network = TanhRNN(rotation(1.5, 0.5))
    with pytest.raises(ValueError, match=f"transient is {transient}; allowed: positive finite"):
        floquet_multipliers(network.velocity, network.jacobian, start, transient=transient)


def test_no_cycle():
    rest = TanhRNN(rotation(0.8, 0.5))
    with pytest.raises(NoCycle, match="at rest"):
        floquet_multipliers(rest.velocity, rest.jacobian, start)
    with pytest.raises(NoCycle, match="does not come back within 50 tau"):
        floquet_multipliers(
            lambda x: 0 * x + 1.0, lambda x: torch.zeros(2, 2, dtype=torch.float64), start, longest=50.0
        )
