import logging
import sys
import types

import pytest
import torch
from fake_pynn_brainscales import IDEAL, calibration

from firstspike.layers import BiasSpikes, Delay, DelayRule, LIFLinear, Multiplex, Network
from firstspike.neuron import LIF
from firstspike.substrates import BrainScaleS2, Exact, SubstrateError, calibrate

DOUBLE = {"dtype": torch.float64}
TICK = 0.008 / 6


def chip(**settings):
    return BrainScaleS2(**{"calibration": "ideal.pbin", **settings})


def lif(inputs, outputs, weight=None, **options):
    layer = LIFLinear(inputs, outputs, LIF(1.0, 1.0, 2.6), **options, **DOUBLE)
    if weight is not None:
        with torch.no_grad():
            layer.weight.fill_(weight)
    return layer


def count(machine, call):
    return sum(name.startswith(call) for name in machine.calls)


def test_weights_are_written_when_they_have_changed(machine, network, times):
    with chip().open(network) as substrate:
        first = count(machine, "set ")
        # two LIF layers with two populations before the second one, two signs each, and the delays
        assert first == 2 * 3 + 1
        substrate.run(network, times)
        substrate.run(network, times)
        assert count(machine, "set ") == first
        with torch.no_grad():
            network[3].weight[2, 1] += 0.004  # less than half a digit
        substrate.run(network, times)
        assert count(machine, "set ") == first
        with torch.no_grad():
            network[3].weight[2, 1] = 1.0
            network[3].weight[2, 2] = 0.9
        substrate.run(network, times)
        changed = count(machine, "set ")
        with torch.no_grad():
            network[2].delay_raw += 0.125 / 6
        substrate.run(network, times)
        assert machine.calls[-3:] == ["set parameters", "run", "reset"]
        assert count(machine, "set ") == changed + 1


def test_large_batches_are_several_runs(machine, network, times):
    wanted = chip().open(network).run(network, times)
    machine.end()
    machine.runs_ms.clear()
    with chip(largest_batch=15).open(network) as substrate:
        found = substrate.run(network, times)
    assert machine.runs_ms == pytest.approx([0.01, 0.1 + 15 * 0.18, 0.1 + 15 * 0.18, 0.1 + 10 * 0.18])
    assert all(torch.equal(x, y) for x, y in zip(found.layers, wanted.layers, strict=True))


def test_times_are_on_the_clock(machine, network, times):
    with chip().open(network) as substrate:
        found = substrate.run(network, times - 0.5)  # also before the start
    assert float(found.inputs.min()) < 0
    for known, shift in ((found.inputs, 0.0), (found.layers[3], 0.08 / 6), (found.layers[2], 0.08 / 6)):
        ticks = (known[torch.isfinite(known)] + shift) / TICK
        torch.testing.assert_close(ticks, ticks.round(), rtol=0, atol=1e-5)
    early = times - 0.5 - found.inputs
    assert float(early[torch.isfinite(early)].min()) >= 0
    assert float(early[torch.isfinite(early)].max()) < TICK


def test_units_of_the_network_do_not_matter(machine):
    """A network that counts in milliseconds, say."""
    layer = LIFLinear(6, 3, LIF(5.0, 5.0, 2.6), weight_mean=1.8, weight_std=0.1, **DOUBLE)
    network = Network(Multiplex(3), layer)
    times = torch.tensor([[0.3, 4.0], [2.0, torch.inf]], **DOUBLE)
    with chip().open(network) as substrate:
        found = substrate.run(network, times)
        wanted = substrate.digits.parameters(network)["1.weight"]
    with torch.no_grad():
        network[1].weight.copy_(wanted)
    exact = Exact().run(network, times).output
    assert torch.isfinite(exact).any()
    both = torch.isfinite(exact) & torch.isfinite(found.output)
    assert float((found.output - exact)[both].abs().max()) < 0.02


def test_late_spikes_are_lost_and_do_not_reach_the_next_sample(machine):
    network = Network(Multiplex(5), lif(5, 1, 2.0))
    times = torch.tensor([[31.0], [0.5], [torch.inf]], **DOUBLE)
    with chip().open(network) as substrate:
        found = substrate.run(network, times)
    assert torch.isfinite(found.output).flatten().tolist() == [False, True, False]
    assert float(found.output[1]) == pytest.approx(float(Exact().run(network, times).output[1]), abs=0.003)


def test_neurons_fire_again_after_their_refractory_period(machine, tmp_path):
    first, second = lif(2, 1, 15.0), lif(1, 1, 6.0)
    network, times = Network(first, second), torch.tensor([[0.0, 2.0]], **DOUBLE)
    calibration(tmp_path / "short.pbin", refractory_us=6.0, digits=3.0)
    calibration(tmp_path / "long.pbin", refractory_us=150.0, digits=3.0)
    found = {}
    for name in ("short", "long"):
        with chip(calibration=f"{name}.pbin", weight_scale=3.0).open(network) as substrate:
            found[name] = substrate.run(network, times)
    assert torch.equal(found["short"].layers[0], found["long"].layers[0])
    assert torch.isfinite(found["short"].output).item()
    assert torch.isinf(found["long"].output).item()


def test_copies_of_neurons(machine):
    torch.manual_seed(1)
    network = Network(Multiplex(5), lif(10, 6, weight_mean=1.0, weight_std=0.3), Multiplex(3), lif(18, 2, 1.0))
    with torch.no_grad():
        network[3].weight[:, 1::3] = 0.5
        network[1].weight.copy_((network[1].weight * 30).round() / 30)
    times = torch.rand(6, 2, **DOUBLE)
    wanted = Exact().run(network, times)
    with chip().open(network) as substrate:
        found = substrate.run(network, times)
    assert torch.isfinite(wanted.output).any()
    for one, other in zip(found.layers, wanted.layers, strict=True):
        assert torch.equal(torch.isfinite(one), torch.isfinite(other))
        assert float((one - other)[torch.isfinite(other)].abs().max()) < 0.01


@pytest.mark.parametrize("how", ["late", "warning", "error"])
def test_a_stalled_run_is_tried_again_and_then_reported(machine, network, times, caplog, how):
    with chip(retries=3).open(network) as substrate:
        wanted = substrate.run(network, times)
        machine.stalls, machine.how = 2, how
        with caplog.at_level(logging.WARNING):
            found = substrate.run(network, times)
        assert "chip hxcube1chip7 stalled, try 2 of 3" in caplog.text
        assert all(torch.equal(x, y) for x, y in zip(found.layers, wanted.layers, strict=True))
        machine.stalls = 3
        with pytest.raises(SubstrateError, match="chip hxcube1chip7 stalled 3 times in a row"):
            substrate.run(network, times)
        assert torch.equal(substrate.run(network, times).output, wanted.output)


def test_trials(machine, network, times):
    with chip().open(network) as substrate:
        found = substrate.trials(network, times, 3)
        assert len(found) == 3
        assert torch.equal(found[0].output, found[2].output)  # the stand-in has no noise
        with pytest.raises(ValueError, match="count must be >= 1"):
            substrate.trials(network, times, 0)


def test_identity(machine, network, monkeypatch, tmp_path):
    assert chip().identity() == {"kind": "brainscales2"}
    with chip().open(network) as substrate:
        found = substrate.identity()
    assert found["chip"] == "hxcube1chip7"
    assert found["bitfile"] == "abc123"
    assert found["calibration"] == "ideal.pbin"
    assert len(found["calibration_sha256"]) == len(found["settings_sha256"]) == 64
    assert found["settings_from"] == "config"
    assert found["settings"]["weight_scale"] == 30.0
    monkeypatch.setenv("SLURM_HARDWARE_LICENSES", "W66F3")
    (tmp_path / "calibrations").mkdir()
    calibration(tmp_path / "calibrations" / "W66F3.pbin")
    with BrainScaleS2().open(network) as substrate:
        other = substrate.identity()
    assert (other["chip"], other["calibration"]) == ("W66F3", "calibrations/W66F3.pbin")
    assert other["settings_sha256"] != found["settings_sha256"]
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
        ("default: {latency_us: soon}", r"chips.yaml: default: latency_us must be like 0.08, got 'soon'"),
        ("default: {largest_batch: 1.5}", r"largest_batch must be like 200, got 1.5"),
        ("default: 3", "expected a section of settings for each chip"),
        ("default: {", "is no YAML"),
        ("default: {tau_us: -1}", "settings of the chip are out of range"),
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
            "300 neurons; there is room for 256 beside delays",
        ),
        ([Delay(129, DelayRule("clip", scale=2, shift=2)), lif(129, 3)], "129 delays; there is room for 128"),
        ([lif(2, 3, delay=DelayRule())], "synaptic delays; the chip only has axonal ones"),
        ([lif(2, 3), Delay(3)], "delays behind the last LIF layer"),
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
    with pytest.raises(ValueError, match="settings of the chip are out of range"):
        chip(**bad)


def test_bias_spikes_behind_a_layer(machine):
    network = Network(Multiplex(5), lif(5, 2, 1.5), BiasSpikes([1.0, 1.2]), Multiplex(2), lif(8, 1, 1.5))
    times = torch.tensor([[0.2], [0.7]], **DOUBLE)
    with chip().open(network) as substrate:
        found = substrate.run(network, times)
    wanted = Exact().run(network, times)
    assert torch.isfinite(wanted.output).all()
    torch.testing.assert_close(found.output, wanted.output, rtol=0, atol=0.01)


class Quantity(float):
    def __mul__(self, other):
        return (float(other), "s")

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
    calibrate("new/chip.pbin", i_synin_gm=700)
    assert (tmp_path / "new" / "chip.pbin").read_bytes() == b"['calibrated']"
    assert seen["closed"]
    assert seen["target"]["tau_mem"] == (6e-6, "s")
    assert seen["target"]["refractory_time"] == (16e-6, "s")
    assert (seen["target"]["leak"], seen["target"]["i_synin_gm"]) == (80, 700)
    with pytest.raises(ValueError, match="unknown targets tau; there are leak, reset"):
        calibrate("other.pbin", tau=1)
    stand_in_for_calix(monkeypatch, fails=True)
    with pytest.raises(SubstrateError, match="the calibration failed: no convergence"):
        calibrate("other.pbin")
    assert not (tmp_path / "other.pbin").exists()


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
