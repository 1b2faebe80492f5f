"""The initialisation: what is drawn, and what becomes of torch's modules."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from slowmanifold.networks.initialisation import block_rotation, limit_cycle_, oscillator_parameters
from slowmanifold.networks.oscillator import TanhRNN, saddle_node_angle


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


class TestDraws:
    def test_ranges(self):
        alpha, theta = oscillator_parameters(500, generator(), (1.1, 1.4), (-0.2, 0.5))
        for values, low, high in [(alpha, 1.1, 1.4), (theta, -0.2, 0.5)]:
            assert low <= values.min() < low + 0.02 * (high - low)
            assert high - 0.02 * (high - low) < values.max() <= high

    def test_uniform_over_the_region_of_cycles(self):
        alpha, theta = oscillator_parameters(4000, generator(), (1.001, 10.0), None)
        edge = saddle_node_angle(alpha)
        # Given alpha, the place of theta in its open range is uniform; alpha has the density 1 - 4 edge / pi.
        place = (theta - edge) / (math.pi / 2 - 2 * edge)
        grid = torch.linspace(1.001, 10, 2001, dtype=torch.float64)
        mass = (1 - 4 * saddle_node_angle(grid) / math.pi).cumsum(0)
        rank = mass[torch.searchsorted(grid, alpha)] / mass[-1]
        for uniform in (place, rank):
            steps = torch.arange(1, 4001, dtype=torch.float64) / 4000
            assert (uniform.sort().values - steps).abs().max() < 1.63 / math.sqrt(4000)  # Kolmogorov, 1 per cent

    def test_same_generator_same_weights(self):
        assert_close(block_rotation(8, generator(3)), block_rotation(8, generator(3)))
        assert (block_rotation(8, generator(3)) != block_rotation(8, generator(4))).any()

    def test_blocks_and_nothing_else(self):
        W = block_rotation(10, generator(), alpha=1.2)
        blocks = torch.stack([W[k : k + 2, k : k + 2] for k in range(0, 10, 2)])
        assert_close(blocks @ blocks.mT, 1.44 * torch.eye(2, dtype=torch.float64).expand(5, 2, 2))
        assert_close(torch.linalg.det(blocks), torch.full((5,), 1.44, dtype=torch.float64))
        assert W.count_nonzero() == 20

    def test_bad_input(self):
        for size in (0, -2, 7):
            with pytest.raises(ValueError, match=f"size is {size}; allowed: 2, 4, 6"):
                block_rotation(size, generator())
        with pytest.raises(ValueError, match="m is 0; allowed"):
            oscillator_parameters(0, generator())
        with pytest.raises(ValueError, match=r"alpha is \(2.0, 1.0\); allowed"):
            oscillator_parameters(3, generator(), (2.0, 1.0))
        with pytest.raises(ValueError, match=r"theta is \(0.0, nan\); allowed"):
            oscillator_parameters(3, generator(), 1.5, (0.0, math.nan))
        for alpha in (0.9, 1.0, (0.999, 4.0), 1e6, (1.5, 1e6)):
            with pytest.raises(ValueError, match=r"alpha is .*; allowed with theta=None: gains above 1, up to 1000"):
                oscillator_parameters(3, generator(), alpha, None)


class TestLimitCycle:
    @pytest.mark.parametrize("kind", [nn.RNNCell, nn.RNN])
    def test_tanh_networks_become_oscillators(self, kind):
        module = limit_cycle_(kind(3, 8, dtype=torch.float64), generator())
        W = getattr(module, "weight_hh", None) if kind is nn.RNNCell else module.weight_hh_l0
        assert_close(W.detach(), block_rotation(8, generator()))
        assert all((b == 0).all() for name, b in module.named_parameters() if name.startswith("bias"))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_gated_networks_become_oscillators_at_half_the_speed(self, dtype):
        module = limit_cycle_(nn.GRUCell(3, 8, dtype=dtype), generator())
        W = block_rotation(8, generator())
        x = normal(5, 8).to(dtype)
        expected = x + TanhRNN(W.to(dtype), torch.zeros(8, dtype=dtype)).velocity(x) / 2
        assert module.weight_hh.dtype == dtype
        assert_close(module(torch.zeros(5, 3, dtype=dtype), x).detach(), expected)

    def test_every_layer_and_direction_has_weights_of_its_own(self):
        module = limit_cycle_(nn.GRU(3, 6, num_layers=2, bidirectional=True), generator())
        blocks = [p.detach()[12:] for name, p in module.named_parameters() if name.startswith("weight_hh")]
        assert len(blocks) == 4
        for i, W in enumerate(blocks):
            assert_close(W @ W.mT, 9 * torch.eye(6), rtol=0, atol=1e-5)
            assert not any(torch.equal(W, other) for other in blocks[:i])

    def test_without_biases_and_trainable_as_before(self):
        module = limit_cycle_(nn.RNN(3, 6, bias=False), generator())
        assert all(p.requires_grad for p in module.parameters())
        module(torch.zeros(4, 2, 3), torch.rand(1, 2, 6))[0].sum().backward()
        assert module.weight_hh_l0.grad.isfinite().all()

    def test_input_weights_have_kaimings_variance(self):
        module = limit_cycle_(nn.RNN(50, 400), generator())
        assert module.weight_ih_l0.std().item() == pytest.approx(math.sqrt(2 / 50), rel=0.02)

    def test_bad_input(self, unchecked):
        with pytest.raises(ValueError, match="module is LSTM; allowed: RNN, RNNCell, GRU, GRUCell"):
            limit_cycle_(nn.LSTM(3, 6), generator())
        for relu in (nn.RNN(3, 6, nonlinearity="relu"), nn.RNNCell(3, 6, nonlinearity="relu")):
            with pytest.raises(ValueError, match="nonlinearity 'relu'; allowed: 'tanh'"):
                limit_cycle_(relu, generator())
        with pytest.raises(ValueError, match="size is 7; allowed"):
            limit_cycle_(nn.GRU(3, 7), generator())

    @pytest.mark.parametrize(("size", "alpha"), [(7, 1.5), (6, math.nan)])
    def test_what_is_refused_stays_as_it_was(self, size, alpha):
        module = nn.GRU(3, size)
        before = [parameter.detach().clone() for parameter in module.parameters()]
        with pytest.raises(ValueError, match="allowed"):
            limit_cycle_(module, generator(), alpha)
        assert all(map(torch.equal, module.parameters(), before))
