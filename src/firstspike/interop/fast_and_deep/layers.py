"""The original's layers as ours, and the sources of a trained network's numbers.

* Its membranes see leak, conductance and threshold only as ``(threshold - leak) g_leak``, ours see
  ``threshold tau_syn / tau_mem``. The threshold becomes ``(threshold - leak) g_leak tau_mem / tau_syn``, weights stay.
* All of its delays come before a layer of neurons. To delay all inputs of a neuron is to delay its spike: a dendritic
  delay comes after its layer here. Synaptic delays belong to the LIF layer.
* It may repeat all inputs as a block, a b a b. ``multiplex`` puts copies side by side, a a b b. ``order`` has for each
  of our inputs the index of the original's, and weights are sorted by it.
* It shares axonal delays by repeating a block of them. If neighbouring inputs of ours then have one delay, they
  also share it here. Otherwise each input gets its own delay, with the same value at first. After its ``Multiplex`` the
  blocks lie across the copies. Unless a trained network is imported, the copies of an input share one delay instead.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from firstspike.interop.fast_and_deep.sections import Inputs, noise
from firstspike.interop.fast_and_deep.table import LIMIT, Settings

_NEURONS = ("NeuronLayer", "EqualtimeLayer")
_NEURON_KEYS = ("tau_syn", "tau_mem", "model_tau_ratio", "g_leak", "leak", "threshold", "max_dw_norm")
_SHARING = "presyn_sharing_factor"


@dataclass(frozen=True)
class Origin:
    """The source of one of our parameters in the original's network: a layer of it, and its tensor."""

    layer: int
    kind: str  # weight, synaptic, axonal or dendritic
    shape: tuple[int, int]
    order: tuple[int, ...]  # its row for each of our inputs, or of the delays that inputs share


class NetworkBuilder:
    """Collects our layers, beginning with the inputs, with all delays as the original has them if ``exact``."""

    def __init__(self, inputs: Inputs, defaults: Settings, exact: bool) -> None:
        self.layers: list[dict[str, Any]] = []
        self.sources: dict[str, Origin] = {}  # of their parameters, by name in ``state_dict``
        self.silent_limits: list[float] = []  # ``max_num_missing_spikes`` of each layer of neurons
        self.weight_grad_limits: list[float | None] = []  # ``max_dw_norm`` of each layer of neurons
        self.noise: list[dict[str, float]] = []  # of each layer of neurons
        self.jitter: list[float] = []  # of each delay layer
        self.neuron = neuron(defaults)
        self._defaults, self._exact = defaults.raw, exact
        self._pending: dict[str, tuple[dict[str, Any], Origin]] = {}  # synaptic and dendritic delays of the next layer
        defaults.optional("max_dw_norm")
        noise(defaults, 1.0)  # reads the keys. Each layer merges them with its own
        defaults.close()
        features, copies = inputs.features, inputs.copies
        if copies > 1:
            self.layers.append({"kind": "multiplex", "copies": copies})
        self.order = [copy * features + index for index in range(features) for copy in range(copies)]
        self._bias(inputs.bias)

    def add_layers(self, tables: list[Settings], listed: bool) -> None:
        """Add layers; ``listed``: whether the original's network has all of them, or only those of neurons."""
        for index, table in enumerate(tables):
            name = str(table.take("name"))
            table.skip("feat_in", "feat_out", "monitor")
            if name == "Biases":
                self._refuse_after(table, "synaptic", "dendritic")
                self._bias(table.numbers("times"))
            elif name == "Multiplex":
                self._refuse_after(table, "synaptic")
                self._multiplex(table.integer("factor"))
            elif name in ("DelayAxonal", "DelaySynaptic", "DelayDendritic"):
                following = next((t for t in tables[index:] if t.raw.get("name") in _NEURONS), None)
                if following is None:
                    raise ValueError(f"{table.place}: {name} has no neurons after it")
                self._delay(table, name.removeprefix("Delay").lower(), index, following.integer("size"))
            elif name in _NEURONS:
                self._neurons(table, index if listed else len(self.silent_limits))
            elif name != "BroadcastLayer":  # which only repeats times
                raise ValueError(f"{table.place}: a layer {name} is not known here")
            table.skip("trainable")
            table.close()

    def _bias(self, times: list[float]) -> None:
        if times:
            self.layers.append({"kind": "bias", "times": list(times)})
            self.order += range(len(self.order), len(self.order) + len(times))

    def _multiplex(self, factor: int) -> None:
        if not 1 <= factor * len(self.order) <= LIMIT:
            raise ValueError(f"Multiplex: expected 1 to {LIMIT} copies of inputs, got {factor} x {len(self.order)}")
        self.layers.append({"kind": "multiplex", "copies": factor})
        self.order = [index * factor + copy for index in self.order for copy in range(factor)]

    def _neurons(self, table: Settings, index: int) -> None:
        """A layer of neurons with the delays that came before it."""
        own = table.table("neuron_params", {})
        changed = not own.raw.keys().isdisjoint(_NEURON_KEYS)
        own.raw = self._defaults | own.raw
        self.weight_grad_limits.append(own.optional("max_dw_norm"))
        parameters = neuron(own) if changed else self.neuron
        self.noise.append(noise(own, threshold_unit(own, parameters)))
        own.close()
        size = table.integer("size")
        section: dict[str, Any] = {"kind": "lif", "out_features": size}
        section |= {"weight_mean": table.number("weights_mean"), "weight_std": table.number("weights_std")}
        self.silent_limits.append(table.number("max_num_missing_spikes", 1.0))
        if (lr := table.optional("learning_rate")) is not None:
            section["lr"] = lr
        if parameters != self.neuron:
            section["neuron"] = parameters
        table.note_value("trainable", "the weights of a layer always learn here", (True,))
        table.note_value("biases", "the original does not read it either; use a layer Biases", ([],))
        sources = {"weight": Origin(index, "weight", (len(self.order), size), tuple(self.order))}
        if "synaptic" in self._pending:
            delay, sources["delay_raw"] = self._pending["synaptic"]
            section |= delay
        self._add(section, **sources)
        if "dendritic" in self._pending:
            delay, source = self._pending["dendritic"]
            self._add(delay, delay_raw=source)
        self.order = list(range(size))
        self._pending = {}

    def _delay(self, table: Settings, kind: str, index: int, size: int) -> None:
        """A delay layer of the original before ``size`` neurons."""
        pre = table.integer(_SHARING, 1) if kind == "axonal" else 1
        inputs = len(self.order)
        if pre < 1 or inputs % pre:
            raise ValueError(f"{table.place}: {inputs} inputs cannot share delays by {pre}")
        if kind in self._pending:
            raise ValueError(f"{table.place}: a second {kind} delay before one layer has no counterpart here")
        delay, jitter = _delay_section(table, kind == "synaptic")
        shape = (1 if kind == "dendritic" else inputs // pre, 1 if kind == "axonal" else size)
        source = Origin(index, kind, shape, tuple(place % shape[0] for place in self.order))
        if kind == "axonal":
            if shared := self._shared(table, pre, source.order, shape[0]):
                delay["copies"] = pre
                source, pre = replace(source, order=shared), 1
            self._add(delay, delay_raw=source)
        else:
            self._pending[kind] = delay, source
        if pre > 1:
            table.note(_SHARING, f" = {pre}: delays are not shared here; they start equal and learn apart")
        self.jitter.append(jitter)

    def _refuse_after(self, table: Settings, *delays: str) -> None:
        """Refuse inputs that the original adds after such delays: here the delays would be after them."""
        if self._pending.keys() & set(delays):
            what = f"{table.raw['name']} between delays and their neurons"
            raise ValueError(f"{table.place}: {what} has no counterpart here; its spikes would also be delayed")

    def _add(self, section: dict[str, Any], **sources: Origin) -> None:
        self.sources |= {f"{len(self.layers)}.{key}": source for key, source in sources.items()}
        self.layers.append(section)

    def _shared(self, table: Settings, pre: int, order: tuple[int, ...], rows: int) -> tuple[int, ...]:
        """For each axonal delay that ``pre`` neighbouring inputs of ours share its index; empty if none do."""
        if all(len(set(order[i : i + pre])) == 1 for i in range(0, len(order), pre)):
            return order[::pre] if pre > 1 else ()
        before: dict[str, Any] = next((layer for layer in reversed(self.layers) if layer["kind"] != "delay"), {})
        if self._exact or before.get("copies") != pre:
            return ()
        table.note(
            _SHARING,
            f" = {pre}: the original shares a delay among inputs {rows} apart, which are copies of different inputs; "
            "here the copies of an input share one",
        )
        return tuple(range(rows))


def neuron(params: Settings) -> dict[str, float]:
    """A ``neuron`` section."""
    tau_syn = params.number("tau_syn", 1.0)
    tau_mem = params.number("tau_mem", tau_syn)
    ratio = params.number("model_tau_ratio", None)
    if ratio is not None and not math.isclose(ratio * tau_syn, tau_mem):
        params.note("tau_mem", f" = {tau_mem}: its spike times follow model_tau_ratio = {ratio}; so does tau_mem here")
        tau_mem = ratio * tau_syn
    if min(tau_syn, tau_mem) <= 0:
        raise ValueError(f"{params.place}: tau_syn and tau_mem must be > 0, got {tau_syn} and {tau_mem}")
    height = params.number("threshold") - params.number("leak", 0.0)
    section = {"tau_mem": float(tau_mem), "tau_syn": float(tau_syn)}
    unit = threshold_unit(params, section)
    if height * unit <= 0:
        raise ValueError(f"{params.place}: the threshold must be above the leak potential, with g_leak > 0")
    return section | {"threshold": float(height if math.isclose(unit, 1, rel_tol=1e-12) else height * unit)}


def threshold_unit(params: Settings, neuron: dict[str, float]) -> float:
    """One unit of the original's threshold in ours."""
    ratio = neuron["tau_mem"] / neuron["tau_syn"]
    return float(params.number("g_leak", 1 / ratio) * ratio)


def _delay_section(table: Settings, synaptic: bool) -> tuple[dict[str, Any], float]:
    """The section of a delay, of synapses what it adds to that of their layer, and the deviation of its jitter."""
    rule: dict[str, Any] = {"bound": "clip", "scale": math.inf}
    if table.take("positivity", None) is None:  # configs from before there was a choice
        table.note("positivity", " is missing: delays are the parameters themselves, not below 0")
    else:
        positivity = table.table("positivity")
        if positivity.choice("name", ("sigmoid", "clip")) == "sigmoid":
            scale, shift = positivity.number("scale", 1.0), positivity.number("shift", 0.0)
            rule |= {"bound": "sigmoid", "scale": scale, "shift": shift}
        positivity.close()
    rule |= {"mean": table.number("delay_mean"), "std": table.number("delay_std")}
    if table.take("trainable", True) is False:
        rule["trainable"] = False
    section: dict[str, Any] = {"delay": rule} if synaptic else {"kind": "delay", "rule": rule}
    if (lr := table.optional("learning_rate")) is not None:
        section["delay_lr" if synaptic else "lr"] = lr
    jitter = table.optional("jitter") or 0.0
    if jitter < 0:
        raise ValueError(f"{table.place}.jitter: expected a standard deviation >= 0, got {jitter}")
    return section, jitter
