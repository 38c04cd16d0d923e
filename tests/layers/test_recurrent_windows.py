"""Recurrent layers with delays or time constants of their own: all windows in one call of the kernels."""

import math

import pytest
import torch

from firstspike import LIF, DelayRule, SpikingRecurrent
from firstspike.neurons import AdaptiveLIF
from firstspike.spiketime.cpu.lanes import sizes as lanes
from firstspike.spiketime.cpu.windows import host

INF = math.inf
LEARNT = {"trainable": ("tau_mem", "tau_syn", "threshold", "reset"), "per_neuron": True}
RESTS = {"trainable": ("refractory",), "per_neuron": True}
BOTH = {"delay": DelayRule(scale=1.5), "recurrent_delay": DelayRule(scale=0.7)}
FEW = {"window_spikes": 1, "overflow": "drop"}
CONSTANTS = {
    "own constants": LEARNT,
    "one order, a refractory time that learns": {"refractory": 0.3, "trainable": ("refractory",)},
    "delays, refractory times that learn": BOTH | RESTS | {"refractory": 0.3},
    "own constants, refractory, too many spikes": LEARNT | FEW | {"refractory": 0.3},
    "shared constants, too many spikes": {"trainable": ("tau_mem", "tau_syn"), "max_spikes": 3} | FEW,
}
DELAYS = {
    "recurrent delays": {"recurrent_delay": DelayRule(scale=2.0)},
    "input delays, bounded": {"delay": DelayRule(scale=1.5), "trainable": ("tau_mem",), "max_weight_grad": 0.5},
    "delays, refractory, bounded": BOTH | {"refractory": 0.7, "max_weight_grad": 0.3},
    "delays and own constants": BOTH | LEARNT,
    "delays, too many spikes": BOTH | FEW | {"refractory": 0.1},
}
PARTS = {"receptor": [0, 1, 0, 0], "recurrent_receptor": [j % 3 % 2 for j in range(37)]}
TWO, SIGNED = LIF(1.37, (1.0, 0.6), refractory=0.1, reset=-0.1), {"receptor": "sign"}
FREE = LIF(1.37, reset=None, refractory=0.3)
FALLING = AdaptiveLIF(1.37, refractory=0.2, threshold_adaptation=[(2.0, 0.3)])
SLOWED = AdaptiveLIF(1.37, adaptation=[(3.0, 0.2), (1.0, 0.1)])
LINEAR = {
    "receptors": {"neuron": TWO} | PARTS,
    "signs, too many spikes": {"neuron": TWO} | SIGNED | FEW,
    "receptors, delays": {"neuron": TWO} | PARTS | BOTH,
    "signs, delays, own constants, bounded": {"neuron": TWO, "max_weight_grad": 0.3} | SIGNED | BOTH | LEARNT,
    "receptors, own constants, bounded": {"neuron": TWO, "max_weight_grad": 0.3} | PARTS | LEARNT,
    "bias": {"neuron": LIF(1.37, bias=0.9), "trainable": ("bias", "tau_mem")},
    "bias, delays": {"neuron": LIF(1.37, bias=1.1), "trainable": ("bias",)} | BOTH,
    "rise": {"neuron": LIF(1.37, tau_rise=0.3), "trainable": ("tau_rise",)},
    "rise, delays, bounded": {"neuron": LIF(1.37, tau_rise=0.3), "max_weight_grad": 0.3} | BOTH,
    "threshold that adapts": {"neuron": FALLING, "trainable": ("threshold_jump", "refractory")},
    "threshold that adapts, delays, too many spikes": {"neuron": FALLING} | BOTH | FEW,
    "currents that adapt": {"neuron": SLOWED, "max_weight_grad": 0.5},
    "currents that adapt, delays": {"neuron": SLOWED, "trainable": ("tau_syn", "adaptation_tau")} | BOTH,
    "no reset": {"neuron": FREE} | RESTS,
    "no reset, delays, too many spikes": {"neuron": FREE} | BOTH | FEW,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def layer(neurons, max_spikes=60, refractory=0.0, neuron=None, **options):
    """A layer whose neurons differ in what they have of their own."""
    made = SpikingRecurrent(
        4, neurons, max_spikes, 4.0, neuron or LIF(1.37, refractory=refractory, reset=-0.1), window=0.5,
        recurrent_std=0.6 / neurons**0.5, weight_mean=1.0, weight_std=0.4, dtype=torch.float64, generator=seeded(3),
        **{"window_spikes": 12} | options,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.shape == (neurons,):
                parameter.add_(0.05 * torch.rand(neurons, generator=seeded(4), dtype=torch.float64))
    return made


def inputs(samples=5):
    times = torch.rand(samples, 4, 3, generator=seeded(), dtype=torch.float64) * 4.0
    times[0, 1] = INF
    return times.sort(-1).values.requires_grad_()


def gradients(net, times, trains, total=0.0):
    total = total + torch.where(trains.isfinite(), trains, 0.0).sin().sum()
    return torch.autograd.grad(total, [times, *net.parameters()])


def whole(net, times):
    trains = net(times)
    found = trains, *gradients(net, times, trains)
    if net.overflow == "drop":  # with spikes that were dropped, the rest could not be observed
        return found
    return *found, *gradients(net, times, net(times, trains.detach()))


def in_pieces(net, times):
    one, state = net.proceed(times, 1.7)
    two, state = net.proceed(times, 4.0, state)
    total = state.neurons.voltage.sum() + state.neurons.current.sum() + state.neurons.refractory.square().sum()
    trains = torch.cat([one, two], dim=-1).sort(-1).values[..., :60]
    return trains, *state.neurons[:3], *gradients(net, times, trains, total)


@pytest.mark.parametrize("call", [whole, in_pieces])
@pytest.mark.parametrize(
    "options",
    [
        *DELAYS.values(),
        *(pytest.param(x, marks=pytest.mark.slow) for x in (CONSTANTS | LINEAR).values()),
    ],  # by other kernels
    ids=DELAYS | CONSTANTS | LINEAR,
)
def test_one_call_equals_window_after_window(options, call, monkeypatch):
    """More neurons than lanes. That each window is right, others test."""
    net, times = layer(37, **options), inputs()
    assert net._in_one_call()
    found = call(net, times)
    monkeypatch.setattr(SpikingRecurrent, "_in_one_call", lambda self: False)
    expected = call(net, times)
    assert found[0].isfinite().sum(-1).double().mean() > 1.5
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    "options",
    [BOTH, *(pytest.param(x, marks=pytest.mark.slow) for x in (LEARNT, {"neuron": TWO} | PARTS))],
    ids=["delays", "constants", "receptors"],
)
def test_room_and_threads_do_not_matter(options, monkeypatch):
    """With too little room at first, more is found; many spikes are on their way at the same time."""
    net, times, results = layer(37, 2, window_spikes=40, overflow="drop", **options), inputs(33), []
    with torch.no_grad():
        net.weight.mul_(3.0)
    for room, threads in ((1, 1), (8, 3)):
        monkeypatch.setattr(host, "ROOM", room)
        monkeypatch.setattr(lanes, "threads_for", lambda work, threads=threads: threads)
        lanes.sizes_of.cache_clear()
        trains = net(times)
        results.append((trains, *gradients(net, times, trains)))
    assert net.proceed(times, 4.0)[0].isfinite().sum(-1).max() > 8
    lanes.sizes_of.cache_clear()
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
