"""Their layers, as ours, and where the numbers of a trained network are found for each.

What differs:

* Delays of theirs stand before a neuron layer, dendritic ones too. To delay all inputs of a neuron is to delay its
  spike, so a dendritic delay stands behind its layer here. Synaptic ones belong to the LIF layer.
* They may repeat all inputs as a block, a b a b; ``multiplex`` puts copies side by side, a a b b. ``order`` keeps for
  each of our inputs the number of theirs, and weights are sorted by it.
* Delays may be shared: theirs repeats the block of them. Where that gives neighbours of ours one delay, it is one
  here, too; else each input gets a delay of its own, with the same value at first. Behind a ``Multiplex`` of theirs the
  blocks go across the copies; without a network to take over, the copies of an input share one here.
"""

from dataclasses import dataclass, field
from math import inf
from typing import Any

from firstspike.interop.fast_and_deep.data import Inputs
from firstspike.interop.fast_and_deep.neuron import bound, neuron, threshold_unit
from firstspike.interop.fast_and_deep.substrate import NOISE_KEYS, Imperfections, noise
from firstspike.interop.fast_and_deep.table import MOST, Remarks, Table

_NEURONS = ("NeuronLayer", "EqualtimeLayer")
_NEURON_KEYS = {"tau_syn", "tau_mem", "model_tau_ratio", "g_leak", "leak", "threshold", "max_dw_norm"}
_DELAY_KEYS = (
    "delay_mean",
    "delay_std",
    "jitter",
    "learning_rate",
    "positivity",
    "postsyn_sharing_factor",
    "presyn_sharing_factor",
)


@dataclass(frozen=True)
class Source:
    """Where a parameter of ours is found in their network.

    Args:
        layer: index in their ``layers``.
        kind: weight, synaptic, axonal or dendritic.
        shape: theirs.
        tiles: how often the block of their values is repeated along the inputs and along the neurons.
        order: for each of our inputs the number of theirs; of a delay that copies share one for all of them.
        copies: how many inputs share each value here.
    """

    layer: int
    kind: str
    shape: tuple[int, int]
    tiles: tuple[int, int] = (1, 1)
    order: tuple[int, ...] = ()
    copies: int = 1


@dataclass
class Placed:
    """A layer of our config and, by parameter name, where its numbers come from."""

    section: dict[str, Any]
    sources: dict[str, Source] = field(default_factory=dict)


class Builder:
    """Puts our layers together, from the inputs on.

    Args:
        inputs: what the network is fed with.
        exact: whether numbers of a network are taken over, so that every delay must be theirs.
    """

    def __init__(self, inputs: Inputs, exact: bool) -> None:
        self.layers: list[Placed] = []
        self.bounds: list[float | None] = []
        self.imperfections = Imperfections()
        self._exact = exact
        if inputs.copies > 1:
            self.layers.append(Placed({"kind": "multiplex", "copies": inputs.copies}))
        features, copies = inputs.features, inputs.copies
        self.order = [copy * features + index for index in range(features) for copy in range(copies)]
        if inputs.bias:
            self.bias(inputs.bias)
        self._synaptic: tuple[dict[str, Any], Source] | None = None
        self._dendritic: Placed | None = None

    def bias(self, times: list[float]) -> None:
        """Bias spikes behind the inputs."""
        if times:
            self.layers.append(Placed({"kind": "bias", "times": list(times)}))
            self.order += range(len(self.order), len(self.order) + len(times))

    def multiplex(self, factor: int) -> None:
        """Copies side by side."""
        if not 1 <= factor * len(self.order) <= MOST:
            raise ValueError(f"Multiplex: {factor} copies of {len(self.order)} inputs cannot be")
        self.layers.append(Placed({"kind": "multiplex", "copies": factor}))
        self.order = [theirs * factor + copy for theirs in self.order for copy in range(factor)]

    def lif(self, section: dict[str, Any], layer: int) -> None:
        """A layer of neurons, with the delays that came before it."""
        placed = Placed({"kind": "lif"} | section)
        size = section["size"]
        placed.sources["weight"] = Source(layer, "weight", (len(self.order), size), order=tuple(self.order))
        if self._synaptic:
            delay, placed.sources["delay_raw"] = self._synaptic
            lr = delay.pop("lr", None)
            placed.section |= {"delay": delay} | ({} if lr is None else {"delay_lr": lr})
        self.layers.append(placed)
        if self._dendritic:
            self.layers.append(self._dendritic)
        self.order = list(range(size))
        self._synaptic, self._dendritic = None, None

    def delay(self, table: Table, layer: int, size: int) -> None:
        """A delay layer of theirs before ``size`` neurons."""
        name = table.take("name")
        pre, post = table.integer("presyn_sharing_factor", 1), table.integer("postsyn_sharing_factor", 1)
        n = len(self.order)
        if min(pre, post) < 1 or n % pre or size % post:
            raise ValueError(f"{table.place}: {n} inputs and {size} neurons cannot be shared by {pre} and {post}")
        rows, columns = n // pre, size // post
        delay, jitter = _delay_start(table)
        if name == "DelaySynaptic":
            if self._synaptic:
                raise ValueError(f"{table.place}: a second synaptic delay before one layer has no counterpart here")
            self._synaptic = delay, Source(layer, "synaptic", (rows, columns), (pre, post), tuple(self.order))
        elif name == "DelayAxonal":
            delay |= {"kind": "delay"}
            copies, order = self._shared(table, pre, rows)
            if copies > 1:
                delay["copies"] = copies
                source = Source(layer, "axonal", (rows, 1), order=order, copies=copies)
                pre = 1
            else:
                source = Source(layer, "axonal", (rows, 1), (pre, 1), tuple(self.order))
            self.layers.append(Placed(delay, {"delay_raw": source}))
            post = 1  # without effect on a delay that all neurons share
        elif name == "DelayDendritic":
            if self._dendritic:
                raise ValueError(f"{table.place}: a second dendritic delay before one layer has no counterpart here")
            delay |= {"kind": "delay"}
            self._dendritic = Placed(delay)
            self._dendritic.sources["delay_raw"] = Source(layer, "dendritic", (1, columns), (1, post))
            pre = 1
        else:
            raise ValueError(f"{table.place}: a layer {name} is not known; expected Axonal, Synaptic or Dendritic")
        for key, factor in (("presyn_sharing_factor", pre), ("postsyn_sharing_factor", post)):
            if factor > 1:
                table.remarks.lacking.append(
                    f"{table.place}.{key} = {factor}: delays are not shared here; they start equal and learn apart"
                )

        self.imperfections.delays.append((delay, jitter))

    def _shared(self, table: Table, pre: int, rows: int) -> tuple[int, tuple[int, ...]]:
        """How many neighbouring inputs of ours share an axonal delay, and the number of each delay of theirs."""
        theirs = [number % rows for number in self.order]
        if all(len(set(theirs[i : i + pre])) == 1 for i in range(0, len(theirs), pre)):
            return pre, tuple(theirs[::pre])
        before = next((placed.section for placed in reversed(self.layers) if placed.section["kind"] != "delay"), {})
        if self._exact or before.get("copies") != pre:
            return 1, ()
        table.remarks.lacking.append(
            f"{table.place}.presyn_sharing_factor = {pre}: theirs shares a delay among inputs {rows} apart, which are "
            "copies of different inputs; here the copies of an input share one"
        )
        return pre, tuple(range(rows))

    def refuse_delayed(self, table: Table, dendritic: bool) -> None:
        """An input that comes behind delays which ours has no place for."""
        if self._synaptic or (dendritic and self._dendritic):
            raise ValueError(
                f"{table.place}: {table.raw['name']} between delays and their neurons has no counterpart here; the "
                "delays would hold for its spikes, too"
            )


def translate_layers(
    tables: list[Table], inputs: Inputs, defaults: Table, exact: bool
) -> tuple[Builder, dict[str, float]]:
    """The layers of today's configs, and the ``neuron`` section.

    Raises:
        ValueError: a layer that is not known, or that cannot be expressed.
    """
    builder = Builder(inputs, exact)
    base = neuron(defaults)
    default_bound = bound(defaults)
    noise(defaults, 1.0)  # each layer has it with its own
    defaults.close()
    for index, table in enumerate(tables):
        name = str(table.take("name"))
        table.without_effect("feat_in", "feat_out", "monitor")
        if name == "Biases":
            builder.refuse_delayed(table, dendritic=True)
            builder.bias(table.numbers("times"))
        elif name == "Multiplex":
            builder.refuse_delayed(table, dendritic=False)
            builder.multiplex(table.integer("factor"))
        elif name.startswith("Delay"):
            following = [t for t in tables[index:] if t.raw.get("name") in _NEURONS]
            if not following:
                raise ValueError(f"{table.place}: {name} stands before no neurons")
            builder.delay(table, index, following[0].integer("size"))
        elif name in _NEURONS:
            own = Table(table.take("neuron_params", {}), f"{table.place}.neuron_params", table.remarks)
            builder.bounds.append(bound(own) if "max_dw_norm" in own else default_bound)
            parameters, imperfect = _own_neuron(own, defaults, base)
            builder.imperfections.neurons.append(imperfect)
            builder.lif(_lif(table, parameters), index)
        elif name == "BroadcastLayer":  # it only repeats times, for each neuron; a sweep may leave it a delay's keys
            table.without_effect(*_DELAY_KEYS)
        else:
            raise ValueError(f"{table.place}: a layer {name} is not known here")
        table.without_effect("trainable")
        table.close()
    return builder, base


def _own_neuron(own: Table, defaults: Table, base: dict[str, float]) -> tuple[dict[str, Any], dict[str, float]]:
    """The ``neuron`` part of a layer's section, if it differs from the config's, and the layer's noise."""
    merged = Table(defaults.raw | own.raw, own.place, Remarks())
    parameters = neuron(merged)
    if own.raw.keys() & _NEURON_KEYS:
        own.remarks.lacking += merged.remarks.lacking
    for key in (*_NEURON_KEYS, *NOISE_KEYS):
        own.take(key, None)
    own.without_effect("threshold_noise_fp", "decay_syn", "decay_mem")
    own.close()
    unit = threshold_unit(merged, parameters["tau_mem"], parameters["tau_syn"])
    return {} if parameters == base else {"neuron": parameters}, noise(merged, unit)


def _lif(table: Table, parameters: dict[str, Any]) -> dict[str, Any]:
    section: dict[str, Any] = {
        "size": table.integer("size"),
        "weight_mean": table.number("weights_mean"),
        "weight_std": table.number("weights_std"),
        "max_silent": table.number("max_num_missing_spikes", 1.0),
    }
    if table.take("learning_rate", None) is not None:
        section["lr"] = table.number("learning_rate")
    table.lacks("trainable", "the weights of a layer always learn here", (True,))
    table.lacks("biases", "their code does not read it either; write a layer Biases", ([],))
    return section | parameters


def _delay_start(table: Table) -> tuple[dict[str, Any], float]:
    """The fields of a delay that are the same in all places, and its jitter."""
    positivity = table.table("positivity", {"name": None})
    name = positivity.take("name", None)
    start: dict[str, Any] = {"bound": "sigmoid"}
    if name == "sigmoid":
        start |= {"scale": positivity.number("scale", 1.0), "shift": positivity.number("shift", 0.0)}
    elif name in ("clip", "shift"):
        start |= {"bound": "clip", "scale": inf}
        if name == "shift":
            table.remarks.lacking.append(
                f"{table.place}.positivity = shift: negative delays are set to 0 here; theirs moves all delays up"
            )
    elif name is None:
        raise ValueError(f"{table.place}.positivity is missing: sigmoid, clip or shift")
    else:
        raise ValueError(f"{table.place}.positivity: {name!r} has no counterpart here; known: sigmoid, clip, shift")
    positivity.close()
    start |= {"mean": table.number("delay_mean"), "std": table.number("delay_std")}
    if table.take("trainable", True) is False:
        start["trainable"] = False
    if table.take("learning_rate", None) is not None:
        start["lr"] = table.number("learning_rate")
    jitter = table.number("jitter", 0.0) if table.take("jitter", None) not in (None, False) else 0.0
    if jitter < 0:
        raise ValueError(f"{table.place}.jitter: expected a standard deviation >= 0, got {jitter}")
    return start, jitter
