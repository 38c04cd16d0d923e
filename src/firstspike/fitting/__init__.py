"""Fit the parameters of a neuron to recordings of it: spikes, voltages, or both."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from tqdm import tqdm

from firstspike.fitting.recording import Noise
from firstspike.fitting.recording import Recording as Recording
from firstspike.fitting.search import Scales, around, cost_of, searched, spread_of
from firstspike.neurons import Neuron, check_neuron
from firstspike.ranges import Seed, Size, checks_ranges

GAIN, REST = "gain", "rest"
_AT_BOUND = 12.0  # logits


@dataclass(frozen=True, eq=False)
class NeuronFit:
    """A neuron that was fitted. Printed, it is a table of values and standard errors.

    Args:
        neuron: the neuron with the values found, as numbers.
        values: what was found for each name.
        errors: standard errors, from the slopes of the residuals at the end (Gauss-Newton), ``inf`` for a value at one
            of its bounds. They hold if residuals are independent, and the neuron is of the kind that was recorded.
        at_spikes: root mean square of what is left at the spikes; NaN without any.
        of_voltage: and of the voltage.
        costs: mean squares of all starts that were followed to the end, the best first. If several end at the same,
            it is hardly one of many local minima.
    """

    neuron: Neuron
    values: dict[str, float]
    errors: dict[str, float]
    at_spikes: float
    of_voltage: float
    costs: tuple[float, ...]

    def __str__(self) -> str:
        width = max(map(len, self.values))
        return "\n".join(f"{name:{width}}  {x:.5g} +- {self.errors[name]:.2g}" for name, x in self.values.items())


@checks_ranges
def fit_neuron(
    neuron: Neuron,
    bounds: Mapping[str, tuple[float, float]],
    recordings: Recording | Sequence[Recording],
    *,
    noise: Noise = "membrane",
    starts: Size = 64,
    keep: Size = 8,
    steps: Size = 40,
    seed: Seed = 0,
    progress_bar: bool = False,
) -> NeuronFit:
    """The values of a neuron with which it does what was recorded::

        fit = fs.fit_neuron(
            fs.LIF(refractory=2.0, unit="ms"), {"tau_mem": (5, 50), "threshold": (5, 30)},
            fs.Recording(spikes, current=current))

    Many starts between the bounds are looked at, the best are followed by steps of Levenberg and Marquardt.

    Args:
        neuron: its kind, and all values that are known.
        bounds: a lower and an upper one for each value that is not. Names are the neuron's; of several values
            ``threshold_jump_0`` is the first. ``"gain"`` multiplies weights and currents, as the resistance of a
            ``LIF`` does, and ``"rest"`` adds to the membrane before it is compared with the voltage.
        recordings: one, or several of the same neuron, from rest each.
        noise: what differs from one recording to the next. ``"membrane"``: currents, so that each spike is compared
            with what follows from the recorded ones before it. ``"times"``: only when spikes were seen, so that in the
            end all spikes are compared with those of a neuron that goes on by itself.
        starts: how many points of a Sobol sequence are looked at.
        keep: how many of these are followed.
        steps: how many steps are made at most, and again once the noise of spikes and voltage is known.
        seed: of the sequence.
        progress_bar: whether to show one.

    Raises:
        ValueError: no bounds, or wrong ones, unknown names, or no start with which the neuron has spikes and membranes.
    """
    given = [recordings] if isinstance(recordings, Recording) else recordings
    if not isinstance(given, Sequence) or not given or not all(isinstance(x, Recording) for x in given):
        raise ValueError(f"recordings: expected an fs.Recording, or a list of them, got {recordings!r:.80}")
    check_neuron(neuron)
    if several := [name for name, x in neuron.named_values.items() if isinstance(x, Tensor) and x.numel() > 1]:
        raise ValueError(f"neuron: expected one value of each, got several of {', '.join(several)}")
    scales, free_running = Scales.of(bounds), False
    for ends in (scales.low, scales.high):
        named = zip(scales.names, ends.tolist(), strict=True)
        with_named(neuron, {name: x for name, x in named if name not in (GAIN, REST)})

    def both(free: Tensor) -> list[Tensor]:
        values = scales.values(free)
        gain, rest = (values.pop(name, torch.full_like(free[:, 0], x)) for name, x in ((GAIN, 1.0), (REST, 0.0)))
        one = with_named(neuron, values)
        found = [x.misses(one, gain, noise, free_running) for x in given]
        at_spikes, membranes = (torch.cat(x, dim=-1) for x in zip(*found, strict=True))
        return [at_spikes, membranes + rest.unsqueeze(-1) if membranes.numel() else membranes]

    intervals = [x.interval for x in given if len(x.spikes)]
    voltages = torch.cat([torch.empty(0), *(x.voltage[1] for x in given if x.voltage is not None)])
    size = sum(len(x.spikes) for x in given) + len(voltages)
    in_time = bool(intervals) and (neuron.equations is not None or noise == "times")
    units = [min(intervals) if in_time else 1.0, float(voltages.std()) if len(voltages) > 1 else 1.0]

    def left(free: Tensor) -> list[float]:
        return [float(x.square().mean().sqrt()) for x in both(free)]

    def misses(free: Tensor) -> Tensor:
        return torch.cat([x / unit for x, unit in zip(both(free), units, strict=True)], dim=-1)

    sobol = torch.quasirandom.SobolEngine(len(bounds), scramble=True, seed=seed)
    free = torch.logit(0.02 + 0.96 * sobol.draw(starts).double())
    with tqdm(total=2 * steps, disable=not progress_bar, desc="fit", leave=False) as bar:
        cost = torch.cat([cost_of(misses, some) for some in free.split(64)])
        if not bool(cost.isfinite().any()):
            misses(free[:1])  # which may say why
            raise ValueError(f"none of {starts} starts has a finite membrane: take other bounds, or more starts")
        free, cost = searched(misses, free[cost.argsort()[:keep]], steps, bar)
        best = free[cost.argsort()[:1]]
        free_running = noise == "times"
        units[:] = [max(x, 1e-9 * unit) if x == x else unit for x, unit in zip(left(best), units, strict=True)]
        if free_running:
            best = around(misses, best[0], starts, keep, seed)
        best, last = searched(misses, best, steps, bar)
    found = best[last.argmin()]
    values = {name: float(x[0]) for name, x in scales.values(found[None]).items()}
    with forward_ad.dual_level():
        moved = scales.values(forward_ad.make_dual(found[None], torch.ones_like(found[None])))
        by_free = torch.stack([forward_ad.unpack_dual(x).tangent[0] for x in moved.values()])
    deviations = torch.where(found.abs() < _AT_BOUND, by_free * spread_of(misses, found).diagonal().sqrt(), math.inf)
    errors = dict(zip(values, deviations.tolist(), strict=True))
    fitted = with_named(neuron, {name: x for name, x in values.items() if name not in (GAIN, REST)})
    at_spikes, of_voltage = left(found[None])
    return NeuronFit(fitted, values, errors, at_spikes, of_voltage, tuple((cost / size).sort().values.tolist()))


def with_named(neuron: Neuron, values: Mapping[str, Any]) -> Neuron:
    """A neuron with other values, by the names of ``Neuron.named_values``, such as ``threshold_jump_0``."""
    unknown = [name for name in values if name not in neuron.named_values]
    if unknown:
        raise ValueError(f"the neuron has {', '.join(neuron.named_values)}, got {', '.join(unknown)}")
    changed: dict[str, Any] = {name: x for name, x in values.items() if name in neuron.values}
    for name, old in neuron.values.items():
        if isinstance(old, tuple):
            changed[name] = tuple(values.get(f"{name}_{k}", x) for k, x in enumerate(old))
    return neuron.with_values(**changed)
