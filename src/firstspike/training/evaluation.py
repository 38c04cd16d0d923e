"""What a network makes of a data set."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from firstspike.data import SpikeData
from firstspike.layers import Ensemble, Network, Record
from firstspike.losses import TimeLoss
from firstspike.substrates import Substrate

_CHUNK = 1000  # samples at once: enough to keep all cores busy, little enough for any memory


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
    network: Network, times: Float[Tensor, "samples inputs"], layers: list[int], substrate: Substrate | None = None
) -> tuple[Float[Tensor, "samples outputs"], Float64[Tensor, " layers"]]:
    """Output times in evaluation mode, and the silent fraction of each layer in ``layers``, summed over the samples."""
    run = network.record if substrate is None else partial(substrate.run, network)
    outputs = []
    silent = torch.zeros(len(layers), dtype=torch.float64)
    with _evaluating(network):
        for part in times.split(_CHUNK):
            record = run(part)
            outputs.append(record.output)
            silent += _silent(record, layers)
    return torch.cat(outputs), silent


@torch.no_grad()
def evaluate_record(record: Record, loss: TimeLoss, labels: Int64[Tensor, " samples"], layers: list[int]) -> Evaluation:
    """The same of spike times that are there already."""
    return judged(record.output, _silent(record, layers), loss, labels)


@torch.no_grad()
def record_in_parts(
    network: Network | Ensemble, times: Float[Tensor, "samples inputs"], substrate: Substrate | None = None
) -> Record:
    """``network.record(times)`` in evaluation mode, in parts, so that many samples fit in memory.

    With an open ``substrate`` the times of a single network as that one saw them.
    """
    run = partial(substrate.run, network) if substrate is not None and isinstance(network, Network) else network.record
    with _evaluating(network):
        parts = [run(part) for part in times.split(_CHUNK)]
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


@contextmanager
def _evaluating(network: Network | Ensemble) -> Iterator[None]:
    """Evaluation mode, in which delays do not jitter, for a while."""
    trains = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(trains)


def _silent(record: Record, layers: list[int]) -> Float64[Tensor, " layers"]:
    """Silent fraction of each layer, summed over the samples."""
    return torch.stack([torch.isinf(record.layers[i]).mean(dim=-1, dtype=torch.float64).sum() for i in layers]).cpu()


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
