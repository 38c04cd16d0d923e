"""Readouts: leaky integrators without threshold, which turn spikes into values, one for each output.

The membrane of an output is ``V(t) = sum_i w_i kappa(t - t_i)`` over all spikes of all inputs, each with the response
``kappa`` of the receptor that it reaches. A readout returns its integral, its maximum or its value at a time. All three
are exact.
"""

import math
from collections.abc import Collection
from typing import Any, ClassVar, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers.neurons import NeuronLayer, NeuronOptions
from firstspike.layers.programs import MadeAgain, by_values
from firstspike.layers.synapses import Receptors, draw_
from firstspike.layers.trains import Spikes
from firstspike.neurons import LIF, Neuron
from firstspike.neurons.base import ROLES, each
from firstspike.ranges import NotNegative, Positive, PositiveOrInf, Size, checks_ranges
from firstspike.signature import takes_arguments_of
from firstspike.spiketime import spike_window
from firstspike.spiketime.maxima.peaks import maximum
from firstspike.spiketime.response import ReceptorTaus, at_rest, reaching, response, time_constants_of
from firstspike.spiketime.values import raised, real_times


class ReadoutOptions(NeuronOptions, total=False):
    """Keyword arguments of all readouts, see ``Readout``."""

    trainable: Collection[str]
    per_neuron: bool
    receptor: Receptors


@takes_arguments_of(NeuronLayer, without=("shape", "max_weight_grad", "until", "silent", "backend", "signs"))
class Readout(NeuronLayer):
    """A layer of leaky integrators: ``times (batch, in_features[, spikes]) -> values (batch, out_features)``.

    It is the last layer of a network, and its losses are ``ReadoutCrossEntropy`` and ``ReadoutMSE``.

    Args:
        out_features: number of outputs.
        neuron: time constants and bias of the integrators, a ``LIF``. Its threshold is not used. A bias acts from time
            0 on. Earlier spikes do not arrive then.
        trainable: which of ``"tau_mem"``, ``"tau_syn"``, ``"tau_rise"`` and ``"bias"`` are trained.
        per_neuron: whether each output has separate values of the trainable parameters. Otherwise the layer shares one.
        weight_mean: mean of the initial weights, which are normally distributed; given together with ``weight_std``. By
            default the mean is 0 and the standard deviation ``1 / sqrt(in_features)``.
    """

    unused = (*NeuronLayer.unused, "threshold")
    takes_trains = True
    from_equations: ClassVar[bool] = False
    """Whether neurons from equations may be its integrators."""
    gives = "values"
    usual_mean: ClassVar[float] = 0.0
    """Mean of the initial weights, in standard deviations."""

    def __init__(
        self, in_features: Size, out_features: Size, neuron: Neuron | None = None, **options: Unpack[ReadoutOptions]
    ) -> None:
        if neuron is not None and neuron.equations is not None and not self.from_equations:
            raise ValueError(f"{self._get_name()} takes LIF neurons; MembraneReadout takes neurons from equations, too")
        if neuron is not None and any(ROLES[part.kind].own for part in neuron.components):
            raise ValueError(f"readouts do not spike: nothing of them adapts, give a LIF instead of {neuron}")
        super().__init__((out_features, in_features), in_features, out_features, neuron, **options)
        for name in ("tau_mem", "tau_syn", "tau_rise"):  # of neurons from equations the operator checks them
            for x in each(self.initial_neuron.values.get(name)):
                if isinstance(x, Tensor) and not x.is_meta and not bool((x > 0).all()):
                    raise ValueError(f"{name} must be > 0 in a tensor, got {x.detach().tolist()}")

    def _draw_usual_weights_(self, generator: torch.Generator | None) -> None:
        spread = 1 / math.sqrt(self.in_features)
        draw_(self, "weight", self.usual_mean * spread, spread, generator, usual=True)

    def forward(
        self, times: Spikes, observed: Float[Tensor, "*batch out_features"] | None = None
    ) -> Float[Tensor, "*batch out_features"]:
        """Values of the outputs; with ``observed``, these times and the gradient of the computed ones."""
        trains, device = real_times(self.seen(times)), self.weight.device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                values = self.read(raised(trains, self.weight.dtype))
        else:
            values = self.read(trains)
        return values if observed is None else observed + (values - values.detach())

    def read(self, trains: Float[Tensor, "*batch in_features spikes"]) -> Float[Tensor, "*batch out_features"]:
        """The values, in a subclass."""
        raise NotImplementedError

    def _parts(self) -> list[tuple[ReceptorTaus, Float[Tensor, "out_features in_features"]]]:
        """The receptors, and the weights of the inputs that reach each."""
        receptors = time_constants_of(self.neuron)
        if len(receptors) == 1:
            return [(receptors[0], self.synapses)]
        return [(one, reaching(self.synapses, self.receptors, k)) for k, one in enumerate(receptors)]

    def _bias(self) -> Any:
        """The bias, None without one."""
        bias = self.neuron.bias
        return bias if isinstance(bias, Tensor) or bias else None


@takes_arguments_of(Readout)
@checks_ranges
class IntegralReadout(Readout):
    """The discounted integral of the membrane over all times: ``int exp(-t / tau) V(t) dt``.

    In closed form it is one matrix product, of the weights with the sums of ``exp(-t_i / tau)`` over the spikes of each
    input, which costs as much as a dense layer. Spikes before time 0 are included, with a factor above 1. If all times
    are later by c, all values are multiplied by ``exp(-c / tau)``: the largest one stays the largest.

    Args:
        tau: time constant of the discount, in the unit of the times; ``inf`` counts all times alike, and then the
            values depend on the numbers of spikes only, not on their times.

    Raises:
        ValueError: ``tau`` not above 0, or ``inf`` together with a bias or a ``tau_mem`` of ``inf``, where the integral
            diverges; otherwise as ``Readout``.
    """

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        neuron: Neuron | None = None,
        *,
        tau: PositiveOrInf = 10.0,
        **options: Unpack[ReadoutOptions],
    ) -> None:
        if math.isinf(tau) and neuron is not None and bool(torch.as_tensor(neuron.values["tau_mem"]).isinf().any()):
            raise ValueError("the integral diverges for tau_mem=inf with tau=inf; give a finite tau")
        super().__init__(in_features, out_features, neuron, **options)
        if math.isinf(tau) and self._bias() is not None:
            raise ValueError("the integral diverges for a bias with tau=inf; give a finite tau")
        self.tau = tau

    def read(self, trains: Float[Tensor, "*batch in_features spikes"]) -> Float[Tensor, "*batch out_features"]:
        """The values of the outputs, as in ``Readout``."""
        arrives, bias = ~torch.isposinf(trains), self._bias()  # NaN, which compiled code does not refuse, stays NaN
        arrives = arrives if bias is None else arrives & ~(trains < 0)
        discount = torch.exp(-torch.where(arrives, trains, 0.0) / self.tau)
        per_input = torch.where(arrives, discount, 0.0).sum(dim=-1)
        leak = 1 / self.tau + 1 / self.neuron.tau_mem
        values = per_input.new_zeros(()) if bias is None else bias * (self.tau - 1 / leak)
        for (syn, rise), weight in self._parts():
            fed = (per_input @ weight.mT) / (syn * leak * (1 / self.tau + 1 / syn))
            values = values + (fed if rise is None else fed / (1 + rise / self.tau))
        return values


@takes_arguments_of(Readout)
@checks_ranges
class MembraneReadout(Readout):
    """The membrane at one time: ``V(time)``, of the spikes before it, which may be before time 0.

    If all times are later by c, the values are those of the time ``time - c``. Neurons from equations begin at time 0,
    and have no threshold here: their equations must lead nowhere without one.

    Args:
        time: when the membrane is read, in the unit of the times. Later spikes do not count.

    Raises:
        ValueError: a ``time`` that is not positive or not finite; otherwise as ``Readout``.
    """

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        neuron: Neuron | None = None,
        *,
        time: Positive,
        **options: Unpack[ReadoutOptions],
    ) -> None:
        super().__init__(in_features, out_features, neuron, **options)
        self.time = time

    from_equations = True

    def read(self, trains: Float[Tensor, "*batch in_features spikes"]) -> Float[Tensor, "*batch out_features"]:
        """The values of the outputs, as in ``Readout``."""
        if self.initial_neuron.equations is not None:
            return self._integrated(trains)
        since = self.time - trains
        causal, mem, bias = ~(since <= 0), self.neuron.tau_mem, self._bias()
        causal = causal if bias is None else causal & ~(trains < 0)
        since = torch.where(causal, since, 0.0)  # kappa(0) is 0
        parts = self._parts()
        used = [x for x in (mem, *(x for one, _ in parts for x in one)) if isinstance(x, Tensor)]
        if used:
            _check_reverse("MembraneReadout with trained time constants")
        values = since.new_zeros(()) if bias is None else at_rest(since.new_tensor(self.time), mem, bias)
        if all(x.ndim == 0 for x in used):
            for one, weight in parts:
                values = values + response(since, mem, one).sum(dim=-1) @ weight.mT
            return values
        mem = _by_output(mem)
        for (syn, rise), weight in parts:
            one = ReceptorTaus(_by_output(syn), None if rise is None else _by_output(rise))
            values = values + (response(since.unsqueeze(-3), mem, one).sum(dim=-1) * weight).sum(dim=-1)
        return values

    def _integrated(self, trains: Float[Tensor, "*batch in_features spikes"]) -> Float[Tensor, "*batch out_features"]:
        neuron: Neuron = self.neuron
        given: dict[str, Any] = {"max_spikes": 1, "receptor": self.reached, "until": self.time}
        state = spike_window(trains, self.synapses, neuron.without_spikes(), **given).state
        assert state is not None
        assert neuron.equations is not None
        states = (state.voltage, *state.current.unbind(-1))
        return neuron.membrane_of(dict(zip(neuron.equations.states, states, strict=True)), self.weight)


@takes_arguments_of(Readout, without=("trainable", "per_neuron"))
@checks_ranges
class MaximumReadout(Readout, MadeAgain):
    """The largest value that the membrane ever reaches: ``max V(t)`` over all times, exact and differentiable.

    It is at least 0, the value at rest, from which every sample starts, and does not change if all times are later by
    any c. A membrane with a bias comes to rest there, so that it is at least the bias. The derivative is that of the
    membrane at the time of the maximum. One that never rises has none, so usual weights are positive in the mean. With
    a ``negative_slope`` the value is ``max V(t) + negative_slope min V(t)``, likewise exact: an output that stays below
    rest then has a value below 0 and a gradient, and only one that no spike reaches has none.

    Args:
        negative_slope: weight of the smallest value of the membrane, which is at most 0, as in ``torch.nn.LeakyReLU``.
            It takes as long as the maximum once more.

    Raises:
        ValueError: a negative slope below 0; time constants that require a gradient, for which the maximum has none;
            otherwise as ``Readout``.
    """

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        neuron: Neuron | None = None,
        *,
        negative_slope: NotNegative = 0.0,
        **options: Unpack[NeuronOptions],
    ) -> None:
        given: Any = LIF() if neuron is None else neuron
        taus = (given.tau_mem, given.bias, *(x for one in time_constants_of(given) for x in one))
        if any(isinstance(x, Tensor) and x.requires_grad for x in taus):
            raise ValueError("MaximumReadout has no gradient of time constants; give numbers, or tensors without one")
        super().__init__(in_features, out_features, neuron, **options)
        self.negative_slope = negative_slope

    usual_mean = 1.0
    forward = by_values(Readout.forward)

    def read(self, trains: Float[Tensor, "*batch in_features spikes"]) -> Float[Tensor, "*batch out_features"]:
        """The values of the outputs, as in ``Readout``."""
        _check_reverse("MaximumReadout")
        batch, weight, neuron = trains.shape[:-2], self.synapses, self.neuron
        trains = trains.reshape(math.prod(batch), *trains.shape[-2:])
        found = maximum(trains, weight, neuron, self.reached)
        if self.negative_slope:  # the minimum is the maximum of the membrane upside down
            turned: dict[str, Any] = {} if self._bias() is None else {"bias": -neuron.bias}
            if self.reached == "sign":  # excitation is now inhibition
                names = [name for name in ("tau_syn", "tau_rise") if isinstance(neuron.values.get(name), tuple)]
                turned |= {name: neuron.values[name][::-1] for name in names}
            found = found - self.negative_slope * maximum(trains, -weight, neuron.with_values(**turned), self.reached)
        return found.reshape(*batch, self.out_features)


def _by_output(value: float | Tensor) -> float | Tensor:
    """Values of the outputs, in a dimension before those of inputs and spikes."""
    return value.view(-1, 1, 1) if isinstance(value, Tensor) else value


def _check_reverse(what: str) -> None:
    """Raise a NotImplementedError in forward mode."""
    if torch.autograd.forward_ad._current_level >= 0:
        raise NotImplementedError(f"{what} has no forward mode; take torch.func.jacrev or vjp")
