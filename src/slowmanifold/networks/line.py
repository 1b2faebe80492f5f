"""The three click integrators of Ságodi et al. (Sec. 3.2): two rate units, three ways to hold a line of equilibria."""

# ruff: noqa: E741  (I is the papers' symbol for the input)

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from slowmanifold.networks.euler import Flow
from slowmanifold.networks.matvec import matvec

Activation = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]

# Name -> (function, derivative). A ReLU's derivative at zero is taken as 0: a unit at its threshold counts as silent.
# softplus: PyTorch goes over to the identity beyond a threshold, 20 unless told; at 40 the two agree in float64.
ACTIVATIONS: dict[str, Activation] = {
    "relu": (torch.relu, lambda z: (z > 0).to(z.dtype)),
    "celu": (functional.celu, lambda z: torch.exp(z.clamp(max=0))),
    "softplus": (lambda z: functional.softplus(z, threshold=40), torch.sigmoid),
}


@dataclass(frozen=True, eq=False)
class RateNetwork(Flow):
    """A network of d rate units with K inputs and one output, as a flow and as its Euler map.

        x' = -x + phi(W_in I + W x + b)                        [eq. 7]
        O  = W_out . x + b_out                                 [eq. 6]

    All quantities are dimensionless, time is in units of the units' time constant tau. ``x0`` is the state from
    which the output starts at zero. ``activation`` names phi: ``"relu"`` (the paper's), ``"celu"`` (equal to it for
    positive arguments and once continuously differentiable) or ``"softplus"`` (smooth). ``W`` and ``b`` may carry
    batch axes in front, one network each; they broadcast against those of the states.

    Raises ``ValueError`` for an unknown activation. Source: Ságodi et al., eqs 6-7.
    Used in: fenichel, clicks, landscape, maintenance.
    """

    W_in: Float[Tensor, "d K"]
    W: Float[Tensor, "*#networks d d"]
    b: Float[Tensor, "*#networks d"]
    W_out: Float[Tensor, " d"]
    b_out: Float[Tensor, ""]
    x0: Float[Tensor, " d"]
    activation: str = "relu"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}; allowed: {', '.join(map(repr, ACTIVATIONS))}")

    def preactivation(
        self, x: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch d"]:
        """W_in I + W x + b; ``I=None`` means no input."""
        h = matvec(self.W, x) + self.b
        return h if I is None else h + matvec(self.W_in, I)

    def velocity(
        self, x: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch d"]:
        """x' = -x + phi(W_in I + W x + b), per tau. Source: eq. 7."""
        phi, _ = ACTIVATIONS[self.activation]
        return -x + phi(self.preactivation(x, I))

    def jacobian(
        self, x: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch d d"]:
        """Derivative of the velocity with respect to the state, -1 + diag(phi'(h)) W."""
        _, slope = ACTIVATIONS[self.activation]
        return slope(self.preactivation(x, I)).unsqueeze(-1) * self.W - torch.eye(x.shape[-1], dtype=x.dtype)

    def output(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """O = W_out . x + b_out, in clicks. Source: eq. 6."""
        return x @ self.W_out + self.b_out

    def perturbed(self, V: Float[Tensor, "... d d"], c: Float[Tensor, "... d"] | None = None) -> "RateNetwork":
        """The same network with the weights W + V (and the biases b + c). Source: Sec. 3.4."""
        return replace(self, W=self.W + V, b=self.b if c is None else self.b + c)


def _tensor(values: list | float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _require_positive(**parameters: float) -> None:
    for name, value in parameters.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; allowed: positive finite numbers")


def identity_rnn(as_printed: bool = False, activation: str = "relu") -> RateNetwork:
    """The iRNN: each unit counts the clicks of one channel, the output takes the difference.

        W_in = W = 1,  b = 0,  W_out = (-1, 1),  b_out = 0,  x0 = 0

    Without input every state of the positive quadrant is an equilibrium, with eigenvalues {0, 0}: nothing attracts.
    The output is sum(I_2 - I_1), the opposite sign of eq. 5: the slip is in the task, so eq. 8 needs no mending and
    ``as_printed`` changes nothing (the three integrators share one signature).

    Source: Ságodi et al., eq. 8. Used in: fenichel, clicks, landscape, maintenance.
    """
    return RateNetwork(
        W_in=_tensor([[1, 0], [0, 1]]),
        W=_tensor([[1, 0], [0, 1]]),
        b=_tensor([0, 0]),
        W_out=_tensor([-1, 1]),
        b_out=_tensor(0),
        x0=_tensor([0, 0]),
        activation=activation,
    )


def unbounded_line_attractor(
    alpha: float = 1.0, beta: float = 1.0, as_printed: bool = False, activation: str = "relu"
) -> RateNetwork:
    """The UBLA: mutual excitation makes the half-line x1 = x2 >= 0 a continuum of equilibria, eigenvalues {0, -2}.

        W_in = alpha [[-1, 1], [-1, 1]],  W = [[0, 1], [1, 0]],  b = 0
        W_out = (1, 1)/(2 alpha),  b_out = -beta/alpha,  x0 = beta (1, 1)

    ``alpha`` is the step along the line that one click makes, ``beta`` where on the diagonal counting starts (both in
    units of activity): exact for outputs >= -beta/alpha. ``as_printed=True`` takes W_in = alpha [[-1, 1], [1, -1]] of
    eq. 9, which pushes across the line: the output is then zero whatever the clicks.

    Raises ``ValueError`` unless alpha and beta are positive. Source: Ságodi et al., eq. 9.
    Used in: fenichel, clicks, landscape, maintenance.
    """
    _require_positive(alpha=alpha, beta=beta)
    W_in = _tensor([[-1, 1], [1, -1]] if as_printed else [[-1, 1], [-1, 1]])
    return RateNetwork(
        W_in=alpha * W_in,
        W=_tensor([[0, 1], [1, 0]]),
        b=_tensor([0, 0]),
        W_out=_tensor([1, 1]) / (2 * alpha),
        b_out=_tensor(-beta / alpha),
        x0=beta * _tensor([1, 1]),
        activation=activation,
    )


def bounded_line_attractor(
    alpha: float = 1.0, beta: float = 1.0, as_printed: bool = False, activation: str = "relu"
) -> RateNetwork:
    """The BLA: mutual inhibition makes the segment x1 + x2 = beta, x >= 0 a continuum, eigenvalues {0, -2}.

        W_in = alpha [[-1, 1], [1, -1]],  W = [[0, -1], [-1, 0]],  b = beta (1, 1)
        W_out = (1, -1)/(2 alpha),  b_out = 0,  x0 = (beta/2) (1, 1)

    ``alpha`` is the step along the segment that one click makes, ``beta`` the common drive (both in units of
    activity): exact for |output| <= beta/(2 alpha). Like the iRNN it puts out sum(I_2 - I_1), which is mended in
    the task: ``as_printed`` changes nothing (the three integrators share one signature).

    Raises ``ValueError`` unless alpha and beta are positive. Source: Ságodi et al., eq. 10.
    Used in: fenichel, clicks, landscape, maintenance.
    """
    _require_positive(alpha=alpha, beta=beta)
    return RateNetwork(
        W_in=alpha * _tensor([[-1, 1], [1, -1]]),
        W=_tensor([[0, -1], [-1, 0]]),
        b=beta * _tensor([1, 1]),
        W_out=_tensor([1, -1]) / (2 * alpha),
        b_out=_tensor(0),
        x0=beta / 2 * _tensor([1, 1]),
        activation=activation,
    )
