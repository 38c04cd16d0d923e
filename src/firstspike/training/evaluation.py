"""Evaluation of a network on a data set."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor, nn

from firstspike.data import SpikeData
from firstspike.layers import Ensemble, Network, Record
from firstspike.substrates import Substrate
from firstspike.training.silent import spiking_layers

_CHUNK = 1000  # samples at once: enough to keep all cores busy, little enough for any memory


@dataclass(frozen=True)
class Evaluation:
    """Loss, decisions and output times of a network on a data set.

    Args:
        loss: mean over the samples, without regularisers.
        accuracy: fraction of correct decisions; a sample without a decision counts as wrong.
        silent: silent fraction of each LIF layer.
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


class Decides(Protocol):
    """What an evaluation needs of a loss."""

    def loss(self, times: Tensor, labels: Tensor, /) -> Tensor:
        """Mean over the samples."""

    def predict(self, times: Tensor) -> Tensor:
        """Class of each sample, -1 where there is no decision."""


@torch.no_grad()
def evaluate(
    network: nn.Module, objective: Decides, data: SpikeData, substrate: Substrate | None = None
) -> Evaluation:
    """Evaluate a network, in evaluation mode, on all samples.

    Args:
        network: what to evaluate.
        objective: its loss, and its rule for decisions.
        data: the samples.
        substrate: an open one to run on; by default the exact one.
    """
    times, silent = outputs_of(network, data.times, substrate)
    return evaluation_of(times, silent, objective, data.labels)


@torch.no_grad()
def outputs_of(
    network: nn.Module, times: Float[Tensor, "samples inputs"], substrate: Substrate | None = None
) -> tuple[Float[Tensor, "samples outputs"], Float64[Tensor, " layers"]]:
    """Output times in evaluation mode, and the silent fraction of each LIF layer, summed over the samples."""
    outputs, silent = [], torch.zeros(len(spiking_layers(network)), dtype=torch.float64)
    with _evaluating(network):
        for part in times.split(_CHUNK):
            record = _run(network, part, substrate)
            outputs.append(record.output)
            silent += _silent(network, record)
    return torch.cat(outputs), silent


@torch.no_grad()
def evaluate_record(
    network: nn.Module, record: Record, objective: Decides, labels: Int64[Tensor, " samples"]
) -> Evaluation:
    """The same from spike times that are known already."""
    return evaluation_of(record.output, _silent(network, record), objective, labels)


@torch.no_grad()
def record_in_parts(
    network: nn.Module, times: Float[Tensor, "samples inputs"], substrate: Substrate | None = None
) -> Record:
    """Spike times of every layer in evaluation mode, computed in parts so that many samples fit in memory.

    With an open ``substrate`` the times are those of a single network as the substrate saw them.
    """
    with _evaluating(network):
        parts = [_run(network, part, substrate) for part in times.split(_CHUNK)]
    layers = tuple(torch.cat(layer, dim=-2) for layer in zip(*(part.layers for part in parts), strict=True))
    return Record(times if substrate is None else torch.cat([part.inputs for part in parts]), layers)


def confusion_counts(evaluation: Evaluation, classes: int | None = None) -> Int[np.ndarray, "classes decisions"]:
    """Number of samples of each true class (row) by decision (column).

    The last column, if there are any, counts the samples without a decision (``predictions`` -1).

    Args:
        evaluation: labels and predictions.
        classes: their number, by default that of the outputs; more where labels or predictions need them.
    """
    labels, predictions = evaluation.labels.cpu().numpy(), evaluation.predictions.cpu().numpy()
    size = max(classes or evaluation.times.shape[1], *(int(x.max(initial=-1)) + 1 for x in (labels, predictions)))
    counts = np.zeros((size, size + 1), dtype=np.int64)
    np.add.at(counts, (labels, predictions), 1)  # -1 is the last column
    return counts if counts[:, -1].any() else counts[:, :-1]


def evaluation_of(
    times: Float[Tensor, "samples outputs"],
    silent: Float64[Tensor, " layers"],
    objective: Decides,
    labels: Int64[Tensor, " samples"],
) -> Evaluation:
    """Loss and decisions from output times, with silent fractions summed over the samples."""
    predictions = objective.predict(times)
    return Evaluation(
        loss=float(objective.loss(times, labels)),
        accuracy=(predictions == labels).mean(dtype=torch.float64).item(),
        silent=tuple((silent / len(labels)).tolist()),
        times=times,
        predictions=predictions,
        labels=labels,
    )


def _run(network: nn.Module, times: Tensor, substrate: Substrate | None) -> Record:
    if substrate is not None and isinstance(network, Network):
        return substrate.run(network, times)
    if isinstance(network, Network | Ensemble):
        return network.record(times)
    return Record(times, (network(times),))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside: delays do not jitter."""
    trains = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(trains)


def _silent(network: nn.Module, record: Record) -> Float64[Tensor, " layers"]:
    """Silent fraction of each LIF layer, summed over the samples."""
    layers = [record.layers[index] for index in spiking_layers(network)]
    return torch.stack([torch.isinf(times).mean(dim=-1, dtype=torch.float64).sum() for times in layers]).cpu()
