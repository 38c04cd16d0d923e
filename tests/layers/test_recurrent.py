"""Recurrent layers against one long call of the operator, whose recurrent inputs are found by iteration."""

import math
import warnings

import pytest
import torch

from agreement import with_rest
from firstspike import LIF, DelayRule, IntegralReadout, LIFRecurrent, LIFSpikeTrains, Network, spike_trains
from firstspike.layers.ensembles import Ensemble
from firstspike.spiketime.cpu.rows import host as rows_host

INF = math.inf
SIZES = {"inputs": 4, "outputs": 5}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def trains(samples=3, spikes=3, seed=0, until=5.0):
    times = torch.rand(samples, 4, spikes, generator=seeded(seed), dtype=torch.float64) * until
    times[0, 1] = INF
    return times.sort(-1).values


def layer(seed=0, spikes=40, duration=12.0, **options):
    make = {"dtype": torch.float64, "generator": seeded(seed), "weight_mean": 0.6, "weight_std": 0.4}
    make |= {"recurrent_mean": 0.1, "recurrent_std": 0.5, "window": 0.75, "window_spikes": 20}
    neuron, make = with_rest(LIF(2.0), make | options)
    return LIFRecurrent(4, 5, spikes, duration, neuron, **make)


def by_iteration(lif, times, rounds=60):
    """Spikes of the layer as a fixed point: its own spikes, delayed, are inputs. Each round is right for longer."""
    weight = torch.cat([lif.weight, lif.recurrent_weight], dim=1)
    own = torch.full_like(lif.recurrent_weight, lif.window)
    if lif.recurrent_delay is not None:
        own = own + lif.recurrent_delays.delay
    delay = torch.cat([torch.zeros_like(lif.weight) if lif.delay is None else lif.delay, own], dim=1)
    options = {"until": lif.duration}
    most = lif.max_spikes
    found = torch.full((len(times), 5, most), INF, dtype=times.dtype)
    inputs = torch.nn.functional.pad(times, (0, most - times.shape[-1]), value=INF)
    for _ in range(rounds):
        arriving = torch.cat([inputs, found], dim=-2)
        again = spike_trains(arriving, weight, lif.neuron, max_spikes=most, delay=delay, **options)
        if torch.equal(again.detach(), found.detach()):
            return again
        found = again
    raise AssertionError("no fixed point")


CASES = {
    "plain": {},
    "refractory": {"refractory": 0.3, "reset": -0.2},
    "input delays": {"delay": DelayRule(scale=2.0)},
    "recurrent delays": {"recurrent_delay": DelayRule(scale=2.0)},
    "both": {"delay": DelayRule(scale=2.0), "recurrent_delay": DelayRule(scale=0.5, shift=0.2)},
    "long window": {"window": 2.0, "window_spikes": 40},
    "window does not divide duration": {"window": 0.7},
    "refractory beyond the window": {"refractory": 1.9},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_windows_give_the_spikes_of_one_call(options):
    lif, times = layer(**options), trains()
    found, expected = lif(times), by_iteration(lif, times)
    assert found.shape == (3, 5, 40)
    assert torch.equal(found.isfinite(), expected.isfinite())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    alone = LIFSpikeTrains(4, 5, 40, LIF(2.0), dtype=torch.float64, overflow="drop")
    with torch.no_grad():
        alone.weight.copy_(lif.weight)
    assert int(found.isfinite().sum()) != int(alone(times).isfinite().sum())  # the recurrence matters


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_gradients_are_those_of_one_call(options):
    lif, times = layer(**options), trains().requires_grad_()
    parameters = [times, *lif.parameters()]
    total = [torch.where(x.isfinite(), x, 0.0).square().sum() for x in (lif(times), by_iteration(lif, times))]
    found, expected = (torch.autograd.grad(x, parameters, allow_unused=True) for x in total)
    assert all(x is not None and bool(x.any()) for x in found)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("refractory", [0.0, 0.4])
@pytest.mark.parametrize("neurons", [5, 66])
def test_all_windows_in_one_call_equal_window_after_window(neurons, refractory):
    """Kernels for all windows against the plain reference: more than a tile of neurons, bounded gradients, pieces."""
    times = trains(samples=5).requires_grad_()
    results = []
    for backend in ("cpu", "reference"):
        lif = LIFRecurrent(
            4, neurons, 60, 6.0, LIF(1.37, refractory=refractory, reset=-0.1), window=0.5, window_spikes=12,
            recurrent_std=0.6 / neurons**0.5, weight_mean=0.6, weight_std=0.4, max_weight_grad=0.5, backend=backend,
            dtype=torch.float64, generator=seeded(3),
        )  # fmt: skip
        one, state = lif.proceed(times, 2.2)
        two, state = lif.proceed(times, 2.5, state)
        three, state = lif.proceed(times, 6.0, state)
        found = torch.cat([one, two, three], dim=-1).sort(-1).values[..., :60]
        total = torch.where(found.isfinite(), found, 0.0).sin().sum() + state.neurons.voltage.sum()
        total = total + state.neurons.current.sum() + state.neurons.refractory.square().sum()
        results.append((found, *state.neurons[:3], *torch.autograd.grad(total, [times, *lif.parameters()])))
    assert results[0][0].isfinite().sum(-1).double().mean() > 2
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"recurrent_delay": DelayRule(scale=2.0), "refractory": 0.4},
        {"delay": DelayRule(scale=1.5), "trainable": ("tau_mem",), "max_weight_grad": 0.5},
        {"trainable": ("tau_mem", "tau_syn", "threshold"), "per_neuron": True, "refractory": 0.4},
        {"recurrent_delay": DelayRule(scale=0.7), "trainable": ("tau_syn",), "per_neuron": True},
    ],
    ids=["recurrent delays", "input delays", "constants", "both"],
)
def test_kernels_of_delays_and_constants_equal_the_reference(options):
    """More neurons than lanes, in pieces, with gradients through the states."""
    times, results = trains(samples=3).requires_grad_(), []
    neuron, given = with_rest(LIF(1.37, reset=-0.1), options)
    for backend in ("cpu", "reference"):
        lif = LIFRecurrent(
            4, 37, 60, 4.0, neuron, window=0.5, window_spikes=12, recurrent_std=0.1, weight_mean=1.0,
            weight_std=0.4, backend=backend, dtype=torch.float64, generator=seeded(3), **given,
        )  # fmt: skip
        one, state = lif.proceed(times, 1.7)
        two, state = lif.proceed(times, 4.0, state)
        found = torch.cat([one, two], dim=-1).sort(-1).values[..., :60]
        total = torch.where(found.isfinite(), found, 0.0).sin().sum() + state.neurons.voltage.sum()
        total = total + state.neurons.current.sum() + state.neurons.refractory.square().sum()
        results.append((found, *state.neurons[:3], *torch.autograd.grad(total, [times, *lif.parameters()])))
    assert results[0][0].isfinite().sum(-1).double().mean() > 2
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_threads_do_not_matter(monkeypatch):
    monkeypatch.setattr(rows_host, "is_small", lambda work: False)
    lif = layer(refractory=0.2, dtype=torch.float32)
    times = trains(samples=33).float()
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(rows_host, "threads_for", lambda work, threads=threads: threads)
        found = lif(times)
        total = torch.where(found.isfinite(), found, 0.0).sum()
        results.append((found, *torch.autograd.grad(total, tuple(lif.parameters()))))
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_many_spikes_need_room():
    """More spikes than ``max_spikes`` act on other neurons all the same, and more memory is found for them."""
    few, many = (layer(spikes=spikes, overflow="drop", weight_mean=1.5)(trains()) for spikes in (1, 40))
    assert int(many[..., 10].isfinite().sum()) > 0
    assert torch.equal(few, many[..., :1])


def test_gradcheck():
    lif, times = layer(duration=5.0), trains()

    def total(weight, recurrent):
        out = torch.func.functional_call(lif, {"weight": weight, "recurrent_weight": recurrent}, (times,))
        return torch.where(out.isfinite(), out, 0.0).sum()

    assert torch.autograd.gradcheck(total, (lif.weight, lif.recurrent_weight), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"recurrent_delay": DelayRule(scale=2.0)}], ids=["plain", "delays"])
def test_a_sequence_in_pieces(options):
    lif, times = layer(**options), trains()
    whole = lif(times)
    found, state = [], None
    for until in (3.0, 6.75, 12.0):
        piece, state = lif.proceed(times, until, state)
        found.append(piece)
    pieces = torch.cat(found, dim=-1).sort(-1).values[..., :40]
    torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-10)
    assert state.neurons.time == 12.0
    total = [torch.where(x.isfinite(), x, 0.0).sum() for x in (pieces, whole)]
    one, other = (torch.autograd.grad(x, lif.recurrent_weight)[0] for x in total)
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="until must be after 12, the time of the state"):
        lif.proceed(times, 12.0, state)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_order_of_a_train_does_not_matter(backend):
    lif, times = layer(backend=backend), trains()
    torch.testing.assert_close(lif(times.flip(-1)), lif(times), rtol=0, atol=0)


def test_a_detached_state_ends_gradients():
    lif, times = layer(), trains().requires_grad_()
    _, state = lif.proceed(times, 6.0)
    later, _ = lif.proceed(trains() + 6.0, 12.0, state.detach())
    torch.where(later.isfinite(), later, 0.0).sum().backward()
    assert times.grad is None


def test_observed_spikes():
    lif, times = layer(), trains()
    seen = lif(times).detach()
    again = lif(times, seen)
    assert torch.equal(again.detach(), seen)
    total = [torch.where(x.isfinite(), x, 0.0).sum() for x in (again, lif(times))]
    for one, other in zip(*(torch.autograd.grad(x, tuple(lif.parameters())) for x in total), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_room_for_spikes():
    with pytest.raises(ValueError, match=r"spike more than max_spikes=2 times.* raise max_spikes or window_spikes"):
        layer(spikes=2)(trains())
    kept = layer(spikes=2, overflow="drop")(trains())
    assert torch.equal(kept, layer()(trains())[..., :2])
    with pytest.warns(UserWarning, match="Their later spikes are dropped"):
        layer(spikes=2, overflow="warn")(trains())
    with pytest.raises(ValueError, match="window_spikes=1 times in a window"):
        layer(window_spikes=1)(trains())
    results = []
    for backend in ("cpu", "reference"):
        lif, times = layer(window_spikes=1, overflow="drop", backend=backend, reset=-0.2), trains().requires_grad_()
        found, state = lif.proceed(times, 6.4)
        total = torch.where(found.isfinite(), found, 0.0).square().sum() + state.neurons.voltage.sin().sum()
        results.append((found, *torch.autograd.grad(total, [times, *lif.parameters()])))
    assert bool((results[0][0].isfinite().sum(-1) > 1).any())
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert layer(spikes=400)(trains()).shape == (3, 5, 400)


def test_in_networks_and_ensembles():
    members = [
        Network(layer(seed), IntegralReadout(5, 2, dtype=torch.float64, generator=seeded(seed))) for seed in range(3)
    ]
    expected = torch.stack([member(trains()) for member in members])
    torch.testing.assert_close(Ensemble(members)(trains()), expected)
    other = layer(seed=9)
    other.load_state_dict(members[0][0].state_dict())
    assert torch.equal(other(trains()), members[0][0](trains()))
    with pytest.raises(ValueError, match="spike more than max_spikes=2 times"):
        Ensemble([Network(layer(seed, spikes=2)) for seed in range(2)])(trains())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duration": 0.0}, "duration must be > 0 and finite, got 0.0"),
        ({"window": INF}, "window must be > 0 and finite, got inf"),
        ({"window_spikes": 0}, "window_spikes must be > 0 and <= 1000000, got 0"),
        ({"recurrent_std": -1.0}, "recurrent_std must be >= 0 and finite, got -1.0"),
        ({"recurrent_delay": DelayRule("softplus")}, "recurrent_delay must be bounded and without jitter"),
        ({"recurrent_delay": DelayRule(jitter=0.1)}, "recurrent_delay must be bounded and without jitter"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        layer(**options)


def test_a_number_in_place_of_the_neuron():
    with pytest.raises(ValueError, match=r"neuron must be a LIF, such as LIF\(tau_mem=2\.0\), got 2\.0"):
        LIFRecurrent(4, 5, 10, 12.0, 2.0)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_no_samples_and_no_spikes(backend):
    for shape in ((0, 4), (0, 4, 2), (2, 4, 0)):
        net = layer(backend=backend)
        times = torch.zeros(shape, dtype=net.weight.dtype, requires_grad=True)
        found = net(times)
        assert found.shape == (shape[0], net.out_features, net.max_spikes)
        assert bool(found.isinf().all())
        torch.where(found.isinf(), 0.0, found).sum().backward()
        assert times.grad.shape == shape
        assert not net.weight.grad.any()
        assert not net.recurrent_weight.grad.any()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_nan_is_refused_in_any_column(backend):
    net = layer(backend=backend)
    times = torch.full((1, net.in_features, 2), INF, dtype=net.weight.dtype)
    times[0, 0, 1] = math.nan
    with pytest.raises(ValueError, match="times must be real numbers or inf"):
        net(times)
