"""The 2^d linear systems of a threshold-linear network, one for each set of active units: which hold fixed points.

W and b are the network's weights and biases, h = W relu(h) + b the drives of a fixed point, S its set of active units.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import linprog
from torch import Tensor

_ROUNDING = 16 * torch.finfo(torch.float64).eps  # relative error of a few operations
_GROWTH = 1e8  # ratio of the pivots up to which elimination without pivot search is trusted
_DOUBT = 1e-6  # a drive has the wrong sign if it is wrong by this much of the largest one
_SINGULAR = 1e13  # ratio of the pivots from which on a linear system counts as singular


def all_supports(d: int) -> Bool[Tensor, "n d"]:
    """The n = 2^d sets of active units, in the order of binary numbers (the first unit is the highest digit)."""
    return torch.cartesian_prod(*[torch.tensor([False, True])] * d).view(-1, d)


def eliminate(W: Float[Tensor, "m d d"], b: Float[Tensor, "m d"], out: Float[Tensor, "n d m"]) -> Bool[Tensor, "n m"]:
    """Writes the drives h of every support to ``out``; returns which may be fixed points: no sign is clearly wrong.

    With z = relu(h) >= 0 and y = h - z <= 0 a fixed point is y + (1 - W) z = b, y_i z_i = 0. Silent units have z = 0,
    active ones y = 0. Each support comes from the one without its first unit by a Gauss-Jordan pivot, of which only the
    columns that later pivots need are computed: some 2 d multiplications a support, where a linear solve takes d^3/3.
    All networks at once: they are the last axis, next to each other in memory.
    """
    m, d = b.shape
    table = out.new_empty(2**d, 1 + d, d, m)  # of each support: h, and the columns of the units
    table[0] = torch.cat([b.unsqueeze(1), torch.eye(d, dtype=W.dtype) - W.mT], 1).permute(1, 2, 0)
    smallest, largest = torch.full_like(out[:, 0], torch.inf), torch.zeros_like(out[:, 0])
    for unit in reversed(range(d)):
        half = 1 << (d - 1 - unit)
        silent, active = table[:half, : 1 + unit], table[half : 2 * half, : 1 + unit]
        column = table[:half, 1 + unit]
        pivot = column[:, unit]
        row = silent[:, :, unit] / pivot.unsqueeze(1)
        torch.addcmul(silent, column.unsqueeze(1), row.unsqueeze(2), value=-1, out=active)
        active[:, :, unit] = row
        size = pivot.abs()
        torch.minimum(smallest[:half], size, out=smallest[half : 2 * half])
        torch.maximum(largest[:half], size, out=largest[half : 2 * half])
    out.copy_(table[:, 0])
    sign = (2 * all_supports(d).to(W.dtype) - 1).unsqueeze(-1)
    right = out * sign
    wrong = right.amin(1).neg_()
    # Not the other way round: NaN, after a pivot of zero, is possible.
    return ~((wrong > _DOUBT * torch.maximum(right.amax(1), wrong)) & (smallest * _GROWTH > largest))


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
