"""Eigenvalues of very many small matrices: in closed form up to four rows where that is accurate, else by LAPACK."""

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

_APART = 1e-3  # product of the distances between the roots from which on rounding errors leave them alone
_TOGETHER = 4096  # matrices at a time: what is computed from them stays in the processor's cache

Roots = tuple[np.ndarray, np.ndarray, np.ndarray]  # real parts (k, m), imaginary parts (k, m), which are accurate (m,)


def eigenvalues(A: Float[Tensor, "m k k"]) -> Complex[Tensor, "m k"]:
    """Eigenvalues of each matrix, in no particular order, to some 1e-11 of the largest entry.

    Two rows: the quadratic formula. Three and four: with B the matrix less the mean of its eigenvalues, divided by its
    largest entry, and e_n the sum of its principal minors of n rows,

        x^3 + e_2 x - e_3 = 0,      x^4 + e_2 x^2 - e_3 x + e_4 = 0

    by Cardano and Ferrari. A coefficient's rounding error moves a root by its ratio to the product of the distances to
    the other roots; matrices whose roots are not well apart, and those of more than four rows, go to LAPACK. Fastest
    where the matrices are the last axis in memory.

    Raises ``ValueError`` for matrices that are not finite. Used in: fenichel, rings.
    """
    m, k = A.shape[:2]
    if not A.isfinite().all():
        raise ValueError(f"A has {int((~A.isfinite()).sum())} entries that are not finite; allowed: finite matrices")
    if k > 4:
        return torch.linalg.eigvals(A)
    values = np.empty((m, k), dtype=complex)
    inaccurate = np.empty(m, dtype=bool)
    with np.errstate(all="ignore"):
        for start in range(0, m, _TOGETHER):
            part = slice(start, start + _TOGETHER)
            real, imaginary, accurate = _in_closed_form(np.ascontiguousarray(np.moveaxis(A[part].numpy(), 0, -1)))
            values.real[part], values.imag[part], inaccurate[part] = real.T, imaginary.T, ~accurate
    values = torch.from_numpy(values)
    if inaccurate.any():
        values[inaccurate] = torch.linalg.eigvals(A[inaccurate])
    return values


def _in_closed_form(A: np.ndarray) -> Roots:
    """Of matrices (k, k, m)."""
    k, _, m = A.shape
    mean = sum(A[i, i] for i in range(k)) / k
    if k == 1:
        return mean[None], np.zeros((1, m)), np.ones(m, dtype=bool)
    B = A.copy()
    for i in range(k):
        B[i, i] -= mean
    scale = np.abs(B).max((0, 1))
    B /= np.where(scale > 0, scale, 1)
    real, imaginary, accurate = (_two, _three, _four)[k - 2](B)
    return mean + scale * real, scale * imaginary, accurate


def _minors(upper: np.ndarray, lower: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Of two rows: the determinants of any two of their columns."""
    k = len(upper)
    return {(i, j): upper[i] * lower[j] - upper[j] * lower[i] for i in range(k) for j in range(i + 1, k)}


def _two(B: np.ndarray) -> Roots:
    e2 = _minors(*B)[0, 1]
    return *_quadratic(np.zeros_like(e2), e2), np.ones(e2.shape, dtype=bool)


def _three(B: np.ndarray) -> Roots:
    of = _minors(B[1], B[2])
    e2 = of[1, 2] + B[0, 0] * (B[1, 1] + B[2, 2]) - B[0, 1] * B[1, 0] - B[0, 2] * B[2, 0]
    e3 = B[0, 0] * of[1, 2] - B[0, 1] * of[0, 2] + B[0, 2] * of[0, 1]
    x = _largest_root(e2, -e3)
    real, imaginary = _quadratic(x, x**2 + e2)
    accurate = np.abs(4 * e2 * e2**2 + 27 * e3**2) > _APART**2
    return np.stack([x, *real]), np.stack([np.zeros_like(x), *imaginary]), accurate


def _four(B: np.ndarray) -> Roots:
    """x^4 + e_2 x^2 - e_3 x + e_4 = (x^2 + s x + u) (x^2 - s x + v), as long as s is not small."""
    p, q = _minors(B[0], B[1]), _minors(B[2], B[3])
    e2 = p[0, 1] + q[2, 3] + (B[0, 0] + B[1, 1]) * (B[2, 2] + B[3, 3])
    e2 -= B[0, 2] * B[2, 0] + B[0, 3] * B[3, 0] + B[1, 2] * B[2, 1] + B[1, 3] * B[3, 1]
    e3 = B[2, 2] * p[0, 1] - B[2, 1] * p[0, 2] + B[2, 0] * p[1, 2]
    e3 += B[3, 3] * p[0, 1] - B[3, 1] * p[0, 3] + B[3, 0] * p[1, 3]
    e3 += B[0, 0] * q[2, 3] - B[0, 2] * q[0, 3] + B[0, 3] * q[0, 2]
    e3 += B[1, 1] * q[2, 3] - B[1, 2] * q[1, 3] + B[1, 3] * q[1, 2]
    e4 = p[0, 1] * q[2, 3] - p[0, 2] * q[1, 3] + p[0, 3] * q[1, 2]
    e4 += p[1, 2] * q[0, 3] - p[1, 3] * q[0, 2] + p[2, 3] * q[0, 1]
    square = _largest_root(-(e2**2) / 3 - 4 * e4, e2 * (8 * e4 - 2 / 9 * e2**2) / 3 - e3**2) - 2 / 3 * e2
    s = np.sqrt(square)
    u, v = (e2 + square + e3 / s) / 2, (e2 + square - e3 / s) / 2
    resultant = (u - v) ** 2 + 2 * square * (u + v)
    apart = np.sqrt(np.abs((square - 4 * u) * (square - 4 * v))) * np.abs(resultant)
    real, imaginary = (np.concatenate(part) for part in zip(_quadratic(s, u), _quadratic(-s, v), strict=True))
    return real, imaginary, (apart > _APART) & (square > _APART)


def _quadratic(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Real and imaginary parts of the two roots of x^2 + p x + q."""
    centre, discriminant = -p / 2, p**2 / 4 - q
    real, imaginary = np.sqrt(np.maximum(discriminant, 0)), np.sqrt(np.maximum(-discriminant, 0))
    return np.stack([centre + real, centre - real]), np.stack([imaginary, -imaginary])


def _largest_root(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Of the real roots of x^3 + p x + q: by Viète where there are three, else by Cardano; with two Newton steps."""
    # x * x**2, as NumPy has no fast x**3
    discriminant = q**2 / 4 + p * p**2 / 27
    radius = np.sqrt(np.maximum(-p / 3, 0))
    of_three = 2 * radius * np.cos(np.arccos(np.clip(-q / (2 * radius * radius**2), -1, 1)) / 3)
    u = np.cbrt(np.abs(q) / 2 + np.sqrt(np.maximum(discriminant, 0)))
    x = np.where(discriminant > 0, np.copysign(u - p / (3 * u), -q), of_three)
    for _ in range(2):
        square = x**2
        x = x - ((square + p) * x + q) / (3 * square + p)
    return x
