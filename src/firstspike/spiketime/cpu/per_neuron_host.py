"""Host side of neurons with synaptic delays, which see inputs in an order of their own, or with own time constants.

Also the gradient by time constants that all neurons share.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from firstspike.spiketime.backend import Arguments, Gradients, Needs
from firstspike.spiketime.cpu.constants import constants_array
from firstspike.spiketime.cpu.parallel import run, threads_for
from firstspike.spiketime.cpu.per_neuron_kernels import (
    delayed_backward_kernel,
    delayed_forward_kernel,
    own_backward_kernel,
    own_delayed_kernel,
    own_forward_kernel,
    tau_kernel,
)
from firstspike.spiketime.cpu.tau_scan import LANES

_GROUPS, _CHUNKS = 8, 4  # parts into which the sums over neurons and over samples are cut
_CHUNKS_SHARED = 16  # parts of the samples where neurons share their time constants
_COST = 16  # of a synapse, in units of one of the usual kernels


def forward_per_neuron(given: Arguments, spikes: Tensor) -> None:
    """Fill ``spikes``."""
    times, weight, threshold, delay, (tau_mem, tau_syn) = given
    ensemble, batch, inputs = times.shape
    dtype, c = name_of(times.dtype), ()
    if not isinstance(tau_mem, Tensor) or not isinstance(tau_syn, Tensor):
        assert delay is not None
        _c, address = constants_array(tau_mem, tau_syn, dtype)
        kernel, c, tensors = delayed_forward_kernel(dtype), (address,), (times, weight, threshold, delay)
    elif delay is not None:
        kernel, tensors = own_delayed_kernel(dtype), (times, weight, threshold, delay, tau_mem, tau_syn)
    else:
        kernel, tensors = own_forward_kernel(dtype), (times, *_packed(weight, threshold, tau_mem, tau_syn))
    tensors = tuple(x.contiguous() for x in tensors)
    run(
        kernel,
        (ensemble * batch,),
        (ensemble, batch, inputs, weight.shape[1], *c, *(x.data_ptr() for x in (*tensors, spikes))),
        threads_for(_COST * batch * weight.numel()),
    )


def backward_per_neuron(
    grad: Tensor, spikes: Tensor, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """All gradients; those by the time constants alone where nothing else is needed.

    Inputs are filled up to whole vectors by some that never arrive.
    """
    times, weight, threshold, delay, constants = given
    ensemble, batch, inputs = times.shape
    outputs, dtype = weight.shape[1], name_of(times.dtype)
    by_taus, everything = needs.tau_mem or needs.tau_syn, any(needs[:4])
    more = -inputs % 16
    times, weight = pad(times, (0, more), value=math.inf), pad(weight, (0, more))
    delays = weight if delay is None else pad(delay, (0, more))  # not looked at without delays
    groups, chunks = min(_GROUPS, outputs), min(_CHUNKS, batch)
    per_neuron, per_synapse = (ensemble, chunks, outputs), (ensemble, chunks, outputs, inputs + more)
    per_input = (ensemble, groups, batch, inputs + more)
    if isinstance(constants.tau_mem, Tensor) or by_taus:
        kernel, array = own_backward_kernel(dtype), np.array([max_weight_grad or math.inf], dtype)
        numbers = (delay is not None, everything, array.ctypes.data)
        taus = tuple(x if isinstance(x, Tensor) else torch.full_like(threshold, x) for x in constants)
    else:
        kernel, (array, address) = delayed_backward_kernel(dtype), constants_array(*constants, dtype, max_weight_grad)
        numbers, taus = (address,), ()
    shapes = (per_synapse, per_synapse, per_input, per_neuron) if everything else ((0,), (0,), (0,), per_neuron)
    found = [torch.empty(shape, dtype=times.dtype) for shape in (*shapes, *(per_neuron for _ in taus))]
    tensors = tuple(x.contiguous() for x in (grad, spikes, times, weight, threshold, delays, *taus))
    run(
        kernel,
        (ensemble * groups * chunks,),
        (
            *(ensemble, batch, inputs + more, outputs, groups, chunks),
            *numbers,
            *(x.data_ptr() for x in (*tensors, *found)),
        ),
        threads_for(_COST * batch * weight.numel()),
    )
    by_weight, by_delay, by_times, by_threshold, *rest = found
    by_mem, by_syn = rest or (None, None)
    return Gradients(
        by_times.sum(1)[..., :inputs].contiguous() if needs.times else None,
        by_weight.sum(1)[..., :inputs].contiguous() if needs.weight else None,
        by_threshold.sum(1) if needs.threshold else None,
        by_delay.sum(1)[..., :inputs].contiguous() if needs.delay and delay is not None else None,
        by_mem.sum(1) if needs.tau_mem and by_mem is not None else None,
        by_syn.sum(1) if needs.tau_syn and by_syn is not None else None,
    )


def tau_gradients(grad: Tensor, spikes: Tensor, given: Arguments) -> tuple[Tensor, Tensor]:
    """Gradients by time constants that all neurons share, without delays: ``(E, O)`` each."""
    times, weight, threshold, _, constants = given
    ensemble, batch, inputs = times.shape
    outputs, dtype = weight.shape[1], name_of(times.dtype)
    chunks = min(_CHUNKS_SHARED, batch)
    rates = np.array([1 / tau for tau in constants], dtype)
    # in units of the threshold
    packed = _side_by_side(weight / threshold.unsqueeze(-1), LANES)
    tensors = tuple(x.contiguous() for x in (times, packed, torch.ones_like(threshold), grad, spikes))
    by_mem, by_syn = (torch.empty((ensemble, chunks, outputs), dtype=times.dtype) for _ in range(2))
    run(
        tau_kernel(dtype),
        (ensemble * chunks,),
        (
            *(ensemble, batch, inputs, outputs, chunks),
            rates.ctypes.data,
            *(x.data_ptr() for x in (*tensors, by_mem, by_syn)),
        ),
        threads_for(batch * weight.numel()),
    )
    return by_mem.sum(1), by_syn.sum(1)


def name_of(dtype: torch.dtype) -> str:
    """``"float32"`` or ``"float64"``."""
    return str(dtype).removeprefix("torch.")


def _packed(weight: Tensor, threshold: Tensor, tau_mem: Tensor, tau_syn: Tensor) -> tuple[Tensor, Tensor]:
    """Weights in units of the threshold, and the inverse time constants, of 16 neurons side by side.

    Groups are filled up with neurons that get no input.
    """
    rates = [pad(1 / tau, (0, -tau.shape[1] % 16), value=1.0).reshape(len(tau), -1, 16) for tau in (tau_mem, tau_syn)]
    return _side_by_side(weight / threshold.unsqueeze(-1), 16), torch.cat(rates, dim=-1)


def _side_by_side(weight: Tensor, lanes: int) -> Tensor:
    """Weights ``(E, tiles, I, lanes)``, of so many neurons side by side; the last tile is filled up with zeros."""
    ensemble, outputs, inputs = weight.shape
    filled = pad(weight, (0, 0, 0, -outputs % lanes))
    return filled.reshape(ensemble, -1, lanes, inputs).transpose(2, 3).contiguous()
