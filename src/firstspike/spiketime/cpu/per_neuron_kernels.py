"""Kernels (see ``parallel``) of synaptic delays, of time constants for each neuron, and of those that learn."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import carray

from firstspike.spiketime.cpu.cache import c_function, kept_on_disk
from firstspike.spiketime.cpu.constants import N_CONSTANTS
from firstspike.spiketime.cpu.delayed import scan_delayed, unwind_delayed
from firstspike.spiketime.cpu.parallel import SIGNATURE, next_task, pointer
from firstspike.spiketime.cpu.per_neuron import scan_delayed_neurons, scan_groups
from firstspike.spiketime.cpu.per_neuron_backward import sum_neurons
from firstspike.spiketime.cpu.tau_scan import LANES, tau_gradients


@kept_on_disk
def own_forward_kernel(dtype: str):
    """Forward with time constants of each neuron's own, compiled at the first call."""
    real = np.dtype(dtype).type

    @c_function(SIGNATURE)
    def kernel(a):
        ensemble, batch, inputs, outputs = a[3], a[4], a[5], a[6]
        groups = (outputs + 15) // 16
        times = carray(pointer(a[7], real), (ensemble, batch, inputs))
        packed = carray(pointer(a[8], real), (ensemble, groups, inputs * 16))
        rates = carray(pointer(a[9], real), (ensemble, groups, 32))
        spikes = carray(pointer(a[10], real), (ensemble, batch, outputs))
        while True:
            task = next_task(a)
            if task >= a[1]:
                break
            e, b = task // batch, task % batch
            scan_groups(times[e, b], packed[e], rates[e], spikes[e, b])

    return kernel.ctypes


@kept_on_disk
def own_delayed_kernel(dtype: str):
    """The same with synaptic delays."""
    real = np.dtype(dtype).type

    @c_function(SIGNATURE)
    def kernel(a):
        ensemble, batch, inputs, outputs = a[3], a[4], a[5], a[6]
        times = carray(pointer(a[7], real), (ensemble, batch, inputs))
        weight = carray(pointer(a[8], real), (ensemble, outputs, inputs))
        threshold = carray(pointer(a[9], real), (ensemble, outputs))
        delay = carray(pointer(a[10], real), (ensemble, outputs, inputs))
        mem = carray(pointer(a[11], real), (ensemble, outputs))
        syn = carray(pointer(a[12], real), (ensemble, outputs))
        spikes = carray(pointer(a[13], real), (ensemble, batch, outputs))
        while True:
            task = next_task(a)
            if task >= a[1]:
                break
            e, b = task // batch, task % batch
            scan_delayed_neurons(times[e, b], weight[e], threshold[e], delay[e], mem[e], syn[e], spikes[e, b])

    return kernel.ctypes


@kept_on_disk
def own_backward_kernel(dtype: str):
    """Backward of both."""
    real = np.dtype(dtype).type

    @c_function(SIGNATURE)
    def kernel(a):
        ensemble, batch, inputs, outputs, groups, chunks = a[3], a[4], a[5], a[6], a[7], a[8]
        delayed, everything = a[9] != 0, a[10] != 0
        bound = carray(pointer(a[11], real), (1,))
        grad = carray(pointer(a[12], real), (ensemble, batch, outputs))
        spikes = carray(pointer(a[13], real), (ensemble, batch, outputs))
        times = carray(pointer(a[14], real), (ensemble, batch, inputs))
        weight = carray(pointer(a[15], real), (ensemble, outputs, inputs))
        threshold = carray(pointer(a[16], real), (ensemble, outputs))
        delay = carray(pointer(a[17], real), (ensemble, outputs, inputs))
        mem = carray(pointer(a[18], real), (ensemble, outputs))
        syn = carray(pointer(a[19], real), (ensemble, outputs))
        by_weight = carray(pointer(a[20], real), (ensemble, chunks, outputs, inputs))
        by_delay = carray(pointer(a[21], real), (ensemble, chunks, outputs, inputs))
        by_times = carray(pointer(a[22], real), (ensemble, groups, batch, inputs))
        by_threshold = carray(pointer(a[23], real), (ensemble, chunks, outputs))
        by_mem = carray(pointer(a[24], real), (ensemble, chunks, outputs))
        by_syn = carray(pointer(a[25], real), (ensemble, chunks, outputs))
        while True:
            task = next_task(a)
            if task >= a[1]:
                break
            e, chunk, group = task // (groups * chunks), task // groups % chunks, task % groups
            sum_neurons(
                grad[e], spikes[e], times[e], weight[e], threshold[e], delay[e], delayed, mem[e], syn[e], bound[0],
                everything, by_weight[e, chunk], by_delay[e, chunk], by_times[e, group], by_threshold[e, chunk],
                by_mem[e, chunk], by_syn[e, chunk],
                (group * outputs // groups, (group + 1) * outputs // groups),
                (chunk * batch // chunks, (chunk + 1) * batch // chunks),
            )  # fmt: skip

    return kernel.ctypes


@kept_on_disk
def tau_kernel(dtype: str):
    """Gradients by time constants that all neurons share, compiled at the first call."""
    real = np.dtype(dtype).type

    @c_function(SIGNATURE)
    def kernel(a):
        ensemble, batch, inputs, outputs, chunks = a[3], a[4], a[5], a[6], a[7]
        rates = carray(pointer(a[8], real), (2,))
        times = carray(pointer(a[9], real), (ensemble, batch, inputs))
        packed = carray(pointer(a[10], real), (ensemble, (outputs + LANES - 1) // LANES, inputs * LANES))
        threshold = carray(pointer(a[11], real), (ensemble, outputs))
        grad = carray(pointer(a[12], real), (ensemble, batch, outputs))
        spikes = carray(pointer(a[13], real), (ensemble, batch, outputs))
        by_mem = carray(pointer(a[14], real), (ensemble, chunks, outputs))
        by_syn = carray(pointer(a[15], real), (ensemble, chunks, outputs))
        while True:
            task = next_task(a)
            if task >= a[1]:
                break
            e, chunk = task // chunks, task % chunks
            first, stop = chunk * batch // chunks, (chunk + 1) * batch // chunks
            tau_gradients(
                times[e, first:stop], packed[e], threshold[e], grad[e, first:stop], spikes[e, first:stop], rates[0],
                rates[1], by_mem[e, chunk], by_syn[e, chunk],
            )  # fmt: skip

    return kernel.ctypes


@kept_on_disk
def delayed_forward_kernel(dtype: str):
    """Forward with synaptic delays, compiled at the first call."""
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
    """Backward with synaptic delays."""
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
