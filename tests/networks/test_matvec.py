"""A matrix times a vector is the same by whichever product it is taken."""

import pytest
import torch

from slowmanifold.networks.matvec import matvec


@pytest.mark.parametrize(
    ("matrices", "states"),
    [
        ((), ()),
        ((), (5, 4)),
        ((4,), (4,)),
        ((4,), (5, 4)),
        ((4,), (5, 1)),
        ((1,), (5, 4)),
        ((4, 1), (4, 5)),
        ((4, 1), (3, 4, 5)),
        ((4,), (2, 5, 4)),
        ((6, 4), (4,)),
    ],
)
def test_batch_axes_broadcast(matrices, states):
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(*matrices, 3, 2, generator=generator, dtype=torch.float64)
    x = torch.randn(*states, 2, generator=generator, dtype=torch.float64)
    expected = (W * x.unsqueeze(-2)).sum(-1)
    torch.testing.assert_close(matvec(W, x), expected, rtol=1e-13, atol=1e-13)
