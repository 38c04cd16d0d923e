"""Which chip it is, its settings and its calibration, and all that can be missing."""

import sys
import types

import numpy as np
import pytest
import torch
from fake_pynn_brainscales import IDEAL, calibration

from firstspike.layers import Delay, DelayRule, LIFLinear, Network
from firstspike.neurons import LIF
from firstspike.substrates import BrainScaleS2, SubstrateError, calibrate


def chip(**settings):
    return BrainScaleS2(**{"calibration": "ideal.pbin", **settings})


def lif(inputs, outputs, **options):
    return LIFLinear(inputs, outputs, LIF(1.0, 1.0, 2.6), **options, dtype=torch.float64)


def test_identity(machine, network, monkeypatch, tmp_path):
    assert chip().identity() == {"kind": "brainscales2"}
    with chip().open(network) as substrate:
        found = substrate.identity()
    assert found["chip"] == "hxcube1chip7"
    assert found["bitfile"] == "abc123"
    assert found["calibration"] == "ideal.pbin"
    assert len(found["calibration_sha256"]) == 64
    assert found["settings_from"] == "config"
    assert found["settings"]["weight_scale"] == 30.0
    monkeypatch.setenv("SLURM_HARDWARE_LICENSES", "W66F3")
    (tmp_path / "calibrations").mkdir()
    calibration(tmp_path / "calibrations" / "W66F3.pbin")
    with BrainScaleS2().open(network) as substrate:
        other = substrate.identity()
    assert (other["chip"], other["calibration"]) == ("W66F3", "calibrations/W66F3.pbin")
    assert other["settings"] != found["settings"]
    with chip(calibration="nightly").open(network) as substrate:
        assert substrate.identity()["calibration"] == "nightly"


def test_settings_by_chip(machine, network, tmp_path):
    file = tmp_path / "chips.yaml"
    file.write_text("default: {latency_us: 0.2}\nhxcube1chip7: {latency_us: 0.05, retries: 2}\n")
    with chip(settings="chips.yaml").open(network) as substrate:
        found = substrate.identity()
    assert (found["settings"]["latency_us"], found["settings"]["retries"]) == (0.05, 2)
    assert found["settings_from"] == "chips.yaml: hxcube1chip7"
    machine.name = "another"
    with chip(settings="chips.yaml").open(network) as substrate:
        found = substrate.identity()
    assert (found["settings"]["latency_us"], found["settings_from"]) == (0.2, "chips.yaml: default")
    (tmp_path / "none.yaml").write_text("")
    with chip(settings="none.yaml").open(network) as substrate:
        assert substrate.identity()["settings_from"] == "config"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("default: {latency: 0.2}", r"chips.yaml: default: unknown setting 'latency'; there are calibration, tau_us"),
        ("default: {latency_us: soon}", r"chips.yaml: default: latency_us must be >= 0 and finite, got 'soon'"),
        ("default: {largest_batch: 1.5}", r"largest_batch must be a whole number > 0 and <= 1000000, got 1.5"),
        ("default: 3", "expected a section of settings for each chip"),
        ("default: {", "not YAML"),
        ("default: !!bool x", "chips.yaml: not YAML"),
        ("default: 2001-99-99", "chips.yaml: not YAML"),
        ("default: {tau_us: -1}", "chips.yaml: default: tau_us must be > 0 and finite, got -1"),
    ],
)
def test_bad_settings_files(machine, network, tmp_path, text, message):
    (tmp_path / "chips.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        chip(settings="chips.yaml").open(network)
    assert "setup" not in machine.calls


def test_no_software(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynn_brainscales", None)
    with pytest.raises(
        ImportError, match=r"pynn_brainscales cannot be imported .*electronicvisions.*mock_bss2 emulates"
    ):
        chip().open(network)


def test_no_chip(machine, network):
    machine.name = None
    with pytest.raises(SubstrateError, match=r"no BrainScaleS-2 is reached \(No connection to a chip\): SLURM_"):
        chip().open(network)


def test_no_calibration(machine, network):
    with pytest.raises(FileNotFoundError, match=r"calibrations/hxcube1chip7.pbin: chip .* no calibration.*calibrate\("):
        BrainScaleS2().open(network)
    with pytest.raises(FileNotFoundError, match=r"none.yaml: the settings file of the chips is not there"):
        chip(settings="none.yaml").open(network)


def test_a_damaged_calibration(machine, network, tmp_path):
    (tmp_path / "torn.pbin").write_text("{")
    with pytest.raises(SubstrateError, match=r"torn\.pbin: cannot be read as a calibration"):
        chip(calibration="torn.pbin").open(network)


def test_a_chip_that_does_not_start_is_let_go(machine, network):
    machine.stalls, machine.how = 1, "error"
    with pytest.raises(SubstrateError, match="chip hxcube1chip7 does not start: FPGA does not answer"):
        chip().open(network)
    assert machine.calls[-1] == "end"
    with chip().open(network):
        pass


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([lif(4, 513)], "513 neuron circuits needed, the chip has 512"),
        ([lif(129, 10)], "layer 0: 129 inputs per neuron; a neuron here is one circuit, which has 128"),
        (
            [Delay(4, DelayRule("clip", scale=2, shift=2)), lif(4, 300)],
            "300 neurons; the chip has 256 next to delays",
        ),
        ([Delay(129, DelayRule("clip", scale=2, shift=2)), lif(129, 3)], "129 delays; the chip has 128"),
        ([lif(2, 3, delay=DelayRule())], "synaptic delays; the chip only has axonal ones"),
        ([lif(2, 3), Delay(3)], "delays after the last LIF layer"),
    ],
    ids=["neurons", "inputs", "beside", "delays", "synaptic", "dendritic"],
)
def test_what_does_not_fit_is_refused_before_a_chip_is_needed(layers, message):
    with pytest.raises(ValueError, match=message):
        chip().open(Network(*layers))


def test_it_must_be_open(network, times):
    with pytest.raises(ValueError, match="is not open"):
        chip().run(network, times)


@pytest.mark.parametrize("bad", [{"window": 0.0}, {"latency_us": -1.0}, {"retries": 0}, {"tau_us": float("inf")}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="must be >"):
        chip(**bad)


class Quantity(float):
    __array_ufunc__ = None  # a product with an array is this one's

    def __mul__(self, other):
        return (np.asarray(other).tolist(), "s")

    __rmul__ = __mul__


def stand_in_for_calix(monkeypatch, fails=False):
    """Its names and the order of calls, as hxcomm, sta and calix have them."""
    seen = {}

    class Managed:
        def __enter__(self):
            return "connection"

        def __exit__(self, *error):
            seen["closed"] = True

    class Result:
        def apply(self, dumper):
            dumper.append("calibrated")

    def run(connection, target):
        assert connection == ("stateful", "connection")
        if fails:
            raise RuntimeError("no convergence")
        seen["target"] = target
        return Result()

    class Dumper(list):
        def done(self):
            return self

    modules = {
        "calix": {},
        "calix.common": {},
        "calix.common.base": {"StatefulConnection": lambda connection: ("stateful", connection)},
        "calix.spiking": {},
        "calix.spiking.neuron": {"NeuronCalibTarget": dict, "calibrate": run},
        "dlens_vx_v3": {
            "hxcomm": types.SimpleNamespace(ManagedConnection=Managed),
            "sta": types.SimpleNamespace(
                PlaybackProgramBuilderDumper=Dumper, to_portablebinary=lambda dumped: str(list(dumped)).encode()
            ),
        },
        "quantities": {"s": Quantity(1)},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return seen


def test_calibrate(machine, monkeypatch, tmp_path):
    seen = stand_in_for_calix(monkeypatch)
    calibrate("new/chip.pbin")
    assert (tmp_path / "new" / "chip.pbin").read_bytes() == b"['calibrated']"
    assert seen["closed"]
    assert seen["target"]["tau_mem"] == (6e-6, "s")
    assert seen["target"]["tau_syn"] == ([6e-6, 6e-6], "s")
    assert seen["target"]["refractory_time"] == (16e-6, "s")
    assert (seen["target"]["leak"], seen["target"]["i_synin_gm"]) == (80, 550)
    stand_in_for_calix(monkeypatch, fails=True)
    with pytest.raises(SubstrateError, match="the calibration failed: no convergence"):
        calibrate("other.pbin")
    assert not (tmp_path / "other.pbin").exists()


def test_calibrate_two_receptors(machine, monkeypatch):
    seen = stand_in_for_calix(monkeypatch)
    calibrate("two.pbin", tau_syn_us=(8.0, 12.0))
    assert seen["target"]["tau_syn"] == (pytest.approx([8e-6, 12e-6]), "s")
    for bad in ((6.0,), (6.0, 51.0), (0.0, 6.0), (float("nan"), 6.0)):
        with pytest.raises(ValueError, match=r"tau_syn_us must be two times from 0\.1 to 50\.0 us, got"):
            calibrate("two.pbin", tau_syn_us=bad)


def test_the_stand_in_is_strict(machine):
    """It stands for a chip only if it refuses what a chip's software refuses."""
    pynn = machine.module()
    with pytest.raises(KeyError, match="unhandled extra_params"):
        pynn.setup(initial_config=IDEAL, neuronPermutation=[0, 1], delay=1)
    pynn.setup(initial_config=IDEAL, neuronPermutation=[0, 1])
    with pytest.raises(AssertionError, match="HXNeuron has no tau_mem"):
        pynn.cells.HXNeuron(tau_mem=10)
    with pytest.raises(ValueError, match="delay unequal 0"):
        pynn.synapses.StaticSynapse(weight=0, delay=0.1)
    neurons = pynn.Population(2, pynn.cells.HXNeuron())
    with pytest.raises(ValueError, match="Cannot register more than 2"):
        pynn.Population(1, pynn.cells.HXNeuron())
    source = pynn.Population(1, pynn.cells.SpikeSourceArray())
    weights = {"synapse_type": pynn.synapses.StaticSynapse(weight=0), "receptor_type": "inhibitory"}
    projection = pynn.Projection(source, neurons, pynn.AllToAllConnector(), **weights)
    with pytest.raises(RuntimeError, match="wrong sign"):
        projection.set(weight=torch.ones(1, 2, dtype=torch.int64).numpy())
    pynn.run(0.1)
    with pytest.raises(AssertionError, match="reset"):
        pynn.run(0.1)
