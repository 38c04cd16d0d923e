"""A result folder of the original: its files, the losses and accuracies over training, and the saved spike times."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.data import SpikeData
from firstspike.data.tables import read_arrays

EXPECTED = 5e-5
"""The original adds 1e-6 to denominators, which shifts spike times by up to about this much (in tau_syn)."""

_TEST = {"times": "_test_spiketimes.npy", "labels": "_test_labels.npy", "inputs": "_test_inputs.npy"}
_CURVES = {
    "train_loss": "_train_losses.npy",
    "train_accuracy": "_train_accuracies.npy",
    "validation_loss": "_val_losses.npy",
    "validation_accuracy": "_val_accuracies.npy",
}
_SAME_SAMPLES = ("yin_yang", "mnist_16x16")  # data sets whose samples are the same, in the same order


class ResultsError(Exception):
    """Saved results that are missing or do not fit; the message gives the reason."""


@dataclass(frozen=True)
class ResultFiles:
    """Files of a result folder, None if they are missing.

    ``epoch``: after how many epochs, None if no folder name contains it. ``tests``: files of the test data, by
    ``times``, ``labels`` and ``inputs``. ``curves``: files of losses and accuracies, by the names of our columns.
    """

    config: Path
    network: Path | None
    epoch: int | None
    tests: dict[str, Path]
    curves: dict[str, Path]


def find_files(folder: Path) -> ResultFiles:
    """Find config, network and test results in a result folder, or in one ``epoch_N`` of it.

    A folder with ``epoch_N`` folders and without a network means the last of them.

    Raises:
        FileNotFoundError: no config.
        ValueError: several networks.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such file or folder")
    numbered = [(number, inner) for inner in folder.glob("epoch_*") if (number := _epoch(inner)) is not None]
    places = [(_epoch(folder), folder), *sorted(numbered, reverse=True)]
    found = ((epoch, place, network) for epoch, place in places if (network := _network(place)))
    epoch, place, network = next(found, (*places[0], None))
    config = next((p for x in (place, folder, folder.parent) if (p := x / "config.yaml").is_file()), None)
    if config is None:
        raise FileNotFoundError(f"{folder} has no config.yaml; give a result folder of fastAndDeep, or a YAML file")
    if network is None:
        return ResultFiles(config, None, epoch, {}, {})
    prefix = network.name.removesuffix("_network.pt")
    tests, curves = (
        {key: path for key, end in ends.items() if (path := place / f"{prefix}{end}").is_file()}
        for ends in (_TEST, _CURVES)
    )
    return ResultFiles(config, network, epoch, tests, curves)


def _epoch(folder: Path) -> int | None:
    match = re.fullmatch(r"epoch_(\d+)", folder.resolve().name)
    return int(match[1]) if match else None


def _network(folder: Path) -> Path | None:
    found = [path for path in sorted(folder.glob("*_network.pt")) if "_untrained_" not in path.name]
    if len(found) > 1:
        raise ValueError(f"{folder} has several networks: {', '.join(path.name for path in found)}; keep one")
    return found[0] if found else None


def metrics(files: dict[str, Path], rates: list[float], layers: list[int]) -> list[dict[str, float | int | str]]:
    """Rows of ``metrics.csv`` from ``ResultFiles.curves``; values that the original does not save are NaN.

    There are as many rows as ``rates``, learning rates at the end of each epoch. ``layers`` are indices of our LIF
    layers. Curves of the validation begin before the first epoch.

    Raises:
        ResultsError: files are missing, or do not fit the number of epochs.
    """
    unknown = dict.fromkeys(["raised", *(f"silent_{layer}" for layer in layers)], math.nan)
    columns: dict[str, list[float]] = {"lr": rates}
    for name in _CURVES:
        if name not in files:
            raise ResultsError("no losses and accuracies were saved")
        values, before = _load(files[name]), int(name.startswith("validation"))
        if values.ndim != 1 or len(values) != len(rates) + before:
            raise ResultsError(f"{files[name].name} has the shape {values.shape} for {len(rates)} epochs")
        columns[name] = values[before:].tolist()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [{"epoch": epoch, **row, **unknown} for epoch, row in enumerate(rows, 1)]


def saved_spike_times(files: dict[str, Path], test: SpikeData, kind: str) -> tuple[Float[np.ndarray, "..."], Tensor]:
    """The saved spike times of the outputs ``(samples, neurons)``, and the inputs ``(samples, features)`` they are for.

    ``files`` are ``ResultFiles.tests``, ``test`` and ``kind`` our test data and our name of the data set.

    Raises:
        ResultsError: files are missing or do not fit, or it is not known which samples they are for.
    """
    if "times" not in files:
        raise ResultsError("no spike times were saved for the test data")
    times = _load(files["times"])
    if "inputs" in files:
        saved = _load(files["inputs"])
        if saved.ndim != 2 or len(saved) != len(times) or saved.shape[1] < test.features:
            raise ResultsError(f"{files['inputs'].name} does not fit: its shape is {saved.shape}")
        # copies and constant inputs come after the features
        return times, torch.from_numpy(saved[:, : test.features]).to(test.dense)
    if kind == "mnist":
        raise ResultsError("the original scales pixels differently, and its input times were not saved")
    if kind not in _SAME_SAMPLES:
        raise ResultsError(f"the samples of {kind} are drawn at random, and the original's were not saved")
    if "labels" in files and not np.array_equal(_load(files["labels"]).ravel(), test.labels.cpu().numpy()):
        raise ResultsError(f"{files['labels'].name} has other labels than the test data: the samples differ")
    return times, test.dense


def _load(path: Path) -> np.ndarray:
    """Numbers of an ``.npy`` file, never a pickled object."""
    try:
        array = read_arrays(path).get("")
    except ValueError as error:
        raise ResultsError(str(error)) from None
    if array is None or array.dtype.kind not in "fiu":
        raise ResultsError(f"{path.name} holds no numbers")
    return array.astype(np.float64) if array.dtype.kind == "f" else array


@dataclass(frozen=True)
class Comparison:
    """Output spike times of the original and ours on the same samples.

    ``largest`` is the largest difference where both spike, in units of the times. The others are numbers of samples and
    of (sample, neuron) pairs: ``above`` has a difference above ``EXPECTED``, in ``only_theirs`` and ``only_ours`` only
    one of them spikes.
    """

    samples: int
    largest: float
    above: int
    only_theirs: int
    only_ours: int
    pairs: int

    def __str__(self) -> str:
        text = f"spike times of {self.samples} test samples differ by at most {self.largest:.2g}"
        if self.above:
            text += f", {self.above} of {self.pairs} by more than {EXPECTED:g}"
        if self.only_theirs or self.only_ours:
            text += f"; {self.only_theirs} spikes are only the original's, {self.only_ours} only ours"
        return text


def compare(theirs: Float[np.ndarray, "..."], ours: Float[np.ndarray, "samples neurons"]) -> Comparison:
    """Compare spike times ``(samples, neurons)``; inf and NaN are no spike.

    Raises:
        ResultsError: the shapes differ.
    """
    if theirs.shape != ours.shape:
        raise ResultsError(f"the file of spike times has the shape {theirs.shape}, the test data gives {ours.shape}")
    a, b = np.isfinite(theirs), np.isfinite(ours)
    gap = np.abs(np.where(a & b, theirs, 0.0) - np.where(a & b, ours, 0.0))
    above, only_theirs, only_ours = (int(found.sum()) for found in (gap > EXPECTED, a & ~b, b & ~a))
    return Comparison(len(ours), float(gap.max(initial=0.0)), above, only_theirs, only_ours, gap.size)
