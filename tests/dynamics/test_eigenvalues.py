"""Eigenvalues of small matrices: against LAPACK, in closed form and where that would be inaccurate."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

from slowmanifold.dynamics import eigenvalues as module
from slowmanifold.dynamics.eigenvalues import eigenvalues


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest distance between two lists of numbers, paired."""
    apart = np.abs(one.numpy()[:, None] - other.numpy())
    return apart[linear_sum_assignment(apart)].max(initial=0)


SIZES = [1, 2, 3, 4, 5]


@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("scale", [1e-100, 1, 1e100])
def test_random_matrices_have_the_eigenvalues_that_lapack_finds(k, scale):
    A = normal(2000, k, k)
    for ours, theirs in zip(eigenvalues(scale * A) / scale, torch.linalg.eigvals(A), strict=True):
        assert distance(ours, theirs) < 1e-10


@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("apart", [1, 1e-3, 1e-6, 1e-9, 0])
def test_eigenvalues_of_symmetric_matrices_are_accurate_however_close(k, apart):
    """There the eigenvalues are as accurate as the entries, though the roots of the polynomial would not be."""
    rates = normal(k, seed=1)
    rates[1:2] = rates[:1] + apart
    Q = torch.linalg.qr(normal(300, k, k))[0]
    A = Q @ torch.diag(rates) @ Q.mT
    for ours in eigenvalues((A + A.mT) / 2):
        assert distance(ours, rates.to(torch.complex128)) < 1e-10


@pytest.mark.parametrize("k", SIZES)
def test_a_matrix_solves_its_characteristic_equation_and_keeps_trace_and_determinant(k):
    A = normal(1000, k, k, seed=2)
    values = eigenvalues(A)
    unity = torch.eye(k, dtype=torch.complex128)
    power = unity.expand(1000, k, k)
    for value in values.T:
        power = power @ (A - value.view(-1, 1, 1) * unity)
    assert_close(power, torch.zeros_like(power), rtol=0, atol=1e-9)
    assert_close(values.sum(-1).real, A.diagonal(dim1=1, dim2=2).sum(-1))
    assert_close(values.prod(-1).real, torch.linalg.det(A), rtol=1e-9, atol=1e-9)
    assert_close(values.sum(-1).imag, torch.zeros(1000).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [3, 4])
@given(st.integers(0, 2**32), st.floats(-5, 5), st.floats(1e-3, 1e3))
def test_shifts_and_scales_pass_through(k, seed, shift, scale):
    A = normal(4, k, k, seed=seed)
    unity = torch.eye(k, dtype=torch.float64)
    for one, other in zip(eigenvalues(scale * (A + shift * unity)) / scale - shift, eigenvalues(A), strict=True):
        # where roots are close, eigenvalues themselves move by more than the rounding error
        gap = (other.unsqueeze(-1) - other + 10 * unity).abs().min()
        assert distance(one, other) < 1e-10 / min(1, gap**k)


@pytest.mark.parametrize(
    "A",
    [
        torch.zeros(3, 3),
        torch.zeros(4, 4),
        torch.eye(4),
        torch.diag(torch.tensor([1.0, 2.0, 2.0])),
        torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]),
        torch.tensor([[0.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]]),
        torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -2], [0, 0, 2, 0]]),
    ],
)
def test_special_matrices(A):
    """Roots that coincide, and polynomials whose factors in Ferrari's formula do not exist (s = 0)."""
    (ours,) = eigenvalues(A.double().unsqueeze(0))
    assert distance(ours, torch.linalg.eigvals(A.double())) < 1e-12


@pytest.mark.parametrize("k", [3, 4])
def test_most_matrices_need_no_lapack(k, monkeypatch):
    sent = []
    lapack = torch.linalg.eigvals
    monkeypatch.setattr(module.torch.linalg, "eigvals", lambda A: sent.append(len(A)) or lapack(A))
    eigenvalues(normal(2000, k, k))
    assert sum(sent) < 100


@pytest.mark.parametrize("k", SIZES)
def test_many_are_those_of_each_alone_and_memory_order_does_not_matter(k):
    A = normal(module._TOGETHER + 10, k, k)
    values = eigenvalues(A)
    assert torch.equal(values[-20:], torch.cat([eigenvalues(a.unsqueeze(0)) for a in A[-20:]]))
    assert torch.equal(values, eigenvalues(A.permute(1, 2, 0).contiguous().permute(2, 0, 1)))


def test_no_matrix_no_eigenvalues():
    assert eigenvalues(torch.zeros(0, 3, 3).double()).shape == (0, 3)


def test_matrices_that_are_not_finite():
    with pytest.raises(ValueError, match="A has 2 entries"):
        eigenvalues(torch.tensor([[[torch.nan, 0], [0, torch.inf]]], dtype=torch.float64))
