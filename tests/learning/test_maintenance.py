"""Gradients against automatic differentiation; learning, noise and divergence against what theory says of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slowmanifold.learning import maintenance
from slowmanifold.learning.landscape import flatten, gauss_newton_hessian, squared_error, unflatten
from slowmanifold.learning.maintenance import History, loss_and_gradient, maintain
from slowmanifold.learning.tasks import clicks
from slowmanifold.networks.line import bounded_line_attractor, identity_rnn, unbounded_line_attractor

NETWORKS = {
    "identity": identity_rnn,
    "unbounded": lambda: unbounded_line_attractor(1.5, 10.0),
    "bounded": lambda: bounded_line_attractor(1.5, 10.0),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


def draw(runs, trials, input_steps, seed=0):
    drawn = [clicks(trials, input_steps, input_steps, child) for child in np.random.default_rng(seed).spawn(runs)]
    return torch.stack([run.inputs for run in drawn]), torch.stack([run.targets for run in drawn])


def scatter(network, runs, copies, size=0.1, seed=1):
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((runs, copies, 15)))
    return flatten(network) + size * noise


def autograd_loss(network, parameters, inputs, targets, steps):
    """The loss of one network: the written-out equations, with silence and a constant target after the input."""
    varied = replace(network, **unflatten(parameters, network))
    x, errors = varied.x0, []
    for t in range(steps):
        x = varied.step(x, inputs[:, t] if t < inputs.shape[1] else torch.zeros_like(inputs[:, 0]))
        errors.append(varied.output(x) - targets[:, min(t, targets.shape[1] - 1)])
    return torch.stack(errors).square().mean()


@pytest.mark.parametrize("block", [2**26, 2**13, 1])
@pytest.mark.parametrize("steps", [12, 20])
def test_loss_and_gradient_are_those_of_automatic_differentiation(network, steps, block, monkeypatch):
    monkeypatch.setattr(maintenance, "_BLOCK", block)
    inputs, targets = draw(3, 11, 12)
    parameters = scatter(network, 3, 2)
    losses, gradients = loss_and_gradient(network, parameters, inputs, targets, steps)
    for run in range(3):
        for copy in range(2):
            vector = parameters[run, copy].clone().requires_grad_()
            loss = autograd_loss(network, vector, inputs[run], targets[run], steps)
            loss.backward()
            assert losses[run, copy].item() == pytest.approx(loss.item(), rel=1e-12)
            for name, part in unflatten(gradients[run, copy], network).items():
                expected = unflatten(vector.grad, network)[name]
                assert expected.abs().max() > 0
                torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-12 * expected.abs().max().item())


def test_a_workspace_is_used_again_and_leaves_no_trace(network):
    inputs, targets = draw(2, 30, 12)
    parameters = scatter(network, 2, 3)
    workspace = maintenance.room(network, 20)
    alone = [loss_and_gradient(network, parameters, inputs, targets, steps) for steps in (20, 15)]
    workspace.fill_(torch.nan)
    again = [loss_and_gradient(network, parameters, inputs, targets, steps, workspace) for steps in (20, 15)]
    for one, other in zip(alone, again, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    with pytest.raises(ValueError, match=r"workspace has 7 numbers; allowed: .* or more"):
        loss_and_gradient(network, parameters, inputs, targets, 20, workspace[:7])


def test_the_loss_is_that_of_the_landscape(network):
    inputs, targets = draw(1, 50, 40)
    parameters = scatter(network, 1, 1, size=0.01)
    losses, _ = loss_and_gradient(network, parameters, inputs, targets, 40)
    varied = replace(network, **unflatten(parameters[0, 0], network))
    assert losses.item() == pytest.approx(squared_error(varied, inputs[0], targets[0]).mean().item(), rel=1e-12)


def test_a_network_does_not_feel_the_others_not_even_one_that_overflows(network):
    inputs, targets = draw(4, 20, 600)
    parameters = scatter(network, 4, 3, size=1e-4)
    losses, gradients = loss_and_gradient(network, parameters, inputs, targets, 600)
    wild = parameters.clone()
    unflatten(wild, network)["W"][2, 1] = 100.0
    wild_losses, wild_gradients = loss_and_gradient(network, wild, inputs, targets, 600)
    assert wild_losses[2, 1] == torch.inf
    others = torch.ones(4, 3, dtype=torch.bool)
    others[2, 1] = False
    assert torch.equal(wild_losses[others], losses[others])
    assert torch.equal(wild_gradients[others], gradients[others])
    alone, gradient = loss_and_gradient(network, parameters[3:, 2:], inputs[3:], targets[3:], 600)
    torch.testing.assert_close(alone[0, 0], losses[3, 2], rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient[0, 0], gradients[3, 2], rtol=1e-11, atol=1e-12 * gradient.abs().max().item())


SMALL = {"trials": 20, "steps": 30, "input_steps": 15, "epochs": 5}
RATES = torch.tensor([0.0, 1e-6, 2e-5], dtype=torch.float64)


@pytest.mark.parametrize("noise", [{"parameter_noise": 1e-4}, {"input_noise": 0.1}])
def test_a_network_a_run_and_a_learning_rate_alone_are_what_they_are_among_others(network, noise):
    others = [identity_rnn(), network, bounded_line_attractor(0.5, 30.0)]
    together = maintain(others, RATES, np.random.default_rng(7).spawn(4), **SMALL, **noise)
    rates = torch.stack([RATES, 3 * RATES, RATES])
    in_rows = maintain(others, rates, np.random.default_rng(7).spawn(4), **SMALL, **noise)
    alone = maintain([network], RATES[2:], np.random.default_rng(7).spawn(4)[1:2], **SMALL, **noise)
    faster = maintain([network], 3 * RATES[2:], np.random.default_rng(7).spawn(4)[1:2], **SMALL, **noise)
    for one, all_of_them in [(alone, together), (faster, in_rows)]:
        torch.testing.assert_close(one.losses[0, 0, 0], all_of_them.losses[1, 1, 2], rtol=1e-9, atol=1e-24)
        torch.testing.assert_close(one.parameters[0, 0, 0], all_of_them.parameters[1, 1, 2], rtol=1e-12, atol=1e-12)
    assert not torch.equal(together.losses[1, 0], together.losses[1, 1])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_learning_is_stochastic_gradient_descent_on_all_parameters(network, momentum):
    rate, sigma = 1e-4, 1e-2
    found = maintain(
        [network],
        torch.tensor([rate], dtype=torch.float64),
        [np.random.default_rng(3)],
        **SMALL,
        momentum=momentum,
        parameter_noise=sigma,
        pulses={1, 3},
    )
    generator = np.random.default_rng(3)
    vector = flatten(network).requires_grad_()
    optimiser = torch.optim.SGD([vector], lr=rate, momentum=momentum)
    for epoch in range(5):
        drawn = clicks(20, 15, 15, generator)
        optimiser.zero_grad()
        loss = autograd_loss(network, vector, drawn.inputs, drawn.targets, 30)
        assert found.losses[0, 0, 0, epoch].item() == pytest.approx(loss.item(), rel=1e-9, abs=1e-24)
        loss.backward()
        optimiser.step()
        if epoch in {1, 3}:
            with torch.no_grad():
                vector += sigma * torch.from_numpy(generator.standard_normal(15))
    torch.testing.assert_close(found.parameters[0, 0, 0], vector.detach(), rtol=1e-10, atol=1e-12)
    moved = unflatten((vector.detach() - flatten(network)).abs(), network)
    assert all((part > 1e-5).all() for part in moved.values())


@pytest.mark.parametrize(
    "network", [identity_rnn(), unbounded_line_attractor(2.0, 100.0), bounded_line_attractor(2.0, 100.0)]
)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_gradient_descent_is_stable_iff_its_rate_is_below_the_limit_of_the_largest_curvature(network, momentum):
    trials, steps = 300, 60
    drawn = clicks(3000, steps, steps, np.random.default_rng(1))
    largest = torch.linalg.eigvalsh(gauss_newton_hessian(network, drawn.inputs))[-1].item()
    below, above = 0.8, 1.25
    history = maintain(
        [network],
        2 * (1 + momentum) / largest * torch.tensor([below, above], dtype=torch.float64),
        np.random.default_rng(2).spawn(3),
        trials=trials,
        steps=steps,
        input_steps=steps,
        epochs=14,
        momentum=momentum,
        parameter_noise=1e-9,
        pulses={0},
    )
    after, late = history.losses[0, ..., 1], history.losses[0, ..., -8:]
    assert (late[:, 0].amax(-1) < after[:, 0]).all()
    assert late.isfinite().all()
    # Along the steepest direction a deviation follows z^2 - (1 + momentum - lr lambda_max) z + momentum = 0; its loss
    # goes as the square. Without momentum z = 1 - lr lambda_max.
    z = np.abs(np.roots([1, -(1 + momentum) * (1 - 2 * above), momentum])).max()
    growth = late[:, 1].log().diff().mean(-1)
    torch.testing.assert_close(growth, torch.full_like(growth, 2 * np.log(z)), rtol=0.1, atol=0)


@pytest.mark.parametrize(("pulses", "count"), [(None, 6), ({1, 4}, 2)])
def test_parameter_noise_is_a_gaussian_random_walk_of_all_parameters(pulses, count):
    network, sigma, runs = bounded_line_attractor(1.0, 10.0), 1e-3, 1000
    history = maintain(
        [network],
        torch.zeros(1, dtype=torch.float64),
        np.random.default_rng(0).spawn(runs),
        trials=1,
        steps=2,
        input_steps=1,
        epochs=6,
        parameter_noise=sigma,
        pulses=pulses,
        noisy_steps=0,
    )
    steps = (history.parameters[0, :, 0] - flatten(network)) / (sigma * count**0.5)
    assert (steps.mean(0).abs() < 5 / runs**0.5).all()
    covariance = torch.cov(steps.T) - torch.eye(15, dtype=torch.float64)
    assert (covariance.abs() < 5 * (2 / runs) ** 0.5).all()
    assert abs((steps**4).mean().item() - 3) < 5 * (96 / steps.numel()) ** 0.5


def test_input_noise_is_uniform_in_the_first_steps_and_not_in_the_target():
    sigma, steps, noisy = 0.3, 20, 7
    history = maintain(
        [bounded_line_attractor(1.0, 50.0)],
        torch.zeros(1, dtype=torch.float64),
        np.random.default_rng(0).spawn(200),
        trials=50,
        steps=steps,
        input_steps=12,
        epochs=1,
        input_noise=sigma,
        noisy_steps=noisy,
    )
    # An exact integrator adds up min(t, noisy) differences of two uniform numbers, each of variance sigma^2/3.
    expected = 2 * sigma**2 / 3 * np.minimum(np.arange(1, steps + 1), noisy).mean()
    standard_error = history.losses.std().item() / 200**0.5
    assert standard_error < 0.03 * expected
    assert abs(history.losses.mean().item() - expected) < 4 * standard_error


def test_without_learning_and_noise_an_integrator_stays_what_it_is(network):
    history = maintain([network], torch.zeros(1, dtype=torch.float64), [np.random.default_rng(0)], **SMALL)
    assert history.losses.max() < 1e-24
    assert torch.equal(history.parameters[0, 0, 0], flatten(network))


def test_a_run_that_diverges_is_marked_and_others_go_on():
    rates = torch.tensor([1e-7, 1e3], dtype=torch.float64)
    generators = np.random.default_rng(0).spawn(8)
    history = maintain([unbounded_line_attractor(1.0, 10.0)], rates, generators, **SMALL, parameter_noise=1e-3)
    assert not history.losses.isnan().any()
    assert (history.diverged_at(1.0)[0, :, 0] == 5).all()
    assert (history.diverged_at(1.0)[0, :, 1] < 5).all()
    overflow = history.diverged_at()[0, :, 1]
    assert (overflow < 5).any()
    assert (history.diverged_at(1.0)[0, :, 1] <= overflow).all()
    for losses, epoch in zip(history.losses[0, :, 1], overflow.tolist(), strict=True):
        assert losses[:epoch].isfinite().all()
        assert (losses[epoch : epoch + 1] == torch.inf).all()


def test_the_epoch_of_divergence_is_the_first_at_or_above_the_threshold():
    losses = torch.tensor([[[[0.1, 0.2, 1.0, 0.3], [0.1, 0.2, 0.3, 0.9], [torch.inf, 0, 0, 0]]]], dtype=torch.float64)
    history = History(losses, parameters=torch.zeros(1, 1, 3, 15, dtype=torch.float64))
    assert history.diverged_at(1.0).tolist() == [[[2, 4, 0]]]
    assert history.diverged_at().tolist() == [[[4, 4, 0]]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"learning_rates": torch.tensor([1e-3, -1e-3], dtype=torch.float64)},
            "learning_rates is .*; allowed: 0 or more",
        ),
        ({"momentum": -0.1}, "momentum is -0.1; allowed: 0 or more"),
        ({"parameter_noise": np.inf}, "parameter_noise is inf; allowed: 0 or more, and finite"),
        ({"input_noise": -1.0}, "input_noise is -1.0; allowed"),
        ({"generators": []}, "generators is empty"),
        ({"epochs": 0, "pulses": None}, "epochs is 0; allowed: 1, 2"),
        ({"pulses": {1, 5}}, r"pulses is \[1, 5\]; allowed: epochs, 0 to 4"),
        ({"noisy_steps": 16}, "noisy_steps is 16; allowed: 0 to 15"),
        ({"steps": 14}, "steps is 14; allowed: 15"),
        ({"networks": [bounded_line_attractor(activation="celu")]}, "activation 'celu'; allowed: 'relu'"),
        (
            {"networks": [identity_rnn(), replace(identity_rnn(), activation="celu")]},
            r"networks\[1\] has activation 'celu'; allowed: 'relu'",
        ),
        ({"networks": []}, "networks has 0 of 0 shapes; allowed: one or more"),
        (
            {"networks": [identity_rnn(), replace(identity_rnn(), W=torch.zeros(3, 2, 2, dtype=torch.float64))]},
            "networks has 2 of 2 shapes",
        ),
    ],
)
def test_bad_input_is_named(arguments, message):
    good = {"networks": [identity_rnn()], "learning_rates": RATES, "generators": [np.random.default_rng(0)]} | SMALL
    with pytest.raises(ValueError, match=message):
        maintain(**(good | arguments))
