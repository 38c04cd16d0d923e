"""The forward pass from tensors to the kernel, and the inputs of both passes: order of arrival, units, coefficients.

Nothing in the passes reads a value of a tensor, so that none waits for the GPU.
"""

import math
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from firstspike.spiketime import reference
from firstspike.spiketime.contract import Arguments, Constants, Held, Result, forward_in_parts, of_several
from firstspike.spiketime.response import kappa, leakless
from firstspike.spiketime.triton.scan import forward_kernel
from firstspike.spiketime.units import unit_of_weights

TILE = 64  # neurons of a program
_STEPS = 60  # of Newton's method. About 6 are needed, and many only next to a tangent
_MEMORY = 1 << 28  # bytes in which the inputs of neurons with synaptic delays are sorted
_COPIES = 12  # numbers for each synapse and sample meanwhile: arrivals, weights, 64-bit places, those of torch.sort


class Events(NamedTuple):
    """Inputs of the neurons of a sample, or with delays of each neuron, in order of arrival."""

    arrival: Float[Tensor, "E B N *W"]
    place: Int[Tensor, "E B N"]
    """Whose time it is. The state at the start and the end of a window follow after all inputs."""
    number: Int[Tensor, "E B *O"]
    """How many arrive."""


class Problem:
    """Sizes, options, and values derived from the neurons' parameters."""

    def __init__(self, given: Arguments) -> None:
        self.given, self.again = given, given.max_spikes > 0
        self.ensemble, self.batch, self.inputs, self.outputs = given.sizes
        self.unit = unit_of_weights(given.weight, given.threshold)
        self.theta = (given.threshold / self.unit).contiguous()
        self.constants = _of_networks(given.constants)
        self.rates = _rates(self.constants, given.threshold)
        self.tiles = -(-self.outputs // TILE)
        dtype = given.times.dtype
        self.options: dict[str, Any] = {
            "OWN": self.rates.shape[-1] > 1,
            "TERMS": 9 if dtype == torch.float32 else 17,
            "TILE": TILE,
            "enable_fp_fusion": True,
            "num_warps": 1,  # a program asks all of its lanes once a block, which costs nothing within a warp
        }
        if torch.version.hip is None:
            self.options["maxnreg"] = 255  # NVIDIA's assembler would take 128, and keep the rest in memory

    def padded(self, x: Tensor) -> Tensor:
        """``(E, O, I)`` as rows of whole tiles, with one of zeros for events that are no inputs: ``(E, I, W)``."""
        return pad(x.transpose(-1, -2), (0, self.tiles * TILE - self.outputs, 0, int(self.again))).contiguous()

    @cached_property
    def weight(self) -> Float[Tensor, "E I W"]:
        """The weights in units of the neurons."""
        return self.padded(self.given.weight / self.unit.unsqueeze(-1))

    def order(self, events: Events) -> Int[Tensor, "E B N"]:
        """Where the weights of each event begin."""
        row = events.place
        if self.again:
            row = (row // max(1, self.given.times.shape[-1])).clamp(max=self.inputs).int()
        return row * (self.tiles * TILE)

    def coefficients(self, arrival: Float[Tensor, "E B N"], backward: bool = False) -> Float[Tensor, "E B N 3"]:
        """Factors of the interval after each input: decay of membrane and current, or of c and e, and kappa."""
        if self.options["OWN"] or self.given.delay is not None:
            return self.rates
        later = torch.cat([arrival[..., 1:], torch.full_like(arrival[..., :1], math.inf)], dim=-1)
        gaps = torch.where(later.isfinite(), later - arrival, 0.0)
        one, other, _ = self.rates.unsqueeze(-1).unbind(dim=1)
        if backward:
            one, other = (other, one) if self.again else (torch.minimum(one, other), torch.maximum(one, other))
        response = kappa(gaps, *(x.unsqueeze(-1) if isinstance(x, Tensor) else x for x in self.constants))
        return torch.stack([torch.exp(-gaps * one), torch.exp(-gaps * other), response], dim=-1)

    def new(self, *shape: int) -> Tensor:
        """Room for numbers of each sample and neuron."""
        return self.given.times.new_empty((self.ensemble, self.batch, self.outputs, *shape))


def events_of(given: Arguments) -> Events:
    """Times in order of arrival, whose they are, and how many arrive."""
    if not given.max_spikes:
        arrival, place = given.times.sort(dim=-1)
        return Events(arrival, place.int(), arrival.isfinite().sum(dim=-1).int())
    times = given.times.flatten(2)
    times = torch.where((times >= given.start) & (times < given.until), times, math.inf)
    ends = [given.start] * (given.state is not None) + [given.until] * (given.until < math.inf)
    arrival, place = torch.cat([times, *(torch.full_like(times[..., :1], end) for end in ends)], dim=-1).sort(dim=-1)
    return Events(arrival, place, arrival.isfinite().sum(dim=-1).int())


def _of_networks(constants: Constants) -> Constants:
    """Tensors ``(E, 1)`` where the neurons of each network share them, as memory layout tells; else unchanged."""
    taus = [tau for tau in constants if isinstance(tau, Tensor)]
    if any(tau.shape[-1] > 1 and tau.stride(-1) != 0 for tau in taus):
        return constants
    return Constants(*(tau[:, :1] if isinstance(tau, Tensor) else tau for tau in constants))


def _rates(constants: Constants, like: Float[Tensor, "E O"]) -> Float[Tensor, "E 3 R"]:
    """``1/tau_mem``, ``1/tau_syn``, and the time of kappa's maximum in units of ``tau_syn``. R is 1 or O."""
    mem, syn = torch.broadcast_tensors(
        *(1 / tau if isinstance(tau, Tensor) else like.new_full((len(like), 1), 1 / tau) for tau in constants)
    )
    ratio = (mem / syn).double() - 1
    top = torch.where(ratio == 0, 1.0, torch.log1p(ratio) / torch.where(ratio == 0, 1.0, ratio))
    return torch.stack([mem, syn, torch.where(mem > 0, top, 1.0).to(like.dtype)], dim=1).contiguous()


class Scanned(NamedTuple):
    """The results of the forward kernel."""

    spikes: Float[Tensor, "E B O S"]
    currents: Float[Tensor, "E B O S"]
    held: Float[Tensor, "3 E B O"]
    released: Float[Tensor, "E B O S+1"]


@of_several
def forward(given: Arguments) -> Result:
    """Spike times. See ``contract``."""
    if is_left_out(given):
        return reference.forward(given)
    if not given.max_spikes and given.delay is not None:
        return _forward_delayed(given)
    problem, events = Problem(given), events_of(given)
    found = scanned(problem, events, problem.weight, given.observed)
    if not given.max_spikes:
        return Result(found.spikes.squeeze(-1), (*events, found.currents.squeeze(-1)))
    overflows, state = found.held[2].isposinf(), None
    if given.until < math.inf:
        voltage, current = (x * problem.unit.unsqueeze(1) for x in found.held[:2])
        left = torch.where(overflows, 0.0, (found.held[2] - given.until).clamp(min=0))
        state = Held(voltage, current, left)
    return Result(found.spikes, (*events, found.currents, found.released), overflows, state)


def saves(given: Arguments) -> tuple[Tensor, ...]:
    """Tensors like those that ``forward`` saves of first spikes."""
    currents = given.times.new_empty((*given.times.shape[:-1], given.weight.shape[-2]))
    return (*events_of(given), currents) if given.delay is None else (currents,)


def is_left_out(given: Arguments) -> bool:
    """Problems left to ``reference``: trains of neurons with delays, and problems of size 0."""
    return 0 in (*given.times.shape, given.weight.shape[1]) or (given.max_spikes > 0 and given.delay is not None)


@partial(
    forward_in_parts, samples=lambda given: _MEMORY // (_COPIES * given.weight.numel() * given.times.element_size())
)
def _forward_delayed(given: Arguments) -> Result:
    """First spikes of neurons that each have an order of arrival of their own."""
    assert given.delay is not None
    problem = Problem(given)
    arrival, order = (given.times[:, :, None] + given.delay[:, None]).sort(dim=-1)
    weight = (given.weight / problem.unit.unsqueeze(-1))[:, None].expand(arrival.shape).gather(-1, order)
    count = arrival.isfinite().sum(dim=-1).int()
    found = scanned(problem, Events(problem.padded(arrival), count, count), problem.padded(weight))
    return Result(found.spikes.squeeze(-1), (found.currents.squeeze(-1),))


def scanned(problem: Problem, events: Events, weight: Tensor, observed: Tensor | None = None) -> Scanned:
    """The results of the forward kernel, or those at observed spikes."""
    given, most = problem.given, max(1, problem.given.max_spikes)
    delayed = given.delay is not None
    arrival, count = (x.contiguous() for x in (events.arrival, events.number))
    spikes = problem.new(most).fill_(math.inf) if observed is None else observed.contiguous()
    currents = torch.zeros_like(spikes)
    held, released = spikes.new_empty(0), spikes.new_empty(0)
    if problem.again:
        rest = torch.zeros_like(spikes[..., 0])
        state = [rest, rest, torch.full_like(rest, -math.inf)]
        if given.state is not None:
            voltage, current, left = given.state
            unit = problem.unit.unsqueeze(1)
            state = [voltage / unit, current / unit, given.start + left]
        held, released = torch.stack(state), problem.new(most + 1).zero_()
    real = given.times.dtype
    forward_kernel[(problem.ensemble * problem.batch, problem.tiles)](
        *(arrival, problem.order(events), count, problem.coefficients(arrival), weight),
        *(problem.rates, problem.theta, spikes, currents, held, released, *resets(problem)),
        *(problem.batch, weight.shape[-2], arrival.shape[2], problem.outputs, weight.shape[-1]),
        SPIKES=most,
        AGAIN=problem.again,
        OBSERVED=observed is not None,
        FINITE=problem.again and given.until < math.inf,
        LEAKY=not leakless(given.constants.tau_mem),
        DELAYED=delayed,
        STEPS=_STEPS,
        EPS=2 * torch.finfo(real).eps,
        WHOLE=tl.int32 if real == torch.float32 else tl.int64,
        **problem.options,
    )
    return Scanned(spikes, currents, held, released)


def resets(problem: Problem) -> tuple[Tensor, Tensor]:
    """Refractory times, and resets in units, of neurons that spike again."""
    given = problem.given
    if not problem.again:
        return problem.theta, problem.theta
    return given.refractory.contiguous(), (given.reset / problem.unit).contiguous()
