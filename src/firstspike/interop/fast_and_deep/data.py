"""Their data sets, as sections of ours and what has to stand before the first layer to get the same inputs."""

from dataclasses import dataclass, field
from typing import Any

from firstspike.interop.fast_and_deep.table import Table

_IMAGES = {"mnist": ("mnist", 28), "16x16_mnist": ("mnist_16x16", 16)}  # kind and side here


@dataclass
class Inputs:
    """What the network is fed with.

    Args:
        section: our ``data`` section.
        features: inputs that it gives.
        copies: how often theirs repeats all of them, one set of copies behind the other.
        bias: spike times of further inputs that their data set adds.
    """

    section: dict[str, Any]
    features: int
    copies: int = 1
    bias: list[float] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Number of their inputs."""
        return self.features * self.copies + len(self.bias)


def data(params: Table, n_inputs: int, on_chip: bool) -> Inputs:
    """A ``data`` section and how its inputs become theirs.

    Args:
        params: their data set's name and parameters.
        n_inputs: number of inputs that their network has.
        on_chip: whether they ran it on the chip, for which some data sets repeat the inputs.

    Raises:
        ValueError: a data set that this program does not have.
    """
    name = params.take("name", None)
    params.without_effect("which", "n_inputs")
    if name == "yin_yang":
        section = _yin_yang(params)
        copies = 5 if on_chip and n_inputs == 4 else max(1, n_inputs // 4)
        inputs = Inputs(section, 4, copies)
    elif name == "bars":
        inputs = _bars(params, n_inputs, on_chip)
    elif name == "xor":
        section = {"kind": "xor", "train": 4, "validation": 4, "test": 4, "early": 0.15, "late": 2.0}
        inputs = Inputs(section, 2, bias=[0.15, 2.0])  # their two constant inputs
    elif name == "pattern":
        inputs = _pattern(params, n_inputs)
    elif isinstance(name, str) and name in _IMAGES:
        inputs = _images(params, *_IMAGES[name])
    else:
        raise ValueError(
            f"{params.place or 'dataset'}: {name!r} has no counterpart here; data sets that have one: yin_yang, bars, "
            f"xor, pattern, {', '.join(_IMAGES)}"
        )
    params.close()
    if inputs.size != n_inputs and not (on_chip and inputs.size == 5 * n_inputs):
        raise ValueError(f"network_layout.n_inputs: {name} has {inputs.size} inputs, got {n_inputs}")
    return inputs


def _yin_yang(params: Table) -> dict[str, Any]:
    params.without_effect("multiply_input_layer", "size", "seed")  # set by their program itself
    return {
        "kind": "yin_yang",
        "train": 5000,
        "validation": 1000,
        "test": 1000,
        "early": params.number("early", 0.15),
        "late": params.number("late", 2.0),
        "r_small": params.number("r_small", 0.1),
        "r_big": params.number("r_big", 0.5),
    }


def _bars(params: Table, n_inputs: int, on_chip: bool) -> Inputs:
    params.without_effect("multiply_input_layer")
    params.remarks.lacking.append(
        "bars: their bar spikes at 0.5 on a background at 0.05; here a bar spikes first, at 0.05, and the background "
        "at 0.5; the 30 samples of each split are drawn at random here"
    )
    older = params.place == "dataset"  # today's program does not repeat the pixels for the chip
    copies = 5 if on_chip and older and n_inputs == 9 else max(1, n_inputs // 9)
    section = {"kind": "bars", "train": 30, "validation": 30, "test": 30, "size": 3, "multiply": copies}
    return Inputs(section | {"early": 0.05, "late": 0.5}, 9 * copies)


def _pattern(params: Table, n_inputs: int) -> Inputs:
    patterns, jitters, samples = [], set(), 0
    for entry in params.tables("classes"):
        kind = entry.take("name", None)
        if kind != "pattern":
            raise ValueError(f"{entry.place}: a class of kind {kind!r} has no counterpart here, only pattern")
        patterns.append(entry.numbers("pattern", n_inputs))
        jitters.add(entry.number("std_dev", 0.0))
        samples += entry.integer("n_samples", 1)
        entry.close()
    if len(jitters) > 1:
        params.remarks.lacking.append(
            f"{params.place}.classes: std_dev differs between classes; here all get {max(jitters)}"
        )
    section = {"kind": "pattern", "train": samples, "validation": samples, "test": samples, "patterns": patterns}
    return Inputs(section | {"jitter": max(jitters, default=0.0)}, n_inputs)


def _images(params: Table, kind: str, side: int) -> Inputs:
    scale = "" if side == 16 else ", and a white pixel spikes at early, theirs a 256th of the window later"
    params.remarks.lacking.append(
        f"{kind}: their validation images are the last 10000 of 60000, here they are drawn by a seed{scale}"
    )
    # what their program sets itself; in the small images black pixels do not spike
    section = {"kind": kind, "early": 0.15, "late": 2.0, "invert": True, "silent_background": side == 16}
    return Inputs(section, side**2)
