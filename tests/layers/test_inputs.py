import copy
import math
import pickle
from functools import partial

import pytest
import torch

import firstspike as fs
from firstspike import BiasSpikes, Multiplex, Network, PoissonSpikes, SpikeTrains
from firstspike.layers.named import named_spikes
from firstspike.layers.noise import jitter_from
from firstspike.substrates import Noisy

INF = math.inf


@pytest.mark.parametrize("lead", [(), (3,), (0,), (2, 3)])
def test_bias_is_appended(lead):
    times = torch.rand(*lead, 4)
    out = BiasSpikes([0.9, 0.1])(times)
    assert out.shape == (*lead, 6)
    assert torch.equal(out[..., :4], times)
    assert torch.equal(out[..., 4:], torch.tensor([0.9, 0.1]).expand(*lead, 2))


def test_bias_has_the_type_of_its_input():
    assert BiasSpikes([0.9])(torch.rand(2, 3, dtype=torch.float64)).dtype == torch.float64
    assert BiasSpikes([0.9], dtype=torch.float64)(torch.rand(2, 3)).dtype == torch.float32


def test_bias_in_double_precision_is_not_rounded():
    layer = BiasSpikes([0.9], dtype=torch.float64)
    assert layer(torch.rand(1, 2, dtype=torch.float64))[0, -1].item() == 0.9


@pytest.mark.parametrize("times", [[], [INF], [math.nan], [[0.9]], [-INF, 0.0]])
def test_wrong_bias(times):
    with pytest.raises(ValueError, match="times must be a list of finite numbers, got"):
        BiasSpikes(times)


def test_bias_gradient_and_observed():
    times = torch.tensor([[0.1, INF, 0.3], [0.4, 0.7, INF]], requires_grad=True)
    observed = torch.tensor([[0.3, INF, 0.2, 0.95], [0.5, INF, 0.8, 0.97]])
    out = BiasSpikes([0.9])(times, observed)
    assert torch.equal(out, observed)
    out.backward(torch.tensor([[1.0, 2.0, 4.0, 100.0], [8.0, 16.0, 32.0, 100.0]]))
    assert times.grad.tolist() == [[1, 0, 4], [8, 0, 0]]


def test_observed_is_returned_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    times = (torch.rand(50, 7, generator=generator) * 3).requires_grad_()
    observed = torch.rand(50, 14, generator=generator) * 1e3
    assert torch.equal(Multiplex(2)(times, observed), observed)
    assert torch.equal(BiasSpikes([0.3] * 7)(times, observed), observed)


@pytest.mark.parametrize("layer", [BiasSpikes([0.9] * 3), Multiplex(2)])
def test_observed_of_a_wrong_shape(layer):
    with pytest.raises(ValueError, match=r"observed must have the shape \(5, 6\), got \(5, 3\)"):
        layer(torch.rand(5, 3), torch.rand(5, 3))


@pytest.mark.parametrize("lead", [(), (3,), (0,), (2, 3)])
def test_copies_stand_side_by_side(lead):
    times = torch.rand(*lead, 2)
    out = Multiplex(3)(times)
    assert out.shape == (*lead, 6)
    assert torch.equal(out, times[..., [0, 0, 0, 1, 1, 1]])


def test_gradient_of_copies_is_their_sum():
    times = torch.tensor([[0.1, INF]], requires_grad=True)
    out = Multiplex(2)(times)
    out.backward(torch.tensor([[1.0, 2.0, 4.0, 8.0]]))
    assert times.grad.tolist() == [[3, 12]]
    times.grad = None
    observed = torch.tensor([[0.2, INF, 0.3, INF]])
    Multiplex(2)(times, observed).backward(torch.tensor([[1.0, 2.0, 4.0, 8.0]]))
    assert times.grad.tolist() == [[1, 0]]


@pytest.mark.parametrize("copies", [0, -1])
def test_wrong_number_of_copies(copies):
    with pytest.raises(ValueError, match=f"copies must be > 0 and <= 1000000, got {copies}"):
        Multiplex(copies)


def test_sizes_state_and_copies():
    bias, multiplex = BiasSpikes([0.9, 0.25]), Multiplex(3)
    assert bias.output_size(4) == 6
    assert multiplex.output_size(4) == 12
    assert list(bias.state_dict()) == ["times"]
    assert not list(bias.parameters())
    assert not multiplex.state_dict()
    assert repr(bias) == "BiasSpikes(0.9, 0.25)"
    assert repr(multiplex) == "Multiplex(3)"
    times = torch.rand(2, 4)
    for layer in (bias, multiplex):
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(twin(times), layer(times))
    assert BiasSpikes([0.9], device="meta").times.device.type == "meta"


def background(sources=30, rate=0.5, duration=20.0, **options):
    return PoissonSpikes(sources, rate, duration, **options)


def test_a_background_is_drawn_anew_in_training_alone():
    layer, times = background(), torch.rand(40, 3)
    with jitter_from(layer, torch.Generator().manual_seed(1)):
        one, other = layer(times), layer(times)
    assert torch.equal(one[:, :3, 0], times)
    assert one[:, :3, 1:].isinf().all()
    assert one.dtype == times.dtype
    own = one[:, 3:]
    assert not torch.equal(own[0], own[1])
    assert not torch.equal(one, other)
    with jitter_from(layer, torch.Generator().manual_seed(1)):
        assert torch.equal(layer(times), one)
        assert torch.equal(layer(times), other), "the source goes on"
    counts = own.isfinite().sum(dim=-1).double()
    assert counts.mean().item() == pytest.approx(10, abs=0.3)
    assert counts.var().item() == pytest.approx(10, rel=0.15), "as many as counts of a Poisson process"
    still = layer.eval()(times)
    assert torch.equal(still[0, 3:], still[1, 3:])
    assert torch.equal(still, background().eval()(times)), "those of the seed"
    assert not torch.equal(still[0, 3:], background(seed=1).eval()(times)[0, 3:])
    trains = torch.stack([times, times + 1], dim=-1)
    assert torch.equal(layer(trains)[:, :3, :2], trains)
    assert layer.output_size(3) == 33
    assert str(layer) == "PoissonSpikes(30, 0.5, duration=20.0)"


def test_a_part_of_a_batch_has_the_background_that_it_has_in_the_whole():
    layer, times = background(), torch.rand(6, 3)
    with jitter_from(layer, torch.Generator().manual_seed(2)):
        whole = layer(times)
    with jitter_from(layer, torch.Generator().manual_seed(2)), jitter_from(layer, part=(6, slice(2, 5))):
        assert torch.equal(layer(times[2:5]), whole[2:5])


def test_a_background_in_networks_and_substrates():
    """Its spikes are recorded; the gradient at observed times is that of the inputs."""
    generator = torch.Generator().manual_seed(0)
    options = {"backend": "reference", "generator": generator, "dtype": torch.float64}
    layer = SpikeTrains(8, 4, 50, weight_mean=1.0, weight_std=0.1, **options)
    network = Network(background(5, 0.3, 6.0), layer)
    assert network.inputs == 3
    times = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    record = Noisy(spike_jitter=0.01).open(network).record(network, times)
    assert [x.name for x in named_spikes(network, record)] == ["input", "background", "output"]
    assert named_spikes(network, record)[1].neurons == 5
    record.output.nan_to_num(posinf=0).sum().backward()
    assert times.grad.any()
    again = network.record(times, record.layers)
    assert all(torch.equal(one, other) for one, other in zip(again.layers, record.layers, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.5, 20.0), "sources must be > 0 and <= 1000000, got 0"),
        ((5, 0.0, 20.0), r"rate must be > 0 and finite, got 0\.0"),
        ((5, 0.5, INF), "duration must be > 0 and finite, got inf"),
        ((3, 1e300, 1.0), "spike trains of 1 samples and 3 neurons with room for 1e\\+300 spikes take about"),
        ((3, 1e308, 100.0), "spike trains of 1 samples and 3 neurons with room for inf spikes take about"),
        ((10**6, 1e3, 1e3), "spike trains of 1 samples and 1000000 neurons with room for 1009015 spikes take about"),
    ],
)
def test_wrong_background(arguments, message):
    with pytest.raises(ValueError, match=message):
        PoissonSpikes(*arguments)


def test_rates_in_hz_with_times_in_ms():
    message = "a rate of 40 for each unit of time up to 100 is about 4000 spikes in a train; with times in ms"
    for draw in (partial(PoissonSpikes, 3), partial(fs.data.poisson, inputs=3)):
        with pytest.warns(UserWarning, match=message):
            draw(rate=40.0, duration=100.0)
        draw(rate=0.04, duration=100.0)  # no warning
        draw(rate=0.04, duration=50_000.0)
