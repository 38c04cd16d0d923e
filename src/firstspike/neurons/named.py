"""Neurons with a name that are described by their equations. They share::

    dI_r/dt = -I_r / tau_syn_r,      I_r = I_r + w at an input of weight w that reaches the receptor r

``I`` without a number is the sum over receptors. Each value is one number for all neurons of a layer, or a tensor
``()`` or ``(out,)``, which may require a gradient. All start with currents of 0, and ``bias`` acts from the start on.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.neurons.base import POTENTIAL, TIME, Neuron, Parameter, Unit, each, warn_of_volts
from firstspike.neurons.equations import Equations, read_equations
from firstspike.neurons.expressions import read
from firstspike.neurons.lif import Positives
from firstspike.ranges import Finite, NotNegative, Positive, PositiveOrInf
from firstspike.signature import takes_arguments_of

Finites = Finite | Tensor | tuple[Finite | Tensor, ...]

_PLAIN, _RATE, _CURRENT = Unit(), Unit(time=-1), Unit(time=-1, potential=1)  # where capacities are plain numbers
_SUMS = {"currents": "i{0}", "drive": "i{0}/tau_syn{0}", "pulls": "g{0}*(reversal{0} - v)"}
"""Sums over receptors in equations, by their names there."""
_known: dict[tuple[Any, ...], Equations] = {}
"""Equations by their texts. Unlike ``lru_cache``, programs that torch records look them up."""


def _free(unit: Unit, **more: bool) -> Parameter:
    return Parameter(unit, -math.inf, **more)


class _Text(NamedTuple):
    """The text of a neuron's equations, without its synapses, and with the names of ``_SUMS`` in braces."""

    flow: str
    threshold: str
    reset: str
    start: Mapping[str, float | str] = {}


class _Named(Neuron):
    """A neuron whose equations are known. They depend on how many receptors it has."""

    tau_syn: Any
    threshold: Any
    state_of_synapses: ClassVar[str] = "i"

    def __post_init__(self) -> None:
        super().__post_init__()
        reset, threshold = self.values.get("reset"), self.threshold
        if isinstance(reset, float) and isinstance(threshold, float) and not reset < threshold:
            raise ValueError(f"reset must be below the threshold of {threshold}, got {reset}")
        if self.tau_syn == ():
            raise ValueError("tau_syn must have a time constant for each receptor, got none")
        ends = [f"_{k}" for k in range(len(self.tau_syn))] if isinstance(self.tau_syn, tuple) else [""]
        text, name = self._text, self.state_of_synapses
        flow = text.flow.format(**{key: " + ".join(map(form.format, ends)) for key, form in _SUMS.items()})
        lines = [flow, *(f"d{name}{x}/dt = -{name}{x} / tau_syn{x}" for x in ends)]
        held = tuple(x for x in ("v", "n", "d") if f"d{x}/dt" in text.flow)
        receptors = tuple(f"{name}{x}" for x in ends)
        start = {state: read(x, "start") if isinstance(x, str) else x for state, x in text.start.items()}
        given = "\n".join(lines), text.threshold, text.reset, receptors, held
        if given not in _known:
            _known[given] = read_equations(*given)
        self.__dict__.update(equations=_known[given], start=start)
        levels = [name for name, x in self.parameters.items() if x.unit == POTENTIAL and not x.several]
        warn_of_volts(self.values, {name: getattr(type(self), name) for name in levels})
        self._warn_of_start()

    @property
    def _text(self) -> _Text:
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False)
class _Membrane(_Named):
    """A neuron whose membrane has a time constant and is reset.

    Args:
        tau_mem: membrane time constant, > 0, in the unit of all times.
        tau_syn: synaptic time constant, > 0; a tuple with one for each receptor.
        threshold: v of a spike, > 0.
        reset: v after a spike, below the threshold.
        refractory: time for which v stays there, >= 0. Other states go on.
        bias: constant input, as the membrane where it alone acts on the leak comes to rest.
        unit: name of the unit of all times in figures and reports, such as ``"ms"``; None for ``tau_syn``.

    Raises:
        ValueError: a value outside of these bounds, or not a number.
    """

    tau_mem: Positive | Tensor = 1.0
    tau_syn: Positives = 1.0
    threshold: Finite | Tensor = 1.0
    reset: Finite | Tensor = 0.0
    refractory: NotNegative | Tensor = 0.0
    bias: Finite | Tensor = 0.0
    unit: str | None = field(default=None, kw_only=True)

    parameters: ClassVar[Mapping[str, Parameter]] = {
        "tau_mem": Parameter(TIME, 0.0), "tau_syn": Parameter(TIME, 0.0, several=True),
        "threshold": Parameter(POTENTIAL, 0.0), "reset": _free(POTENTIAL),
        "refractory": Parameter(TIME, 0.0, included=True), "bias": _free(POTENTIAL),
    }  # fmt: skip


@takes_arguments_of(_Membrane)
@dataclass(frozen=True, eq=False, repr=False)
class QIF(_Membrane):
    """A quadratic integrate-and-fire neuron, the normal form of neurons at the onset of slow regular spiking::

        tau_mem dv/dt = v (v - 1) + bias + I

    It rests at v = 0, and spikes once v has passed 1 for good. v is a number without a unit. By default it spikes where
    v is infinite, and goes on from minus infinity by itself: no reset is chosen. So a spike only comes or goes at the
    end of a trial. Its states are n and d with v = n / d, in which the equation is linear, and computed several times
    faster: ``tau_mem dn/dt = (bias + I) d - n``, ``tau_mem dd/dt = -n``.

    Args:
        threshold: v of a spike, > 0. The number ``math.inf`` is a spike at infinity.
        reset: v after a spike, below the threshold. The number ``-math.inf`` is the other side of infinity.
        bias: constant input. Above 1/4 the neuron spikes without others.

    Source: Latham et al. 2000, "Intrinsic dynamics in neuronal networks. I. Theory"; as here, with v in units of the
    distance from rest to threshold, Klos and Memmesheimer 2025, "Smooth exact gradient descent learning in spiking
    neural networks".
    """

    threshold: PositiveOrInf | Tensor = math.inf
    reset: float | Tensor = -math.inf

    parameters: ClassVar[Mapping[str, Parameter]] = {
        **_Membrane.parameters, "threshold": Parameter(_PLAIN, 0.0, infinite=True),
        "reset": _free(_PLAIN, included=True), "bias": _free(_PLAIN),
    }  # fmt: skip

    @property
    def membrane(self) -> str:
        """The membrane as a formula of the states."""
        return "n/d"

    def pseudospikes(
        self, voltage: Tensor, current: Tensor, left: Tensor, until: float, count: int
    ) -> Float[Tensor, "*batch outputs count"]:
        """Spikes after ``until``, from the state there: all currents end, and a constant drive of pi^2 + 1/4 begins.

        From minus to plus infinity the membrane then takes one ``tau_mem``. A spike that comes at ``until`` is the same
        as the first of these, so that spikes pass the end without a jump.
        """

        def phase(v: float | Tensor) -> Tensor:
            return torch.atan((torch.as_tensor(v, dtype=voltage.dtype).to(voltage) - 0.5) / math.pi)

        tau, refractory = (torch.as_tensor(x, dtype=voltage.dtype).to(voltage) for x in (self.tau_mem, self.refractory))
        n, d = voltage, current[..., 0]
        now, top = torch.atan2(n - d / 2, math.pi * d), phase(self.threshold)
        first = until + left + (top - now) * tau / math.pi
        period = refractory + (top - phase(self.reset)) * tau / math.pi
        return first.unsqueeze(-1) + torch.arange(count).to(first) * period.unsqueeze(-1)

    @property
    def _text(self) -> _Text:
        flow = "dn/dt = ((bias + {currents})*d - n) / tau_mem\ndd/dt = -n / tau_mem"
        at_infinity = not isinstance(self.threshold, Tensor) and self.threshold == math.inf
        other_side = not isinstance(self.reset, Tensor) and self.reset == -math.inf
        reset = "n = -1; d = 0" if other_side else "n = reset; d = 1"
        return _Text(flow, "-d > 0" if at_infinity else "n > threshold*d", reset, {"d": 1.0})


@takes_arguments_of(_Membrane)
@dataclass(frozen=True, eq=False, repr=False)
class EIF(_Membrane):
    """An exponential integrate-and-fire neuron: a ``LIF`` whose spikes take off by themselves::

        tau_mem dv/dt = -v + delta_t exp((v - v_t) / delta_t) + bias + tau_mem sum_r I_r / tau_syn_r

    v is relative to the leak potential. With a small ``delta_t`` it becomes a ``LIF`` with the threshold ``v_t``.

    Args:
        threshold: v of a spike. It changes times little where it is a few ``delta_t`` above ``v_t``. From some 20
            ``delta_t`` on, v runs away too fast for steps that numbers can tell apart.
        v_t: v above which the upstroke of a spike begins.
        delta_t: over which range of v spikes take off, > 0.

    Source: Fourcaud-Trocmé et al. 2003, "How spike generation mechanisms determine the neuronal response to fluctuating
    inputs".
    """

    threshold: Finite | Tensor = 2.0
    v_t: Finite | Tensor = 1.0
    delta_t: Positive | Tensor = 0.2

    parameters: ClassVar[Mapping[str, Parameter]] = {
        **_Membrane.parameters, "threshold": _free(POTENTIAL), "v_t": _free(POTENTIAL),
        "delta_t": Parameter(POTENTIAL, 0.0),
    }  # fmt: skip

    _text = _Text(
        "dv/dt = (delta_t*exp((v - v_t)/delta_t) - v + bias + tau_mem*({drive})) / tau_mem",
        "v > threshold", "v = reset",
    )  # fmt: skip


@takes_arguments_of(_Membrane)
@dataclass(frozen=True, eq=False, repr=False)
class AdEx(_Membrane):
    """An adaptive exponential integrate-and-fire neuron, in ms, mV, pF, nS and pA, with weights in pA::

        c_m dv/dt = g_l (-(v - e_l) + delta_t exp((v - v_t) / delta_t)) - w + bias + I,      g_l = c_m / tau_mem
        tau_w dw/dt = a (v - e_l) - w;       v = reset, w = w + b at a spike

    It starts at ``e_l``, with w = 0. The defaults are those of the source, except for ``threshold``, 20 mV there. That
    of PyNN is taken, as v runs away: at -40 mV the rest of the upstroke takes 0.05 ms.

    Args:
        tau_mem: membrane time constant ``c_m / g_l`` in ms, > 0.
        tau_syn: synaptic time constant in ms, > 0; a tuple with one for each receptor.
        threshold: v of a spike in mV: NEST's ``V_peak``, PyNN's ``v_spike``. It changes times little where it is a few
            ``delta_t`` above ``v_t``. From some 20 ``delta_t`` on, steps are too short for numbers to tell apart.
        reset: v after a spike in mV: ``V_reset``, ``v_reset``.
        refractory: time in ms for which v stays there, >= 0, while w goes on: ``t_ref``, ``tau_refrac``.
        bias: constant current in pA: ``I_e``, ``i_offset``.
        c_m: capacity in pF, > 0: ``C_m``, ``cm``.
        e_l: leak potential in mV: ``E_L``, ``v_rest``.
        v_t: v above which the upstroke of a spike begins, in mV: ``V_th``, ``v_thresh``.
        delta_t: over which range of v spikes take off, in mV, > 0: ``Delta_T``, ``delta_T``.
        tau_w: time constant of the adaptation in ms, > 0.
        a: conductance in nS with which the adaptation follows v below the threshold.
        b: jump of the adaptation at a spike in pA.

    Source: Brette and Gerstner 2005, "Adaptive exponential integrate-and-fire model as an effective description of
    neuronal activity", there with conductances as synapses.
    """

    tau_mem: Positive | Tensor = 281.0 / 30.0
    tau_syn: Positives = 5.0
    threshold: Finite | Tensor = -40.0
    reset: Finite | Tensor = -70.6
    c_m: Positive | Tensor = 281.0
    e_l: Finite | Tensor = -70.6
    v_t: Finite | Tensor = -50.4
    delta_t: Positive | Tensor = 2.0
    tau_w: Positive | Tensor = 144.0
    a: Finite | Tensor = 4.0
    b: Finite | Tensor = 80.5
    unit: str | None = field(default="ms", kw_only=True)

    parameters: ClassVar[Mapping[str, Parameter]] = {
        **EIF.parameters, "bias": _free(_CURRENT), "c_m": Parameter(_PLAIN, 0.0), "e_l": _free(POTENTIAL),
        "tau_w": Parameter(TIME, 0.0), "a": _free(_RATE), "b": _free(_CURRENT),
    }  # fmt: skip

    _text = _Text(
        "dv/dt = (delta_t*exp((v - v_t)/delta_t) - (v - e_l)) / tau_mem + (bias + {currents} - w) / c_m\n"
        "dw/dt = (a*(v - e_l) - w) / tau_w",
        "v > threshold", "v = reset; w += b", {"v": "e_l"},
    )  # fmt: skip


@takes_arguments_of(_Membrane, without=("tau_mem", "reset"))
@dataclass(frozen=True, eq=False, repr=False)
class Izhikevich(_Named):
    """Izhikevich's simple model, in ms and mV, with many patterns of spikes by few parameters::

        dv/dt = 0.04 v^2 + 5 v + 140 - u + bias + I
        du/dt = a (b v - u);       v = c, u = u + d at a spike

    It starts at v = -70 mV, u = -70 b, which is its rest for the default b. The source has no synaptic currents.

    Args:
        tau_syn: synaptic time constant in ms, > 0; a tuple with one for each receptor.
        threshold: peak of a spike in mV, 30 in the source.
        refractory: time in ms for which v stays at c after a spike, >= 0.
        bias: constant input in mV/ms.
        a: rate of the recovery u, per ms.
        b: how much u follows v.
        c: v after a spike in mV, below the threshold.
        d: jump of u at a spike.
        unit: name of the unit of all times in figures and reports.

    Source: Izhikevich 2003, "Simple model of spiking neurons", eqs. 1 to 3. The defaults are regular spiking.
    """

    tau_syn: Positives = 5.0
    threshold: Finite | Tensor = 30.0
    refractory: NotNegative | Tensor = 0.0
    bias: Finite | Tensor = 0.0
    a: Finite | Tensor = 0.02
    b: Finite | Tensor = 0.2
    c: Finite | Tensor = -65.0
    d: Finite | Tensor = 8.0
    unit: str | None = field(default="ms", kw_only=True)

    parameters: ClassVar[Mapping[str, Parameter]] = {
        "tau_syn": _Membrane.parameters["tau_syn"], "threshold": _free(POTENTIAL),
        "refractory": _Membrane.parameters["refractory"], "bias": _free(_CURRENT), "a": _free(_RATE),
        "b": _free(_RATE), "c": _free(POTENTIAL), "d": _free(_CURRENT),
    }  # fmt: skip

    _text = _Text(
        "dv/dt = 0.04*v**2 + 5*v + 140 - u + bias + {currents}\ndu/dt = a*(b*v - u)",
        "v > threshold", "v = c; u += d", {"v": -70.0, "u": "-70*b"},
    )  # fmt: skip


@takes_arguments_of(_Membrane)
@dataclass(frozen=True, eq=False, repr=False)
class AdLIF(_Membrane):
    """A ``LIF`` with an adaptation that also follows the membrane below the threshold, so that it may resonate::

        tau_mem dv/dt = -v - w + bias + tau_mem sum_r I_r / tau_syn_r
        tau_w dw/dt = a v - w;       v = reset, w = w + b at a spike

    v is relative to the leak potential. It oscillates where ``4 a tau_mem tau_w > (tau_mem - tau_w)^2``. Its spikes
    are then also found exactly. Adaptation by spikes alone (a = 0) is computed faster by ``AdaptiveLIF``.

    Args:
        tau_w: time constant of the adaptation, > 0.
        a: how much the adaptation follows the membrane. -1 and below is unstable.
        b: jump of the adaptation at a spike.

    Source: Bittar and Garner 2022, "A surrogate gradient spiking baseline for speech command recognition", and Baronig
    et al. 2025, "Advancing spatio-temporal processing through adaptation in spiking neural networks", in continuous
    time. There weights act without a synaptic current. Spikes of the first subtract the threshold.
    """

    tau_w: Positive | Tensor = 4.0
    a: Finite | Tensor = 1.0
    b: Finite | Tensor = 0.5

    parameters: ClassVar[Mapping[str, Parameter]] = {
        **_Membrane.parameters, "tau_w": Parameter(TIME, 0.0), "a": _free(_PLAIN), "b": _free(POTENTIAL),
    }  # fmt: skip

    _text = _Text(
        "dv/dt = (bias + tau_mem*({drive}) - v - w) / tau_mem\ndw/dt = (a*v - w) / tau_w",
        "v > threshold", "v = reset; w += b",
    )  # fmt: skip


@takes_arguments_of(_Membrane)
@dataclass(frozen=True, eq=False, repr=False)
class ConductanceLIF(_Membrane):
    """A ``LIF`` whose synapses are conductances: each input pulls the membrane to the reversal potential of its kind::

        tau_mem dv/dt = -v + bias + sum_r g_r (reversal_r - v),      dg_r/dt = -g_r / tau_syn_r

    v is relative to the leak potential, and g to the leak's conductance. Inputs add their weights, which are >= 0, to
    the g of their receptor. Layers keep them so with ``signs``. With ``receptor="sign"`` weights < 0 add their size to
    the second g. With reversal potentials far away it becomes a ``LIF``.

    Args:
        tau_syn: time constants of the conductances, > 0, here of excitation and inhibition.
        reversal: reversal potentials, one for each of ``tau_syn``.

    Raises:
        ValueError: a value outside of these bounds, or not a number. As many reversal potentials as time constants are
            needed. When it is used, a negative weight of an input whose receptor has a number.

    Source: Destexhe 1997, "Conductance-based integrate-and-fire models"; PyNN's ``IF_cond_exp``.
    """

    tau_syn: Positives = (1.0, 1.0)
    reversal: Finites = (4.0, -1.0)

    parameters: ClassVar[Mapping[str, Parameter]] = {
        **_Membrane.parameters, "reversal": _free(POTENTIAL, several=True),
    }  # fmt: skip
    conducts = True
    state_of_synapses = "g"

    def __post_init__(self) -> None:
        super().__post_init__()
        taus, potentials = self.tau_syn, self.reversal
        if isinstance(taus, tuple) != isinstance(potentials, tuple) or len(each(taus)) != len(each(potentials)):
            raise ValueError(f"reversal must have a potential for each tau_syn, {taus}, got {potentials}")

    _text = _Text("dv/dt = (bias - v + {pulls}) / tau_mem", "v > threshold", "v = reset")
