import logging

import pytest
import torch

import firstspike as fs
from firstspike.layers import BiasSpikes, Delay, DelayRule, LIFLinear, Multiplex, Network
from firstspike.neurons import LIF
from firstspike.substrates import Exact, MockBss2, SubstrateError
from firstspike.substrates.bss2.base import circuits_of
from firstspike.substrates.bss2.mock import _fired

DOUBLE = {"dtype": torch.float64}
CLEAN = {
    "threshold_offset": 0.0,
    "threshold_spread": 0.0,
    "threshold_batch_noise": 0.0,
    "delay_jitter": 0.0,
    "refractory": 99.0,
}
STEP = 0.008 / 6


def lif(inputs, outputs, weight, **options):
    layer = LIFLinear(inputs, outputs, LIF(1.0, 1.0, 2.6), **options, **DOUBLE)
    with torch.no_grad():
        layer.weight.fill_(weight)
    return layer


def run(network, times, **settings):
    with MockBss2(**settings).open(network) as chip:
        return chip.run(network, torch.as_tensor(times, **DOUBLE))


def test_times_are_on_the_clock(network, times):
    found = run(network, times)
    for known, shift in ((found.inputs, 0.0), (found.layers[3], 0.08 / 6), (found.layers[2], 0.08 / 6)):
        ticks = (known[torch.isfinite(known)] + shift) / STEP
        torch.testing.assert_close(ticks, ticks.round(), rtol=0, atol=1e-5)
    early = times - found.inputs
    assert float(early[torch.isfinite(early)].min()) >= 0
    assert STEP > float(early[torch.isfinite(early)].max()) > 0.5 * STEP


def test_latency_is_subtracted_but_moves_the_ticks():
    network = Network(lif(1, 1, 2.0, weight_mean=0, weight_std=0))
    times = [[0.0]]
    # two inputs' worth of weight in one: V = 2 t exp(-t) never reaches 2.6
    assert bool(torch.isinf(run(network, times, **CLEAN).output).all())
    network = Network(Multiplex(5), lif(5, 1, 2.0))
    exact = Exact().run(network, torch.as_tensor(times, **DOUBLE)).output
    for latency in (0.0, 0.08, 0.083):
        found = run(network, times, **CLEAN, latency_us=latency).output
        assert 0 <= float(exact - found) < STEP


def test_the_same_chip_has_the_same_pattern_and_another_has_not(network, times):
    fixed = CLEAN | {"threshold_spread": 0.08, "tau_spread": 0.05, "weight_spread": 0.05}
    one, again, other = (run(network, times, **fixed, chip=chip) for chip in (1, 1, 2))
    assert torch.equal(one.output, again.output)
    assert not torch.equal(one.output, other.output)
    difference = one.layers[3] - Exact().run(network, times).layers[3]
    assert 0.005 < float(difference[torch.isfinite(difference)].std()) < 0.5


def test_seed_is_the_noise_of_the_runs(network, times):
    noisy = {"threshold_spread": 0.0, "threshold_sample_noise": 0.02, "spike_jitter": 0.01}
    one, again, other = (run(network, times, **noisy, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.output, again.output)
    assert not torch.equal(one.output, other.output)


def test_state_goes_on_where_it_was(network, times):
    chip = MockBss2(spike_loss=0.1, stall=0.2).open(network)
    chip.run(network, times)
    state = chip.state_dict()
    wanted = chip.run(network, times)
    other = MockBss2(spike_loss=0.1, stall=0.2).open(network)
    other.load_state_dict(state)
    found = other.run(network, times)
    assert all(torch.equal(x, y) for x, y in zip(found.layers, wanted.layers, strict=True))


def test_weights_are_whole_numbers_up_to_63(network, times):
    with torch.no_grad():
        network[3].weight[1] = 5.0
        network[3].weight[2] = 0.512
    chip = MockBss2(**CLEAN).open(network)
    stored = chip.parameters(network)
    assert set(stored) == {"3.weight", "5.weight"}
    assert torch.equal((stored["3.weight"] * 30).round() / 30, stored["3.weight"])
    assert float(stored["3.weight"][1, 0]) == pytest.approx(2.1)
    assert float(stored["3.weight"][2, 0]) == 0.5
    chip.project_(network)
    assert float(network[3].weight.detach().abs().max()) == pytest.approx(2.1)
    assert network[3].weight[2, 0].item() == 0.512  # trained in full


def test_neurons_fire_again_and_later_layers_see_it():
    # a strong input early and one late: with a short rest the first neuron fires twice
    first, second = lif(2, 1, 15.0), lif(1, 1, 6.0)  # one spike is not enough for the second
    network, times = Network(first, second), [[0.0, 2.0]]
    settings = CLEAN | {"weight_scale": 3.0}
    once, twice = (run(network, times, **settings | {"refractory": rest}) for rest in (99.0, 1.0))
    assert torch.equal(once.layers[0], twice.layers[0])  # the host only notes the first
    assert torch.isinf(once.output).item()
    assert 2.0 < twice.output.item() < 4.0


def test_late_spikes_are_lost():
    network = Network(Multiplex(5), lif(5, 1, 2.0))
    spike = float(run(network, [[0.5]], **CLEAN).output)
    assert 0.5 < spike < 1.5
    assert bool(torch.isinf(run(network, [[0.5]], **CLEAN, window=spike - 0.01).output).all())
    assert bool(torch.isinf(run(network, [[31.0]], **CLEAN).output).all())


def test_delays_in_steps():
    rule = DelayRule("clip", scale=1.5, shift=2.0, mean=2.7, std=0.3)
    network = Network(Delay(8, rule, **DOUBLE), lif(8, 1, 1.0))
    found = run(network, torch.zeros(3, 8), **CLEAN, latency_us=0.0).layers[0]
    delay = (found * 6 - 8.25) / 0.125
    assert float((delay - delay.round()).abs().max()) < 0.07  # the clock's step is 8 ns of 125
    assert (found - network[0].delay).abs().max().item() <= 0.5 * 0.125 / 6 + STEP


def test_delayed_spikes_are_lost_after_the_window():
    network = Network(Delay(2, DelayRule("clip", scale=2, shift=2.0, mean=3.0, std=0), **DOUBLE), lif(2, 1, 1.0))
    found = run(network, [[0.0, 1.5]], **CLEAN, window=4.0).layers[0]
    assert torch.isfinite(found).flatten().tolist() == [True, False]


def test_a_delay_neuron_is_busy_until_its_delay_is_over():
    layers = [
        lif(2, 1, 15.0),
        Delay(1, DelayRule("clip", scale=3, shift=1.5, mean=3.0, std=0), **DOUBLE),
        lif(1, 1, 9.0),
    ]
    times = [[0.0, 1.5]]
    settings = CLEAN | {"weight_scale": 3.0, "refractory": 1.0}
    with_second = run(Network(*layers), times, **settings)
    without = run(Network(*layers), times, **settings | {"refractory": 99.0})
    assert torch.equal(with_second.output, without.output)


def test_spikes_get_lost(network, times):
    found = run(network, times, **CLEAN, spike_loss=0.3).layers[3]
    exact = torch.isfinite(Exact().run(network, times).layers[3])
    assert float(torch.isinf(found)[exact].double().mean()) == pytest.approx(0.3, abs=0.07)


def test_a_stalled_run_is_tried_again_and_then_reported(network, times, caplog):
    with caplog.at_level(logging.WARNING):
        found = run(network, times, **CLEAN, stall=0.6, seed=3)
    assert "the mock chip 1 stalled, try 1 of 5" in caplog.text
    assert torch.equal(found.output, run(network, times, **CLEAN).output)
    with pytest.raises(SubstrateError, match=r"the mock chip 1 stalled 2 times in a row"):
        run(network, times, stall=1.0, retries=2)


def test_circuits():
    assert circuits_of(lif(128, 10, 1.0)) == 10
    assert circuits_of(lif(129, 10, 1.0)) == 20
    assert circuits_of(Delay(20)) == 40
    MockBss2().open(Network(lif(256, 246, 1.0), BiasSpikes([0.9]), lif(247, 10, 1.0)))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([lif(4, 513, 1.0)], "513 neuron circuits needed, the chip has 512: layer 0 takes 513"),
        ([lif(300, 200, 1.0)], "600 neuron circuits needed"),
        ([lif(2, 3, 1.0, delay=DelayRule())], "layer 0: synaptic delays; the chip only has axonal ones"),
        ([lif(2, 3, 1.0), Delay(3)], "layer 1: delays after the last LIF layer"),
        ([LIFLinear(2, 3, LIF(float("inf"), 1.0, 1.0))], "neurons without leak"),
        ([LIFLinear(2, 3, trainable=["tau_mem"])], "parameters of neurons that learn or differ"),
        ([Delay(2), lif(2, 3, 1.0)], "layer 0 has delays from .* BrainScaleS-2 has them from 1.375 to 5.542 only"),
        ([Multiplex(2)], "the network has no LIF layer"),
    ],
    ids=["neurons", "inputs", "synaptic", "dendritic", "leak", "learnt", "range", "none"],
)
def test_what_does_not_fit_is_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        MockBss2().open(Network(*layers))


def test_it_must_be_open(network, times):
    with pytest.raises(ValueError, match="is not open"):
        MockBss2().run(network, times)


def test_identity(network):
    one, other = (MockBss2(chip=chip).open(network).identity() for chip in (1, 2))
    assert one["chip"] == "mock 1"
    assert other["chip"] == "mock 2"
    assert one["settings"] != other["settings"]
    assert one["settings"] == MockBss2().identity()["settings"]


@pytest.mark.parametrize("bad", [{"window": 0.0}, {"spike_jitter": -0.1}, {"retries": 0}, {"spike_loss": 1.0}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="must be >"):
        MockBss2(**bad)


@pytest.mark.parametrize("taus", [(1.0, 1.0), (1.4, 0.7)])
def test_each_sample_and_neuron_may_have_its_threshold(taus, source):
    times = torch.rand(7, 3, 2, generator=source, dtype=torch.float64)
    weight = torch.full((4, 3), 2.0, dtype=torch.float64)
    threshold = 0.5 + torch.rand(7, 4, generator=source, dtype=torch.float64)
    together, state = _fired(times, weight, fs.LIF(*taus), threshold, 1.0, 20.0)
    assert int(torch.isfinite(together).sum(-1).max()) >= 2
    for sample in range(7):
        neuron = fs.LIF(*taus, threshold[sample])
        alone = fs.spike_trains(times[sample], weight, neuron.with_values(refractory=1.0), max_spikes=20)
        torch.testing.assert_close(together[sample], alone[:, : together.shape[2]])
        assert bool(torch.isinf(alone[:, together.shape[2] :]).all())
    cells = fs.LIF(*(torch.full((4,), tau, dtype=torch.float64) for tau in taus)), threshold, 1.0
    first, between = _fired(times, weight, *cells, 0.6)
    then, after = _fired(times, weight, *cells, 20.0, between)
    torch.testing.assert_close(torch.cat([first, then], -1).sort(-1).values[..., : together.shape[2]], together)
    torch.testing.assert_close(after, state)


def test_nothing_after_the_end():
    times = torch.tensor([[[0.0], [3.0]]], dtype=torch.float64)
    weight = torch.tensor([[4.0, 4.0]], dtype=torch.float64)
    cells = fs.LIF(), torch.ones(1, dtype=torch.float64), 1.0
    assert int(torch.isfinite(_fired(times, weight, *cells, 50.0)[0]).sum()) >= 2
    assert torch.isfinite(_fired(times, weight, *cells, 1.0)[0]).flatten().tolist() == [True]
    for later in (times + 1.0, torch.full_like(times, torch.inf)):
        assert torch.isinf(_fired(later, weight, *cells, 1.0)[0]).flatten().tolist() == [True]


def test_thresholds_that_are_small_beside_the_noise_are_pointed_out(caplog):
    MockBss2().open(Network(LIFLinear(3, 2, LIF(threshold=2.6))))
    assert not caplog.text
    MockBss2().open(Network(LIFLinear(3, 2)))
    assert (
        "layer 0: threshold_offset and threshold_spread of the mock chip change a threshold of 1 by 21 %" in caplog.text
    )
