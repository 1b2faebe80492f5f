"""The 2^d linear systems of a threshold-linear network, one for each set of active units: which hold fixed points.

W and b are the network's weights and biases, h = W relu(h) + b the drives of a fixed point, S its set of active units.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linprog
from torch import Tensor

_ROUNDING = 16 * torch.finfo(torch.float64).eps  # relative error of a few operations
_GROWTH = 1e9  # ratio of the pivots up to which elimination without pivot search is trusted
_DOUBT = 1e-5  # a sign is clear if its value is off zero by this much of the largest one
_RESIDUAL = 1e-12  # what elimination finds solves the equations if to this much of the largest value
_TOGETHER = 1024  # networks at a time: their tables stay in the processor's cache
_SINGULAR = 1e13  # ratio of the pivots from which on a linear system counts as singular


def all_supports(d: int) -> Bool[Tensor, "n d"]:
    """The n = 2^d sets of active units, in the order of binary numbers (the first unit is the highest digit)."""
    return torch.cartesian_prod(*[torch.tensor([False, True])] * d).view(-1, d)


@dataclass(frozen=True)
class Candidates:
    """Supports that may hold a fixed point, of which network, and what came of it; f of them."""

    network: Int[Tensor, " f"]
    support: Int[Tensor, " f"]
    h: Float[Tensor, "f d"]  # the drives, NaN where degenerate
    exists: Bool[Tensor, " f"]  # an isolated fixed point
    border: Bool[Tensor, " f"]  # one with a silent unit at its threshold, within rounding errors
    degenerate: Bool[Tensor, " f"]  # a singular linear system


def enumerate_supports(W: Float[Tensor, "m d d"], b: Float[Tensor, "m d"]) -> Candidates:
    """Every support in which no unit's sign is clearly wrong, in the order of networks and supports.

    With z = relu(h) >= 0 and y = z - h >= 0 a fixed point is y = (1 - W) z - b, y_i z_i = 0: silent units have z = 0,
    active ones y = 0. One Gauss-Jordan pivot exchanges a unit's y and z, and so leads from a support to the one with
    one more active unit; of the columns, only those of units still to be decided are kept: some 2 d multiplications a
    support, where a linear solve takes d^3/3. There is no pivot search. So it decides what has no sign in doubt and
    solves the equations to rounding errors; the rest is factorised (:func:`solve`).
    """
    d = b.shape[-1]
    parts = []
    for start in range(0, max(len(W), 1), _TOGETHER):
        networks = slice(start, start + _TOGETHER)
        network, *found = _eliminated(W[networks].numpy(), b[networks].numpy())
        parts.append((start + network, *found))
    network, support, h, exists = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
    order = ((network << d) + support).argsort()
    network, support, h, exists = network[order], support[order], h[order], exists[order]
    border, degenerate = torch.zeros_like(exists), torch.zeros_like(exists)
    doubtful = (~exists).nonzero().squeeze(-1)
    h[doubtful], exists[doubtful], border[doubtful], degenerate[doubtful] = solve(
        W[network[doubtful]], b[network[doubtful]], all_supports(d)[support[doubtful]]
    )
    return Candidates(network, support, h, exists, border, degenerate)


def _eliminated(W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Candidates as found without pivot search: network, support, h, and whether that is sure to be a fixed point.

    Depth first through the tree of supports; the networks are the last axis, next to each other in memory.
    """
    m, d = b.shape
    root = np.empty((1 + d, d, m))  # y at z = 0, and the columns of 1 - W
    root[0] = -b.T
    root[1:] = np.eye(d)[:, :, None] - W.transpose(2, 1, 0)
    tables = [np.empty((1 + unit, d, m)) for unit in range(d)]
    leaves = []

    def descend(table: np.ndarray, support: int, smallest: np.ndarray, largest: np.ndarray) -> None:
        unit = len(table) - 2
        if unit < 0:
            wrong = table[0].min(0) < -_DOUBT * table[0].max(0)
            # Not the other way round: NaN, after a pivot of zero, is possible.
            trusted = smallest * _GROWTH > largest
            at = np.flatnonzero(~(wrong & trusted))
            leaves.append((at, np.full(len(at), support), trusted[at], table[0].take(at, 1)))
            return
        rest, column, active = table[:-1], table[-1], tables[unit]
        descend(rest, support, smallest, largest)
        row = rest[:, unit] / column[unit]
        np.multiply(column, row[:, None], out=active)
        np.subtract(rest, active, out=active)
        np.negative(row, out=active[:, unit])
        size = np.abs(column[unit])
        support += 1 << (d - 1 - unit)
        descend(active, support, np.minimum(smallest, size), np.maximum(largest, size))

    with np.errstate(all="ignore"):
        descend(root, 0, np.full(m, np.inf), np.zeros(m))
        network, support, trusted, value = (np.concatenate(part, -1) for part in zip(*leaves, strict=True))
        z = value * (support >> np.arange(d)[::-1, None] & 1)
        h = 2 * z - value
        residual = root[0].take(network, 1) + h - z
        for column, activity in zip(root[1:], z, strict=True):
            term = column.take(network, 1)
            term *= activity
            residual += term
        largest = value.max(0)
        exact = np.abs(residual).max(0) <= _RESIDUAL * largest
    return network, support, h.T, trusted & exact & (value.min(0) > _DOUBT * largest)


def solve(
    W: Float[Tensor, "m d d"], b: Float[Tensor, "m d"], supports: Bool[Tensor, "m d"]
) -> tuple[Float[Tensor, "m d"], Bool[Tensor, " m"], Bool[Tensor, " m"], Bool[Tensor, " m"]]:
    """Drives of one candidate each, and whether it exists, is at a border, is degenerate, within rounding errors."""
    A = torch.eye(b.shape[-1], dtype=W.dtype) - supports.unsqueeze(-1) * W
    factors, pivots, _ = torch.linalg.lu_factor_ex(A)
    x = torch.linalg.lu_solve(factors, pivots, (supports * b).unsqueeze(-1)).squeeze(-1)
    h = (W @ x.unsqueeze(-1)).squeeze(-1) + b

    diagonal = factors.diagonal(dim1=-2, dim2=-1).abs()
    condition = (diagonal.amax(-1) / diagonal.amin(-1)).unsqueeze(-1)
    degenerate = ~(condition < _SINGULAR).squeeze(-1)  # not >=: an exactly singular system may give 0/0
    largest = x.abs().amax(-1, keepdim=True)
    x_error = _ROUNDING * condition * largest
    h_error = W.abs().sum(-1) * (x_error + _ROUNDING * largest) + _ROUNDING * b.abs()
    exists = torch.where(supports, x > x_error, h <= h_error).all(-1) & ~degenerate
    border = exists & (~supports & (h.abs() <= h_error)).any(-1)
    h = torch.where(supports, x, h).masked_fill(degenerate.unsqueeze(-1), torch.nan)
    return h, exists, border, degenerate


def continua(
    W: Float[Tensor, "*batch d d"],
    b: Float[Tensor, "*batch d"],
    supports: Bool[Tensor, "n d"],
    degenerate: Bool[Tensor, "*batch n"],
) -> Bool[Tensor, "*batch n"]:
    """Which of the singular supports hold fixed points: those whose affine set of solutions meets their region.

    A linear program for each: maximise the smallest activity t of the active units, the silent ones being silent. Its
    feasibility is decided to 1e-7 of the largest bias.
    """
    continuum = torch.zeros_like(degenerate)
    d = b.shape[-1]
    for *place, support in degenerate.nonzero().tolist():
        active = supports[support].numpy()
        w, drive = W[tuple(place)].numpy(), b[tuple(place)].numpy()
        drive = drive / (np.abs(drive).max() or 1)
        on, off = active.sum(), d - active.sum()
        program = linprog(
            c=np.r_[np.zeros(d), -1],
            A_eq=np.c_[np.eye(d) - active[:, None] * w, np.zeros(d)],
            b_eq=active * drive,
            A_ub=np.r_[np.c_[-np.eye(d)[active], np.ones(on)], np.c_[w[~active], np.zeros(off)]],
            b_ub=np.r_[np.zeros(on), -drive[~active]],
            bounds=[*[(None, None)] * d, (None, 1)],
        )
        continuum[(*place, support)] = bool(program.success and -program.fun > 1e-6)
    return continuum
