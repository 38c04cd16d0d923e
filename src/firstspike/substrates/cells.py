"""Neurons of a layer as cells of a simulator, PyNN's or NEST's own, with their parameters."""

import math
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from firstspike.layers import SpikeTrains, SpikingRecurrent, synapses
from firstspike.layers.dense import DenseLayer
from firstspike.neurons.base import each

PerNeuron = Float[np.ndarray, "..."]
"""One number, or one for each neuron."""
_LONG = 100.0  # after so many tau_syn neurons end that may spike for ever
_MAT_PARTS = 2  # of the threshold of mat2_psc_exp
_MAT_APART = 1e-6  # by that part its time constants differ at least
_SHARP = 1e-9  # mV within which gif_psc_exp, whose spikes are random, begins to spike with certainty


class Links(NamedTuple):
    """Synapses that exist, of a matrix of weights or of sparse ones."""

    shape: tuple[int, int]
    """Number of cells that receive, and of those that send."""
    row: Int[np.ndarray, " synapses"]
    """The cell that receives."""
    column: Int[np.ndarray, " synapses"]
    """The cell that sends."""
    weight: Float[np.ndarray, " synapses"]

    @classmethod
    def of(cls, layer: DenseLayer, name: str = "weight") -> Self:
        """Those of a layer whose weights have that name."""
        if (found := layer.sparse.get(name)) is None:
            return cls.between(array(synapses.existing(layer, name)))
        return cls(
            (found.targets, found.sources), found.target.numpy(), found.source.numpy(), array(getattr(layer, name))
        )

    @classmethod
    def between(cls, weight: Float[np.ndarray, "rows columns"]) -> Self:
        """The entries of a matrix that are not 0."""
        row, column = np.nonzero(weight)
        return cls(weight.shape, row, column, weight[row, column])

    def chosen(self, values: Float[np.ndarray, "..."]) -> Float[np.ndarray, " synapses"]:
        """Numbers of the synapses, which are one for all, one for each, or a matrix."""
        return values[self.row, self.column] if values.ndim > 1 else np.broadcast_to(values, self.weight.shape)

    def excitation(self) -> Float[np.ndarray, " rows"]:
        """The sum of the positive weights of each cell."""
        return np.bincount(self.row, self.weight.clip(min=0), self.shape[0])


class Cells(NamedTuple):
    """Neurons of a layer, in units of ``tau_syn``."""

    model: str
    """``IF_curr_exp`` or ``IF_curr_alpha`` of PyNN, ``gif_psc_exp`` or ``mat2_psc_exp`` of NEST."""
    tau_mem: PerNeuron
    excites: PerNeuron
    """Time constants of synapses whose weights are > 0."""
    inhibits: PerNeuron
    """Time constants of synapses whose weights are < 0."""
    threshold: PerNeuron
    bias: PerNeuron
    reset: PerNeuron
    refractory: PerNeuron
    until: float
    """When they stop."""
    rest: float
    """Duration from the last input until membranes are at rest."""
    currents: tuple[tuple[PerNeuron, PerNeuron], ...] = ()
    """Time constants and jumps of adaptation currents."""
    raises: tuple[tuple[PerNeuron, PerNeuron], ...] = ()
    """Time constants and jumps of parts of the threshold."""
    own: Links | None = None
    """The synapses between the cells, if there are any."""
    delay: Float[np.ndarray, " synapses"] | None = None

    @classmethod
    def of(cls, layer: DenseLayer, unit: float, until: float, rest: float, apart: float) -> Self:
        """The cells of a layer; a ValueError in words that follow "the simulator" if there are none.

        Those of first spikes rest so long afterwards, in their slowest time constants, that few spike again. Time
        constants of membranes and synapses differ by the part ``apart``.
        """
        neuron, trains = layer.neuron, isinstance(layer, SpikeTrains)
        model, mem = model_of(layer), array(neuron.tau_mem) / unit
        apart = max(apart, _MAT_APART * (model == "mat2_psc_exp"))
        taus = [array(tau) / unit for tau in each(neuron.tau_syn)]
        taus = [np.where(np.abs(tau / mem - 1) < apart, mem / (1 + apart), tau) for tau in taus]
        excites, inhibits = (taus[k] for k in reached(layer))
        own: dict[str, Any] = {}
        if isinstance(layer, SpikingRecurrent):
            own["own"] = links = Links.of(layer, "recurrent_weight")
            own["delay"] = links.chosen(array(layer.delays_of_synapses)) / unit
            until = min(until, layer.duration / unit)
        if trains:
            for name, key in (("currents", "adaptation"), ("raises", "threshold")):
                pairs = (each(getattr(neuron, f"{key}_{part}", ())) for part in ("tau", "jump"))
                own[name] = tuple((array(tau) / unit, array(jump)) for tau, jump in zip(*pairs, strict=True))
        reset = array(neuron.reset) if trains and neuron.reset is not None else np.array(0.0)
        levels = array(neuron.threshold), array(neuron.bias), reset, array(neuron.refractory) / unit
        found = cls(model, mem, excites, inhibits, *levels, until, 0.0, **own)
        if found.busy and math.isinf(until):
            found = found._replace(until=_LONG * unit_of(layer) / unit)
        pause = rest * found.slowest
        if trains:
            return found._replace(rest=pause + float(found.refractory.max()))
        return found._replace(rest=pause, refractory=np.array(pause / 2))

    @property
    def slowest(self) -> float:
        """The longest of the time constants."""
        taus = self.tau_mem, self.excites, self.inhibits, *(tau for tau, _ in (*self.currents, *self.raises))
        return float(max(tau.max() for tau in taus))

    @property
    def biased(self) -> bool:
        """Whether there is a bias: inputs before time 0 then do not arrive."""
        return bool(self.bias.any())

    @property
    def busy(self) -> bool:
        """Whether they may spike for ever without inputs."""
        excited = any((jump < 0).any() for _, jump in (*self.currents, *self.raises))
        return self.own is not None or excited or bool((self.bias >= self.threshold).any())

    def strengths(self, links: Links) -> Links:
        """Synapses with the simulator's weights, where the capacity is the time constant of those that excite.

        Those of PyNN's alpha functions are their maxima.
        """
        ratio, weight = self.excites / self.inhibits, links.weight
        scaled = np.where(weight < 0, weight * (ratio[links.row] if ratio.ndim else ratio), weight)
        return links._replace(weight=scaled / np.e if self.model == "IF_curr_alpha" else scaled)

    def course(
        self, links: Links, spikes: int, last: float, step: float
    ) -> tuple[list[tuple[float, PerNeuron]], float]:
        """Currents, in nanoamperes, with the times from which they flow, and when membranes are at rest again.

        Each input spikes that often, for the last time at ``last``. Bias is a current. Neurons that may spike for ever
        are silenced by one that outweighs all that came or is still on its way.
        """

        def steps(time: float) -> float:
            return math.ceil(time / step - 1e-6) * step

        turns, wait, recovery = [(0.0, self.excites * self.bias / self.tau_mem)] * self.biased, self.rest, self.rest
        if self.busy:
            last, longest = steps(self.until), 0.0 if self.delay is None else float(self.delay.max(initial=0.0))
            current = self._silence(spikes * links.excitation(), longest, step)
            depth = math.log1p(float((current * self.tau_mem / self.excites / self.threshold).max()))
            wait, recovery = longest + depth * self.slowest, self.rest + depth * float(self.tau_mem.max())
            turns = [*turns, (last, np.array(-current))]
        if not turns:
            return turns, steps(last + self.rest)
        over = steps(last + wait)
        return [*turns, (over, np.array(0.0))], steps(over + recovery)

    def _silence(self, inputs: Float[np.ndarray, " out"], longest: float, step: float) -> float:
        """A current that outweighs all inputs, and the neurons' effects on each other and themselves."""
        rest = np.maximum(self.refractory, step)
        if self.own is not None:
            inputs = inputs + (np.ceil(longest / rest) + 1) * self.own.excitation()
        slope = inputs / np.minimum(self.excites, self.inhibits) + (self.threshold + abs(self.bias)) / self.tau_mem
        for tau, jump in (*self.currents, *self.raises):
            slope = slope - jump.clip(max=0) * (tau / rest + 1) * (1 / tau + 1 / self.tau_mem)
        return float(np.max(self.excites * slope))

    def parameters(self, unit_ms: float, step_ms: float) -> dict[str, Any]:
        """Parameters of the cells. In the layer's own unit the capacity is the time constant that excites."""
        mem, excites, inhibits = (x * unit_ms for x in (self.tau_mem, self.excites, self.inhibits))
        threshold, reset, rest = (x * unit_ms for x in (self.threshold, self.reset, self.refractory))
        if self.model.startswith("IF"):
            return {
                "tau_m": mem, "tau_syn_E": excites, "tau_syn_I": inhibits, "cm": self.excites, "v_thresh": threshold,
                "v_rest": np.array(0.0), "i_offset": np.array(0.0), "v_reset": reset, "tau_refrac": rest,
            }  # fmt: skip
        capacity = 1000 * self.excites  # picofarads
        found = {"tau_syn_ex": excites, "tau_syn_in": inhibits, "C_m": capacity, "E_L": np.array(0.0)}
        if self.model == "mat2_psc_exp":
            # it counts one step more
            found |= {"tau_m": mem, "omega": threshold, "t_ref": np.round(rest - step_ms, 3)}
            silent = (self.tau_mem, np.array(0.0))
            for number, (tau, jump) in enumerate((*self.raises, silent, silent)[:_MAT_PARTS], 1):
                found |= {f"tau_{number}": tau * unit_ms, f"alpha_{number}": jump * unit_ms}
            return found
        found |= {"g_L": capacity / mem, "V_T_star": threshold, "V_reset": reset, "t_ref": rest}
        found |= {"Delta_V": np.array(_SHARP), "lambda_0": np.array(1.0)}
        kinds = {"sfa": self.raises, "stc": self.currents}
        found |= {f"tau_{name}": _lists([tau * unit_ms for tau, _ in parts]) for name, parts in kinds.items()}
        found |= {"q_sfa": _lists([jump * unit_ms for _, jump in self.raises])}
        found |= {"q_stc": _lists([jump * capacity / tau for tau, jump in self.currents])}
        return found


def model_of(layer: DenseLayer) -> str:
    """The cell of a layer's neurons; a ValueError if there is none."""
    unusual = layer.unusual
    if "tau_rise" in unusual:
        rises, taus = (each(x) for x in (layer.neuron.tau_rise, layer.neuron.tau_syn))
        pairs = zip(rises * len(taus), taus, strict=False)
        if not all(np.array_equal(array(rise), array(tau)) for rise, tau in pairs):
            raise ValueError("has synapses with a rise time (tau_rise) only where that is tau_syn: alpha functions")
    adapts = {"reset", "adaptation_tau", "threshold_tau"} & set(unusual)
    if not adapts:
        return "IF_curr_alpha" if "tau_rise" in unusual else "IF_curr_exp"
    words = " and ".join(unusual[name] for name in sorted(adapts))
    if "tau_rise" in unusual:
        raise ValueError(f"has no neurons {words} whose synapses have a rise time (tau_rise)")
    if "reset" not in unusual:
        return "gif_psc_exp"
    if "adaptation_tau" in unusual or len(each(getattr(layer.neuron, "threshold_tau", ()))) > _MAT_PARTS:
        raise ValueError(
            "has neurons without a reset (reset=None) only with at most two threshold parts, and no adaptation"
        )
    return "mat2_psc_exp"


def reached(layer: DenseLayer) -> tuple[int, int]:
    """The receptors that weights > 0 and those < 0 reach; a ValueError if those of one sign reach several."""
    if layer.receptor == "sign":
        return 0, 1
    if layer.receptors is None:
        return 0, 0
    links = [Links.of(layer, x) for x in ("weight", "recurrent_weight")[: 1 + isinstance(layer, SpikingRecurrent)]]
    sender = np.concatenate([x.column + k * layer.in_features for k, x in enumerate(links)])
    every, found = np.concatenate([x.weight for x in links]), list[list[int]]()
    for sign, side in ((1, "> 0"), (-1, "< 0")):
        receptors = np.unique(array(layer.receptors)[sender[sign * every > 0]]).astype(int).tolist()
        if len(receptors) > 1:
            raise ValueError(
                f"has one receptor (tau_syn) for weights {side}, those here reach receptors {receptors}: give weights "
                'signs that fit, or set receptor="sign"'
            )
        found.append(receptors)
    excites, inhibits = found
    return (excites or inhibits or [0])[0], (inhibits or excites or [0])[0]


def every_weight(layer: DenseLayer) -> Tensor:
    """The weights of the inputs, and then those of recurrent synapses."""
    recurrent = [layer.recurrent_synapses] if isinstance(layer, SpikingRecurrent) else []
    return torch.cat([layer.synapses, *recurrent], dim=1)


def unit_of(layer: DenseLayer) -> float:
    """``tau_syn`` of a layer, of the first receptor, on average over its neurons; 1 for neurons without that name."""
    return float(array(each(layer.neuron.values.get("tau_syn", 1.0))[0]).mean())


def array(x: float | Tensor) -> PerNeuron:
    """A parameter in double precision."""
    return torch.as_tensor(x, dtype=torch.float64).detach().cpu().numpy()


def _lists(parts: list[PerNeuron]) -> Float[np.ndarray, "... parts"]:
    """Numbers of each neuron."""
    return np.atleast_2d(np.stack(np.broadcast_arrays(*parts), axis=-1)) if parts else np.empty((1, 0))
