"""Convolutions and pooling of spike trains, against the same neurons with all their weights in one matrix."""

import math

import pytest
import torch
from torch.nn import functional

import firstspike as fs
from firstspike import LIF, Delay, DelayRule, FirstSpike, IntegralReadout, LIFConv1d, LIFConv2d, MergePool2d, Network
from firstspike.layers import start_firing_
from firstspike.layers.ensembles import Ensemble
from firstspike.neurons import AdaptiveLIF
from firstspike.spiketime import spike_trains

pytestmark = pytest.mark.usefixtures("poisoned_memory")

INF = math.inf
IMAGE = (2, 5, 4)
RULE = DelayRule(scale=2.0, std=1.0)
SHAPES = [
    {"kernel_size": 3},
    {"kernel_size": (2, 3), "stride": (2, 1)},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (1, 4), "padding": (0, 2)},
    {"kernel_size": 2, "dilation": (3, 2)},
    {"kernel_size": (3, 2), "padding": (2, 1), "stride": (1, 2), "dilation": (2, 3)},
]
NEURONS = [
    LIF(2.0),
    LIF(1.4, 0.6, 0.7, reset=-0.3, refractory=0.4),
    LIF(1.0, refractory=0.1, bias=0.2),
    LIF(2.0, (0.5, 1.5)),
    AdaptiveLIF(2.0, 1.0, 0.8, adaptation=((4.0, 0.3),), reset=None, refractory=0.2),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def trains(*shape, spikes=3, seed=1, share=0.3):
    """Sorted trains of different lengths, some silent."""
    given = torch.rand(*shape, spikes, generator=seeded(seed), dtype=torch.float64) * 6
    given[torch.rand(given.shape, generator=seeded(seed + 1)) < share] = INF
    return given.sort(dim=-1).values


def conv(neuron=None, kind=LIFConv2d, image=IMAGE, max_spikes=40, **options):
    options = {"dtype": torch.float64, "generator": seeded()} | options
    layer = kind(image, 3, neuron=neuron, max_spikes=max_spikes, **options)
    with torch.no_grad():
        layer.weight.mul_(1.5).add_(0.05)
        layer.weight[2].sub_(0.9 * layer.weight[2].mean())
    return layer


def unrolled(layer, values, rest=0.0):
    """Values of the weights as a matrix of all neurons and pixels, as torch's convolution of single pixels has them."""
    image = layer.image
    number = torch.arange(1.0, values.numel() + 1, dtype=torch.float64).view(3, *image[:1], *layer.window.kernel)
    pixels = torch.eye(image.size, dtype=torch.float64).view(-1, *image)
    window = {name: getattr(layer.window, name) for name in ("stride", "padding", "dilation")}
    place = functional.conv2d(pixels, number, **window).flatten(1).T.round().long()
    return torch.where(place > 0, values.flatten()[(place - 1).clamp(min=0)], rest)


def by_matrix(layer, times, observed=None):
    """The layer's neurons, each with parameters of its own, by the operator for trains."""
    delay = None if layer.delay_rule is None else unrolled(layer, layer.delay_rule(layer.delay_raw))
    receptor = None
    if layer.receptors is not None:
        receptor = layer.receptors.view(layer.image.channels, -1)[:, 0].repeat_interleave(math.prod(layer.image[1:]))
    each = layer.out_image.size // 3
    values = {
        name: x.repeat_interleave(each) if isinstance(x, torch.Tensor) and x.numel() == 3 else x
        for name, x in layer.neuron.values.items()
    }
    return spike_trains(
        times, unrolled(layer, layer.synapses), layer.neuron.with_values(**values), max_spikes=layer.max_spikes,
        delay=delay, receptor=receptor, observed=observed, max_weight_grad=layer.max_weight_grad, until=layer.until,
    )  # fmt: skip


def gradients(out, *parameters):
    weights = torch.linspace(1, 2, out.numel(), dtype=out.dtype).view(out.shape)
    return torch.autograd.grad((torch.where(out.isfinite(), out, 0.0) * weights).sum(), parameters)


def assert_same(layer, times):
    """Spikes to 1e-12, gradients to 1e-9; many neurons spike, some several times, some not at all."""
    times.requires_grad_()
    out, expected = layer(times), by_matrix(layer, times)
    assert out.shape == expected.shape
    counts = out.isfinite().sum(dim=-1)
    assert (counts > 1).double().mean() > 0.1
    assert (counts == 0).any()
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    parameters = [times, *layer.parameters()]
    for one, other in zip(gradients(out, *parameters), gradients(expected, *parameters), strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("delay", [None, RULE], ids=["", "delays"])
@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_it_is_the_matrix(options, delay):
    assert_same(conv(LIF(2.0, refractory=0.1), delay=delay, **options), trains(3, 40))


@pytest.mark.parametrize("neuron", NEURONS, ids=lambda x: type(x).__name__)
def test_neurons_of_all_kinds(neuron):
    options = {"receptor": [1, 0]} if isinstance(neuron.tau_syn, tuple) else {}
    assert_same(conv(neuron, kernel_size=3, padding=1, **options), trains(2, 40))


@pytest.mark.slow
def test_neurons_from_equations():
    layer = conv(fs.neurons.QIF(), kernel_size=3, stride=2, until=7.0)
    with torch.no_grad():
        layer.weight.mul_(3)
    assert_same(layer, trains(2, 40))


def test_parameters_that_learn():
    own = {"trainable": ["tau_mem", "threshold", "reset", "refractory"], "per_neuron": True}
    layer = conv(LIF(1.7, 0.8, 0.9, reset=-0.1, refractory=0.2), kernel_size=3, stride=2, padding=1, **own)
    with torch.no_grad():
        layer.log_threshold.add_(torch.tensor([0.1, -0.1, -0.8]))
    assert_same(layer, trains(3, 40))


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_patches_are_the_same_by_numbers_and_by_torch(options):
    """The CPU takes pixels by their numbers, other devices have torch cut the image up."""
    layer, times = conv(**options), trains(2, 40)
    seen = layer.seen(times)
    layer._places = None
    assert torch.equal(layer.seen(times), seen)


def test_bounded_gradients_and_masks():
    mask = torch.ones(3, 2, 3, 3, dtype=torch.bool)
    mask[0, 1] = mask[1, 0] = False  # as groups of channels
    layer = conv(kernel_size=3, padding=1, mask=mask, max_weight_grad=0.5, until=5.0)
    times = trains(2, 40)
    out = layer(times)
    assert out.isfinite().any()
    assert out[out.isfinite()].max() <= 5
    torch.testing.assert_close(out, by_matrix(layer, times), rtol=1e-12, atol=1e-12)
    (weight,) = gradients(out, layer.weight)
    assert not weight[~mask].any()
    assert weight[mask].any()


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 2}, {"dilation": 3, "delay": RULE}], ids=str)
def test_one_dimension(options):
    layer = conv(LIF(1.5, refractory=0.1), LIFConv1d, (2, 20), kernel_size=4, **options)
    assert layer.weight.shape == (3, 2, 4)
    assert_same(layer, trains(3, 40))
    times, length = trains(3, 2, 20), layer.out_image[2]
    assert layer(times).shape == (3, 3, length, 40)
    assert torch.equal(layer(times).flatten(1, 2), layer(times.flatten(1, 2)))


def test_first_spikes_have_delays_and_dilation_too():
    layer = conv(LIF(2.0), kernel_size=2, dilation=(3, 2), delay=RULE, max_spikes=None)
    times = trains(4, 40, spikes=1)[..., 0].requires_grad_()
    weight, delay = unrolled(layer, layer.weight), unrolled(layer, layer.delay_rule(layer.delay_raw))
    out, expected = layer(times), fs.first_spike_time(times, weight, layer.neuron, delay=delay)
    assert 0 < out.isfinite().sum() < out.numel()
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    parameters = [times, layer.weight, layer.delay_raw]
    for one, other in zip(gradients(out, *parameters), gradients(expected, *parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_one_spike_each_is_the_layer_of_first_spikes():
    times = trains(3, 40, spikes=1)
    first = conv(kernel_size=3, max_spikes=None)
    layer = conv(kernel_size=3, max_spikes=1, overflow="drop")
    layer.load_state_dict(first.state_dict())
    assert torch.equal(layer(times)[..., 0], first(times[..., 0]))
    assert torch.equal(layer(times[..., 0]), layer(times))


def test_observed_trains_have_the_gradient_there():
    layer, times = conv(kernel_size=3, stride=2, padding=1, max_spikes=20), trains(3, 40).requires_grad_()
    ideal = layer(times)
    seen = torch.where(ideal.isfinite(), ideal.detach() + 1e-3, INF)
    out, expected = layer(times, seen), by_matrix(layer, times, seen)
    assert torch.equal(out, seen)
    assert torch.equal(expected, seen)
    for one, other in zip(*(gradients(x, times, layer.weight) for x in (out, expected)), strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    image = layer(times.unflatten(1, IMAGE), seen.unflatten(1, layer.out_image))
    assert torch.equal(image.flatten(1, 3), seen)


def test_silence():
    layer = conv(kernel_size=3, padding=1)
    times = torch.full((2, 40, 3), INF, dtype=torch.float64).requires_grad_()
    out = layer(times)
    assert out.shape == (2, 60, 40)
    assert out.isinf().all()
    assert not any(x.any() for x in gradients(out, times, layer.weight))
    assert layer(times[:0]).shape == (0, 60, 40)


@pytest.mark.parametrize("padding", [0, 2])
def test_a_hot_pixel_widens_the_trains_of_few(padding, monkeypatch):
    layer = conv(LIF(2.0, refractory=0.1), kernel_size=3, padding=padding, delay=RULE, max_spikes=200)
    times = functional.pad(trains(3, 40), (0, 237), value=INF)
    times[0, 17] = trains(240, share=0.1, spikes=1)[:, 0].sort().values
    times[2, 33, :50] = trains(50, share=0.1, spikes=1)[:, 0]  # in any order
    assert_same(layer, times)
    seen = layer(times).detach()
    assert torch.equal(layer(times, seen), seen)
    calls = []

    def counted(times, *given, **options):
        calls.append(times.numel())
        return spike_trains(times, *given, **options)

    monkeypatch.setattr("firstspike.layers.conv.spike_trains", counted)
    layer(times)
    assert len(calls) == 3
    assert sum(calls) < 0.6 * layer.seen(times).numel()


def test_columns_that_no_train_fills_cost_nothing():
    layer, times = conv(kernel_size=3), trains(2, 40)
    wide = functional.pad(times, (0, 50), value=INF)
    assert layer.seen(wide).shape == layer.seen(times).shape
    assert torch.equal(layer(wide), layer(times))
    assert torch.equal(layer(wide.flip(-1)), layer(times))  # in any order
    assert layer(torch.full((2, 40, 0), INF, dtype=torch.float64)).isinf().all()
    with pytest.raises(ValueError, match="must be real numbers or inf"):
        layer(functional.pad(times, (0, 1), value=math.nan))


def test_too_many_spikes():
    layer = conv(kernel_size=3, max_spikes=1)
    with pytest.raises(ValueError, match="spike more than max_spikes=1 times"):
        layer(trains(2, 40))
    layer.overflow = "drop"
    assert layer(trains(2, 40)).shape == (2, 18, 1)


def test_images_in_and_out():
    layer, times = conv(kernel_size=3, max_spikes=20), trains(4, *IMAGE)
    out = layer(times.flatten(1, 3))
    assert torch.equal(layer(times), out.unflatten(1, (3, 3, 2)))
    assert torch.equal(layer(times[..., 0]), layer(times[..., :1]))  # first spikes of images
    pool = MergePool2d(IMAGE, 2)
    assert torch.equal(pool(times).flatten(1, 3), pool(times.flatten(1, 3)))
    assert pool(times).shape[:-1] == (4, 2, 2, 2)
    network = Network(layer, MergePool2d(layer.out_image, 2))
    assert torch.equal(network(times).flatten(1, 3), network(times.flatten(1, 3)))
    assert network.record(times).inputs.shape == (4, 40, 3)
    with pytest.raises(ValueError, match=r"times \(\.\.\., 40, spikes\) of an image 2x5x4, got \(4, 41, 3\)"):
        layer(trains(4, 41))


def test_merging_keeps_all_spikes_in_order():
    pool, times = MergePool2d(IMAGE, 2), trains(3, 40).requires_grad_()
    out, image = pool(times), times.unflatten(1, IMAGE)
    windows = [image[:, :, r : r + 2, c : c + 2].flatten(2) for r in (0, 2) for c in (0, 2)]
    expected = torch.stack(windows, dim=2).flatten(1, 2).sort(dim=-1).values
    assert torch.equal(out, expected)
    (gradient,) = gradients(out, times)
    within = torch.zeros(IMAGE, dtype=torch.bool)
    within[:, :4] = True  # the last row is in no window
    assert torch.equal(gradient != 0, times.isfinite() & within.flatten()[:, None])
    for seen in (out.detach() + 0.1, out.detach()[..., :-1], functional.pad(out.detach(), (0, 2), value=INF)):
        assert torch.equal(pool(times, seen), seen)
        assert torch.equal(gradients(pool(times, seen), times)[0] != 0, gradient != 0)
    assert torch.equal(fs.EarliestPool2d(IMAGE, 2)(FirstSpike()(times)), out[..., 0])


def network(seed=0):
    make = {"dtype": torch.float64, "generator": seeded(seed)}
    return Network(
        Delay(40, RULE, copies=20, trains=True, **make),  # one for each channel
        LIFConv2d(IMAGE, 3, 2, LIF(2.0), max_spikes=20, overflow="drop", delay=RULE, **make),
        MergePool2d((3, 4, 3), 2),
        LIFConv2d((3, 2, 1), 2, (2, 1), padding=(1, 0), max_spikes=20, overflow="drop", **make),
        IntegralReadout(6, 3, tau=5.0, **make),
    )


def test_ensemble():
    members, times = [network(seed) for seed in range(3)], trains(4, 40)
    together = Ensemble(members)
    out = together(times)
    torch.testing.assert_close(out, torch.stack([net(times) for net in members]), rtol=1e-12, atol=1e-12)
    out.square().sum().backward()
    together.share_gradients()
    for net in members:
        shared = [x.grad for x in net.parameters()]
        found = torch.autograd.grad(net(times).square().sum(), list(net.parameters()))
        for mine, own in zip(shared, found, strict=True):
            torch.testing.assert_close(mine, own, rtol=1e-9, atol=1e-12)


def test_a_start_in_which_layers_spike():
    net, times = network(), trains(50, 40)
    start_firing_(net, times, seeded())
    spikes = [net.record(times).layers[k].isfinite().sum(dim=-1).double() for k in (1, 3)]
    assert all(0.5 < float(x.mean()) < 10 for x in spikes)


def test_costs_and_regularisers():
    net, times = network(), trains(4, 40)
    record = net.record(times)
    costs = {cost.name: cost for cost in fs.layers.layer_costs(net, record)}
    dense = unrolled(net[1], torch.ones_like(net[1].weight)).sum(dim=0)
    sent = record.layers[0].isfinite().sum(dim=-1).double()
    assert costs["hidden 1"].events == pytest.approx(float((sent @ dense).mean()))
    labels = torch.zeros(4, dtype=torch.int64)
    for term in (fs.losses.SpikeCount(1.0, least=3.0), fs.losses.SilentPeak(1.0, 0.1)):
        net.zero_grad()
        term(record.output, labels, net, record).backward()
        assert net[1].weight.grad.any()


@pytest.mark.slow
def test_export(tmp_path):
    net, times = network().eval(), trains(4, 40)
    fs.export(net, tmp_path / "network.pt2")
    assert torch.equal(torch.export.load(tmp_path / "network.pt2").module()(times), net(times))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIFConv2d(IMAGE, 3, 3, max_spikes=0), "max_spikes must be > 0"),
        (lambda: LIFConv2d(IMAGE, 3, 3, dilation=3), "a window of 7x7 does not fit into 5x4"),
        (lambda: LIFConv2d(IMAGE, 3, 2, dilation=2, padding=3), r"padding must be below .*\(3, 3\)"),
        (lambda: LIFConv2d(IMAGE, 3, 3, max_spikes=2, overflow="no"), "overflow must be"),
        (lambda: LIFConv2d(IMAGE, 3, 3, trainable=["reset"]), "trainable must be some of"),
        (lambda: LIFConv1d(IMAGE, 3, 3), r"expected \(channels, length\).* got \(2, 5, 4\)"),
        (lambda: Network(LIFConv2d(IMAGE, 3, 3, max_spikes=5), fs.EarliestPool2d((3, 3, 2), 2)), "FirstSpike"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
