"""The simulators that PyNN supports."""

import os
import sysconfig
from collections.abc import Mapping
from typing import Any, ClassVar

from firstspike.signature import takes_arguments_of
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

    def _check_time(self, layer: str, name: str, value: float) -> None:
        steps = value / self.step
        if round(steps) < 1 or abs(steps - round(steps)) > 1e-6 * steps:
            what = {"refractory": "refractory times", "window": "delays"}[name]
            raise ValueError(
                f"{layer}: NEST has {what} of whole steps, at least one, and the step is {self.step:g} tau_syn; got a "
                f"{name} of {value:g}. Set the layer's {name}, or substrate.step"
            )


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

    Equal time constants are moved one millionth apart, as Brian2 divides by their difference.
    """

    kind = "brian2"
    title, package = "Brian2", "brian2"
    apart = 1e-6

    def _setup(self, step_ms: float, shortest_ms: float, longest_ms: float) -> None:
        import brian2

        brian2.BrianLogger.log_level_error()
        brian2.defaultclock.dt = step_ms * brian2.ms  # of the inputs, which PyNN leaves at 0.1 ms
        super()._setup(step_ms, shortest_ms, longest_ms)
