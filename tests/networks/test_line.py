"""The three click integrators against the paper's equations, closed forms and invariances."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from slowmanifold.dynamics.flow import linearisation
from slowmanifold.networks.line import (
    ACTIVATIONS,
    RateNetwork,
    bounded_line_attractor,
    identity_rnn,
    unbounded_line_attractor,
)

EXACT = {"rtol": 0, "atol": 1e-12}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


def clicks(trials: int, bins: int, seed: int = 0) -> torch.Tensor:
    """Two channels of continuous clicks (eq. 4): uniform on the unit interval with probability 0.2, else zero."""
    return (uniform(trials, bins, 2, seed=seed) < 0.2) * uniform(trials, bins, 2, seed=seed + 1)


def run(network: RateNetwork, inputs: torch.Tensor) -> torch.Tensor:
    """The outputs of eq. 6 for inputs (trials, bins, 2)."""
    x, outputs = network.x0.expand(len(inputs), -1), []
    for I_t in inputs.unbind(1):
        x = network.step(x, I_t)
        outputs.append(network.output(x))
    return torch.stack(outputs, dim=1)


def on_the_line(beta: float) -> dict[str, tuple[RateNetwork, torch.Tensor]]:
    s = beta * (0.05 + 0.9 * uniform(20, 1))
    return {
        "irnn": (identity_rnn(), beta * (0.05 + uniform(20, 2))),
        "ubla": (unbounded_line_attractor(beta=beta), torch.cat([s, s], -1)),
        "bla": (bounded_line_attractor(beta=beta), torch.cat([s, beta - s], -1)),
    }


class TestContinuum:
    @pytest.mark.parametrize("beta", [0.3, 1.0, 40.0])
    @pytest.mark.parametrize(("name", "eigenvalues"), [("irnn", [0, 0]), ("ubla", [-2, 0]), ("bla", [-2, 0])])
    def test_equilibria_with_their_eigenvalues(self, name, eigenvalues, beta):
        network, x = on_the_line(beta)[name]
        assert_close(network.velocity(x), torch.zeros_like(x), rtol=0, atol=1e-14 * beta)
        found = torch.linalg.eigvalsh(network.jacobian(x))
        assert_close(found, torch.tensor(eigenvalues, dtype=torch.float64).expand(20, 2), **EXACT)

    @pytest.mark.parametrize("name", ["irnn", "ubla", "bla"])
    @pytest.mark.parametrize("dt", [0.1, 0.5, 1.0])
    def test_euler_map_has_multipliers_one_plus_dt_lambda(self, name, dt):
        network, x = on_the_line(1.0)[name]
        flow = torch.linalg.eigvalsh(network.jacobian(x))
        assert_close(torch.linalg.eigvalsh(network.step_jacobian(x, dt=dt)), 1 + dt * flow, **EXACT)

    @pytest.mark.parametrize("name", ["ubla", "bla"])
    def test_unit_step_flips_around_the_line_with_period_two(self, name):
        network, x = on_the_line(1.0)[name]
        off = x + torch.tensor([0.02, 0.02 if name == "bla" else -0.02])
        once = network.step(off)
        assert_close(network.step(once), off, **EXACT)
        assert_close(once - x, x - off, **EXACT)

    def test_celu_keeps_the_segment_of_equilibria(self):
        _, x = on_the_line(1.0)["bla"]
        relu, celu = bounded_line_attractor(), bounded_line_attractor(activation="celu")
        assert_close(celu.velocity(x), relu.velocity(x), **EXACT)
        assert_close(celu.jacobian(x), relu.jacobian(x), **EXACT)

    def test_softplus_moves_every_point_of_the_segment(self):
        _, x = on_the_line(1.0)["bla"]
        softplus = bounded_line_attractor(activation="softplus")
        assert_close(softplus.velocity(x), torch.log1p(torch.exp(-softplus.preactivation(x))), **EXACT)


class TestEquations:
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_unit_step_is_equation_6(self, activation):
        network = bounded_line_attractor(activation=activation)
        x, I = uniform(50, 2) * 4 - 2, uniform(50, 2, seed=1)  # noqa: E741
        phi = {"relu": torch.nn.ReLU(), "celu": torch.nn.CELU(), "softplus": torch.nn.Softplus()}[activation]
        expected = phi(I @ network.W_in.T + x @ network.W.T + network.b)
        assert_close(network.step(x, I), expected, **EXACT)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_jacobians_are_the_derivatives(self, activation):
        network = bounded_line_attractor(activation=activation).perturbed(uniform(2, 2) - 0.5)
        x, I = uniform(50, 2) * 4 - 2, uniform(50, 2, seed=1)  # noqa: E741
        assert_close(network.jacobian(x, I), linearisation(lambda x: network.velocity(x, I))(x)[1], **EXACT)
        derivative = linearisation(lambda x: network.step(x, I, dt=0.3))(x)[1]
        assert_close(network.step_jacobian(x, I, dt=0.3), derivative, **EXACT)

    def test_softplus_is_exact_far_out(self):
        softplus, _ = ACTIVATIONS["softplus"]
        z = torch.linspace(-50, 50, 1001, dtype=torch.float64)
        assert_close(softplus(z), torch.logaddexp(z, torch.zeros_like(z)), rtol=1e-15, atol=0)

    @given(st.permutations(range(3)), st.integers(0, 2**32))
    def test_the_names_of_the_units_do_not_matter(self, order, seed):
        g = generator(seed)
        W, W_in, b, x, I = (  # noqa: E741
            torch.randn(*shape, generator=g, dtype=torch.float64) for shape in [(3, 3), (3, 2), (3,), (3,), (2,)]
        )
        rest = {"W_out": torch.ones(3).double(), "b_out": torch.tensor(0.0).double(), "x0": x}
        network = RateNetwork(W_in=W_in, W=W, b=b, **rest)
        renamed = RateNetwork(W_in=W_in[order], W=W[order][:, order], b=b[order], **rest)
        assert_close(renamed.velocity(x[order], I), network.velocity(x, I)[order], **EXACT)

    @given(st.floats(1e-3, 1e3))
    def test_activity_has_no_unit_but_beta(self, scale):
        x = uniform(20, 2) * 2 - 0.5
        small, large = bounded_line_attractor(), bounded_line_attractor(beta=scale)
        assert_close(large.velocity(scale * x) / scale, small.velocity(x), **EXACT)


class TestClicks:
    @pytest.mark.parametrize(
        "network",
        [
            identity_rnn(),
            unbounded_line_attractor(beta=60),
            unbounded_line_attractor(alpha=0.5, beta=30),
            bounded_line_attractor(beta=120),
            bounded_line_attractor(alpha=2, beta=240),
        ],
    )
    def test_mended_networks_count_without_loss(self, network):
        inputs = clicks(50, 300)
        target = (inputs[..., 1] - inputs[..., 0]).cumsum(1)
        assert target.abs().max() < 60
        assert ((run(network, inputs) - target) ** 2).mean() < 1e-25
        assert network.output(network.x0) == 0
        equation_5 = -target
        assert ((run(network, inputs) - equation_5) ** 2).mean() == pytest.approx(4 * (target**2).mean())

    def test_printed_unbounded_line_attractor_is_silent(self):
        printed = unbounded_line_attractor(beta=60, as_printed=True)
        assert_close(printed.W_in, torch.tensor([[-1.0, 1.0], [1.0, -1.0]]).double())
        assert_close(run(printed, clicks(50, 300)), torch.zeros(50, 300).double(), **EXACT)

    def test_the_other_two_need_no_mending(self):
        inputs = clicks(20, 50)
        for build in (identity_rnn, bounded_line_attractor):
            assert_close(run(build(as_printed=True), inputs), run(build(), inputs), rtol=0, atol=0)

    @pytest.mark.parametrize("build", [unbounded_line_attractor, bounded_line_attractor])
    @pytest.mark.parametrize(("alpha", "beta"), [(1.0, 8.0), (0.5, 8.0), (2.0, 4.0)])
    def test_counts_down_to_the_end_of_its_range_and_no_further(self, build, alpha, beta):
        capacity = beta / alpha / (1 if build is unbounded_line_attractor else 2)
        size = 1 / 16
        bins = round(capacity / size) + 8
        down = torch.tensor([size, 0.0]).double().expand(1, bins, 2)
        off = (run(build(alpha, beta), down) + size * torch.arange(1, bins + 1))[0].abs() > 1e-12
        first = off.nonzero()[0].item()
        assert first * size == pytest.approx(capacity, abs=size)


class TestBatchesAndErrors:
    def test_batched_networks_are_their_members(self):
        V, c, x = uniform(4, 2, 2) - 0.5, uniform(4, 2), uniform(7, 4, 2)
        many = bounded_line_attractor().perturbed(V, c)
        assert many.velocity(x).shape == (7, 4, 2)
        for i in range(4):
            one = bounded_line_attractor().perturbed(V[i], c[i])
            assert_close(many.velocity(x)[:, i], one.velocity(x[:, i]), **EXACT)
            assert_close(many.jacobian(x)[:, i], one.jacobian(x[:, i]), **EXACT)

    def test_perturbed_leaves_the_network_as_it_was(self):
        network = bounded_line_attractor()
        W = network.W.clone()
        moved = network.perturbed(torch.ones(2, 2).double(), torch.ones(2).double())
        assert_close(moved.W - W, torch.ones(2, 2).double())
        assert_close(moved.b - network.b, torch.ones(2).double())
        assert_close(network.W, W, rtol=0, atol=0)
        with pytest.raises(FrozenInstanceError):
            network.W = moved.W

    def test_everything_is_double(self):
        for network in (identity_rnn(), unbounded_line_attractor(), bounded_line_attractor()):
            tensors = [value for value in vars(network).values() if isinstance(value, torch.Tensor)]
            assert {tensor.dtype for tensor in tensors} == {torch.float64}

    @pytest.mark.parametrize("build", [unbounded_line_attractor, bounded_line_attractor])
    @pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
    def test_alpha_and_beta_must_be_positive(self, build, value):
        for name in ("alpha", "beta"):
            with pytest.raises(ValueError, match=f"{name} is {value}.*positive"):
                build(**{name: value})

    def test_unknown_activation(self):
        with pytest.raises(ValueError, match=r"activation is 'tanh'.*'relu', 'celu', 'softplus'"):
            identity_rnn(activation="tanh")
