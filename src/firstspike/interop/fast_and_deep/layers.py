"""The original's layers as ours, and where the numbers of a trained network are found.

* Its membranes see leak, conductance and threshold only as ``(threshold - leak) g_leak``, ours see
  ``threshold tau_syn / tau_mem``. The threshold becomes ``(threshold - leak) g_leak tau_mem / tau_syn``, weights stay.
* All of its delays come before a layer of neurons. To delay all inputs of a neuron is to delay its spike: a dendritic
  delay comes after its layer here. Synaptic delays belong to the LIF layer.
* It may repeat all inputs as a block, a b a b; ``multiplex`` puts copies side by side, a a b b. ``order`` has for each
  of our inputs the index of the original's, and weights are sorted by it.
* It shares delays by repeating a block of them. Where neighbouring inputs of ours then have one delay, they share it
  here, too; otherwise each input gets its own delay, with the same value at first. After its ``Multiplex`` the blocks
  lie across the copies; unless a trained network is imported, the copies of an input share one delay instead.
"""

import math
from dataclasses import dataclass
from typing import Any

from firstspike.interop.fast_and_deep.sections import Inputs
from firstspike.interop.fast_and_deep.substrate import NOISE_KEYS, Imperfections, noise
from firstspike.interop.fast_and_deep.table import LIMIT, Remarks, Table

_NEURONS = ("NeuronLayer", "EqualtimeLayer")
_DELAYS = ("DelayAxonal", "DelaySynaptic", "DelayDendritic")
_NEURON_KEYS = ("tau_syn", "tau_mem", "model_tau_ratio", "g_leak", "leak", "threshold", "max_dw_norm")
_DELAY_KEYS = ("delay_mean", "delay_std", "jitter", "learning_rate", "positivity")
_SHARING = ("presyn_sharing_factor", "postsyn_sharing_factor")


@dataclass(frozen=True)
class Source:
    """Where a parameter of ours is found in the original's network.

    Args:
        layer: index in its ``layers``.
        kind: weight, synaptic, axonal or dendritic.
        shape: of its tensor.
        tiles: how often the tensor is repeated along the inputs and along the neurons.
        order: for each of our inputs the index of the original's; for each delay, where copies share them.
        copies: how many of our inputs share each value.
    """

    layer: int
    kind: str
    shape: tuple[int, int]
    tiles: tuple[int, int] = (1, 1)
    order: tuple[int, ...] = ()
    copies: int = 1


class NetworkBuilder:
    """Collects our layers, beginning with the inputs.

    Args:
        inputs: what the network receives.
        exact: whether a trained network is imported, so that every delay has to be the original's.

    Attributes:
        layers: sections of our config.
        sources: for each parameter, by its name in ``state_dict``, where it is in the original's network.
        silent_limits: of each LIF layer the fraction of silent neurons above which weights are raised.
        weight_grad_limits: of each LIF layer ``max_dw_norm``.
        imperfections: noise of the layers.
    """

    def __init__(self, inputs: Inputs, exact: bool) -> None:
        self.layers: list[dict[str, Any]] = []
        self.sources: dict[str, Source] = {}
        self.silent_limits: list[float] = []
        self.weight_grad_limits: list[float | None] = []
        self.imperfections = Imperfections()
        self._exact = exact
        self._pending: dict[str, tuple[dict[str, Any], Source]] = {}  # synaptic and dendritic delays of the next layer
        features, copies = inputs.features, inputs.copies
        if copies > 1:
            self.layers.append({"kind": "multiplex", "copies": copies})
        self.order = [copy * features + index for index in range(features) for copy in range(copies)]
        self.bias(inputs.bias)

    def bias(self, times: list[float]) -> None:
        """Bias spikes after the inputs."""
        if times:
            self.layers.append({"kind": "bias", "times": list(times)})
            self.order += range(len(self.order), len(self.order) + len(times))

    def multiplex(self, factor: int) -> None:
        """Copies side by side."""
        if not 1 <= factor * len(self.order) <= LIMIT:
            raise ValueError(f"Multiplex: expected 1 to {LIMIT} copies of inputs, got {factor} x {len(self.order)}")
        self.layers.append({"kind": "multiplex", "copies": factor})
        self.order = [index * factor + copy for index in self.order for copy in range(factor)]

    def lif(
        self, index: int, size: int, weight_mean: float, weight_std: float, max_silent: float, **own: dict | float
    ) -> None:
        """A layer of neurons, with the delays that came before it; ``own``: further keys of its section."""
        section = {"kind": "lif", "size": size, "weight_mean": weight_mean, "weight_std": weight_std, **own}
        self._add(section, weight=Source(index, "weight", (len(self.order), size), order=tuple(self.order)))
        self.silent_limits.append(max_silent)
        if "synaptic" in self._pending:
            delay, self.sources[f"{len(self.layers) - 1}.delay_raw"] = self._pending["synaptic"]
            if "lr" in delay:
                section["delay_lr"] = delay.pop("lr")
            section["delay"] = delay
        if "dendritic" in self._pending:
            delay, source = self._pending["dendritic"]
            self._add(delay, delay_raw=source)
        self.order = list(range(size))
        self._pending = {}

    def delay(self, table: Table, index: int, size: int) -> None:
        """A delay layer of the original's before ``size`` neurons."""
        kind = table.take("name").removeprefix("Delay").lower()
        pre, post = (table.integer(key, 1) for key in _SHARING)
        inputs = len(self.order)
        if min(pre, post) < 1 or inputs % pre or size % post:
            raise ValueError(f"{table.place}: {inputs} inputs and {size} neurons cannot be shared by {pre} and {post}")
        rows, columns = inputs // pre, size // post
        delay, jitter = _delay_start(table)
        if kind != "synaptic":
            delay = {"kind": "delay"} | delay
        if kind in self._pending:
            raise ValueError(f"{table.place}: a second {kind} delay before one layer has no counterpart here")
        if kind == "synaptic":
            self._pending[kind] = delay, Source(index, kind, (rows, columns), (pre, post), tuple(self.order))
        elif kind == "dendritic":
            self._pending[kind] = delay, Source(index, kind, (1, columns), (1, post))
            pre = 1  # has no effect
        else:
            source = Source(index, kind, (rows, 1), (pre, 1), tuple(self.order))
            if order := self._shared(table, pre, rows):
                delay["copies"] = pre
                source = Source(index, kind, (rows, 1), order=order, copies=pre)
                pre = 1
            self._add(delay, delay_raw=source)
            post = 1  # has no effect
        for key, factor in zip(_SHARING, (pre, post), strict=True):
            if factor > 1:
                table.report(key, f" = {factor}: delays are not shared here; they start equal and learn apart")
        self.imperfections.delays.append((delay, jitter))

    def refuse_after(self, table: Table, *delays: str) -> None:
        """Refuse inputs that the original adds after such delays: here the delays would be after them."""
        if self._pending.keys() & set(delays):
            raise ValueError(
                f"{table.place}: {table.raw['name']} between delays and their neurons has no counterpart here; the "
                "delays would hold for its spikes, too"
            )

    def _add(self, section: dict[str, Any], **sources: Source) -> None:
        self.sources |= {f"{len(self.layers)}.{key}": source for key, source in sources.items()}
        self.layers.append(section)

    def _shared(self, table: Table, pre: int, rows: int) -> tuple[int, ...]:
        """For each axonal delay that ``pre`` neighbouring inputs of ours share its index; empty where none do."""
        if pre == 1:
            return ()
        indices = [index % rows for index in self.order]
        if all(len(set(indices[i : i + pre])) == 1 for i in range(0, len(indices), pre)):
            return tuple(indices[::pre])
        before = next((layer for layer in reversed(self.layers) if layer["kind"] != "delay"), {})
        if self._exact or before.get("copies") != pre:
            return ()
        table.report(
            "presyn_sharing_factor",
            f" = {pre}: the original shares a delay among inputs {rows} apart, which are copies of different inputs; "
            "here the copies of an input share one",
        )
        return tuple(range(rows))


def neuron(params: Table) -> dict[str, float]:
    """A ``neuron`` section."""
    tau_syn = params.number("tau_syn", 1.0)
    tau_mem = params.number("tau_mem", tau_syn)
    ratio = params.number("model_tau_ratio", None)
    if ratio is not None and not math.isclose(ratio * tau_syn, tau_mem):
        params.report(
            "tau_mem", f" = {tau_mem}: its spike times follow model_tau_ratio = {ratio}, and so does tau_mem here"
        )
        tau_mem = ratio * tau_syn
    if min(tau_syn, tau_mem) <= 0:
        raise ValueError(f"{params.place}: tau_syn and tau_mem must be > 0, got {tau_syn} and {tau_mem}")
    height = params.number("threshold") - params.number("leak", 0.0)
    section = {"tau_mem": float(tau_mem), "tau_syn": float(tau_syn)}
    unit = threshold_unit(params, section)
    if height * unit <= 0:
        raise ValueError(f"{params.place}: the threshold must be above the leak potential, with g_leak > 0")
    return section | {"threshold": float(height if math.isclose(unit, 1, rel_tol=1e-12) else height * unit)}


def threshold_unit(params: Table, neuron: dict[str, float]) -> float:
    """One unit of the original's threshold in ours."""
    ratio = neuron["tau_mem"] / neuron["tau_syn"]
    return float(params.number("g_leak", 1 / ratio) * ratio)


def translate_layers(
    tables: list[Table], inputs: Inputs, defaults: Table, exact: bool
) -> tuple[NetworkBuilder, dict[str, float]]:
    """The layers of a config that lists them, and the ``neuron`` section."""
    builder = NetworkBuilder(inputs, exact)
    base = neuron(defaults)
    weight_grad_limit = defaults.optional("max_dw_norm")
    noise(defaults, 1.0)  # reads the keys; each layer merges them with its own
    defaults.close()
    for index, table in enumerate(tables):
        name = str(table.take("name"))
        table.without_effect("feat_in", "feat_out", "monitor")
        if name == "Biases":
            builder.refuse_after(table, "synaptic", "dendritic")
            builder.bias(table.numbers("times"))
        elif name == "Multiplex":
            builder.refuse_after(table, "synaptic")
            builder.multiplex(table.integer("factor"))
        elif name in _DELAYS:
            following = next((t for t in tables[index:] if t.raw.get("name") in _NEURONS), None)
            if following is None:
                raise ValueError(f"{table.place}: {name} has no neurons after it")
            builder.delay(table, index, following.integer("size"))
        elif name in _NEURONS:
            own = Table(table.take("neuron_params", {}), f"{table.place}.neuron_params", table.remarks)
            builder.weight_grad_limits.append(
                own.optional("max_dw_norm") if "max_dw_norm" in own else weight_grad_limit
            )
            _lif(builder, index, table, *_own_neuron(own, defaults, base))
        elif name == "BroadcastLayer":  # only repeats times; a sweep may leave it the keys of a delay
            table.without_effect(*_DELAY_KEYS, *_SHARING)
        else:
            raise ValueError(f"{table.place}: a layer {name} is not known here")
        table.without_effect("trainable")
        table.close()
    return builder, base


def _own_neuron(own: Table, defaults: Table, base: dict[str, float]) -> tuple[dict[str, Any], dict[str, float]]:
    """The key ``neuron`` of a layer's section, if the layer differs from the config's, and the layer's noise."""
    merged = Table(defaults.raw | own.raw, own.place, Remarks())
    parameters = neuron(merged)
    if own.raw.keys() & set(_NEURON_KEYS):
        own.remarks.no_counterpart += merged.remarks.no_counterpart
    for key in (*_NEURON_KEYS, *NOISE_KEYS):
        own.take(key, None)
    own.without_effect("threshold_noise_fp", "decay_syn", "decay_mem")
    own.close()
    return {} if parameters == base else {"neuron": parameters}, noise(merged, threshold_unit(merged, parameters))


def _lif(
    builder: NetworkBuilder, index: int, table: Table, own: dict[str, Any], imperfections: dict[str, float]
) -> None:
    if (lr := table.optional("learning_rate")) is not None:
        own["lr"] = lr
    builder.imperfections.neurons.append(imperfections)
    builder.lif(
        index,
        table.integer("size"),
        table.number("weights_mean"),
        table.number("weights_std"),
        table.number("max_num_missing_spikes", 1.0),
        **own,
    )
    table.no_counterpart("trainable", "the weights of a layer always learn here", (True,))
    table.no_counterpart("biases", "the original does not read it either; use a layer Biases", ([],))


def _delay_start(table: Table) -> tuple[dict[str, Any], float]:
    """How delays start and stay positive, wherever they are, and the standard deviation of their jitter."""
    start: dict[str, Any] = {"bound": "clip", "scale": math.inf}
    if table.take("positivity", None) is None:  # configs from before there was a choice
        table.report("positivity", " is missing: delays are the parameters themselves, not below 0")
    else:
        positivity = table.table("positivity")
        name = positivity.choice("name", ("sigmoid", "clip", "shift"))
        if name == "sigmoid":
            scale, shift = positivity.number("scale", 1.0), positivity.number("shift", 0.0)
            start = {"bound": "sigmoid", "scale": scale, "shift": shift}
        elif name == "shift":
            table.report("positivity", " = shift: negative delays are set to 0; the original increases all delays")
        positivity.close()
    start |= {"mean": table.number("delay_mean"), "std": table.number("delay_std")}
    if table.take("trainable", True) is False:
        start["trainable"] = False
    if (lr := table.optional("learning_rate")) is not None:
        start["lr"] = lr
    jitter = table.optional("jitter") or 0.0
    if jitter < 0:
        raise ValueError(f"{table.place}.jitter: expected a standard deviation >= 0, got {jitter}")
    return start, jitter
