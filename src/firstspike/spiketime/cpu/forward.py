"""Host side of the forward pass: memory, threads, and the kernel's call."""

import math

import torch
from torch import Tensor

from firstspike.spiketime.backend import Constants
from firstspike.spiketime.cpu.constants import constants_array
from firstspike.spiketime.cpu.crossing import NARROW, TILE
from firstspike.spiketime.cpu.delayed_host import delayed_forward
from firstspike.spiketime.cpu.parallel import run, scratch, threads_for, work_of
from firstspike.spiketime.cpu.rows import N_FORWARD, PAD
from firstspike.spiketime.cpu.scan import forward_kernel

DTYPES = {torch.float32: "float32", torch.float64: "float64"}
_MAX_BLOCK = 32  # samples whose rows fit into the second-level cache beside a tile of weights


def forward(
    times: Tensor, weight: Tensor, threshold: Tensor, delay: Tensor | None, constants: Constants
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """First spike times, ``inf`` for silent neurons. See ``backend`` for the contract.

    Saved: the order of arrival and sorted times of each sample's inputs, how many arrive, and for each neuron the
    place of its last causal input (-1: silent) and dV/dt at the spike in units of the threshold.
    """
    ensemble, batch, inputs = times.shape
    outputs = weight.shape[1]
    spikes = torch.empty((ensemble, batch, outputs), dtype=times.dtype)
    if 0 in (ensemble, batch, inputs, outputs):
        return spikes.fill_(math.inf), ()
    if delay is not None:
        delayed_forward(times, weight, threshold, delay, constants, spikes)
        return spikes, ()
    times, weight, threshold = times.contiguous(), weight.contiguous(), threshold.contiguous()
    dtype = DTYPES[times.dtype]
    tiles = -(-outputs // TILE)
    threads = threads_for(work_of(ensemble * batch, inputs, outputs))
    block = max(1, min(_MAX_BLOCK, -(-batch // (2 * threads))))
    stride, size = -(-inputs // 16) * 16 + PAD, times.element_size()
    packed, rows, ends = scratch(
        ensemble * tiles * inputs * TILE * size,
        threads * block * N_FORWARD * stride * size,
        threads * block * inputs * 4,
    )
    order = torch.empty((ensemble, batch, inputs), dtype=torch.int32)
    arrival = torch.empty((ensemble, batch, inputs + PAD), dtype=times.dtype)
    count = torch.empty((ensemble, batch), dtype=torch.int32)
    last = torch.empty((ensemble, batch, outputs), dtype=torch.int32)
    slope = torch.empty((ensemble, batch, outputs), dtype=times.dtype)
    c = constants_array(*constants, dtype)
    given, filled = (times, weight, threshold), (order, arrival, count, last, slope, spikes)
    addresses = (*(x.data_ptr() for x in given), packed, *(x.data_ptr() for x in filled), rows, ends)
    run(
        forward_kernel(dtype, outputs <= NARROW),
        (ensemble * tiles, ensemble * -(-batch // block)),
        (ensemble, batch, inputs, outputs, block, c.ctypes.data, *addresses, threads, 0),
        threads,
    )
    return spikes, (order, arrival, count, last, slope)
