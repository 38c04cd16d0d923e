import math
import subprocess
import sys

import neo
import numpy as np
import pytest
import quantities as pq
import torch

import firstspike as fs
from firstspike.interop.neo import Segments

NEVER = math.inf


def network(**options):
    return fs.SpikingRecurrent(2, 5, 4, duration=100.0, neuron=fs.LIF(10.0, 5.0, unit="ms"), **options)


def trains():
    """Two samples of five neurons, not sorted, some silent."""
    found = torch.full((2, 5, 4), NEVER, dtype=torch.float64)
    found[0, 0, 1:3] = torch.tensor([30.25, 12.5])
    found[0, 4, 0] = 100.0
    found[1, 3] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    return found


def spikes(block):
    return [[train.rescale("ms").magnitude.tolist() for train in segment.spiketrains] for segment in block.segments]


def test_samples_are_segments_with_a_train_for_each_neuron():
    block = fs.to_neo(trains(), network(recurrent_signs=[1, 1, 1, -1, -1]))
    assert spikes(block) == [[[12.5, 30.25], [], [], [], [100.0]], [[], [], [], [1.0, 2.0, 3.0, 4.0], []]]
    train = block.segments[0].spiketrains[4]
    assert (train.units, train.t_start, train.t_stop) == (pq.ms, 0 * pq.ms, 100 * pq.ms)
    assert (train.name, train.annotations) == ("I 1", {"source_population": "I", "source_index": 1})
    chosen = block.segments[1].filter(source_population="I", objects=neo.SpikeTrain)
    assert [len(train) for train in chosen] == [4, 0]


def test_trains_without_a_layer():
    block = fs.to_neo(trains() + 50.0, unit="s", start=50.0, stop=200.0, populations={"odd": [1, 3]})
    names = ["neuron 0", "odd 0", "neuron 2", "odd 1", "neuron 4"]
    assert [train.name for train in block.segments[0].spiketrains] == names
    found = fs.from_neo(block, unit="s")
    torch.testing.assert_close(found.trains, trains().sort().values + 50.0, rtol=0, atol=0)
    assert found[1:] == (50.0, 200.0, {"odd": [1, 3]}, {})
    assert fs.from_neo(block).stop == 200e3  # ms


def test_trains_and_populations_come_back():
    for signs, populations in (
        ([1, 1, 1, -1, -1], {"E": slice(0, 3), "I": slice(3, 5)}),
        ([1, -1, 1, -1, 0], {"E": [0, 2], "I": [1, 3]}),
        (None, {}),
    ):
        found = fs.from_neo(fs.to_neo(trains(), network(recurrent_signs=signs)), dtype=torch.float32)
        assert torch.equal(found.trains, trains().sort().values.float())
        assert found.populations == populations


def test_silent_neurons_come_back():
    found = fs.from_neo(fs.to_neo(torch.full((3, 2, 7), NEVER), unit="ms", stop=10.0))
    assert found.trains.shape == (3, 2, 0)
    assert (found.start, found.stop) == (0.0, 10.0)


AT = torch.arange(0.0, 100.0, 0.1)
UNEVEN = torch.tensor([0.0, 10.0, 50.0])


@pytest.mark.parametrize(
    "at",
    [AT, torch.arange(0.0, 99.95, 0.1, dtype=torch.float64), UNEVEN, UNEVEN[:1]],
    ids=["float32", "float64", "uneven", "one"],
)
@pytest.mark.parametrize("shape", [(), (5,), (2, 5)], ids=str)
def test_signals_come_back(at, shape):
    values = torch.rand(*shape, len(at), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = {"v": (at, values), "i": fs.Current(at, values)}
    block = fs.to_neo(trains(), network(), signals=given, current_unit="pA")
    segment = block.segments[1]
    assert len(segment.irregularlysampledsignals) == 2 * (len(at) < 10)
    for signal, unit in zip(segment.analogsignals or segment.irregularlysampledsignals, (pq.mV, pq.pA), strict=True):
        assert signal.units == unit
        assert np.array_equal(signal.magnitude.T, values[1] if len(shape) > 1 else values.reshape(-1, len(at)))
    found = fs.from_neo(block).signals
    torch.testing.assert_close(found["v"][0], at.double(), rtol=1e-6, atol=0)
    assert torch.equal(found["v"][1], values.reshape(-1, max(1, math.prod(shape[-1:])), len(at)).expand(2, -1, -1))
    torch.testing.assert_close(found["i"].times, at.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found["i"].values, 1e-3 * values, rtol=1e-12, atol=0)  # nA


def test_a_segment_of_another_program():
    """As PyNN and files have them: other units, neurons in any order, signals with any names."""
    segment = neo.Segment()
    for name, own in (("b", [0.5]), ("a", [0.3, 0.1]), ("b", [])):
        segment.add(neo.SpikeTrain(own, units="s", t_stop=2.0, source_population=name))
    for height, unit in ((0.001, "V"), (1.0, "nS"), (2.0, "uA")):
        segment.add(neo.AnalogSignal(np.full((4, 1), height), unit, sampling_rate=2 * pq.kHz, t_start=1 * pq.s))
    segment.analogsignals[2].name = "clamp"
    found = fs.from_neo(segment)
    expected = torch.tensor([[[500.0, NEVER], [100.0, 300.0], [NEVER, NEVER]]], dtype=torch.float64)
    torch.testing.assert_close(found.trains, expected)
    assert found.populations == {"b": [0, 2], "a": slice(1, 2)}
    assert found.signals.keys() == {"signal 0", "signal 1", "clamp"}
    torch.testing.assert_close(found.signals["signal 0"][0], 1000.0 + 0.5 * torch.arange(4).double())
    assert found.signals["signal 0"][1].unique().item() == pytest.approx(1.0)  # mV
    assert found.signals["signal 1"][1].unique().item() == 1.0  # as it is
    assert found.signals["clamp"].values.tolist() == pytest.approx([2000.0] * 4)  # nA
    assert fs.from_neo(neo.Segment()).trains.shape == (1, 0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trains": torch.zeros(2, 5)}, r"expected times \(samples, neurons, spikes\), got \(2, 5\)"),
        ({"layer": None}, "unit: expected the unit of all times, such as unit='ms'"),
        ({"layer": None, "unit": "ms"}, "stop: expected the end of the segments, finite and after start=0, got None"),
        ({"stop": 99.0}, "expected spikes from start=0 to stop=99, got one at 100"),
        ({"trains": torch.full((1, 5, 1), math.nan)}, "expected spikes from start=0 to stop=100, got one at nan"),
        ({"unit": "mV"}, 'Unable to convert between units of "mV" and "s"'),
        ({"populations": {"A": slice(0, 3), "B": [2]}}, "neuron 2 is in 'A' and in 'B'"),
        (
            {"signals": {"v": (AT, AT[:9])}},
            r"signal 'v': expected .* values \(2, channels, points\), got \(1000,\) and",
        ),
    ],
)
def test_bad_trains(change, message):
    with pytest.raises(ValueError, match=message):
        fs.to_neo(**{"trains": trains(), "layer": network()} | change)


def test_bad_sources():
    with pytest.raises(ValueError, match="expected a neo Segment, or a Block that has any, got Tensor"):
        fs.from_neo(trains())
    with pytest.raises(ValueError, match="expected a neo Segment, or a Block that has any, got Block"):
        fs.from_neo(neo.Block())
    block = fs.to_neo(trains(), network(), signals={"v": (UNEVEN, UNEVEN)})
    block.segments[1].irregularlysampledsignals[0] = neo.IrregularlySampledSignal([1, 2], [1, 2], "mV", "ms", name="v")
    with pytest.raises(ValueError, match="segments have different times of 'v', read them one at a time"):
        fs.from_neo(block)
    block.segments[1].spiketrains.pop()
    with pytest.raises(ValueError, match="segments have different neurons or signals, read them one at a time"):
        fs.from_neo(block)
    assert fs.from_neo(block.segments[1]).trains.shape == (1, 4, 4)


def test_without_neo(monkeypatch):
    monkeypatch.setitem(sys.modules, "neo", None)
    for call in (lambda: fs.to_neo(trains(), network()), lambda: fs.from_neo(None)):
        with pytest.raises(ImportError, match=r'neo is missing\. Install it: pip install "\.\[neo\]"'):
            call()


PYNN_RUN = """
import subprocess
import sys
import pyNN.nest as sim
import torch
import firstspike as fs

times, amplitudes = [10.0, 20.0, 50.0], [0.5, -0.2, 0.1]
sim.setup(timestep=0.1)
cells = sim.Population(3, sim.IF_curr_exp(i_offset=1.0), label="E")
sim.StepCurrentSource(times=times, amplitudes=amplitudes).inject_into(cells)
cells = cells + sim.Population(2, sim.IF_curr_exp(i_offset=0.9), label="I")
cells.record(["spikes", "v"])
sim.run(100.0)
torch.save(tuple(fs.from_neo(cells.get_data())), sys.argv[1])
"""


@pytest.mark.nest
@pytest.mark.slow
def test_recordings_and_currents_of_pynn(tmp_path):
    """Those of an assembly of two populations in NEST, of which one gets a ``StepCurrentSource``."""
    subprocess.run([sys.executable, "-c", PYNN_RUN, str(tmp_path / "found.pt")], check=True, capture_output=True)
    found = Segments(*torch.load(tmp_path / "found.pt", weights_only=False))
    assert found.populations == {"E": slice(0, 3), "I": slice(3, 5)}
    at, voltage = found.signals["v"]
    assert voltage.shape == (1, 5, 1001)
    none = torch.full((1, 1), NEVER, dtype=torch.float64)
    steps = torch.tensor([10.0, 20.0, 50.0], dtype=torch.float64), torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64)
    for place, offset, injected in ((0, 1.0, True), (3, 0.9, False)):
        cell = fs.neurons.Cell("IF_curr_exp", i_offset=offset)
        layer = fs.SpikeTrains(1, 1, 20, cell.neuron, until=100.0, dtype=torch.float64)
        current = fs.Current(steps[0], cell.currents(steps[1])) if injected else None
        own = layer(none, current=current)[0, 0]
        own = own[own.isfinite()]
        torch.testing.assert_close(found.trains[0, place, : len(own)], own, rtol=0, atol=1e-9)
        membrane = layer.voltages(none, at[:-1], current=current)[0, 0]
        away = ((at[:-1, None] - own).abs() > 0.3).all(dim=1)  # NEST's recording is of whole steps
        torch.testing.assert_close(voltage[0, place, :-1][away], membrane[away] - 65.0, rtol=0, atol=1e-9)
