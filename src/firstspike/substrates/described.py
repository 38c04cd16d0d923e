"""Neurons that are described by equations as cells of a simulator, in its own units: ms, mV, pF, nS and pA."""

from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float

from firstspike.layers.dense import DenseLayer
from firstspike.neurons import EIF, QIF, AdEx, AdLIF, ConductanceLIF, Izhikevich, Neuron
from firstspike.neurons.base import each
from firstspike.substrates.cells import PerNeuron, array, every_weight, reached

_MV = 10.0  # are 1 where the membrane has no unit
_PF = 1000.0  # per ms of a unit of time, where the neuron says nothing
_REASONS: dict[type[Neuron], str] = {
    Izhikevich: "NEST's inputs move the membrane at once, without synaptic currents",
    QIF: "none of its neurons has a quadratic membrane and synaptic currents",
}
_KINDS = EIF, AdEx, AdLIF, ConductanceLIF


class DescribedCells(NamedTuple):
    """Cells of a layer, in milliseconds of the simulation."""

    model: str
    """``aeif_psc_exp`` of NEST, or ``IF_cond_exp`` of PyNN."""
    parameters: dict[str, PerNeuron]
    start: dict[str, PerNeuron]
    bias: PerNeuron
    """A current in nA."""
    weight: Float[np.ndarray, "out sources"]
    """Weights in nA or, of conductances, in uS. Those < 0 inhibit. Recurrent synapses come last."""

    @classmethod
    def of(cls, layer: DenseLayer, longer: float, models: tuple[str, ...]) -> Self:
        """The cells of a layer; a ValueError in words that follow "the simulator" if it has none.

        Times become ``longer`` by that factor, and so does the capacity: then currents and conductances stay.
        """
        neuron, name = layer.neuron, type(layer.neuron).__name__
        if type(neuron) not in _KINDS:
            raise ValueError(f"has no neurons of the kind {name}: {_REASONS.get(type(neuron), 'they are your own')}")
        model = "IF_cond_exp" if neuron.conducts else "aeif_psc_exp"
        if model not in models:
            raise ValueError(f"has no neurons of the kind {name}: only NEST has its {model}")
        weight, values = array(every_weight(layer)), {x: array(v) for x, v in neuron.named_values.items()}
        taus = [array(tau) for tau in each(neuron.tau_syn)]
        if neuron.conducts:
            return cls._conducting(neuron, taus, values, weight, layer, longer)
        k, other = reached(layer)
        if isinstance(neuron, AdEx):
            capacity, mv, leak_at, gain = values["c_m"] * longer, 1.0, values["e_l"], [np.array(1.0)] * len(taus)
        else:  # the membrane of one tau_syn is moved by a current of 1 as that of a LIF is
            capacity, mv, leak_at, gain = np.array(_PF * longer), _MV, np.array(0.0), [_PF * _MV / tau for tau in taus]
        leak = capacity / (values["tau_mem"] * longer)
        scale = 1.0 if isinstance(neuron, AdEx) else leak * mv  # of a bias and a jump, in pA
        found = {
            "C_m": capacity, "g_L": leak, "E_L": leak_at, "V_peak": values["threshold"] * mv,
            "V_reset": values["reset"] * mv, "V_th": values.get("v_t", values["threshold"]) * mv,
            "Delta_T": values.get("delta_t", np.array(0.0)) * mv, "t_ref": values["refractory"] * longer,
            "tau_syn_ex": taus[k] * longer, "tau_syn_in": taus[other] * longer,
            "a": values.get("a", np.array(0.0)) * (1.0 if isinstance(neuron, AdEx) else leak),
            "b": values.get("b", np.array(0.0)) * scale, "gsl_error_tol": np.array(1e-9),
        }  # fmt: skip
        if "tau_w" in values:
            found["tau_w"] = values["tau_w"] * longer
        by_sign = [np.broadcast_to(gain[x], len(weight))[:, None] for x in (k, other)]
        current = weight * np.where(weight < 0, by_sign[1], by_sign[0]) / 1000
        return cls(model, found, {"V_m": leak_at, "w": np.array(0.0)}, values["bias"] * scale / 1000, current)

    @classmethod
    def _conducting(
        cls, neuron: Any, taus: list[PerNeuron], values: dict[str, PerNeuron], weight: Any, layer: Any, longer: float
    ) -> Self:
        if len(taus) > 2:
            raise ValueError(f"has neurons with two kinds of conductances (tau_syn) at most, these have {len(taus)}")
        potentials = [array(x) * _MV for x in each(neuron.reversal)]
        found = {
            "cm": np.array(_PF * longer / 1000), "tau_m": values["tau_mem"] * longer, "v_rest": np.array(0.0),
            "v_thresh": values["threshold"] * _MV, "v_reset": values["reset"] * _MV, "i_offset": np.array(0.0),
            "tau_refrac": values["refractory"] * longer, "tau_syn_E": taus[0] * longer, "tau_syn_I": taus[-1] * longer,
            "e_rev_E": potentials[0], "e_rev_I": potentials[-1],
        }  # fmt: skip
        leak = np.broadcast_to(_PF / values["tau_mem"], len(weight))[:, None] / 1000
        inhibits = 0 if layer.receptors is None else array(layer.receptors)
        bias = values["bias"] * _MV * _PF / values["tau_mem"] / 1000
        return cls("IF_cond_exp", found, {"v": np.array(0.0)}, bias, weight * leak * np.where(inhibits, -1.0, 1.0))
