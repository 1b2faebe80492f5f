"""The initialisation that fills a recurrent network with uncoupled oscillators."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slowmanifold.networks.oscillator import rotation, saddle_node_angle

# The authors' range of angles at alpha = 1.5: just inside (0.1478, 0.8411), where the flow has its cycle.
AUTHORS_ANGLES = (math.pi / 21, math.pi / 3.8)

_STEEPEST = 1000.0  # gain up to which angles free of equilibria are found by trying: there one in 250


def oscillator_parameters(
    m: int,
    generator: torch.Generator,
    alpha: float | tuple[float, float] = 1.5,
    theta: tuple[float, float] | None = AUTHORS_ANGLES,
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Gains and angles of m oscillators: independent, uniform on the ranges given.

    ``alpha`` is one gain for all, or a range; ``theta`` a range, or ``None`` for uniform over the region of the
    (alpha, theta) plane where the map's invariant circle is free of equilibria, theta_SN < theta < pi/2 - theta_SN: the
    density of alpha is then proportional to 1 - 4 theta_SN(alpha)/pi. Angles in radians.

    Raises ``ValueError`` for m < 1, ranges that are not ordered and, with ``theta=None``, gains of 1 and less, or
    beyond 1000, where hardly an angle is left.
    Source: the authors' settings; the published slides give none. Used in: limit_cycles.
    """
    if m < 1:
        raise ValueError(f"m is {m}; allowed: 1, 2, 3, ...")
    gains = alpha if isinstance(alpha, tuple) else (alpha, alpha)
    for name, (low, high) in (("alpha", gains), ("theta", theta or (0.0, 1.0))):
        if not -math.inf < low <= high < math.inf:
            raise ValueError(f"{name} is {(low, high)}; allowed: finite ranges (low, high) with low <= high")

    def uniform(low: float, high: float, n: int) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)

    if theta is not None:
        return uniform(*gains, m), uniform(*theta, m)
    if not 1 < gains[0] <= gains[1] <= _STEEPEST:
        raise ValueError(f"alpha is {gains}; allowed with theta=None: gains above 1, up to {_STEEPEST:g}")
    a, t = torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    while len(a) < m:
        some, angle = uniform(*gains, 4 * m), uniform(0, math.pi / 2, 4 * m)
        edge = saddle_node_angle(some)
        inside = (edge < angle) & (angle < math.pi / 2 - edge)
        a, t = torch.cat([a, some[inside]]), torch.cat([t, angle[inside]])
    return a[:m], t[:m]


def block_rotation(
    size: int,
    generator: torch.Generator,
    alpha: float | tuple[float, float] = 1.5,
    theta: tuple[float, float] | None = AUTHORS_ANGLES,
) -> Float[Tensor, "size size"]:
    """W_init: a block-diagonal matrix of size/2 oscillators alpha_k R(theta_k), drawn by :func:`oscillator_parameters`.

    Raises ``ValueError`` for a size that is odd or not positive, and what that function raises.
    Source: Park, slides on learning signals, "Block diagonal initialization". Used in: limit_cycles.
    """
    if size < 2 or size % 2:
        raise ValueError(f"size is {size}; allowed: 2, 4, 6, ... (an oscillator takes two units)")
    return torch.block_diag(*rotation(*oscillator_parameters(size // 2, generator, alpha, theta)))


@torch.no_grad()
def limit_cycle_(
    module: nn.RNN | nn.RNNCell | nn.GRU | nn.GRUCell,
    generator: torch.Generator,
    alpha: float | tuple[float, float] = 1.5,
    theta: tuple[float, float] | None = AUTHORS_ANGLES,
) -> nn.RNN | nn.RNNCell | nn.GRU | nn.GRUCell:
    """Initialise a recurrent module in place as m = hidden_size/2 uncoupled oscillators, and return it.

        >>> gru = torch.nn.GRU(10, 64)
        >>> limit_cycle_(gru, torch.Generator().manual_seed(0))
        >>> h0 = 0.5 * torch.randn(1, batch, 64)

    Recurrent weights: :func:`block_rotation`, drawn afresh for each layer and direction. In a GRU these are the
    candidate's, with twice the gain, and the gates' recurrent weights are zero: both gates stand at 1/2, and what
    results is the same oscillator at half the speed. Input weights: Kaiming normal. Biases: zero.

    The origin is an equilibrium, a repelling one: with ``h0 = 0`` and no input a network stays there, where gradients
    grow like alpha^t. Start from a random state as above, or let the input push it off.

    Raises ``ValueError`` for other modules, a nonlinearity other than tanh, odd sizes, and what
    :func:`oscillator_parameters` raises; the module is then as it was. Source: Park, slides; Kaiming, h0 and the
    gates' weights from the authors' settings. Used in: limit_cycles.
    """
    if not isinstance(module, nn.RNN | nn.RNNCell | nn.GRU | nn.GRUCell):
        raise ValueError(f"module is {type(module).__name__}; allowed: RNN, RNNCell, GRU, GRUCell of torch.nn")
    if getattr(module, "nonlinearity", "tanh") != "tanh":
        raise ValueError(f"module has the nonlinearity {module.nonlinearity!r}; allowed: 'tanh'")
    gated = isinstance(module, nn.GRU | nn.GRUCell)
    # Recurrent weights come first: what they refuse is refused before anything is changed.
    for name, parameter in sorted(module.named_parameters(), key=lambda named: (named[0].startswith("bias"), named[0])):
        if name.startswith("weight_hh"):
            W = block_rotation(module.hidden_size, generator, alpha, theta)
            parameter.copy_(torch.cat([torch.zeros_like(W), torch.zeros_like(W), 2 * W]) if gated else W)
        elif name.startswith("weight_ih"):
            nn.init.kaiming_normal_(parameter, generator=generator)
        elif name.startswith("bias"):
            parameter.zero_()
    return module
