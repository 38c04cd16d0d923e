"""Neurons as PyNN and NEST write them: by their names, in ms, mV, and nF, nA and uS, or pF, pA and nS."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from numbers import Real
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from firstspike.neurons.base import Neuron, each, warn_of_volts
from firstspike.neurons.lif import LIF, AdaptiveLIF
from firstspike.neurons.named import AdEx, ConductanceLIF
from firstspike.ranges import as_float


class _Model(NamedTuple):
    """A cell, in NEST's names and units, with ``tau_m`` for ``C_m / g_L``."""

    make: Callable[..., Neuron]
    names: Mapping[str, Any] | None
    """The names of the neuron's parameters, the one of excitation first; None if they are the same."""
    gain: Callable[[Any, Any], Any]
    """The neuron's weight for one of 1 there, by a synapse's time constant and all parameters."""
    defaults: dict[str, float]
    """The defaults, in the simulator's names and units."""
    small: tuple[str, ...] = ()
    """Parameters in thousands of NEST's units, and ``w`` if weights are."""


_TO_NEST = {
    "cm": "C_m", "v_rest": "E_L", "v_reset": "V_reset", "v_thresh": "V_th", "tau_refrac": "t_ref", "i_offset": "I_e",
    "tau_syn_E": "tau_syn_ex", "tau_syn_I": "tau_syn_in", "e_rev_E": "E_ex", "e_rev_I": "E_in", "v_spike": "V_peak",
    "delta_T": "Delta_T",
}  # fmt: skip
_LEVELS = {"V_th", "V_reset", "E_ex", "E_in", "omega"}
_POSITIVE = {"cm", "C_m", "g_L", "tau_m", "delta_T", "Delta_T"}
_SYNAPSES = "tau_syn_ex", "tau_syn_in"
_IF = {"tau_mem": "tau_m", "tau_syn": _SYNAPSES, "threshold": "V_th", "refractory": "t_ref", "bias": "I_e"}
_LIF = _IF | {"reset": "V_reset"}
_MAT = _IF | {"threshold": "omega", "threshold_tau": ("tau_1", "tau_2"), "threshold_jump": ("alpha_1", "alpha_2")}
_ADEX = _LIF | {"c_m": "C_m", "e_l": "E_L", "v_t": "V_th", "delta_t": "Delta_T", "threshold": "V_peak"}
_ADEX |= {x: x for x in ("tau_w", "a", "b")}
_ADEX_TEXT = """
dv/dt = (E_L - v + Delta_T*exp((v - V_th)/Delta_T)) / tau_m + (I_e - w + g_ex*(E_ex - v) + g_in*(E_in - v)) / C_m
dw/dt = (a*(v - E_L) - w) / tau_w; dg_ex/dt = -g_ex / tau_syn_ex; dg_in/dt = -g_in / tau_syn_in"""
_NANO = "cm", "i_offset", "w"
_PYNN = {"cm": 1.0, "tau_m": 20.0, "tau_refrac": 0.1, "i_offset": 0.0}
_PYNN |= {"v_rest": -65.0, "v_reset": -65.0, "v_thresh": -50.0}
_PYNN_EXP = dict(_PYNN, tau_syn_E=5.0, tau_syn_I=5.0)
_PYNN_COND = dict(_PYNN_EXP, e_rev_E=0.0, e_rev_I=-70.0)
_PYNN_ADEX = dict(_PYNN_COND, cm=0.281, tau_m=9.3667, v_rest=-70.6, v_reset=-70.6, v_thresh=-50.4, v_spike=-40.0)
_PYNN_ADEX |= {"delta_T": 2.0, "tau_w": 144.0, "a": 4.0, "b": 0.0805, "e_rev_I": -80.0}
_NEST = {"C_m": 250.0, "t_ref": 2.0, "I_e": 0.0, "E_L": -70.0, "V_reset": -70.0, "V_th": -55.0}
_NEST_LIF = dict(_NEST, tau_m=10.0)
_NEST_EXP = dict(_NEST_LIF, tau_syn_ex=2.0, tau_syn_in=2.0)
_NEST_COND = dict(_NEST, g_L=16.6667, V_reset=-60.0, tau_syn_ex=0.2, tau_syn_in=2.0)
_NEST_ADEX = dict(_NEST_COND, C_m=281.0, g_L=30.0, t_ref=0.0, E_L=-70.6, V_th=-50.4, V_peak=0.0)
_NEST_ADEX |= {"Delta_T": 2.0, "tau_w": 144.0, "a": 4.0, "b": 80.5}
_NEST_MAT = {"C_m": 100.0, "tau_m": 5.0, "t_ref": 2.0, "I_e": 0.0, "E_L": -70.0, "tau_syn_ex": 1.0, "tau_syn_in": 3.0}
_NEST_MAT |= {"omega": -51.0, "tau_1": 10.0, "alpha_1": 37.0, "tau_2": 200.0, "alpha_2": 2.0}
_REVERSAL, _ABC = {"E_ex": 0.0, "E_in": -85.0}, {"a": 0.02, "b": 0.2, "c": -65.0}


def _own(text: str, threshold: str, reset: str, *receptors: str, **start: Any) -> partial[_Model]:
    given: dict[str, Any] = {"receptors": receptors, "start": start, "conducts": len(receptors) > 1}
    make = partial(Neuron, text, threshold=f"v > {threshold}", reset=reset, **given)
    return partial(_Model, make, None, lambda tau, p: 1.0)


_EXP = partial(_Model, LIF, _LIF, lambda tau, p: tau / p["C_m"])
_ALPHA = partial(_Model, lambda **x: LIF(**x, tau_rise=x["tau_syn"]), _LIF, lambda tau, p: math.e * tau / p["C_m"])
_COND = partial(_Model, ConductanceLIF, _LIF | {"reversal": ("E_ex", "E_in")}, lambda tau, p: p["tau_m"] / p["C_m"])
_DELTA = _own("dv/dt = (E_L - v) / tau_m + I_e / C_m", "V_th", "v = V_reset", "v", v="E_L")
_ADEX_COND = _own(_ADEX_TEXT, "V_peak", "v = V_reset; w += b", "g_ex", "g_in", v="E_L")
_IZHI_PYNN, _IZHI_NEST = (
    _own("dv/dt = 0.04*v**2 + 5*v + 140 - u + I_e; du/dt = a*(b*v - u)", peak, "v = c; u += d", "v", v=v, u=u)
    for peak, v, u in (("30", -70.0, -14.0), ("V_th", -65.0, -13.0))
)
CELLS = {
    "IF_curr_exp": _EXP(_PYNN_EXP, _NANO),
    "IF_curr_alpha": _ALPHA(_PYNN | {"tau_syn_E": 0.5, "tau_syn_I": 0.5}, _NANO),
    "IF_curr_delta": _DELTA(_PYNN, _NANO[:2]),
    "IF_cond_exp": _COND(_PYNN_COND, _NANO),
    "EIF_cond_exp_isfa_ista": _ADEX_COND(_PYNN_ADEX, (*_NANO, "b")),
    "Izhikevich": _IZHI_PYNN(_ABC | {"d": 2.0, "i_offset": 0.0}, _NANO[1:2]),
    **dict.fromkeys(("iaf_psc_exp", "iaf_psc_exp_ps"), _EXP(_NEST_EXP)),
    **dict.fromkeys(("iaf_psc_alpha", "iaf_psc_alpha_ps"), _ALPHA(_NEST_EXP)),
    **dict.fromkeys(("iaf_psc_delta", "iaf_psc_delta_ps"), _DELTA(_NEST_LIF)),
    "iaf_cond_exp": _COND(_NEST_COND | _REVERSAL),
    "aeif_psc_exp": _Model(AdEx, _ADEX, lambda tau, p: 1.0, _NEST_ADEX),
    "aeif_cond_exp": _ADEX_COND(_NEST_ADEX | _REVERSAL),
    "izhikevich": _IZHI_NEST(_ABC | {"d": 8.0, "I_e": 0.0, "V_th": 30.0}),
    "mat2_psc_exp": _EXP(_NEST_MAT)._replace(make=partial(AdaptiveLIF, reset=None), names=_MAT),
}
"""Cells of PyNN, and of NEST, by their names there."""


class Cell:
    """A neuron as PyNN or NEST write it, by the names and in the units there::

        cell = fs.neurons.Cell("IF_curr_exp", cm=0.25, tau_syn_E=5.0, tau_syn_I=10.0, i_offset=0.1)
        layer = fs.SpikeTrains(100, 10, max_spikes=50, neuron=cell.neuron, receptor="sign", until=200.0)

    Then all times are in ms, and membranes in mV: relative to rest where ``neuron`` is a ``LIF``, ``AdaptiveLIF`` or
    ``ConductanceLIF``. Currents with different time constants are two receptors: layers take ``receptor="sign"``. So
    are conductances, as in NEST; or layers take 0 or 1 for each input that excites or inhibits, and weights >= 0, as in
    PyNN.

    Args:
        name: ``IF_curr_exp``, ``IF_curr_alpha``, ``IF_curr_delta``, ``IF_cond_exp``, ``EIF_cond_exp_isfa_ista`` or
            ``Izhikevich`` of PyNN; ``iaf_psc_exp``, ``iaf_psc_alpha``, ``iaf_psc_delta``, the same with ``_ps``,
            ``iaf_cond_exp``, ``aeif_psc_exp``, ``aeif_cond_exp``, ``izhikevich`` or ``mat2_psc_exp`` of NEST.
        parameters: numbers, or lists or tensors with one for each neuron; the others have the defaults there. The
            attribute ``parameters`` has all.

    Raises:
        ValueError: a name or parameter that does not exist; a value out of range.
    """

    def __init__(self, name: str, **parameters: Any) -> None:
        make, names, gain, defaults, small = _known("there is no cell", name, CELLS)
        for key in parameters:
            _known(f"{name} has no parameter", key, defaults)
        warn_of_volts(parameters, {key: x for key, x in defaults.items() if key[:2].lower() in ("v_", "e_")})
        self.name = name
        self.parameters = {key: _value(key, x) for key, x in (defaults | parameters).items()}
        given = _in_nest(self.parameters, small)
        self._names = {"refractory" if x == "t_ref" else x: x for x in given} if names is None else names
        there = _moved(given, given, self._names)
        values = {own: there[x] if isinstance(x, str) else tuple(there[k] for k in x) for own, x in self._names.items()}
        taus = tuple(given.get(tau, 1.0) for tau in _SYNAPSES)
        if "tau_syn" in values and "E_ex" not in given and _same(*taus):
            values["tau_syn"] = taus[0]
        try:
            self.neuron = make(**values, unit="ms")
        except ValueError as error:
            raise ValueError(f"{name}: {'' if there is given else 'relative to rest, '}{error}") from None
        gains = (gain(tau, given) * 1000.0 ** ("w" in small) for tau in taus)
        self._gains = tuple(x.unsqueeze(-1) if isinstance(x, Tensor) and x.ndim else x for x in gains)

    @classmethod
    def of(cls, neuron: Neuron, name: str, **parameters: Any) -> Self:
        """The cell of that name for a neuron, such as that of a layer.

        Args:
            neuron: in ms and mV.
            name: see ``Cell``.
            parameters: those that do not follow from a ``LIF``, ``AdaptiveLIF`` or ``ConductanceLIF``: ``cm`` and
                ``v_rest``, in NEST ``C_m`` and ``E_L``, by default those there.

        Raises:
            ValueError: a neuron that the cell cannot be, with the parameter.
        """
        like, chosen = cls(name), {key: _value(key, x) for key, x in parameters.items()}
        model = CELLS[name]
        given = _in_nest(like.parameters | chosen, model.small)
        kinds = [(type(x), model.names is None and (x.equations, x.start)) for x in (neuron, like.neuron)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"{name} needs a neuron such as {like.neuron}, got {neuron}")
        told: dict[str, Any] = {}
        for own, keys in like._names.items():
            values = each(getattr(neuron, own))
            values *= 2 if len(values) == 1 and own in ("tau_syn", "reversal") else 1
            told |= {key: _value(own, x) for key, x in zip(each(keys), values, strict=False) if x is not None}
        told = _moved(told, given | told, like._names, back=True)
        if "g_L" in model.defaults:
            told["g_L"] = (given | told)["C_m"] / told["tau_m"]
        theirs = {key: _TO_NEST.get(key, key) for key in model.defaults}
        follows = {key: told[x] / 1000.0 ** (key in model.small) for key, x in theirs.items() if x in told}
        found = cls(name, **follows | chosen)
        for own, x in neuron.values.items():
            if not _same(x, there := getattr(found.neuron, own)):
                raise ValueError(f"{name} cannot have {own}={x}: there it is {there}")
        return found

    def weights(self, weight: Any) -> Any:
        """Weights of firstspike for those in nA or uS of PyNN, pA or nS of NEST, or mV where they move the membrane.

        Those < 0 inhibit. A tensor is ``(out, inputs)``.
        """
        return self._scaled(weight, self._gains)

    def strengths(self, weight: Any) -> Any:
        """The weights there for those of firstspike: the inverse of ``weights``."""
        return self._scaled(weight, tuple(1 / x for x in self._gains))

    def currents(self, amplitude: Any) -> Any:
        """Values of ``fs.Current`` for amplitudes in nA of PyNN, pA of NEST: ``(..., steps)``, as there."""
        key = "i_offset" if "i_offset" in self.parameters else "I_e"
        driven = type(self)(self.name, **self.parameters | {key: 1.0}).neuron
        gain = driven.values["bias" if "bias" in driven.values else "I_e"]
        return amplitude * (gain.unsqueeze(-1) if isinstance(gain, Tensor) and gain.ndim else gain)

    def _scaled(self, weight: Any, gains: tuple[Any, ...]) -> Any:
        if isinstance(weight, Real):
            if math.isinf(as_float(weight)):
                raise ValueError(f"weight must be finite real numbers, got {weight}")
            return weight * gains[weight < 0]
        given = _tensor("weight", weight)
        given = given if given.is_floating_point() else given.double()
        excites, inhibits = (given * (x.to(given) if isinstance(x, Tensor) else x) for x in gains)
        return torch.where(given < 0, inhibits, excites)

    def __repr__(self) -> str:
        return f"Cell({self.name!r}, {', '.join(f'{key}={x}' for key, x in self.parameters.items())})"


def _in_nest(parameters: Mapping[str, Any], small: tuple[str, ...]) -> dict[str, Any]:
    """The parameters in NEST's names and units, with ``tau_m``."""
    found = {_TO_NEST.get(key, key): x * 1000.0 ** (key in small) for key, x in parameters.items()}
    return found | ({"tau_m": found["C_m"] / found.pop("g_L")} if "g_L" in found else {})


def _known(message: str, name: str, among: Mapping[str, Any]) -> Any:
    if name not in among:
        near = difflib.get_close_matches(str(name), among, 1)
        hint = f", did you mean {near[0]}?" if near else ";"
        raise ValueError(f"{message} {name!r}{hint} there are {', '.join(among)}")
    return among[name]


def _value(name: str, value: Any) -> float | Tensor:
    """A finite number, or a tensor, of which the neuron checks its own values where they are used."""
    found: Any = as_float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if several := isinstance(value, Iterable) and not isinstance(value, str):
        found = _tensor(name, value, torch.float64).double()
    above = name not in _POSITIVE or bool(torch.as_tensor(found > 0).all())
    if not (above and (several or math.isfinite(found))):
        raise ValueError(f"{name} must be {'> 0 and ' * (name in _POSITIVE)}finite, or a tensor, got {value!r}")
    return found


def _tensor(name: str, values: Any, dtype: torch.dtype | None = None) -> Tensor:
    """Real numbers as a tensor; of lists with that type."""
    try:
        found = torch.as_tensor(values, dtype=None if hasattr(values, "dtype") else dtype)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"{name} must be a number, or real numbers in a list or tensor, got {values!r}") from None
    if found.layout is not torch.strided or found.is_complex() or found.is_meta:
        got = f"{found.dtype}, {found.layout}, {found.device}"
        raise ValueError(f"{name} must be real numbers in a dense tensor, got {got}")
    return found


def _moved(values: Any, given: Mapping[str, Any], names: Mapping[str, Any], back: bool = False) -> Any:
    """Potentials relative to rest, and the current as its effect on the membrane, or back; or all as it is."""
    if "E_L" in names.values() or "E_L" not in given:
        return values
    resistance, sign = given["tau_m"] / given["C_m"], 1 if back else -1
    moved = {key: x + sign * given["E_L"] if key in _LEVELS else x for key, x in values.items()}
    return moved | {"I_e": values["I_e"] / resistance if back else values["I_e"] * resistance}


def _same(one: Any, other: Any) -> bool:
    """Whether values are the same to rounding. A single one stands for all."""
    most = max(len(each(one)), len(each(other)))
    both = [each(x) * (most if len(each(x)) == 1 else 1) for x in (one, other)]
    one, other = ([torch.as_tensor(math.nan if y is None else y).detach().cpu().double() for y in x] for x in both)
    close = partial(torch.allclose, rtol=1e-9, atol=1e-9, equal_nan=True)
    return len(one) == len(other) and all(map(close, one, other))
