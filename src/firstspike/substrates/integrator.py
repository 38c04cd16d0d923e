"""A simulation in time steps, like that of a clock-driven simulator."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers import LIFLinear, LIFRecurrent, LIFSpikeTrains
from firstspike.layers.lif import DenseLIFLayer, each_spike
from firstspike.ranges import Positive, checks_ranges
from firstspike.spiketime.reference.response import kappa
from firstspike.substrates.base import LayerByLayer
from firstspike.substrates.loops import all_delays, looped

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
    neurons = (LIFLinear, LIFSpikeTrains, LIFRecurrent)

    step: Positive = 0.01
    duration: Positive = 20.0

    def __post_init__(self) -> None:
        if not 1 <= self.duration / self.step <= 10**6:
            raise ValueError(f"duration must be 1 to a million steps, got {self.duration} in steps of {self.step}")

    def spikes(self, index: int, layer: DenseLIFLayer, times: Float[Tensor, "batch inputs"]) -> Tensor:
        delay, inputs = layer.delay_in_pass(), layer.seen(times).double()
        if isinstance(layer, LIFRecurrent):
            weight = torch.cat([layer.weight, layer.recurrent_weight], dim=1)
            (delay, shift), reach = all_delays(layer, delay, layer.own_delay), float(layer.own_delay.max())
            most = math.ceil(layer.window / 2 / self.step) + 1

            def fire(trains: Tensor, end: float, state: Any) -> Any:
                found, state = self._simulated(layer, most, end, *each_spike(trains, weight, delay), state)
                return found, found + shift, state

            until = min(self.duration, layer.duration)
            found = looped(inputs, layer.out_features, until, layer.window, reach + self.step, fire)
            return layer.fitted(found).to(times)
        if isinstance(layer, LIFSpikeTrains):
            each = each_spike(inputs, layer.weight, delay)
            return self._simulated(layer, layer.max_spikes, self.duration, *each)[0].to(times)
        return self._simulated(layer, 1, self.duration, inputs, layer.weight, delay)[0].squeeze(-1).to(times)

    def _simulated(
        self,
        layer: DenseLIFLayer,
        most: int,
        until: float,
        times: Float[Tensor, "batch inputs"],
        weight: Float[Tensor, "outputs inputs"],
        delay: Float[Tensor, "outputs inputs"] | None,
        state: tuple[Tensor, Tensor, Tensor, int] | None = None,
    ) -> tuple[Float[Tensor, "batch outputs spikes"], tuple[Tensor, Tensor, Tensor, int]]:
        """Spikes on the grid after a state, at most so many of each neuron, and the state then."""
        neuron = layer.neuron
        trains = layer if isinstance(layer, LIFSpikeTrains) else None
        after = (0.0, math.inf) if trains is None else (neuron.reset, neuron.refractory)
        reset, refractory, threshold = (torch.as_tensor(x).to(times) for x in (*after, neuron.threshold))
        arrival = times if delay is None else times.unsqueeze(-2) + delay
        tau_mem, tau_syn = neuron.tau_mem, neuron.tau_syn
        if isinstance(tau_mem, Tensor) or isinstance(tau_syn, Tensor):  # each neuron sees an input in its own way
            arrival = arrival if arrival.ndim == 3 else arrival.unsqueeze(-2).expand(-1, layer.out_features, -1)
        column = [tau.unsqueeze(-1) if isinstance(tau, Tensor) and tau.ndim else tau for tau in (tau_mem, tau_syn)]

        at = torch.ceil(arrival / self.step - 1e-6)  # the point at or after each arrival
        rest = torch.where(torch.isfinite(arrival), at * self.step - arrival, 0.0).clamp(min=0)
        current_gain, voltage_gain = torch.exp(-rest / column[1]), kappa(rest, *column)
        last = math.floor(until / self.step + 1e-9)
        arriving = {int(x) for x in at[at <= last].unique().tolist()}

        length = torch.full((), self.step, dtype=times.dtype, device=times.device)
        decay_mem, decay_syn = (torch.exp(-length / tau) for tau in (tau_mem, tau_syn))
        rise = kappa(length, tau_mem, tau_syn)
        if state is None:
            rested = times.new_zeros(len(times), layer.out_features)
            state = rested, rested, torch.full_like(rested, -math.inf), min(arriving, default=0) - 1
        voltage, current, free, before = state  # free: end of the refractory time
        weight = weight.to(times)
        count = torch.zeros_like(voltage, dtype=torch.int64)
        found = voltage.new_full((*voltage.shape, most), math.inf)
        final = max(arriving, default=0)
        for point in range(before + 1, last + 1):
            voltage = voltage * decay_mem + current * rise
            current = current * decay_syn
            if point in arriving:
                now = at == point
                current = current + _into(now * current_gain, weight)
                voltage = voltage + _into(now * voltage_gain, weight)
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
            if point >= final and point % _LOOK == 0 and not isinstance(layer, LIFRecurrent):
                rising = current / tau_syn > voltage / tau_mem
                if not bool((rising & (count < most)).any()):
                    break
        return found, (voltage, current, free, last)


def _into(
    inputs: Float[Tensor, "batch *out inputs"], weight: Float[Tensor, "out inputs"]
) -> Float[Tensor, "batch out"]:
    """Inputs of a step, the same for all neurons or not, through the weights."""
    return inputs @ weight.T if inputs.ndim == 2 else (inputs * weight).sum(dim=-1)
