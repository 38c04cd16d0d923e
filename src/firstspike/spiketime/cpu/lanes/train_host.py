"""Spike trains of neurons with synaptic delays or time constants of their own, and gradients by time constants."""

import math

import torch
from torch import Tensor

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Held, Needs, Result
from firstspike.spiketime.cpu.lanes.host import as_tensors, name_of
from firstspike.spiketime.cpu.lanes.kernels import SAMPLES
from firstspike.spiketime.cpu.lanes.rates import LANES, N_RATES
from firstspike.spiketime.cpu.lanes.train_kernels import (
    TRAIN_BACKWARD,
    TRAIN_FORWARD,
    train_backward_kernel,
    train_forward_kernel,
)
from firstspike.spiketime.cpu.runtime.parallel import Call, threads_for
from firstspike.spiketime.cpu.saved import PAD

PARTS, _CHUNKS = 8, 4  # into which the sums over neurons and over samples are cut
_COST = 8  # of a synapse, in units of one of the usual kernels of first spikes
_SORTED = ("order", "source", "arrival", "count")
_GRADIENTS = ("by_times", "by_weight", "by_threshold", "by_delay", "by_mem", "by_syn")
_STATES = 3


def forward_per_neuron(given: Arguments, holds: bool) -> Result:
    """Spike trains; ``holds`` says whether there are refractory times.

    What is saved are the slopes of the membrane at the spikes and at releases, and without delays the order of arrival,
    the inputs in that order, their sorted times, and how many there are.
    """
    (ensemble, batch, inputs, copies), outputs = given.times.shape, given.weight.shape[1]
    dtype, delayed, most = given.times.dtype, given.delay is not None, given.max_spikes

    def memory(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty((ensemble, batch, *shape), dtype=dtype, device="cpu")

    saved = [memory(outputs, most), memory(outputs, most + 1 if holds else 0)]
    largest = int((given.times < math.inf).sum((-1, -2)).max())
    padded = max(1, largest) + PAD
    if not delayed:
        saved += [memory(padded, dtype=torch.int32) for _ in range(2)] + [memory(padded)]
        saved += [memory(dtype=torch.int32)]
    trains = torch.full((ensemble, batch, outputs, most), math.inf, dtype=dtype, device="cpu")
    if given.observed is not None:
        trains.copy_(given.observed)
    sizes, arrays = _common(given, saved, largest, given.observed is not None)
    overflows = memory(outputs, dtype=torch.uint8)
    arrays |= {"trains": trains, "overflows": overflows}
    name, groups, blocks = name_of(dtype), sizes["groups"], -(-batch // SAMPLES)
    call = Call(
        train_forward_kernel(name, delayed),
        (ensemble * (groups if delayed else groups + blocks), ensemble * blocks * groups),
        TRAIN_FORWARD.plan(name, sizes, arrays),
        threads_for(_COST * batch * outputs * inputs * copies),
    )
    call(*arrays.values())
    held = arrays["held"]
    assert isinstance(held, Tensor)
    state = None if given.until == math.inf else Held(held[:, :, 3], held[:, :, 4], held[:, :, 5])
    return Result(trains, tuple(saved), overflows.bool(), state)


def backward_per_neuron(
    grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """All gradients, from what ``forward_per_neuron`` saved."""
    (ensemble, batch, inputs, copies), outputs = given.times.shape, given.weight.shape[1]
    dtype, delayed = given.times.dtype, given.delay is not None
    everything, taus = any(needs[:4]) or needs.state, needs.tau_mem or needs.tau_syn
    sizes, arrays = _common(given, list(result.saved), int((given.times < math.inf).sum((-1, -2)).max()), False)
    groups, blocks = sizes["groups"], -(-batch // SAMPLES)
    parts, chunks = min(PARTS, groups), min(_CHUNKS, batch)
    sizes |= {
        "parts": parts, "chunks": chunks, "lanes": groups * LANES, "n_totals": 3 * LANES, "everything": everything,
        "by_taus": taus, "asks_end": grads.state is not None, "three": _STATES,
    }  # fmt: skip
    found = {
        name: torch.empty(x.shape, dtype=dtype, device="cpu") if need else None
        for name, x, need in zip(
            _GRADIENTS, (*given[:4], given.threshold, given.threshold), (everything,) * 4 + (True,) * 2, strict=True
        )
        if x is not None
    }
    found["by_threshold"] = torch.empty(given.threshold.shape, dtype=dtype, device="cpu")
    by_start = (
        None if given.state is None else torch.empty((ensemble, batch, _STATES, outputs), dtype=dtype, device="cpu")
    )
    arrays |= {
        "trains": result.spikes.contiguous(), "overflows": result.overflows.to(torch.uint8),
        "grad": grads.spikes.contiguous(),
        "bound": torch.tensor([max_weight_grad or math.inf, 0.0], dtype=dtype, device="cpu"),
        "of_end": None if grads.state is None else torch.stack(tuple(grads.state), 2).contiguous(),
        "by_start": by_start, "by_delay": None, **found,
    }  # fmt: skip
    if not everything:
        arrays |= {"times_parts": None}
    if not everything or not delayed:
        arrays |= {"delay_parts": None}
    name = name_of(dtype)
    call = Call(
        train_backward_kernel(name, delayed),
        (ensemble * groups, ensemble * parts * chunks, ensemble * (groups + blocks if everything else groups)),
        TRAIN_BACKWARD.plan(name, sizes, arrays),
        threads_for(_COST * batch * outputs * inputs * copies),
    )
    call(*arrays.values())
    state = None if by_start is None or not needs.state else Held(*by_start.unbind(2))
    tensors = (found.get(name) if need else None for name, need in zip(_GRADIENTS, needs, strict=False))
    times, weight, threshold, delay, mem, syn = tensors
    return Gradients(times, weight, threshold, delay, mem, syn, state)


def _common(
    given: Arguments, saved: list[Tensor], largest: int, observes: bool
) -> tuple[dict[str, int], dict[str, Tensor | None]]:
    """Sizes and arrays of both kernels. States at the start are copied, and have room for those at the end."""
    (ensemble, batch, inputs, copies), outputs = given.times.shape, given.weight.shape[1]
    dtype, groups, delayed = given.times.dtype, -(-outputs // LANES), given.delay is not None
    if largest >= 1 << 24:
        raise ValueError(f"a sample has {largest} input spikes; with delays the kernels count up to {(1 << 24) - 1}")
    mem, syn = as_tensors(given.constants, dtype)
    held = torch.zeros((ensemble, batch, 2 * _STATES, outputs), dtype=dtype, device="cpu")
    for number, x in enumerate(given.state or ()):
        held[:, :, number] = x
    saved = [x.contiguous() for x in saved]
    padded = max(1, largest) + PAD if delayed else saved[4].shape[-1]
    sizes = {
        "ensemble": ensemble, "batch": batch, "inputs": inputs, "copies": copies, "events": inputs * copies,
        "outputs": outputs, "most": given.max_spikes, "releases": saved[1].shape[-1], "states": 2 * _STATES, "two": 2,
        "groups": groups, "group_inputs": inputs * LANES, "padded": padded, "n_rates": N_RATES,
        "taus": mem.numel(), "largest": largest, "observes": observes, "holds": saved[1].shape[-1] > 0,
    }  # fmt: skip
    arrays: dict[str, Tensor | None] = {
        "mem": mem, "syn": syn, "held": held,
        "bounds": torch.tensor([given.start, given.until], dtype=dtype, device="cpu"),
        "slopes": saved[0], "again": saved[1], "delay": None, **dict.fromkeys(_SORTED),
        **dict(zip(_SORTED, saved[2:], strict=False)),
    }  # fmt: skip
    for name in ("times", "weight", "threshold", "reset", "refractory"):
        arrays[name] = getattr(given, name).contiguous()
    if given.delay is None:
        return sizes, arrays | {"delays": None}
    return sizes, arrays | {"delay": given.delay.contiguous()}
