"""A result folder of the original: its files, and the spike times that it saved."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.data import SpikeData
from firstspike.data.tables import read_arrays

EXPECTED = 5e-5
"""The original adds 1e-6 to denominators, which shifts spike times by up to about this much (in tau_syn)."""

_TEST = {"times": "_test_spiketimes.npy", "labels": "_test_labels.npy", "inputs": "_test_inputs.npy"}
_SAME_SAMPLES = ("yin_yang", "mnist_16x16")  # data sets whose samples are the same, in the same order


class ResultsError(Exception):
    """Saved results that are missing or do not fit. The message gives the reason."""


class ResultFiles(NamedTuple):
    """Files of a result folder, None if missing, those of test data by ``_TEST``; after how many epochs, if known."""

    config: Path
    network: Path | None
    epoch: int | None
    tests: dict[str, Path]


def find_files(folder: Path) -> ResultFiles:
    """The files of a result folder, or of one ``epoch_N`` in it. Without a network, of its last ``epoch_N``."""
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
        return ResultFiles(config, None, epoch, {})
    prefix = network.name.removesuffix("_network.pt")
    tests = {key: path for key, end in _TEST.items() if (path := place / f"{prefix}{end}").is_file()}
    return ResultFiles(config, network, epoch, tests)


def _epoch(folder: Path) -> int | None:
    match = re.fullmatch(r"epoch_(\d+)", folder.resolve().name)
    return int(match[1]) if match else None


def _network(folder: Path) -> Path | None:
    found = [path for path in sorted(folder.glob("*_network.pt")) if "_untrained_" not in path.name]
    if len(found) > 1:
        raise ValueError(f"{folder} has several networks: {', '.join(path.name for path in found)}; keep one")
    return found[0] if found else None


def saved_spike_times(files: dict[str, Path], test: SpikeData, kind: str) -> tuple[Float[np.ndarray, "..."], Tensor]:
    """Saved spike times of the outputs ``(samples, neurons)``, and inputs ``(samples, features)`` they are for."""
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
    """Output spike times of the original and ours on the same samples. Numbers are of pairs (sample, neuron)."""

    samples: int
    largest: float  # difference where both spike, in units of the times
    above: int  # with a difference above ``EXPECTED``
    only_theirs: int  # where only the original spikes
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
    """Compare spike times ``(samples, neurons)``, where inf and NaN mean no spike."""
    if theirs.shape != ours.shape:
        raise ResultsError(f"the file of spike times has the shape {theirs.shape}, the test data gives {ours.shape}")
    a, b = np.isfinite(theirs), np.isfinite(ours)
    gap = np.abs(np.where(a & b, theirs, 0.0) - np.where(a & b, ours, 0.0))
    above, only_theirs, only_ours = (int(found.sum()) for found in (gap > EXPECTED, a & ~b, b & ~a))
    return Comparison(len(ours), float(gap.max(initial=0.0)), above, only_theirs, only_ours, gap.size)
