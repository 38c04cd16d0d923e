"""A result folder of the original: its files, the losses and accuracies over training, and the saved spike times."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from firstspike.data import SpikeData

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
    """Saved results that are missing or do not fit; the message says why."""


@dataclass(frozen=True)
class ResultFiles:
    """Files of a result folder.

    Args:
        config: the YAML file.
        network: the pickled network, None if there is none.
        trained: whether it is the trained one.
        epoch: after how many epochs, None if no folder name says it.
        tests: spike times, labels and inputs saved for the test data, by these names; those that exist.
        curves: losses and accuracies over training, by the names of our columns; those that exist.
    """

    config: Path
    network: Path | None
    trained: bool
    epoch: int | None
    tests: dict[str, Path]
    curves: dict[str, Path]


def find_files(folder: Path, name: str | None = None) -> ResultFiles:
    """Find config, network and test results.

    A folder that has ``epoch_N`` folders and no network of its own stands for the last of them.

    Args:
        folder: a result folder, or one ``epoch_N`` of it.
        name: the original's name of the data set, with which its files begin; by default any.

    Raises:
        FileNotFoundError: no config.
        ValueError: several networks.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such file or folder")
    place, epoch, network = folder, _epoch(folder), _network(folder, name, "_network.pt")
    if network is None and epoch is None:
        numbered = [(number, inner) for inner in folder.glob("epoch_*") if (number := _epoch(inner)) is not None]
        for number, inner in sorted(numbered, reverse=True):
            if network := _network(inner, name, "_network.pt"):
                place, epoch = inner, number
                break
    prefix = name if network is None else network.name.removesuffix("_network.pt")
    configs = [p for p in (place / "config.yaml", folder / "config.yaml", folder.parent / "config.yaml") if p.is_file()]
    if not configs:
        raise FileNotFoundError(f"{folder} has no config.yaml; give a result folder of fastAndDeep, or a YAML file")

    def existing(ends: dict[str, str]) -> dict[str, Path]:
        return {key: path for key, end in ends.items() if (path := place / f"{prefix}{end}").is_file()}

    untrained = None if network else _network(folder, name, "_untrained_network.pt")
    return ResultFiles(configs[0], network or untrained, network is not None, epoch, existing(_TEST), existing(_CURVES))


def _epoch(folder: Path) -> int | None:
    match = re.fullmatch(r"epoch_(\d+)", folder.resolve().name)
    return int(match[1]) if match else None


def _network(folder: Path, name: str | None, end: str) -> Path | None:
    found = sorted(folder.glob(f"*{end}"))
    if end == "_network.pt":
        found = [path for path in found if not path.name.endswith("_untrained_network.pt")]
    named = [path for path in found if path.name == f"{name}{end}"]
    if len(found) > 1 and not named:
        raise ValueError(f"{folder} has several networks: {', '.join(path.name for path in found)}; keep one")
    return next(iter(named or found), None)


def metrics(files: dict[str, Path], rates: list[float], layers: list[int]) -> list[dict[str, float | int | str]]:
    """Rows of ``metrics.csv``; what the original does not save is NaN.

    Args:
        files: its files by the names of our columns. Those of the validation begin before the first epoch.
        rates: learning rate at the end of each epoch; there are as many rows.
        layers: indices of our LIF layers.

    Raises:
        ResultsError: files are missing, or do not fit the number of epochs.
    """
    unknown = dict.fromkeys(["raised", *(f"silent_{layer}" for layer in layers)], math.nan)
    columns: dict[str, np.ndarray] = {}
    for name in _CURVES:
        if name not in files:
            raise ResultsError("no losses and accuracies were saved")
        values, before = _load(files[name]), int(name.startswith("validation"))
        if values.ndim != 1 or len(values) != len(rates) + before:
            raise ResultsError(f"{files[name].name} has the shape {values.shape} for {len(rates)} epochs")
        columns[name] = values[before:]
    return [
        {"epoch": i + 1, "lr": rate, **{name: float(column[i]) for name, column in columns.items()}, **unknown}
        for i, rate in enumerate(rates)
    ]


def saved_spike_times(files: dict[str, Path], test: SpikeData, kind: str) -> tuple[np.ndarray, torch.Tensor]:
    """The saved spike times of the outputs ``(samples, neurons)``, and the inputs ``(samples, features)`` they are for.

    Args:
        files: spike times, and if they exist labels and inputs.
        test: our test data.
        kind: our name of the data set.

    Raises:
        ResultsError: files are missing or do not fit, or it is not known which samples they are for.
    """
    if "times" not in files:
        raise ResultsError("no spike times were saved for the test data")
    times, inputs = _load(files["times"]), test.times
    if "inputs" in files:
        saved = _load(files["inputs"])
        if saved.ndim != 2 or len(saved) != len(times) or saved.shape[1] < test.features:
            raise ResultsError(f"{files['inputs'].name} does not fit: its shape is {saved.shape}")
        return times, torch.from_numpy(saved[:, : test.features]).to(inputs)  # copies and constant inputs come after
    if kind == "mnist":
        raise ResultsError("the original scales pixels differently, and its input times were not saved")
    if kind not in _SAME_SAMPLES:
        raise ResultsError(f"the samples of {kind} are drawn at random, and the original's were not saved")
    if "labels" in files and not np.array_equal(_load(files["labels"]).ravel(), test.labels.cpu().numpy()):
        raise ResultsError(f"{files['labels'].name} has other labels than the test data: the samples differ")
    return times, inputs


def _load(path: Path) -> np.ndarray:
    """Numbers of an ``.npy`` file, never a pickled object."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ResultsError(f"{path.name} cannot be read: {error}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ResultsError(f"{path.name} holds no numbers")
    return array.astype(np.float64) if array.dtype.kind == "f" else array


@dataclass(frozen=True)
class Comparison:
    """Output spike times of the original and ours on the same samples.

    Args:
        samples: their number.
        largest: largest difference where both spike, in units of the times.
        above: number of (sample, neuron) pairs whose difference is above ``EXPECTED``.
        only_theirs: pairs in which only the original's neuron spikes.
        only_ours: pairs in which only ours spikes.
        pairs: all pairs.
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


def compare(theirs: np.ndarray, ours: np.ndarray) -> Comparison:
    """Compare spike times ``(samples, neurons)``; inf and NaN are no spike.

    Raises:
        ResultsError: the shapes differ.
    """
    if theirs.shape != ours.shape:
        raise ResultsError(f"the file of spike times has the shape {theirs.shape}, the test data gives {ours.shape}")
    spike, same = np.isfinite(theirs), np.isfinite(ours)
    gap = np.abs(np.where(spike & same, theirs, 0.0) - np.where(spike & same, ours, 0.0))
    return Comparison(
        samples=len(ours),
        largest=float(gap.max(initial=0.0)),
        above=int((gap > EXPECTED).sum()),
        only_theirs=int((spike & ~same).sum()),
        only_ours=int((~spike & same).sum()),
        pairs=int(gap.size),
    )
