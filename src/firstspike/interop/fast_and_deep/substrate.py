"""What the original's spike times come from, as a ``substrate`` section: noise, rounding, time steps, the chip."""

import math
from typing import Any

from firstspike.interop.fast_and_deep.table import Table

_NOISE = {
    "threshold_noise_fp_mean": "threshold_offset",
    "threshold_noise_fp_std": "threshold_spread",
    "threshold_noise_b2b_std": "threshold_batch_noise",
    "threshold_noise_s2s_std": "threshold_sample_noise",
    "jitter": "spike_jitter",
}
_DETERMINISTIC = {"threshold_offset", "weight_scale", "weight_max"}


def noise(params: Table, unit: float) -> dict[str, float]:
    """The noise of a layer by our names, without those that are 0; ``unit`` is one of the original's threshold."""
    found = {}
    for key, name in _NOISE.items():
        if value := params.optional(key):
            found[name] = value if name == "spike_jitter" else value * unit
    params.skip("threshold_noise_fp", "decay_syn", "decay_mem")
    return found


def runs_on_chip(params: dict[str, Any]) -> bool:
    """Whether ``training_params`` ask for the chip."""
    return bool(params.get("use_hicannx")) or str(params.get("substrate") or "sim").startswith("hx")


def substrate(params: Table, neurons: list[dict[str, float]], jitter: list[float]) -> tuple[dict[str, Any], list[str]]:
    """A ``substrate`` section, and why the original's spike times may differ from ours by more than rounding.

    From ``training_params``, the result of ``noise`` for each layer of neurons, and the jitter of each layer of delays.
    """
    precision, limit = (params.optional(key) or None for key in ("rounding_precision", "clip_weights_max"))
    for key, value in (("rounding_precision", precision), ("clip_weights_max", limit)):
        if value is not None and value <= 0:
            raise ValueError(f"{params.place}.{key}: expected a number above 0, got {value}")
    kind, hicannx = params.take("substrate", None), params.take("use_hicannx", False)
    in_steps = params.take("use_forward_integrator", False)
    if runs_on_chip(params.raw):
        name = f"substrate = {kind!r}" if kind and kind != "sim" else f"use_hicannx = {hicannx}"
        params.note(
            name,
            ": the chip's own settings (hx_settings.yaml) and calibration are not imported, see the substrate "
            "brainscales2; without a chip use --substrate exact or mock_bss2",
        )
        if precision:
            params.note("rounding_precision", f" = {precision}: the chip rounds weights to 1 / weight_scale")
        if limit:
            params.note("clip_weights_max", f" = {limit}: on the chip weights reach to 63 / weight_scale")
        params.skip("resolution", "sim_time")
        return {"kind": "brainscales2"}, ["the original ran on the chip"]
    if kind not in (None, False, "sim"):
        raise ValueError(f"{params.place}.substrate: {kind!r} has no counterpart here; known: sim, hx, hx_pynn")
    if in_steps:
        if precision:
            params.note("rounding_precision", f" = {precision}: weights are not rounded with integration in steps")
        if limit:
            params.note("clip_weights_max", ": weights are not clipped with integration in steps")
        if any(jitter):
            params.no_counterpart.append("jitter of delays: there is none with integration in steps")
        section = {"kind": "integrator", "step": params.number("resolution"), "duration": params.number("sim_time")}
        return section, ["the original integrated in steps"]
    params.skip("resolution", "sim_time")
    noisy: dict[str, float] = {}  # one set of numbers for all layers: of several the largest
    each = {name: (key, [layer.get(name, 0.0) for layer in neurons]) for key, name in _NOISE.items()}
    for name, (key, values) in (each | {"delay_jitter": ("jitter of delays", jitter)}).items():
        if most := max(values, key=abs, default=0.0):
            noisy[name] = most
        params.note_differing(key, values, most)
    noisy |= {"weight_max": limit} if limit else {}
    noisy |= {"weight_scale": _whole(1 / precision)} if precision else {}
    reasons = ["the original drew noise"] if noisy.keys() - _DETERMINISTIC else []
    if len({layer.get("threshold_offset") for layer in neurons}) > 1:
        reasons.append("the original shifted thresholds layer by layer")
    return ({"kind": "noisy"} | noisy if noisy else {}), reasons


def _whole(value: float) -> float:
    """An integer that rounding has moved, as that integer."""
    return float(round(value)) if math.isclose(value, round(value), rel_tol=1e-9) else value
