"""Host side of neurons with synaptic delays or time constants of their own, and of gradients by time constants."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from firstspike.spiketime.contract import Arguments, Constants, Gradients, Needs, Result, Sizes
from firstspike.spiketime.cpu.lanes.kernels import BACKWARD, FORWARD, SAMPLES, backward_kernel, forward_kernel
from firstspike.spiketime.cpu.lanes.rates import LANES, N_RATES
from firstspike.spiketime.cpu.runtime.parallel import Call, threads_for
from firstspike.spiketime.cpu.saved import BOTH, SAVED, saved_for, saved_sizes, saved_within

_PARTS, _CHUNKS = 8, 4  # into which the sums over neurons and over samples are cut
_COST = 4  # of a synapse, in units of one of the usual kernels
_ALWAYS = "mem", "syn", "times", "weight", "threshold", "spikes"
_GRADIENTS = "by_times", "by_weight", "by_threshold", "by_delay", "by_mem", "by_syn"


def forward_per_neuron(given: Arguments, sizes: Sizes, spikes: Tensor) -> tuple[Tensor, ...]:
    """Fill ``spikes``.

    Returns:
        See ``saved``; with delays only dV/dt at the spikes in units of the threshold.
    """
    times, weight, threshold = (x.contiguous() for x in given[:3])
    mem, syn = as_tensors(given.constants, times.dtype)
    delayed = given.delay is not None
    if given.delay is None:
        saved: tuple[Tensor, ...] = saved_for(times, sizes[-1])
        arrays = saved
    else:
        slope = torch.empty_like(spikes)
        saved, arrays = (slope,), (slope, given.delay.contiguous())
    call = _forward_call(sizes, times.dtype, delayed, mem.numel(), threads_for(_COST * sizes[1] * weight.numel()))
    call(mem, syn, times, weight, threshold, spikes, *arrays)
    return saved


@lru_cache(maxsize=256)
def _forward_call(sizes: Sizes, dtype: torch.dtype, delayed: bool, taus: int, threads: int) -> Call:
    ensemble, batch, inputs, _ = sizes
    found = _numbers(sizes, delayed, taus)
    plan = FORWARD.plan(name_of(dtype), found, _arrays(delayed), _unused(delayed), _within(delayed, inputs))
    groups, blocks = found["groups"], -(-batch // SAMPLES)
    phases = ensemble * (groups if delayed else groups + blocks), ensemble * blocks * groups
    return Call(forward_kernel(name_of(dtype), delayed), phases, plan, threads)


def backward_per_neuron(
    grad: Tensor, result: Result, given: Arguments, sizes: Sizes, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """All gradients, also of neurons that share their time constants."""
    grad, spikes, times, weight, threshold = (x.contiguous() for x in (grad, result.spikes, *given[:3]))
    mem, syn = as_tensors(given.constants, times.dtype)
    everything, delayed, dtype = any(needs[:4]), given.delay is not None, times.dtype
    saved = tuple(x.contiguous() for x in result.saved)
    if given.delay is None:
        arrays: tuple[Tensor | None, ...] = saved or saved_for(times, 0)  # what is known of neurons is not asked for
    else:
        arrays = saved[0] if saved else None, given.delay.contiguous()
    bound = torch.tensor([max_weight_grad or math.inf], dtype=dtype, device="cpu")
    like = (times, weight, threshold, given.delay) if everything else (None, None, threshold, None)
    found = [None if x is None else times.new_empty(x.shape) for x in (*like, threshold, threshold)]
    call = _backward_call(
        sizes, dtype, delayed, mem.numel(), everything, needs.tau_mem or needs.tau_syn, not result.saved,
        threads_for(_COST * sizes[1] * weight.numel()),
    )  # fmt: skip
    call(mem, syn, times, weight, threshold, spikes, *arrays, grad, bound, *found)
    return Gradients(*(x if need else None for x, need in zip(found, needs, strict=False)))  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def _backward_call(
    sizes: Sizes, dtype: torch.dtype, delayed: bool, taus: int, everything: bool, by_taus: bool, observes: bool,
    threads: int,
) -> Call:  # fmt: skip
    ensemble, batch, inputs, _ = sizes
    found = _numbers(sizes, delayed, taus) | (saved_sizes(inputs, 0) if observes and not delayed else {})
    groups, blocks = found["groups"], -(-batch // SAMPLES)
    parts, chunks = min(_PARTS, groups), min(_CHUNKS, batch)
    found |= {
        "parts": parts, "chunks": chunks, "stride": -(-inputs // 16) * 16, "lanes": groups * LANES,
        "n_totals": 3 * LANES, "one": 1, "everything": everything, "by_taus": by_taus, "observes": observes,
    }  # fmt: skip
    unused = [*_unused(delayed), *(() if everything else ("weight_parts", "times_parts"))]
    if not everything or not delayed:
        unused += ["delay_parts"]
    given = *_arrays(delayed), "grad", "bound", *_GRADIENTS
    plan = BACKWARD.plan(name_of(dtype), found, given, unused, _within(delayed, inputs))
    phases = (
        ensemble * (groups if delayed or not observes else groups + blocks),
        ensemble * parts * chunks,
        ensemble * (groups + blocks if everything else groups),
    )
    return Call(backward_kernel(name_of(dtype), delayed), phases, plan, threads)


def _arrays(delayed: bool) -> tuple[str, ...]:
    """Arrays that both kernels are given."""
    return (*_ALWAYS, *(("slope", "delay") if delayed else BOTH))


def _unused(delayed: bool) -> tuple[str, ...]:
    """Arrays that neither uses."""
    return tuple(name for name in SAVED if name != "slope") if delayed else ("delay", "delays")


def _within(delayed: bool, inputs: int) -> dict[str, tuple[str, int]]:
    """Arrays that lie within given ones."""
    return {} if delayed else saved_within(inputs)


def _numbers(sizes: Sizes, delayed: bool, taus: int) -> dict[str, int]:
    """Sizes of both kernels."""
    ensemble, batch, inputs, outputs = sizes
    rows = {"ints": 1, "reals": outputs} if delayed else saved_sizes(inputs, outputs)
    return rows | {
        "ensemble": ensemble, "batch": batch, "inputs": inputs, "outputs": outputs, "groups": -(-outputs // LANES),
        "group_inputs": inputs * LANES, "n_rates": N_RATES, "taus": taus,
    }  # fmt: skip


def as_tensors(constants: Constants, dtype: torch.dtype) -> list[Tensor]:
    """The time constants as contiguous tensors, of one number where all neurons share them."""
    return [
        x.contiguous() if isinstance(x, Tensor) else torch.tensor([x], dtype=dtype, device="cpu") for x in constants
    ]


def name_of(dtype: torch.dtype) -> str:
    """``"float32"`` or ``"float64"``."""
    return str(dtype).removeprefix("torch.")
