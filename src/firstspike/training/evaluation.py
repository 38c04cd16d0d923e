"""What a network makes of a data set, in parts that fit into memory.

How many samples there are at once follows from the widest layer, by an estimate of what one sample takes there: with
the kernels of the CPU about ten numbers for each input and output, with the reference backend about twelve for each
pair of them. It depends on nothing else, so that an evaluation with noise can be repeated.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from firstspike.data import SpikeData
from firstspike.layers import EarliestPool2d, Ensemble, LIFLayer, Network, Record
from firstspike.losses import TimeLoss
from firstspike.spiketime.operator import BACKENDS, resolve_backend
from firstspike.substrates import Exact, Substrate

PART_MEMORY = 2**30
"""Bytes that one layer may take for the samples that are evaluated at once, by a rough estimate."""

_ENOUGH = 1000  # samples that keep all cores busy
_BY_SIZE, _BY_PAIR = 10, 12  # numbers for each input and output, or each pair; measured, see the module


@dataclass(frozen=True)
class Evaluation:
    """Loss, decisions and output times of a network on a data set.

    Args:
        loss: mean over the samples, without regularisers.
        accuracy: fraction of correct decisions; a silent decision is a wrong one.
        silent: silent fraction of each layer in ``layers``.
        times: output times, ``inf`` where silent.
        predictions: class per sample, -1 where the deciding neuron is silent.
        labels: true classes.
    """

    loss: float
    accuracy: float
    silent: tuple[float, ...]
    times: Float[Tensor, "samples outputs"]
    predictions: Int64[Tensor, " samples"]
    labels: Int64[Tensor, " samples"]

    @property
    def accuracy_error(self) -> float:
        """Binomial standard error of the accuracy."""
        return float((self.accuracy * (1 - self.accuracy) / len(self.labels)) ** 0.5)

    @property
    def decided(self) -> int:
        """Number of samples with a decision."""
        return int((self.predictions >= 0).sum())

    @property
    def decision_time(self) -> float:
        """Mean time of the first output spike over the samples with a decision; NaN if there is none."""
        return self.times[self.predictions >= 0].amin(dim=-1).mean(dtype=torch.float64).item()


@torch.no_grad()
def evaluate(
    network: Network, loss: TimeLoss, data: SpikeData, layers: list[int], substrate: Substrate | None = None
) -> Evaluation:
    """Run the network, in evaluation mode, on all samples.

    Args:
        network: what runs.
        loss: what judges.
        data: the samples.
        layers: those whose silent fraction is asked for.
        substrate: an open one to run on; by default the exact one.
    """
    times, silent = outputs_of(network, data.times, layers, substrate)
    return judged(times, silent, loss, data.labels)


@torch.no_grad()
def outputs_of(
    network: Network | Ensemble,
    times: Float[Tensor, "samples inputs"],
    layers: list[int],
    substrate: Substrate | None = None,
) -> tuple[Float[Tensor, "*members samples outputs"], Float64[Tensor, "*members layers"]]:
    """Output times in evaluation mode, and the silent fraction of each layer in ``layers``, summed over the samples.

    Those of an ensemble have a leading dimension for the member. ``substrate`` is for a single network.
    """
    outputs, counts, widths = [], [], []
    for record in _records(network, times, substrate):
        outputs.append(record.output)
        counts.append(_silent(record, layers))
        widths = [record.layers[i].shape[-1] for i in layers]
    return torch.cat(outputs, dim=-2), _fractions(torch.stack(counts).sum(dim=0), widths)


@torch.no_grad()
def evaluate_record(record: Record, loss: TimeLoss, labels: Int64[Tensor, " samples"], layers: list[int]) -> Evaluation:
    """The same of spike times that are there already."""
    widths = [record.layers[i].shape[-1] for i in layers]
    return judged(record.output, _fractions(_silent(record, layers), widths), loss, labels)


@torch.no_grad()
def record_in_parts(
    network: Network | Ensemble, times: Float[Tensor, "samples inputs"], substrate: Substrate | None = None
) -> Record:
    """``network.record(times)`` in evaluation mode, in parts, so that many samples fit in memory.

    With an open ``substrate`` the times of a single network as that one saw them.
    """
    parts = list(_records(network, times, substrate))
    layers = tuple(torch.cat(layer, dim=-2) for layer in zip(*(part.layers for part in parts), strict=True))
    return Record(times if substrate is None else torch.cat([part.inputs for part in parts]), layers)


def confusion_counts(evaluation: Evaluation) -> Int[np.ndarray, "classes decisions"]:
    """Number of samples of each true class (row) by decision (column).

    Columns are the outputs, and last, if there are any, the samples without a decision (``predictions`` -1).
    """
    labels, predictions = evaluation.labels.cpu().numpy(), evaluation.predictions.cpu().numpy()
    outputs = evaluation.times.shape[1]
    counts = np.zeros((outputs, outputs + 1), dtype=np.int64)
    np.add.at(counts, (labels, predictions), 1)  # -1 is the last column
    return counts if counts[:, -1].any() else counts[:, :-1]


def samples_at_once(
    network: Network | Ensemble, times: Float[Tensor, "samples inputs"], substrate: Substrate | None = None
) -> int:
    """How many samples are evaluated at once, see ``PART_MEMORY``.

    On the CPU, and on substrates, at most as many as keep all cores busy.

    Args:
        network: what runs.
        times: the samples; their number does not matter.
        substrate: what it runs on; by default the exact one.
    """
    members = network.members if isinstance(network, Ensemble) else (network,)
    layers: Iterable[Any] = members[0]
    size, widest = times.shape[-1], 1
    for layer in layers:
        before, size = size, layer.output_size(size)
        places, inputs, outputs = 1, before, size
        if isinstance(layer, LIFLayer):
            outputs, inputs = layer.synapses.shape
            places = layer.out_features // outputs
        elif isinstance(layer, EarliestPool2d):
            places, inputs, outputs = size, math.prod(layer.window.kernel), 1
        numbers = _BY_SIZE * places * (inputs + outputs)
        if isinstance(layer, LIFLayer) and resolve_backend(layer.backend, times.device) is BACKENDS["reference"]():
            numbers = max(numbers, _BY_PAIR * places * inputs * outputs)
        widest = max(widest, numbers)
    most = PART_MEMORY // (len(members) * widest * times.element_size())
    many = times.device.type != "cpu" and (substrate is None or isinstance(substrate, Exact))
    return max(1, most if many else min(most, _ENOUGH))


def _records(
    network: Network | Ensemble, times: Float[Tensor, "samples inputs"], substrate: Substrate | None
) -> Iterator[Record]:
    """Spike times of all layers, part after part, in evaluation mode."""
    run = partial(substrate.run, network) if substrate is not None and isinstance(network, Network) else network.record
    with _evaluating(network):
        for part in times.split(samples_at_once(network, times, substrate)):
            yield run(part)


@contextmanager
def _evaluating(network: Network | Ensemble) -> Iterator[None]:
    """Evaluation mode, in which delays do not jitter, for a while."""
    trains = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(trains)


def _silent(record: Record, layers: list[int]) -> Int64[Tensor, "*members layers"]:
    """Silent neurons of each layer, counted over the samples; whole numbers, which add up to the same in any parts."""
    return torch.stack([torch.isinf(record.layers[i]).sum(dim=(-2, -1)) for i in layers], dim=-1).cpu()


def _fractions(counts: Int64[Tensor, "*members layers"], widths: Sequence[int]) -> Float64[Tensor, "*members layers"]:
    """Silent fractions, summed over the samples."""
    return counts.double() / torch.tensor(widths, dtype=torch.float64)


def judged(
    times: Float[Tensor, "samples outputs"],
    silent: Float64[Tensor, " layers"],
    loss: TimeLoss,
    labels: Int64[Tensor, " samples"],
) -> Evaluation:
    """What a loss makes of output times, with silent fractions summed over the samples."""
    predictions = loss.predict(times)
    return Evaluation(
        loss=loss(times, labels).item(),
        accuracy=(predictions == labels).mean(dtype=torch.float64).item(),
        silent=tuple((silent / len(labels)).tolist()),
        times=times,
        predictions=predictions,
        labels=labels,
    )
