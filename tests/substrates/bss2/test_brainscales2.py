import logging

import pytest
import torch
from fake_pynn_brainscales import calibration

from firstspike.layers import BiasSpikes, LIFLinear, Multiplex, Network
from firstspike.neurons import LIF
from firstspike.substrates import BrainScaleS2, Exact, SubstrateError

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


@pytest.mark.slow
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
        wanted = substrate.parameters(network)["1.weight"]
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


@pytest.mark.slow
@pytest.mark.parametrize("how", ["late", "warning", "error", "dead"])
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


@pytest.mark.slow
def test_trials(machine, network, times):
    with chip().open(network) as substrate:
        found = substrate.trials(network, times, 3)
        assert len(found) == 3
        assert torch.equal(found[0].output, found[2].output)  # the stand-in has no noise
        with pytest.raises(ValueError, match="count must be >= 1"):
            substrate.trials(network, times, 0)


def test_bias_spikes_behind_a_layer(machine):
    network = Network(Multiplex(5), lif(5, 2, 1.5), BiasSpikes([1.0, 1.2]), Multiplex(2), lif(8, 1, 1.5))
    times = torch.tensor([[0.2], [0.7]], **DOUBLE)
    with chip().open(network) as substrate:
        found = substrate.run(network, times)
    wanted = Exact().run(network, times)
    assert torch.isfinite(wanted.output).all()
    torch.testing.assert_close(found.output, wanted.output, rtol=0, atol=0.01)
