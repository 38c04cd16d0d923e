"""Their saved test results, compared with what the imported network makes of the same samples."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from firstspike.interop.fast_and_deep.folder import load_numbers
from firstspike.substrates import Exact, Noisy, Substrate
from firstspike.training.build import Experiment
from firstspike.training.evaluation import record_in_parts

EXPECTED = 5e-5
"""Their code adds 1e-6 to denominators, which shifts spike times by up to about this much (in tau_syn)."""

_SAME_ORDER = ("yin_yang", "mnist_16x16")  # data sets whose samples are the same, in the same order


@dataclass(frozen=True)
class Comparison:
    """Output spike times of theirs and ours on the same samples.

    Args:
        samples: how many.
        largest: largest difference where both spike, in units of the times.
        above: number of (sample, neuron) pairs whose difference is above ``EXPECTED``.
        only_theirs: pairs in which only theirs spikes.
        only_ours: pairs in which only ours spikes.
        pairs: all pairs.
    """

    samples: int
    largest: float
    above: int
    only_theirs: int
    only_ours: int
    pairs: int

    @property
    def sentence(self) -> str:
        """The numbers in words."""
        text = f"spike times of {self.samples} test samples differ by at most {self.largest:.2g}"
        if self.above:
            text += f", {self.above} of {self.pairs} by more than {EXPECTED:g}"
        if self.only_theirs or self.only_ours:
            text += f"; {self.only_theirs} spikes are only in theirs, {self.only_ours} only in ours"
        return text


def compare(experiment: Experiment, files: dict[str, Path]) -> Comparison | str:
    """Compare test results.

    Args:
        experiment: the imported network, with its data.
        files: their files: ``times``, and, if there are, ``labels`` and ``inputs``.

    Returns:
        What was found; or, in words, why the two cannot be compared.
    """
    if "times" not in files:
        return "they saved no spike times for the test data"
    times = load_numbers(files["times"])
    if isinstance(times, str):
        return times
    data = experiment.data.test
    inputs = data.times
    if "inputs" in files:
        saved = load_numbers(files["inputs"])
        if isinstance(saved, str):
            return saved
        if saved.ndim != 2 or len(saved) != len(times) or saved.shape[1] < data.features:
            return f"{files['inputs'].name} does not fit: its shape is {saved.shape}"
        inputs = torch.from_numpy(saved[:, : data.features]).to(inputs)  # copies and constant inputs stand behind
    elif experiment.config.data.image() == (1, 28, 28):
        return "their pixels are scaled otherwise, and they did not save their input times"
    elif experiment.config.data.kind not in _SAME_ORDER:
        return f"the samples of {experiment.config.data.kind} are drawn at random, and they did not save theirs"
    elif "labels" in files:
        labels = load_numbers(files["labels"])
        if isinstance(labels, str):
            return labels
        if not np.array_equal(labels.ravel(), data.labels.cpu().numpy()):
            return f"{files['labels'].name} has other labels than the test data: the samples differ"
    ours = outputs(experiment, inputs).cpu().double().numpy()
    if times.shape != ours.shape:
        return f"{files['times'].name} has the shape {times.shape}, the test data gives {ours.shape}"
    return difference(times, ours)


def difference(theirs: np.ndarray, ours: np.ndarray) -> Comparison:
    """Compare two arrays of spike times ``(samples, neurons)``; inf and NaN are no spike."""
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


def outputs(experiment: Experiment, times: Tensor) -> Tensor:
    """Output times by the exact equations, with thresholds and weights as the substrate has them, but without noise."""
    substrate: Substrate = Exact()
    noisy = experiment.substrate
    if isinstance(noisy, Noisy):
        substrate = Noisy(noisy.threshold_offset, weight_scale=noisy.weight_scale, weight_max=noisy.weight_max)
    with substrate.open(experiment.network) as still:
        return record_in_parts(experiment.network, times, still).output
