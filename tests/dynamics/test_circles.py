"""Invariant circles of whole families: against the planar ring's theorem, exact counts, and systems that have none."""

import math

import numpy as np
import pytest
import torch

from slowmanifold.dynamics.circles import Circle, invariant_circles
from slowmanifold.dynamics.fixed_points import FixedPoints, Stability, find_fixed_points, relu_fixed_points
from slowmanifold.dynamics.perturbation import linear, perturbed
from slowmanifold.networks.ring import (
    HeadDirectionRing,
    PlanarRing,
    head_direction_ring,
    ring_of_equilibria,
    ring_plane,
)

ring = PlanarRing()
EAST = torch.tensor([1.0, 0.0], dtype=torch.float64)


def planar(V):
    """Circles of x' = (1 - |x|) x + V x; the fixed points of each system, padded with NaN."""
    angle = 2 * math.pi * torch.arange(128, dtype=torch.float64) / 128
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    found = [find_fixed_points(perturbed(ring.velocity, 1, linear(v)), circle) for v in V]
    most = max(len(f.points) for f in found)
    points = torch.full((len(V), most, 2), torch.nan, dtype=torch.float64)
    jacobians = torch.full((len(V), most, 2, 2), torch.nan, dtype=torch.float64)
    for i, f in enumerate(found):
        points[i, : len(f.points)], jacobians[i, : len(f.points)] = f.points, f.jacobians
    alone = FixedPoints(points, jacobians)
    return invariant_circles(lambda i: perturbed(ring.velocity, 1, linear(V[i])), alone, lambda x: x, EAST)


def rotation_and_shear(V):
    a, b, c, d = V.flatten(-2).unbind(-1)
    return (c - b) / 2, torch.hypot((b + c) / 2, (d - a) / 2)


def test_rotation_and_shear_decide_about_the_planar_ring():
    V = 0.1 * torch.randn(12, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    A, B = rotation_and_shear(V)
    found = planar(V)
    cycle = A.abs() > B
    assert 0 < cycle.sum() < 12
    assert torch.equal(found.kind == Circle.CYCLE, cycle)
    assert torch.equal(found.kind == Circle.CONNECTED, ~cycle)
    period = 2 * math.pi / (A**2 - B**2).sqrt() * A.sign()
    torch.testing.assert_close(found.period[cycle], period[cycle], rtol=5e-3, atol=0)
    assert found.period[~cycle].isnan().all()


def test_connecting_orbits_lie_on_the_exact_curve_and_end_in_sinks():
    V = torch.tensor([[[0.05, 0.1], [0.1, -0.02]]], dtype=torch.float64)  # symmetric: r = 1 + S at the fixed points
    found = planar(V)
    assert found.kind.tolist() == [Circle.CONNECTED]
    assert (found.ends >= 0).all()
    orbit = found.orbits
    velocity = perturbed(ring.velocity, 1, linear(V[0]))(orbit)
    chord = orbit[..., 1:, :] - orbit[..., :-1, :]
    # On the curve the flow is along it: the components across each chord are small against the push itself.
    normal = torch.stack([-chord[..., 1], chord[..., 0]], -1)
    across = (velocity[..., :-1, :] * torch.nn.functional.normalize(normal, dim=-1)).sum(-1).abs()
    assert across.max() < 0.1 * velocity.norm(dim=-1).max()
    total = found.sweep[:, 0].sum() - found.sweep[:, 1].sum()
    assert total.item() == pytest.approx(2 * math.pi, abs=1e-2)


def test_a_constant_push_breaks_the_ring_at_one_quarter():
    pushes = torch.tensor([0.2, 0.24, 0.26, 0.3], dtype=torch.float64)
    fields = [perturbed(ring.velocity, s.item(), lambda x: EAST.expand(x.shape)) for s in pushes]
    kinds = []
    for field in fields:
        axis = torch.linspace(-1.5, 1.5, 61, dtype=torch.float64)
        points = find_fixed_points(field, torch.stack([axis, torch.zeros_like(axis)], -1))
        alone = FixedPoints(points.points[None], points.jacobians[None])
        kinds += invariant_circles(lambda i, f=field: f, alone, lambda x: x, EAST).kind.tolist()
    assert kinds == [Circle.CONNECTED, Circle.CONNECTED, Circle.NONE, Circle.NONE]


@pytest.mark.parametrize(("J_E", "active"), [(2.4, 4), (4.0, 3)])
def test_a_detuned_head_direction_ring_is_a_circle_of_six_pairs(J_E, active):
    network = head_direction_ring(6, 1.05 * J_E)
    found = relu_fixed_points(network.W.expand(1, 6, 6), network.b, "preactivation")
    circles = invariant_circles(lambda i: network.velocity, found, ring_plane, ring_of_equilibria(6, active)[0])
    assert circles.kind.tolist() == [Circle.CONNECTED]
    assert len(circles.saddles) == 6
    torch.testing.assert_close(
        circles.sweep.abs(), torch.full((6, 2), math.pi / 6, dtype=torch.float64), rtol=0, atol=5e-3
    )


def test_a_circle_needs_as_many_saddles_as_sinks():
    g = torch.Generator().manual_seed(2)
    network = head_direction_ring(6, 2.4)
    V = 0.1 * torch.randn(8, 6, 6, generator=g, dtype=torch.float64)
    found = relu_fixed_points(network.W, network.b, "preactivation", torch.eye(6).double() - V)
    circles = invariant_circles(
        lambda i: perturbed(network.velocity, 1, linear(V[i])), found, ring_plane, ring_of_equilibria(6, 4)[0]
    )
    unstable = (found.eigenvalues.real > 0).sum(-1)
    sinks = (found.kind == 1).sum(-1)
    saddles = ((found.kind == 2) & (unstable == 1)).sum(-1)
    connected = circles.kind == Circle.CONNECTED
    assert 0 < connected.sum() < 8
    assert torch.equal(sinks[connected], saddles[connected])


def test_a_network_without_sinks_and_saddles_goes_round_however_far_from_the_cycle_it_starts():
    g = torch.Generator().manual_seed(6)
    network = head_direction_ring(6, 2.4)
    V = 0.1 * torch.randn(400, 6, 6, generator=g, dtype=torch.float64)
    found = relu_fixed_points(network.W, network.b, "preactivation", torch.eye(6).double() - V)
    index_one = (found.eigenvalues.real > 0).sum(-1) == 1
    free = ~((found.kind == Stability.STABLE) | ((found.kind == Stability.SADDLE) & index_one)).any(-1)
    V, found = V[free], FixedPoints(found.points[free], found.jacobians[free])
    assert len(V) > 5
    corner = ring_of_equilibria(6, 4)[0]
    circles = invariant_circles(lambda i: perturbed(network.velocity, 1, linear(V[i])), found, ring_plane, corner)
    assert circles.kind.tolist() == [Circle.CYCLE] * len(V)

    # Runge-Kutta steps, written out; a lap is over when the angle round the one fixed point is what it was.
    centre = found.points[found.kind != Stability.NONE].numpy()
    assert len(centre) == len(V)
    h, dt = np.repeat(corner.numpy()[None], len(V), 0), 0.1
    W, V = network.W.numpy(), V.numpy()
    around = np.exp(2j * np.pi * np.arange(6) / 6)

    def velocity(h):
        return -h + np.maximum(h, 0) @ W.T + network.b.numpy() + np.einsum("nij,nj->ni", V, h)

    states = [h]
    for _ in range(6000):
        a = velocity(h)
        b = velocity(h + dt / 2 * a)
        c = velocity(h + dt / 2 * b)
        h = h + dt / 6 * (a + 2 * b + 2 * c + velocity(h + dt * c))
        states.append(h)
    states = np.stack(states)
    angle = np.unwrap(np.angle((states - centre) @ around), axis=0)
    for k, period in enumerate(circles.period.tolist()):
        sense = np.sign(angle[-1, k])
        clock = sense * (angle[:, k] - angle[0, k])
        turns = 2 * np.pi * (clock[-1] // (2 * np.pi) - np.arange(2))
        assert turns[1] > 0
        ends = np.interp(turns, clock[clock.argmin() :], dt * np.arange(clock.argmin(), 6001))
        assert sense * (ends[0] - ends[1]) == pytest.approx(period, rel=5e-3)


def test_each_system_may_have_a_start_and_a_radius_of_its_own():
    fields = [head_direction_ring(6, 1.05 * J_E) for J_E in (2.4, 4.0)]
    starts = torch.stack([ring_of_equilibria(6, active)[0] for active in (4, 3)])
    W, b = torch.stack([network.W for network in fields]), fields[0].b
    found = relu_fixed_points(W, b, "preactivation")
    together = invariant_circles(lambda i: HeadDirectionRing(W[i], b).velocity, found, ring_plane, starts)
    for k, network in enumerate(fields):
        alone = relu_fixed_points(network.W.expand(1, 6, 6), b, "preactivation")
        single = invariant_circles(lambda i, net=network: net.velocity, alone, ring_plane, starts[k])
        mine = together.system == k
        assert together.kind[k] == single.kind[0] == Circle.CONNECTED
        assert torch.equal(together.ends[mine], single.ends)
        torch.testing.assert_close(together.sweep[mine], single.sweep, rtol=0, atol=1e-9)


def test_turning_the_weights_turns_the_circle():
    g = torch.Generator().manual_seed(3)
    network = head_direction_ring(6, 4.0)
    V = 0.01 * torch.randn(6, 6, generator=g, dtype=torch.float64)
    W = torch.stack([network.W + V, network.W + V.roll((1, 1), (0, 1))])
    found = relu_fixed_points(W, network.b, "preactivation")
    circles = invariant_circles(
        lambda i: HeadDirectionRing(W[i], network.b).velocity, found, ring_plane, ring_of_equilibria(6, 3)[0]
    )
    assert circles.kind[0] == circles.kind[1]
    first, second = (ring_plane(circles.saddles[circles.system == k]) for k in range(2))
    turn = torch.tensor([[0.5, -(0.75**0.5)], [0.75**0.5, 0.5]], dtype=torch.float64)
    apart = torch.cdist(first @ turn.T, second).amin(-1)
    assert apart.max() < 1e-9


def test_bad_input():
    nothing = FixedPoints(torch.zeros(1, 0, 2).double(), torch.zeros(1, 0, 2, 2).double())
    with pytest.raises(ValueError, match="start is"):
        invariant_circles(lambda i: ring.velocity, nothing, lambda x: x, 0 * EAST)
    with pytest.raises(ValueError, match="start has shape"):
        invariant_circles(lambda i: ring.velocity, nothing, lambda x: x, EAST.expand(3, 2))
    with pytest.raises(ValueError, match="points has shape"):
        invariant_circles(lambda i: ring.velocity, nothing, lambda x: x, torch.ones(3).double())
