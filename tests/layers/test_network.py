import copy
import math
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

from firstspike import LIF, BiasSpikes, Delay, DelayRule, LIFLinear, Multiplex, Network, Record

pytestmark = pytest.mark.usefixtures("poisoned_memory")

INF = math.inf


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    dtype = torch.float64
    make = {"dtype": dtype, "generator": seeded()}
    lif = LIF(2.0)
    return Network(
        Multiplex(2),
        BiasSpikes([0.9], dtype=dtype),
        LIFLinear(7, 8, lif, **make),
        Delay(8, DelayRule(scale=0.5), **make),
        BiasSpikes([0.9], dtype=dtype),
        LIFLinear(9, 3, lif, delay=DelayRule(scale=0.5), **make),
    )


def inputs():
    times = torch.rand(5, 3, generator=seeded(1), dtype=torch.float64) * 1.5
    times[0, 1] = INF
    return times.requires_grad_()


def total(out):
    return torch.where(out.isfinite(), out, torch.zeros_like(out)).square().sum()


def gradients(net, times, out):
    return torch.autograd.grad(total(out), [times, *net.parameters()])


def test_forward_is_layer_after_layer():
    net, times = network(), inputs()
    step = times
    for layer in net:
        step = layer(step)
    assert torch.equal(net(times), step)
    assert torch.equal(nn.Sequential(*net)(times), step)
    assert step.shape == (5, 3)
    assert step.isfinite().any()
    assert net(times[0]).shape == (3,)


def test_record():
    net, times = network(), inputs()
    record = net.record(times)
    assert isinstance(record, Record)
    assert record.inputs is times
    assert [x.shape[-1] for x in record.layers] == [6, 7, 8, 8, 9, 3]
    assert record.output is record.layers[-1]
    assert torch.equal(record.output, net(times))
    for own, recorded in zip(gradients(net, times, net(times)), gradients(net, times, record.output), strict=True):
        assert torch.equal(own, recorded)


def test_record_at_its_own_times():
    """Observed times equal to the ideal ones, for every layer: the same values, the same gradients."""
    net, times = network(), inputs()
    ideal = [x.detach() for x in net.record(times).layers]
    record = net.record(times, ideal)
    for given, recorded in zip(ideal, record.layers, strict=True):
        assert torch.equal(given, recorded)
    expected = gradients(net, times, net(times))
    found = gradients(net, times, record.output)
    assert all(x.any() for x in found)
    for own, observed in zip(expected, found, strict=True):
        torch.testing.assert_close(own, observed, rtol=1e-11, atol=1e-12)


def test_record_with_some_observed():
    """Observed times go on to the next layer."""
    net, times = network(), inputs()
    seen = net.record(times).layers[2].detach() + 0.05
    record = net.record(times, [None, None, seen, None, None, None])
    assert torch.equal(record.layers[2], seen)
    assert torch.equal(record.output, net[3:](seen))
    assert not torch.equal(record.output, net(times))
    assert all(x.isfinite().all() for x in gradients(net, times, record.output))
    nothing = net.record(times, [None] * 6)
    assert torch.equal(nothing.output, net(times))


@pytest.mark.parametrize("index", range(6))
def test_gradient_passes_every_observed_layer(index):
    net, times = network(), inputs()
    observed = [None] * 6
    observed[index] = net.record(times).layers[index].detach() + 1e-3
    first, *_ = gradients(net, times, net.record(times, observed).output)
    assert first.any()
    assert first.isfinite().all()


def test_record_with_a_wrong_number_of_observed():
    with pytest.raises(ValueError, match="observed must have one entry for each of 6 layers, got 2"):
        network().record(inputs(), [None, None])


def test_slices_and_indices():
    net, times = network(), inputs()
    part = net[:3]
    assert isinstance(part, Network)
    assert len(part) == 3
    assert part[2] is net[2]
    assert torch.equal(net[3:](part(times)), net(times))
    assert torch.equal(part.record(times).output, net.record(times).layers[2])
    assert net[-1] is list(net)[-1]


def test_from_an_ordered_dict():
    layers = OrderedDict(bias=BiasSpikes([0.1]), lif=LIFLinear(4, 2))
    net = Network(layers)
    assert net.lif is layers["lif"]
    assert list(net.state_dict()) == ["bias.times", "lif.weight", "lif._extra_state"]


def test_empty():
    net, times = Network(), torch.rand(2, 3)
    assert net(times) is times
    record = net.record(times)
    assert record.layers == ()
    assert record.output is times


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([LIFLinear(3, 4), LIFLinear(5, 2)], r"layer 1 does not fit .*LIFLinear\(5, 2\) expects \d+ inputs, got 4"),
        ([LIFLinear(3, 4), BiasSpikes([0.1]), LIFLinear(4, 2)], r"layer 2 does not fit .* expects \d+ inputs, got 5"),
        ([LIFLinear(3, 4), Multiplex(2), LIFLinear(4, 2)], r"layer 2 does not fit .* expects \d+ inputs, got 8"),
        ([LIFLinear(3, 4), Delay(3)], r"layer 1 does not fit .*Delay\(3\) expects \d+ inputs, got 4"),
        ([Delay(3), LIFLinear(4, 2)], r"layer 1 does not fit .*LIFLinear\(4, 2\) expects \d+ inputs, got 3"),
        ([nn.Linear(3, 4)], r"layer 0 \(Linear\) is not a spike-time layer: .*nn\.Sequential"),
        ([LIFLinear(3, 4), nn.ReLU()], r"layer 1 \(ReLU\) is not a spike-time layer"),
    ],
)
def test_layers_that_do_not_fit(layers, message):
    with pytest.raises(ValueError, match=message):
        Network(*layers)


def test_the_first_layer_that_fixes_the_size_counts():
    Network(BiasSpikes([0.1]), Multiplex(2), LIFLinear(12, 4), BiasSpikes([0.2]), LIFLinear(5, 2))


def test_wrong_input():
    with pytest.raises(ValueError, match=r"times \(5, 9\) and weight \(8, 7\)"):
        network()(torch.rand(5, 4, dtype=torch.float64))


def test_own_layer():
    class Reverse(nn.Module):
        def output_size(self, inputs):
            return inputs

        def forward(self, times, observed=None):
            return times.flip(-1) if observed is None else observed

    net = Network(Reverse(), LIFLinear(3, 2))
    assert net(torch.rand(4, 3)).shape == (4, 2)


def test_state_and_copies():
    net, times = network(), inputs()
    assert list(net.state_dict()) == [
        "1.times",
        "2.weight",
        "2._extra_state",
        "3.delay_raw",
        "4.times",
        "5.weight",
        "5.delay_raw",
        "5._extra_state",
    ]
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(times), net(times))
        assert repr(twin) == repr(net)
    other = network()
    other[2].reset_parameters()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(times), net(times))


@pytest.mark.slow
def test_change_of_dtype():
    net = network()
    out = net(inputs())
    single = net.float()(inputs().float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), out, rtol=1e-3, atol=1e-3)


def test_silent_neurons_give_no_nan():
    """Nothing fires, or only a few do: gradients are finite, and zero where there is nothing to learn from."""
    net, times = network(), inputs()
    with torch.no_grad():
        net[2].weight[:6] = -1.0
    assert all(x.isfinite().all() for x in gradients(net, times, net(times)))
    with torch.no_grad():
        net[2].weight[:] = -1.0
        net[5].weight[:] = -1.0
    out = net(times)
    assert out.isinf().all()
    assert not any(x.any() for x in gradients(net, times, out))
