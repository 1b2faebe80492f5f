"""Recurrent networks and their starts: the laws that the weights obey."""

import math

import numpy as np
import pytest
import torch

from slowmanifold.dynamics.flow import linearisation
from slowmanifold.learning.long_memory import network, signals, swing, train_memory
from slowmanifold.learning.recurrent import RESETS, STRUCTURES, Interrupted, Recurrent, initialise_
from slowmanifold.learning.tasks import copy_memory


def start(structure, gain, cell=torch.nn.RNN, units=64, input_scale=0.1, seed=0):
    core = cell(10, units, dtype=torch.float64)
    return initialise_(core, structure, gain, input_scale, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("structure", ["rotation", "slow rotation", "orthogonal", "identity"])
@pytest.mark.parametrize("gain", [0.95, 1.0, 1.1])
def test_matched_starts_stretch_every_vector_by_the_gain(structure, gain):
    W = start(structure, gain).weight_hh_l0
    torch.testing.assert_close(W.T @ W, gain**2 * torch.eye(64, dtype=torch.float64))


def test_rotations_are_blocks_and_orthogonal_matrices_are_not():
    blocks = torch.block_diag(*torch.ones(32, 2, 2)).bool()
    assert not start("rotation", 1.1).weight_hh_l0[~blocks].any()
    assert start("orthogonal", 1.1).weight_hh_l0[~blocks].abs().min() > 0


def test_slow_rotations_turn_within_the_authors_range():
    W = start("slow rotation", 1.5, units=400).weight_hh_l0
    angles = torch.atan2(W[1::2, ::2].diagonal(), W[::2, ::2].diagonal())
    assert math.pi / 21 <= angles.min() < 0.2


@pytest.mark.parametrize(("structure", "gain", "share"), [("slow rotation", 1.5, 1.0), ("rotation", 1.1, 0.198)])
def test_rotations_of_a_gru_are_limit_cycles_where_the_docstring_says(structure, gain, share):
    """The origin repels in the pairs that oscillate, those with cos > (3 - gain^2) / 2 gain."""
    core = start(structure, gain, torch.nn.GRU, units=4000)
    cos = core.weight_hh_l0[-4000:].diagonal()[::2] / (2 * gain)
    oscillates = gain > (cos**2 + 3).sqrt() - cos
    multiplier = (1 + gain * torch.complex(cos, (1 - cos**2).clamp(min=0).sqrt())).abs() / 2
    assert torch.equal(oscillates, multiplier > 1)
    assert oscillates.double().mean().item() == pytest.approx(share, abs=0.03)


def test_glorot_and_input_weights_have_the_variances_they_say():
    core = start("glorot", 1.0, units=400)
    assert core.weight_hh_l0.var().item() == pytest.approx(1 / 400, rel=0.02)
    for structure in ("rotation", "glorot"):
        assert start(structure, 1.0, units=400, input_scale=0.3).weight_ih_l0.std().item() == pytest.approx(
            0.3, rel=0.05
        )


@pytest.mark.parametrize("structure", ["rotation", "slow rotation", "orthogonal", "identity", "glorot"])
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


@pytest.mark.parametrize("cell", ["tanh", "GRU"])
def test_perturbations_are_pushed_forward_by_the_jacobian(cell):
    model, generator = network(cell, 10, 9, 16, np.random.default_rng(0), "default"), torch.Generator().manual_seed(1)
    constant = torch.eye(10)[4]
    x, M = torch.randn(5, 16, generator=generator).double(), torch.randn(5, 16, 3, generator=generator).double()
    step = model.under(constant)
    new, pushed = model.pushforward(constant)(x, M)
    torch.testing.assert_close(new, step(x).detach())
    torch.testing.assert_close(pushed, linearisation(step)(x)[1] @ M)


def test_a_cornn_has_no_pushforward():
    with pytest.raises(ValueError, match="CoRNN"):
        network("coRNN", 10, 9, 16, np.random.default_rng(0), "default").pushforward(torch.eye(10)[0])


def test_states_are_held_from_where_the_word_left_them():
    model, shown = network("tanh", 10, 9, 16, np.random.default_rng(0), "default"), torch.eye(10).expand(3, 10, 10)
    blank = torch.eye(10)[0]
    states, _ = model.core(torch.cat([shown, blank.expand(3, 5, 10)], 1).transpose(0, 1))
    torch.testing.assert_close(model.held(shown.double(), blank, 5).float(), states[10:].detach())


def test_rest_and_drift_do_not_swing_and_circles_around_the_origin_do():
    angle = torch.linspace(0, 100 * math.pi, 5001, dtype=torch.float64)
    circle, still = torch.stack([angle.cos(), angle.sin()], -1), torch.ones(5001, 2, dtype=torch.float64)
    drift = still + angle.unsqueeze(-1) * torch.tensor([0.1, -0.3])
    states = torch.stack([still, drift, circle, 1e3 * circle, circle + torch.tensor([1.0, 0.0])], 1)
    expected = torch.tensor([0.0, 0.0, 1.0, 1.0, math.sqrt(0.5)], dtype=torch.float64)
    torch.testing.assert_close(swing(states), expected, atol=1e-3, rtol=0)


def interrupted(reset, T=6):
    """A network, and the same with a reset before the cue is read."""
    model = network("tanh", 10, 9, 16, np.random.default_rng(0), "rotation", 1.1, 0.5)
    return model, Interrupted(model, 10 + T - 1, reset)


def test_resets_keep_what_they_say():
    state = torch.randn(4, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = {reset: interrupted(reset)[1].interrupted(state).unflatten(-1, (-1, 2)) for reset in RESETS}
    before = state.unflatten(-1, (-1, 2))
    assert torch.equal(pairs["phases"][..., 1], torch.zeros(4, 8).double())
    torch.testing.assert_close(pairs["phases"].norm(dim=-1), before.norm(dim=-1))
    after = pairs["amplitudes"]
    torch.testing.assert_close(after.atan2(after.flip(-1)), before.atan2(before.flip(-1)))
    torch.testing.assert_close(after.norm(dim=-1), (before.norm(dim=-1).square().mean(-1, True).sqrt()).expand(4, 8))


@pytest.mark.parametrize("reset", RESETS)
def test_a_reset_changes_no_answer_before_it_and_all_after(reset):
    model, cut = interrupted(reset)
    inputs = copy_memory(3, 6, np.random.default_rng(1)).inputs
    with torch.no_grad():
        plain, changed = model(inputs), cut(inputs)
    torch.testing.assert_close(changed[:, :15], plain[:, :15])
    assert ((changed[:, 15:] - plain[:, 15:]).abs().amax(-1) > 1e-6).all()


def test_oscillators_of_one_amplitude_pass_no_word_on_through_a_reset_of_phases():
    """With the amplitudes all alike nothing is left of the word: the gradient of what comes after is at rounding."""
    model, cut = interrupted("phases")
    inputs = copy_memory(3, 6, np.random.default_rng(1)).inputs
    state = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    pairs = state.unflatten(-1, (-1, 2))
    circle = (pairs / pairs.norm(dim=-1, keepdim=True)).flatten(-2)
    late, _ = model.core(inputs[:, 15:].transpose(0, 1).float(), cut.interrupted(circle))
    (gradient,) = torch.autograd.grad(late.square().sum(), state)
    assert gradient.abs().max() < 1e-5


def short_training(**other):
    settings = {"units": 4, "batch": 2, "steps": 2, "every": 1, "enough": 0.9, "weighted": True, "delays": (3, 3)}
    start = {"cell": "tanh", "structure": "rotation", "gain": 1.1, "input_scale": 0.1, "learning_rate": 1e-3}
    return train_memory(**settings | start | other, tested=(3,), generator=np.random.default_rng(0))


def test_a_reset_needs_one_delay_and_a_name():
    with pytest.raises(ValueError, match="reset"):
        interrupted("clocks")
    with pytest.raises(ValueError, match="delays"):
        short_training(delays=(3, 5), reset="phases")


def test_a_cornn_is_trained_without_a_probe_and_without_a_reset():
    with pytest.raises(ValueError, match="probe is True; allowed for a coRNN: False"):
        short_training(cell="coRNN")
    with pytest.raises(ValueError, match="reset is 'phases'; allowed for a coRNN: None"):
        short_training(cell="coRNN", probe=False, reset="phases")
    assert short_training(cell="coRNN", probe=False)["trained"] == 2


def test_a_network_begins_in_its_initial_state_if_it_has_one():
    model = network("tanh", 10, 9, 16, np.random.default_rng(0), "rotation", 1.1, 0.5)
    inputs = copy_memory(3, 6, np.random.default_rng(1)).inputs
    model.initial = torch.zeros(16)
    zero = model(inputs)
    model.initial = None
    assert torch.equal(model(inputs), zero)
    model.initial = torch.linspace(-0.5, 0.5, 16)
    first = inputs[:, :1].transpose(0, 1).float()
    expected = model.core(first, model.initial.expand(1, 3, -1).contiguous())[0]
    assert torch.equal(model.read(inputs[:, :1])[0], expected)
    assert torch.equal(Interrupted(model, 5, "phases")(inputs)[:, :5], model(inputs)[:, :5])


def test_an_initial_state_is_drawn_once_and_kept():
    assert short_training(initial=0.5)["loss"][0] != short_training()["loss"][0]
    with pytest.raises(ValueError, match=r"initial is 0\.5; allowed for a coRNN: 0\.0"):
        short_training(cell="coRNN", probe=False, initial=0.5)


@pytest.mark.parametrize("learning_rate", [1e30, 1e300])
def test_a_training_that_ends_beyond_numbers_has_no_exponents_but_a_result(learning_rate):
    result = short_training(learning_rate=learning_rate)
    for name in ("exponents", "adjoint", "swing"):
        before, after = result[name]
        assert np.isfinite(before).all()
        assert np.isnan(after).all()
    assert not result["solved"]


@pytest.mark.parametrize("gain", [0.9, 0.97])
def test_a_network_that_falls_asleep_forgets_at_the_rate_of_its_gain(gain):
    """Around the origin the map is gain times an isometry: all exponents log gain, adjoints shrink by it each step."""
    T, generator = 60, np.random.default_rng(0)
    model = network("tanh", 10, 9, 32, generator, "orthogonal", gain, 1e-4)
    exponents, adjoint = signals(model, copy_memory(8, T, generator), generator)
    assert np.abs(exponents - math.log(gain)).max() < 1e-5
    assert adjoint == pytest.approx((T + 10) * math.log10(gain), abs=1e-3)


@pytest.mark.parametrize(("several", "named"), [({"num_layers": 2}, "2 layers"), ({"bidirectional": True}, "2 dir")])
@pytest.mark.parametrize("cell", [torch.nn.RNN, torch.nn.GRU])
def test_more_than_one_layer_or_direction_is_refused(cell, several, named):
    with pytest.raises(ValueError, match=f"core has .*{named}.*; allowed: one of each"):
        initialise_(cell(10, 4, **several), "glorot", 1.0, 0.1, torch.Generator())


@pytest.mark.parametrize("structure", STRUCTURES)
def test_odd_sizes_are_refused_for_every_start(structure):
    with pytest.raises(ValueError, match="size is 5"):
        start(structure, 1.0, units=5)


@pytest.mark.parametrize(("wrong", "name"), [(("spiral", 1.0, 0.1), "structure"), (("rotation", 0.0, 0.1), "gain")])
def test_unknown_starts_are_refused(wrong, name):
    structure, gain, input_scale = wrong
    with pytest.raises(ValueError, match=name):
        start(structure, gain, input_scale=input_scale)
    with pytest.raises(ValueError, match="input_scale"):
        start("rotation", 1.0, input_scale=-1.0)
