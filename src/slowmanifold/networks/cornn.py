"""The coupled oscillatory recurrent network: many damped pendulums, coupled through their drive."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class CoRNN(nn.Module):
    """The coRNN, called like ``torch.nn.RNN`` with time first.

        y'' = tanh(W y + W' y' + V u + b) - gamma y - epsilon y'

    by the explicit-implicit Euler step of its source, z = y',

        z_t = z_{t-1} + dt (tanh(W y_{t-1} + W' z_{t-1} + V u_t + b) - gamma y_{t-1} - epsilon z_{t-1})
        y_t = y_{t-1} + dt z_t

    ``gamma`` (squared frequency), ``epsilon`` (damping) and ``dt`` are dimensionless and the same for all units. A step
    without the drive is stable iff dt epsilon + dt^2 gamma / 2 <= 2. W, W', V and b are uniform on
    (-1, 1)/sqrt(inputs + 2 hidden_size), the source's (torch's) initialisation.

    Raises ``ValueError`` for sizes that are not positive and for gamma, epsilon or dt for which the undriven step is
    unstable. Source: Rusch and Mishra (2021), eqs 1 and 3. Used in: long_memory.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        generator: torch.Generator,
        gamma: float = 0.4,
        epsilon: float = 8.0,
        dt: float = 0.076,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if size < 1:
                raise ValueError(f"{name} is {size}; allowed: 1, 2, 3, ...")
        for name, value in (("gamma", gamma), ("epsilon", epsilon), ("dt", dt)):
            if not value > 0:
                raise ValueError(f"{name} is {value}; allowed: positive numbers")
        if dt * epsilon + dt**2 * gamma / 2 > 2:
            raise ValueError(f"dt is {dt}; allowed: dt epsilon + dt^2 gamma / 2 <= 2, for a step that does not blow up")
        self.input_size, self.hidden_size = input_size, hidden_size
        self.gamma, self.epsilon, self.dt = gamma, epsilon, dt
        self.weight_ih = nn.Parameter(torch.empty(hidden_size, input_size, dtype=dtype))
        self.weight_hh = nn.Parameter(torch.empty(hidden_size, 2 * hidden_size, dtype=dtype))  # W' beside W
        self.bias = nn.Parameter(torch.empty(hidden_size, dtype=dtype))
        bound = (input_size + 2 * hidden_size) ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(
        self, inputs: Float[Tensor, "steps batch K"], state: Float[Tensor, "1 batch two_d"] | None = None
    ) -> tuple[Float[Tensor, "steps batch d"], Float[Tensor, "1 batch two_d"]]:
        """The positions y at all steps, and the last state (z, y); ``state=None`` is rest at the origin."""
        if state is None:
            state = inputs.new_zeros(1, inputs.shape[1], 2 * self.hidden_size)
        z, y = state[0].chunk(2, -1)
        positions = []
        for drive in nn.functional.linear(inputs, self.weight_ih, self.bias).unbind():
            force = torch.tanh(torch.addmm(drive, torch.cat([z, y], -1), self.weight_hh.mT))
            z = z + self.dt * (force - self.gamma * y - self.epsilon * z)
            y = y + self.dt * z
            positions.append(y)
        return torch.stack(positions), torch.cat([z, y], -1).unsqueeze(0)
