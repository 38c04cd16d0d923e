"""Times of layers that a simulator has in whole steps only: refused or warned of, with a step that fits."""

import math
import warnings

import numpy as np
from jaxtyping import Float

from firstspike.layers import SpikeTrains, SpikingRecurrent
from firstspike.layers.dense import DenseLayer
from firstspike.substrates.cells import array

_WHOLE = 1e-6  # how far steps are off by rounding, relative to their number
_FINEST, _MANY = 1e-4, 50


def check_steps(title: str, step: float, precise: bool, layers: list[tuple[str, DenseLayer, float]]) -> None:
    """Raise a ValueError, or warn where a simulator rounds anyway, for times of layers that are no whole steps.

    Layers come with their names and the unit of a ``step``. Recurrent delays that are learnt are only warned of.
    """
    timed: list[tuple[str, str, Float[np.ndarray, " times"], float, int]] = []
    for place, layer, unit in layers:
        if isinstance(layer, SpikeTrains):
            without = layer.neuron.values.get("reset", 0.0) is None  # such neurons count a step more
            least = (1 + without) * (precise and layer.neuron.equations is None)
            timed.append((place, "refractory", np.unique(array(layer.neuron.refractory)), unit, least))
        if isinstance(layer, SpikingRecurrent):
            timed.append((place, "window", np.array([layer.window]), unit, 1))
            if layer.recurrent_delays is not None:
                timed.append((place, "recurrent_delay", np.unique(array(layer.own_delay)), unit, 1))
    for place, name, times, unit, least in timed:
        one, steps = step * unit, times / unit / step
        away = np.abs(steps - np.maximum(np.round(steps), least))
        if (away <= _WHOLE * steps).all():
            continue
        worst, kind = times[away.argmax()], "refractory times" if name == "refractory" else "delays"
        fits = _fitting(np.unique(np.concatenate([x / u for _, _, x, u, _ in timed])), step)
        whole = f"whole steps, at least {least}" if precise else "at least one step"
        if (precise and name != "recurrent_delay") or steps.min() < least * (1 - _WHOLE):
            raise ValueError(
                f"{place}: {title} has {kind} of {whole}, and a step here is {one:g}; got a {name} of {worst:g}. Set "
                f"the layer's {name}" + (f", or set substrate.step to {fits:.9g}" if fits and worst else "")
            )
        remedy = f"set substrate.step to {fits:.9g}" if fits else "a smaller substrate.step rounds less"
        warnings.warn(
            f"{place}: {title} rounds {kind} to whole steps of {one:g}, here a {name} of {worst:g} by "
            f"{away.max() * one:.2g}; {remedy}",
            stacklevel=2,
        )


def _fitting(times: Float[np.ndarray, " times"], step: float) -> float | None:
    """The longest step, up to this one, of which all are multiples; None if they are too many."""
    times = times[times > 0]
    if not 0 < len(times) <= _MANY:
        return None
    steps = times[0] / np.arange(math.ceil(times[0] / step - _WHOLE), times[0] / _FINEST + 1)
    fits = np.isclose(times[:, None] / steps, np.round(times[:, None] / steps), rtol=_WHOLE, atol=0).all(axis=0)
    return float(steps[fits][0]) if fits.any() else None
