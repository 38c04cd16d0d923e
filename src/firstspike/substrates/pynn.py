"""Simulators of networks through PyNN: a batch is one long run, LIF layer after LIF layer."""

import importlib
import importlib.util
import io
import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from typing import Annotated, Any, ClassVar, NamedTuple, Self
from unittest.mock import patch

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from torch import Tensor

from firstspike.layers import Network, SpikeTrains, SpikingLinear, SpikingRecurrent
from firstspike.layers.dense import DenseLayer
from firstspike.ranges import checks_ranges
from firstspike.substrates.base import LayerByLayer, SubstrateError
from firstspike.substrates.windows import Windows, project, recorded, sources
from firstspike.text import first_line, installed_with

_TAU_MS = 10.0  # about that many milliseconds are ``tau_syn``; as many millivolts are 1: then weights are in nA
_LEAD_MS = 2.0  # simulators need a moment before the first spike


class _Cells(NamedTuple):
    """Neurons of a layer, in units of ``tau_syn``; the first five one number or one for each neuron."""

    tau_mem: Float[np.ndarray, "..."]
    tau_syn: Float[np.ndarray, "..."]
    threshold: Float[np.ndarray, "..."]
    reset: Float[np.ndarray, "..."]
    refractory: Float[np.ndarray, "..."]
    until: float
    """When they stop."""
    weight: Float[np.ndarray, "out out"] | None = None
    """Of the synapses between them, if there are any."""
    delay: Float[np.ndarray, "out out"] | None = None

    def inhibition(
        self, weight: Float[np.ndarray, "out inputs"], spikes: int, step: float
    ) -> Float[np.ndarray, " out"]:
        """What keeps each neuron silent from ``until`` on: more than all excitation that came or is still to come.

        Each input spikes that often. What is on its way arrives after the longest delay at the latest, when the
        inhibition has decayed for so long.
        """
        assert self.weight is not None
        assert self.delay is not None
        longest = self.delay.max()
        own = np.ceil(longest / np.maximum(self.refractory, step)) + 1
        most = spikes * weight.clip(min=0).sum(axis=1) + own * self.weight.clip(min=0).sum(axis=1)
        return np.asarray((most + self.threshold) * np.exp(longest / self.tau_syn))


@checks_ranges
class Simulator(LayerByLayer):
    """A simulator, whose neurons are PyNN's ``IF_curr_exp``.

    Each LIF layer is one run, in which the samples of a batch follow one another. The next layer receives the
    recorded spikes: the first one of each neuron and sample, of ``SpikeTrains`` the train. All delays are added to
    the times of the input spikes, so that none is rounded to a step, except for those of recurrent synapses: they are
    synapses of the simulation. After the last input of a sample its window lasts until membranes are at rest; neurons
    that are connected to each other are silenced at the end of their layer's ``duration`` by inhibition.

    Args:
        step: time step of the simulation, in units of ``tau_syn``.
        duration: simulated time, in units of ``tau_syn``, from 0 or from an earlier first input; later spikes are
            missed.

    Raises:
        ValueError: a step below 0.0001 or above 1, a duration that is not longer than a step, or not finite.
    """

    neurons = (SpikingLinear, SpikeTrains, SpikingRecurrent)

    title: ClassVar[str]
    """Name; that of PyNN's module is ``kind``."""
    package: ClassVar[str]
    """Distribution name."""
    rest: ClassVar[float] = 20.0
    """Time constants from the last input to the end of a window."""
    apart: ClassVar[float] = 0.0
    """Time constants have to differ by that part."""
    delay: ClassVar[float] = 0.0
    """That all synapses have, in ``tau_syn``, or one step. It is subtracted from the spikes."""
    path: ClassVar[str] = os.environ.get("PATH", os.defpath)
    """Programs that PyNN may find while it is imported."""
    options: ClassVar[dict[str, Any]] = {}
    """Further arguments of PyNN's ``setup``."""

    def __init__(
        self, step: Annotated[float, Ge(0.0001), Le(1)] = 0.01, duration: Annotated[float, Gt(1), Le(10**5)] = 100.0
    ) -> None:
        self.step, self.duration = step, duration
        self._sim: Any = None

    def open(self, network: Network) -> Self:
        super().open(network)
        for index, layer in enumerate(network):
            if isinstance(layer, DenseLayer) and np.isinf(_array(layer.neuron.tau_mem)).any():
                raise ValueError(f"layer {index}: {self.title} has no neurons without leak (tau_mem inf)")
            if isinstance(layer, SpikeTrains):
                for rest in np.unique(_array(layer.neuron.refractory) / _unit(layer)):
                    self._check_time(f"layer {index}", "refractory", rest)
            if isinstance(layer, SpikingRecurrent):
                self._check_time(f"layer {index}", "window", layer.window / _unit(layer))
        self._sim = self._load()
        return self

    def close(self) -> None:
        self._sim = None

    def identity(self) -> dict[str, Any]:
        found = {"kind": self.kind, "step": self.step, "duration": self.duration}
        return found if self._sim is None else found | {"versions": {x: version(x) for x in ("pynn", self.package)}}

    def _check_time(self, layer: str, name: str, value: float) -> None:
        """Raise a ValueError if the simulator cannot do ``refractory`` or ``window``, in units of ``tau_syn``."""
        if name == "window" and value < self.step:
            raise ValueError(f"{layer}: its window of {value:g} tau_syn is shorter than substrate.step, {self.step:g}")

    def spikes(self, index: int, layer: DenseLayer, times: Float[Tensor, "batch inputs"]) -> Tensor:
        if isinstance(layer, SpikeTrains):
            return layer.fitted(self._simulated(layer, layer.seen(times)))
        return self._simulated(layer, times.unsqueeze(-1))[..., 0]

    @torch.no_grad()
    def _simulated(
        self, layer: DenseLayer, times: Float[Tensor, "batch inputs spikes"]
    ) -> Float[Tensor, "batch outputs found"]:
        """All spikes of a layer, those of first spikes with a refractory time that lets few neurons spike again."""
        if self._sim is None:
            raise ValueError(f"{self.title} is not open: call open(network) first")
        unit, delay, own = _unit(layer), layer.delay_in_pass(), {}
        arrival = times if delay is None else (times.unsqueeze(-3) + delay.unsqueeze(-1)).flatten(-3, -2)
        tau_mem, tau_syn = (_array(x) / unit for x in (layer.neuron.tau_mem, layer.neuron.tau_syn))
        tau_mem = np.where(np.abs(tau_mem / tau_syn - 1) < self.apart, tau_syn * (1 + self.apart), tau_mem)
        slowest = float(max(tau_mem.max(), tau_syn.max()))
        reset, refractory, rest = np.array(0.0), np.array(self.rest / 2 * slowest), self.rest * slowest
        if isinstance(layer, SpikeTrains):
            reset, refractory = _array(layer.neuron.reset), _array(layer.neuron.refractory) / unit
            rest = rest + float(refractory.max())
        until = self.duration
        if isinstance(layer, SpikingRecurrent):
            own = {"weight": _array(layer.recurrent_weight), "delay": _array(layer.own_delay) / unit}
            until = min(until, layer.duration / unit)
        cells = _Cells(tau_mem, tau_syn, _array(layer.neuron.threshold), reset, refractory, until, **own)
        found = self._simulate(_array(arrival) / unit, _array(layer.weight), cells, rest)
        return torch.from_numpy(np.where(found > until, np.inf, found) * unit).to(times)

    def _simulate(
        self,
        arrival: Float[np.ndarray, "batch sources spikes"],
        weight: Float[np.ndarray, "out inputs"],
        cells: _Cells,
        rest: float,
    ) -> Float[np.ndarray, "batch out found"]:
        """Spikes of a layer, in windows that end ``rest`` after the last input; times in units of ``tau_syn``."""
        arrival = np.where(arrival > cells.until, np.inf, arrival)
        arrives = np.isfinite(arrival)
        if not arrives.any():
            return np.full((len(arrival), len(weight), 1), np.inf)
        begin, last = float(arrival[arrives].min()) - 1, float(arrival[arrives].max())
        step_ms = max(round(1000 * self.step * _TAU_MS), 1) / 1000  # NEST has whole microseconds
        unit_ms = step_ms / self.step

        def whole(ms: Any) -> Any:
            """In steps, at least one, without rounding errors."""
            return np.round(np.maximum(np.round(ms / step_ms), 1) * step_ms, 3)

        delay_ms = float(whole(self.delay * unit_ms))
        delays = np.array(delay_ms)
        if cells.delay is not None:
            last = cells.until
            inhibition = cells.inhibition(weight, arrival.shape[-1], self.step)
            rest = rest + float(max(cells.tau_mem.max(), cells.tau_syn.max()) * np.log(1 + inhibition.max()))
            loop_ms = whole(cells.delay * unit_ms)
            delays = np.append(loop_ms, delay_ms)
        windows = Windows(len(arrival), begin, math.ceil(last - begin + rest), unit_ms, _LEAD_MS + 2 * delay_ms)
        sim = self._sim
        with self._quiet():
            try:
                self._setup(step_ms, float(delays.min()), float(delays.max()))
                before = sources(sim, windows.trains(arrival))
                neurons = self._neurons(cells, unit_ms)
                after = sim.Population(len(weight), sim.IF_curr_exp(**neurons), initial_values={"v": 0.0})
                project(sim, before, after, weight, delay_ms)
                if cells.weight is not None:
                    project(sim, after, after, cells.weight, loop_ms)
                    # PyNN's Brian2 needs more than one source
                    end = sources(sim, windows.trains(np.tile([cells.until, np.inf], (len(arrival), 1))))
                    project(sim, end, after, np.outer(-inhibition, [1.0, 0.0]), delay_ms)
                after.record("spikes")
                there = sim.get_time_step(), *after.get(list(neurons))
                for name, wanted, got in zip(("step", *neurons), (step_ms, *neurons.values()), there, strict=True):
                    if not np.allclose(got, wanted, rtol=1e-9, atol=0):  # rounded, say
                        raise ValueError(f"it has a {name} of {got} in place of {wanted}")
                sim.run(round(math.ceil((windows.run_ms + delay_ms) / step_ms) * step_ms, 3))  # whole steps
                index, at = recorded(after)
                found = windows.each(after.size, index, at - delay_ms)
                sim.end()
            except Exception as error:  # each simulator has its own
                raise SubstrateError(f"{self.title} failed: {first_line(error)}") from error
        return found

    def _neurons(self, cells: _Cells, unit_ms: float) -> dict[str, Any]:
        """Parameters of the cells; in the model's own unit the capacity is ``tau_syn``."""
        values = {
            "tau_m": cells.tau_mem * unit_ms,
            "tau_syn_E": cells.tau_syn * unit_ms,
            "tau_syn_I": cells.tau_syn * unit_ms,
            "cm": cells.tau_syn,
            "v_thresh": cells.threshold * unit_ms,
            "v_rest": np.array(0.0),
            "i_offset": np.array(0.0),
            "v_reset": np.array(cells.reset * unit_ms),
            "tau_refrac": np.array(cells.refractory * unit_ms),
        }
        return {name: x if x.ndim else float(x) for name, x in values.items()}

    def _setup(self, step_ms: float, shortest_ms: float, longest_ms: float) -> None:
        """Forget the last run, get ready for another one with synapses of delays between these."""
        self._sim.setup(timestep=step_ms, min_delay=shortest_ms, max_delay=longest_ms, **self.options)

    def _load(self) -> Any:
        """PyNN's module."""
        if any(importlib.util.find_spec(name) is None for name in ("pyNN", self.kind)):
            raise ImportError(f"{self.title} or PyNN is missing. Install them: {installed_with(self.kind)}")
        environment = {"PATH": self.path, "PYNEST_QUIET": "1", "NEURON_MODULE_OPTIONS": "-nogui -nobanner"}
        flags = sys.getdlopenflags() if hasattr(sys, "getdlopenflags") else None  # not on Windows
        with self._quiet(), patch.dict(os.environ, environment):
            try:
                return importlib.import_module(f"pyNN.{self.kind}")
            except Exception as error:  # simulators, their compilers and libraries raise many kinds of errors
                raise SubstrateError(f"{self.title} does not start: {first_line(error)}") from error
            finally:
                # NEST makes symbols of all later extension modules global. Kernels of ``torch.compile``, which all have
                # the same symbol, would then silently call each other
                if flags is not None:
                    sys.setdlopenflags(flags)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Without the chatter of simulators: banners, and warnings that calls from PyNN are old."""
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield


def _unit(layer: DenseLayer) -> float:
    """``tau_syn`` of a layer, on average over its neurons."""
    return float(torch.as_tensor(layer.neuron.tau_syn, dtype=torch.float64).mean())


def _array(x: float | Tensor) -> Float[np.ndarray, "..."]:
    return torch.as_tensor(x, dtype=torch.float64).detach().cpu().numpy()
