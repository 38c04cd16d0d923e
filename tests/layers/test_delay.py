import copy
import dataclasses
import math
import pickle

import pytest
import torch

from firstspike import LIF, Delay, DelayRule, LIFLinear, LIFRecurrent, Multiplex, Network, first_spike_time
from firstspike.layers.delay import project_delays_
from firstspike.layers.noise import jitter_from

pytestmark = pytest.mark.usefixtures("poisoned_memory", "on_device")

INF = math.inf


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("raw", [-50.0, -1.0, 0.0, 3.0, 50.0])
def test_sigmoid_bounds(raw):
    delay = DelayRule("sigmoid", scale=2.0, shift=0.5)(torch.tensor(raw, dtype=torch.float64)).item()
    assert delay == pytest.approx(0.5 + 2 / (1 + math.exp(-raw)))
    assert 0.5 <= delay <= 2.5


@pytest.mark.parametrize("raw", [-50.0, -1.0, 0.0, 3.0, 50.0])
def test_softplus_bounds(raw):
    delay = DelayRule("softplus", scale=2.0, shift=0.5)(torch.tensor(raw, dtype=torch.float64)).item()
    assert delay == pytest.approx(0.5 + 2 * math.log1p(math.exp(raw)))
    assert delay >= 0.5


@pytest.mark.parametrize("raw", [-50.0, 0.0, 0.5, 0.6, 2.4, 2.5, 3.0])
def test_clip_bounds(raw):
    delay = DelayRule("clip", scale=2.0, shift=0.5)(torch.tensor(raw, dtype=torch.float64)).item()
    assert delay == min(max(raw, 0.5), 2.5)
    endless = DelayRule("clip", scale=INF, shift=0.5)(torch.tensor(raw, dtype=torch.float64)).item()
    assert endless == max(raw, 0.5)


@pytest.mark.parametrize("bound", ["sigmoid", "softplus", "clip"])
def test_delays_stay_positive_whatever_is_learnt(bound):
    delay = DelayRule(bound)(torch.tensor([-1e30, -1e3, 1e3]))
    assert (delay >= 0).all()
    assert not delay.isnan().any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bound": "relu"}, "bound must be one of sigmoid, softplus, clip, got 'relu'"),
        ({"scale": 0.0}, "scale must be > 0, got 0.0"),
        ({"scale": -1.0}, "scale must be > 0, got -1.0"),
        ({"shift": -0.1}, "shift must be >= 0 and finite, got -0.1"),
        ({"std": -1.0}, "std must be >= 0 and finite, got -1.0"),
        ({"jitter": -1.0}, "jitter must be >= 0 and finite, got -1.0"),
    ],
)
def test_wrong_rules(options, message):
    with pytest.raises(ValueError, match=message):
        DelayRule(**options)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda x: LIFLinear(3, 4, delay=x), "delay"),
        (lambda x: LIFRecurrent(3, 4, 5, 6.0, delay=x), "delay"),
        (lambda x: LIFRecurrent(3, 4, 5, 6.0, recurrent_delay=x), "recurrent_delay"),
        (lambda x: Delay(3, x), "rule"),
    ],
    ids=["layer", "trains", "recurrent", "alone"],
)
@pytest.mark.parametrize("given", [1.0, torch.rand(4, 3), True])
def test_delays_in_place_of_their_rule(make, name, given):
    kind = type(given).__name__
    with pytest.raises(ValueError, match=f"^{name} must be a DelayRule, such as DelayRule.scale=2.0., got a {kind}; "):
        make(given)


def test_clip_has_a_scale_that_is_a_number():
    with pytest.raises(ValueError, match="scale must be > 0, got nan"):
        DelayRule("clip", scale=math.nan)


@pytest.mark.parametrize("name", ["scale", "shift", "std", "mean", "jitter"])
@pytest.mark.parametrize("value", [math.nan, INF])
def test_rules_with_values_that_are_not_finite(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be .*, got {value}"):
        DelayRule(**{name: value})


def test_rules_are_immutable_and_equal_by_value():
    assert DelayRule(scale=2.0) == DelayRule(scale=2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        DelayRule().scale = 3.0


def test_start():
    raw = Delay(5000, DelayRule(mean=-1.0, std=0.5), generator=seeded()).delay_raw
    assert raw.mean().item() == pytest.approx(-1, abs=0.03)
    assert raw.std().item() == pytest.approx(0.5, abs=0.03)
    fixed = Delay(3, DelayRule(mean=0.0, std=0.0))
    assert fixed.delay.tolist() == [0.5] * 3


def test_generator():
    first, again, other = (Delay(4, generator=seeded(k)).delay_raw for k in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("lead", [(), (3,), (2, 0), (2, 3)])
def test_adds(lead):
    layer = Delay(4)
    times = torch.rand(*lead, 4)
    assert torch.equal(layer(times), times + layer.delay)


def test_gradients():
    layer = Delay(3, DelayRule("softplus", scale=0.7), generator=seeded(), dtype=torch.float64)
    times = torch.rand(5, 3, dtype=torch.float64).requires_grad_()

    def delayed(times, raw):
        return torch.func.functional_call(layer, {"delay_raw": raw}, (times,))

    assert torch.autograd.gradcheck(delayed, (times, layer.delay_raw))


@pytest.mark.parametrize("bound", ["sigmoid", "softplus", "clip"])
@pytest.mark.parametrize("kind", ["axonal", "dendritic", "synaptic"])
def test_gradients_of_every_kind_and_bound(kind, bound):
    """Through neurons, by the raw values, the weights and the times."""
    rule = DelayRule(bound, scale=0.7, shift=0.1, mean=0.4, std=0.05)
    options = {"weight_mean": 2.0, "weight_std": 0.3, "generator": seeded(2), "dtype": torch.float64}
    delays = Delay(3, rule, generator=seeded(1), dtype=torch.float64)
    lif = LIFLinear(3, 3, LIF(1.37), delay=rule if kind == "synaptic" else None, **options)
    network = {
        "axonal": Network(delays, lif),
        "dendritic": Network(lif, delays),
        "synaptic": Network(lif),
    }[kind]
    times = torch.rand(4, 3, generator=seeded(), dtype=torch.float64).requires_grad_()
    names, values = zip(*network.named_parameters(), strict=True)
    assert any("delay_raw" in name for name in names)

    def spikes(times, *values):
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), (times,))

    assert spikes(times, *values).isfinite().all()
    assert torch.autograd.gradcheck(spikes, (times, *values), atol=1e-6)


def test_clip_lets_only_gradients_through_that_lead_back():
    raw = torch.tensor([-2.0, -2.0, 0.5, 0.5, 0.7, 2.5, 2.5, 3.0, 3.0], requires_grad=True)
    grad = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0])
    DelayRule("clip", scale=2.0, shift=0.5)(raw).backward(grad)
    assert raw.grad.tolist() == [0, -1, 0, -1, 1, 1, 0, 1, 0]


@pytest.mark.parametrize("target", [0.3, 5.0])
def test_clipped_delays_reach_a_bound_and_come_back(target):
    layer = Delay(4, DelayRule("clip", scale=2.0, shift=0.25, mean=1.0), generator=seeded())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.02, momentum=0.9)
    for wanted in (-9.0, 9.0, target):
        for _ in range(150):
            optimizer.zero_grad()
            (layer(torch.zeros(4)) - wanted).square().sum().backward()
            optimizer.step()
            project_delays_(layer)
        assert torch.equal(layer.delay_raw.clamp(0.25, 2.25), layer.delay_raw)
        expected = min(max(wanted, 0.25), 2.25)
        torch.testing.assert_close(layer.delay.detach(), torch.full((4,), expected), atol=0.02, rtol=0)


def test_clipped_delays_start_inside():
    raw = Delay(200, DelayRule("clip", scale=2.0, shift=0.5, mean=1.4, std=1.0), generator=seeded()).delay_raw
    assert raw.min() == 0.5
    assert raw.max() == 2.5
    assert Delay(200, DelayRule("clip", scale=INF, std=3.0), generator=seeded()).delay.max() > 3


def test_copies_of_an_input_share_a_delay():
    layer = Delay(6, copies=3, generator=seeded())
    assert layer.delay_raw.shape == (2,)
    times = torch.rand(4, 2)
    delayed = Network(Multiplex(3), layer)(times)
    assert torch.equal(delayed, (times + layer.rule(layer.delay_raw)).repeat_interleave(3, dim=-1))
    delayed.sum().backward()
    slope = layer.delay.detach()[::3] * (1 - layer.delay.detach()[::3])
    torch.testing.assert_close(layer.delay_raw.grad, 12 * slope)
    assert "copies=3" in repr(layer)


def test_copies_that_do_not_fit():
    with pytest.raises(ValueError, match="3 copies cannot share delays among 4 features"):
        Delay(4, copies=3)
    with pytest.raises(ValueError, match="copies must be > 0 and <= 1000000, got 0"):
        Delay(4, copies=0)


def test_jitter_of_spikes():
    layer = Delay(3, DelayRule(shift=1.0, jitter=0.05), generator=seeded(), dtype=torch.float64)
    times = torch.zeros(4000, 3, dtype=torch.float64)
    with jitter_from(layer, seeded(5)):
        noise = layer(times) - layer.delay
    assert layer.noise.source is None
    assert noise.std(dim=0).tolist() == pytest.approx([0.05] * 3, rel=0.05)
    assert noise.mean(dim=0).tolist() == pytest.approx([0.0] * 3, abs=0.004)
    with jitter_from(layer, seeded(5)):
        assert torch.equal(layer(times) - layer.delay, noise)
        assert not torch.equal(layer(times) - layer.delay, noise)
    observed = torch.rand(4000, 3, dtype=torch.float64)
    assert torch.equal(layer(times, observed), observed)
    assert torch.equal(layer.eval()(times), times + layer.delay)


def test_jitter_of_synapses():
    rule = DelayRule(shift=1.0, jitter=0.05)
    layer = LIFLinear(3, 2, delay=rule, weight_mean=3.0, weight_std=0.1, generator=seeded(), dtype=torch.float64)
    times = torch.rand(4, 3, generator=seeded(1), dtype=torch.float64)
    with jitter_from(layer, seeded(5)):
        noisy = layer(times)
    delay = layer.delay + 0.05 * torch.randn(2, 3, generator=seeded(5), dtype=torch.float64)
    assert torch.equal(noisy, first_spike_time(times, layer.weight, layer.neuron, delay=delay))
    ideal = layer.eval()(times)
    assert torch.equal(ideal, first_spike_time(times, layer.weight, layer.neuron, delay=layer.delay))
    assert not torch.equal(noisy, ideal)


def test_jittered_delays_stay_positive_and_learn_as_without():
    layer = Delay(3, DelayRule("softplus", mean=-3.0, jitter=2.0), generator=seeded())
    times = torch.zeros(500, 3)
    delayed = layer(times)
    assert delayed.min() == 0
    assert (delayed == 0).float().mean() > 0.3
    delayed.sum().backward()
    torch.testing.assert_close(layer.delay_raw.grad, 500 * torch.sigmoid(layer.delay_raw.detach()))


def test_spikes_that_never_come():
    layer = Delay(2)
    times = torch.tensor([[0.5, INF], [INF, INF]], requires_grad=True)
    out = layer(times)
    assert out.isinf().tolist() == [[False, True], [True, True]]
    torch.where(out.isfinite(), out, torch.zeros_like(out)).sum().backward()
    assert times.grad.tolist() == [[1, 0], [0, 0]]
    assert layer.delay_raw.grad[0] > 0
    assert layer.delay_raw.grad[1] == 0


def test_observed():
    """Returned as they are, bit for bit, with the gradient of the sum; none where either is silent."""
    layer = Delay(3)
    times = torch.tensor([[0.1, 0.2, INF], [0.7, INF, 0.3]], requires_grad=True)
    observed = torch.tensor([[0.3, INF, INF], [1e-3, 5.0, 0.9]])
    out = layer(times, observed)
    assert torch.equal(out, observed)
    out.backward(torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]))
    assert times.grad.tolist() == [[1, 0, 0], [8, 0, 32]]
    slope = layer.delay.detach() * (1 - layer.delay.detach())
    torch.testing.assert_close(layer.delay_raw.grad, slope * torch.tensor([9.0, 0.0, 32.0]))


def test_observed_of_a_wrong_shape():
    with pytest.raises(ValueError, match=r"observed must have the shape \(5, 3\), got \(1, 3\)"):
        Delay(3)(torch.rand(5, 3), torch.rand(1, 3))


def test_fixed():
    layer = Delay(3, DelayRule(trainable=False))
    assert not layer.delay_raw.requires_grad
    assert not layer(torch.rand(2, 3)).requires_grad


@pytest.mark.parametrize("features", [0, -1])
def test_wrong_size(features):
    with pytest.raises(ValueError, match=f"features must be > 0 and <= 1000000, got {features}"):
        Delay(features)


def test_output_size():
    assert Delay(3).output_size(3) == 3
    with pytest.raises(ValueError, match=r"Delay\(3\) expects \d+ inputs, got 4"):
        Delay(3).output_size(4)


@pytest.mark.host
def test_dtype_device_state_and_copies():
    layer = Delay(3, dtype=torch.float64)
    assert list(layer.state_dict()) == ["delay_raw"]
    assert layer.delay.dtype == torch.float64
    assert Delay(3, device="meta").delay_raw.device.type == "meta"
    times = torch.rand(2, 3, dtype=torch.float64)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(times), layer(times))
    assert repr(layer).startswith("Delay(3, DelayRule(bound='sigmoid', scale=1.0")


RULES = {
    "sigmoid": DelayRule(scale=4.0, shift=0.5),
    "softplus": DelayRule("softplus", scale=2.0, shift=0.5),
    "clip": DelayRule("clip", scale=4.0, shift=0.5),
    "endless": DelayRule("clip", scale=INF),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bound", RULES)
def test_delays_that_are_given(bound, dtype):
    """By distance in synapses, drawn from any distribution for inputs, and beyond a window in recurrent ones."""
    rule, places = RULES[bound], torch.rand(2, 6, 2, generator=seeded(), dtype=torch.float64)
    layer = LIFLinear(6, 6, delay=rule, dtype=dtype)
    distance = torch.cdist(places[0], places[1]) / 0.5 + 0.6
    layer.set_delays_(distance)
    torch.testing.assert_close(layer.delay, distance.to(dtype))
    state = layer.state_dict()
    layer.set_delays_(layer.delay)
    torch.testing.assert_close(layer.delay, distance.to(dtype))
    layer.set_delays_(1.5)
    torch.testing.assert_close(layer.delay, torch.full_like(layer.delay, 1.5))
    layer.load_state_dict(state)
    layer.delay.sum().backward()
    assert layer.delay_raw.grad.all()
    axonal = Delay(6, rule, copies=2, dtype=dtype)
    drawn = 0.6 + torch.empty(3).log_normal_(-1.0, 0.3, generator=seeded())
    axonal.set_delays_(drawn)
    torch.testing.assert_close(axonal.delay, drawn.repeat_interleave(2).to(dtype))
    if bound != "softplus":
        rule = dataclasses.replace(rule, scale=4.0, shift=0.0)
        own = LIFRecurrent(6, 6, 9, 8.0, window=0.6, recurrent_delay=rule, dtype=dtype)
        own.set_recurrent_delays_(distance.clamp(max=4.5))
        torch.testing.assert_close(own.own_delay, distance.clamp(max=4.5).to(dtype))
        if bound != "sigmoid":
            own.set_recurrent_delays_(0.6)
            assert torch.equal(own.own_delay, torch.full((6, 6), 0.6, dtype=dtype))


@pytest.mark.parametrize(
    ("rule", "delay", "message"),
    [
        (
            "sigmoid",
            [1.0, 4.5, 2.0],
            r"^delays must be within scale and shift of DelayRule\(bound='sigmoid', .*, got 1 to 4\.5; take another",
        ),
        (
            "softplus",
            0.5,
            r"^delays must be within scale and shift of DelayRule\(bound='softplus', .*, got 0\.5 to 0\.5; take ano",
        ),
        (
            "clip",
            [0.4, 1.0, 5.0],
            r"^delays must be within scale and shift of DelayRule\(bound='clip', .*, got 0\.4 to 5; take another",
        ),
        (
            "endless",
            INF,
            r"^delays must be within scale and shift of DelayRule\(bound='clip', .*, got inf to inf; take another",
        ),
        (
            "clip",
            math.nan,
            r"^delays must be within scale and shift of DelayRule\(bound='clip', .*, got nan to nan; take another",
        ),
        ("clip", [1.0, 1.0], r"^delays must be a number or in the shape \(3,\), got \(2,\)$"),
    ],
)
def test_delays_that_cannot_be(rule, delay, message):
    layer = Delay(3, RULES[rule])
    before = layer.delay_raw.detach().clone()
    with pytest.raises(ValueError, match=message):
        layer.set_delays_(delay)
    assert torch.equal(layer.delay_raw, before)


def test_layers_without_delays_have_none_to_set():
    with pytest.raises(ValueError, match=r"^LIFLinear has no delays to set; make it with delay=fs\.DelayRule"):
        LIFLinear(4, 3).set_delays_(1.0)
    layer = LIFRecurrent(4, 3, 9, 4.0, window=1.5)
    with pytest.raises(ValueError, match=r"^LIFRecurrent has no delays beyond window to set; give recurrent_delay a D"):
        layer.set_recurrent_delays_(2.0)
    layer = LIFRecurrent(4, 3, 9, 4.0, window=1.5, recurrent_delay=DelayRule("clip", scale=2.0))
    message = (
        r"^delays must be within scale and shift of DelayRule\(bound='clip', .* after a window of 1\.5, got 1 to 1;"
        r" take another rule, or delays from 1\.5 to 3\.5$"
    )
    with pytest.raises(ValueError, match=message):
        layer.set_recurrent_delays_(1.0)
