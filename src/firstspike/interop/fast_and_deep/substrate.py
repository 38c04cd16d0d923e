"""What their spike times came from, as a ``substrate`` section: the chip, steps of time, noise, rounded weights."""

import math
from dataclasses import dataclass, field
from typing import Any

from firstspike.interop.fast_and_deep.table import Remarks, Table

_NOISE = {
    "threshold_noise_fp_mean": "threshold_offset",
    "threshold_noise_fp_std": "threshold_spread",
    "threshold_noise_b2b_std": "threshold_batch_noise",
    "threshold_noise_s2s_std": "threshold_sample_noise",
    "jitter": "spike_jitter",
}
NOISE_KEYS = (*_NOISE, "clip_weights_max")
_NOT_RANDOM = ("threshold_offset", "weight_scale", "weight_max")


@dataclass
class Imperfections:
    """What their config says about noise and weights, layer by layer.

    Args:
        neurons: for each layer of neurons our names of its noise, and ``weight_max`` where it has one of its own.
        delays: for each delay our section, and the standard deviation of its jitter.
    """

    neurons: list[dict[str, float]] = field(default_factory=list)
    delays: list[tuple[dict[str, Any], float]] = field(default_factory=list)


def noise(params: Table, unit: float) -> dict[str, float]:
    """The noise of a layer of neurons; what is 0 is left out.

    Args:
        params: its neuron parameters.
        unit: what one unit of their threshold is in ours.

    Raises:
        ValueError: a value that is no number.
    """
    found = {}
    for theirs, ours in _NOISE.items():
        value = _given(params, theirs)
        if value:
            found[ours] = value if ours == "spike_jitter" else value * unit
    limit = _given(params, "clip_weights_max")
    if limit:
        found["weight_max"] = limit
    params.without_effect("threshold_noise_fp", "decay_syn", "decay_mem")
    return found


def runs_on_chip(params: dict[str, Any]) -> bool:
    """Whether their ``training_params`` ask for the chip."""
    return bool(params.get("use_hicannx")) or str(params.get("substrate") or "sim").startswith("hx")


def substrate(params: Table, found: Imperfections) -> tuple[dict[str, Any], list[str]]:
    """A ``substrate`` section, and why spike times of theirs may differ from ours by more than rounding.

    Delays whose jitter is not the substrate's get it in their own section.

    Args:
        params: their ``training_params``.
        found: the noise of the layers.

    Raises:
        ValueError: a value that is no number, or out of its range.
    """
    precision, limit = _given(params, "rounding_precision"), _given(params, "clip_weights_max", (None, False, True, 0))
    for key, value in (("rounding_precision", precision), ("clip_weights_max", limit)):
        if value is not None and value <= 0:
            raise ValueError(f"{params.place}.{key}: expected a number above 0, got {value}")
    kind = params.take("substrate", None)
    hicannx, stepped = params.take("use_hicannx", False), params.take("use_forward_integrator", False)
    if runs_on_chip(params.raw):
        name = f"substrate = {kind!r}" if kind and kind != "sim" else f"use_hicannx = {hicannx}"
        params.without_effect("resolution", "sim_time")
        return _chip(params, name, precision, limit), ["theirs ran on the chip"]
    if kind not in (None, False, "sim"):
        raise ValueError(f"{params.place}.substrate: {kind!r} has no counterpart here; known: sim, hx and hx_pynn")
    if stepped:
        return _stepped(params, found, precision, limit), ["theirs integrated in steps"]
    params.without_effect("resolution", "sim_time")
    section = _noisy(found, params.remarks)
    if precision:
        section["weight_scale"] = _whole(1 / precision)
    section |= _limit(found, limit, params)
    section |= _delay_jitter(found, params.remarks)
    random = section.keys() - set(_NOT_RANDOM) or any("jitter" in delay for delay, _ in found.delays)
    reasons = ["theirs drew noise"] if random else []
    if len({x.get("threshold_offset") for x in found.neurons}) > 1:
        reasons.append("theirs shifted thresholds layer by layer")
    return ({"kind": "noisy"} | section if section else {}), reasons


def _chip(params: Table, name: str, precision: float | None, limit: float | None) -> dict[str, Any]:
    """The chip; noise of the simulation does not matter there."""
    lacking = params.remarks.lacking
    lacking.append(
        f"{params.place}.{name}: the chip's own settings (hx_settings.yaml) and calibration are not taken over, see "
        "the substrate brainscales2; without a chip use --substrate exact or mock_bss2"
    )
    if precision:
        lacking.append(f"{params.place}.rounding_precision = {precision}: the chip rounds weights to 1 / weight_scale")
    if limit:
        lacking.append(f"{params.place}.clip_weights_max = {limit}: on the chip weights reach to 63 / weight_scale")
    return {"kind": "brainscales2"}


def _stepped(params: Table, found: Imperfections, precision: float | None, limit: float | None) -> dict[str, Any]:
    """A simulation in steps, which here has neither noise of neurons nor rounded weights."""
    lacking = params.remarks.lacking
    if precision:
        lacking.append(f"{params.place}.rounding_precision = {precision}: weights are not rounded with integration")
    if limit or any("weight_max" in layer for layer in found.neurons):
        lacking.append(f"{params.place}.clip_weights_max: weights are not clipped with integration in steps")
    _jitter_in_training(found, params.remarks)
    return {"kind": "integrator", "step": params.number("resolution"), "duration": params.number("sim_time")}


def _noisy(found: Imperfections, remarks: Remarks) -> dict[str, float]:
    """The noise of the neurons, which is the same for all layers here."""
    section: dict[str, float] = {}
    for name in _NOISE.values():
        values = [layer.get(name, 0.0) for layer in found.neurons]
        most = max(values, key=abs, default=0.0)
        if most:
            section[name] = most
        if len(set(values)) > 1:
            theirs = next(key for key, ours in _NOISE.items() if ours == name)
            remarks.lacking.append(f"{theirs} differs between layers ({values}); here all layers have {most}")
    return section


def _limit(found: Imperfections, common: float | None, params: Table) -> dict[str, float]:
    """The largest weight: of several bounds the largest, which leaves all weights as they are."""
    limits = [layer.get("weight_max", common) for layer in found.neurons]
    most = None if None in limits else max((x for x in limits if x is not None), default=None)
    if len(set(limits)) > 1:
        params.remarks.lacking.append(
            f"clip_weights_max differs between layers ({limits}); here all layers have {most or 'no bound'}"
        )
    return {} if most is None else {"weight_max": most}


def _delay_jitter(found: Imperfections, remarks: Remarks) -> dict[str, float]:
    """Jitter that all delays have is the substrate's."""
    values = {jitter for _, jitter in found.delays}
    if len(values) == 1 and values != {0.0}:
        return {"delay_jitter": values.pop()}
    _jitter_in_training(found, remarks)
    return {}


def _jitter_in_training(found: Imperfections, remarks: Remarks) -> None:
    """Jitter that each delay has for itself."""
    some = [(delay, jitter) for delay, jitter in found.delays if jitter]
    for delay, jitter in some:
        delay["jitter"] = jitter
    if some:
        remarks.lacking.append("jitter of delays: in training only, theirs has it in evaluation, too")


def _given(params: Table, key: str, nothing: tuple[Any, ...] = (None, False, 0)) -> float | None:
    """A number, None where there is nothing."""
    value = params.take(key, None)
    return None if any(value is x or (x is not True and value == x) for x in nothing) else params.number(key)


def _whole(value: float) -> float:
    """A number that rounding has taken off a whole one is that one."""
    return float(round(value)) if math.isclose(value, round(value), rel_tol=1e-9) else value
