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
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from torch import Tensor

from firstspike.layers import LIFRecurrent, LIFSpikeTrains, Network
from firstspike.layers.lif import DenseLIFLayer
from firstspike.ranges import checks_ranges
from firstspike.substrates.base import LayerByLayer, SubstrateError, first_line
from firstspike.substrates.windows import Cells, Loop, Windows, project, project_each, recorded, sources
from firstspike.text import installed_with

TAU_MS = 10.0
"""Milliseconds and millivolts that stand for ``tau_syn`` and for 1 on the membrane: then weights are in nA."""
LEAD_MS = 2.0
"""Simulators need a moment before the first spike."""


@checks_ranges
class Simulator(LayerByLayer):
    """A simulator, whose neurons are PyNN's ``IF_curr_exp``.

    Each LIF layer is one run, in which the samples of a batch follow one another. The next layer receives the
    recorded spikes: the first one of each neuron and sample, of ``LIFSpikeTrains`` the train. All delays are added to
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

    trains = True
    recurrent = True

    title: ClassVar[str]
    """Name."""
    module: ClassVar[str]
    """PyNN module."""
    package: ClassVar[str]
    """Distribution name."""
    rest: ClassVar[float]
    """Time constants from the last input to the end of a window."""
    path: ClassVar[str]
    """Programs that PyNN may find while it is imported."""
    options: ClassVar[dict[str, Any]] = {}
    """Further arguments of PyNN's ``setup``."""

    def __init__(
        self, step: Annotated[float, Ge(0.0001), Le(1)] = 0.01, duration: Annotated[float, Gt(1), Le(10**5)] = 100.0
    ) -> None:
        self.step, self.duration = step, duration
        self._sim: Any = None

    def open(self, network: Network) -> Self:
        """See ``Substrate``."""
        super().open(network)
        for index, layer in enumerate(network):
            if not isinstance(layer, DenseLIFLayer):
                continue
            tau_mem = layer.neuron.tau_mem
            if not isinstance(tau_mem, Tensor) and math.isinf(tau_mem):
                raise ValueError(f"layer {index}: {self.title} has no neurons without leak (tau_mem inf)")
            if isinstance(layer, LIFSpikeTrains):
                self._check_time(f"layer {index}", "refractory", layer.refractory / _unit(layer))
            if isinstance(layer, LIFRecurrent):
                self._check_time(f"layer {index}", "window", layer.window / _unit(layer))
        self._sim = self._load()
        return self

    def close(self) -> None:
        """See ``Substrate``."""
        self._sim = None

    def identity(self) -> dict[str, Any]:
        """See ``Substrate``."""
        settings = {"kind": self.kind, "step": self.step, "duration": self.duration}
        if self._sim is None:
            return settings
        return settings | {"versions": {name: version(name) for name in ("pynn", self.package)}}

    def _check_time(self, layer: str, name: str, value: float) -> None:
        """Raise a ValueError if the simulator cannot do ``refractory`` or ``window``, in units of ``tau_syn``."""
        if name == "window" and value < self.step:
            raise ValueError(f"{layer}: its window of {value:g} tau_syn is shorter than substrate.step, {self.step:g}")

    def spikes(self, index: int, layer: DenseLIFLayer, times: Float[Tensor, "batch inputs"]) -> Tensor:
        """See ``LayerByLayer``."""
        if isinstance(layer, LIFSpikeTrains):
            return layer.fitted(self._simulated(layer, layer.seen(times)))
        return self._simulated(layer, times.unsqueeze(-1))[..., 0]

    @torch.no_grad()
    def _simulated(
        self, layer: DenseLIFLayer, times: Float[Tensor, "batch inputs spikes"]
    ) -> Float[Tensor, "batch outputs found"]:
        """All spikes of a layer, those of first spikes with a refractory time that lets few neurons spike again."""
        if self._sim is None:
            raise ValueError(f"{self.title} is not open: call open(network) first")
        delay = layer.delay_in_pass()
        arrival = times if delay is None else (times.unsqueeze(-3) + delay.unsqueeze(-1)).flatten(-3, -2)
        tau_mem, tau_syn, threshold = (
            torch.as_tensor(value, dtype=torch.float64).detach().cpu().numpy()
            for value in (layer.neuron.tau_mem, layer.neuron.tau_syn, layer.neuron.threshold)
        )
        unit = _unit(layer)
        slowest = float(max(tau_mem.max(), tau_syn.max())) / unit
        reset, refractory, rest = 0.0, self.rest / 2 * slowest, self.rest * slowest
        if isinstance(layer, LIFSpikeTrains):
            reset, refractory = layer.reset, layer.refractory / unit
            rest = rest + refractory
        loop = None
        if isinstance(layer, LIFRecurrent):
            own, own_delay = (x.detach().cpu().double().numpy() for x in (layer.recurrent_weight, layer.own_delay))
            loop = Loop(own, own_delay / unit, layer.duration / unit)
        found = self._simulate(
            arrival.detach().cpu().double().numpy() / unit,
            layer.weight.detach().cpu().double().numpy(),
            Cells(tau_mem / unit, tau_syn / unit, threshold, reset, refractory),
            rest,
            loop,
        )
        return torch.from_numpy(found * unit).to(times)

    def _simulate(
        self,
        arrival: Float[np.ndarray, "batch sources spikes"],
        weight: Float[np.ndarray, "out inputs"],
        cells: Cells,
        rest: float,
        loop: Loop | None,
    ) -> Float[np.ndarray, "batch out found"]:
        """Spikes of a layer, in windows that end ``rest`` after the last input; times in units of ``tau_syn``."""
        until = self.duration if loop is None else min(self.duration, loop.until)
        arrival = np.where(arrival > until, np.inf, arrival)
        arrives = np.isfinite(arrival)
        if not arrives.any():
            return np.full((len(arrival), len(weight), 1), np.inf)
        begin, last = float(arrival[arrives].min()) - 1, float(arrival[arrives].max())
        step_ms = max(round(1000 * self.step * TAU_MS), 1) / 1000
        delay_ms = self._delay(step_ms)
        delays = (delay_ms, delay_ms)
        if loop is not None:
            last = until
            inhibition = loop.inhibition(weight * arrival.shape[-1], cells, self.step)
            rest = rest + float(max(cells.tau_mem.max(), cells.tau_syn.max()) * np.log(1 + inhibition.max()))
            loop_ms = np.round(np.maximum(np.round(loop.delay * TAU_MS / step_ms), 1) * step_ms, 3)
            delays = (min(delay_ms, float(loop_ms.min())), max(delay_ms, float(loop_ms.max())))
        windows = Windows(
            samples=len(arrival),
            start=begin,
            length=math.ceil(last - begin + rest),
            unit_ms=TAU_MS,
            lead_ms=LEAD_MS + 2 * delay_ms,
        )
        sim = self._sim
        with self._quiet():
            try:
                self._setup(step_ms, delays)
                before = sources(sim, windows.trains(arrival))
                after = sim.Population(len(weight), self._neurons(cells), initial_values={"v": 0.0})
                connect = project if arrival.shape[1] == weight.shape[1] else project_each
                connect(sim, before, after, weight, delay_ms)
                if loop is not None:
                    project(sim, after, after, loop.weight, loop_ms.T)
                    # PyNN's Brian2 needs more than one source
                    end = sources(sim, windows.trains(np.tile([until, np.inf], (len(arrival), 1))))
                    project(sim, end, after, np.outer(-inhibition, [1.0, 0.0]), delay_ms)
                after.record("spikes")
                sim.run(round(math.ceil((windows.run_ms + delay_ms) / step_ms) * step_ms, 3))  # whole steps
                index, at = recorded(after)
                found = windows.each(after.size, index, at - delay_ms)
                sim.end()
            except Exception as error:  # each simulator has its own
                raise SubstrateError(f"{self.title} failed: {first_line(error)}") from error
        return np.where(found > until, np.inf, found)

    def _neurons(self, cells: Cells) -> Any:
        """The cell type; in the model's own unit the capacity is ``tau_syn``."""
        tau_syn = cells.tau_syn
        values = {
            "tau_m": self._tau_mem(cells.tau_mem, tau_syn) * TAU_MS,
            "tau_syn_E": tau_syn * TAU_MS,
            "tau_syn_I": tau_syn * TAU_MS,
            "cm": tau_syn,
            "v_thresh": cells.threshold * TAU_MS,
        }
        each = {name: value if value.ndim else float(value) for name, value in values.items()}
        rest = {
            "v_rest": 0.0,
            "i_offset": 0.0,
            "v_reset": cells.reset * TAU_MS,
            "tau_refrac": cells.refractory * TAU_MS,
        }
        return self._sim.IF_curr_exp(**each, **rest)

    def _tau_mem(
        self, tau_mem: Float[np.ndarray, "..."], tau_syn: Float[np.ndarray, "..."]
    ) -> Float[np.ndarray, "..."]:
        """Membrane time constants that the simulator can do, nearest to these."""
        return tau_mem

    def _delay(self, step_ms: float) -> float:
        """The delay that all synapses have. It is subtracted from the spikes."""
        return step_ms

    def _setup(self, step_ms: float, delays_ms: tuple[float, float]) -> None:
        """Forget the last run, get ready for another one with synapses of the shortest and the longest delay."""
        self._sim.setup(timestep=step_ms, min_delay=delays_ms[0], max_delay=delays_ms[1], **self.options)

    def _load(self) -> Any:
        """PyNN's module."""
        if any(importlib.util.find_spec(name) is None for name in ("pyNN", self.module)):
            raise ImportError(f"{self.title} or PyNN is missing. Install them: {installed_with(self.kind)}")
        environment = {"PATH": self.path, "PYNEST_QUIET": "1", "NEURON_MODULE_OPTIONS": "-nogui -nobanner"}
        with self._quiet(), _environment(environment), _dlopen_flags():
            try:
                return importlib.import_module(f"pyNN.{self.module}")
            except Exception as error:  # simulators, their compilers and libraries raise many kinds of errors
                raise SubstrateError(f"{self.title} does not start: {first_line(error)}") from error

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Without the chatter of simulators: banners, and warnings that calls from PyNN are old."""
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield


def _unit(layer: DenseLIFLayer) -> float:
    """``tau_syn`` of a layer, on average over its neurons."""
    return float(torch.as_tensor(layer.neuron.tau_syn, dtype=torch.float64).mean())


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _dlopen_flags() -> Iterator[None]:
    """The import of NEST makes symbols of all later extension modules global, and leaves that on.

    Kernels of ``torch.compile``, which all have the same symbol, would then silently call each other.
    """
    if not hasattr(sys, "getdlopenflags"):  # Windows
        yield
        return
    before = sys.getdlopenflags()
    try:
        yield
    finally:
        sys.setdlopenflags(before)
