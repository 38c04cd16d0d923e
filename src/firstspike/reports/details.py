"""What a trained network does, as plain data for the page's scripts.

What a run lacks (a checkpoint, a chip that is not here, data that are gone) is left out, with the reason among the
``notes``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.layers.named import named_spikes
from firstspike.layers.trains import form_of
from firstspike.plots import NotApplicable, RunData
from firstspike.plots.membranes import Membranes, busiest
from firstspike.plots.run_data import UNAVAILABLE
from firstspike.plots.spike_times import layer_heights
from firstspike.text import no_decision
from firstspike.training.evaluation import confusion_counts

POINTS = 160  # of a membrane trace
_CHECKPOINTS = 40  # largest number of positions of the slider
_SAMPLES = 1000  # validation samples at each of them
_BINS = 40
_CURVE = 1500  # largest number of epochs in a curve
_NAMED = 32  # largest number of inputs that are listed with their names
_FEWEST = 12  # samples in the file, however large they are


def details(run: RunData, budget: int) -> dict[str, Any]:
    """One trained network.

    Args:
        run: of one seed.
        budget: largest number of numbers for the samples.

    Returns:
        ``name``, ``classes``, ``split`` (the data that are shown), ``notes``, and those of ``curves``, ``history``,
        ``confusion``, ``inputs``, ``samples``, ``plane`` that apply to the run.
    """
    found: dict[str, Any] = {"name": f"seed {run.config.training.seed}", "notes": []}
    sizes = [layer.out_features for layer in run.config.network if layer.kind == "lif"]
    parts: dict[str, Callable[[], Any]] = {
        "classes": lambda: list(run.class_names),
        "split": lambda: run.held_out[0],
        "curves": lambda: curves(run),
        "history": lambda: history(run),
        "confusion": lambda: confusion(run),
        "inputs": lambda: inputs(run),
        "samples": lambda: samples(run, budget),
    }
    if run.config.data.kind == "yin_yang":
        parts["plane"] = lambda: plane(run)
    for name, make in parts.items():
        try:
            found[name] = make()
        except UNAVAILABLE as reason:
            if str(reason) not in found["notes"]:
                found["notes"].append(str(reason))
    return {"classes": run.names(sizes[-1] if sizes else 0)} | found


def curves(run: RunData) -> dict[str, Any]:
    """Loss and accuracy over the epochs, thinned out if they are very many; ``raised``: those that raised weights."""
    epochs = run.metrics["epoch"]
    every = -(-len(epochs) // _CURVE)
    chosen = np.arange(len(epochs) - 1, -1, -every)[::-1]  # the last one is always there
    columns = [name for name in run.metrics if name.startswith(("train_", "validation_"))]
    raised = epochs[np.asarray(run.metrics.get("raised", np.zeros(len(epochs)))) > 0]
    found = {"epoch": plain(epochs[chosen], 0), "raised": plain(raised, 0)}
    return found | {name: significant(run.metrics[name][chosen]) for name in columns}


def history(run: RunData) -> dict[str, Any]:
    """Histograms of output spike times by true class, before training and at the checkpoints.

    They are of the validation data, or of the held-out ones. ``counts[checkpoint][class][output]`` are bins of
    ``edges``, the last with all that is later, in percent of the class's samples; ``silent[checkpoint][class][output]``
    is the rest.
    """
    run.check_spiking_output()
    split, data = ("validation", run.data.validation) if len(run.data.validation) else run.held_out
    inputs, labels = data.times[:_SAMPLES], data.labels[:_SAMPLES]
    epochs, times, right = [], [], []
    for epoch, network in run.states(_CHECKPOINTS):
        output = run.observe(inputs, network).output
        epochs.append(epoch)
        times.append(output.double())
        right.append(float((run.objective.predict(output) == labels).double().mean()))
    if len(epochs) == 1:
        raise NotApplicable(f"{run.folder} has no checkpoint that can be read")
    spikes = torch.cat([output[torch.isfinite(output)] for output in times]).numpy()
    low, high = (float(spikes.min()), float(np.quantile(spikes, 0.995))) if spikes.size else (0.0, 1.0)
    edges = np.linspace(low, max(high, low + 1e-3), _BINS + 1)  # the same for all; outliers do not stretch the scale
    classes = [labels == label for label in range(len(data.class_names))]
    return {
        "split": split,
        "epochs": plain(epochs, 2),
        "accuracy": plain(right),
        "samples": len(labels),
        "outputs": run.names(times[0].shape[1]),
        "edges": plain(edges),
        "counts": [[_counts(output[chosen], edges) for chosen in classes] for output in times],
        "silent": [
            [plain(100 * torch.isinf(output[chosen]).double().mean(dim=0), 1) for chosen in classes] for output in times
        ],
    }


def _counts(times: Tensor, edges: np.ndarray) -> list[list[float]]:
    """Percent of the samples in each bin, a row for each output."""
    spikes = times.clamp(float(edges[0]), float(edges[-1])).numpy()
    spikes[torch.isinf(times).numpy()] = np.nan  # a tensor of one value would be an index
    counts = [np.histogram(row[np.isfinite(row)], edges)[0] for row in spikes.T]
    return list(plain(100 * np.stack(counts) / max(1, len(times)), 2))


def confusion(run: RunData) -> dict[str, Any]:
    """Counts on the held-out data, true classes in rows."""
    evaluation = run.evaluation
    counts = confusion_counts(evaluation, len(run.class_names))
    names = run.names(len(counts))
    return {
        "checkpoint": run.checkpoint.name,
        "counts": counts.tolist(),
        "decisions": [*names, no_decision(names)][: counts.shape[1]],
        "accuracy": evaluation.accuracy,
        "error": evaluation.accuracy_error,
        "samples": len(evaluation.labels),
    }


def inputs(run: RunData) -> dict[str, Any]:
    """Names and effects of the inputs that the decisions depend on most, the largest first; see the figure margins."""
    effects = run.input_effects
    chosen = np.argsort(-effects, kind="stable")[:_NAMED]
    return {
        "names": [run.input_names[place] for place in chosen],
        "effects": significant(effects[chosen], 3),
        "of": len(effects),
        "samples": int(torch.isfinite(run.margins.margin).sum()),
    }


def samples(run: RunData, budget: int) -> dict[str, Any]:
    """Samples of the held-out data to choose from, as many as the budget of numbers allows.

    Wrong decisions come first, up to half of the places; the rest are the first samples of the data.

    Returns:
        ``index``, ``label`` and ``decision`` (-1 is silent), one per sample; ``layers`` with ``name``, ``height`` and
        ``times[sample][neuron]``, each a time or, of trains, a list of times; ``readout``, whether the classes are not
        neurons of the last of these layers; if they apply, ``membrane`` (of the last spiking layer, in units of the
        thresholds: of the ``neurons`` of each sample ``traces`` at ``points``, and ``spikes``), ``image`` with its
        shape, and ``points`` on the plane with the names of the ``inputs``.
    """
    shown, evaluation, (_, data) = named_spikes(run.network, run.record), run.evaluation, run.held_out
    size = sum(spikes.times[0].numel() for spikes in shown) + POINTS * run.record.output.shape[1]
    chosen = choose(evaluation.predictions != data.labels, max(_FEWEST, budget // size))
    found: dict[str, Any] = {
        "of": len(data),
        "index": chosen.tolist(),
        "label": data.labels[chosen].tolist(),
        "decision": evaluation.predictions[chosen].tolist(),
        "layers": [
            {"name": spikes.name, "height": height, "times": plain(spikes.times[chosen])}
            for spikes, height in zip(shown, layer_heights(shown), strict=True)
        ],
        "readout": evaluation.readout,
    }
    try:
        found["membrane"] = _membranes(run, chosen)
    except NotApplicable as reason:
        found["no_membrane"] = str(reason)
    if run.config.data.kind == "yin_yang":
        found["inputs"] = run.input_names
        found["points"] = plain(run.plane.coordinates(data.times[chosen]))
    elif run.pixels is not None:
        found["image"] = dict(zip(("rows", "columns", "every"), run.pixels, strict=True))
    elif data.input_names and data.features <= _NAMED:
        found["inputs"] = run.input_names
    return found


def choose(wrong: Tensor, count: int) -> Tensor:
    """Indices of samples, sorted: wrong ones, at most half, then the first ones."""
    if count >= len(wrong):
        return torch.arange(len(wrong))
    first = wrong.nonzero().flatten()[: count // 2]
    others = torch.ones(len(wrong), dtype=torch.bool)
    others[first] = False
    return torch.cat([first, others.nonzero().flatten()[: count - len(first)]]).sort().values


def _membranes(run: RunData, chosen: Tensor) -> dict[str, Any]:
    """Exact voltages of the last spiking layer, which its input spikes and, of trains, its own spikes cause."""
    lif, layer = run.membrane_layer
    names, outputs, trains = run.neuron_names, run.spiking_output, form_of(layer) == "trains"
    found: dict[str, Any] = {name: [] for name in ("points", "traces", "spikes", "neurons")}
    for times, spikes in zip(
        lif.inputs(run.record)[chosen].double(), run.record.layers[lif.index][chosen], strict=True
    ):
        membranes = Membranes(layer, None if outputs else busiest(spikes))
        start, stop, _ = membranes.window(times, spikes)
        at = membranes.points(start, stop, spikes, count=POINTS)
        voltage = membranes.voltage(at, times, spikes.double()) / membranes.threshold.unsqueeze(-1)
        own = plain(spikes[membranes.chosen].reshape(len(membranes.chosen), -1))
        found["points"].append(plain(at))
        found["traces"].append(plain(voltage, 3))
        found["spikes"].append([[x for x in row if x is not None] for row in own])
        found["neurons"].append([names[neuron] for neuron in membranes.chosen])
    return found | {"trains": trains, "outputs": outputs, "layer": lif.name}


def plane(run: RunData) -> dict[str, Any]:
    """Decisions over the plane, a letter for a point and a string for a row: ``0`` is the first class, ``.`` silent."""
    where = run.plane
    decisions = where.image(run.objective.predict(run.plane_record.output)).astype(int)
    letters = np.array([*"012345678", "."])
    return {
        "rows": ["".join(row) for row in letters[decisions]],  # -1 is the last letter
        "size": 2 * where.r_big,
        "outline": [plain(line, 3) for line in where.outline()],
    }


def plain(values: ArrayLike, digits: int = 4) -> Any:
    """Nested lists of rounded numbers, None for what is not finite, such as the time of no spike."""
    array = np.round(np.asarray(values, dtype=float), digits)
    shown = array.astype(object)
    shown[~np.isfinite(array)] = None
    return shown.tolist()


def significant(values: ArrayLike, digits: int = 5) -> list[float | None]:
    """The same for one row of numbers of any size, with that many significant digits."""
    return [float(f"{x:.{digits}g}") if np.isfinite(x) else None for x in np.asarray(values, dtype=float).tolist()]
