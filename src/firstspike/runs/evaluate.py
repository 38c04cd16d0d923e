"""Evaluation of a run on labelled data: as numbers, as text, and as files in the run folder.

evaluation/NAME.json    accuracy, loss, silent fractions, decision time, spikes and synaptic events, confusion matrix
evaluation/differences_NAME.csv    on a substrate: its spikes against the exact ones, by neuron
spikes/NAME.npz         spike times of every layer, labels, predictions (``numpy.load`` needs no pickle)
"""

import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from firstspike.data import SpikeData, Splits
from firstspike.data.files import read_labelled
from firstspike.layers import Record
from firstspike.layers.cost import ENERGIES, LayerCost, energy_estimates, layer_costs
from firstspike.layers.named import named_layers, named_spikes
from firstspike.runs.files import csv_text, whole_file, write_whole
from firstspike.runs.rows import Rows, in_classes, input_times
from firstspike.runs.writer import summary
from firstspike.substrates.differences import NeuronDifference, differences, differences_text
from firstspike.text import no_decision, printable
from firstspike.training import Evaluation
from firstspike.training.batches import in_memory
from firstspike.training.evaluation import confusion_counts, evaluate_record, record_in_parts, success_text

if TYPE_CHECKING:
    from firstspike.runs.run import Run

_TABLE_UP_TO = 10  # classes. A larger confusion matrix is not readable


def decisions(run: "Run", output: Tensor) -> list[str]:
    """Names of the classes that output times decide for, ``silent`` if they decide for none."""
    found = run.objective.predict(output).tolist()
    names = run.names(max([len(run.class_names), *(decision + 1 for decision in found)]))
    names.append(no_decision(names))  # the class -1
    return [names[decision] for decision in found]


def name_elsewhere(substrate: Any, settings: Sequence[str]) -> str:
    """How another substrate than the run's is called in names of files: its kind and the settings that were changed."""
    keys = {re.split(r"\W", text.removeprefix("substrate."))[0] for text in settings} - {"kind"}
    changed = [f"{key}={value}" for key, value in substrate if key in keys]
    name = re.sub(r"[^\w.=-]", "_", "_".join([substrate.kind, *changed]))
    return name if len(name) < 100 else f"{name[:80]}_{zlib.crc32(name.encode()):08x}"


def data_called(run: "Run", data: SpikeData | DataLoader | Path | str | None) -> tuple[SpikeData, str]:
    """Labelled data as ``Run.evaluate`` takes them, and their name."""
    if data is None:
        data = run.held_out[0]
    if isinstance(data, DataLoader):
        data = in_memory(data, run.data.train)
    if isinstance(data, SpikeData):
        return in_classes(data.to("cpu", run.dtype), run.class_names), "data"
    if not isinstance(data, str | Path):
        raise TypeError(
            f"data: expected SpikeData, a loader, {', '.join(Splits._fields)} or a file, got a {type(data).__name__}; "
            "without labels: run.predict(rows)"
        )
    if data not in Splits._fields:
        return read_labelled(data, run.data.train, run.dtype), f"data_{Path(data).stem}"
    found = getattr(run.data, str(data))
    if not len(found):
        raise ValueError(f"{run.folder} has no {data} data; it has {run.held_out[0]} data")
    return found, str(data)


def prediction_table(run: "Run", rows: Rows) -> str:
    """Decisions on new samples, as CSV: the class, then the spike time of each output; ``inf`` for no spike."""
    times = run.observe(input_times(rows, run.data.train, run.dtype)).output
    names, table = run.names(times.shape[1]), times.tolist()
    if not run.data.train.regression:
        names = ["class", *names]
        table = [[name, *map(str, row)] for name, row in zip(decisions(run, times), times.numpy(), strict=True)]
    return csv_text([names, *table])


@dataclass(frozen=True, kw_only=True, repr=False)
class RunEvaluation(Evaluation):
    """Evaluation of a run's network on labelled data.

    Args:
        run: the run, with the chosen checkpoint and substrate.
        data: the data.
        name: of the data, and of the files.
        record: spike times of every layer.
    """

    run: "Run"
    data: SpikeData
    name: str
    record: Record

    @classmethod
    def of(cls, run: "Run", data: SpikeData, name: str, record: Record | None = None) -> Self:
        """Evaluate the network, if the spike times of every layer are not known yet."""
        record = run.observe(data.times) if record is None else record
        found = evaluate_record(run.network, record, run.objective, data.labels)
        return cls(**vars(found), run=run, data=data, name=f"{name}{run.on_other}", record=record)

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """The results without spikes, for JSON. ``confusion`` has true classes in rows and ``decisions`` in columns."""
        time, classes, costs = self.decision_time, {}, self.cost()
        if not self.data.regression:
            counts = confusion_counts(self, len(self.data.class_names))
            names = self.run.names(len(counts))
            decisions = [*names, no_decision(names)][: counts.shape[1]]
            classes = {"classes": names, "decisions": decisions, "confusion": counts.tolist()}
        layers = [lif.name for lif in named_layers(self.run.network)] or ["output"] * len(self.silent)
        return {
            "data": self.name,
            "checkpoint": self.run.checkpoint.name,
            "epoch": self.run.checkpoint.epoch,
            "substrate": self.run.substrate,
            **summary(self),
            **({"accuracy_interval": list(self.accuracy_interval)} if classes else {}),
            "silent": dict(zip(layers, self.silent, strict=True)),
            "decided": self.decided,
            "decision_time": time if math.isfinite(time) else None,
            **{
                key: {layer.name: {"spikes": layer.spikes, "synaptic_events": layer.events} for layer in found}
                for key, found in (("cost", costs), ("cost_until_decision", self.cost(True)))
            },
            "energy_estimate": energy_estimates(costs) if costs else {},
            **classes,
        }

    def cost(self, until_decision: bool = False) -> list[LayerCost]:
        """Spikes and synaptic events per sample, by layer. See ``layer_costs``.

        Args:
            until_decision: only up to the first output spike of each sample; [] for a readout, or trains.
        """
        if not until_decision:
            return layer_costs(self.run.network, self.record)
        if self.readout or self.times.ndim > 2:
            return []
        return layer_costs(self.run.network, self.record, self.times.amin(dim=-1))

    @property
    def spikes(self) -> dict[str, np.ndarray]:
        """Spike times by layer, each ``(samples, neurons)``, in order; ``inputs`` first, then labels and predictions.

        Further layers of a name have a number after it. Of bias layers these are the bias spikes alone. Copies are left
        out.
        """
        arrays: dict[str, np.ndarray] = {}
        for spikes in named_spikes(self.run.network, self.record):
            name = "inputs" if spikes.name == "input" else spikes.name.replace(" ", "_")
            again = sum(key == name or key.startswith(f"{name}_") for key in arrays)
            arrays[f"{name}_{again + 1}" if again else name] = spikes.times.numpy()
        return arrays | {"labels": self.data.labels.numpy(), "predictions": self.predictions.numpy()}

    @cached_property
    def differences(self) -> list[NeuronDifference]:
        """Spikes on the substrate against the exact ones of the same weights, by neuron; [] on the exact substrate."""
        network = self.run.stored_network
        exact = self.run.substrate == "exact"
        return [] if exact else differences(network, record_in_parts(network, self.data.times), self.record)

    def save(self) -> list[Path]:
        """Write the files into the run's folder, each whole or not at all.

        Raises:
            OSError: no space, no permission.
        """
        numbers, spikes = (self.run.folder / part for part in ("evaluation", "spikes"))
        for folder in (numbers, spikes):
            folder.mkdir(exist_ok=True)
        name = f"{self.name}{self.run.at_chosen}"
        files = [numbers / f"{name}.json", spikes / f"{name}.npz"]
        write_whole(files[0], json.dumps(self.numbers, indent=1) + "\n")
        with whole_file(files[1]) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **self.spikes)  # type: ignore[arg-type]  # (any names)
        if self.differences:
            files.append(numbers / f"differences_{name}.csv")
            write_whole(files[-1], csv_text([NeuronDifference._fields, *self.differences]))
        return files

    def text(self) -> str:
        """A few lines for people."""
        found = self.numbers
        silent = ", ".join(f"{name} {100 * fraction:.2f} %" for name, fraction in found["silent"].items())
        decided = f"{found['decided']} of {found['samples']} samples decide"
        if found["decision_time"] is not None:
            decided += f", mean decision time {found['decision_time']:.4g} in the unit of the input times"
        lines = [
            f"{found['data']} {success_text(found)} on {found['samples']} samples, loss {found['loss']:.4g} "
            f"({found['checkpoint']})",
            f"silent: {silent}" + (f"; {100 * dead:.0f} % of outputs dead" if (dead := self.dead_outputs) else ""),
            decided,
        ]
        for key, what in (("cost", "per sample"), ("cost_until_decision", "until the decision")):
            if layers := found[key].values():
                spikes, events = (sum(layer[x] for layer in layers) for x in ("spikes", "synaptic_events"))
                lines.append(f"{what}: {spikes:.0f} spikes, {events:.0f} synaptic events")
        if estimates := found["energy_estimate"]:
            lines += ["energy per sample, estimated from published numbers, not measured:", energy_text(estimates)]
        if self.differences:
            lines += ["against the exact spikes, neurons that differ most first:", differences_text(self.differences)]
        if len(found.get("classes", range(_TABLE_UP_TO + 1))) <= _TABLE_UP_TO:
            names, decisions = ([printable(name) for name in found[key]] for key in ("classes", "decisions"))
            lines += ["", *table(names, decisions, found["confusion"])]
        return "\n".join(lines)


def energy_text(estimates: Mapping[str, float]) -> str:
    """Energies by device, with three digits, from picojoules on; most are those of synaptic events alone."""
    units = {1e-3: "mJ", 1e-6: "µJ", 1e-9: "nJ", 1e-12: "pJ"}
    found = []
    for device, energy in estimates.items():
        unit = next((x for x in units if energy >= x), 1e-12)
        whole = " (whole chip)" if ENERGIES[device].sample else ""
        found.append(f"{device} {energy / unit:.3g} {units[unit]}{whole}")
    return ", ".join(found)


def table(rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]]) -> list[str]:
    """A confusion matrix as lines of text."""
    cells = [["true \\ decision", *columns], *([name, *map(str, row)] for name, row in zip(rows, counts, strict=True))]
    left, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
    return ["  ".join([name.ljust(left), *map(str.rjust, row, widths)]) for name, *row in cells]
