"""The original's data sets, losses, training parameters and noise, as sections of our config."""

import math
from dataclasses import dataclass, field
from typing import Any

from firstspike.interop.fast_and_deep.table import Settings

_IMAGES = {"mnist": ("mnist", 28), "16x16_mnist": ("mnist_16x16", 16)}  # our name and the side in pixels
# how often something is printed or written, and in which portions networks are evaluated
_WITHOUT_EFFECT = ("batch_size_eval", "enforce_cpu", "print_step_percent", "steps", "decay_syn", "decay_mem")
_NOISE = {
    "threshold_noise_fp_mean": "threshold_offset",
    "threshold_noise_fp_std": "threshold_spread",
    "threshold_noise_b2b_std": "threshold_batch_noise",
    "threshold_noise_s2s_std": "threshold_sample_noise",
    "jitter": "spike_jitter",
}
_DETERMINISTIC = {"threshold_offset", "weight_scale", "weight_max"}


@dataclass
class Inputs:
    """Our ``data`` section with its number of features, and how they become the original's inputs."""

    section: dict[str, Any]
    features: int
    copies: int = 1  # of all of them, block after block
    bias: list[float] = field(default_factory=list)  # times of further inputs, which always spike

    @property
    def size(self) -> int:
        """The original's number of inputs."""
        return self.features * self.copies + len(self.bias)


def data(params: Settings, n_inputs: int, on_chip: bool) -> Inputs:
    """The data set for a network with ``n_inputs`` inputs. On the chip the original repeats those of some."""
    name = params.choice("name", ("yin_yang", "xor", "single_in_single_out", *_IMAGES))
    params.skip("which", "n_inputs")
    if name == "yin_yang":
        params.skip("multiply_input_layer", "size", "seed")  # set by the program
        section = {"kind": "yin_yang", "train": 5000, "validation": 1000, "test": 1000}
        defaults = {"early": 0.15, "late": 2.0, "r_small": 0.1, "r_big": 0.5}
        section |= {key: params.number(key, default) for key, default in defaults.items()}
        inputs = Inputs(section, 4, 5 if on_chip and n_inputs == 4 else max(1, n_inputs // 4))
    elif name == "xor":
        section = {"kind": "xor", "train": 4, "validation": 4, "test": 4, "early": 0.15, "late": 2.0}
        inputs = Inputs(section, 2, bias=[0.15, 2.0])  # the original's data set has two constant inputs
    elif name == "single_in_single_out":
        # one class of one jittered spike: the network learns the target time of an ``MSE`` loss
        own = params.table("input_params", {})  # the original's file nests its parameters, its program reads them flat
        read = own if own.raw else params
        mean, jitter = read.number("input_mean", 1.0), read.number("input_std_dev", 0.001)
        sizes = dict.fromkeys(("train", "validation", "test"), read.integer("num_samples", 1))
        own.close()
        inputs = Inputs({"kind": "pattern", **sizes, "patterns": [[mean]], "jitter": jitter}, 1)
    else:
        kind, side = _IMAGES[name]
        scale = "" if side == 16 else ", and a white pixel spikes at early, the original's a 256th of the window later"
        why = f"the original's validation images are the last 10000 of 60000, here they are drawn by a seed{scale}"
        params.no_counterpart.append(f"{kind}: {why}")
        # as the program sets it. In the small images black pixels do not spike
        section = {"kind": kind, "early": 0.15, "late": 2.0, "invert": True, "silent_background": side == 16}
        inputs = Inputs(section, side**2)
    params.close()
    if inputs.size != n_inputs and not (on_chip and inputs.size == 5 * n_inputs):
        raise ValueError(f"network_layout.n_inputs: {name} has {inputs.size} inputs, got {n_inputs}")
    return inputs


def loss(params: Settings, current: bool, tau_syn: float, outputs: int) -> dict[str, Any]:
    """A ``loss`` section. In configs of the current form only regularisers ask for early outputs."""
    if "loss" not in params:
        return {"kind": "cross_entropy", "xi": params.number("xi"), "regularizers": [_early_output(params)]}
    params.skip("alpha", "beta", "xi")  # left from the time before there was a choice
    table = params.table("loss")
    kind = table.choice("type", ("TTFS", "MSE", "shift_invariant_MSE"))
    regularizers = []
    if kind == "TTFS":
        section: dict[str, Any] = {"kind": "cross_entropy", "xi": table.number("xi")}
        if current:
            table.skip("alpha", "beta")
        elif "alpha" in table:
            regularizers.append(_early_output(table))
    elif kind == "MSE":
        section = {"kind": "mse", "correct": table.number("t_correct"), "wrong": table.number("t_wrong")}
        if not current and outputs > 1:
            params.note("loss", ": at that time the original's was a mean over the outputs, here it is a sum")
    else:
        section = {"kind": "shift_invariant", "delta": table.number("delta_t")}
        if section["delta"] <= 0:
            raise ValueError(f"{table.place}.delta_t: expected a time above 0, by which the true neuron spikes first")
    if tau_syn != 1 and kind != "TTFS":
        params.note(
            "loss", f": the original's is {tau_syn**2:g} times ours, which measures time in tau_syn, here {tau_syn}"
        )
    for entry in table.tables("regulariser", []):
        entry.choice("type", ("early_output",))
        regularizers.append(_early_output(entry))
        entry.close()
    table.close()
    return section | {"regularizers": regularizers}


def _early_output(table: Settings) -> dict[str, Any]:
    return {"kind": "early_output", "alpha": table.number("alpha"), "beta": table.number("beta", 1.0)}


def training(params: Settings, weight_grad_limits: list[float | None], silent_limits: list[float]) -> dict[str, Any]:
    """A ``training`` section; for each layer of neurons ``max_dw_norm`` and the largest silent fraction."""
    section: dict[str, Any] = {
        "epochs": params.integer("epoch_number"),
        "batch_size": params.integer("batch_size"),
        "optimizer": _optimizer(params),
        "silent": {
            "limits": silent_limits,
            "increment": params.number("weight_bumping_value"),
            "targeted": "any" if params.take("weight_bumping_targeted", True) else False,
            "exponential": bool(params.take("weight_bumping_exp", True)),
        },
        "seed": 0 if params.take("torch_seed", None) is None else params.integer("torch_seed", most=2**63),
        "dtype": "float64",  # the original computes in double precision throughout
    }
    if schedule := _schedule(params):
        section["schedule"] = schedule
    limits = [limit for limit in weight_grad_limits if limit is not None]
    if limits:
        section["max_weight_grad"] = min(limits)
    params.note_differing("max_dw_norm", weight_grad_limits, section.get("max_weight_grad"))
    if params.take("training_noise", None) not in (None, False):
        noise = params.table("training_noise")
        section["augment"] = {"jitter": noise.number("std_dev"), "reflect": True}
        noise.note_value("mean", "input noise has the mean 0 here")
        noise.close()
    params.skip(*_WITHOUT_EFFECT)
    why = "one seed, the original's for torch, starts everything that is random; its numbers differ"
    params.note_value("numpy_seed", why)
    params.note_value("epoch_snapshots", "checkpoints come at equal distances", ([], [section["epochs"]]))
    params.close()
    return section


def _optimizer(params: Settings) -> dict[str, Any]:
    name, lr = params.choice("optimizer", ("adam", "sgd"), "sgd"), params.number("learning_rate")
    if name == "sgd":
        return {"kind": "sgd", "lr": lr, "momentum": params.number("momentum", 0.0)}
    params.skip("momentum")
    return {"kind": "adam", "lr": lr}


def _schedule(params: Settings) -> dict[str, Any] | None:
    if params.take("lr_scheduler", None) is None:
        return None
    table = params.table("lr_scheduler")
    if table.raw.get("type") is None:
        table.skip("type", "step_size", "gamma", "milestones")
        table.close()
        return None
    kind = table.choice("type", ("StepLR", "MultiStepLR", "ExponentialLR"))
    schedule: dict[str, Any] = {"kind": "exponential"}
    if kind == "StepLR":
        schedule = {"kind": "step", "step_size": table.integer("step_size")}
    elif kind == "MultiStepLR":
        schedule = {"kind": "multi_step", "milestones": table.integers("milestones")}
    schedule["gamma"] = table.number("gamma")
    table.close()
    return schedule


def noise(params: Settings, unit: float) -> dict[str, float]:
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


def substrate(
    params: Settings, neurons: list[dict[str, float]], jitter: list[float]
) -> tuple[dict[str, Any], list[str]]:
    """A ``substrate`` section, and why the original's spike times may differ from ours by more than rounding."""
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
        params.note_value("rounding_precision", "the chip rounds weights to 1 / weight_scale")
        params.note_value("clip_weights_max", "on the chip weights reach to 63 / weight_scale")
        params.skip("resolution", "sim_time")
        return {"kind": "brainscales2"}, ["the original ran on the chip"]
    if kind not in (None, False, "sim"):
        raise ValueError(f"{params.place}.substrate: {kind!r} has no counterpart here; known: sim, hx, hx_pynn")
    if in_steps:
        params.note_value("rounding_precision", "weights are not rounded with integration in steps")
        params.note_value("clip_weights_max", "weights are not clipped with integration in steps")
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
