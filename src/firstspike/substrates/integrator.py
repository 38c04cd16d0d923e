"""A simulation in time steps, like that of a clock-driven simulator."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from firstspike.layers import SpikeTrains, SpikingLinear, SpikingRecurrent
from firstspike.layers.dense import DenseLayer
from firstspike.layers.synapses import Arriving, each_spike
from firstspike.neurons.base import ROLES, Component
from firstspike.ranges import Positive, checks_ranges
from firstspike.spiketime.flow import Flow
from firstspike.spiketime.response import kappa, reaching
from firstspike.substrates.base import LayerByLayer

_LOOK = 32  # steps between two looks whether anything can still happen


@checks_ranges
@dataclass(eq=False)
class Integrator(LayerByLayer):
    """Membranes at the points of a time grid. A neuron spikes at the first one at which it has reached its threshold.

    The update from point to point is the exact solution, with inputs at their own times, so the membrane at a point is
    correct up to rounding. A spike is up to one step late, and one that begins and ends between two points is missed.
    Neurons of spike trains are reset, and adapt, at that point.

    Args:
        step: distance of two points of the grid, in the unit of the times.
        duration: simulated time, in the unit of the times, from 0 or from an earlier first input. Later spikes are
            missed.

    Raises:
        ValueError: a step or duration that is not positive and finite, or fewer than one step.
    """

    kind = "integrator"
    unusual = ("tau_syn", "tau_rise", "bias", "reset", "adaptation_tau", "adaptation_rise", "threshold_tau")
    neurons = (SpikingLinear, SpikeTrains, SpikingRecurrent)

    step: Positive = 0.01
    duration: Positive = 20.0

    def __post_init__(self) -> None:
        if not 1 <= self.duration / self.step <= 10**6:
            raise ValueError(f"duration must be 1 to a million steps, got {self.duration} in steps of {self.step}")

    def spikes(self, index: int, layer: DenseLayer, times: Float[Tensor, "batch inputs"]) -> Tensor:
        receptor = layer.reached
        if isinstance(receptor, Tensor):
            receptor = receptor[: layer.in_features]  # the others are of recurrent synapses
        given = Arriving(layer.seen(times), layer.synapses, layer.delay_in_pass(), math.inf, receptor)
        if isinstance(layer, SpikeTrains):
            return self._simulated(layer, each_spike(given))
        return self._simulated(layer, given).squeeze(-1)

    def _simulated(self, layer: DenseLayer, given: Arriving) -> Float[Tensor, "batch outputs spikes"]:
        """Spikes on the grid: the first one of each neuron, or the train of neurons that spike again."""
        neuron, times, delay = layer.neuron, given.times, given.delay
        flow = _Flow(neuron, times)
        trains = layer if isinstance(layer, SpikeTrains) else None
        most, resets, after = 1, 0.0, math.inf
        if trains is not None:
            most, resets, after = trains.max_spikes, neuron.reset, neuron.refractory
        refractory, threshold = (torch.as_tensor(x).to(times) for x in (after, neuron.threshold))
        reset = None if resets is None else torch.as_tensor(resets).to(times)
        arrival = times if delay is None else times.unsqueeze(-2) + delay
        if flow.differs:  # each neuron sees an input in its own way
            arrival = arrival if arrival.ndim == 3 else arrival.unsqueeze(-2).expand(-1, layer.out_features, -1)
        if flow.biased:
            arrival = arrival.masked_fill(arrival < 0, math.inf)

        at = torch.ceil(arrival / self.step)  # the point at or after each arrival
        rest = torch.where(torch.isfinite(arrival), at * self.step - arrival, 0.0).clamp(min=0)
        gains = [
            (place, gain, part)
            for start, part in flow.parts(given.weight, given.receptor)
            for place, gain in flow.response(rest, start).items()
        ]
        feedback = _Feedback(layer, flow, self.step, times) if isinstance(layer, SpikingRecurrent) else None
        duration = min(self.duration, layer.duration) if isinstance(layer, SpikingRecurrent) else self.duration
        last = math.floor(duration / self.step + 1e-9)
        arriving = {int(x) for x in at[at <= last].unique().tolist()} | ({0} if flow.biased else set())

        state = [times.new_zeros(len(times), layer.out_features) for _ in range(flow.size - 1)]
        count, none = torch.zeros_like(state[0], dtype=torch.int64), torch.zeros_like(times[:1, :1])
        found = times.new_full((*count.shape, most), math.inf)
        free = torch.full_like(state[0], -math.inf)  # end of the refractory time
        first, final, move = min(arriving, default=0), max(arriving, default=0), flow.over(self.step, times)
        for point in range(first, last + 1):
            if point > first:
                before = [*state, none + 1]
                state = [sum((part * before[k] for k, part in row), none) for row in move]
            if point in arriving:
                now = at == point
                for place, gain, weight in gains:
                    inputs = now * gain  # the same for all neurons or not
                    summed = inputs @ weight.T if inputs.ndim == 2 else (inputs * weight).sum(dim=-1)
                    state[place] = state[place] + summed
            if feedback is not None:
                state = [part + more for part, more in zip(state, feedback.arriving(point), strict=True)]
            time = point * self.step
            held = free > time + 1e-4 * self.step
            if reset is not None:
                state[0] = torch.where(held, reset, state[0])
            reached = (flow.above(state) >= threshold) & ~held
            if trains is not None:
                trains.check_room(reached & (count == most))
                for place, jump in flow.jumps:
                    state[place] = state[place] + reached * jump
            if reset is not None:
                state[0] = torch.where(reached, reset, state[0])
            free = torch.where(reached, time + refractory, free)
            spiking = reached & (count < most)
            found[spiking] = found[spiking].scatter(-1, count[spiking].unsqueeze(-1), time)
            count += spiking
            if feedback is not None:
                feedback.send(point, reached)
            looks = feedback is None and point >= final and point % _LOOK == 0
            if looks and not bool((flow.may_rise(state) & (count < most)).any()):
                break
        return found


class _Flow:
    """The evolution of a layer's neurons between events. Their state is membrane, components, and the number 1."""

    def __init__(self, neuron: Any, like: Tensor) -> None:
        self.plain = not neuron.components
        self.components = neuron.components or (Component("synapse", neuron.tau_syn),)
        self.starts = [place + 1 for place in neuron.receptors or (0,)]
        self.biased = neuron.begins
        self.size = len(self.components) + 2

        def number(x: float | Tensor) -> Tensor:
            return torch.as_tensor(x).detach().to(like.device, torch.float64)

        self.mem, self.taus = neuron.tau_mem, [component.tau for component in self.components]
        mem, bias, *taus = torch.broadcast_tensors(*map(number, (neuron.tau_mem, neuron.bias, *self.taus)))
        kinds = tuple(component.kind for component in self.components)
        rates, one = Flow(kinds, mem, taus, bias).rates, torch.eye(self.size, dtype=mem.dtype).tolist()
        columns = [torch.stack(rates([torch.full_like(mem, x) for x in row]), -1) for row in one]
        self.matrix, self.differs = torch.stack(columns, -1), bool(mem.ndim)
        self.jumps = [
            (k, number(component.jump).to(like))
            for k, component in enumerate(self.components, 1)
            if ROLES[component.kind].own
        ]

    def over(self, step: float, like: Tensor) -> list[list[tuple[int, Tensor]]]:
        """The matrix of a step: each part of the state as a sum of parts."""
        matrix = torch.matrix_exp(self.matrix * step).to(like)
        rows = [[(place, matrix[..., row, place]) for place in range(self.size)] for row in range(self.size - 1)]
        return [[(place, part) for place, part in row if bool(part.any())] for row in rows]

    def above(self, state: list[Tensor]) -> Float[Tensor, "batch outputs"]:
        """The membrane, seen from its threshold."""
        raises = (state[k] for k, component in enumerate(self.components, 1) if not ROLES[component.kind].sign)
        return sum((-part for part in raises), state[0])

    def may_rise(self, state: list[Tensor]) -> Bool[Tensor, "batch outputs"]:
        """Whether the membrane may rise without further inputs: of plain neurons while it does."""
        if not self.plain:
            return torch.ones_like(state[0], dtype=torch.bool)
        return state[1] / self.taus[0] > state[0] / self.mem

    def parts(self, weight: Tensor, receptor: Tensor | str | None) -> list[tuple[int, Tensor]]:
        """The weights by the part of the state that they add to."""
        if len(self.starts) == 1:
            return [(self.starts[0], weight)]
        numbers = receptor if isinstance(receptor, Tensor) else None
        return [(start, reaching(weight, numbers, k)) for k, start in enumerate(self.starts)]

    def response(self, rest: Tensor, start: int) -> dict[int, Tensor]:
        """The effect of an input on the parts of a state, after a time for each neuron and input, or each input."""
        if ROLES[self.components[start - 1].kind].feeds:
            matrix = self.matrix.unsqueeze(-3) * rest.double()[..., None, None]
            column = torch.matrix_exp(matrix)[..., start].to(rest)
            return {place: column[..., place] for place in (0, start, start + 1)}
        taus = self.mem, self.taus[start - 1]
        mem, tau = (x.unsqueeze(-1) if isinstance(x, Tensor) and x.ndim else x for x in taus)
        return {0: kappa(rest, mem, tau), start: torch.exp(-rest / tau)}


class _Feedback:
    """Spikes on their way between the neurons of a recurrent layer, for each of the next points."""

    def __init__(self, layer: SpikingRecurrent, flow: _Flow, step: float, times: Tensor) -> None:
        delay = layer.own_delay.to(times)
        self.points = torch.ceil(delay / step - 1e-9).clamp(min=1)
        rest = (self.points * step - delay).clamp(min=0)
        self.points = self.points.long()
        self.kicks = times.new_zeros(flow.size - 1, *delay.shape)
        receptor = layer.reached
        if isinstance(receptor, Tensor):
            receptor = receptor[-layer.out_features :]
        for start, weight in flow.parts(layer.recurrent_synapses, receptor):
            for place, gain in flow.response(rest, start).items():
                self.kicks[place] += weight * gain
        self.pending = times.new_zeros(len(self.kicks), int(self.points.max()) + 1, len(times), layer.out_features)

    def arriving(self, point: int) -> Float[Tensor, "parts batch outputs"]:
        """Inputs to membranes and components at a point."""
        now = self.pending[:, point % self.pending.shape[1]]
        found = now.clone()
        now.zero_()
        return found

    def send(self, point: int, spiking: Bool[Tensor, "batch outputs"]) -> None:
        """Spikes of a point, to all neurons."""
        sample, neuron = spiking.nonzero(as_tuple=True)
        if len(sample):
            at = (point + self.points.T[neuron]) % self.pending.shape[1]
            every = torch.arange(spiking.shape[1], device=spiking.device)
            for pending, kick in zip(self.pending, self.kicks, strict=True):
                pending.index_put_((at, sample[:, None], every), kick.T[neuron], accumulate=True)
