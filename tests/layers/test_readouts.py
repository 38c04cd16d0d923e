"""Readouts against quadrature in 30 digits, central differences, and the layers around them."""

import math

import mpmath
import pytest
import torch

from firstspike import (
    LIF,
    FirstSpike,
    IntegralReadout,
    LIFLinear,
    LIFSpikeTrains,
    MaximumReadout,
    MembraneReadout,
    Network,
)
from firstspike.config import load_config
from firstspike.layers.ensembles import Ensemble

INF = math.inf
RATIOS = [0.5, 0.999, 1.0, 1.3, 2.0, 100.0, INF]
KINDS = {
    "integral": lambda *sizes, **rest: IntegralReadout(*sizes, tau=3.0, **rest),
    "membrane": lambda *sizes, **rest: MembraneReadout(*sizes, time=2.5, **rest),
    "maximum": MaximumReadout,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def trains(samples=4, inputs=3, spikes=4, seed=0):
    """Trains of different lengths; the last sample has no spike at all."""
    times = (torch.rand(samples, inputs, spikes, generator=seeded(seed), dtype=torch.float64) * 4).sort(-1).values
    count = torch.randint(spikes + 1, (samples, inputs, 1), generator=seeded(seed + 1))
    times = torch.where(torch.arange(spikes) < count, times, INF)
    times[-1] = INF
    return times


def membrane(times, weight, tau_mem, tau_syn):
    """V(t) of one output in mpmath, from the spikes of one sample."""
    mem, syn = mpmath.mpf(tau_mem) if tau_mem < INF else None, mpmath.mpf(tau_syn)
    events = [
        (mpmath.mpf(t), mpmath.mpf(w)) for row, w in zip(times.tolist(), weight.tolist(), strict=True) for t in row
    ]

    def kappa(s):
        if mem is None:
            return 1 - mpmath.exp(-s / syn)
        if mem == syn:
            return s / syn * mpmath.exp(-s / syn)
        return mem / (mem - syn) * (mpmath.exp(-s / mem) - mpmath.exp(-s / syn))

    def at(t):
        return mpmath.fsum(w * kappa(t - s) for s, w in events if s < t)

    return at, sorted(float(t) for t, _ in events if t < mpmath.inf)


@pytest.mark.slow
@pytest.mark.parametrize("tau_mem", RATIOS)
def test_the_integral_is_that_of_the_membrane(tau_mem):
    times = trains()
    neuron = LIF(0.8 * tau_mem, 0.8)
    readout = IntegralReadout(3, 2, neuron, tau=3.0, dtype=torch.float64, generator=seeded())
    values = readout(times)
    with mpmath.workdps(30):
        for k in range(2):  # a sample, and an output
            at, events = membrane(times[k], readout.weight[k], neuron.tau_mem, 0.8)
            pieces = [*events, *(events[-1] + x for x in (3, 12, 40, 200))]
            expected = mpmath.quad(lambda t, at=at: mpmath.exp(-t / 3) * at(t), pieces)
            assert values[k, k].item() == pytest.approx(float(expected), rel=1e-12, abs=1e-14)
    assert not values[-1].any()


@pytest.mark.parametrize("tau_mem", [2.0, torch.tensor([2.0, 3.0], dtype=torch.float64)], ids=str)
def test_an_integral_without_discount_counts_spikes(tau_mem):
    readout = IntegralReadout(3, 2, LIF(tau_mem), tau=INF, dtype=torch.float64, generator=seeded())
    counts = trains().isfinite().sum(-1).double()
    torch.testing.assert_close(readout(trains()), tau_mem * (counts @ readout.weight.mT))


@pytest.mark.parametrize("tau_mem", [INF, torch.tensor([2.0, INF])], ids=str)
def test_an_integral_that_diverges(tau_mem):
    with pytest.raises(ValueError, match="the integral diverges for tau_mem=inf with tau=inf; give a finite tau"):
        IntegralReadout(3, 2, LIF(tau_mem), tau=INF)


@pytest.mark.parametrize("tau_mem", RATIOS)
def test_the_membrane_at_a_time(tau_mem):
    times = trains()
    neuron = LIF(0.8 * tau_mem, 0.8)
    readout = MembraneReadout(3, 2, neuron, time=2.5, dtype=torch.float64, generator=seeded())
    values = readout(times)
    for sample in range(4):
        for output in range(2):
            at, _ = membrane(times[sample], readout.weight[output], neuron.tau_mem, 0.8)
            assert values[sample, output].item() == pytest.approx(float(at(mpmath.mpf(2.5))), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("tau_mem", RATIOS)
def test_the_maximum_is_that_of_the_membrane(tau_mem):
    times = trains(samples=3)
    neuron = LIF(0.8 * tau_mem, 0.8)
    readout = MaximumReadout(3, 2, neuron, dtype=torch.float64, generator=seeded())
    values = readout(times)
    grid = torch.linspace(0, 40, 4001, dtype=torch.float64)
    for sample in range(3):
        for output in range(2):
            at, events = membrane(times[sample], readout.weight[output], neuron.tau_mem, 0.8)
            highest = max((float(at(mpmath.mpf(t))) for t in [*grid[::8].tolist(), *events]), default=0.0)
            assert highest - 1e-12 <= values[sample, output].item() <= max(highest, 0.0) + 2e-3


@pytest.mark.parametrize(
    ("neuron", "receptor"),
    [(LIF(1.3), None), (LIF(1.0, bias=0.2), None), (LIF(2.0, (0.6, 3.0)), "sign"), (LIF(2.0, (0.6, 3.0)), [0, 1, 1])],
    ids=["one", "bias", "sign", "receptors"],
)
def test_a_negative_slope_adds_the_minimum(neuron, receptor):
    times = trains(samples=3, seed=3).clamp(min=0)
    weight = torch.tensor([[-1.0, -0.5, -2.0], [1.0, -1.5, 0.5], [0.3, 0.2, 0.1]])
    leaky, plain = (
        MaximumReadout(3, 3, neuron, receptor=receptor, dtype=torch.float64, negative_slope=x) for x in (0.2, 0.0)
    )
    for layer in (leaky, plain):
        layer.weight.data.copy_(weight)
    arrives = times.isfinite()
    membrane = MembraneReadout(3, 3, neuron, time=1.0, receptor=receptor, dtype=torch.float64)
    membrane.weight.data.copy_(weight)
    lowest = torch.zeros(3, 3, dtype=torch.float64)
    for membrane.time in torch.linspace(0.02, 16, 800, dtype=torch.float64).tolist():
        lowest = torch.minimum(lowest, membrane(times))
    too_high = plain(times) + 0.2 * lowest - leaky(times)
    assert -1e-12 < too_high.min() < too_high.max() < 2e-3

    def values(finite, weight):
        return torch.func.functional_call(leaky, {"weight": weight}, (times.masked_scatter(arrives, finite),))

    assert torch.autograd.gradcheck(values, (times[arrives].requires_grad_(), leaky.weight))


def test_an_output_below_rest_has_a_gradient_with_a_negative_slope():
    times = trains()
    for slope, expected in ((0.0, False), (0.1, True)):
        readout = MaximumReadout(3, 2, negative_slope=slope, weight_mean=-1.0, weight_std=0.0, dtype=torch.float64)
        values = readout(times)
        values.sum().backward()
        assert bool((values < 0).any()) == expected
        assert bool((readout.weight.grad != 0).any()) == expected
    with pytest.raises(ValueError, match="negative_slope must be >= 0"):
        MaximumReadout(3, 2, negative_slope=-0.1)


@pytest.mark.parametrize("tau_mem", [0.5, 1.0, 1.3, INF])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_times_and_weights(kind, tau_mem):
    times = trains(seed=3)
    arrives = times.isfinite()
    readout = KINDS[kind](3, 2, LIF(tau_mem), dtype=torch.float64, generator=seeded())

    def values(finite, weight):
        shown = times.masked_scatter(arrives, finite)
        return torch.func.functional_call(readout, {"weight": weight}, (shown,))

    assert torch.autograd.gradcheck(values, (times[arrives].requires_grad_(), readout.weight))


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.0 + 1e-9, 3.0])
@pytest.mark.parametrize("per_neuron", [False, True])
@pytest.mark.parametrize("kind", ["integral", "membrane"])
def test_gradients_by_time_constants(kind, per_neuron, ratio):
    def make(**options):
        return KINDS[kind](3, 2, LIF(0.8 * ratio, 0.8), dtype=torch.float64, generator=seeded(), **options)

    readout = make(trainable=["tau_mem", "tau_syn"], per_neuron=per_neuron)

    def values(mem, syn):
        return torch.func.functional_call(readout, {"log_tau_mem": mem, "log_tau_syn": syn}, (trains(),))

    assert torch.autograd.gradcheck(values, (readout.log_tau_mem, readout.log_tau_syn))
    fixed = make()
    torch.testing.assert_close(readout(trains()), fixed(trains()), rtol=1e-8, atol=1e-12)
    alone = make(trainable=["tau_mem"], per_neuron=per_neuron)
    torch.testing.assert_close(alone(trains()), fixed(trains()), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_first_spikes_are_trains_of_one_spike(kind, dtype):
    readout = KINDS[kind](3, 2, dtype=dtype, generator=seeded())
    times = trains()[..., 0].to(dtype)
    values = readout(times)
    assert values.dtype == dtype
    assert torch.equal(values, readout(times[..., None]))
    torch.testing.assert_close(readout(times[0]), values[0])
    late = torch.cat([times[..., None], torch.full((4, 3, 2), INF, dtype=dtype)], dim=-1)
    torch.testing.assert_close(readout(late), values)


@pytest.mark.parametrize("kind", KINDS)
def test_observed_values_have_the_gradient_of_the_computed_ones(kind):
    readout = KINDS[kind](3, 2, dtype=torch.float64, generator=seeded())
    observed = torch.ones(4, 2, dtype=torch.float64)
    seen = readout(trains(), observed)
    assert torch.equal(seen, observed)
    found, expected = (torch.autograd.grad(x.sum(), readout.weight)[0] for x in (seen, readout(trains())))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("bad", [math.nan, -INF])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_time_is_refused(kind, bad):
    members = [Network(KINDS[kind](3, 2, dtype=torch.float64, generator=seeded(seed))) for seed in range(2)]
    times = trains()
    times[1, 2, -1] = bad
    for call in (members[0], members[0].record, Ensemble(members), torch.func.vmap(lambda x: members[0](x[None]))):
        with pytest.raises(ValueError, match=r"times must be real numbers or inf \(no spike\), got NaN or -inf"):
            call(times)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_autocast_leaves_the_precision(kind, low):
    readout, times = KINDS[kind](3, 2, generator=seeded()), trains().to(low)
    expected = readout(times.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = readout(times)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("shift", [-5.0, -0.7, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_times_that_are_shifted_and_negative(kind, shift):
    """The integral is discounted from another time, the membrane is another one, and the maximum is the same."""
    readout, times = KINDS[kind](3, 2, LIF(1.3), dtype=torch.float64, generator=seeded()), trains().requires_grad_()
    factor = math.exp(-shift / 3.0) if kind == "integral" else 1.0
    values = readout(times)
    if kind == "membrane":
        readout.time += shift
    shifted = readout(times + shift)
    torch.testing.assert_close(shifted, factor * values)
    for one, other in zip(
        *(torch.autograd.grad(x.sum(), (times, readout.weight)) for x in (shifted, values)), strict=True
    ):
        torch.testing.assert_close(one, factor * other)


@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 3, 0), (5, 3), (0, 3), (2, 0, 3, 4), (2, 5, 3, 4), (3, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_nothing(kind, shape):
    readout = KINDS[kind](3, 2, dtype=torch.float64, generator=seeded())
    times = torch.rand(shape, generator=seeded(), dtype=torch.float64).requires_grad_()
    if shape == (3, 0):
        times = times[None]
    values = readout(times)
    assert values.shape == (*(times.shape[:-1] if times.ndim == 2 else times.shape[:-2]), 2)
    if 0 in times.shape:
        assert not values.any()
    by_times, by_weight = torch.autograd.grad(values.sum(), (times, readout.weight))
    assert by_times.shape == times.shape
    assert bool(by_weight.any()) == (0 not in times.shape)


def test_the_maximum_has_no_second_derivative():
    readout, times = MaximumReadout(3, 2, dtype=torch.float64, generator=seeded()), trains()
    (grad,) = torch.autograd.grad(readout(times).sum(), readout.weight, create_graph=True)
    with pytest.raises(NotImplementedError, match="the maximum has first derivatives only"):
        grad.sum().backward()


def test_wrong_inputs():
    readout = MembraneReadout(3, 2, time=1.0)
    with pytest.raises(ValueError, match=r"MembraneReadout\(3, 2\) expects times \(batch, 3\), or trains"):
        readout(torch.rand(5, 4))
    with pytest.raises(ValueError, match=r"first spikes with more than one batch dimension are times.unsqueeze\(-1\)"):
        readout(torch.rand(5, 4, 3))
    with pytest.raises(ValueError, match=r"expects \d+ inputs, got 4"):
        readout.output_size(4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IntegralReadout(0, 2), "in_features must be > 0.*, got 0"),
        (lambda: IntegralReadout(3, 2, tau=0.0), "tau must be > 0, got 0.0"),
        (lambda: MembraneReadout(3, 2, time=INF), "time must be > 0 and finite, got inf"),
        (
            lambda: IntegralReadout(3, 2, trainable=["threshold"]),
            "trainable must be some of tau_mem, tau_syn, tau_rise, bias in a list",
        ),
        (lambda: MaximumReadout(3, 2, LIF(torch.ones(2).requires_grad_())), "no gradient of time constants"),
        (lambda: IntegralReadout(3, 2, weight_mean=1.0), "weight_mean and weight_std belong together"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_network_ends_with_its_readout():
    network = Network(LIFLinear(3, 5), IntegralReadout(5, 2))
    assert network.gives == "values"
    assert Network(LIFLinear(3, 5)).gives == "first spikes"
    assert network(torch.rand(4, 3)).shape == (4, 2)
    with pytest.raises(ValueError, match="LIFLinear expects spikes, and gets the values of a readout"):
        Network(IntegralReadout(3, 2), LIFLinear(2, 2))


def test_first_spike():
    layer, times = FirstSpike(), trains()
    assert torch.equal(layer(times), times[..., 0])
    assert torch.equal(layer(times[..., 0]), times[..., 0])
    assert torch.equal(layer(times.flip(-1)), times[..., 0])
    network = Network(FirstSpike(), LIFLinear(3, 2, dtype=torch.float64, generator=seeded()))
    assert network.takes_trains
    assert network.inputs == 3
    assert torch.equal(network(times), network[1](times[..., 0]))
    observed = torch.where(times[..., 0].isfinite(), 0.5, INF).requires_grad_()
    assert torch.equal(layer(times.requires_grad_(), observed), observed)


@pytest.mark.parametrize("layer", [FirstSpike(), IntegralReadout(2, 2), LIFSpikeTrains(2, 2, 60)], ids=type)
def test_trains_filled_up_with_0(layer):
    times = torch.tensor([[[1.0, 2.0, 0.0], [3.0, INF, INF]]])
    with pytest.warns(UserWarning, match=r"\(1, 2, 3\) have trains that are filled up with 0, .* with inf"):
        layer(times)
    layer(times.sort(dim=-1).values)  # no warning: a spike at 0 is one
    layer(times + 1)


def test_maxima_rise_at_the_start():
    times = torch.where(torch.rand(200, 60, 3, generator=seeded(1)) < 0.1, 5 * torch.rand(200, 60, 3), INF)
    readouts = [MaximumReadout(60, 20, generator=seeded(seed)) for seed in range(10)]
    values = torch.stack([readout(times.sort(dim=-1).values) for readout in readouts])
    assert float((values == 0).float().mean()) < 0.002  # 0.08 with weights around 0
    assert values.std(dim=-1).mean() > 0.1  # and differ
    assert readouts[0].weight.mean().item() == pytest.approx(60**-0.5, rel=0.2)
    assert abs(IntegralReadout(60, 20, generator=seeded()).weight.mean().item()) < 0.01


def test_weights_are_for_their_time_constants_whatever_the_threshold():
    readout, other = (MembraneReadout(3, 2, LIF(2.0, threshold=x), time=1.0) for x in (1.0, 3.0))
    other.load_state_dict(readout.state_dict())
    assert "threshold" not in str(readout)
    with pytest.raises(ValueError, match="weight was trained with tau_mem=2"):
        MembraneReadout(3, 2, LIF(3.0), time=1.0).load_state_dict(readout.state_dict())


def config(**changes):
    raw = {
        "data": {"kind": "xor"},
        "network": [{"kind": "lif", "out_features": 5}, {"kind": "integral", "out_features": 2}],
        "loss": {"kind": "readout_cross_entropy"},
        "training": {"epochs": 1, "batch_size": 10},
    }
    return raw | changes


def test_configs_have_readouts():
    load_config(config())
    with pytest.raises(ValueError, match=r"loss takes first spike times, and the network gives values of a readout"):
        load_config(config(loss={"kind": "cross_entropy"}))
    with pytest.raises(ValueError, match="the last integral layer has 3 neurons, the data has 2 classes"):
        load_config(config(network=[{"kind": "integral", "out_features": 3}]))
    with pytest.raises(ValueError, match="LIFLinear expects spikes, and gets the values of a readout"):
        load_config(config(network=[{"kind": "integral", "out_features": 3}, {"kind": "lif", "out_features": 2}]))
    with pytest.raises(ValueError, match=r"LIFLinear expects first spikes, and gets spike trains: put fs.FirstSpike"):
        load_config(config(data={"kind": "delayed_xor"}))
