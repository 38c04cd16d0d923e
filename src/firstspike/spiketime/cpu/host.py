"""Both passes from tensors: which kernels do what, their memory, threads and calls.

Where all neurons share the order of arrival and the time constants, the kernels of ``scan`` and ``unwind`` do the work.
The rest, and gradients by time constants, are in ``lanes.host``.
"""

import math
from functools import lru_cache, partial

import torch
from torch import Tensor

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Needs, Result, Sizes
from firstspike.spiketime.cpu.constants import N_CONSTANTS, constants_array
from firstspike.spiketime.cpu.lanes.host import backward_lanes, forward_lanes
from firstspike.spiketime.cpu.pack import TILE, lanes_for
from firstspike.spiketime.cpu.rows.adjoint import N_LANES
from firstspike.spiketime.cpu.rows.backward import BACKWARD, SAMPLES, backward_kernel
from firstspike.spiketime.cpu.rows.coefficients import N_BACKWARD, N_FORWARD
from firstspike.spiketime.cpu.rows.crossing import N_STATE
from firstspike.spiketime.cpu.rows.few import FEW
from firstspike.spiketime.cpu.rows.forward import FORWARD, forward_kernel
from firstspike.spiketime.cpu.runtime.arguments import REFUSED
from firstspike.spiketime.cpu.runtime.parallel import Call, is_small, name_of, threads_for, work_of
from firstspike.spiketime.cpu.saved import BOTH, PAD, saved_for, saved_sizes, saved_within
from firstspike.spiketime.parts import Size, backward_in_parts, zero_gradients
from firstspike.spiketime.values import check_values

_BLOCK = 600_000  # bytes of a block's rows, which fit into the second-level cache beside a tile of weights
MAX_GROUPS = 8  # parts into which gradients by times are summed
_FEW, _MANY = 8, 16  # tasks wanted for each network, and where they cost little
_SHORT, _LONG = 8, 96  # samples for which a task may, and should, have a part of the weights' gradient of its own
_MEMORY = 1 << 26  # bytes of a backward pass beside its results
_ROWS = 12  # numbers for each input of a sample, at most: rows, and parts of the gradient by its time


def forward(given: Arguments) -> Result:
    """First spike times, ``inf`` for silent neurons. See ``backend`` for the contract."""
    spikes = given.times.new_empty((*given.times.shape[:-1], given.weight.shape[-2]))
    own = given.delay is not None or isinstance(given.constants.tau_mem, Tensor)
    sizes = given.sizes
    if not own and 0 not in sizes:
        return Result(spikes, _forward(given, sizes, spikes))
    check_values(*given[:4])
    return Result(spikes.fill_(math.inf)) if 0 in sizes else forward_lanes(given)


def saves(given: Arguments) -> tuple[Tensor, ...]:
    """Tensors like those that ``forward`` saves of first spikes, also on other devices."""
    outputs = given.weight.shape[-2]
    if given.delay is not None:
        return (given.times.new_empty((*given.times.shape[:-1], outputs)),)
    return saved_for(given.times, outputs)


def _part(given: Arguments) -> Size:
    _, batch, inputs, outputs = given.sizes
    samples = max(1, _MEMORY // (_ROWS * (inputs + PAD) * given.times.element_size()))
    return Size(samples // max(1, batch), samples, outputs)


@partial(backward_in_parts, size=_part)
def backward(grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs) -> Gradients:
    """Gradients at the given spike times. See ``backend`` for the contract."""
    sizes = given.sizes
    if 0 in sizes:
        return zero_gradients(given, needs)
    own = given.delay is not None or isinstance(given.constants.tau_mem, Tensor)
    if not own and not needs.tau_mem and not needs.tau_syn:
        return _shared(grads.spikes, result, given, sizes, max_weight_grad, needs)
    return backward_lanes(grads, result, given, max_weight_grad, needs)


def _forward(given: Arguments, sizes: Sizes, spikes: Tensor) -> tuple[Tensor, Tensor]:
    """Fill ``spikes``.

    Returns:
        See ``saved``.

    Raises:
        ValueError: see ``check_values``.
    """
    times, weight, threshold = (x.contiguous() for x in given[:3])
    ensemble, batch, inputs, outputs = sizes
    saved = saved_for(times, outputs)
    c = constants_array(*given.constants, name_of(times.dtype))
    call = _forward_call(sizes, times.dtype, threads_for(work_of(ensemble * batch, inputs, outputs)))
    left = call(c, times, weight, threshold, spikes, *saved)
    if left[REFUSED]:
        check_values(*given[:4])
    return saved


@lru_cache(maxsize=256)
def _forward_call(sizes: Sizes, dtype: torch.dtype, threads: int) -> Call:
    ensemble, batch, inputs, outputs = sizes
    found = _numbers(sizes, N_FORWARD) | {
        "threads": threads, "state_rows": N_STATE + 2, "passed_size": FEW * 32
    }  # fmt: skip
    most = _BLOCK // (N_FORWARD * found["stride"] * dtype.itemsize)
    found["block"] = block = max(1, min(most, -(-batch // (2 * threads))))
    names = "c", "times", "weight", "threshold", "spikes", *BOTH
    plan = FORWARD.plan(name_of(dtype), found, names, within=saved_within(inputs))
    phases = ensemble * found["tiles"], ensemble * -(-batch // block)
    return Call(forward_kernel(name_of(dtype), lanes_for(outputs)), phases, plan, threads)


def _shared(
    grad: Tensor, result: Result, given: Arguments, sizes: Sizes, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """Gradients without those by time constants, of neurons that share the order of arrival."""
    grad, spikes, times, weight, threshold = (x.contiguous() for x in (grad, result.spikes, *given[:3]))
    ensemble, batch, inputs, outputs = sizes
    saved = tuple(x.contiguous() for x in result.saved) or saved_for(times, outputs)
    asked = zip((times, weight, threshold), needs, strict=False)
    found = [torch.empty_like(x) if need else None for x, need in asked]
    c = constants_array(*given.constants, name_of(times.dtype), max_weight_grad)
    threads = threads_for(work_of(ensemble * batch, inputs, outputs))
    call = _backward_call(sizes, times.dtype, needs[:3], not result.saved, threads)
    call(c, grad, spikes, times, weight, threshold, *saved, *found)
    return Gradients(*found)  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def _backward_call(sizes: Sizes, dtype: torch.dtype, needs: tuple[bool, ...], observes: bool, threads: int) -> Call:
    ensemble, batch, inputs, outputs = sizes
    wants_times, wants_weight, wants_threshold = needs
    found = _numbers(sizes, N_BACKWARD)
    tiles = found["tiles"]
    groups = min(tiles, MAX_GROUPS) if wants_times else tiles
    chunks = 1 if is_small(work_of(batch, inputs, outputs)) else chunks_of(batch, groups)
    found |= {
        "groups": groups, "chunks": chunks, "wants_times": wants_times, "wants_weight": wants_weight,
        "wants_threshold": wants_threshold, "observes": observes, "threads": threads, "room": found["stride"],
        "state_rows": N_LANES, "summed": 256, "few_summed": FEW * 16,
    }  # fmt: skip
    given = ("c", "grad", "spikes", "times", "weight", "threshold", *BOTH, "by_times", "by_weight", "by_threshold")
    unused = [name for name, need in (("weight_parts", wants_weight), ("times_parts", wants_times)) if not need]
    plan = BACKWARD.plan(name_of(dtype), found, given, unused, saved_within(inputs))
    blocks = -(-batch // SAMPLES)
    phases = (
        ensemble * (tiles + blocks),
        ensemble * groups * chunks,
        ensemble * (tiles + (blocks if wants_times else 0)),
    )
    return Call(backward_kernel(name_of(dtype), lanes_for(outputs)), phases, plan, threads)


def _numbers(sizes: Sizes, rows: int) -> dict[str, int]:
    """Sizes of both kernels."""
    ensemble, batch, inputs, outputs = sizes
    return saved_sizes(inputs, outputs) | {
        "ensemble": ensemble, "batch": batch, "inputs": inputs, "outputs": outputs, "tiles": -(-outputs // TILE),
        "packed_size": inputs * TILE, "stride": -(-inputs // 16) * 16 + PAD, "row_kinds": rows,
        "constants": N_CONSTANTS + 1, "tile": TILE, "events": inputs,
    }  # fmt: skip


def chunks_of(batch: int, groups: int) -> int:
    """Parts of the batch with a gradient each; of one network's shape alone, so that sums never depend on threads."""
    return max(1, min(-(-_FEW // groups), batch // _SHORT), min(_MANY // groups, batch // _LONG))
