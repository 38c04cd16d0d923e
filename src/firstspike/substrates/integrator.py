"""A simulation in time steps, like that of a clock-driven simulator."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from firstspike.layers import SpikeTrains, SpikingLinear, SpikingRecurrent
from firstspike.layers.dense import DenseLayer, each_spike
from firstspike.layers.neurons import Arriving
from firstspike.ranges import Positive, checks_ranges
from firstspike.spiketime.reference.response import kappa
from firstspike.substrates.base import LayerByLayer

_LOOK = 32  # steps between two looks whether anything can still happen


@checks_ranges
@dataclass(eq=False)
class Integrator(LayerByLayer):
    """Membranes at the points of a time grid; a neuron spikes at the first one at which it has reached its threshold.

    The update from point to point is the exact solution, with inputs at their own times, so the membrane at a point is
    correct up to rounding. A spike is up to one step late, and one that begins and ends between two points is missed.
    Neurons of spike trains are reset at that point.

    Args:
        step: distance of two points of the grid, in the unit of the times.
        duration: simulated time, in the unit of the times, from 0 or from an earlier first input; later spikes are
            missed.

    Raises:
        ValueError: a step or duration that is not positive and finite, or fewer than one step.
    """

    kind = "integrator"
    neurons = (SpikingLinear, SpikeTrains, SpikingRecurrent)

    step: Positive = 0.01
    duration: Positive = 20.0

    def __post_init__(self) -> None:
        if not 1 <= self.duration / self.step <= 10**6:
            raise ValueError(f"duration must be 1 to a million steps, got {self.duration} in steps of {self.step}")

    def spikes(self, index: int, layer: DenseLayer, times: Float[Tensor, "batch inputs"]) -> Tensor:
        delay = layer.delay_in_pass()
        if isinstance(layer, SpikeTrains):
            return self._simulated(layer, *each_spike(Arriving(layer.seen(times), layer.weight, delay, math.inf))[:3])
        return self._simulated(layer, times, layer.weight, delay).squeeze(-1)

    def _simulated(
        self,
        layer: DenseLayer,
        times: Float[Tensor, "batch inputs"],
        weight: Float[Tensor, "outputs inputs"],
        delay: Float[Tensor, "outputs inputs"] | None,
    ) -> Float[Tensor, "batch outputs spikes"]:
        """Spikes on the grid: the first one of each neuron, or the train of neurons that are reset."""
        neuron = layer.neuron
        trains = layer if isinstance(layer, SpikeTrains) else None
        most, *after = (1, 0.0, math.inf) if trains is None else (trains.max_spikes, neuron.reset, neuron.refractory)
        reset, refractory, threshold = (torch.as_tensor(x).to(times) for x in (*after, neuron.threshold))
        arrival = times if delay is None else times.unsqueeze(-2) + delay
        tau_mem, tau_syn = neuron.tau_mem, neuron.tau_syn
        if isinstance(tau_mem, Tensor) or isinstance(tau_syn, Tensor):  # each neuron sees an input in its own way
            arrival = arrival if arrival.ndim == 3 else arrival.unsqueeze(-2).expand(-1, layer.out_features, -1)
        column = [tau.unsqueeze(-1) if isinstance(tau, Tensor) and tau.ndim else tau for tau in (tau_mem, tau_syn)]

        at = torch.ceil(arrival / self.step)  # the point at or after each arrival
        rest = torch.where(torch.isfinite(arrival), at * self.step - arrival, 0.0).clamp(min=0)
        current_gain, voltage_gain = torch.exp(-rest / column[1]), kappa(rest, *column)
        feedback = _Feedback(layer, self.step, times, *column) if isinstance(layer, SpikingRecurrent) else None
        duration = min(self.duration, layer.duration) if isinstance(layer, SpikingRecurrent) else self.duration
        last = math.floor(duration / self.step + 1e-9)
        arriving = {int(x) for x in at[at <= last].unique().tolist()}

        length = torch.full((), self.step, dtype=times.dtype, device=times.device)
        decay_mem, decay_syn = (torch.exp(-length / tau) for tau in (tau_mem, tau_syn))
        rise = kappa(length, tau_mem, tau_syn)
        voltage = times.new_zeros(len(times), layer.out_features)
        current, count = torch.zeros_like(voltage), torch.zeros_like(voltage, dtype=torch.int64)
        found = voltage.new_full((*voltage.shape, most), math.inf)
        free = torch.full_like(voltage, -math.inf)  # end of the refractory time
        final = max(arriving, default=0)
        for point in range(min(arriving, default=0), last + 1):
            voltage = voltage * decay_mem + current * rise
            current = current * decay_syn
            if point in arriving:
                now = at == point
                current = current + _into(now * current_gain, weight)
                voltage = voltage + _into(now * voltage_gain, weight)
            if feedback is not None:
                of_voltage, of_current = feedback.arriving(point)
                voltage, current = voltage + of_voltage, current + of_current
            time = point * self.step
            voltage = torch.where(free > time + 1e-4 * self.step, reset, voltage)
            reached = voltage >= threshold
            if trains is not None:
                trains.check_room(reached & (count == most))
            voltage = torch.where(reached, reset, voltage)
            free = torch.where(reached, time + refractory, free)
            spiking = reached & (count < most)
            found[spiking] = found[spiking].scatter(-1, count[spiking].unsqueeze(-1), time)
            count += spiking
            if feedback is not None:
                feedback.send(point, reached)
            if feedback is None and point >= final and point % _LOOK == 0:
                rising = current / tau_syn > voltage / tau_mem
                if not bool((rising & (count < most)).any()):
                    break
        return found


class _Feedback:
    """What is on its way between the neurons of a recurrent layer, for each of the next points."""

    def __init__(
        self, layer: SpikingRecurrent, step: float, times: Tensor, tau_mem: float | Tensor, tau_syn: float | Tensor
    ) -> None:
        delay = layer.own_delay.to(times)
        self.points = torch.ceil(delay / step - 1e-9).clamp(min=1)
        rest = (self.points * step - delay).clamp(min=0)
        self.points = self.points.long()
        self.of_voltage = layer.recurrent_weight * kappa(rest, tau_mem, tau_syn)
        self.of_current = layer.recurrent_weight * torch.exp(-rest / tau_syn)
        self.pending = times.new_zeros(2, int(self.points.max()) + 1, len(times), layer.out_features)

    def arriving(self, point: int) -> Float[Tensor, "2 batch outputs"]:
        """Inputs to membranes and currents at a point."""
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
            for pending, weight in zip(self.pending, (self.of_voltage, self.of_current), strict=True):
                pending.index_put_((at, sample[:, None], every), weight.T[neuron], accumulate=True)


def _into(
    inputs: Float[Tensor, "batch *out inputs"], weight: Float[Tensor, "out inputs"]
) -> Float[Tensor, "batch out"]:
    """Inputs of a step, the same for all neurons or not, through the weights."""
    return inputs @ weight.T if inputs.ndim == 2 else (inputs * weight).sum(dim=-1)
