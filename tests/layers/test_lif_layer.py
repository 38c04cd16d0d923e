import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn

from firstspike import LIF, DelayRule, LIFLinear, SpikeTrains, first_spike_time
from firstspike.layers.init import firing_weights
from firstspike.neurons import AdaptiveLIF

pytestmark = pytest.mark.usefixtures("poisoned_memory", "on_device")

RATIOS = [1.0, 2.0, 0.5, math.inf, 1.37, 10.0, 100.0, 1 + 1e-9, 0.3]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("inputs", [1, 2, 5, 20, 100, 784])
def test_most_neurons_fire_by_default(inputs, ratio):
    layer = LIFLinear(inputs, 80, LIF(ratio), generator=seeded())
    times = torch.rand(3, inputs, generator=seeded(1)) * 2
    with torch.no_grad():
        assert layer(times).isfinite().float().mean() > 0.7


@pytest.mark.parametrize("tau_syn", [5e-3, 20.0])
@pytest.mark.parametrize("threshold", [1e-3, 30.0, torch.tensor([0.5] * 75 + [8.0] * 75)])
def test_most_neurons_fire_in_other_units(tau_syn, threshold):
    layer = LIFLinear(30, 150, LIF(2 * tau_syn, tau_syn, threshold), generator=seeded())
    times = torch.rand(6, 30, generator=seeded(1)) * 2 * tau_syn
    fires = layer(times).isfinite().float()
    assert fires[:, :75].mean() > 0.7
    assert fires[:, 75:].mean() > 0.7


def test_default_weights_have_the_mean_and_spread_they_promise():
    lif = LIF(2.0, 1.0, 3.0)
    start = firing_weights(50, lif)
    weight = LIFLinear(50, 4000, lif, generator=seeded()).weight
    assert weight.mean().item() == pytest.approx(3 * start.mean, rel=0.02)
    assert weight.std().item() == pytest.approx(3 * start.std, rel=0.02)


def test_weight_mean_and_std():
    weight = LIFLinear(200, 200, weight_mean=1.5, weight_std=0.8, generator=seeded()).weight
    assert weight.mean().item() == pytest.approx(1.5, abs=0.02)
    assert weight.std().item() == pytest.approx(0.8, abs=0.02)
    assert LIFLinear(3, 2, weight_mean=0.25, weight_std=0.0).weight.tolist() == [[0.25] * 3] * 2
    # the papers' weights are as they are, whatever the threshold
    assert LIFLinear(3, 2, LIF(threshold=9.0), weight_mean=0.25, weight_std=0.0).weight.tolist() == [[0.25] * 3] * 2


@pytest.mark.parametrize("options", [{}, {"weight_mean": 1.0, "weight_std": 1.0}, {"delay": DelayRule()}])
def test_generator(options):
    first, again, other = (dict(LIFLinear(5, 4, generator=seeded(k), **options).named_parameters()) for k in (3, 3, 4))
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert not torch.equal(value, other[name])


def test_generator_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    LIFLinear(5, 4, delay=DelayRule(), generator=seeded()).reset_parameters(seeded())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    first = LIFLinear(5, 4).weight
    torch.manual_seed(1)
    assert torch.equal(LIFLinear(5, 4).weight, first)


def test_reset_parameters():
    layer = LIFLinear(5, 4, generator=seeded())
    before = layer.weight.detach().clone()
    layer.reset_parameters(seeded(1))
    assert not torch.equal(layer.weight, before)
    layer.reset_parameters(seeded())
    assert torch.equal(layer.weight, before)


def test_forward_is_the_operator():
    lif = LIF(2.0, 1.0, torch.tensor([0.5, 1.0, 2.0]))
    layer = LIFLinear(4, 3, lif, delay=DelayRule(), max_weight_grad=0.1, generator=seeded(), dtype=torch.float64)
    times = torch.rand(2, 6, 4, generator=seeded(), dtype=torch.float64) * 2
    observed = torch.rand(2, 6, 3, generator=seeded(), dtype=torch.float64)
    direct = first_spike_time(times, layer.weight, lif, delay=layer.delay, max_weight_grad=0.1)
    assert torch.equal(layer(times), direct)
    layer(times).nan_to_num(posinf=0.0).sum().backward()
    by_layer = layer.weight.grad.clone()
    layer.weight.grad = None
    direct.nan_to_num(posinf=0.0).sum().backward()
    assert torch.equal(by_layer, layer.weight.grad)
    assert torch.equal(layer(times, observed), observed)


def test_state_dict():
    assert list(LIFLinear(3, 2).state_dict()) == ["weight", "_extra_state"]
    layer = LIFLinear(3, 2, delay=DelayRule(), dtype=torch.float64)
    assert list(layer.state_dict()) == ["weight", "delay_raw", "_extra_state"]
    twin = LIFLinear(3, 2, delay=DelayRule(), dtype=torch.float64)
    twin.load_state_dict(layer.state_dict())
    times = torch.rand(4, 3, dtype=torch.float64)
    assert torch.equal(twin(times), layer(times))
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        LIFLinear(4, 2).load_state_dict(LIFLinear(3, 2).state_dict())


@pytest.mark.host
@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.float64])
def test_dtype(dtype):
    layer = LIFLinear(3, 2, delay=DelayRule(), dtype=dtype)
    assert {x.dtype for x in layer.parameters()} == {dtype}
    assert layer(torch.rand(4, 3, dtype=dtype)).dtype == dtype
    assert layer.double()(torch.rand(4, 3, dtype=torch.float64)).dtype == torch.float64


def test_device():
    layer = LIFLinear(3, 2, delay=DelayRule(), device="meta")
    assert {x.device.type for x in layer.parameters()} == {"meta"}


def test_default_dtype_of_torch_is_used():
    torch.set_default_dtype(torch.float64)
    try:
        assert LIFLinear(3, 2).weight.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def copies(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return [copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(buffer, weights_only=False)]


@pytest.mark.host
@pytest.mark.parametrize("threshold", [0.8, torch.tensor([0.5, 1.0])])
def test_copies(threshold):
    neuron = LIF(math.inf, 0.5, threshold)
    layer = LIFLinear(3, 2, neuron, delay=DelayRule("softplus"), max_weight_grad=0.3, dtype=torch.float64)
    times = torch.rand(4, 3, dtype=torch.float64)
    for twin in copies(layer):
        assert torch.equal(twin(times), layer(times))
        assert twin.weight is not layer.weight
        assert twin.max_weight_grad == 0.3
        assert repr(twin) == repr(layer)


def test_deepcopy_with_a_trained_threshold():
    layer = LIFLinear(3, 2, LIF(threshold=nn.Parameter(torch.ones(2))))
    twin = copy.deepcopy(layer)
    assert twin.neuron.threshold is not layer.neuron.threshold
    twin(torch.zeros(1, 3)).sum().backward()
    assert layer.neuron.threshold.grad is None
    assert twin.neuron.threshold.grad.shape == (2,)


@pytest.mark.host
def test_a_tensor_among_the_neurons_parameters_belongs_to_the_layer():
    layer = LIFLinear(3, 2, LIF(torch.tensor([2.0, 3.0]), threshold=torch.tensor(0.7)), dtype=torch.float32)
    assert list(layer.state_dict()) == ["weight", "tau_mem", "threshold", "_extra_state"]
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert layer.double().neuron.threshold.dtype == torch.float64
    assert layer.to("meta").neuron.tau_mem.device.type == "meta"
    learnt = LIFLinear(3, 2, LIF(threshold=nn.Parameter(torch.tensor([0.7, 0.8]))))
    assert [name for name, _ in learnt.named_parameters()] == ["weight", "threshold"]
    learnt(torch.zeros(1, 3)).sum().backward()
    assert learnt.threshold.grad.shape == (2,)


NEURON = ("tau_mem", "tau_syn", "threshold")


@pytest.mark.parametrize("per_neuron", [False, True])
def test_parameters_of_the_neuron_that_learn(per_neuron):
    lif = LIF(2.0, 0.5, 1.5)
    layer = LIFLinear(4, 3, lif, trainable=NEURON, per_neuron=per_neuron, generator=seeded(), dtype=torch.float64)
    shape = (3,) if per_neuron else ()
    assert {name: p.shape for name, p in layer.named_parameters()} == {
        "weight": (3, 4),
        "log_tau_mem": shape,
        "log_tau_syn": shape,
        "log_threshold": shape,
    }
    for name in NEURON:
        torch.testing.assert_close(getattr(layer.neuron, name).double(), torch.full(shape, getattr(lif, name)).double())
    fixed = LIFLinear(4, 3, lif, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(layer.weight, fixed.weight, rtol=1e-12, atol=0)
    times = torch.rand(5, 4, generator=seeded(1), dtype=torch.float64)
    torch.testing.assert_close(layer(times), fixed(times), rtol=1e-9, atol=1e-9)

    values = dict(layer.named_parameters())

    def spikes(*new):
        return torch.func.functional_call(layer, dict(zip(values, new, strict=True)), (times,)).nan_to_num(posinf=0)

    assert torch.autograd.gradcheck(spikes, tuple(values.values()), atol=1e-6)
    assert f"LIF(tau_mem=learnt {shape}, tau_syn=learnt {shape}, threshold=learnt {shape})" in repr(layer)


@pytest.mark.host
@pytest.mark.parametrize("per_neuron", [False, True])
def test_learnt_parameters_of_the_neuron_survive(per_neuron):
    options = {"trainable": NEURON, "per_neuron": per_neuron, "dtype": torch.float64}
    layer = LIFLinear(4, 3, LIF(2.0), generator=seeded(), **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded(2)))
    times = torch.rand(5, 4, dtype=torch.float64)
    other = LIFLinear(4, 3, LIF(5.0), **options)
    assert not torch.equal(other(times), layer(times))
    other.load_state_dict(layer.state_dict())
    for twin in (other, *copies(layer)):
        assert torch.equal(twin(times), layer(times))
        assert repr(twin) == repr(layer)
    assert layer.float().neuron.tau_mem.dtype == torch.float32
    layer.double().reset_parameters(seeded())
    torch.testing.assert_close(layer.neuron.tau_mem, torch.full_like(layer.neuron.tau_mem, 2.0))
    fresh = LIFLinear(4, 3, LIF(2.0), generator=seeded(), dtype=torch.float64).weight
    assert layer.weight.shape == fresh.shape
    assert LIFLinear(4, 3, trainable=NEURON, device="meta").log_tau_syn.device.type == "meta"


LINEAR = {
    "receptors": (LIF(2.0, (0.5, 1.5)), ["tau_syn", "tau_mem"], {"log_tau_syn": (2,), "log_tau_mem": ()}),
    "bias": (LIF(2.0, bias=-0.2), ["bias", "threshold"], {"bias": (), "log_threshold": ()}),
    "rise": (LIF(2.0, 0.5, tau_rise=0.2), ["tau_rise"], {"log_tau_rise": ()}),
    "rises": (LIF(2.0, (0.5, 1.5), tau_rise=(0.2, 0.4)), ["tau_rise"], {"log_tau_rise": (2,)}),
}
ADAPTIVE = AdaptiveLIF(2.0, adaptation=[(3.0, 0.5), (1.0, -0.2)], threshold_adaptation=[(2.0, 0.3)], reset=-0.1)
ADAPTS = {"log_adaptation_tau": (2,), "adaptation_jump": (2,), "log_threshold_tau": (1,), "threshold_jump": (1,)}


@pytest.mark.parametrize(
    ("case", "per_neuron"),
    [
        *((case, per_neuron) for case in LINEAR for per_neuron in (False, True)),
        pytest.param("adaptation", False, marks=pytest.mark.exhaustive),
        ("adaptation", True),
    ],
)
def test_parameters_of_linear_neurons_that_learn(case, per_neuron):
    neuron, names, shapes = LINEAR.get(case, (ADAPTIVE, [x.removeprefix("log_") for x in ADAPTS], ADAPTS))
    options = {"trainable": names, "per_neuron": per_neuron, "dtype": torch.float64, "backend": "reference"}
    options |= {"receptor": [0, 1, 0, 1]} if len(neuron.receptors) > 1 else {}

    def make(neuron=neuron, seed=0):
        if case == "adaptation":
            return SpikeTrains(4, 3, 5, neuron, overflow="drop", generator=seeded(seed), **options)
        return LIFLinear(4, 3, neuron, generator=seeded(seed), **options)

    layer, times = make(), torch.rand(2, 4, generator=seeded(1), dtype=torch.float64)
    wide = (3,) if per_neuron else ()
    own = {name: tuple(p.shape) for name, p in layer.named_parameters() if name != "weight"}
    assert own == {name: (*wide, *shape) for name, shape in shapes.items()}
    for name in names:
        found, given = (getattr(x, name) for x in (layer.neuron, neuron))
        for one, other in zip(*(x if isinstance(x, tuple) else (x,) for x in (found, given)), strict=True):
            torch.testing.assert_close(one.double(), torch.full(wide, other).double())
        assert f"{name}=learnt" in repr(layer)
        assert layer.kind_of(next(key for key in shapes if key.endswith(name))) == "neuron"
    values = {name: p for name, p in layer.named_parameters() if name != "weight"}
    assert layer(times).isfinite().any()

    def spikes(*new):
        return torch.func.functional_call(layer, dict(zip(values, new, strict=True)), (times,)).nan_to_num(posinf=0)

    assert torch.autograd.gradcheck(spikes, tuple(values.values()), atol=1e-6, fast_mode=True)
    spikes(*values.values()).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in values.values())

    other = make(seed=3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.01)
    other.load_state_dict(layer.state_dict())
    for twin in (other, *copies(layer)):
        assert torch.equal(twin(times), layer(times))
        assert repr(twin) == repr(layer)
    layer.reset_parameters(seeded())
    torch.testing.assert_close(layer(times), make()(times), rtol=1e-12, atol=1e-12)


@pytest.mark.host
def test_tensors_in_tuples_belong_to_the_layer():
    taus = torch.tensor([1.0, 2.0], dtype=torch.float64), nn.Parameter(torch.tensor(3.0).double()), 4.0
    layer = LIFLinear(3, 2, LIF(2.0, taus), receptor=[0, 1, 2], dtype=torch.float64, backend="reference")
    assert list(layer.state_dict()) == ["weight", "tau_syn_1", "tau_syn_0", "tau_syn_2", "_extra_state"]
    assert [name for name, _ in layer.named_parameters()] == ["weight", "tau_syn_1"]
    times = torch.zeros(1, 3, dtype=torch.float64)
    layer(times).sum().backward()
    assert layer.tau_syn_1.grad.any()
    numbers = LIFLinear(3, 2, LIF(2.0, (1.0, 3.0, 4.0)), receptor=[0, 1, 2], dtype=torch.float64, backend="reference")
    with torch.no_grad():
        numbers.weight.copy_(layer.weight)
    assert torch.equal(numbers(times)[:, 0], layer(times)[:, 0])
    assert layer.to("meta").neuron.tau_syn[2].device.type == "meta"
    assert "tau_syn=(tensor([1., 2.], dtype=torch.float64), learnt (), tensor(4., dtype=torch.float64))" in repr(
        LIFLinear(3, 2, LIF(2.0, taus), receptor=[0, 1, 2], dtype=torch.float64)
    )


def test_neurons_that_start_with_their_own_values_fire():
    """Each neuron's weights fit its time constants, also far apart."""
    mem, syn = torch.logspace(-2, 2, 60, dtype=torch.float64), torch.logspace(1, -1, 60, dtype=torch.float64)
    options = {"trainable": ["tau_mem"], "per_neuron": True, "generator": seeded(), "dtype": torch.float64}
    layer = LIFLinear(30, 60, LIF(mem, syn, 1 / mem), **options)
    torch.testing.assert_close(layer.neuron.tau_mem.detach(), mem)
    spans = syn.tolist()
    times = torch.rand(20, 30, generator=seeded(1), dtype=torch.float64)
    with torch.no_grad():
        fires = torch.stack([layer(2 * span * times)[:, j].isfinite() for j, span in enumerate(spans)])
    assert fires.float().mean() > 0.7


@pytest.mark.slow
def test_time_constants_are_recovered():
    """From spike times of neurons with other time constants, of each its own, with the weights known."""
    target = LIFLinear(6, 5, LIF(torch.tensor([1.5, 2.0, 2.5, 3.0, 1.2]), 1.0), weight_mean=1.0, weight_std=0.3,
                       generator=seeded(), dtype=torch.float64)  # fmt: skip
    learner = LIFLinear(6, 5, LIF(1.4, 0.7), trainable=("tau_mem", "tau_syn"), per_neuron=True, dtype=torch.float64)
    learner.weight.requires_grad_(False).copy_(target.weight.detach())
    times = torch.rand(64, 6, generator=seeded(1), dtype=torch.float64) * 1.5
    wanted = target(times).detach()
    optimizer = torch.optim.Adam([learner.log_tau_mem, learner.log_tau_syn], lr=0.03)
    for step in range(900):
        optimizer.param_groups[0]["lr"] = 0.03 if step < 700 else 0.003
        optimizer.zero_grad()
        out = learner(times)
        both = out.isfinite() & wanted.isfinite()
        torch.where(both, out - wanted, 0.0).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(learner.neuron.tau_mem.detach(), target.neuron.tau_mem.double(), rtol=0.02, atol=0)
    torch.testing.assert_close(learner.neuron.tau_syn.detach(), torch.ones(5).double(), rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"trainable": ["tau"]},
            "trainable must be some of tau_mem, tau_syn, threshold, tau_rise, bias in a list, got",
        ),
        (
            {"trainable": "tau_mem"},
            "trainable must be some of tau_mem, tau_syn, threshold, tau_rise, bias in a list, got 'tau_mem'",
        ),
        ({"trainable": True}, "trainable must be some of tau_mem, .* in a list, got True"),
        ({"per_neuron": True}, "per_neuron=True needs trainable="),
        ({"trainable": ["tau_mem"], "neuron": LIF(math.inf)}, "tau_mem can only learn from a finite value > 0"),
        ({"trainable": ["threshold"], "neuron": LIF(threshold=torch.tensor(0.0))}, "threshold can only learn from"),
        ({"trainable": ["tau_mem"], "neuron": LIF(torch.ones(2))}, "tau_mem starts with 2 values: set per_neuron"),
        ({"trainable": ["tau_syn"], "neuron": LIF(1.0, (1.0, torch.ones(2)))}, "tau_syn starts with 2 values: set per"),
        ({"trainable": ["tau_rise"]}, "tau_rise can only learn from a finite value > 0, got 0.0"),
        (
            {"trainable": ["tau_rise"], "neuron": LIF(1.0, (1.0, 2.0), tau_rise=(0.2, 0.0))},
            "tau_rise can only learn fro",
        ),
        (
            {"trainable": ["bias"], "neuron": LIF(math.inf)},
            r"bias is the membrane at rest, which a neuron without leak",
        ),
    ],
)
def test_parameters_that_cannot_learn(options, message):
    with pytest.raises(ValueError, match=message):
        LIFLinear(3, 2, **options)


def test_in_sequential():
    model = nn.Sequential(LIFLinear(4, 8, generator=seeded()), LIFLinear(8, 3, generator=seeded(1)))
    times = torch.rand(5, 4, generator=seeded())
    out = model(times)
    assert out.shape == (5, 3)
    assert out.isfinite().any()
    out.nan_to_num(posinf=0.0).sum().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_trains():
    layer = LIFLinear(4, 3, generator=seeded())
    times, wanted = torch.rand(8, 4, generator=seeded()), torch.tensor([0.6, 0.9, 1.2])
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        out = layer(times)
        loss = torch.where(out.isfinite(), out - wanted, torch.zeros_like(out)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_synaptic_delays():
    layer = LIFLinear(3, 2, delay=DelayRule(scale=0.5, shift=0.1), weight_mean=3.0, weight_std=0.1, dtype=torch.float64)
    assert layer.delay.shape == (2, 3)
    assert ((layer.delay > 0.1) & (layer.delay < 0.6)).all()
    times = torch.rand(4, 3, dtype=torch.float64).requires_grad_()
    layer(times).sum().backward()
    assert layer.delay_raw.grad.any()
    assert times.grad.any()
    assert LIFLinear(3, 2).delay is None
    assert LIFLinear(3, 2).delay_raw is None


def test_fixed_delays():
    layer = LIFLinear(3, 2, delay=DelayRule(trainable=False), weight_mean=3.0, weight_std=0.1, dtype=torch.float64)
    assert not layer.delay_raw.requires_grad
    layer(torch.rand(4, 3, dtype=torch.float64)).sum().backward()
    assert layer.delay_raw.grad is None


def test_representation():
    assert repr(LIFLinear(3, 2)) == "LIFLinear(3, 2, LIF(tau_mem=1.0, tau_syn=1.0, threshold=1.0))"
    assert "delay=DelayRule(bound='sigmoid'" in repr(LIFLinear(3, 2, delay=DelayRule()))


def test_repr_of_a_layer_of_your_own():
    class Square(LIFLinear):
        def __init__(self, size, **options):
            super().__init__(size, size, **options)

    assert repr(Square(3)) == "Square(3, 3, LIF(tau_mem=1.0, tau_syn=1.0, threshold=1.0))"


def test_output_size():
    assert LIFLinear(3, 2).output_size(3) == 2
    with pytest.raises(ValueError, match=r"LIFLinear\(3, 2\) expects \d+ inputs, got 4"):
        LIFLinear(3, 2).output_size(4)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 2), {}, "in_features must be > 0.*, got 0"),
        ((3, -1), {}, "out_features must be > 0.*, got -1"),
        ((4, 3, 2.0), {}, r"neuron must be a LIF, such as LIF\(tau_mem=2\.0\), got 2\.0"),
        ((4, 3, 0), {}, "neuron must be a LIF, .*got 0"),
        ((3, 2), {"weight_mean": 1.0}, "weight_mean and weight_std belong together"),
        ((3, 2), {"weight_std": 1.0}, "weight_mean and weight_std belong together"),
        ((3, 2), {"weight_mean": 1.0, "weight_std": -1.0}, "weight_std must be >= 0 and finite, got -1.0"),
    ],
)
def test_wrong_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        LIFLinear(*arguments, **options)


def test_wrong_input():
    with pytest.raises(ValueError, match=r"times \(5, 4\) and weight \(2, 3\)"):
        LIFLinear(3, 2)(torch.rand(5, 4))
    with pytest.raises(ValueError, match="backend must be one of"):
        LIFLinear(3, 2, backend="quantum")(torch.rand(5, 3))
