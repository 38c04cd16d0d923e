"""Synaptic delays: the kernels (see ``parallel``)."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import carray

from firstspike.spiketime.cpu.cache import c_function, kept_on_disk
from firstspike.spiketime.cpu.constants import N_CONSTANTS
from firstspike.spiketime.cpu.delayed import scan_delayed, unwind_delayed
from firstspike.spiketime.cpu.parallel import SIGNATURE, next_task, pointer


@kept_on_disk
def delayed_forward_kernel(dtype: str):
    """Forward, compiled at the first call."""
    real = np.dtype(dtype).type

    @c_function(SIGNATURE)
    def kernel(a):
        ensemble, batch, inputs, outputs = a[3], a[4], a[5], a[6]
        c = carray(pointer(a[7], real), (N_CONSTANTS,))
        times = carray(pointer(a[8], real), (ensemble, batch, inputs))
        weight = carray(pointer(a[9], real), (ensemble, outputs, inputs))
        threshold = carray(pointer(a[10], real), (ensemble, outputs))
        delay = carray(pointer(a[11], real), (ensemble, outputs, inputs))
        spikes = carray(pointer(a[12], real), (ensemble, batch, outputs))
        while True:
            task = next_task(a)
            if task >= a[1]:
                break
            e, b = task // batch, task % batch
            scan_delayed(times[e], weight[e], threshold[e], delay[e], c, spikes[e], b, b + 1)

    return kernel.ctypes


@kept_on_disk
def delayed_backward_kernel(dtype: str):
    """Backward, compiled at the first call."""
    real = np.dtype(dtype).type

    @c_function(SIGNATURE)
    def kernel(a):
        ensemble, batch, inputs, outputs, groups, chunks = a[3], a[4], a[5], a[6], a[7], a[8]
        c = carray(pointer(a[9], real), (N_CONSTANTS + 1,))
        grad = carray(pointer(a[10], real), (ensemble, batch, outputs))
        spikes = carray(pointer(a[11], real), (ensemble, batch, outputs))
        times = carray(pointer(a[12], real), (ensemble, batch, inputs))
        weight = carray(pointer(a[13], real), (ensemble, outputs, inputs))
        threshold = carray(pointer(a[14], real), (ensemble, outputs))
        delay = carray(pointer(a[15], real), (ensemble, outputs, inputs))
        by_weight = carray(pointer(a[16], real), (ensemble, chunks, outputs, inputs))
        by_delay = carray(pointer(a[17], real), (ensemble, chunks, outputs, inputs))
        by_times = carray(pointer(a[18], real), (ensemble, groups, batch, inputs))
        by_threshold = carray(pointer(a[19], real), (ensemble, chunks, outputs))
        while True:
            task = next_task(a)
            if task >= a[1]:
                break
            e, chunk, group = task // (groups * chunks), task // groups % chunks, task % groups
            unwind_delayed(
                grad[e], spikes[e], times[e], weight[e], threshold[e], delay[e], c, c[N_CONSTANTS],
                by_weight[e, chunk], by_delay[e, chunk], by_times[e, group], by_threshold[e, chunk],
                (group * outputs // groups, (group + 1) * outputs // groups),
                (chunk * batch // chunks, (chunk + 1) * batch // chunks),
            )  # fmt: skip

    return kernel.ctypes
