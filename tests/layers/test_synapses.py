"""Receptors of inputs and signs of weights, in all layers of neurons that spike."""

import copy
import itertools
import math
import re

import pytest
import torch

import firstspike as fs
from firstspike import LIF, DelayRule, Network, SpikeTrains, SpikingConv2d, SpikingLinear, SpikingRecurrent
from firstspike.data import DATASETS
from firstspike.layers import start_firing_
from firstspike.layers.ensembles import Ensemble, difference_of
from firstspike.neurons import AdaptiveLIF

TWO = LIF(2.0, (1.0, 2.5))
REFERENCE = {"backend": "reference", "dtype": torch.float64}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(samples=3, count=4, seed=1):
    return 2 * torch.rand(samples, count, generator=seeded(seed), dtype=torch.float64)


def dense(neuron=TWO, seed=0, make=SpikingLinear, **options):
    sizes = (4, 3) if make is SpikingLinear else (4, 3, 12)
    return make(*sizes, neuron, generator=seeded(seed), **{**REFERENCE, "receptor": [0, 1, 1, 0], **options})


def recurrent(neuron=TWO, seed=0, **options):
    more = {
        "receptor": [0, 1, 1, 0],
        "recurrent_receptor": [1, 0, 1],
        "weight_mean": 1.0,
        "weight_std": 0.8,
        "window_spikes": 20,
    }
    more |= {"recurrent_std": 0.8, "window": 0.7, "overflow": "drop", **options}
    return SpikingRecurrent(4, 3, 60, 4.0, neuron, generator=seeded(seed), **REFERENCE, **more)


@pytest.mark.parametrize("receptor", [[0, 1, 1, 0], torch.tensor([0, 1, 1, 0]), "sign"], ids=["list", "tensor", "sign"])
def test_a_layer_hands_its_receptors_to_the_operator(receptor):
    times, options = inputs(), {"receptor": receptor, "delay": DelayRule(scale=0.5)}
    first = dense(weight_mean=0.7, weight_std=0.9, **options)
    expected = fs.first_spike_time(times, first.weight, TWO, delay=first.delay, receptor=receptor, backend="reference")
    assert torch.equal(first(times), expected)
    trains = dense(AdaptiveLIF(2.0, (1.0, 2.5), adaptation=[(3.0, 0.5)]), make=SpikeTrains, **options)
    given = {"max_spikes": 12, "delay": trains.delay, "receptor": receptor, "backend": "reference"}
    assert torch.equal(trains(times), fs.spike_trains(times[..., None], trains.weight, trains.neuron, **given))
    assert trains(times)[..., 1].isfinite().any()
    other = dense(receptor=[1, 0, 0, 1], weight_mean=0.7, weight_std=0.9, delay=options["delay"])
    assert not torch.equal(other(times), first(times)), "the receptor matters"


def test_receptors_of_channels():
    conv = SpikingConv2d((2, 3, 3), 3, 2, TWO, receptor=[1, 0], signs=[1, -1], generator=seeded(), **REFERENCE)
    times = inputs(3, 18)
    of_pixels = [1] * 4 + [0] * 4
    found = fs.first_spike_time(conv.seen(times), conv.synapses, TWO, receptor=of_pixels, backend="reference")
    assert torch.equal(conv(times), found.mT.flatten(-2))
    assert (conv.weight[:, 0] >= 0).all()
    assert (conv.weight[:, 1] <= 0).all()
    arriving = conv.arriving(times, conv(times))
    assert arriving.receptor.tolist() == of_pixels


NEURONS = {
    "receptors": TWO,
    "bias": LIF(2.0, (1.0, 2.5), refractory=0.2, bias=0.8),
    "adaptive": AdaptiveLIF(2.0, (1.0, 2.5), reset=-0.1, adaptation=[(3.0, 0.3)], threshold_adaptation=[(2.0, 0.2)]),
    "no reset": LIF(2.0, (1.0, 2.5), reset=None, refractory=0.1, tau_rise=(0.3, 0.0)),
}
DELAYS = {
    "window": {},
    "delays": {"recurrent_delay": DelayRule(scale=1.0)},
    "all delays": {"recurrent_delay": DelayRule(scale=1.0), "delay": DelayRule()},
}


@pytest.mark.parametrize(("neuron", "delays"), list(itertools.product(NEURONS, DELAYS)))
def test_windows_give_the_spikes_of_one_call(neuron, delays):
    """The layer's own spikes, given back as inputs, make all neurons spike as they did."""
    layer, times = recurrent(NEURONS[neuron], **DELAYS[delays]), inputs()
    found = layer(times)
    assert found[..., 1].isfinite().any()
    seen = layer.arriving(times, found.detach())
    assert seen.receptor.shape == seen.weight.shape[1:]
    again = fs.spike_trains(
        seen.times[..., None], seen.weight, layer.neuron, max_spikes=60, delay=seen.delay, receptor=seen.receptor,
        until=4.0, backend="reference", overflow="drop",
    )  # fmt: skip
    torch.testing.assert_close(found, again, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("neuron", NEURONS)
def test_recurrent_layers_in_pieces(neuron):
    layer, times = recurrent(NEURONS[neuron], recurrent_delay=DelayRule(scale=1.0)), inputs()
    one, state = layer.proceed(times, 1.3)
    assert state.neurons.current.shape == (3, 3, len(NEURONS[neuron].components))
    other, _ = layer.proceed(times, 4.0, state.detach())
    whole = torch.cat([one, other], -1).sort(-1).values[..., :60]
    torch.testing.assert_close(whole, layer(times), rtol=1e-12, atol=1e-12)


def test_a_bias_acts_from_time_0_on_in_recurrent_layers():
    """Inputs before that do not arrive, as in one call."""
    layer = recurrent(LIF(2.0, (1.0, 2.5), bias=1.5))
    times = inputs()
    times[:, 0] = -1.0
    without = times.clone()
    without[:, 0] = math.inf
    assert torch.equal(layer(times), layer(without))
    assert layer(times).min() > 0


def test_the_signs_of_all_weights_tell_the_receptor():
    layer = recurrent(receptor="sign", recurrent_receptor=None)
    assert layer.recurrent_receptor == layer.reached == "sign"
    signs = dense(receptor="sign", weight_mean=0.5, weight_std=0.5)
    by_number = dense(receptor=[0, 0, 0, 0], weight_mean=0.5, weight_std=0.5)
    assert not torch.equal(signs(inputs()), by_number(inputs()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dense(receptor=None), r"has 2 receptors: say which one each input reaches, as receptor=\[0, 1, "),
        (lambda: dense(receptor=[0, 1]), r"^receptor must have a number for each of 4 inputs, got \(2,\)$"),
        (lambda: dense(receptor=[0, 1, 2, 0]), r"^receptor must be from 0 to 1 for LIF\("),
        (lambda: dense(receptor=[0, 0.5, 1, 0]), r"^receptor must be a list with a whole number for each input, got"),
        (lambda: dense(receptor=1), r"^receptor must be 'sign', got 1$"),
        (lambda: dense(receptor="sing"), r'^receptor must be "sign", or a number for each input, got \'sing\'$'),
        (lambda: dense(LIF(2.0, (1.0, 2.0, 3.0)), receptor="sign"), r'^receptor="sign" needs a neuron with two'),
        (lambda: dense(LIF(2.0)), r"^receptor needs a neuron with several, such as LIF\(tau_syn=\(1\.0, 2\.0\)\), got"),
        (lambda: recurrent(recurrent_receptor=None), r"^recurrent_receptor: LIF\(.* has 2 receptors: say which one"),
        (lambda: recurrent(recurrent_receptor=[0]), r"^recurrent_receptor: receptor must have a number for each of 3"),
        (
            lambda: recurrent(recurrent_receptor="sign"),
            r'^recurrent_receptor and receptor must both be "sign", or both',
        ),
        (lambda: recurrent(receptor="sign"), r'^recurrent_receptor and receptor must both be "sign", or both'),
        (lambda: recurrent(recurrent_signs=[1]), r"^recurrent_signs must be 1, -1 or 0 for each of 3 inputs, got 1: "),
        (
            lambda: dense(signs=[1, 1, -1, 2]),
            r"^signs must be 1, -1 or 0 for each of 4 inputs, got 4: \[1, 1, -1, 2\]$",
        ),
        (lambda: dense(signs="+-+-"), r"^signs must be a list with a whole number for each input, got '\+-\+-'$"),
        (
            lambda: fs.IntegralReadout(4, 3, TWO),
            r"^readouts integrate a LIF with one receptor, .*: give this one such a neuron, or LIF\(",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_layers_print_receptors_and_signs():
    shown = str(recurrent(signs=[1, -1, 0, 1]))
    assert "receptor=(0, 1, 1, 0), signs=(1, -1, 0, 1)" in shown
    assert "recurrent_receptor=(1, 0, 1)" in shown
    assert "receptor" not in str(SpikingLinear(4, 3))
    assert SpikingLinear(4, 3, TWO, receptor="sign", device="meta").weight.is_meta
    assert SpikingLinear(4, 3, TWO, receptor=[0, 1, 1, 0], device="meta").receptors.is_meta


@pytest.mark.parametrize("neuron", [*NEURONS.values(), LIF(2.0, bias=-1.0), LIF(2.0, tau_rise=3.0)], ids=str)
def test_most_neurons_fire_at_the_start(neuron):
    receptor = [0] * 20 if len(neuron.receptors) > 1 else None
    layer = SpikingLinear(20, 30, neuron, receptor=receptor, generator=seeded(), **REFERENCE)
    scale = 1.0 + (neuron.tau_rise if isinstance(neuron.tau_rise, float) else neuron.tau_rise[0])
    assert layer(scale * inputs(10, 20)).isfinite().float().mean() > 0.9


@pytest.mark.parametrize("inhibitory", [0, 4, 10, 16])
def test_signs_at_the_start(inhibitory):
    """Neurons fire, whichever share of the inputs inhibits."""
    signs = [1] * (20 - inhibitory) + [-1] * inhibitory
    layer = SpikingLinear(20, 200, LIF(2.0), signs=signs, generator=seeded(), dtype=torch.float64)
    sides = torch.tensor(signs)
    assert (layer.weight * sides >= 0).all()
    assert layer(inputs(20, 20)).isfinite().float().mean() > 0.8
    excites, inhibits = (layer.weight.detach()[:, sides == side].abs().sum() for side in (1, -1))
    if inhibitory:
        assert (inhibits / excites).item() == pytest.approx(0.5, rel=0.1)
    start_firing_(Network(layer), inputs(20, 20), seeded())
    assert (layer.weight * sides >= 0).all()
    given = SpikingLinear(20, 3, signs=signs, weight_mean=0.5, weight_std=0.2, generator=seeded())
    assert (given.weight * sides >= 0).all()
    plain = SpikingLinear(20, 3, weight_mean=0.5, weight_std=0.2, generator=seeded())
    assert torch.equal(given.weight.abs(), plain.weight.abs())


def test_weights_that_cross_0_are_put_back():
    layer = recurrent(signs=[1, -1, 0, 1], recurrent_signs=[1, -1, 0], delay=DelayRule("clip", mean=0.1))
    with torch.no_grad():
        for name in ("weight", "recurrent_weight", "delay_raw"):
            getattr(layer, name).normal_(0, 2.0, generator=seeded())
    before = copy.deepcopy(layer)
    layer.project_()
    for name, signs in (("weight", [1, -1, 0, 1]), ("recurrent_weight", [1, -1, 0])):
        weight, was = getattr(layer, name), getattr(before, name)
        right = torch.tensor(signs) * was >= 0
        assert torch.equal(weight, torch.where(right, was, 0.0))
        assert not right.all()
    assert torch.equal(layer.delay_raw, before.delay_raw.clamp(0, 1))


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_training_keeps_the_signs(seeds):
    """Also where networks train side by side, and where weights of silent neurons are raised."""
    signs = [1, -1, 1, -1, 1, -1, 1, -1, 1]
    data = DATASETS["bars"](train=30, validation=6, test=6)

    def network(seed):
        lif = SpikingLinear(9, 12, LIF(2.0), signs=signs, generator=seeded(seed))
        return Network(lif, SpikingLinear(12, 3, LIF(2.0), generator=seeded(seed)))

    networks = [network(seed) for seed in range(seeds)]
    starts = copy.deepcopy(networks)
    optimizers = [torch.optim.Adam(x.parameters(), lr=0.1) for x in networks]
    silent = fs.SilentNeurons(limits=[0.0, 1.0], increment=0.3, skip_step=False)
    trainer = fs.Trainer(networks, fs.losses.TimeCrossEntropy(), optimizers, silent=silent)
    trainer.fit(data.train, epochs=4, batch_size=10)
    for trained, start in zip(networks, starts, strict=True):
        weight = trained[0].weight
        assert (weight * torch.tensor(signs) >= 0).all()
        assert (weight == 0).any(), "some would have crossed 0"
        assert not torch.equal(weight, start[0].weight)


def test_members_of_an_ensemble():
    members = [
        Network(
            dense(trainable=["tau_syn", "bias"], per_neuron=True, seed=seed),
            SpikeTrains(3, 2, 9, LIF(2.0, (1.0, 2.0)), receptor="sign", trainable=["tau_syn"],
                        generator=seeded(seed), **REFERENCE),
        )
        for seed in range(2)
    ]  # fmt: skip
    with torch.no_grad():
        members[1][0].log_tau_syn.add_(0.2)
    together = Ensemble(members)
    out = together(inputs())
    alone = torch.stack([member(inputs()) for member in members])
    assert torch.equal(out, alone)
    assert alone.isfinite().any()
    out.nan_to_num(posinf=0).sum().backward()
    together.share_gradients()
    for member in members:
        shared = {name: x.grad for name, x in member.named_parameters()}
        member.zero_grad()
        member(inputs()).nan_to_num(posinf=0).sum().backward()
        for name, x in member.named_parameters():
            torch.testing.assert_close(shared[name], x.grad, msg=name)
            assert x.grad.any(), name


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"receptor": [0, 1, 1, 1]}, r"receptor is \(0, 1, 1, 1\), expected \(0, 1, 1, 0\)"),
        ({"signs": [1, 1, 1, 1]}, r"signs is \(1, 1, 1, 1\), expected None"),
        ({"neuron": LIF(2.0, (1.0, 2.0))}, r"tau_syn is \(1.0, 2.0\), expected \(1.0, 2.5\)"),
    ],
)
def test_members_differ_in_receptors_signs_and_constants(other, reason):
    assert re.search(reason, difference_of(Network(dense(**other)), Network(dense())))
