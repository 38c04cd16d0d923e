"""Trainings that fail: numbers that are not finite, a network no better than guessing."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from firstspike.layers import MaximumReadout, Network
from firstspike.training.evaluation import Evaluation
from firstspike.training.fit import Row
from firstspike.training.member import Member

_UNDECIDED = 0.05  # share of samples in which all outputs are silent
_QUIET = 0.95  # share of silent neurons in a layer
_FULL = 0.5  # share of full trains in a layer


@dataclass(frozen=True)
class Cures:
    """What helps a network whose neurons are silent or burst, in Python's terms or by a config's ``keys``.

    ``misfit``: the times of its inputs do not fit its neurons, as a warning has said.
    """

    network: nn.Module | None = None
    keys: bool = False
    misfit: bool = False

    @property
    def of_silence(self) -> str:
        """For layers that are silent."""
        limits = "training.silent.limits" if self.keys else "the limits of SilentNeurons"
        found = ", ".join([*self._starts(), self._counts("least", "0.5"), f"or lower {limits}"])
        return f"fit the unit of the times to the time constants, as said above, or {found}" if self.misfit else found

    def of_bursts(self, most: str) -> str:
        """For layers whose neurons spike too often."""
        return ", ".join([*self._starts(), self._counts("most", most), "or raise max_spikes"])

    @property
    def of_outputs(self) -> str:
        """For silent outputs."""
        names = ("the last of SilentNeurons(limits=[...])", "its increment")
        last, step = ("the last of training.silent.limits", "training.silent.increment") if self.keys else names
        return f"lower {last}, or raise {step}"

    def of_readout(self, reached: bool) -> str:
        """For outputs of a readout that are 0; ``reached``: although spikes arrive."""
        for index, layer in enumerate(self._layers if reached else ()):
            if isinstance(layer, MaximumReadout):
                how = f"network[{index}].negative_slope: 0.1" if self.keys else "MaximumReadout(negative_slope=0.1)"
                return f"their membranes never rise above rest: {', '.join([*self._starts(), how])}"
        return f"no spike reaches them: {self.of_silence}"

    @property
    def _layers(self) -> list[Any]:
        return list(self.network) if isinstance(self.network, Network) else []

    def _starts(self) -> list[str]:
        if not self.keys:
            return ["start with start_firing_"]
        given = any(getattr(layer, "weight_mean", None) is not None for layer in self._layers)
        return ["leave out weight_mean and weight_std"] if given else []

    def _counts(self, bound: str, number: str) -> str:
        if self.keys:
            return f"add {{kind: spike_count, alpha: 0.1, {bound}: {number}}} to loss.regularizers"
        return f"add the regulariser SpikeCount(0.1, {bound}={number})"


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


def signs_of_silence(validation: Evaluation | None, row: Row, cures: Cures, early: bool = False) -> list[str]:
    """Warnings about layers that are nearly silent, trains that are full, and outputs without gradient.

    ``row`` has the metrics of an epoch, and may be empty. ``early`` in a training, most outputs have to be dead.
    """
    found, where = [], "training data" if validation is None else "validation data"
    layers = [name.removeprefix("silent_") for name in row if name.startswith("silent_")]
    silent = [float(row[f"silent_{layer}"]) for layer in layers] if validation is None else validation.silent
    if silent and (most := max(silent)) > _QUIET:
        layer = f"layer {layers[silent.index(most)]}" if layers else "a layer"
        found.append(
            f"{100 * most:.1f} % of the neurons of {layer} are silent in the {where}, and have no gradient: "
            f"{cures.of_silence}"
        )
    for layer in layers:
        full, spikes = (float(row.get(f"{what}_{layer}", 0.0)) for what in ("full", "spikes"))
        if full > _FULL and spikes > full:  # trains of one spike are meant to be full
            found.append(
                f"{100 * full:.0f} % of the trains of layer {layer} are full in the training data: its neurons burst, "
                f"and spikes beyond max_spikes are lost; {cures.of_bursts(f'{spikes / 2:.2g}')}"
            )
    if validation is None:
        return found
    outputs = len(validation.idle) or validation.times.shape[1]
    dead = round(validation.dead_outputs * outputs)
    if 2 * dead > (outputs if early else 0) and (validation.readout or early):
        what, why = f"{dead} output neurons are silent in", cures.of_outputs
        if validation.readout:
            reached = max(silent, default=0.0) <= _QUIET
            what, why = f"{dead} outputs have the value 0 in", cures.of_readout(reached)
        own = "" if validation.idle else " of their class"
        found.append(f"{what} most validation data{own}, and no gradient: {why}")
    return found


def signs_of_failure(validation: Evaluation | None, row: Row, cures: Cures = Cures()) -> list[str]:
    """Warnings about a trained network by its last metrics and evaluation on validation data; none if it has learnt."""
    found = signs_of_silence(validation, row, cures)
    if validation is None:
        return found
    if not math.isfinite(validation.loss):
        found.append(f"the loss on the validation data is {validation.loss}")
    undecided = 1 - validation.decided / len(validation.labels)
    if undecided > _UNDECIDED and not validation.readout:
        found.append(
            f"in {100 * undecided:.1f} % of the validation data no output neuron spikes, which counts as wrong and "
            f"gives no gradient: {cures.of_outputs}"
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
