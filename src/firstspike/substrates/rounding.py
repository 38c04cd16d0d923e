"""Times of layers that a simulator has in whole steps only: refused or warned of, with a step that fits."""

import math
import warnings
from functools import reduce

import numpy as np

from firstspike.layers import SpikeTrains, SpikingRecurrent
from firstspike.layers.dense import DenseLayer
from firstspike.substrates.cells import array

_WHOLE, _FINEST = 1e-6, 1e-4  # largest difference by rounding, and the shortest step


def check_steps(title: str, step: float, precise: bool, layers: list[tuple[str, DenseLayer, float]]) -> None:
    """Refuse times of layers, given with names and the unit of a step, that are no whole steps.

    Delays that are learnt are only warned of, and so is all that a simulator rounds that is not ``precise``.
    """
    timed = []
    for place, layer, unit in layers:
        if isinstance(layer, SpikeTrains):
            least = 1 + (layer.neuron.values.get("reset", 0.0) is None)  # without a reset they count a step more
            least *= precise and layer.neuron.equations is None
            timed.append((place, "refractory", array(layer.neuron.refractory), unit, least))
        if isinstance(layer, SpikingRecurrent):
            name = "window" if layer.recurrent_delays is None else "recurrent_delay"
            timed.append((place, name, array(layer.delays_of_synapses), unit, 1))
    for place, name, times, unit, least in timed:
        one, steps = step * unit, times / unit / step
        away = np.abs(steps - np.maximum(np.round(steps), least))
        if (away <= _WHOLE * steps).all():
            continue
        worst, kind = times.flat[away.argmax()], "refractory times" if name == "refractory" else "delays"
        shared = reduce(_common, (x for _, _, every, u, _ in timed for x in np.unique(every / u)), 0.0)
        fits = f"a substrate.step of {shared / math.ceil(shared / step - _WHOLE):.9g}" if shared > _FINEST else ""
        text = f"{place}: {title} has {kind} of whole steps of {one:g}"
        if (precise and name != "recurrent_delay") or steps.min() < least * (1 - _WHOLE):
            owner, other = "neuron" if name == "refractory" else "layer", f", or {fits}" if fits and worst else ""
            raise ValueError(f"{text}, at least {least}, got a {name} of {worst:g}: set the {owner}'s {name}{other}")
        finer = f"{fits} does not" if fits else "smaller steps do less"
        warnings.warn(f"{text}, and rounds a {name} of {worst:g} by {away.max() * one:.2g}: {finer}", stacklevel=2)


def _common(one: float, other: float) -> float:
    """The largest number of which both are multiples, up to rounding."""
    return one if other < _WHOLE else _common(other, abs(one - round(one / other) * other))
