"""Attracting invariant circles of many systems at once: sinks, saddles and the orbits between them, or a limit cycle.

If a flow has fixed points on an attracting invariant circle, they are sinks and saddles in turn, and the circle is the
closure of the saddles' unstable manifolds. So one follows each saddle's two branches to where they end, and asks
whether they close up round the plane. Where there is no fixed point, the flow itself goes round.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from slowmanifold.dynamics.fixed_points import Equilibria, FixedPoints, Stability
from slowmanifold.dynamics.flow import Field, linearisation

Family = Callable[[Tensor], Field]
"""Many systems: a list of their numbers (m,) to the field that takes states (m, d), the i-th one that of system i."""

_STRIDE = 0.03  # length of a step along an orbit, in units of the circle's radius
_LEFT, _ARRIVED = 1e-6, 1e-3  # how near to its saddle an orbit starts, and to a sink it has arrived, likewise
_APART = 0.1  # ... but no further than this part of the way to the next fixed point
_GROWTH = 0.5  # a step is at most this part of the way from the saddle
_BEND = 0.1  # a step is good if over it the field departs from linearity by less than this part of the speed
_STEPS = 600  # of a connecting orbit
_LAPS = 2000  # steps in which a limit cycle has to be found
_GAMMA = 1 - 0.5**0.5  # makes the Rosenbrock method L-stable
_LAP = 211  # points on a limit cycle that is returned
_CLOSED = 1e-2  # a cycle comes back to where it was by this part of the radius, a circle's sweeps add up to 2 pi
_SETTLED = 1e-3  # an orbit has come to its cycle if it starts two laps in a row as near as this, likewise
_INVARIANT = 0.02  # largest residual of what is returned as a circle


class Circle(IntEnum):
    """What has become of the invariant circle.

    Used in: rings.
    """

    NONE = 0  # the sinks and saddles do not close up to one circle
    CONNECTED = 1  # sinks and saddles in turn, joined by connecting orbits
    CYCLE = 2  # a limit cycle: no sinks, no saddles
    UNDECIDED = 3  # an orbit did not arrive anywhere in the steps allowed, or is not resolved


@dataclass(frozen=True, eq=False)
class InvariantCircles:
    """Invariant circles of n systems; the connecting orbits of all their m saddles in one list.

    An orbit that has arrived repeats its last point. Dimensionless, time in units of tau.
    """

    kind: Int[Tensor, " n"]  # one of Circle
    period: Float[Tensor, " n"]  # of the limit cycles, negative if they turn clockwise; NaN elsewhere
    system: Int[Tensor, " m"]  # which of the n systems a saddle belongs to
    saddles: Float[Tensor, "m d"]
    ends: Int[Tensor, "m 2"]  # number of the sink that each branch leads to, -1 for none; first the anticlockwise one
    sweep: Float[Tensor, "m 2"]  # angle by which it turns on the way, in radians
    orbits: Float[Tensor, "m 2 T d"]  # from the saddle
    residual: Float[Tensor, "m 2"]  # largest component of the field across the orbit, in radii per tau
    cycles: Float[Tensor, "c lap d"]  # the last lap of each limit cycle, in the order of the systems


def invariant_circles(
    family: Family, found: Equilibria, plane: Callable[[Tensor], Tensor], start: Float[Tensor, "*#n d"]
) -> InvariantCircles:
    """The attracting invariant circle of each of n systems, or that there is none.

    ``found`` holds all fixed points of each system, (n, k, d); ``plane`` maps states (..., d) linearly to a plane
    (..., 2), in which the circles wind about the one fixed point with two unstable directions or more, or about the
    origin where there is not exactly one; ``start`` is a state on or near the circle of each system, or one for all,
    whose distance from the origin is taken for the radius. ``family`` gives the fields, say
    ``lambda i: perturbed(f, 1, linear(V[i]))``.

    A circle is *connected* if both branches of each saddle (with one unstable direction) end in a sink, each sink is
    the end of one branch that turns anticlockwise and one that turns clockwise, and all turn by 2 pi together. A
    system without sinks and saddles has a *cycle* if the orbit of ``start`` winds round and, in the end, closes on
    itself. Orbits are followed by an L-stable Rosenbrock method of order 2, in steps of 3% of the radius: there are no
    more of them the slower the flow is. A connected circle has a ``residual`` of at most 0.02 (where the flow across it
    attracts at rate 1, that is the distance from an orbit, in radii); a system in which it is larger is ``UNDECIDED``.

    Raises ``ValueError`` for fixed points of other shapes and for a start in the origin of the plane.
    Source: Verwer et al., SIAM J. Sci. Comput. 20 (1999) 1456. Used in: rings.
    """
    if found.points.ndim != 3 or found.points.shape[-1] != start.shape[-1]:
        raise ValueError(f"found.points has shape {tuple(found.points.shape)}; allowed: (n, k, {start.shape[-1]})")
    n, d = len(found.points), start.shape[-1]
    if start.ndim > 2 or (start.ndim == 2 and len(start) not in (1, n)):
        raise ValueError(f"start has shape {tuple(start.shape)}; allowed: ({d},) or ({n}, {d})")
    start = start.expand(n, d)
    radius = plane(start).norm(dim=-1)
    if not (radius > 0).all():
        zero = start[~(radius > 0)][0].tolist()
        raise ValueError(f"start is {zero}, in the origin of the plane; allowed: states away from it")
    if found.points.shape[1] == 0:
        nothing = torch.full((n, 1, d), torch.nan, dtype=start.dtype)
        found = FixedPoints(nothing, nothing.unsqueeze(-1).expand(-1, -1, -1, d))
    stable = found.kind == Stability.STABLE
    saddle = (found.kind == Stability.SADDLE) & ((found.eigenvalues.real > 0).sum(-1) == 1)
    points = found.points.masked_fill((found.kind == Stability.NONE).unsqueeze(-1), torch.inf)
    inner = (found.eigenvalues.real > 0).sum(-1) > 1
    middle = plane(found.points.masked_fill(~inner.unsqueeze(-1), 0)).sum(1)
    middle = middle.where((inner.sum(-1) == 1).unsqueeze(-1), 0)
    apart = torch.cdist(points, points).nan_to_num(torch.inf) + torch.diag(torch.full(points.shape[1:2], torch.inf))
    apart = _APART * apart.amin(-1) / radius.unsqueeze(-1)
    system, number = saddle.nonzero().unbind(-1)
    saddles = points[system, number]

    rates, vectors = torch.linalg.eig(found.jacobians[system, number])
    which = rates.real.argmax(-1)
    each = torch.arange(len(which))
    v = vectors.real[each, :, which]
    away = radius[system] * apart[system, number].clamp(max=_LEFT)
    left = away.unsqueeze(-1) * v / v.norm(dim=-1, keepdim=True)
    both = system.repeat_interleave(2)
    most = int(stable.sum(-1).max().clamp(min=1))
    sink = stable.long().argsort(dim=-1, descending=True, stable=True)[both, :most]
    sinks = points.masked_fill(~stable.unsqueeze(-1), torch.inf)[both.unsqueeze(-1), sink]
    near = (radius.unsqueeze(-1) * apart.clamp(max=_ARRIVED))[both.unsqueeze(-1), sink]

    def arrived(which: Tensor, _: Tensor, after: Tensor) -> Tensor:
        there = (after.unsqueeze(1) - sinks[which]).norm(dim=-1) <= near[which]
        place = sink[which].gather(-1, there.long().argmax(-1, keepdim=True))
        return torch.where(there.any(-1), place.squeeze(-1), -1)

    orbits, velocities, _, ends = _follow(
        family,
        both,
        torch.stack([saddles + left, saddles - left], 1).flatten(0, 1),
        arrived,
        origin=saddles.repeat_interleave(2, dim=0),
        stride=_STRIDE * radius[both],
        steps=_STEPS,
    )
    sweep = _unwrapped(plane(orbits) - middle[both])[-1].view(-1, 2)
    order = sweep.argsort(-1, descending=True)
    orbits, ends = orbits.movedim(0, 1).unflatten(0, (-1, 2)), ends.view(-1, 2)
    residual = _residual(orbits, velocities.movedim(0, 1).unflatten(0, (-1, 2))) / radius[system].unsqueeze(-1)
    sweep, ends, residual = (values.gather(-1, order) for values in (sweep, ends, residual))
    orbits = orbits[each.unsqueeze(-1), order]

    arrivals = torch.zeros(*found.points.shape[:-1], 2, dtype=torch.long)
    for way in range(2):
        at = ends[:, way] >= 0
        arrivals[..., way].index_put_((system[at], ends[at, way]), torch.tensor(1), accumulate=True)
    turned = torch.zeros(len(points), dtype=sweep.dtype).index_add(0, system, sweep[:, 0] - sweep[:, 1])
    once = (arrivals == stable.long().unsqueeze(-1)).flatten(1).all(-1)
    kind = torch.where(once & ((turned - 2 * torch.pi).abs() < _CLOSED), Circle.CONNECTED, Circle.NONE)
    kind[system[((ends < 0) | ~(residual <= _INVARIANT)).any(-1)]] = Circle.UNDECIDED

    free = (~(stable | saddle).any(-1)).nonzero().squeeze(-1)
    laps, period = _laps(family, free, plane, middle[free], start[free], _STRIDE * radius[free])
    kind[free] = torch.where(period.isnan(), Circle.NONE, Circle.CYCLE)
    periods = torch.full((len(points),), torch.nan, dtype=sweep.dtype)
    periods[free] = period
    return InvariantCircles(kind, periods, system, saddles, ends, sweep, orbits, residual, laps[~period.isnan()])


def _follow(
    family: Family,
    system: Int[Tensor, " m"],
    x: Float[Tensor, "m d"],
    arrived: Callable[[Tensor, Tensor, Tensor], Tensor],
    origin: Float[Tensor, "m d"],
    stride: Float[Tensor, " m"],
    steps: int,
) -> tuple[Float[Tensor, "T m d"], Float[Tensor, "T-1 m d"], Float[Tensor, "T m"], Int[Tensor, " m"]]:
    """Orbits of states x with their velocities and times, until they have arrived, and where, or -1.

    ``arrived`` gets the numbers of the orbits that go on, and their states before and after a step, and says where.
    A step is as long as ``stride``, but no longer than a part of the way from ``origin``. One over which the field is
    not nearly linear is tried again, shorter: so kinks are met in small steps.
    """
    identity = torch.eye(x.shape[-1], dtype=x.dtype)
    end = torch.full_like(system, -1)
    v, t = torch.zeros_like(x), torch.zeros_like(x[:, 0])
    allowed = stride
    going = torch.arange(len(system))
    orbits, velocities, times = [x], [], [t]
    for _ in range(steps):
        field = family(system[going])
        here = x[going]
        f, J = linearisation(field)(here)
        length = torch.minimum(_GROWTH * (here - origin[going]).norm(dim=-1), allowed[going])
        dt = (length / f.norm(dim=-1)).unsqueeze(-1)
        factors = torch.linalg.lu_factor(identity - _GAMMA * dt.unsqueeze(-1) * J)
        first = torch.linalg.lu_solve(*factors, f.unsqueeze(-1)).squeeze(-1)
        second = f + (first - f) / _GAMMA - 2 * first  # the field taken for linear here too: still of order 2
        second = torch.linalg.lu_solve(*factors, second.unsqueeze(-1)).squeeze(-1)
        step = dt * (1.5 * first + 0.5 * second)
        there = field(here + step)
        bend = (there - f - (J @ step.unsqueeze(-1)).squeeze(-1)).norm(dim=-1)
        good = bend <= _BEND * torch.maximum(f.norm(dim=-1), there.norm(dim=-1))
        good &= step.norm(dim=-1) <= 2 * length
        x, v, t, allowed = x.clone(), v.clone(), t.clone(), allowed.clone()
        v[going] = f
        x[going] += step * good.unsqueeze(-1)
        t[going] += dt.squeeze(-1) * good
        allowed[going] = (length * torch.where(good, 4, 0.25)).minimum(stride[going])
        orbits.append(x)
        velocities.append(v)
        times.append(t)
        end[going] = arrived(going, here, x[going])
        going = going[(end[going] < 0) & x[going].isfinite().all(-1)]
        if len(going) == 0:
            break
    return torch.stack(orbits), torch.stack(velocities), torch.stack(times), end


def _laps(
    family: Family,
    system: Int[Tensor, " m"],
    plane: Callable[[Tensor], Tensor],
    middle: Float[Tensor, "m 2"],
    start: Float[Tensor, "m d"],
    stride: Float[Tensor, " m"],
) -> tuple[Float[Tensor, "m T d"], Float[Tensor, " m"]]:
    """The last lap of each orbit of ``start``, and its time: negative if clockwise, NaN if it does not close.

    An orbit is followed until the transient from ``start`` is over: the last two laps begin and end in one place.
    """
    m, samples = len(system), torch.linspace(0, 2 * torch.pi, _LAP)
    angle, laps, passed = start.new_zeros(m), start.new_zeros(m), start.clone()
    moved = torch.full_like(angle, torch.inf)  # from the beginning of a lap to its end

    def arrived(which: Tensor, before: Tensor, after: Tensor) -> Tensor:
        old, new = angle[which], angle[which] + _unwrapped(plane(torch.stack([before, after])) - middle[which])[-1]
        angle[which] = new
        ahead = 2 * torch.pi * (laps[which] + 1)
        complete = new.abs() >= ahead
        part = ((ahead - old.abs()) / (new.abs() - old.abs())).unsqueeze(-1)
        place = before + part * (after - before)
        change = (place - passed[which]).norm(dim=-1)
        there = complete & (torch.maximum(change, moved[which]) < _SETTLED * stride[which] / _STRIDE)
        laps[which] += complete
        moved[which] = change.where(complete, moved[which])
        passed[which] = place.where(complete.unsqueeze(-1), passed[which])
        return torch.where(there, 0, -1)

    nowhere = torch.full_like(start, torch.inf)
    orbits, _, times, _ = _follow(family, system, start, arrived, nowhere, stride, _LAPS)
    angle = _unwrapped(plane(orbits) - middle).nan_to_num(0)
    sense = torch.sign(angle[-1])
    # The angle so far, as an increasing clock: only where it goes forward is the orbit a function of it.
    clock = (angle * sense).cummax(0).values
    turned = clock[-1]
    wanted = turned - 4 * torch.pi + torch.cat([samples, samples[1:] + 2 * torch.pi]).unsqueeze(-1)
    place = torch.searchsorted(clock.T.contiguous(), wanted.T.contiguous()).clamp(1, len(clock) - 1).T
    low, high = clock.gather(0, place - 1), clock.gather(0, place)
    part = ((wanted - low) / (high - low)).clamp(0, 1)

    def at(values: Tensor) -> Tensor:
        before, after = (
            torch.take_along_dim(values, i.view(*i.shape, *[1] * (values.ndim - 2)), 0) for i in (place - 1, place)
        )
        return before + part.view(*part.shape, *[1] * (values.ndim - 2)) * (after - before)

    x, t = at(orbits), at(times)
    last, before = x[_LAP - 1 :], x[:_LAP]
    closed = (last - before).norm(dim=-1).amax(0) < _CLOSED * stride / _STRIDE
    back = (clock > angle * sense + 1e-6) & (clock > turned - 4 * torch.pi)
    closed &= (turned > 4 * torch.pi) & ~back.any(0)
    period = torch.where(closed, sense * (t[-1] - t[_LAP - 1]), torch.nan)
    return last.movedim(0, 1), period


def _unwrapped(z: Float[Tensor, "T *batch 2"]) -> Float[Tensor, "T ..."]:
    """The angle by which z has turned about the origin since the first time."""
    before, after = z[:-1], z[1:]
    cross = before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]
    steps = torch.atan2(cross, (before * after).sum(-1))
    return torch.cat([torch.zeros_like(z[:1, ..., 0]), steps.cumsum(0)])


def _residual(x: Float[Tensor, "*batch T d"], v: Float[Tensor, "*batch chords d"]) -> Float[Tensor, "*batch"]:
    """Largest component of the velocities v across the orbit x.

    At each point the chord before or the one after is taken, whichever is nearer: at a kink one cuts the corner.
    """
    steps = x.diff(dim=-2)
    chords = torch.nn.functional.normalize(steps, dim=-1)
    inner, moving = v[..., 1:, :], (steps != 0).any(-1)
    sides = [(chords[..., :-1, :], moving[..., :-1]), (chords[..., 1:, :], moving[..., 1:])]
    across = [
        (inner - (inner * chord).sum(-1, keepdim=True) * chord).norm(dim=-1).where(moves, torch.inf)
        for chord, moves in sides
    ]
    least = torch.minimum(*across)
    # Padded, so that there is a largest one where no orbit has been followed.
    return torch.nn.functional.pad(least.where(least < torch.inf, 0), (1, 0)).amax(-1)
