"""Recurrent networks and their starts: the laws that the weights obey."""

import math

import numpy as np
import pytest
import torch

from slowmanifold.learning.long_memory import network, signals
from slowmanifold.learning.recurrent import Recurrent, initialise_
from slowmanifold.learning.tasks import copy_memory


def start(structure, gain, cell=torch.nn.RNN, units=64, input_scale=0.1, seed=0):
    core = cell(10, units, dtype=torch.float64)
    return initialise_(core, structure, gain, input_scale, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("structure", ["rotation", "orthogonal", "identity"])
@pytest.mark.parametrize("gain", [0.95, 1.0, 1.1])
def test_matched_starts_stretch_every_vector_by_the_gain(structure, gain):
    W = start(structure, gain).weight_hh_l0
    torch.testing.assert_close(W.T @ W, gain**2 * torch.eye(64, dtype=torch.float64))


def test_rotations_are_blocks_and_orthogonal_matrices_are_not():
    blocks = torch.block_diag(*torch.ones(32, 2, 2)).bool()
    assert not start("rotation", 1.1).weight_hh_l0[~blocks].any()
    assert start("orthogonal", 1.1).weight_hh_l0[~blocks].abs().min() > 0


def test_glorot_and_input_weights_have_the_variances_they_say():
    core = start("glorot", 1.0, units=400)
    assert core.weight_hh_l0.var().item() == pytest.approx(1 / 400, rel=0.02)
    for structure in ("rotation", "glorot"):
        assert start(structure, 1.0, units=400, input_scale=0.3).weight_ih_l0.std().item() == pytest.approx(
            0.3, rel=0.05
        )


@pytest.mark.parametrize("structure", ["rotation", "orthogonal", "identity", "glorot"])
def test_a_gru_moves_half_the_way_of_the_tanh_network(structure):
    core = start(structure, 1.1, torch.nn.GRU)
    step = Recurrent(core, 9, torch.Generator()).under(torch.zeros(10))
    W = core.weight_hh_l0[-64:].detach() / 2
    assert W.norm().item() == pytest.approx(1.1 * 8, rel=0.05)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(step(x), (x + torch.tanh(x @ W.T)) / 2)


@pytest.mark.parametrize("cell", ["tanh", "GRU"])
def test_the_map_under_a_constant_input_is_the_networks_own_step(cell):
    model = network(cell, 10, 9, 16, np.random.default_rng(0), "default").double()
    constant = torch.eye(10, dtype=torch.float64)[4]
    states, _ = model.core(constant.expand(6, 1, 10))
    step = model.under(constant)
    x = torch.zeros(16, dtype=torch.float64)
    for t in range(6):
        x = step(x)
        torch.testing.assert_close(x, states[t, 0])


@pytest.mark.parametrize("gain", [0.9, 0.97])
def test_a_network_that_falls_asleep_forgets_at_the_rate_of_its_gain(gain):
    """Around the origin the map is gain times an isometry: all exponents log gain, adjoints shrink by it each step."""
    T, generator = 60, np.random.default_rng(0)
    model = network("tanh", 10, 9, 32, generator, "orthogonal", gain, 1e-4)
    exponents, adjoint = signals(model, copy_memory(8, T, generator), generator)
    assert np.abs(exponents - math.log(gain)).max() < 1e-5
    assert adjoint == pytest.approx((T + 10) * math.log10(gain), abs=1e-3)


@pytest.mark.parametrize(("wrong", "name"), [(("spiral", 1.0, 0.1), "structure"), (("rotation", 0.0, 0.1), "gain")])
def test_unknown_starts_are_refused(wrong, name):
    structure, gain, input_scale = wrong
    with pytest.raises(ValueError, match=name):
        start(structure, gain, input_scale=input_scale)
    with pytest.raises(ValueError, match="input_scale"):
        start("rotation", 1.0, input_scale=-1.0)
