"""Recurrent networks that answer with a class at each step, and the ways in which they start."""

import copy
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slowmanifold.dynamics.lyapunov import Tangent
from slowmanifold.networks.cornn import CoRNN
from slowmanifold.networks.initialisation import AUTHORS_ANGLES, limit_cycle_
from slowmanifold.networks.oscillator import TanhRNN

STRUCTURES = ("rotation", "slow rotation", "orthogonal", "identity", "glorot")
RESETS = ("phases", "amplitudes")


class Recurrent(nn.Module):
    """A recurrent layer and a linear readout of its state.

        h_t = core(u_t, h_{t-1}),   h_0 = initial,      logits_t = W_out h_t + b_out

    ``initial`` is a fixed state, not trained, or ``None``: zero. ``core`` is torch's ``RNN`` or ``GRU`` (one layer,
    time first) or a :class:`CoRNN`. W_out has Glorot's uniform distribution, b_out is zero.
    Source: Park, slides, "Application". Used in: long_memory.
    """

    def __init__(self, core: nn.RNN | nn.GRU | CoRNN, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.core = core
        self.register_buffer("initial", None)
        self.readout = nn.Linear(core.hidden_size, classes, dtype=next(core.parameters()).dtype)
        with torch.no_grad():
            nn.init.xavier_uniform_(self.readout.weight, generator=generator)
            self.readout.bias.zero_()

    def forward(self, inputs: Float[Tensor, "trials steps K"]) -> Float[Tensor, "trials steps classes"]:
        """The logits of each step, in the precision of the parameters."""
        states, _ = self.read(inputs)
        return self.readout(states).transpose(0, 1)

    def read(self, inputs: Float[Tensor, "trials steps K"]) -> tuple[Tensor, Tensor]:
        """The core's states while it reads, (steps, trials, d), and its last one, as torch returns them."""
        rows = inputs.transpose(0, 1).to(self.readout.weight)
        if self.initial is None:
            return self.core(rows)
        return self.core(rows, self.initial.expand(1, rows.shape[1], -1).contiguous())

    def under(self, constant: Float[Tensor, " K"]) -> Callable[[Tensor], Tensor]:
        """The map h_t -> h_{t+1} under a constant input, in float64: an autonomous system, for ``dynamics``."""
        core = copy.deepcopy(self.core).double().cpu()

        def step(state: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
            rows = state.reshape(1, -1, state.shape[-1])
            drive = constant.double().expand(1, rows.shape[1], -1)
            return core(drive, rows)[1].reshape(state.shape)

        return step

    @torch.no_grad()
    def pushforward(self, constant: Float[Tensor, " K"]) -> Tangent:
        """The same map h -> f(h), for an RNN or GRU, and what it makes of k perturbations, the columns of M: J(h) M.

        For ``lyapunov_spectrum``, for which it is several times faster than automatic differentiation of :meth:`under`.
        Raises ``ValueError`` for another layer.
        """
        core = copy.deepcopy(self.core).double().cpu()
        if not isinstance(core, nn.RNN | nn.GRU):
            raise ValueError(f"core is {type(core).__name__}; allowed: RNN, GRU")
        W, b = core.weight_hh_l0.detach(), core.bias_hh_l0.detach()
        drive = (core.weight_ih_l0 @ constant.double() + core.bias_ih_l0).detach()

        def gru(h: Tensor, M: Tensor) -> tuple[Tensor, Tensor]:
            (r, z, n), (dr, dz, dn) = (h @ W.mT + b).chunk(3, -1), (W @ M).chunk(3, -2)
            u_r, u_z, u_n = drive.chunk(3)
            r, z = torch.sigmoid(r + u_r), torch.sigmoid(z + u_z)
            dr, dz = (r * (1 - r)).unsqueeze(-1) * dr, (z * (1 - z)).unsqueeze(-1) * dz
            candidate = torch.tanh(u_n + r * n)
            dn = (1 - candidate.square()).unsqueeze(-1) * (n.unsqueeze(-1) * dr + r.unsqueeze(-1) * dn)
            new = candidate + z * (h - candidate)
            return new, dn + z.unsqueeze(-1) * (M - dn) + (h - candidate).unsqueeze(-1) * dz

        return TanhRNN(W, b + drive).pushforward if isinstance(core, nn.RNN) else gru

    @torch.no_grad()
    def held(
        self, shown: Float[Tensor, "trials steps K"], constant: Float[Tensor, " K"], steps: int
    ) -> Float[Tensor, "{steps} trials d"]:
        """The states at ``steps`` steps under a constant input, after what has been shown, in float64."""
        step, states = self.under(constant), []
        state = self.read(shown)[1][0].double()
        for _ in range(steps):
            state = step(state)
            states.append(state)
        return torch.stack(states)


class Interrupted(nn.Module):
    """A network whose oscillators, its units taken two by two, are reset once a trial, before step ``at`` is read.

        "phases"      (x, y) -> (r, 0),  r = hypot(x, y):  each keeps its amplitude, and is back at phase zero
        "amplitudes"  (x, y) -> R (x, y) / r:  each keeps its phase, and all have one amplitude, R = rms of r

    Gradients pass through what is kept, and not through what is reset. Raises ``ValueError`` for an unknown reset.
    Source: Park, slides, "Biological implications": "resetting oscillations should disrupt learning".
    Used in: long_memory.
    """

    def __init__(self, network: Recurrent, at: int, reset: str) -> None:
        super().__init__()
        if reset not in RESETS:
            raise ValueError(f"reset is {reset!r}; allowed: {', '.join(RESETS)}")
        self.network, self.at, self.reset = network, at, reset

    def forward(self, inputs: Float[Tensor, "trials steps K"]) -> Float[Tensor, "trials steps classes"]:
        """The logits of each step, in the precision of the parameters."""
        readout = self.network.readout
        before, after = inputs.tensor_split([self.at], 1)
        early, state = self.network.read(before)
        late, _ = self.network.core(after.transpose(0, 1).to(readout.weight), self.interrupted(state))
        return readout(torch.cat([early, late])).transpose(0, 1)

    def interrupted(self, state: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The state after the reset."""
        pairs = state.unflatten(-1, (-1, 2))
        r = pairs.norm(dim=-1, keepdim=True)
        if self.reset == "phases":
            pairs = torch.cat([r, torch.zeros_like(r)], -1)
        else:
            pairs = r.square().mean(-2, keepdim=True).sqrt() * pairs / r
        return pairs.flatten(-2)


@torch.no_grad()
def initialise_(
    core: nn.RNN | nn.GRU, structure: str, gain: float, input_scale: float, generator: torch.Generator
) -> nn.RNN | nn.GRU:
    """Initialise a recurrent layer in place, all but its recurrent weights in the same way, and return it.

    Recurrent weights are ``gain`` times

        "rotation"       2 x 2 rotations on the diagonal, angles uniform on (0, 2 pi): limit cycles for gains above 1
        "slow rotation"  the same, angles uniform on the authors' range (pi/21, pi/3.8)
        "orthogonal"     uniform (Haar) on the orthogonal matrices
        "identity"       the identity
        "glorot"         independent normal entries of variance 1/d

    Input weights are normal with standard deviation ``input_scale``; biases zero. In a GRU the recurrent weights are
    the candidate's, twice as large, and those of the gates are zero: a network that goes half of the tanh network's
    step, see ``limit_cycle_``. There a rotation of gain alpha by theta is a limit cycle only beyond
    alpha = sqrt(cos^2 theta + 3) - cos theta.

    Raises ``ValueError`` for an unknown structure, gains or scales that are not positive, more than one layer or
    direction, and what ``limit_cycle_`` refuses: odd sizes, with any structure, and a nonlinearity other than tanh.
    Source: the limit cycles: Park, slides, "Block diagonal initialization". Used in: long_memory.
    """
    if structure not in STRUCTURES:
        raise ValueError(f"structure is {structure!r}; allowed: {', '.join(STRUCTURES)}")
    for name, value in (("gain", gain), ("input_scale", input_scale)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}; allowed: positive numbers")
    directions = 2 if core.bidirectional else 1
    if core.num_layers > 1 or directions > 1:
        raise ValueError(f"core has {core.num_layers} layers and {directions} directions; allowed: one of each")
    limit_cycle_(core, generator, gain, AUTHORS_ANGLES if structure == "slow rotation" else (0.0, 2 * math.pi))
    d = core.hidden_size
    if "rotation" not in structure:
        gain = 2 * gain if isinstance(core, nn.GRU) else gain
        W = core.weight_hh_l0[-d:]
        W.zero_()
        if structure == "orthogonal":
            nn.init.orthogonal_(W, gain, generator=generator)
        elif structure == "identity":
            W.fill_diagonal_(gain)
        else:
            nn.init.normal_(W, std=gain / math.sqrt(d), generator=generator)
    nn.init.normal_(core.weight_ih_l0, std=input_scale, generator=generator)
    return core
