"""Simulators of networks through PyNN: a batch is one long run, LIF layer after LIF layer."""

import importlib
import importlib.util
import io
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from typing import Annotated, Any, ClassVar, Literal, Self
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
from firstspike.substrates.cells import Cells, Links, PerNeuron, array, unit_of
from firstspike.substrates.described import DescribedCells
from firstspike.substrates.rounding import check_steps
from firstspike.substrates.windows import Windows, inject, project, recorded, sources
from firstspike.text import first_line, installed_with

_TAU_MS = 10.0  # about that many milliseconds are ``tau_syn``. As many millivolts are 1: then weights are in nA
_LEAD_MS = 2.0  # simulators need a moment before the first spike


@checks_ranges
class Simulator(LayerByLayer):
    """A simulator, whose neurons are PyNN's ``IF_curr_exp``, ``IF_curr_alpha`` and ``IF_cond_exp``, and some of NEST.

    Each LIF layer is one run, in which the samples of a batch follow one another. The next layer receives the
    recorded spikes: the first one of each neuron and sample, of ``SpikeTrains`` the train. All delays are added to
    the times of the input spikes, so that none is rounded to a step, except for those of recurrent synapses: they are
    synapses of the simulation. After the last input of a sample its window lasts until membranes are at rest. Neurons
    that may spike for ever, as those that are connected to each other, are silenced by a current at the end of
    ``duration``, or of their layer's. A ``bias`` is a current that begins with each sample.

    Args:
        step: time step of the simulation.
        duration: when the simulation of a layer ends: later spikes are missed. By default, neurons that may spike for
            ever end with their layer, or else at 100 ``tau_syn``, and others when they are at rest after all inputs.
        unit: unit of step and duration: ``tau_syn`` of each layer, or the unit of the times, such as ms.

    Raises:
        ValueError: a step below 0.0001 or above 1, a duration that is not longer than a step, or not finite.
    """

    neurons = (SpikingLinear, SpikeTrains, SpikingRecurrent)
    unusual: ClassVar[tuple[str, ...] | None] = ("tau_syn", "tau_rise", "bias", "equations")
    described: ClassVar[tuple[str, ...]] = ("IF_cond_exp",)
    """Cells of the simulator for neurons from equations."""

    title: ClassVar[str]
    """Name. That of PyNN's module is ``kind``."""
    package: ClassVar[str]
    """Distribution name."""
    rest: ClassVar[float] = 20.0
    """Time constants from the last input to the end of a window."""
    apart: ClassVar[float] = 0.0
    """Time constants have to differ by that part."""
    delay: ClassVar[float] = 0.0
    """Delay of all synapses, in ``tau_syn``, or one step. It is subtracted from the spikes."""
    precise: ClassVar[bool] = False
    """Whether spikes are not bound to steps."""
    path: ClassVar[str] = os.environ.get("PATH", os.defpath)
    """Programs that PyNN may find while it is imported."""
    options: ClassVar[dict[str, Any]] = {}
    """Further arguments of PyNN's ``setup``."""

    def __init__(
        self,
        step: Annotated[float, Ge(0.0001), Le(1)] = 0.01,
        duration: Annotated[float, Gt(1), Le(10**5)] | None = None,
        unit: Literal["tau_syn", "times"] = "tau_syn",
    ) -> None:
        self.step, self.duration, self.unit = step, duration, unit
        self._sim: Any = None

    def open(self, network: Network) -> Self:
        super().open(network)
        layers = [(f"layer {index}", layer) for index, layer in enumerate(network) if isinstance(layer, DenseLayer)]
        for place, layer in layers:
            self._cells(place, layer)
        check_steps(self.title, self.step, self.precise, [(*x, self._unit(x[1])) for x in layers])
        self._sim = self._load()
        return self

    def close(self) -> None:
        self._sim = None

    def identity(self) -> dict[str, Any]:
        found = {"kind": self.kind, "step": self.step, "duration": self.duration, "unit": self.unit}
        return found if self._sim is None else found | {"versions": {x: version(x) for x in ("pynn", self.package)}}

    def _cells(self, place: str, layer: DenseLayer) -> Any:
        """The cells of a layer; a ValueError if there are none."""
        try:
            if layer.neuron.equations is not None:
                return DescribedCells.of(layer, self._clock()[1] / self._unit(layer), self.described)
            if np.isinf(array(layer.neuron.tau_mem)).any():
                raise ValueError("has no neurons without leak (tau_mem inf)")
            return Cells.of(layer, self._unit(layer), self.duration or math.inf, self.rest, self.apart)
        except ValueError as error:
            raise ValueError(f"{place}: {self.title} {error}") from None

    def _unit(self, layer: DenseLayer) -> float:
        """The unit of step and duration, in the unit of the times."""
        return 1.0 if self.unit == "times" else unit_of(layer)

    def spikes(self, index: int, layer: DenseLayer, times: Float[Tensor, "batch inputs"]) -> Tensor:
        if isinstance(layer, SpikeTrains):
            return layer.fitted(self._simulated(index, layer, layer.seen(times)))
        return self._simulated(index, layer, times.unsqueeze(-1))[..., 0]

    @torch.no_grad()
    def _simulated(
        self, index: int, layer: DenseLayer, times: Float[Tensor, "batch inputs spikes"]
    ) -> Float[Tensor, "batch outputs found"]:
        """The spikes of a layer, those of first spikes with a refractory time that lets few neurons spike again."""
        if self._sim is None:
            raise ValueError(f"{self.title} is not open: call open(network) first")
        unit, delay = self._unit(layer), layer.delay_in_pass()
        arrival = times if delay is None else (times.unsqueeze(-3) + delay.unsqueeze(-1)).flatten(-3, -2)
        if layer.neuron.equations is None:
            cells = self._cells(f"layer {index}", layer)
            until, found = cells.until, self._simulate(array(arrival) / unit, Links.of(layer), cells)
        else:
            until = min(self.duration or math.inf, getattr(layer, "duration", layer.until) / unit)
            found = self._simulate_each(layer, array(arrival) / unit, until)
        return torch.from_numpy(np.where(found > until, np.inf, found) * unit).to(times)

    def _simulate(
        self, arrival: Float[np.ndarray, "batch sources spikes"], links: Links, cells: Cells
    ) -> Float[np.ndarray, "batch out found"]:
        """Spikes of a layer, in windows at whose end membranes are at rest; times in units of ``tau_syn``."""
        early = (arrival < 0) & cells.biased
        arrival = np.where((arrival > cells.until) | early, np.inf, arrival)
        arrives = np.append(arrival[np.isfinite(arrival)], [0.0] * cells.biased)
        if not len(arrives):
            return np.full((len(arrival), links.shape[0], 1), np.inf)
        step_ms, unit_ms, whole = self._clock()
        delay_ms = float(whole(self.delay * unit_ms))
        loop_ms = np.empty(0) if cells.delay is None else whole(cells.delay * unit_ms)
        turns, end = cells.course(links, arrival.shape[-1], float(arrives.max()), self.step)
        start = math.floor((float(arrives.min()) - 1) / self.step) * self.step
        windows = Windows(len(arrival), start, end - start, unit_ms, float(whole(_LEAD_MS + 2 * delay_ms)))
        sim = self._sim
        with self._running(step_ms, np.append(loop_ms, delay_ms)):
            before = sources(sim, windows.trains(arrival))
            neurons = cells.parameters(unit_ms, step_ms)
            rest = {"v" if cells.model.startswith("IF") else "V_m": 0.0}
            after = sim.Population(links.shape[0], self._cell(cells.model, neurons), initial_values=rest)
            project(sim, before, after, cells.strengths(links), np.array(delay_ms))
            if cells.own is not None:
                project(sim, after, after, cells.strengths(cells.own), loop_ms)
            inject(sim, after, turns, lambda time: whole(windows.at(time) + delay_ms))
            return self._found(after, neurons, windows, step_ms, delay_ms)

    def _simulate_each(
        self, layer: DenseLayer, arrival: Float[np.ndarray, "batch sources spikes"], until: float
    ) -> Float[np.ndarray, "batch out found"]:
        """Spikes of neurons from equations: those of each sample are cells of their own, which begin at time 0."""
        step_ms, unit_ms, whole = self._clock()
        cells, sim, samples = self._cells("the layer", layer), self._sim, len(arrival)
        inputs, outputs, loop_ms = arrival.shape[1], layer.out_features, np.empty(0)
        if isinstance(layer, SpikingRecurrent):
            loop_ms = whole(array(layer.own_delay) / self._unit(layer) * unit_ms)
        arrival = np.where((arrival < 0) | (arrival > until), np.inf, arrival).reshape(1, samples * inputs, -1)
        windows = Windows(1, 0.0, until + 2 * self.step, unit_ms, step_ms)

        def everywhere(x: Any) -> Any:
            return np.tile(x, samples) if x.ndim else x

        with self._running(step_ms, np.append(loop_ms, step_ms)):
            before = sources(sim, windows.trains(arrival))
            neurons = {name: everywhere(x) for name, x in cells.parameters.items()}
            start = {name: everywhere(x) if x.ndim else float(x) for name, x in cells.start.items()}
            after = sim.Population(samples * outputs, self._cell(cells.model, neurons), initial_values=start)
            for k in range(samples):
                mine = after[k * outputs : (k + 1) * outputs]
                outer = Links.between(cells.weight[:, : layer.in_features])
                project(sim, before[k * inputs : (k + 1) * inputs], mine, outer, np.array(step_ms))
                if loop_ms.size:
                    project(sim, mine, mine, Links.between(cells.weight[:, layer.in_features :]), loop_ms)
            turns = [(0.0, everywhere(cells.bias))] if cells.bias.any() else []
            inject(sim, after, turns, lambda time: whole(windows.at(time) + step_ms))
            found = self._found(after, neurons, windows, step_ms, step_ms)
        return found.reshape(samples, outputs, -1)

    def _clock(self) -> tuple[float, float, Callable[[Any], Any]]:
        """Milliseconds of a step and of a unit of time, and a function that rounds others to steps."""
        step_ms = max(round(1000 * self.step * _TAU_MS), 1) / 1000  # NEST has whole microseconds

        def whole(ms: Any) -> Any:
            """Milliseconds rounded to steps, at least one, without rounding errors."""
            return np.round(np.maximum(np.round(ms / step_ms), 1) * step_ms, 3)

        return step_ms, step_ms / self.step, whole

    @contextmanager
    def _running(self, step_ms: float, delays_ms: PerNeuron) -> Iterator[None]:
        """A run with synapses of these delays, quiet and with its errors named."""
        with self._quiet():
            try:
                self._setup(step_ms, float(delays_ms.min()), float(delays_ms.max()))
                yield
                self._sim.end()
            except Exception as error:  # each simulator has its own
                raise SubstrateError(f"{self.title} failed: {first_line(error.__cause__ or error)}") from error

    def _found(
        self, after: Any, neurons: Mapping[str, Any], windows: Windows, step_ms: float, delay_ms: float
    ) -> Float[np.ndarray, "windows cells found"]:
        """The spikes of cells, once it is clear that the simulator has their parameters as they are."""
        after.record("spikes")
        told = {name: x for name, x in neurons.items() if x.ndim < 2}
        there = self._sim.get_time_step(), *after.get(list(told))
        for name, wanted, got in zip(("step", *told), (step_ms, *told.values()), there, strict=True):
            if not np.allclose(got, wanted, rtol=1e-9, atol=0):  # rounded, say
                raise ValueError(f"it has a {name} of {got} in place of {wanted}")
        self._sim.run(round(math.ceil((windows.run_ms + delay_ms) / step_ms) * step_ms, 3))  # whole steps
        index, at = recorded(after)
        return windows.each(after.size, index, at - delay_ms)

    def _cell(self, model: str, parameters: Mapping[str, Any]) -> Any:
        """PyNN's cell of that name."""
        return getattr(self._sim, model)(**{name: x if x.ndim else float(x) for name, x in parameters.items()})

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
        """Suppress banners of simulators, and warnings that calls from PyNN are old."""
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
