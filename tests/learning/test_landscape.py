"""Losses, gradients and curvatures against independent computations, closed forms and bounds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slowmanifold.learning.landscape import (
    PARAMETERS,
    flatten,
    gauss_newton_hessian,
    gradient_by_horizon,
    growth_rate,
    loss_slice,
    squared_error,
    unflatten,
)
from slowmanifold.learning.tasks import clicks
from slowmanifold.networks.line import bounded_line_attractor, identity_rnn, unbounded_line_attractor

NETWORKS = {
    "identity": identity_rnn,
    "unbounded": lambda **options: unbounded_line_attractor(1.5, 60.0, **options),
    "bounded": lambda **options: bounded_line_attractor(1.5, 90.0, **options),
}


@pytest.fixture(params=NETWORKS)
def make(request):
    return NETWORKS[request.param]


def draw(trials, steps, input_steps=None, seed=0):
    drawn = clicks(trials, steps, input_steps or steps, np.random.default_rng(seed))
    return drawn.inputs, drawn.targets


def loss_of(network, inputs, targets, dt=1.0):
    """The loss of one network as eq. 6 is written, one step after the other."""
    x, errors = network.x0, []
    for drive, target in zip(inputs.unbind(1), targets.unbind(1), strict=True):
        x = network.step(x, drive, dt)
        errors.append(network.output(x) - target)
    return torch.stack(errors).square().mean()


def as_function_of_parameters(network, *arguments):
    return lambda parameters: loss_of(replace(network, **unflatten(parameters, network)), *arguments)


def test_a_parameter_vector_has_all_trainable_parameters_once(make):
    network = make()
    vector = flatten(network)
    assert vector.shape == (15,)
    parts = unflatten(vector, network)
    assert tuple(parts) == PARAMETERS == ("W_in", "W", "b", "W_out", "b_out", "x0")
    assert all(torch.equal(part, getattr(network, name)) for name, part in parts.items())
    batch = unflatten(torch.arange(30.0).view(2, 15), network)
    assert batch["W"].shape == (2, 2, 2)
    assert batch["b_out"].shape == (2,)
    torch.testing.assert_close(
        torch.cat([part.reshape(2, -1) for part in batch.values()], 1), torch.arange(30.0).view(2, 15)
    )


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_each_integrator_solves_the_task_in_its_range(make, dt):
    inputs, targets = draw(200, 300)
    assert squared_error(make(), inputs / dt, targets, dt).max() < 1e-24


def test_against_the_sign_of_equation_5_an_integrator_is_twice_as_wrong_as_silence(make):
    inputs, targets = draw(200, 300)
    loss = squared_error(make(), inputs, -targets).mean()
    assert loss.item() == pytest.approx(4 * targets.square().mean().item(), rel=1e-12)


def test_the_unbounded_integrator_as_printed_is_silent():
    inputs, targets = draw(200, 300)
    loss = squared_error(unbounded_line_attractor(1.0, 60.0, as_printed=True), inputs, targets).mean()
    assert loss.item() == pytest.approx(targets.square().mean().item(), rel=1e-12)


@pytest.mark.parametrize(
    ("network", "channel", "limit"),
    [(bounded_line_attractor, 1, 15), (bounded_line_attractor, 0, 15), (unbounded_line_attractor, 0, 30)],
)
def test_an_integrator_is_exact_up_to_its_capacity_and_not_beyond(network, channel, limit):
    alpha, beta = 0.5, 15.0
    inputs = torch.zeros(1, 40, 2, dtype=torch.float64)
    inputs[:, :, channel] = 1
    targets = (inputs[..., 1] - inputs[..., 0]).cumsum(-1)
    error = squared_error(network(alpha, beta), inputs, targets)
    assert error[:limit].max() < 1e-24
    assert (error[limit:] > 0.1).all()


@pytest.mark.parametrize("dt", [1.0, 0.5])
@pytest.mark.parametrize("activation", ["relu", "celu", "softplus"])
@pytest.mark.parametrize("entry", [(0, 0), (1, 0)])
def test_a_slice_is_the_loss_of_each_perturbed_network(make, dt, activation, entry):
    network = make(activation=activation)
    inputs, targets = draw(6, 40, 25)
    deltas = torch.tensor([-0.4, -1e-3, 0.0, 1e-3, 0.1], dtype=torch.float64)
    found = loss_slice(network, deltas, inputs, targets, entry, dt)
    for delta, loss in zip(deltas, found, strict=True):
        V = torch.zeros(2, 2, dtype=torch.float64)
        V[entry] = delta
        expected = loss_of(network.perturbed(V), inputs, targets, dt)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-24)


def test_at_zero_a_slice_is_zero_and_its_slope_is_the_gradient(make):
    network = make()
    inputs, targets = draw(50, 60)
    centre = torch.tensor([-1e-3, 0.0, 5e-3], dtype=torch.float64)
    h = 1e-6
    below, at, above = (loss_slice(network, centre + shift, inputs, targets) for shift in (-h, 0, h))
    assert at[1] < 1e-24
    for delta, slope in zip(centre, (above - below) / (2 * h), strict=True):
        V = torch.zeros(2, 2, dtype=torch.float64)
        V[0, 0] = delta
        perturbed = network.perturbed(V)
        expected = unflatten(gradient_by_horizon(perturbed, inputs, targets)[-1], network)["W"][0, 0]
        assert slope.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-4)


def test_batch_axes_of_the_weights_are_axes_of_the_error(make):
    inputs, targets = draw(8, 30)
    V = 0.1 * torch.from_numpy(np.random.default_rng(0).standard_normal((3, 4, 2, 2)))
    c = 0.1 * torch.from_numpy(np.random.default_rng(1).standard_normal((4, 2)))
    errors = squared_error(make().perturbed(V, c), inputs, targets)
    assert errors.shape == (3, 4, 30)
    alone = squared_error(make().perturbed(V[1, 2], c[2]), inputs, targets)
    torch.testing.assert_close(errors[1, 2], alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("make", [identity_rnn, lambda: unbounded_line_attractor(1.0, 20.0)])
def test_past_the_input_the_error_of_an_unbounded_network_grows_at_twice_log_rho(make):
    inputs, targets = draw(5, 1000, 50)
    V = torch.zeros(2, 2, dtype=torch.float64)
    V[0, 0] = 0.05
    network = make().perturbed(V)
    late = squared_error(network, inputs, targets)[900:]
    slopes = late.log().diff()
    assert growth_rate(network.W).item() > 0
    assert slopes.min().item() == pytest.approx(growth_rate(network.W).item(), rel=1e-6)
    assert slopes.max().item() == pytest.approx(growth_rate(network.W).item(), rel=1e-6)


def test_growth_rates_in_closed_form():
    deltas = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64)
    V = torch.zeros(11, 2, 2, dtype=torch.float64)
    V[:, 0, 0] = deltas
    identity = growth_rate(identity_rnn().perturbed(V).W)
    torch.testing.assert_close(identity, 2 * (1 + deltas).clamp(min=1).log())
    unbounded = growth_rate(unbounded_line_attractor().perturbed(V).W)
    torch.testing.assert_close(unbounded, 2 * ((deltas.abs() + (deltas**2 + 4).sqrt()) / 2).log())
    # The flow: (1 + dt (rho - 1)), with the eigenvalue of the line, positive as delta is.
    slow = growth_rate(unbounded_line_attractor().perturbed(V).W, dt=0.1)
    torch.testing.assert_close(slow, 2 * (1 + 0.1 * ((deltas + (deltas**2 + 4).sqrt()) / 2 - 1)).log())


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_the_loss_of_the_bounded_attractor_stays_below_its_bound(dt):
    alpha, beta = 2.0, 30.0
    inputs, targets = draw(50, 2000, 100)
    deltas = torch.linspace(-0.9, 0.9, 37, dtype=torch.float64)
    losses = loss_slice(bounded_line_attractor(alpha, beta), deltas, inputs / dt, targets, dt=dt)
    bounds = (beta / (2 * alpha * (1 - deltas)) + targets.abs().max()) ** 2
    assert (losses < bounds).all()
    assert losses[-1] > bounds[-1] / 10


def test_a_loss_beyond_the_floating_point_range_is_infinite():
    inputs, targets = draw(5, 1500, 50)
    losses = loss_slice(identity_rnn(), torch.tensor([0.0, 1.0], dtype=torch.float64), inputs, targets)
    assert losses[0] < 1e-24
    assert losses[1] == torch.inf


@pytest.mark.parametrize("dt", [1.0, 0.5])
@pytest.mark.parametrize("activation", ["relu", "celu", "softplus"])
def test_the_gradient_at_every_horizon_is_that_of_automatic_differentiation(make, dt, activation):
    network = make(activation=activation)
    inputs, targets = draw(9, 25, 15)
    generator = np.random.default_rng(4)
    parameters = flatten(network) + 0.1 * torch.from_numpy(generator.standard_normal(15))
    network = replace(network, **unflatten(parameters, network))
    found = gradient_by_horizon(network, inputs, targets, dt)
    for horizon in (1, 2, 7, 25):
        expected = torch.func.grad(as_function_of_parameters(network, inputs[:, :horizon], targets[:, :horizon], dt))(
            parameters
        )
        torch.testing.assert_close(found[horizon - 1], expected, rtol=1e-10, atol=1e-10 * expected.abs().max().item())


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_at_the_optimum_the_gauss_newton_matrix_is_the_hessian(make, dt):
    network = make()
    inputs, targets = draw(7, 20, 12)
    inputs = inputs / dt
    hessian = torch.autograd.functional.hessian(
        as_function_of_parameters(network, inputs, targets, dt), flatten(network)
    )
    found = gauss_newton_hessian(network, inputs, dt)
    torch.testing.assert_close(found, hessian, rtol=1e-9, atol=1e-9 * hessian.abs().max().item())


@pytest.mark.parametrize(("make", "factor"), [(unbounded_line_attractor, 2 / 3), (bounded_line_attractor, 1 / 6)])
def test_the_largest_curvature_of_a_line_attractor_tends_to_its_closed_form(make, factor):
    beta = 1e4
    for T in (50, 100, 200, 400):
        inputs, _ = draw(5, T)
        curvature = torch.linalg.eigvalsh(gauss_newton_hessian(make(1.0, beta), inputs))[-1]
        excess = curvature.item() / (factor * (beta * T) ** 2) - 1
        # The average of t^2 over the steps is T^2/3 (1 + 3/(2T) + ...).
        assert excess == pytest.approx(3 / (2 * T), rel=0.1)


def test_the_largest_curvature_of_the_identity_network_grows_as_the_fourth_power():
    found = []
    for T in (100, 200, 400):
        inputs, _ = draw(400, T)
        found.append(torch.linalg.eigvalsh(gauss_newton_hessian(identity_rnn(), inputs))[-1].item() / (0.004 * T**4))
    assert abs(found[-1] - 1) < 0.05
    assert abs(found[-1] - 1) < abs(found[0] - 1)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    inputs, targets = draw(4, 10)
    one = torch.zeros(1, dtype=torch.float64)
    many = identity_rnn().perturbed(torch.zeros(3, 2, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"entry is \(2, 0\); allowed: two indices from 0 to 1"):
        loss_slice(identity_rnn(), one, inputs, targets, entry=(2, 0))
    with pytest.raises(ValueError, match=r"targets \(4, 9\); allowed"):
        squared_error(identity_rnn(), inputs, targets[:, 1:])
    with pytest.raises(ValueError, match=r"targets \(4, 9\); allowed"):
        gradient_by_horizon(identity_rnn(), inputs, targets[:, 1:])
    for call in (
        lambda: loss_slice(many, one, inputs, targets),
        lambda: gradient_by_horizon(many, inputs, targets),
        lambda: gauss_newton_hessian(many, inputs),
    ):
        with pytest.raises(ValueError, match=r"W of shape \(3, 2, 2\).* without batch axes"):
            call()
