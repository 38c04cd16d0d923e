"""Evaluation of a network on a data set, in parts that fit into memory.

The number of samples at once follows from the widest layer, by an estimate of the memory of one sample there: about ten
numbers for each input and output. It depends on nothing else, so that an evaluation with noise can be repeated.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor, nn

from firstspike.data import EventLists, SpikeData
from firstspike.data.events import padded_alike
from firstspike.deferred import raise_deferred_errors
from firstspike.layers import EarliestPool2d, MergePool2d, Network, Record, SpikingLayer, SpikingRecurrent
from firstspike.layers.ensembles import Ensemble
from firstspike.layers.noise import evaluating
from firstspike.layers.trains import form_of, of_values
from firstspike.substrates import Exact, Substrate
from firstspike.training.objective import Objective, numbers_of
from firstspike.training.silent import activity_counts, fractions, spiking_layers

PART_MEMORY = 2**30
"""Bytes that one layer may take for the samples that are evaluated at once, by a rough estimate."""

_ENOUGH = 1000  # samples that keep all cores busy
_NUMBERS = 10  # for each input and output; measured


@dataclass(frozen=True)
class Evaluation:
    """Loss, decisions and output times of a network on a data set, or the values of its readout.

    Args:
        loss: mean over the samples, without regularisers.
        accuracy: fraction of correct decisions. A sample without a decision is wrong. NaN if labels are numbers.
        silent: silent fraction of each LIF layer.
        times: output times, ``inf`` if silent; for a readout its values.
        predictions: class per sample, -1 if the deciding neuron is silent; or the predicted numbers.
        labels: true classes, or numbers.
        readout: whether ``times`` are the values of a readout.
        metrics: further numbers by name: for numerical labels ``mae`` and ``mse``, the mean absolute and squared error,
            and ``r2``, the fraction of the variance that is explained (of target trains, of the numbers of spikes); and
            those that the ``Trainer`` was given.
        idle: if modules of values come after a readout, the fraction of samples in which each of its outputs is 0.
    """

    loss: float
    accuracy: float
    silent: tuple[float, ...]
    times: Float[Tensor, "samples outputs"]
    predictions: Int64[Tensor, " samples"] | Float[Tensor, "samples outputs"]
    labels: Int64[Tensor, " samples"] | Float[Tensor, "samples outputs"]
    readout: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    idle: tuple[float, ...] = ()

    def __repr__(self) -> str:
        return f"Evaluation({success_text(vars(self))}, loss {self.loss:.4g}, {len(self.labels)} samples)"

    @property
    def score(self) -> float:
        """The score to be maximised: the accuracy, or ``r2``."""
        return self.metrics.get("r2", self.accuracy)

    @property
    def scores(self) -> dict[str, float]:
        """Loss, accuracy if there is one, and the metrics."""
        return {"loss": self.loss, **({} if math.isnan(self.accuracy) else {"accuracy": self.accuracy}), **self.metrics}

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy, for the number of samples (Wilson 1927)."""
        return wilson(self.accuracy, len(self.labels))

    @property
    def decided(self) -> int:
        """Number of samples with a decision."""
        return len(self.labels) if self.labels.is_floating_point() else int((self.predictions >= 0).sum())

    @property
    def dead_outputs(self) -> float:
        """Fraction of outputs without a gradient in most samples of their class: silent, or readouts at exactly 0.

        If labels are numbers, the data lack a class, or modules of values come after a readout, in most of all samples.
        """
        if self.idle:
            return sum(share > 0.5 for share in self.idle) / len(self.idle)
        dead = self.times == (0 if self.readout else math.inf)
        dead = dead.all(dim=-1) if dead.ndim > 2 else dead
        own = torch.ones_like(dead)
        if not self.labels.is_floating_point():
            own = self.labels[:, None] == torch.arange(dead.shape[1], device=dead.device)
            own = own | ~own.any(dim=0)
        return float(((dead & own).sum(dim=0) > 0.5 * own.sum(dim=0)).double().mean())

    @property
    def decision_time(self) -> float:
        """Mean time of the first output spike over the samples with a decision; NaN if nothing decides by a time."""
        if self.readout or self.times.ndim > 2:
            return math.nan
        return self.times[self.predictions >= 0].amin(dim=-1).mean(dtype=torch.float64).item()


def wilson(share: float, samples: int, z: float = 1.96) -> tuple[float, float]:
    """Confidence interval of a fraction of a number of samples (Wilson 1927); with this ``z`` of 95 %."""
    middle = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    width = z * math.sqrt(share * (1 - share) / samples + (z / (2 * samples)) ** 2) / (1 + z * z / samples)
    return middle - width, middle + width


def success_text(found: Mapping[str, Any], digits: int = 2) -> str:
    """The accuracy of an evaluation, of its fields or as in ``results.json``, or its error; then other metrics.

    After the accuracy comes its standard deviation over several seeds, or its 95 % interval for one.
    """
    accuracy, metrics = found.get("accuracy"), found.get("metrics") or {}
    parts = []
    if accuracy is not None and not math.isnan(accuracy):
        text = f"accuracy {100 * accuracy:.{digits}f}"
        if "accuracy_std" in found:
            parts.append(f"{text} ± {100 * found['accuracy_std']:.{digits}f} %")
        else:
            low, high = wilson(accuracy, found["samples"] if "samples" in found else len(found["labels"]))
            parts.append(f"{text} % ({100 * low:.{digits}f} to {100 * high:.{digits}f})")
    return ", ".join([*parts, *(f"{name} {value:.4g}" for name, value in metrics.items())])


@torch.no_grad()
def evaluate(
    network: nn.Module, objective: Objective, data: SpikeData, substrate: Substrate | None = None
) -> Evaluation:
    """Evaluate a network, in evaluation mode, on all samples, and on an open substrate."""
    times, silent = outputs_of(network, data.times, substrate)
    return evaluation_of(network, times, silent, objective, data.labels)


@torch.no_grad()
def outputs_of(
    network: nn.Module, times: Float[Tensor, "samples inputs"] | EventLists, substrate: Substrate | None = None
) -> tuple[Float[Tensor, "*members samples outputs"], Float64[Tensor, "*members layers"]]:
    """Output times in evaluation mode, and what ``_silent`` counts, as fractions summed over the samples.

    Those of an ensemble have a leading dimension for the member. ``substrate`` is for a single network.
    """
    parts = [(record.output, *_silent(network, record)) for record in _records(network, times, substrate)]
    outputs, counts, (neurons, *_) = zip(*parts, strict=True)
    output = torch.cat(outputs, dim=int(isinstance(network, Ensemble)))
    return output, fractions(torch.stack(counts).sum(dim=0), neurons)


@torch.no_grad()
def evaluate_record(
    network: nn.Module, record: Record, objective: Objective, labels: Int64[Tensor, " samples"]
) -> Evaluation:
    """Evaluate a network from the spike times of all its layers, which are known already."""
    return evaluation_of(network, record.output, fractions(*_silent(network, record)), objective, labels)


@torch.no_grad()
def record_in_parts(
    network: nn.Module, times: Float[Tensor, "samples inputs"] | EventLists, substrate: Substrate | None = None
) -> Record:
    """Spike times of every layer in evaluation mode, computed in parts so that many samples fit in memory.

    With an open ``substrate`` the times are those of a single network as the substrate saw them.
    """
    warn_of_unseen(network, times)
    parts = list(_records(network, times, substrate))
    place = int(isinstance(network, Ensemble))  # whose members come first
    layers = tuple(torch.cat(layer, dim=place) for layer in zip(*(part.layers for part in parts), strict=True))
    if substrate is None and isinstance(times, Tensor):
        return Record(times, layers)
    # parts of event lists are as long as they need to be
    return Record(torch.cat(padded_alike([part.inputs for part in parts])), layers)


def warn_of_unseen(network: nn.Module, times: Float[Tensor, "samples inputs *spikes"] | EventLists) -> None:
    """Warn of input spikes after the ``duration`` of a layer: they reach nothing that comes after it."""
    end = min((x.duration for x in network.modules() if isinstance(x, SpikingRecurrent)), default=math.inf)
    if end == math.inf:
        return
    spikes = (times.when if isinstance(times, EventLists) else times).detach()
    late = spikes[(spikes > end) & (spikes < math.inf)]
    if len(late):
        warnings.warn(
            f"{len(late)} of {int(torch.isfinite(spikes).sum())} input spikes come after duration={end:g} of a layer, "
            f"the last at {float(late.max()):g}; they have no effect: raise duration, or leave them out",
            stacklevel=4,
        )


def confusion_counts(evaluation: Evaluation, classes: int | None = None) -> Int[np.ndarray, "classes decisions"]:
    """Number of samples of each true class (row) by decision (column).

    The last column, if there are any, counts the samples without a decision (``predictions`` -1). There are as many
    classes as outputs, or as given, and more if labels or predictions need them.
    """
    labels, predictions = evaluation.labels.cpu().numpy(), evaluation.predictions.cpu().numpy()
    size = max(classes or evaluation.times.shape[1], *(int(x.max(initial=-1)) + 1 for x in (labels, predictions)))
    counts = np.zeros((size, size + 1), dtype=np.int64)
    np.add.at(counts, (labels, predictions), 1)  # -1 is the last column
    return counts if counts[:, -1].any() else counts[:, :-1]


def evaluation_of(
    network: nn.Module,
    times: Float[Tensor, "samples outputs"],
    silent: Float64[Tensor, " layers"],
    objective: Objective,
    labels: Int64[Tensor, " samples"],
) -> Evaluation:
    """Loss and decisions from output times, with the fractions of ``outputs_of``, for the network or the like."""
    metrics = {name: torch.as_tensor(metric(times, labels)) for name, metric in objective.metrics.items()}
    success = objective.success(times, labels).mean(dtype=torch.float64)
    if labels.is_floating_point():
        found, wanted = (numbers_of(x, labels.ndim > 2).double() for x in (times, labels))
        square, spread = (found - wanted).square().mean(dim=0), wanted.var(dim=0, correction=0)
        explained = torch.where(spread > 0, 1 - square / spread, math.nan)  # constant labels have no variance
        metrics = {"mae": success, "mse": square.mean(), "r2": explained.mean(), **metrics}
        success = success.new_full((), math.nan)
    loss, *others = (x.double().view(1) for x in (torch.as_tensor(objective.loss(times, labels)), *metrics.values()))
    numbers = [loss, success.view(1), *others, silent / len(labels)]
    mean_loss, accuracy, *rest = torch.cat([x.to(times.device) for x in numbers]).tolist()  # wait for a GPU once
    raise_deferred_errors()
    layers = len(metrics) + len(spiking_layers(network))
    return Evaluation(
        loss=mean_loss,
        accuracy=accuracy,
        silent=tuple(rest[len(metrics) : layers]),
        times=times,
        predictions=times if labels.is_floating_point() else objective.predict(times),
        labels=labels,
        metrics=dict(zip(metrics, rest, strict=False)),
        readout=(objective.gives or getattr(objective.loss, "reads", None)) == "values",
        idle=tuple(rest[layers:]),
    )


def samples_at_once(
    network: nn.Module, times: Float[Tensor, "samples inputs"] | EventLists, substrate: Substrate | None = None
) -> int:
    """How many samples are evaluated at once, see ``PART_MEMORY``. Their number in ``times`` does not matter.

    On the CPU, and on substrates, at most as many as keep all cores busy.
    """
    if not isinstance(network, Network | Ensemble):
        return _ENOUGH
    members = network.members if isinstance(network, Ensemble) else (network,)
    layers: Iterable[Any] = members[0]
    size, spikes, widest = times.shape[1], math.prod(times.shape[2:]), 1
    for layer in layers:
        if of_values(layer):
            break
        places, inputs, outputs = 1, size, layer.output_size(size)
        size = outputs
        if isinstance(layer, SpikingLayer):
            outputs, inputs = layer.matrix_shape
            places = layer.out_features // outputs
        elif isinstance(layer, EarliestPool2d | MergePool2d):
            places, inputs, outputs = size, math.prod(layer.window.kernel), 1
        before, merged = spikes, inputs if isinstance(layer, MergePool2d) else 1
        spikes = getattr(layer, "max_spikes", spikes * merged) if form_of(layer) == "trains" else 1
        widest = max(widest, _NUMBERS * places * (before * inputs + spikes * outputs))
    most = PART_MEMORY // (len(members) * widest * times.dtype.itemsize)
    many = times.device.type != "cpu" and (substrate is None or isinstance(substrate, Exact))
    return max(1, most if many else min(most, _ENOUGH))


def _records(
    network: nn.Module, times: Float[Tensor, "samples inputs"] | EventLists, substrate: Substrate | None
) -> Iterator[Record]:
    """Spike times of all layers, part after part, in evaluation mode."""
    with evaluating(network):
        for part in times.split(samples_at_once(network, times, substrate)):
            if substrate is not None and isinstance(network, Network):
                yield substrate.run(network, part)
            elif isinstance(network, Network | Ensemble):
                yield network.record(part)
            else:
                yield Record(part, (network(part),))


def _silent(network: nn.Module, record: Record) -> tuple[Float64[Tensor, "*members layers"], list[int]]:
    """Silent neurons of each LIF layer, counted over the samples, and the neurons of each; then ``Evaluation.idle``."""
    one = network.members[0] if isinstance(network, Ensemble) else network
    (counts, neurons), layers = activity_counts(one, record.layers), len(spiking_layers(one))
    counts, neurons = counts[..., :layers], neurons[:layers]
    if not isinstance(one, Network) or not len(one) or not of_values(one[-1]):
        return counts, neurons
    read = next(x for layer, x in zip(one, record.layers, strict=True) if form_of(layer) == "values")
    idle = (read == 0).sum(dim=-2, dtype=torch.float64)
    return torch.cat([counts, idle], dim=-1), [*neurons, *[1] * idle.shape[-1]]
