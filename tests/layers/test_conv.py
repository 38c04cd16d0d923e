import math

import pytest
import torch
from torch import nn

from firstspike import LIF, BiasSpikes, Delay, EarliestPool2d, LIFConv2d, LIFLinear, Network, SilentNeurons
from firstspike.layers import start_firing_
from firstspike.layers.ensembles import Ensemble
from firstspike.spiketime import first_spike_time
from firstspike.substrates import SUBSTRATES

pytestmark = pytest.mark.usefixtures("poisoned_memory", "on_device")

INF = math.inf
IMAGE = (2, 5, 4)
SHAPES = [
    {"kernel_size": 3},
    {"kernel_size": (2, 3), "stride": (2, 1)},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (1, 4), "padding": (0, 2)},
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(batch=3, seed=1, silent=True):
    times = torch.rand(batch, 40, generator=seeded(seed), dtype=torch.float64) * 1.5
    if silent:
        times[0, :7] = INF
    return times


def conv(neuron=None, seed=0, **options):
    return LIFConv2d(IMAGE, 3, neuron=neuron, dtype=torch.float64, generator=seeded(seed), **options)


def by_hand(layer, times, kernel_size, stride=1, padding=0):
    """Position by position and channel by channel."""
    (kh, kw), (sh, sw), (ph, pw) = ((x, x) if isinstance(x, int) else x for x in (kernel_size, stride, padding))
    wide = torch.full((len(times), 2, 5 + 2 * ph, 4 + 2 * pw), INF, dtype=times.dtype)
    wide[:, :, ph : ph + 5, pw : pw + 4] = times.reshape(-1, *IMAGE)
    found = []
    for channel in range(3):
        weight = layer.weight[channel].reshape(1, -1)
        for row in range(0, wide.shape[2] - kh + 1, sh):
            for column in range(0, wide.shape[3] - kw + 1, sw):
                patch = wide[:, :, row : row + kh, column : column + kw].flatten(1)
                found.append(first_spike_time(patch, weight, layer.neuron))
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("tau_mem", [1.0, 2.0, 1.4])
def test_each_neuron_is_that_of_its_patch(options, tau_mem):
    layer, times = conv(LIF(tau_mem), **options), inputs()
    out = layer(times)
    assert out.shape == (3, layer.out_image.size) == (3, layer.output_size(40))
    assert out.isfinite().double().mean() > 0.3
    torch.testing.assert_close(out, by_hand(layer, times, **options), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_gradients(options):
    layer = conv(LIF(1.4, threshold=0.8), trainable=["threshold"], per_neuron=True, **options)
    times = inputs(silent=False).requires_grad_()

    def spikes(times, weight, log_threshold):
        parameters = {"weight": weight, "log_threshold": log_threshold}
        out = torch.func.functional_call(layer, parameters, (times,))
        return torch.where(out.isfinite(), out, 0.0)

    assert layer.log_threshold.shape == (3,)
    assert torch.autograd.gradcheck(spikes, (times, layer.weight, layer.log_threshold), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_patches_are_the_same_by_numbers_and_by_torch(options):
    """The CPU takes pixels by their numbers, other devices have torch cut the image up."""
    layer, times = conv(**options), inputs()
    wide = torch.nn.functional.pad(times, (0, 1), value=INF)
    numbers = layer.window.places(layer.image).to(times.device)
    assert torch.equal(wide[:, numbers], layer.window.patches(times, layer.image))
    assert torch.equal(layer.seen(times), wide[:, numbers])


def test_any_number_of_batch_dimensions():
    layer, times = conv(kernel_size=3), inputs(6)
    out = layer(times)
    torch.testing.assert_close(layer(times.view(2, 3, -1)), out.view(2, 3, -1), rtol=0, atol=0)
    torch.testing.assert_close(layer(times[0]), out[0], rtol=0, atol=0)


def test_observed_times_have_the_gradient_there():
    layer, times = conv(kernel_size=3, stride=2), inputs().requires_grad_()
    ideal = layer(times)
    seen = layer(times, ideal.detach())
    assert torch.equal(seen, ideal)
    gradients = [
        torch.autograd.grad(torch.where(out.isfinite(), out, 0.0).square().sum(), [times, layer.weight])
        for out in (ideal, seen)
    ]
    for own, observed in zip(*gradients, strict=True):
        assert own.any()
        torch.testing.assert_close(own, observed, rtol=1e-11, atol=1e-12)
    with pytest.raises(ValueError, match=r"observed of LIFConv2d expects times \(\.\.\., 6\)"):
        layer(times, torch.zeros(3, 5, dtype=torch.float64))


def test_nothing_spikes_where_nothing_arrives():
    layer = conv(kernel_size=3, padding=1)
    times = torch.full((2, 40), INF, dtype=torch.float64).requires_grad_()
    out = layer(times)
    assert out.isinf().all()
    (gradient,) = torch.autograd.grad(torch.where(out.isfinite(), out, 0.0).sum(), times)
    assert not gradient.any()


def test_pool_takes_the_earliest():
    pool, times = EarliestPool2d(IMAGE, 2), inputs()
    out = pool(times)
    image = times.reshape(3, *IMAGE)
    assert out.shape == (3, 8) == (3, pool.output_size(40))
    expected = torch.stack([image[:, :, r : r + 2, c : c + 2].amin((2, 3)) for r in (0, 2) for c in (0, 2)], dim=-1)
    assert torch.equal(out, expected.flatten(1))


def test_gradient_goes_to_the_earliest_alone():
    pool = EarliestPool2d((1, 2, 4), 2)
    times = torch.tensor([1.0, 2.0, INF, INF, 1.0, 0.5, INF, INF], requires_grad=True)
    out = pool(times)
    assert out.tolist() == [0.5, INF]
    (gradient,) = torch.autograd.grad(torch.where(out.isfinite(), out, 0.0).sum(), times)
    assert gradient.tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    ties = torch.zeros(8, requires_grad=True)
    (gradient,) = torch.autograd.grad(pool(ties).sum(), ties)
    assert gradient.tolist() == [1, 0, 1, 0, 0, 0, 0, 0]


def test_pool_windows_may_overlap_and_leave_pixels_out():
    pool = EarliestPool2d((1, 4, 5), (2, 3), stride=(2, 1))
    assert pool.out_image == (1, 2, 3)
    assert pool(torch.arange(20.0)).tolist() == [0, 1, 2, 10, 11, 12]
    assert EarliestPool2d((1, 5, 5), 2).out_image == (1, 2, 2)


def test_pool_of_observed_times():
    pool, times = EarliestPool2d(IMAGE, 2), inputs().requires_grad_()
    seen = pool(times).detach() + 0.1
    out = pool(times, seen)
    assert torch.equal(out, seen)
    assert torch.autograd.grad(torch.where(out.isfinite(), out, 0.0).sum(), times)[0].sum() == out.isfinite().sum()


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("make", [lambda: conv(kernel_size=3, stride=2, padding=1), lambda: EarliestPool2d(IMAGE, 2)])
def test_an_image_in_gives_an_image_out(make, lead):
    layer = make()
    times = torch.rand(*lead, *IMAGE, generator=seeded(), dtype=torch.float64)
    expected = layer(times.flatten(-3))
    out = layer(times)
    assert expected.shape == (*lead, layer.out_image.size)
    assert out.shape == (*lead, *layer.out_image)
    assert torch.equal(out.flatten(-3), expected)
    seen = expected + 0.01
    for observed in (seen, seen.unflatten(-1, layer.out_image)):
        assert torch.equal(layer(times, observed), seen.unflatten(-1, layer.out_image))
        assert torch.equal(layer(times.flatten(-3), observed), seen)


def test_gradients_of_images():
    layer, times = conv(kernel_size=3), inputs().requires_grad_()
    found = []
    for form in (times, times.unflatten(-1, IMAGE)):
        out = layer(form)
        found.append(torch.autograd.grad(torch.where(out.isfinite(), out, 0.0).square().sum(), [times, layer.weight]))
        assert found[-1][0].any()
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


def test_images_through_torchs_own_sequence():
    first, pool, last = conv(kernel_size=2), EarliestPool2d((3, 4, 3), (2, 3)), LIFLinear(6, 4, dtype=torch.float64)
    times = inputs()
    flat = nn.Sequential(first, pool, last)(times)
    assert torch.equal(nn.Sequential(first, pool, nn.Flatten(), last)(times.unflatten(-1, IMAGE)), flat)


def test_a_network_takes_images_and_stays_flat_inside():
    net = Network(conv(kernel_size=2), EarliestPool2d((3, 4, 3), 2), LIFLinear(6, 4, dtype=torch.float64))
    times = inputs()
    images = times.unflatten(-1, IMAGE)
    assert torch.equal(net(images), net(times))
    one, other = net.record(images), net.record(times)
    assert torch.equal(one.inputs, times)
    assert all(torch.equal(x, y) for x, y in zip(one.layers, other.layers, strict=True))
    again = net.record(images, [x.detach() for x in other.layers])
    assert torch.equal(again.output, other.output)
    assert net[:2](images).shape == (3, 3, 2, 1)
    assert torch.equal(net[:2](images).flatten(1), net[:2](times))
    assert net[:1](images[0]).shape == (3, 4, 3)
    assert torch.equal(SUBSTRATES["exact"]().open(net).record(net, images).output, other.output)
    start_firing_(net, images, seeded())
    weights = [x.clone() for x in net.parameters()]
    start_firing_(net, times, seeded())
    assert all(torch.equal(x, y) for x, y in zip(weights, net.parameters(), strict=True))


def network(seed):
    make = {"dtype": torch.float64, "generator": seeded(seed)}
    return Network(
        Delay(40, **make),
        LIFConv2d(IMAGE, 3, 2, LIF(2.0), **make),
        EarliestPool2d((3, 4, 3), 2),
        LIFConv2d((3, 2, 1), 2, (2, 1), padding=(1, 0), **make),
        BiasSpikes([0.5], dtype=torch.float64),
        LIFLinear(7, 4, **make),
    )


def test_network_records_every_layer():
    net, times = network(0), inputs()
    record = net.record(times)
    assert [x.shape[-1] for x in record.layers] == [40, 36, 6, 6, 7, 4]
    assert torch.equal(record.output, net(times))
    assert torch.equal(net(times), nn.Sequential(*net)(times))


def test_ensemble():
    members = [network(seed) for seed in range(3)]
    together, times = Ensemble(members), inputs()
    out = together(times)
    torch.testing.assert_close(out, torch.stack([net(times) for net in members]), rtol=1e-12, atol=1e-12)
    torch.where(out.isfinite(), out, 0.0).square().sum().backward()
    together.share_gradients()
    for net in members:
        shared = [x.grad for x in net.parameters()]
        alone = net(times)
        found = torch.autograd.grad(torch.where(alone.isfinite(), alone, 0.0).square().sum(), list(net.parameters()))
        for mine, own in zip(shared, found, strict=True):
            torch.testing.assert_close(mine, own, rtol=1e-9, atol=1e-12)


def test_silent_channels_are_raised():
    net, times = Network(conv(kernel_size=3)), inputs(silent=False)
    with torch.no_grad():
        net[0].weight[1] = -1.0
    before = net[0].weight.clone()
    record = net.record(times)
    assert SilentNeurons(0.2, increment=0.5).raise_weights_(net, record)
    silent = record.layers[0].isinf().view(3, 3, -1).double().mean((0, 2)) > 0.2
    assert silent.tolist()[1]
    assert not silent.all()
    expected = before + 0.5 * silent[:, None, None, None]
    torch.testing.assert_close(net[0].weight.detach(), expected.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("layer", [LIFConv2d((1, 3, 3), 2, 2), EarliestPool2d((1, 3, 3), 2)])
def test_layers_keep_the_protocol(layer):
    assert "1x3x3 -> " in repr(layer)
    with pytest.raises(ValueError, match=r"expects times \(\.\.\., 9\) of an image 1x3x3, got \(2, 8\)"):
        layer(torch.zeros(2, 8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIFConv2d((1, 3), 2, 2), "expected an image"),
        (lambda: LIFConv2d((1, 0, 3), 2, 2), "expected an image"),
        (
            lambda: LIFConv2d(1, 4, 3),
            r"expected an image \(channels, height, width\), got 1: .* e\.g\. LIFConv2d\(\(1, 28",
        ),
        (lambda: EarliestPool2d(2, 2), r"expected an image \(channels, height, width\), got 2"),
        (lambda: LIFConv2d((1, 3, 3), 4, 2, 2.0), r"neuron must be a LIF, such as LIF\(tau_mem=2\.0\), got 2\.0"),
        (lambda: LIFConv2d((1, 3, 3), 2, 1.5), "kernel_size must be a whole number > 0.*, got 1.5"),
        (lambda: LIFConv2d((1, 3, 3), 2, (2, 2, 2)), r"kernel_size must be .* got \(2, 2, 2\)"),
        (lambda: LIFConv2d((1, 3, 3), 0, 2), "out_channels must be > 0"),
        (lambda: LIFConv2d((1, 3, 3), 2, 0), "kernel_size must be > 0.*, got 0"),
        (lambda: LIFConv2d((1, 3, 3), 2, 2, stride=(1, 0)), "stride must be"),
        (lambda: LIFConv2d((1, 3, 3), 2, 2, padding=-1), "padding must be >= 0.*, got -1"),
        (lambda: LIFConv2d((1, 3, 3), 2, (2, 3), padding=(1, 3)), r"padding must be below .*: got \(1, 3\), \(2, 3\)"),
        (lambda: LIFConv2d((1, 3, 3), 2, (2, 4)), "a window of 2x4 does not fit into 3x3"),
        (lambda: EarliestPool2d((1, 3, 3), 4), "a window of 4x4 does not fit into 3x3"),
        (
            lambda: Network(LIFLinear(3, 8), EarliestPool2d((1, 3, 3), 2)),
            r"of an image 1x3x3 with 9 pixels expects \d+ inputs, got 8",
        ),
        (lambda: Network(LIFConv2d((1, 3, 3), 2, 2), EarliestPool2d((1, 2, 4), 2)), "image 1x2x4, and gets 2x2x2"),
    ],
)
def test_bad_shapes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
