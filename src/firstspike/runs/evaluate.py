"""What a run's network makes of labelled data, as numbers, as text, and as files in the run's folder.

evaluation/NAME.json    accuracy, loss, silent fractions, decision time, confusion matrix
spikes/NAME.npz         spike times of every layer, labels, predictions; ``numpy.load`` needs no pickle
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from firstspike.data import SpikeData, Splits
from firstspike.data.files import read_labelled, read_times
from firstspike.layers.stages import lif_stages, stages
from firstspike.training.evaluation import confusion_counts, evaluate_record
from firstspike.training.files import whole_file, write_whole
from firstspike.training.loaded import LoadedRun, load_run

_TABLE_UP_TO = 10  # classes; a larger confusion matrix is no reading


def report(
    folder: Path | str, data: Path | str = "test", checkpoint: str | None = None, substrate: str | None = None
) -> "Report":
    """A run's network on a part of its own data, or on a file.

    Args:
        folder: the run's.
        data: ``train``, ``validation`` or ``test``, or a file as ``read_labelled`` reads it; its results are called
            ``data_`` and its stem.
        checkpoint: see ``load_run``.
        substrate: see ``load_run``; the results are then called ``NAME_on_KIND``.

    Raises:
        FileNotFoundError: no run there, no such file.
        ValueError: no such checkpoint or substrate, data or a network that do not fit.
        SubstrateError: a substrate that cannot be reached or does not answer.
    """
    run = load_run(folder, checkpoint, substrate)
    if data in Splits._fields:
        return Report(run, getattr(run.data, str(data)), str(data))
    inputs, _ = run.config.data.shape()
    labelled = read_labelled(data, inputs, run.class_names, run.dtype)
    return Report(run, labelled, f"data_{Path(data).stem}")


def predictions(
    folder: Path | str, file: Path | str, checkpoint: str | None = None, substrate: str | None = None
) -> str:
    """Decisions on input spike times from a file, as CSV: the class, then the spike time of each output.

    A sample in which nothing decides has the class ``silent``, an output without a spike the time ``inf``.

    Raises:
        FileNotFoundError: no run there, no such file.
        ValueError: no such checkpoint or substrate, data or a network that do not fit.
        SubstrateError: a substrate that cannot be reached or does not answer.
    """
    run = load_run(folder, checkpoint, substrate)
    inputs, _ = run.config.data.shape()
    times = run.observe(read_times(file, inputs, run.dtype)).output
    names = (*run.class_names, "silent")  # the class -1
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *run.class_names])
    for decision, row in zip(run.loss.predict(times).tolist(), times.numpy(), strict=True):
        writer.writerow([names[decision], *(str(time) for time in row)])
    return text.getvalue()


class Report:
    """A run's network on labelled data.

    Args:
        run: the run, with the checkpoint that counts.
        data: what to look at.
        name: of the data; the files are called so.

    Attributes:
        evaluation: loss, decisions and output times.
        record: spike times of every layer.
    """

    def __init__(self, run: LoadedRun, data: SpikeData, name: str) -> None:
        self.run, self.data = run, data
        self.name = name if run.elsewhere is None else f"{name}_on_{run.elsewhere}"
        self.layers = lif_stages(run.network)
        self.record = run.observe(data.times)
        indices = [lif.index for lif in self.layers]
        self.evaluation = evaluate_record(self.record, run.loss, data.labels, indices)

    @property
    def numbers(self) -> dict[str, Any]:
        """All but the spikes, ready for JSON. ``confusion`` has true classes in rows and ``decisions`` in columns."""
        found, counts = self.evaluation, confusion_counts(self.evaluation)
        time = found.decision_time
        return {
            "data": self.name,
            "checkpoint": self.run.checkpoint.name,
            "epoch": self.run.checkpoint.epoch,
            "substrate": self.run.substrate,
            "samples": len(self.data),
            "accuracy": found.accuracy,
            "accuracy_error": found.accuracy_error,
            "loss": found.loss,
            "silent": dict(zip([lif.name for lif in self.layers], found.silent, strict=True)),
            "decided": found.decided,
            "decision_time": time if math.isfinite(time) else None,
            "classes": list(self.data.class_names),
            "decisions": [*self.data.class_names, "silent"][: counts.shape[1]],
            "confusion": counts.tolist(),
        }

    @property
    def spikes(self) -> dict[str, np.ndarray]:
        """Spike times by layer, each ``(samples, neurons)``, in order; ``inputs`` first, then labels and predictions.

        A layer that is there twice has a number behind its name. Of bias layers it is the bias spikes alone; copies
        are left out.
        """
        arrays: dict[str, np.ndarray] = {}
        for stage in stages(self.run.network, self.record):
            name = "inputs" if stage.name == "input" else stage.name.replace(" ", "_")
            again = sum(key == name or key.startswith(f"{name}_") for key in arrays)
            arrays[f"{name}_{again + 1}" if again else name] = stage.times.numpy()
        return arrays | {"labels": self.data.labels.numpy(), "predictions": self.evaluation.predictions.numpy()}

    def save(self) -> list[Path]:
        """Write both files into the run's folder, each whole or not at all.

        Raises:
            OSError: no space, no permission.
        """
        numbers, spikes = (self.run.folder / part for part in ("evaluation", "spikes"))
        for folder in (numbers, spikes):
            folder.mkdir(exist_ok=True)
        files = [numbers / f"{self.name}.json", spikes / f"{self.name}.npz"]
        write_whole(files[0], json.dumps(self.numbers, indent=1) + "\n")
        with whole_file(files[1]) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **self.spikes)  # type: ignore[arg-type]  # (any names)
        return files

    def text(self) -> str:
        """A few lines for people."""
        found = self.numbers
        shown = f"{100 * found['accuracy']:.2f} +- {100 * found['accuracy_error']:.2f} %"
        silent = ", ".join(f"{name} {100 * fraction:.2f} %" for name, fraction in found["silent"].items())
        decided = f"{found['decided']} of {found['samples']} samples decide"
        time = f"{decided}, {found['decision_time']:.4g} after the start in the mean" if found["decided"] else decided
        lines = [
            f"{found['data']} accuracy {shown} on {found['samples']} samples, loss {found['loss']:.4g} "
            f"({found['checkpoint']})",
            f"silent: {silent}",
            time,
        ]
        if len(found["classes"]) <= _TABLE_UP_TO:
            lines += ["", *table(found["classes"], found["decisions"], found["confusion"])]
        return "\n".join(lines)


def table(rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]]) -> list[str]:
    """A confusion matrix as lines of text."""
    corner = "true \\ decision"
    left = max(map(len, (corner, *rows)))
    widths = [max(len(name), *(len(str(row[index])) for row in counts)) for index, name in enumerate(columns)]
    lines = ["  ".join([corner.ljust(left), *(name.rjust(w) for name, w in zip(columns, widths, strict=True))])]
    for name, row in zip(rows, counts, strict=True):
        lines.append("  ".join([name.ljust(left), *(str(n).rjust(w) for n, w in zip(row, widths, strict=True))]))
    return lines
