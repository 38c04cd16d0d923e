"""The score of models of recorded neurons."""

import torch
from jaxtyping import Float

from firstspike.losses.trains import Trains, compact
from firstspike.ranges import Positive, checks_ranges


@checks_ranges
def coincidence_factor(
    output: Trains, target: Trains, precision: Positive, duration: Positive
) -> Float[torch.Tensor, "*batch outputs"]:
    """The coincidence factor Gamma of two trains: 1 if all spikes coincide, 0 if no more do than by chance::

        Gamma = (N - N_chance) / ((N_output + N_target) / 2) / (1 - p),    p = 2 precision N_output / duration

    N is the number of pairs of an output spike and a target no further apart than ``precision``, with each spike in one
    pair at most. ``N_chance = p N_target`` is the expected number for a Poisson process with the output's rate. Dense
    trains form fewer pairs, so their factor falls below 0. It has no gradient. Divide it by the factor between repeats
    of a recording to see how much of the reproducible part a model predicts.

    Args:
        output: trains of a model, ``(batch, outputs, spikes)`` or with other axes in front, in any order, ``inf`` for
            no spike.
        target: recorded trains; their axes in front are those of the output, or broadcast to them.
        precision: in the unit of the times.
        duration: of the recording.

    Returns:
        A number for each train, NaN where neither has a spike, or where ``p`` is 1 or more: then the precision is too
        coarse for the output's rate.

    Source: Kistler, Gerstner and van Hemmen 1997; Jolivet et al. 2006, "Predicting spike timing of neocortical
    pyramidal neurons by simple threshold models".
    """
    each = torch.broadcast_shapes(output.shape[:-1], target.shape[:-1])
    spread = (x.detach().expand(*each, -1).double() for x in (output, target))
    ours, theirs = (compact(x.reshape(-1, x.shape[-1])) for x in spread)
    near = torch.searchsorted(theirs, ours - precision)  # the first target that an output spike may be paired with
    theirs = torch.nn.functional.pad(theirs, (0, 1), value=torch.inf)
    used = pairs = torch.zeros(len(ours), dtype=torch.long, device=ours.device)
    for spike, first in zip(ours.unbind(-1), near.unbind(-1), strict=True):
        used = used.maximum(first)
        paired = spike.isfinite() & (theirs.gather(-1, used.unsqueeze(-1)).squeeze(-1) <= spike + precision)
        used, pairs = used + paired, pairs + paired
    count, wanted = ours.isfinite().sum(dim=-1), theirs.isfinite().sum(dim=-1)
    chance = 2 * precision * count / duration
    found = 2 * (pairs - chance * wanted) / (count + wanted) / (1 - chance)
    return torch.where(chance < 1, found, torch.nan).to(output.dtype).reshape(each)
