"""A stand-in for ``pynn_brainscales.brainscales2``: it checks what it is called with, and simulates what a chip does.

Names, units and ranges are those of pynn_brainscales: times in ms, weights whole numbers whose sign follows from the
receptor, delays 0, potentials 0 to 1022, circuits given out by ``neuronPermutation``, a reset after every run. Its
calibrations are JSON. Neurons are simulated from event to event, all samples of a run in one go.
"""

import json
import random
import sys
import types
import warnings

import numpy as np
from fake_chip import simulated

PARAMETERS = {  # name: largest value
    "leak_v_leak": 1022,
    "threshold_v_threshold": 1022,
    "reset_v_reset": 1022,
    "refractory_period_refractory_time": 255,
    "event_routing_enable_bypass_excitatory": 1,
    "multicompartment_connect_right": 1,
}
IDEAL = {"tau_mem_us": 6.0, "tau_syn_us": 6.0, "threshold": 2.6, "digits": 30.0, "refractory_us": 150.0}


def calibration(file, **changes):
    """A calibration of the stand-in; returns the file's name."""
    file.write_text(json.dumps(IDEAL | changes))
    return str(file)


class Train:
    def __init__(self, times_ms, index):
        self.magnitude = np.asarray(times_ms, dtype=np.float64)
        self.annotations = {"source_index": index, "source_id": 1000 + index}

    def __len__(self):
        return len(self.magnitude)

    def rescale(self, unit):
        assert unit == "ms"
        return self


class HXNeuron:
    def __init__(self, **parameters):
        check_parameters(parameters)
        self.parameters = parameters


class SpikeSourceArray:
    def __init__(self, spike_times=()):
        self.spike_times = list(spike_times)


class StaticSynapse:
    def __init__(self, weight=0.0, delay=0):
        if delay != 0:
            raise ValueError("Setting the delay unequal 0 is not supported.")
        self.weight = weight


class AllToAllConnector:
    def mask(self, before, after):
        return np.ones((before, after), dtype=bool)


class ArrayConnector(AllToAllConnector):
    def __init__(self, array):
        self.array = np.asarray(array)
        assert self.array.dtype == bool

    def mask(self, before, after):
        assert self.array.shape == (before, after)
        return self.array


def check_parameters(parameters):
    for name, value in parameters.items():
        assert name in PARAMETERS, f"HXNeuron has no {name}"
        values = np.asarray(value)
        assert values.dtype.kind in "ib", f"{name} is a whole number on the chip"
        assert values.min() >= 0
        assert values.max() <= PARAMETERS[name], name


class Machine:
    """The chip and the module that drives it.

    Attributes:
        calls: names of the calls that reach the chip, in order.
        stalls: so many of the next runs stall.
        how: ``late`` ones give a spike behind the end of the run, ``warning`` ones leave it out and warn, ``error``
            ones raise, and ``dead`` ones raise in the reset after them as well.
        name: of the chip; None where there is none.
    """

    def __init__(self, name="hxcube1chip7"):
        self.calls = []
        self.stalls, self.how, self.name, self.dead = 0, "late", name, False
        self.state = types.SimpleNamespace(connection=None)
        self.up = False
        self.runs_ms = []

    def module(self):
        pynn = types.ModuleType("pynn_brainscales.brainscales2")
        for name in ("setup", "run", "reset", "end"):
            setattr(pynn, name, getattr(self, name))
        machine = self

        class Population(_Population):
            def __init__(self, size, cell):
                super().__init__(machine, size, cell)

        class Projection(_Projection):
            def __init__(self, before, after, connector, synapse_type=None, receptor_type="excitatory"):
                super().__init__(machine, before, after, connector, synapse_type, receptor_type)

        pynn.Population, pynn.Projection = Population, Projection
        pynn.AllToAllConnector, pynn.ArrayConnector = AllToAllConnector, ArrayConnector
        pynn.cells = types.SimpleNamespace(HXNeuron=HXNeuron, SpikeSourceArray=SpikeSourceArray)
        pynn.synapses = types.SimpleNamespace(StaticSynapse=StaticSynapse)
        pynn.simulator = types.SimpleNamespace(state=self.state)
        pynn.helper = types.SimpleNamespace(
            chip_from_file=self.chip_from_file,
            chip_from_nightly=self.chip_from_nightly,
            get_unique_identifier=self.get_unique_identifier,
        )
        return pynn

    def install(self, monkeypatch):
        """Put the module where it is imported from, and of PyNN itself what is used."""
        pynn = self.module()
        package = types.ModuleType("pynn_brainscales")
        package.brainscales2 = pynn
        monkeypatch.setitem(sys.modules, "pynn_brainscales", package)
        monkeypatch.setitem(sys.modules, "pynn_brainscales.brainscales2", pynn)
        parameters = types.ModuleType("pyNN.parameters")
        parameters.Sequence = list
        monkeypatch.setitem(sys.modules, "pyNN", types.ModuleType("pyNN"))
        monkeypatch.setitem(sys.modules, "pyNN.parameters", parameters)
        monkeypatch.delenv("SLURM_HARDWARE_LICENSES", raising=False)
        return self

    def chip_from_file(self, path):
        with open(path, encoding="utf-8") as file:
            return json.load(file)

    def chip_from_nightly(self):
        return IDEAL

    def get_unique_identifier(self):
        if self.name is None:
            raise RuntimeError("No connection to a chip\nand more")
        return [self.name]

    def setup(self, timestep=3.4e-5, **extra):
        unknown = extra.keys() - {"initial_config", "neuronPermutation", "connection", "enable_neuron_bypass"}
        if unknown:
            raise KeyError(f"unhandled extra_params in call to pynn.setup(...):{unknown}")
        assert not self.up, "set up twice"
        self.calls.append("setup")
        self.calibrated = extra["initial_config"]
        self.circuits = list(extra["neuronPermutation"])
        assert len(set(self.circuits)) == len(self.circuits) <= 512
        assert all(0 <= circuit < 512 for circuit in self.circuits)
        self.up, self.ran, self.given = True, False, 0
        self.populations, self.projections = [], []

    def end(self):
        assert self.up, "ended before it was set up"
        self.calls.append("end")
        self.up = False
        self.state.connection = None

    def reset(self):
        self.calls.append("reset")
        self.ran = False
        for population in self.populations:
            population.spikes = None
        if self.dead:
            self.dead = False
            raise RuntimeError("FPGA cannot be reset")

    def run(self, runtime):
        assert self.up
        assert not self.ran, "pynn.reset() between runs is mandatory"
        self.calls.append("run")
        self.ran = True
        self.state.connection = types.SimpleNamespace(bitfile_info={"githash": "abc123"})
        self.runs_ms.append(runtime)
        for population in self.populations:
            assert population.rows() <= 256, "more synapses than a neuron has rows"
        if self.stalls and self.how in ("error", "dead"):
            self.stalls -= 1
            self.dead = self.how == "dead"
            raise RuntimeError("FPGA does not answer")
        simulated(self, runtime * 1e3)
        if self.stalls:
            self.stalls -= 1
            late = next(x for x in self.populations if x.recorded)
            if self.how == "warning":
                late.warns = True
            else:
                late.spikes[0] = np.append(late.spikes[0], runtime * 1e3 + 1)


class _Population:
    def __init__(self, machine, size, cell):
        assert machine.up
        assert size >= 1
        self.machine, self.size, self.cell = machine, size, cell
        self.is_source = isinstance(cell, SpikeSourceArray)
        self.recorded, self.spikes, self.warns = False, None, False
        if isinstance(cell, HXNeuron):
            if machine.given + size > len(machine.circuits):
                raise ValueError(f"Cannot register more than {len(machine.circuits)} IDs")
            self.circuits = machine.circuits[machine.given : machine.given + size]
            machine.given += size
            self.parameters = dict(cell.parameters)
        else:
            self.times = [[] for _ in range(size)]
        machine.populations.append(self)

    def record(self, variables):
        assert variables == ["spikes"]
        assert isinstance(self.cell, HXNeuron)
        self.recorded = True

    def set(self, **values):
        if isinstance(self.cell, HXNeuron):
            check_parameters(values)
            assert all(np.shape(value) in ((), (self.size,)) for value in values.values())
            self.machine.calls.append("set parameters")
            self.parameters |= values
            return
        assert values.keys() == {"spike_times"}
        assert len(values["spike_times"]) == self.size
        self.times = [np.asarray(train, dtype=np.float64) for train in values["spike_times"]]
        for train in self.times:
            assert np.isfinite(train).all()
            assert (np.diff(train) >= 0).all()
            assert not len(train) or train[0] > 0.05, "too close to the start of the run"

    def rows(self):
        """Synapses that its busiest neuron may have."""
        return sum(x.rows() for x in self.machine.projections if x.after is self)

    def get_data(self, variables, clear=False):
        assert variables == "spikes"
        assert self.recorded
        assert self.machine.ran, "data are gone after a reset"
        if self.warns:
            self.warns = False
            warnings.warn("Recorded at least one spike after t_stop", stacklevel=2)
        trains = [
            Train(np.asarray(x) * 1e-3, k) for k, x in enumerate(self.spikes) if len(x)
        ]  # silent ones are missing
        random.Random(0).shuffle(trains)
        return types.SimpleNamespace(
            segments=[types.SimpleNamespace(spiketrains=[]), types.SimpleNamespace(spiketrains=trains)]
        )


class _Projection:
    def __init__(self, machine, before, after, connector, synapse, receptor):
        assert receptor in ("excitatory", "inhibitory")
        assert isinstance(after.cell, HXNeuron)
        self.machine, self.before, self.after, self.receptor = machine, before, after, receptor
        self.mask = connector.mask(before.size, after.size)
        self.weight = np.full(self.mask.shape, synapse.weight)
        self.check()
        machine.projections.append(self)

    def set(self, weight):
        self.machine.calls.append(f"set {self.receptor} weights")
        assert weight.shape == self.mask.shape
        self.weight = weight
        self.check()

    def check(self):
        wrong = self.weight < 0 if self.receptor == "excitatory" else self.weight > 0
        if wrong.any():
            raise RuntimeError(f"ConnectionError: weights of the wrong sign for {self.receptor}")
        assert np.asarray(self.weight).dtype.kind == "i", "weights are whole numbers"

    def rows(self):
        """Synapses of the busiest neuron: of weights above 63 several."""
        blocks = np.maximum(np.ceil(np.abs(self.weight) / 63), 1) * self.mask
        return int(blocks.sum(axis=0).max())
