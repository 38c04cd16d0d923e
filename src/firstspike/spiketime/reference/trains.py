"""Spike trains in plain PyTorch: any device, float32 and float64.

Forward. All neurons go from event to event, each to its own next one: an input, the end of its refractory time, or a
spike. In between the membrane is that of ``response``, and it reaches the threshold as in the operator of first spikes.

Backward. Given the trains, spike k is the first spike of a neuron whose membrane starts at ``reset`` when the
refractory time of the spike before ends, at r:

    V(T_k) = reset exp(-(T_k - r)/tau_mem) + sum_i w_i c_i,      c_i = kappa(T_k - t_i)                         t_i >= r
                                                                 c_i = kappa(T_k - r) exp(-(r - t_i)/tau_syn)   t_i < r

With ``P_k = dL/dV`` just before spike k, ``g_k = dL/dT_k`` and the slopes of the membrane before a spike and where it
is released, all gradients follow from the derivatives of V(T_k) at fixed spike times:

    P_k = (v+ P_{k+1} exp(-(T_{k+1} - T_k - refractory)/tau_mem) - g_k) / v-
    v- = I(T_k)/tau_syn - threshold/tau_mem,      v+ = I(T_k + refractory)/tau_syn - reset/tau_mem
    dL/dw_i = sum_k P_k c_i,      dL/dt_i = sum_k P_k w_i dc_i/dt_i,      dL/dthreshold = -sum_k P_k

This is the adjoint of Wunderlich and Pehle 2021 with the parts between spikes solved. The state at the start is an
input of its own, and a loss by the state at the end a spike that no threshold makes.

Source: Wunderlich and Pehle 2021. Memory is bounded; time is O(batch x outputs x (events + spikes)) forward, and the
number of spikes times the number of events backward.

Shapes: E ensemble, B batch, I inputs, K times of each, N = I K events, O outputs, S spikes; P (sample, neuron) pairs.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from firstspike.spiketime.contract import Arguments, Held, Result
from firstspike.spiketime.reference.response import Tau, leakless, membrane, peak
from firstspike.spiketime.reference.solutions import time_to_threshold
from firstspike.spiketime.reference.train_gradient import state_after
from firstspike.spiketime.units import unit_of_weights

_MEMORY = 1 << 28  # bytes
_COPIES = 24  # tensors of the size of a part that are alive at the same time, at most


def forward(given: Arguments) -> Result:
    """Spike trains. See ``backend`` for the contract."""
    ensemble, batch, *_ = given.times.shape
    outputs = given.weight.shape[1]
    shape = (ensemble, batch, outputs)
    if given.observed is not None:
        none = torch.zeros(shape, dtype=torch.bool, device=given.times.device)
        return Result(given.observed, (), none, state_after(given.observed, given) if given.until < math.inf else None)
    trains = given.times.new_full((*shape, given.max_spikes), math.inf)
    overflows = torch.zeros(shape, dtype=torch.bool, device=trains.device)
    held = Held(*(trains.new_zeros(shape) for _ in range(3)))
    for part in _parts(given):
        trains[part], overflows[part], *state = _scan(_arguments(given, *part))
        for whole, x in zip(held, state, strict=True):
            whole[part] = x
    return Result(trains, (), overflows, held if given.until < math.inf else None)


def _parts(given: Arguments) -> Iterator[tuple[slice, slice, slice]]:
    """Ranges of networks, samples and outputs that fit into the memory."""
    ensemble, batch, inputs, copies = given.times.shape
    outputs = given.weight.shape[1]
    sorts = 3 * inputs * copies  # numbers of one pair, or of one sample
    sample = _COPIES * outputs + (sorts * outputs if given.delay is not None else sorts)
    room = _MEMORY // given.times.element_size()
    samples = max(1, room // max(1, ensemble * sample))
    neurons = max(1, room // max(1, ensemble * (sorts + _COPIES)))
    for b in range(0, batch, samples):
        for o in range(0, outputs, neurons):
            yield slice(None), slice(b, b + samples), slice(o, o + neurons)


def _arguments(given: Arguments, networks: slice, samples: slice, outputs: slice) -> Arguments:
    def of_neurons(x: Tensor) -> Tensor:
        return x[networks, outputs]

    mem, syn = (of_neurons(x) if isinstance(x, Tensor) else x for x in given.constants)
    return given._replace(
        times=given.times[networks, samples],
        weight=of_neurons(given.weight),
        threshold=of_neurons(given.threshold),
        delay=None if given.delay is None else of_neurons(given.delay),
        constants=given.constants._replace(tau_mem=mem, tau_syn=syn),
        refractory=of_neurons(given.refractory),
        reset=of_neurons(given.reset),
        state=given.state and Held(*(x[networks, samples, outputs] for x in given.state)),
    )


class _Neurons(NamedTuple):
    """Constants of the neurons, with weights and voltages in a unit of each neuron's own, ``(E, 1, O)``."""

    unit: Tensor
    weight: Float[Tensor, "E 1 O I"]
    threshold: Tensor
    reset: Tensor
    refractory: Tensor
    tau_mem: Tau
    tau_syn: Tau


def _neurons(given: Arguments) -> _Neurons:
    unit = unit_of_weights(given.weight, given.threshold)
    weight = given.weight / unit.unsqueeze(-1)
    each = (x.unsqueeze(1) for x in (unit, weight, given.threshold / unit, given.reset / unit, given.refractory))
    taus = (tau.unsqueeze(1) if isinstance(tau, Tensor) else tau for tau in given.constants)
    return _Neurons(*each, *taus)


def _arrivals(given: Arguments) -> Float[Tensor, "E B o N"]:
    """When the inputs arrive, ``inf`` for those that do not within the window; o is 1 without delays."""
    arrival = given.times.unsqueeze(2)
    if given.delay is not None:
        arrival = arrival + given.delay[:, None, ..., None]
    arrival = arrival.flatten(3)
    if given.start == -math.inf and given.until == math.inf:
        return arrival
    return torch.where((arrival >= given.start) & (arrival < given.until), arrival, math.inf)


def _scan(given: Arguments) -> tuple[Tensor, ...]:
    """Trains, which neurons overflow, and the state at the end."""
    neurons, until, most = _neurons(given), given.until, given.max_spikes
    tau_mem, tau_syn = neurons.tau_mem, neurons.tau_syn
    arrival, order = _arrivals(given).sort(dim=-1, stable=True)
    one = (*order.shape[:-1], 1)  # an input that never arrives ends each sample
    arrival = torch.cat([arrival, arrival.new_full(one, math.inf)], dim=-1)
    source = torch.cat([order // max(1, given.times.shape[-1]), order.new_zeros(one)], dim=-1)
    shape = (*given.times.shape[:2], given.weight.shape[1])
    arrival, source = (x.expand(*shape, x.shape[-1]) for x in (arrival, source))
    weight = neurons.weight.expand(*shape, -1) if source.shape[-1] > 1 else neurons.weight.new_zeros(*shape, 1)
    threshold, reset, refractory = (x.expand(shape) for x in (neurons.threshold, neurons.reset, neurons.refractory))
    taus_of = [tau.expand(shape) if isinstance(tau, Tensor) else tau for tau in (tau_mem, tau_syn)]

    trains = arrival.new_full((*shape, most), math.inf)
    overflows = torch.zeros(shape, dtype=torch.bool, device=trains.device)
    count, place = (torch.zeros(shape, dtype=torch.int64, device=trains.device) for _ in range(2))
    release = trains.new_full(shape, -math.inf)  # end of the refractory time
    if given.state is None:
        time = arrival[..., 0]
        done = time.isinf()
        time, voltage, current = torch.where(done, 0.0, time), *(torch.zeros_like(release) for _ in range(2))
    else:
        voltage, current = (x / neurons.unit for x in given.state[:2])
        left = given.state.refractory
        time, done = torch.full_like(release, given.start), torch.zeros_like(overflows)
        release = torch.where(left > 0, time + left, release)
        voltage = torch.where(left > 0, reset, voltage)

    while not bool(done.all()):
        following = _pick(arrival, place).clamp(max=until)
        held = time < release
        end = torch.where(held, torch.minimum(following, release), following)
        length = end - time
        finite = torch.where(length.isinf(), 0.0, length)
        after = membrane(finite, voltage, current, tau_mem, tau_syn)
        crosses = _crosses(voltage, current, after, length, threshold, tau_mem, tau_syn) & ~held & ~done
        moves = ~crosses & ~done
        if bool(crosses.any()):
            at = crosses.nonzero(as_tuple=True)
            states = (x[at] for x in (voltage, current, threshold, length))
            wait = _wait(*states, *(tau[at] if isinstance(tau, Tensor) else tau for tau in taus_of))
            # too soon for the floats: later than the inputs that cause it, and than the spike before
            spike = torch.maximum(time[at] + wait, torch.nextafter(time[at], end[at]))
            spike = torch.minimum(spike, end[at])
            full = count[at] == most
            overflows[at] = full
            places = (*(x[~full] for x in at), count[at][~full])
            trains[places] = spike[~full]
            count[at] += 1
            fast = tau_syn if not isinstance(tau_syn, Tensor) else taus_of[1][at]  # type: ignore[index]
            current[at] = current[at] * torch.exp((time[at] - spike) / fast)
            voltage[at], time[at] = reset[at], spike
            release[at] = torch.where(full, math.inf, spike + refractory[at])
        arrives = moves & (end == following) & (following < until)
        voltage = torch.where(moves & ~held, after, voltage)
        current = torch.where(moves, current * torch.exp(-finite / tau_syn), current)
        current = torch.where(arrives, current + _pick(weight, _pick(source, place)), current)
        place = place + arrives
        done = done | (moves & (end >= until) & ~arrives)
        time = torch.where(moves & ~done, end, time)

    left = torch.where(overflows, 0.0, (release - until).clamp(min=0)) if until < math.inf else torch.zeros_like(time)
    return trains, overflows, voltage * neurons.unit, current * neurons.unit, left


def _pick(x: Float[Tensor, "E B O N"], index: Int64[Tensor, "E B O"]) -> Float[Tensor, "E B O"]:
    return x.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def _crosses(
    voltage: Tensor, current: Tensor, after: Tensor, length: Tensor, threshold: Tensor, tau_mem: Tau, tau_syn: Tau
) -> Tensor:
    """Whether the membrane reaches the threshold in an interval at whose end, if there is one, it is ``after``."""
    if leakless(tau_mem):  # V rises towards V + I and never gets there, even if rounded so
        after = torch.where(length.isinf(), voltage + current, after)
        return ((after >= threshold) & (voltage + current > threshold)) | (voltage >= threshold)
    after = torch.where(length.isinf(), 0.0, after)
    summit, height = peak(voltage, current, tau_mem, tau_syn)
    rises = current / tau_syn > voltage / tau_mem
    peaks = rises & (summit <= length) & (height >= threshold)
    return (after >= threshold) | peaks | (voltage >= threshold)


def _wait(
    voltage: Tensor, current: Tensor, threshold: Tensor, length: Tensor, tau_mem: Tau, tau_syn: Tau
) -> Float[Tensor, " pairs"]:
    """Time to the crossing, at most ``length``."""
    wait = time_to_threshold(voltage, current, threshold, length, tau_mem, tau_syn)
    # a membrane that does not rise can only be rounded up to the threshold, at the interval's end
    wait = torch.where(current / tau_syn > voltage / tau_mem, wait.clamp(min=0), length)
    return torch.where(voltage >= threshold, 0.0, torch.minimum(wait, length))
