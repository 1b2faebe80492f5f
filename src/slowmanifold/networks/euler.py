"""A flow and the map that is its Euler step: what continuous and discrete recurrent networks have in common."""

# ruff: noqa: E741  (I is the papers' symbol for the input)

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor


class Flow(ABC):
    """A network x' = F(x, I) that says what F and its derivative are; it gets its Euler map from here.

    Time is in units of tau. Used in: fenichel, clicks, landscape, maintenance, limit_cycles.
    """

    @abstractmethod
    def velocity(
        self, x: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch d"]:
        """F(x, I), per tau; ``I=None`` means no input."""

    @abstractmethod
    def jacobian(
        self, x: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch d d"]:
        """Derivative J of F with respect to the state."""

    def step(
        self, x: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch K"] | None = None, dt: float = 1.0
    ) -> Float[Tensor, "*batch d"]:
        """One Euler step x + dt F(x, I); ``dt=1`` is the discrete recurrent network."""
        return x + dt * self.velocity(x, I)

    def step_jacobian(
        self, x: Float[Tensor, "*#batch d"], I: Float[Tensor, "*#batch K"] | None = None, dt: float = 1.0
    ) -> Float[Tensor, "*batch d d"]:
        """Derivative of :meth:`step` with respect to the state, 1 + dt J: its eigenvalues are 1 + dt lambda."""
        return torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) + dt * self.jacobian(x, I)
