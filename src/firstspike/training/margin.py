"""The margin of a decision, and its derivatives."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from firstspike.deferred import raise_deferred_errors
from firstspike.layers import Network
from firstspike.layers.noise import evaluating
from firstspike.losses.base import check_batch, of_true, smallest
from firstspike.spiketime.values import check_tensor
from firstspike.training.evaluation import samples_at_once


class Margins(NamedTuple):
    """Margins of decisions and their derivatives.

    A derivative with respect to times is exactly 0 for spikes after both outputs, for spikes that are missing
    (``inf``), and for all inputs of a sample whose margin is not finite.

    Args:
        margin: time from the spike of the chosen output to the earliest spike of another one; for a readout, by how
            much its value is above the largest other one. Negative if a label loses. ``inf`` if no other output spikes,
            ``-inf`` if the chosen one is silent, NaN if all are.
        chosen: the output in question: the label or, without labels, the winner.
        rival: the best of the other outputs; -1 if all of them are silent.
        by_times: derivative of each margin with respect to each input spike, of the shape of the times. Positive: the
            margin grows if the spike comes later.
        by_parameter: derivative of the mean of all finite margins with respect to each parameter, with the names and
            shapes of ``network.named_parameters()``; 0 if no margin is finite.
    """

    margin: Float[Tensor, " samples"]
    chosen: Int64[Tensor, " samples"]
    rival: Int64[Tensor, " samples"]
    by_times: Float[Tensor, "samples inputs *spikes"]
    by_parameter: dict[str, Tensor]


def margins(
    network: nn.Module,
    times: Float[Tensor, "samples inputs *spikes"],
    labels: Int64[Tensor, " samples"] | None = None,
    *,
    readout: bool | None = None,
) -> Margins:
    """Why a network decides as it does: margins of its decisions, and their exact derivatives.

    The network is in evaluation mode. ``max_weight_grad`` of a layer drops the same derivatives as in training. The
    derivative with respect to parameters is a mean. For that of one sample, pass it alone: ``margins(network,
    times[3:4])``.

    Args:
        network: has an output for each class.
        times: input times, in any form that the network takes.
        labels: outputs whose margins are asked for; by default those that win, so that no margin is negative.
        readout: whether outputs are values, the largest of which wins, instead of times. By default an ``fs.Network``
            is asked, and all else has times.

    Raises:
        ValueError: the outputs are not ``(samples, outputs)`` with at least two outputs, or labels do not fit.
    """
    check_tensor("times", times)
    flat = network.flat(times.detach()) if isinstance(network, Network) else times.detach()
    if readout is None:
        readout = isinstance(network, Network) and network.gives == "values"
    parameters = {name: value.detach().requires_grad_() for name, value in network.named_parameters()}
    sums = {name: torch.zeros_like(value) for name, value in parameters.items()}
    size, parts = samples_at_once(network, flat), []
    for start in range(0, max(1, len(flat)), size):
        part = flat[start : start + size].clone().requires_grad_()
        with evaluating(network), torch.enable_grad():
            output = functional_call(network, parameters, (part,))
            chosen, rival, margin = _compare(output, readout, None if labels is None else labels[start : start + size])
            total = margin[torch.isfinite(margin)].sum()
            by_times, *rest = torch.autograd.grad(total, [part, *parameters.values()], materialize_grads=True)
        parts.append((margin.detach(), chosen, rival, by_times))
        for name, value in zip(sums, rest, strict=True):
            sums[name] += value
    raise_deferred_errors()
    margin, chosen, rival, by_times = map(torch.cat, zip(*parts, strict=True))
    count = torch.isfinite(margin).sum().clamp(min=1)
    means = {name: value / count for name, value in sums.items()}
    return Margins(margin, chosen, rival, by_times.reshape(times.shape), means)


def _compare(
    output: Float[Tensor, "samples outputs"], readout: bool, labels: Int64[Tensor, " samples"] | None
) -> tuple[Int64[Tensor, " samples"], Int64[Tensor, " samples"], Float[Tensor, " samples"]]:
    """The chosen output, the best other one, and the margin between them."""
    if output.ndim != 2 or output.shape[1] < 2:
        raise ValueError(
            f"network: expected outputs of shape (samples, outputs), at least two of them, got {tuple(output.shape)}; "
            "a network that gives trains ends with a readout or fs.FirstSpike(), members of an ensemble go one by one"
        )
    ranked = -output if readout else output  # the smallest wins
    if labels is None:
        chosen = ranked.argmin(dim=-1)
    else:
        check_batch(output, labels, "the network's output", "output of the network")
        chosen = labels
    own = of_true(ranked, chosen)
    others = ranked.scatter(-1, chosen.unsqueeze(-1), math.inf)
    best = others.min(dim=-1).values  # amin would share its gradient between equal ones
    return chosen, smallest(others), best - own.squeeze(-1)
