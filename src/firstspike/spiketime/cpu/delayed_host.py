"""Synaptic delays: host side of both passes."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from firstspike.spiketime.backend import Constants, Gradients, Needs
from firstspike.spiketime.cpu.constants import constants_array
from firstspike.spiketime.cpu.delayed_kernels import delayed_backward_kernel, delayed_forward_kernel
from firstspike.spiketime.cpu.parallel import run, threads_for

_GROUPS, _CHUNKS = 8, 4  # parts into which the sums over neurons and over samples are cut
_COST = 16  # of a synapse, in units of one without delays


def delayed_forward(
    times: Tensor, weight: Tensor, threshold: Tensor, delay: Tensor, constants: Constants, spikes: Tensor
) -> None:
    """Fill ``spikes``."""
    ensemble, batch, inputs = times.shape
    given = tuple(x.contiguous() for x in (times, weight, threshold, delay))
    dtype = str(times.dtype).removeprefix("torch.")
    _c, c_address = constants_array(*constants, dtype)
    run(
        delayed_forward_kernel(dtype),
        (ensemble * batch,),
        (ensemble, batch, inputs, weight.shape[1], c_address, *(x.data_ptr() for x in (*given, spikes))),
        threads_for(_COST * batch * weight.numel()),
    )


def delayed_backward(
    grad: Tensor,
    spikes: Tensor,
    times: Tensor,
    weight: Tensor,
    threshold: Tensor,
    delay: Tensor,
    constants: Constants,
    max_weight_grad: float | None,
    needs: Needs,
) -> Gradients:
    """All gradients; inputs are filled up to whole vectors by some that never arrive."""
    ensemble, batch, inputs = times.shape
    outputs = weight.shape[1]
    more = -inputs % 16
    times, weight, delay = pad(times, (0, more), value=math.inf), pad(weight, (0, more)), pad(delay, (0, more))
    given = tuple(x.contiguous() for x in (grad, spikes, times, weight, threshold, delay))
    groups, chunks = min(_GROUPS, outputs), min(_CHUNKS, batch)
    by_weight = torch.empty((ensemble, chunks, outputs, inputs + more), dtype=times.dtype)
    by_delay = torch.empty_like(by_weight)
    by_times = torch.empty((ensemble, groups, batch, inputs + more), dtype=times.dtype)
    by_threshold = torch.empty((ensemble, chunks, outputs), dtype=times.dtype)
    dtype = str(times.dtype).removeprefix("torch.")
    _c, c_address = constants_array(*constants, dtype, max_weight_grad)
    filled = (by_weight, by_delay, by_times, by_threshold)
    run(
        delayed_backward_kernel(dtype),
        (ensemble * groups * chunks,),
        (
            *(ensemble, batch, inputs + more, outputs, groups, chunks),
            c_address,
            *(x.data_ptr() for x in (*given, *filled)),
        ),
        threads_for(_COST * batch * weight.numel()),
    )
    return Gradients(
        by_times.sum(1)[..., :inputs].contiguous() if needs.times else None,
        by_weight.sum(1)[..., :inputs].contiguous() if needs.weight else None,
        by_threshold.sum(1) if needs.threshold else None,
        by_delay.sum(1)[..., :inputs].contiguous() if needs.delay else None,
    )
