"""The simulators that PyNN supports."""

import os
import sysconfig
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from firstspike.layers.dense import DenseLayer
from firstspike.signature import takes_arguments_of
from firstspike.substrates.brian import simulated
from firstspike.substrates.pynn import Simulator


@takes_arguments_of(Simulator)
class Nest(Simulator):
    """NEST with precise spike times: inputs and spikes are not bound to steps, and correct to about 1e-11 ``tau_syn``.

    Whether a membrane reached its threshold in between is tested only in steps, and at inputs: a membrane that
    touches the threshold for less than a step may be missed. Its refractory times are whole steps, and at least one:
    layers of spike trains need such a ``refractory``.

    Raises:
        ValueError: see ``Simulator``; in ``open``, a layer of spike trains with a refractory time that NEST lacks.
    """

    kind = "nest"
    unusual = ("tau_syn", "tau_rise", "bias", "reset", "adaptation_tau", "threshold_tau", "equations")
    described = ("IF_cond_exp", "aeif_psc_exp")
    title, package = "NEST", "nest-simulator"
    precise = True
    rest = 35.0  # exp(-35) is below the resolution of float64
    delay = 2.0  # NEST works in slices as long as the shortest delay: a long one makes it several times faster
    path = ""  # with nest-config in it PyNN would compile neurons that are not needed
    options: ClassVar = {"spike_precision": "off_grid", "verbosity": "error"}

    def _cell(self, model: str, parameters: Mapping[str, Any]) -> Any:
        if model in ("IF_curr_exp", "IF_cond_exp"):
            return super()._cell(model, parameters)
        if model == "IF_curr_alpha":
            precise = {"nest_name": dict.fromkeys(("on_grid", "off_grid"), "iaf_psc_alpha_ps")}
            cell = type(model, (self._sim.IF_curr_alpha,), precise)
        else:
            cell = self._sim.native_cell_type(model)
            # the others, some of which PyNN cannot write, stay as NEST has them
            cell.default_parameters = {name: x for name, x in cell.default_parameters.items() if name in parameters}
        from pyNN.parameters import Sequence

        def written(x: Any) -> Any:
            if x.ndim < 2:
                return x if x.ndim else float(x)
            return Sequence(x[0]) if len(x) == 1 else [Sequence(row) for row in x]  # one for all, or each its own

        return cell(**{name: written(x) for name, x in parameters.items()})


@takes_arguments_of(Simulator)
class Neuron(Simulator):
    """NEURON with a fixed step. Times are off by less than a step, by several if membranes are flat.

    The first time on a machine PyNN compiles its mechanisms, which takes a compiler and some 20 seconds.
    """

    kind = "neuron"
    title, package = "NEURON", "neuron"
    # for nrnivmodl, which NEURON brings along
    path = os.pathsep.join((sysconfig.get_path("scripts"), Simulator.path))


@takes_arguments_of(Simulator)
class Brian2(Simulator):
    """Brian2. Times are off by up to a step or two, more if membranes are flat. The slowest of the simulators.

    Equal time constants are moved one millionth apart, as Brian2 divides by their difference. It has all neurons from
    equations, without PyNN: their equations are integrated in steps by the method of Runge and Kutta (``rk4``).
    """

    kind = "brian2"
    title, package = "Brian2", "brian2"
    apart = 1e-6

    def _cells(self, place: str, layer: DenseLayer) -> Any:
        return super()._cells(place, layer) if layer.neuron.equations is None else layer.neuron

    def _simulate_each(
        self, layer: DenseLayer, arrival: Float[np.ndarray, "batch sources spikes"], until: float
    ) -> Float[np.ndarray, "batch out found"]:
        step_ms = np.array(self._clock()[0])
        with self._running(float(step_ms), step_ms):
            return simulated(layer, arrival, until, self.step, self._unit(layer))

    def _setup(self, step_ms: float, shortest_ms: float, longest_ms: float) -> None:
        import brian2

        brian2.BrianLogger.log_level_error()
        brian2.defaultclock.dt = step_ms * brian2.ms  # of the inputs, which PyNN leaves at 0.1 ms
        super()._setup(step_ms, shortest_ms, longest_ms)
