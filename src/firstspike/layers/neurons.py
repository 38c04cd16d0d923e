"""The base of all layers of neurons with weights: weights, parameters of the neurons, and initial values."""

import inspect
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from firstspike.connect import Synapses
from firstspike.layers import synapses
from firstspike.layers.init import NormalWeights, below, firing_weights, first_response, measured_weights, start_of
from firstspike.layers.synapses import (
    Arriving,
    Mask,
    Receptors,
    checked_receptors,
    checked_signs,
    connect,
    parameter,
    usual_signs,
)
from firstspike.layers.trains import SpikeLayer, Spikes, TensorOptions
from firstspike.layers.voltages import membranes
from firstspike.neurons import LIF, Neuron, check_neuron, shown_parameters
from firstspike.ranges import Finite, NotNegative, Positive, PositiveInt, PositiveOrInf, checks_ranges
from firstspike.spiketime.current import Current
from firstspike.spiketime.operator import Silent, check_end

_RECORDED = "tau_mem", "tau_syn", "threshold"  # in a ``state_dict``
_LATER = {"connections", "delay_raw", "delay_rule", "receptors", "recurrent_connections", "window"}
_LATER |= {"recurrent_delays", "recurrent_source", "recurrent_target", "recurrent_weight", "signs", "source", "target"}
_LATER |= {"form", "out_form", "out_image"}
_UNUSUAL = {
    "tau_syn": "with several receptors (tau_syn)",
    "tau_rise": "whose synapses have a rise time (tau_rise)",
    "bias": "with a constant input (bias)",
    "reset": "without a reset (reset=None)",
    "adaptation_tau": "with adaptation currents (adaptation)",
    "adaptation_rise": "whose adaptation currents rise (adaptation_rise)",
    "threshold_tau": "with an adaptive threshold (threshold_adaptation)",
}
LIF_NAMES = {f"Spiking{x}": f"LIF{x}" for x in ("Linear", "Recurrent", "Conv1d", "Conv2d")} | {
    "SpikeTrains": "LIFSpikeTrains"
}
"""Second names of layers, with which those of ``LIF`` neurons are printed."""


class NeuronOptions(TensorOptions, total=False):
    """Keyword arguments of all layers of neurons, see ``NeuronLayer``."""

    weight_mean: Finite | None
    weight_std: NotNegative | None
    mask: Mask
    synapses: Synapses | None


class SpikingOptions(NeuronOptions, total=False):
    """Keyword arguments of all layers of neurons that spike, see ``NeuronLayer``."""

    receptor: Receptors
    signs: Sequence[int] | None

    trainable: Collection[str]
    per_neuron: bool
    max_weight_grad: Positive | None
    until: PositiveOrInf
    silent: Silent
    backend: str


@checks_ranges
class NeuronLayer(SpikeLayer):
    """A layer of neurons with weights.

    Its subclasses pass their options on to it, and have its signature and its descriptions by ``takes_arguments_of``. A
    subclass draws its own parameters itself, at its start and in ``reset_parameters``.

    Args:
        shape: of the weights. The first dimension counts the neurons that have separate weights and parameters.
        in_features: number of inputs.
        out_features: number of neurons.
        neuron: parameters of the neurons, ``LIF()`` by default; initial values of those that are trained.
        trainable: names of the neuron's parameters that are trained, such as ``"tau_mem"``, ``"tau_syn"``,
            ``"threshold"`` and ``"bias"``, and for trains ``"reset"`` and adaptation. All values of a tuple are.
        per_neuron: whether each neuron has separate values of the trainable parameters. Otherwise the layer shares one.
        receptor: number of the receptor that each input, or channel of an image, reaches, such as
            ``[0] * 80 + [1] * 20``, or ``"sign"``: the first where a weight is > 0, otherwise the second.
        signs: signs of the weights of each input, or channel: 1 (>= 0), -1 (<= 0) or 0 (any). Initial weights have
            them. A training puts weights that a step carried across 0 back on it, and so does ``project_``.
        weight_mean: mean of the initial weights, which are normally distributed; given together with ``weight_std``.
            Without both, most neurons initially spike for inputs in [0, 2] tau_syn, for any number of inputs, by the
            response of the first receptor. Where some ``signs`` are -1, inhibition is half of the excitation.
        weight_std: standard deviation of the initial weights; given together with ``weight_mean``.
        mask: which connections exist: a boolean tensor in the shape of the weights, or the probability of each, with
            which they are drawn whenever weights are. Those that are missing have the weight 0 and keep it; usual
            weights count the others. States of the layer have them as ``connections``.
        synapses: those of the inputs, of ``fs.connect``. ``weight`` then has one value for each, in their order, as
            delays have; weights and delays that they come with are those of the start. States of the layer have them as
            ``source`` and ``target``.
        max_weight_grad: bound on the weight gradient of one sample and neuron, see ``first_spike_time``; of spike
            trains on that of each spike, see ``spike_trains``.
        until: when a sample ends: no spike is later. Neurons from equations need an end.
        silent: output of silent neurons: ``"inf"``, or ``"pseudospikes"`` after ``until``, see ``first_spike_time``.
        backend: see ``first_spike_time`` and ``spike_trains``.
        generator: source of the initial values; torch's global one by default.
        device: as in torch.
        dtype: float32 or float64, as in torch.

    Raises:
        ValueError: sizes < 1, one of ``weight_mean`` and ``weight_std`` without the other, a negative ``weight_std``,
            parameters that cannot be trained from their initial values, receptors, signs, a mask or synapses that do
            not fit.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        in_features: PositiveInt,
        out_features: PositiveInt,
        neuron: Neuron | None = None,
        *,
        trainable: Collection[str] = (),
        per_neuron: bool = False,
        receptor: Receptors = None,
        signs: Sequence[int] | None = None,
        weight_mean: Finite | None = None,
        weight_std: NotNegative | None = None,
        mask: Mask = None,
        synapses: Synapses | None = None,
        max_weight_grad: Positive | None = None,
        until: PositiveOrInf = math.inf,
        silent: Silent = "inf",
        backend: str = "auto",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if (weight_mean is None) != (weight_std is None):
            raise ValueError("weight_mean and weight_std belong together: give both or none")
        self.in_features, self.out_features = in_features, out_features
        self.weight_mean, self.weight_std = weight_mean, weight_std
        self.max_weight_grad, self.backend = max_weight_grad, backend
        self.until, self.silent = until, silent
        like = torch.empty(0, device=device, dtype=dtype)
        self.weight = parameter(like, shape, synapses, f"weights {shape}")
        self.sparse: dict[str, Synapses] = {}
        self.matrix_shape = shape[0], math.prod(shape[1:])
        self.initial_neuron: Neuron = LIF() if neuron is None else neuron
        check_neuron(self.initial_neuron)
        if "threshold" not in self.unused:
            check_end(self.initial_neuron, until, silent)
        self.per_neuron = per_neuron
        self.trainable = tuple(trainable) if _is_several(trainable) else trainable
        self._take(self.initial_neuron, trainable, per_neuron)
        self.receptor, reached = checked_receptors(self.initial_neuron, receptor, shape[1])
        if reached is not None:
            reached = reached.repeat_interleave(math.prod(shape[2:])).to(self.weight.device)
        self.register_buffer("receptors", reached, persistent=False)
        self.signs = checked_signs("signs", usual_signs(signs, self.initial_neuron, shape[1], receptor), shape[1])
        self._signed = {"weight": self.signs}
        connect(self, "weight", mask, synapses, shape)
        NeuronLayer.reset_parameters(self, generator)

    def _take(self, neuron: Neuron, trainable: Collection[str], per_neuron: bool) -> None:
        """Make tensors among the neuron's parameters, and those that learn, parameters and buffers of the layer."""
        names = [name for name in neuron.parameters if name not in self.unused]
        if not _is_several(trainable) or not set(trainable) <= set(names):
            raise ValueError(f"trainable must be some of {', '.join(names)} in a list, got {trainable!r}")
        if per_neuron and not trainable:
            raise ValueError("per_neuron=True needs trainable=[...], the parameters that each neuron learns")
        own = {*dir(self), *inspect.signature(type(self)).parameters, *_LATER} - {"refractory"}
        for name in {*trainable, *(x for x, value in neuron.values.items() if isinstance(value, Tensor))}:
            if type(neuron) is Neuron and name in own:
                raise ValueError(f"{name} cannot learn or be a tensor: layers use this name themselves; rename it")
        self._starts: dict[str, Tensor] = {}
        self._tensors: list[str] = []
        self._numbers: dict[str, Any] = {}
        for name, value in neuron.values.items():
            if name in trainable:
                start = start_of(name, value, self.matrix_shape[0] if per_neuron else None)
                if self._is_depth(name):
                    threshold = torch.as_tensor(neuron.values["threshold"], dtype=torch.float64).detach().cpu()
                    start = below(threshold, start)
                    if not bool((start > 0).all()):
                        raise ValueError(f"{name} can only learn from a value below the threshold, got {value}")
                elif self._key(name) != name and not bool(((start > 0) & (start < math.inf)).all()):
                    raise ValueError(f"{name} can only learn from a finite value > 0, got {value}")
                self._starts[name] = start
                self.register_parameter(self._key(name), nn.Parameter(self.weight.new_empty(start.shape)))
                self._tensors.append(name)
                continue
            parts = {f"{name}_{k}": x for k, x in enumerate(value)} if isinstance(value, tuple) else {name: value}
            if not any(isinstance(x, Tensor) for x in parts.values()):
                self._numbers[name] = value
                continue
            self._tensors.append(name)
            for key, x in parts.items():
                if name == "tau_rise" and not isinstance(x, Tensor) and x == 0:
                    continue  # a current that jumps beside others that rise
                held = x if isinstance(x, Tensor) else self.weight.new_tensor(x)  # a number beside tensors
                if isinstance(held, nn.Parameter):
                    self.register_parameter(key, held)
                else:
                    self.register_buffer(key, held.to(self.weight.device))
        self._neuron = None if self._tensors else neuron
        check_neuron(self.neuron)  # a bias that learns needs a leak

    @property
    def reached(self) -> Int64[Tensor, " sources"] | Literal["sign"] | None:
        """The receptor that each input of a neuron reaches, as the operator takes it."""
        return None if self.receptor is None else "sign" if self.receptor == "sign" else self.receptors

    def _key(self, name: str) -> str:
        """The parameter by which one of the neuron learns: itself if it may be negative, otherwise its logarithm."""
        free = self.initial_neuron.parameters[name].least < 0 and not self._is_depth(name)
        return name if free else f"log_{name}"

    def _is_depth(self, name: str) -> bool:
        """Whether a parameter learns how far it is below the threshold, as the reset of LIF neurons does."""
        return name == "reset" and self.initial_neuron.equations is None

    def _is_tuple(self, name: str) -> bool:
        return isinstance(self.initial_neuron.values[name], tuple)

    def _now(self, name: str) -> Any:
        """A parameter of the neuron that is a tensor, or a tuple with tensors."""
        if name in self._starts:
            key = self._key(name)
            value = getattr(self, key) if key == name else getattr(self, key).exp()
            return value.unbind(-1) if self._is_tuple(name) else value
        initial = self.initial_neuron.values[name]
        if isinstance(initial, tuple):
            return tuple(getattr(self, f"{name}_{k}", x) for k, x in enumerate(initial))
        return getattr(self, name)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Redraw the weights. Trainable parameters of the neuron start again."""
        for name, start in self._starts.items():
            key = self._key(name)
            getattr(self, key).copy_(start if key == name else start.log())
        if synapses.given_(self, "weight"):
            return
        if self.weight_mean is not None and self.weight_std is not None:
            synapses.draw_(self, "weight", self.weight_mean, self.weight_std, generator)
        else:
            self._draw_usual_weights_(generator)

    def _draw_usual_weights_(self, generator: torch.Generator | None) -> None:
        raise NotImplementedError

    @property
    def synapses(self) -> Float[Tensor, "rows inputs"]:
        """The weights as a matrix, a row for the neurons that share them. Those of missing connections are 0."""
        return synapses.matrix(self, "weight").flatten(1)

    def seen(self, times: Spikes) -> Spikes:
        """Input times or trains of each neuron, without synaptic delays. Its inputs are the columns of ``synapses``.

        A layer whose neurons see different inputs puts a dimension for their places before the last one.
        """
        return self._as_trains(times) if self.takes_trains else times

    def fed(self, inputs: Spikes, spikes: Tensor | None = None) -> Arriving:
        """The inputs of the neurons as trains; in recurrent layers with their own ``spikes``."""
        trains = self.seen(inputs) if self.takes_trains else self.seen(inputs).unsqueeze(-1)
        return Arriving(trains, self.synapses, getattr(self, "delay", None), self.until, self.reached)

    def voltages(
        self,
        times: Spikes,
        at: Float[Tensor, " points"],
        observed: Float[Tensor, "*batch out spikes"] | None = None,
        current: Current | None = None,
    ) -> Float[Tensor, "*batch out points"]:
        """Membranes at given times, exact and differentiable, relative to the leak, or as the equations have them.

        Just after events at such a time. Neurons of trains are reset at their spikes. Of those that spike once,
        ``LIF`` neurons go on without a reset, and others spike on. Readouts never spike.

        Args:
            times: the inputs, as in ``forward``.
            at: times in any order, in the unit of the inputs. Neurons with a bias, or from equations, begin at 0.
            observed: trains from elsewhere: data, at which neurons are reset in place of at their own spikes.
            current: what is injected into the neurons, as in ``forward`` of layers for trains.

        Raises:
            ValueError: points that are not finite, or later than the layer's end; layers for images.
        """
        return membranes(self, times, at, observed, current)

    @property
    def neuron(self) -> Any:
        """The neurons' parameters as they are now."""
        if self._neuron is not None:
            return self._neuron
        given: dict[str, Any] = self._numbers | {name: self._now(name) for name in self._tensors}
        if "reset" in self._starts and self._is_depth("reset"):
            given["reset"] = below(given["threshold"], given["reset"])
        return self.initial_neuron.with_values(**given)

    def kind_of(self, parameter: str) -> Literal["weight", "delay", "neuron"]:
        """The owner of a parameter of the layer, by PyTorch's name: synapses, their delays, or the neurons."""
        if parameter.removeprefix("log_") in self._starts:
            return "neuron"
        return "delay" if parameter.endswith("delay_raw") else "weight"

    receptors: Tensor | None
    unused: tuple[str, ...] = (
        *("reset", "refractory", "adaptation_tau", "adaptation_jump", "adaptation_rise", "threshold_tau"),
        "threshold_jump",
    )
    """Parameters of the neurons that play no part, here those of neurons that spike again."""

    @property
    def unusual(self) -> dict[str, str]:
        """The neurons' properties beyond a plain ``LIF``, by parameter and in words, without unused ones."""
        if self.initial_neuron.equations is not None:
            return {"equations": f"of the kind {type(self.initial_neuron).__name__}"}
        values = {name: x for name, x in self.neuron.values.items() if name not in self.unused}
        plain = {"tau_syn": not isinstance(values.get("tau_syn"), tuple), "reset": values.get("reset") is not None}
        found = {name: words for name, words in _UNUSUAL.items() if name in values}
        return {name: words for name, words in found.items() if not plain.get(name, str(values[name]) in ("0.0", "()"))}

    @property
    def _recorded(self) -> dict[str, float]:
        """Numbers of the neurons for a ``state_dict``; 0 for tensors, which have own entries, and for unused ones."""
        found: dict[str, float] = {}
        for name in self.initial_neuron.parameters:
            value = 0.0 if name in self.unused else self._numbers.get(name, 0.0)
            if isinstance(value, tuple):
                found |= {f"{name}[{k}]": x for k, x in enumerate(value)}
            elif name in _RECORDED or (value and name not in ("reset", "refractory")):
                found[name] = value
        return found

    def get_extra_state(self) -> Float[Tensor, " numbers"]:
        """Numbers of the neurons for a ``state_dict``, of plain ones two time constants and the threshold."""
        return self.weight.new_tensor(list(self._recorded.values()))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # checked before anything is overwritten; weights alone have no such entry
        self.set_extra_state(state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state()), prefix)
        synapses.check_structure(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def set_extra_state(self, state: Any, prefix: str = "") -> None:
        """Raise a ValueError if saved weights are for neurons with another threshold or other time constants."""
        own, key = self.get_extra_state(), f"{prefix}_extra_state"
        if not isinstance(state, Tensor) or state.shape != own.shape or not state.is_floating_point():
            raise ValueError(f"{key} must hold {', '.join(self._recorded)} as a tensor ({len(own)},), got {state!r}")
        if state.is_meta or own.is_meta:
            return
        eps = max(torch.finfo(x.dtype).eps for x in (state, own))
        values = zip(self._recorded, *(x.detach().cpu().tolist() for x in (state, own)), strict=True)
        differ = [x for x in values if x[1] and x[2] and not math.isclose(*x[1:], rel_tol=4 * eps)]
        if differ:
            digits = math.ceil(-math.log10(eps))
            trained, mine = (", ".join(f"{x[0]}={x[i]:.{digits}g}" for x in differ) for i in (1, 2))
            raise ValueError(
                f"{prefix}weight was trained with {trained}, but this {self._get_name()} has {mine}; build it with "
                f"{type(self.initial_neuron).__name__}({trained}), or remove {key!r} from the state to load it anyway"
            )

    @property
    def _name(self) -> str:
        return f"{self._get_name()}({self.in_features}, {self.out_features})"

    def _argument(self, name: str) -> Any:
        if name == "synapses":
            return self.sparse.get("weight")
        if name.endswith("mask") and isinstance(mask := getattr(self, name, None), Tensor):
            return f"{int(mask.sum())} of {mask.numel()}"
        if name != "neuron":
            return None if name in self.initial_neuron.parameters else super()._argument(name)
        # values that learn are state, not form: two networks of one form print alike
        shown = {name: _shown(x) for name, x in self.neuron.values.items() if name not in self.unused}
        shown |= {name: f"learnt {tuple(start.shape)}" for name, start in self._starts.items()}
        return f"{type(self.initial_neuron).__name__}({shown_parameters(shown)})"


def _shown(value: Any) -> Any:
    """A parameter of the neuron as it is printed."""
    if isinstance(value, tuple):
        return f"({', '.join(str(_shown(x)) for x in value)})"
    return f"learnt {tuple(value.shape)}" if isinstance(value, nn.Parameter) else value


def _is_several(names: Any) -> bool:
    return isinstance(names, Collection) and not isinstance(names, str)


class SpikingLayer(NeuronLayer):
    """A layer of neurons that spike. Its subclasses define which inputs a neuron receives."""

    usual_weights: float = 1.0
    """Initial weights in units of those with which neurons spike once."""
    passes_on: tuple[str, ...] = ("max_weight_grad", "until", "silent", "backend")
    """Arguments of the operator that are the layer's."""

    def _get_name(self) -> str:
        name = type(self).__name__
        return LIF_NAMES.get(name, name) if type(self.initial_neuron) is LIF else name

    def _draw_usual_weights_(self, generator: torch.Generator | None) -> None:
        inputs, scale = self.matrix_shape[1], self.usual_weights
        self.draw_weights_(lambda unit: NormalWeights(*(scale * x for x in firing_weights(inputs, unit))), generator)

    @torch.no_grad()
    def draw_weights_(
        self, start: Callable[[LIF], NormalWeights], generator: torch.Generator | None, balanced: bool = False
    ) -> None:
        """Redraw the weights by the rule ``start`` for neurons with a threshold of 1, in proportion to the thresholds.

        ``balanced`` shifts those of each neuron so that all neurons of a kind have the same mean weight.
        """
        (rows, inputs), first = self.matrix_shape, self.neuron.values | self._starts
        if self.weight.is_meta:
            return
        if self.initial_neuron.equations is not None:
            drawn = measured_weights(inputs, self.initial_neuron, self.until)
            mean, std = (self.usual_weights * x for x in drawn)
            synapses.draw_(self, "weight", mean, std, generator, usual=True)
            return
        first |= {name: x.unbind(-1) for name, x in self._starts.items() if self._is_tuple(name)}
        threshold, bias = (torch.as_tensor(first.get(name, 0.0)).detach().cpu() for name in ("threshold", "bias"))
        threshold = (threshold - bias.clamp(max=0)).double().expand(rows)
        mem, syn = (torch.as_tensor(x).detach().cpu().double().expand(rows) for x in first_response(first))
        pairs = list(zip(mem.tolist(), syn.tolist(), strict=True))
        starts = {pair: start(LIF(*pair)) for pair in set(pairs)}
        each: Any = next(iter(starts.values()))
        if len(starts) > 1 or balanced:
            each = torch.tensor([starts[pair] for pair in pairs]).to(self.weight).unbind(1)
        mean, std = each
        synapses.draw_(self, "weight", mean, std, generator, True, balanced, threshold.to(self.weight))

    def project_(self) -> None:
        """Put weights and delays that a step carried out of bounds back. A loop of your own calls it after each."""
        synapses.project_(self)

    @property
    def dynamics(self) -> dict[str, Any]:
        """Arguments of the operator other than inputs, synapses and neurons."""
        return {name: getattr(self, name) for name in self.passes_on} | {"receptor": self.reached}

    def arriving(self, inputs: Tensor, spikes: Tensor) -> Arriving:
        """What reaches the neurons, each spike as a separate input: inputs and, of the same samples, its own spikes."""
        return synapses.each_spike(self.fed(inputs, spikes))
