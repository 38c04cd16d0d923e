"""Time constants that are tensors: which kernels do what, and the host side of those of this kind.

Where all neurons share their time constants, the usual kernels do the work, and a pass of its own gives the gradient by
the time constants where one is asked for. Else neurons share nothing but the order of arrival, forward and backward.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from firstspike.spiketime.backend import Constants, Gradients, Needs
from firstspike.spiketime.cpu.backward import backward as shared_backward
from firstspike.spiketime.cpu.forward import forward as shared_forward
from firstspike.spiketime.cpu.parallel import run, threads_for
from firstspike.spiketime.cpu.parts import in_parts
from firstspike.spiketime.cpu.single_kernels import (
    single_backward_kernel,
    single_delayed_kernel,
    single_forward_kernel,
    tau_kernel,
)
from firstspike.spiketime.cpu.tau_scan import LANES

_GROUPS, _CHUNKS = 8, 4  # parts into which the sums over neurons and over samples are cut
_CHUNKS_SHARED = 16  # parts of the samples where neurons share their time constants
_COST = 16  # of a synapse, in units of one of the usual kernels


def forward(
    times: Tensor, weight: Tensor, threshold: Tensor, delay: Tensor | None, constants: Constants
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """First spike times, ``inf`` for silent neurons. See ``backend`` for the contract."""
    tau_mem, tau_syn = constants
    if not isinstance(tau_mem, Tensor) or not isinstance(tau_syn, Tensor):
        return shared_forward(times, weight, threshold, delay, constants)
    ensemble, batch, inputs = times.shape
    outputs = weight.shape[1]
    spikes = torch.empty((ensemble, batch, outputs), dtype=times.dtype)
    if 0 in (ensemble, batch, inputs, outputs):
        return spikes.fill_(math.inf), ()
    dtype = str(times.dtype).removeprefix("torch.")
    if delay is None:
        kernel = single_forward_kernel(dtype)
        given = (times.contiguous(), *_packed(weight, threshold, tau_mem, tau_syn))
    else:
        kernel = single_delayed_kernel(dtype)
        given = tuple(x.contiguous() for x in (times, weight, threshold, delay, tau_mem, tau_syn))
    run(
        kernel,
        (ensemble * batch,),
        (ensemble, batch, inputs, outputs, *(x.data_ptr() for x in (*given, spikes))),
        threads_for(_COST * batch * weight.numel()),
    )
    return spikes, ()


@in_parts
def backward(
    grad: Tensor,
    spikes: Tensor,
    times: Tensor,
    weight: Tensor,
    threshold: Tensor,
    delay: Tensor | None,
    saved: tuple[Tensor, ...],
    constants: Constants,
    max_weight_grad: float | None,
    needs: Needs,
) -> Gradients:
    """Gradients at the given spike times. See ``backend`` for the contract."""
    tensors = (grad, spikes, times, weight, threshold, delay)
    if isinstance(constants.tau_mem, Tensor):
        return _sums(*tensors, constants, max_weight_grad, needs, everything=True)
    nothing = Gradients(None, None, None, None)
    found = shared_backward(*tensors, saved, constants, max_weight_grad, needs) if any(needs[:4]) else nothing
    if not needs.tau_mem and not needs.tau_syn:
        return found
    if delay is None and 0 not in (*times.shape, weight.shape[1]):
        by_mem, by_syn = _by_shared(grad, spikes, times, weight, threshold, constants)
    else:
        *_, by_mem, by_syn = _sums(*tensors, constants, max_weight_grad, needs, everything=False)
    return found._replace(tau_mem=by_mem if needs.tau_mem else None, tau_syn=by_syn if needs.tau_syn else None)


def _by_shared(
    grad: Tensor, spikes: Tensor, times: Tensor, weight: Tensor, threshold: Tensor, constants: Constants
) -> tuple[Tensor, Tensor]:
    """Gradients by time constants that all neurons share, ``(E, O)`` each."""
    ensemble, batch, inputs = times.shape
    outputs = weight.shape[1]
    dtype = str(times.dtype).removeprefix("torch.")
    chunks = min(_CHUNKS_SHARED, batch)
    rates = np.array([1 / tau for tau in constants], dtype)
    # in units of the threshold
    given = (times, _side_by_side(weight / threshold.unsqueeze(-1), LANES), torch.ones_like(threshold), grad, spikes)
    given = tuple(x.contiguous() for x in given)
    by_mem, by_syn = (torch.empty((ensemble, chunks, outputs), dtype=times.dtype) for _ in range(2))
    run(
        tau_kernel(dtype),
        (ensemble * chunks,),
        (
            *(ensemble, batch, inputs, outputs, chunks),
            rates.ctypes.data,
            *(x.data_ptr() for x in (*given, by_mem, by_syn)),
        ),
        threads_for(batch * weight.numel()),
    )
    return by_mem.sum(1), by_syn.sum(1)


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


def _sums(
    grad: Tensor,
    spikes: Tensor,
    times: Tensor,
    weight: Tensor,
    threshold: Tensor,
    delay: Tensor | None,
    constants: Constants,
    max_weight_grad: float | None,
    needs: Needs,
    everything: bool,
) -> Gradients:
    """The gradients by the time constants, or all; inputs are filled up to whole vectors by some that never arrive."""
    ensemble, batch, inputs = times.shape
    outputs = weight.shape[1]
    tau_mem, tau_syn = (x if isinstance(x, Tensor) else torch.full_like(threshold, x) for x in constants)
    if 0 in (ensemble, batch, inputs, outputs):
        like = (times, weight, threshold, delay, tau_mem, tau_syn)
        return Gradients(
            *(torch.zeros_like(x) if n and x is not None else None for x, n in zip(like, needs, strict=True))
        )
    more = -inputs % 16
    times, weight = pad(times, (0, more), value=math.inf), pad(weight, (0, more))
    delays = weight if delay is None else pad(delay, (0, more))  # not looked at without delays
    given = tuple(x.contiguous() for x in (grad, spikes, times, weight, threshold, delays, tau_mem, tau_syn))
    groups, chunks = min(_GROUPS, outputs), min(_CHUNKS, batch)
    per_neuron = (ensemble, chunks, outputs)
    per_synapse = (*per_neuron, inputs + more) if everything else (0,)
    by_weight, by_delay = (torch.empty(per_synapse, dtype=times.dtype) for _ in range(2))
    by_times = torch.empty((ensemble, groups, batch, inputs + more) if everything else (0,), dtype=times.dtype)
    by_threshold, by_mem, by_syn = (torch.empty(per_neuron, dtype=times.dtype) for _ in range(3))
    dtype = str(times.dtype).removeprefix("torch.")
    bound = np.array([math.inf if max_weight_grad is None else max_weight_grad], dtype)
    filled = (by_weight, by_delay, by_times, by_threshold, by_mem, by_syn)
    run(
        single_backward_kernel(dtype),
        (ensemble * groups * chunks,),
        (
            *(ensemble, batch, inputs + more, outputs, groups, chunks, delay is not None, everything),
            bound.ctypes.data,
            *(x.data_ptr() for x in (*given, *filled)),
        ),
        threads_for(_COST * batch * weight.numel()),
    )
    taus = (by_mem.sum(1) if needs.tau_mem else None, by_syn.sum(1) if needs.tau_syn else None)
    if not everything:
        return Gradients(None, None, None, None, *taus)
    return Gradients(
        by_times.sum(1)[..., :inputs].contiguous() if needs.times else None,
        by_weight.sum(1)[..., :inputs].contiguous() if needs.weight else None,
        by_threshold.sum(1) if needs.threshold else None,
        by_delay.sum(1)[..., :inputs].contiguous() if needs.delay else None,
        *taus,
    )
