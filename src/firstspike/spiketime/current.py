"""Currents that are injected into neurons, as an amplifier or a simulator does: steps, which add to the ``bias``.

A step is an event like the spike of an input. It reaches a receptor of its own whose state does not decay, so that all
that is exact for inputs is exact for currents, too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from firstspike.neurons import Neuron
from firstspike.ranges import Finite, Positive, checks_ranges
from firstspike.spiketime.parameters import Receptor, parameters_of, receptor_of
from firstspike.spiketime.values import check_tensor, values_of


@dataclass(frozen=True, eq=False)
class Current:
    """A current that changes in steps: ``values[..., k]`` from ``times[k]`` until ``times[k + 1]``, 0 before the first.

    The last value stays. It adds to the ``bias`` of neurons and is in its unit: of ``LIF`` neurons the membrane where
    it alone comes to rest, of ``AdEx`` neurons pA. So it is PyNN's ``StepCurrentSource(times, amplitudes)``, NEST's
    ``step_current_generator`` and, with ``sampled``, Brian2's ``TimedArray(values, dt)``. Layers for trains take it::

        current = fs.Current.sampled(1.2 + 0.5 * torch.randn(1000), dt=0.1)
        trains = fs.SpikeTrains(2, 1, max_spikes=50, neuron=fs.LIF(tau_mem=10.0), until=100.0)(times, current=current)

    Spikes are exact, and have gradients with respect to the values.

    Args:
        times: when it changes, sorted, in the unit of all times.
        values: ``(steps,)`` for all neurons, ``(neurons, steps)`` for each, or ``(samples, neurons, steps)``, with a 1
            where all neurons of a sample get the same one. A tensor for each sample costs a call for each.

    Raises:
        ValueError: times that are not finite and sorted, values of other shapes or that are not finite.
    """

    times: Float[Tensor, " steps"]
    values: Float[Tensor, "*each steps"]

    def __post_init__(self) -> None:
        for name, x in (("times", self.times), ("values", self.values)):
            check_tensor(name, x)
            wrong = int((~values_of(x).isfinite()).sum())
            if wrong:
                raise ValueError(f"{name} of a current must be finite, got {wrong} NaN or inf; cut or fill them")
        if self.times.ndim != 1 or not 1 <= self.values.ndim <= 3 or self.values.shape[-1:] != self.times.shape:
            raise ValueError(
                "a current needs times (steps,) and values (steps,), (neurons, steps) or (samples, neurons, steps), "
                f"got times {tuple(self.times.shape)} and values {tuple(self.values.shape)}"
            )
        if bool((values_of(self.times).diff() < 0).any()):
            raise ValueError(
                "times of a current must be sorted, got some that are before the one before them; write "
                "order = times.argsort() and fs.Current(times[order], values[..., order])"
            )

    @classmethod
    @checks_ranges
    def sampled(cls, values: Float[Tensor, "*each steps"], dt: Positive, start: Finite = 0.0) -> "Current":
        """Samples at intervals of ``dt``, each of which holds until the next."""
        check_tensor("values", values)
        steps = torch.arange(values.shape[-1:].numel(), dtype=torch.float64, device=values.device)
        return cls((start + dt * steps).to(torch.promote_types(values.dtype, torch.float32)), values)

    def at(self, times: Float[Tensor, " points"]) -> Float[Tensor, "*each points"]:
        """The values at some times, after a step that is at one of them."""
        place = torch.searchsorted(self.times, times.to(self.times), right=True)
        return pad(self.values, (1, 0))[..., place]

    def add_to(
        self, times: Tensor, weight: Tensor, neuron: Neuron, delay: Tensor | None, receptor: Receptor,
        start: float | None = None, own: int = 0,
    ) -> tuple[Tensor, Tensor, Neuron, Tensor | None, Tensor]:  # fmt: skip
        """Trains, weights, neurons, delays and receptors with the steps as inputs, of values that samples share.

        Steps before the ``start``, by default when the neurons begin, count as there. The last sources, as many as
        ``own``, are the neurons themselves.
        """
        parameters_of(neuron, weight, receptor)  # for its checks
        driven, gain = neuron.driven()
        if start is None:
            start = 0.0 if neuron.begins else -math.inf
        times = times if times.shape[-1] else pad(times, (0, 1), value=math.inf)  # room for a step
        outputs, inputs, copies = weight.shape[0], weight.shape[1] - own, times.shape[-1]
        if not isinstance(receptor, str):
            reached = receptor_of(neuron, receptor, weight)
            assert reached is not None
        elif own:
            raise ValueError('recurrent neurons with a current need numbers of receptors, got "sign"')
        else:
            excites = weight.detach() > 0
            below = torch.where(excites, 0.0, weight)
            weight = torch.cat([torch.where(excites, weight, 0.0), -below if neuron.conducts else below], dim=1)
            times, delay = torch.cat([times, times], dim=-2), None if delay is None else torch.cat([delay, delay], 1)
            reached = torch.arange(2, device=weight.device).repeat_interleave(inputs)
            inputs = 2 * inputs
        if not own and copies > 1:  # every spike is an input, as every step is
            times = times.flatten(-2).unsqueeze(-1)
            weight, reached = (x.repeat_interleave(copies, dim=-1) for x in (weight, reached))
            delay = None if delay is None else delay.repeat_interleave(copies, dim=-1)
            inputs, copies = inputs * copies, 1
        values = self.values.to(weight)  # first, as differences of whole numbers may have no sign
        jumps = values.diff(dim=-1, prepend=torch.zeros_like(values[..., :1]))
        if jumps.ndim > 1 and jumps.shape[0] not in (1, outputs):
            raise ValueError(f"a current for each neuron needs values ({outputs}, steps), got {tuple(jumps.shape)}")
        if isinstance(gain, Tensor):
            gain = gain.to(weight).reshape(-1, 1)
        jumps = (jumps * gain).expand(outputs, -1)
        steps = pad(self.times.to(weight).clamp(min=start).unsqueeze(-1), (0, copies - 1), value=math.inf)
        steps = steps.expand(*times.shape[:-2], -1, -1)
        last = reached.new_full((len(self.times),), len(driven.receptors) - 1)

        def between(x: Tensor, of_steps: Tensor, dim: int = -1) -> Tensor:
            """Before the neurons themselves."""
            size = min(inputs, x.shape[dim])
            return torch.cat([x.narrow(dim, 0, size), of_steps, x.narrow(dim, size, x.shape[dim] - size)], dim)

        delay = None if delay is None else between(delay, torch.zeros_like(jumps))
        return between(times, steps, -2), between(weight, jumps), driven, delay, between(reached, last)


def _around_current(states: Tensor, driven: Neuron) -> tuple[Tensor, Tensor]:
    """States beside the membrane, before and from the place where a driven neuron has that of the current."""
    place = driven.receptors[-1] - (driven.equations is not None)
    return states[..., :place], states[..., place:]


def with_current(states: Tensor, driven: Neuron) -> Tensor:
    """The states beside the membrane that a driven neuron starts with, before its current."""
    before, after = _around_current(states, driven)
    return torch.cat([before, states.new_zeros(*states.shape[:-1], 1), after], dim=-1)


def without_current(states: Tensor, driven: Neuron) -> Tensor:
    """The states beside the membrane that users see: all but that of the current."""
    before, after = _around_current(states, driven)
    return torch.cat([before, after[..., 1:]], dim=-1)


def injected(run: Callable[..., Any], current: Current, times: Tensor, *given: Any, **options: Any) -> Any:
    """What an operator gives with a current, sample by sample if each has its own."""
    if not isinstance(current, Current):
        raise ValueError(f"current must be a firstspike.Current, got {type(current).__name__}; see fs.Current.sampled")
    if current.values.ndim < 3:
        return run(current, times, *given, **options)
    samples = times.shape[0] if times.ndim == 3 else None
    if samples is None or current.values.shape[0] != samples:
        shapes = f"times {tuple(times.shape)} and values {tuple(current.values.shape)}"
        raise ValueError(f"a current for each sample needs times (samples, inputs, spikes), got {shapes}")
    found = []
    for k in range(samples):
        some = slice(k, k + 1)
        own = {name: _part(x, some) if name in ("state", "observed") else x for name, x in options.items()}
        found.append(run(Current(current.times, current.values[k]), times[some], *given, **own))
    return _joined(found)


def _part(x: Any, some: slice) -> Any:
    if isinstance(x, Tensor):
        return x[some]
    return type(x)(*(_part(y, some) for y in x)) if isinstance(x, tuple) else x


def _joined(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)
    if not isinstance(first, tuple):
        return first
    found = map(_joined, map(list, zip(*parts, strict=True)))
    return type(first)(*found) if hasattr(first, "_fields") else tuple(found)
