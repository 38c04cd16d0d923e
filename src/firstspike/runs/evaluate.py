"""Evaluation of a run on labelled data: as numbers, as text, and as files in the run folder.

evaluation/NAME.json    accuracy, loss, silent fractions, decision time, spikes and synaptic events, confusion matrix
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
import torch

from firstspike.data import SpikeData, Splits
from firstspike.data.files import read_labelled, read_times
from firstspike.layers.cost import LayerCost, layer_costs
from firstspike.layers.named import named_lif_layers, named_spikes
from firstspike.runs.files import whole_file, write_whole
from firstspike.runs.loaded import LoadedRun
from firstspike.text import no_decision, printable
from firstspike.training import confusion_counts, evaluate_record
from firstspike.training.fitting import Objective

_TABLE_UP_TO = 10  # classes; a larger confusion matrix is no reading


def evaluate_run(run: LoadedRun, data: Path | str = "test") -> "RunEvaluation":
    """Evaluate a run's network on a part of its own data, or on a file.

    Args:
        run: the run, with the chosen checkpoint and substrate. On another substrate than its own the results are called
            ``NAME_on_KIND``.
        data: ``train``, ``validation`` or ``test``, or a file as ``read_labelled`` reads it; its results are called
            ``data_`` and its stem.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the run has no such data, or data and network do not fit.
        SubstrateError: a substrate that cannot be reached or does not answer.
    """
    if data in Splits._fields:
        found = getattr(run.data, str(data))
        if not len(found):
            raise ValueError(f"{run.folder} has no {data} data; it has {run.held_out[0]} data")
        return RunEvaluation(run, found, str(data))
    train = run.data.train
    labelled = read_labelled(
        data, train.features, run.class_names, run.dtype, train.encoder, trains=train.trains, columns=train.columns
    )
    return RunEvaluation(run, labelled, f"data_{Path(data).stem}")


def predictions(run: LoadedRun, file: Path | str) -> str:
    """Decisions on input spike times from a file, as CSV: the class, then the spike time of each output.

    A run on encoded values takes values, and encodes them as its training data. Columns that both tables name may be
    in another order.

    A sample without a decision has the class ``silent``, or ``no decision`` where a class has that name; an output
    without a spike has the time ``inf``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: data that do not fit the network.
        SubstrateError: a substrate that cannot be reached or does not answer.
    """
    train = run.data.train
    inputs = read_times(file, train.features, run.dtype, train.encoder, train.trains, train.columns)
    try:
        SpikeData(inputs, torch.zeros(len(inputs), dtype=torch.long), train.class_names)  # checks trains
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    times = run.observe(inputs).output
    decisions = run.predict(times)
    names = run.names(max(decisions.tolist(), default=-1) + 1)
    names.append(no_decision(names))  # the class -1
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *run.names(times.shape[1])])
    for decision, row in zip(decisions.tolist(), times.numpy(), strict=True):
        writer.writerow([names[decision], *(str(time) for time in row)])
    return text.getvalue()


class RunEvaluation:
    """Evaluation of a run's network on labelled data.

    Args:
        run: the run, with the chosen checkpoint.
        data: the data.
        name: of the data, and of the files.

    Attributes:
        evaluation: loss, decisions and output times.
        record: spike times of every layer.
    """

    def __init__(self, run: LoadedRun, data: SpikeData, name: str) -> None:
        self.run, self.data = run, data
        self.name = name if run.elsewhere is None else f"{name}_on_{run.elsewhere}"
        self.record = run.observe(data.times)
        self.evaluation = evaluate_record(run.network, self.record, Objective(run.loss), data.labels)
        self.layers = [lif.name for lif in named_lif_layers(run.network)] or ["output"] * len(self.evaluation.silent)

    @property
    def numbers(self) -> dict[str, Any]:
        """All but the spikes, ready for JSON. ``confusion`` has true classes in rows and ``decisions`` in columns."""
        found, counts = self.evaluation, confusion_counts(self.evaluation, len(self.data.class_names))
        time, names = found.decision_time, self.run.names(len(counts))
        return {
            "data": self.name,
            "checkpoint": self.run.checkpoint.name,
            "epoch": self.run.checkpoint.epoch,
            "substrate": self.run.substrate,
            "samples": len(self.data),
            "accuracy": found.accuracy,
            "accuracy_error": found.accuracy_error,
            "loss": found.loss,
            "silent": dict(zip(self.layers, found.silent, strict=True)),
            "decided": found.decided,
            "decision_time": time if math.isfinite(time) else None,
            "cost": {layer.name: {"spikes": layer.spikes, "synaptic_events": layer.events} for layer in self.cost()},
            "cost_until_decision": {
                layer.name: {"spikes": layer.spikes, "synaptic_events": layer.events} for layer in self.cost(True)
            },
            "classes": names,
            "decisions": [*names, no_decision(names)][: counts.shape[1]],
            "confusion": counts.tolist(),
        }

    def cost(self, until_decision: bool = False) -> list[LayerCost]:
        """Spikes and synaptic events per sample, by layer; see ``layer_costs``.

        Args:
            until_decision: only up to the first output spike of each sample; [] for a readout.
        """
        if not until_decision:
            return layer_costs(self.run.network, self.record)
        if self.evaluation.readout:
            return []
        return layer_costs(self.run.network, self.record, self.evaluation.times.amin(dim=-1))

    @property
    def spikes(self) -> dict[str, np.ndarray]:
        """Spike times by layer, each ``(samples, neurons)``, in order; ``inputs`` first, then labels and predictions.

        Further layers of a name have a number after it. Of bias layers these are the bias spikes alone; copies are left
        out.
        """
        arrays: dict[str, np.ndarray] = {}
        for spikes in named_spikes(self.run.network, self.record):
            name = "inputs" if spikes.name == "input" else spikes.name.replace(" ", "_")
            again = sum(key == name or key.startswith(f"{name}_") for key in arrays)
            arrays[f"{name}_{again + 1}" if again else name] = spikes.times.numpy()
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
        if found["decision_time"] is not None:
            decided += f", mean decision time {found['decision_time']:.4g} in the unit of the input times"
        lines = [
            f"{found['data']} accuracy {shown} on {found['samples']} samples, loss {found['loss']:.4g} "
            f"({found['checkpoint']})",
            f"silent: {silent}",
            decided,
        ]
        for key, what in (("cost", "per sample"), ("cost_until_decision", "until the decision")):
            if layers := found[key].values():
                spikes, events = (sum(layer[x] for layer in layers) for x in ("spikes", "synaptic_events"))
                lines.append(f"{what}: {spikes:.0f} spikes, {events:.0f} synaptic events")
        if len(found["classes"]) <= _TABLE_UP_TO:
            names, decisions = ([printable(name) for name in found[key]] for key in ("classes", "decisions"))
            lines += ["", *table(names, decisions, found["confusion"])]
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
