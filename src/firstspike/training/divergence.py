"""Trainings that fail: numbers that are not finite, a network no better than guessing."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from firstspike.layers import Network
from firstspike.training.evaluation import Evaluation
from firstspike.training.member import Member

_UNDECIDED = 0.05  # share of samples in which all outputs are silent
_QUIET = 0.95  # share of silent neurons in a layer


class DivergedError(FloatingPointError):
    """A training whose weights are not finite any more. The message names the epoch."""


@contextmanager
def staying_finite(members: Sequence[Member], epoch: int, seeds: Sequence[int]) -> Iterator[None]:
    """A DivergedError if the networks are not finite after an epoch, in this block; also for errors due to this."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        if isinstance(error, ValueError) and all(_is_finite(member.network) for member in members):
            raise
        raise _diverged(members, epoch, seeds) from error
    if not all(_is_finite(member.network) for member in members):
        raise _diverged(members, epoch, seeds)


def _is_finite(network: nn.Module) -> bool:
    finite = [torch.isfinite(parameter).all() for parameter in network.parameters()]
    return not finite or bool(torch.stack(finite).all())


def _diverged(members: Sequence[Member], epoch: int, seeds: Sequence[int]) -> DivergedError:
    number = next((k for k, member in enumerate(members) if not _is_finite(member.network)), 0)
    seed = f", seed {seeds[number]}" if len(members) > 1 else ""
    lr = max(group.get("initial_lr", group["lr"]) for group in members[number].optimizer.param_groups)
    bounded = any(getattr(layer, "max_weight_grad", None) for layer in members[number].network.modules())
    bound = "" if bounded else ", or a bound on gradients, max_weight_grad"
    return DivergedError(
        f"the training diverged in epoch {epoch}{seed}: weights are not finite any more. Try a smaller learning rate "
        f"than {lr:g}{bound}{_of_silent(members[number].network)}"
    )


def _of_silent(network: nn.Module) -> str:
    """Another possible cause: a layer of torch's that computes with the times of silent neurons."""
    for name, module in () if isinstance(network, Network) else network.named_modules():  # there, values enter
        own = list(module.parameters(recurse=False))
        if type(module).__module__.startswith("torch.nn") and not all(bool(p.isfinite().all()) for p in own):
            return (
                f". Or do spike times enter the {type(module).__name__} {name!r}? A silent neuron has the time inf, "
                "which becomes NaN there: give it times.clamp(max=10), for instance"
            )
    return ""


def signs_of_failure(validation: Evaluation) -> list[str]:
    """Warnings about a trained network by its evaluation on the validation data; none if it has learnt."""
    found = []
    if not math.isfinite(validation.loss):
        found.append(f"the loss on the validation data is {validation.loss}")
    undecided = 1 - validation.decided / len(validation.labels)
    if undecided > _UNDECIDED and not validation.readout:
        found.append(
            f"in {100 * undecided:.1f} % of the validation data no output neuron spikes, which counts as wrong and "
            "gives no gradient: lower the last of SilentNeurons(limits=[...]), in a config training.silent.limits, or "
            "raise its increment"
        )
    if validation.readout and (dead := round(validation.dead_outputs * validation.times.shape[1])):
        why = "no spike reaches them or, of MaximumReadout, their membranes never rise; set negative_slope=0.1 there"
        found.append(f"{dead} outputs have the value 0 in most validation data of their class, and no gradient: {why}")
    if validation.silent and (most := max(validation.silent)) > _QUIET:
        found.append(
            f"{100 * most:.1f} % of the neurons of a layer are silent in the validation data, and have no gradient: "
            "start with start_firing_, add the regulariser SpikeCount(0.1, least=0.5), or lower the "
            "limits of SilentNeurons"
        )
    regression = validation.labels.is_floating_point()
    if regression and validation.score <= 0:
        means = "the labels' mean; scale them to numbers of about 1"
        if validation.labels.ndim == 3:
            means = "the mean number of spikes of the targets; SpikeErrors makes spikes appear and go"
        found.append(f"with r2 {validation.score:.3g} on the validation data the network is no better than {means}")
    counts = torch.zeros(1) if regression else torch.bincount(validation.labels)
    guess, samples = float(counts.max()) / len(validation.labels), len(validation.labels)
    if not regression and validation.accuracy <= guess + math.sqrt(guess * (1 - guess) / samples):
        found.append(
            f"with {100 * validation.accuracy:.1f} % of the validation data correct the network is no better than "
            f"guessing: the most frequent class makes up {100 * guess:.1f} % of {samples} samples"
        )
    return found
