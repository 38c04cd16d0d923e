"""Forward mode: how the spike times move with everything they depend on, for any backend.

The backward pass sums over samples and, for the input times, over neurons. With one sample per network nothing is left
to sum but that: the gradients by weights, delays, thresholds and time constants of ``sum_j T_j`` are the derivatives of
each T_j alone, since neuron j has its own. An input that shifts acts on neuron j like its delay there, so that the
derivative by the delay serves for both. The tangent follows from these rows of the Jacobian by a sum over the inputs:

    dT_j = sum_i (dT_j/dw_ji dw_ji + dT_j/ddelay_ji (ddelay_ji + dt_i)) + dT_j/dthreshold_j dthreshold_j + ...

It is linear in the tangents, and exactly what the backward pass computes, with the same kernels.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.spiketime.backend import Needs

_AT_ONCE = 1 << 22  # numbers in a part of the Jacobian


def tangent(
    gradients: Callable[..., tuple[Tensor, ...]],
    moves: tuple[Tensor | None, ...],
    spikes: Float[Tensor, "E B O"],
    times: Float[Tensor, "E B I"],
    *network: Tensor | None,
) -> Float[Tensor, "E B O"]:
    """The directional derivative of the spike times.

    Args:
        gradients: the backward pass, ``(needs, grad, spikes, times, *network) -> the needed gradients``.
        moves: tangents of the inputs in the order of ``Needs``, None for 0.
        spikes: where the derivative is taken.
        times: of the inputs.
        network: weight, threshold, delay, tau_mem and tau_syn, see ``backend``; None for what is not there.
    """
    of_times, of_weight, of_threshold, of_delay, *of_taus = moves
    weight, threshold, delay, *taus = network
    assert weight is not None
    given = [move is not None for move in moves]
    needs = Needs(False, given[1], given[2], given[0] or given[3], *given[4:])
    if not any(needs):  # nothing but the observed times moves
        return torch.zeros_like(spikes)
    if needs.delay and delay is None:
        delay = torch.zeros_like(weight)
    if of_times is not None:
        of_times = torch.where(times.isfinite(), of_times, 0.0)  # what never arrives moves nothing
    size = max(1, _AT_ONCE // max(1, weight.numel()))
    parts = []
    with torch.autocast(spikes.device.type, enabled=False):
        for start in range(0, max(1, spikes.shape[1]), size):
            some = slice(start, start + size) if size < spikes.shape[1] else slice(None)
            rows = iter(_jacobian(gradients, needs, spikes[:, some], times[:, some], weight, threshold, delay, *taus))
            terms = []
            if of_weight is not None:
                terms.append(torch.einsum("eboi,eoi->ebo", next(rows), of_weight))
            if of_threshold is not None:
                terms.append(next(rows) * of_threshold.unsqueeze(1))
            by_delay = next(rows) if needs.delay else None
            if of_times is not None:
                terms.append(torch.einsum("eboi,ebi->ebo", by_delay, of_times[:, some]))
            if of_delay is not None:
                terms.append(torch.einsum("eboi,eoi->ebo", by_delay, of_delay))
            terms += [next(rows) * move.unsqueeze(1) for move in of_taus if move is not None]
            parts.append(sum(terms[1:], terms[0]))
    return torch.cat(parts, 1)


def _jacobian(
    gradients: Callable[..., tuple[Tensor, ...]],
    needs: Needs,
    spikes: Float[Tensor, "E B O"],
    times: Float[Tensor, "E B I"],
    *network: Tensor | None,
) -> list[Tensor]:
    """The derivatives of each spike, ``(E, B, O)`` or ``(E, B, O, I)``; each sample becomes a network of its own."""
    lead = spikes.shape[:2]
    alone = (x.flatten(0, 1).unsqueeze(1) for x in (torch.ones_like(spikes), spikes, times))
    copies = (None if x is None else x.unsqueeze(1).expand(*lead, *x.shape[1:]).flatten(0, 1) for x in network)
    return [x.unflatten(0, lead) for x in gradients(needs, *alone, *copies)]
