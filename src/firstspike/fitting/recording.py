"""What a neuron should do with its inputs, and how far from it another one is.

The neuron is reset at the recorded spikes, whatever its own would be, so that an error does not carry on. What should
vanish is then smooth: of a linear neuron how far its membrane is from the threshold at each of the spikes, of one from
equations how far its next spike is from the recorded one, and of both how far the membrane is from the recorded one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers.voltages import after_spikes, excess_of, states_at
from firstspike.layers.windows import columns_within
from firstspike.neurons import Neuron
from firstspike.spiketime import TrainState, spike_trains, spike_window
from firstspike.spiketime.current import Current
from firstspike.spiketime.parameters import Receptor, starting_state

Noise = Literal["membrane", "times"]
_EARLY = 1e-9  # how long before a spike its membrane is looked at, in the unit of time
_SOON = 1e-6  # after a refractory time
_STEP = 1e-4  # how much earlier still, in intervals, for a slope


@dataclass(frozen=True, eq=False)
class Recording:
    """What a neuron was given and what it did, from time 0 on, in units of the neuron that is fitted.

    Args:
        spikes: its spikes, sorted.
        current: what was injected.
        times: trains of its inputs, ``inf`` after the last spike of each.
        weight: their weights, or a function of the neuron that gives them, ``(starts, inputs)``, from values of shape
            ``(starts,)``: of synapses whose current jumps by ``w``, ``lambda neuron: neuron.tau_syn[:, None] * w``.
        receptor: their receptors, as in ``spike_trains``.
        voltage: times, and the membrane at each: some hundred points away from spikes, whose shape no neuron here has.

    Raises:
        ValueError: numbers that are not finite or not sorted, other shapes, inputs without weights, or nothing to fit.
    """

    spikes: Float[Tensor, " spikes"]
    current: Current | None = None
    times: Float[Tensor, "inputs input_spikes"] = field(default_factory=lambda: torch.full((1, 1), math.inf))
    weight: Float[Tensor, " inputs"] | Callable[[Any], Tensor] = field(default_factory=lambda: torch.zeros(1))
    receptor: Receptor = None
    voltage: tuple[Float[Tensor, " points"], Float[Tensor, " points"]] | None = None

    def __post_init__(self) -> None:
        at, voltage = self.voltage or (self.spikes[:0],) * 2
        for name, x in zip(("spikes", "times of a voltage", "a voltage"), (self.spikes, at, voltage), strict=True):
            if not isinstance(x, Tensor) or x.ndim != 1 or not bool(x.isfinite().all()):
                raise ValueError(f"a recording needs {name} as finite numbers of shape (n,), got {x!r:.80}")
        given = self.current
        if given is not None and not (isinstance(given, Current) and math.prod(given.values.shape[:-1]) == 1):
            raise ValueError(f"a recording needs a current of one neuron, fs.Current(times, values), got {given!r:.80}")
        if bool((self.spikes.diff(prepend=self.spikes.new_zeros(1)) <= 0).any()) or bool((at.diff() <= 0).any()):
            raise ValueError("spikes and times of a recording must be sorted, each only once, and spikes after 0")
        weights = self.times.shape[:1] if callable(self.weight) else self.weight.shape
        if at.shape != voltage.shape or self.times.ndim != 2 or weights != self.times.shape[:1]:
            raise ValueError(
                "a recording needs times (inputs, spikes), weight (inputs,), and as many times of a voltage as values, "
                f"got {[tuple(x) for x in (self.times.shape, weights, at.shape, voltage.shape)]}"
            )
        if not len(self.spikes) + len(at):
            raise ValueError("a recording needs spikes or a voltage, got neither")

    @property
    def interval(self) -> float:
        """The median interval between spikes."""
        return float(self.spikes.diff(prepend=self.spikes.new_zeros(1)).median()) if len(self.spikes) else math.inf

    def misses(self, neuron: Neuron, gain: Float[Tensor, " starts"], noise: Noise, free: bool) -> tuple[Tensor, Tensor]:
        """What should be 0 of a neuron for each start: ``(starts, spikes)``, and membranes ``(starts, points)``.

        If it is ``free``, its own spikes reset it, otherwise the recorded ones.
        """
        weight = self.weight(neuron) if callable(self.weight) else self.weight.detach()
        weight, receptor, current = weight.double() * gain.unsqueeze(-1), self.receptor, self.current
        if receptor is None and len(neuron.receptors) > 1 and not bool(self.times.isfinite().any()):
            receptor = [0] * len(self.times)
        if current is not None:
            current = Current(current.times.double(), current.values.detach().double() * gain.unsqueeze(-1))
        at, voltage = self.voltage or (self.spikes[:0],) * 2
        given = neuron, self.times.double().sort(dim=-1).values, weight, {"receptor": receptor, "current": current}
        spikes = self.spikes.double()
        if free and not len(at):
            return _free(*given, spikes, self.interval), weight[:, :0]
        if neuron.equations is None:
            at_spikes, membrane = _linear(*given, spikes, at.double(), self.interval if noise == "times" else 0.0)
        else:
            at_spikes, membrane = _step_by_step(*given, spikes, at.double(), self.interval)
        if free and len(spikes):
            at_spikes = _free(*given, spikes, self.interval)
        return at_spikes, membrane - voltage.double()


def _linear(
    neuron: Neuron, times: Tensor, weight: Tensor, options: Any, spikes: Tensor, at: Tensor, interval: float
) -> tuple[Tensor, Tensor]:
    """How far above the threshold a membrane is at each recorded spike, in units of it, or in time; and at points.

    In time, from an ``interval`` above 0 on, that is divided by its slope, which the recorded spikes follow.
    """
    before, step = spikes - _EARLY, _STEP * interval
    given = {"observed": spikes.expand(len(weight), -1)} | options

    def excess(voltage: Tensor, others: Tensor) -> Tensor:
        return excess_of(neuron, voltage[..., : len(spikes)], others[..., : len(spikes), :])

    found = states_at(torch.cat([before, at]), times, weight, neuron, **given)
    misses = excess(*found)
    if neuron.values["reset"] is None:  # above the threshold, it spikes as soon as it may
        held = torch.as_tensor(neuron.values["refractory"], dtype=spikes.dtype).reshape(-1, 1)
        soon = spikes.diff(prepend=spikes.new_full((1,), -math.inf)) < held + _SOON
        misses = torch.where(soon & (misses > 0), 0.0, misses)
    if step:
        with torch.no_grad():
            slope = (misses - excess(*states_at(before - step, times, weight, neuron, **given))).abs() / step
        misses = misses / torch.maximum(slope, 0.1 * slope.median(dim=-1, keepdim=True).values)
    return misses, found[0][..., len(spikes) :]


def _step_by_step(
    neuron: Any, times: Tensor, weight: Tensor, options: Any, spikes: Tensor, at: Tensor, ahead: float
) -> tuple[Tensor, Tensor]:
    """How far the spike after each recorded one is from the next recorded one, at most ``ahead``; and membranes."""
    voltage, others, left = (x.squeeze(0) for x in starting_state(neuron, 1, weight))
    state, every = TrainState(voltage, others, left, 0.0), torch.ones_like(voltage, dtype=torch.bool)
    own, misses, membranes = torch.full_like(voltage, math.inf), [], []
    observed, points, current, waiting = set(spikes.tolist()), set(at.tolist()), options["current"], neuron.waiting()

    def run(one: Neuron, end: float) -> Any:
        trains = columns_within(times, state.time, end) if times.shape[-1] > 1 else times
        given = options | {"current": None if current is None else within(current, state.time, end)}
        return spike_window(trains, weight, one, max_spikes=1, overflow="drop", state=state, until=end, **given)

    for end in sorted(observed | points):
        if end > state.time:
            found = run(waiting, end)
            own, state = torch.minimum(own, found.trains[..., 0]), found.state
        if end in points:
            named = dict(zip(neuron.equations.states, (state.voltage, *state.current.unbind(-1)), strict=True))
            membranes.append(neuron.membrane_of(named, weight))
        if end in observed:
            following = torch.where(own.isfinite(), own, run(neuron, end + ahead).trains[..., 0])
            misses.append(torch.where(following.isfinite(), following - end, ahead))
            state, own = after_spikes(neuron, state, every), torch.full_like(own, math.inf)
    none = weight.new_empty(len(weight), 0)
    return torch.stack(misses, dim=-1) if misses else none, torch.stack(membranes, dim=-1) if membranes else none


def _free(neuron: Neuron, times: Tensor, weight: Tensor, options: Any, spikes: Tensor, interval: float) -> Tensor:
    """How far each of a neuron's own spikes is from the recorded one of its number, at most two intervals."""
    given = options | {"until": float(spikes[-1] + interval / 2), "overflow": "drop"}
    apart = spike_trains(times, weight, neuron, max_spikes=len(spikes), **given) - spikes
    return torch.where(apart.abs() < 2 * interval, apart, 2 * interval)


def within(current: Current, start: float, end: float) -> Current:
    """The steps that matter from a start to an end."""
    first = max(0, int(torch.searchsorted(current.times, start, right=True)) - 1)
    last = max(first + 1, int(torch.searchsorted(current.times, end, right=True)))
    return Current(current.times[first:last], current.values[..., first:last])
