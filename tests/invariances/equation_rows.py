"""Neurons from equations: bent, with adaptation, of which all parameters have units."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from linear_rows import add_trains, window, window_in_pieces
from operator_rows import OPERATOR, OUT_TRAINS
from problems import LEVEL, POINT, Problem, Quantity, Setting, Source
from rows import Row

from firstspike.neurons import Neuron

TAU = Quantity(time=1)
PARAMETERS = {
    "tau_m": (TAU, 0.9), "tau_s": (TAU, 0.6), "tau_w": (TAU, 2.0), "v_th": (LEVEL, 0.9), "v_r": (LEVEL, -0.2),
    "delta": (LEVEL, 0.4), "b": (LEVEL, 0.2),
}  # fmt: skip
ONE_BACKEND = "only the CPU kernels compute it"


def neuron_of(values: Mapping[str, Any]) -> Neuron:
    """The neuron of a problem."""
    return Neuron(
        "dv/dt = (delta * tanh(v/delta) * exp(-(v/v_th)**2) - v - w + i) / tau_m; dw/dt = (0.3*v - w) / tau_w; "
        "di/dt = -i / tau_s",
        threshold="v + 0.1*delta*sin(w/delta) > v_th",
        reset="v = v_r; w += b",
        receptors=["i"],
        refractory=values["refractory"],
        **{name: values[name] for name in PARAMETERS},
    )


def _make(setting: Setting, member: int = 0) -> Problem:
    source, size = Source(setting, member), setting
    add_trains(source, 12)
    for name, (unit, start) in PARAMETERS.items():
        source.parameter(name, unit, start, size.neurons)
    source.add("receptor", Quantity("i"), torch.zeros(size.inputs, dtype=torch.int64))
    pairs = (size.samples, size.neurons)
    level, levels = Quantity("bo", weight=1), Quantity("bom", weight=1)
    source.add("voltage", level, source.uniform(*pairs, low=-0.5, high=0.6), learnt=True)
    source.add("current", levels, 0.5 * source.normal(*pairs, 2), learnt=True)
    source.add("left", Quantity("bo", time=1), source.uniform(*pairs, low=-0.3, high=0.3).clamp(min=0))
    source.add("start", POINT, 0.25)
    source.add("until", POINT, 3.0 + size.gap)
    state = {"voltage": level, "current": levels, "left": Quantity("bo", time=1)}
    return source.problem(partial(window, neuron_of), trains=OUT_TRAINS, overflows=Quantity("bo"), **state)


EQUATION_ROWS = [
    Row("spike_window, equations", _make, (), OPERATOR | {"backends": ONE_BACKEND}, ("cpu",), empty=True,
        observed="trains", pieces=partial(window_in_pieces, neuron_of), unchecked=("start",)),
]  # fmt: skip
