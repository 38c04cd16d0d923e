"""What a trained network does, as plain data for the page's scripts.

Whatever cannot be had of a run (no checkpoint yet, a chip that is not here, data that are gone) is left out, and the
reason is among the ``notes``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from firstspike.plots import NotApplicable, RunData, confusion_counts
from firstspike.reports.samples import samples
from firstspike.reports.values import plain, significant

_CHECKPOINTS = 40  # positions of the slider at most
_LOOKED_AT = 1000  # validation samples at each of them
_BINS = 40
_COLUMNS = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy")
_CURVE = 1500  # epochs in a curve at most


def details(run: RunData, budget: int) -> dict[str, Any]:
    """One trained network.

    Args:
        run: of one seed.
        budget: so many numbers at most for the samples to pick.

    Returns:
        ``name``, ``classes``, ``notes``, and those of ``curves``, ``history``, ``confusion``, ``samples``, ``plane``
        that can be had.
    """
    found: dict[str, Any] = {"name": f"seed {run.config.training.seed}", "notes": []}
    found["classes"] = _classes(run)
    parts: dict[str, Callable[[], Any]] = {
        "curves": lambda: curves(run),
        "history": lambda: history(run),
        "confusion": lambda: confusion(run),
        "samples": lambda: samples(run, budget),
    }
    if run.config.data.kind == "yin_yang":
        parts["plane"] = lambda: plane(run)
    for name, make in parts.items():
        try:
            found[name] = make()
        except (NotApplicable, OSError, ImportError) as reason:
            if str(reason) not in found["notes"]:
                found["notes"].append(str(reason))
    return found


def _classes(run: RunData) -> list[str]:
    try:
        return list(run.class_names)
    except (OSError, ImportError):  # the data are gone
        return [str(label) for label in range(_outputs(run))]


def curves(run: RunData) -> dict[str, Any]:
    """Loss and accuracy over the epochs, thinned out where there are very many."""
    metrics = run.metrics
    every = -(-len(metrics["epoch"]) // _CURVE)
    chosen = slice(len(metrics["epoch"]) - 1, None, -every)  # the last one is always there
    return {"epoch": plain(metrics["epoch"][chosen][::-1], 0)} | {
        name: significant(metrics[name][chosen][::-1]) for name in _COLUMNS
    }


def history(run: RunData) -> dict[str, Any]:
    """Histograms of output spike times on validation data, by true class, before training and at the checkpoints.

    ``counts[checkpoint][class][output]`` are bins of ``edges``, the last with all that is later, in percent of the
    class's samples; ``silent[checkpoint][class][output]`` is the rest.
    """
    data = run.data.validation
    inputs, labels = data.times[:_LOOKED_AT], data.labels[:_LOOKED_AT]
    epochs, times, right = [], [], []
    for epoch, network in run.states(_CHECKPOINTS):
        output = run.observe(inputs, network).output
        epochs.append(epoch)
        times.append(output.double())
        right.append(float((run.loss.predict(output) == labels).double().mean()))
    if len(epochs) == 1:
        raise NotApplicable(f"{run.folder} has no checkpoint that can be read")
    edges = _edges(torch.stack(times))
    classes = [labels == label for label in range(len(data.class_names))]
    return {
        "epochs": plain(epochs, 2),
        "accuracy": plain(right),
        "samples": len(labels),
        "edges": plain(edges),
        "counts": [[_counts(output[chosen], edges) for chosen in classes] for output in times],
        "silent": [
            [plain(100 * torch.isinf(output[chosen]).double().mean(dim=0), 1) for chosen in classes] for output in times
        ],
    }


def _edges(times: Tensor) -> np.ndarray:
    """Of the bins, the same for all checkpoints; stragglers do not eat the scale."""
    spikes = times[torch.isfinite(times)].numpy()
    if not spikes.size:
        return np.linspace(0, 1, _BINS + 1)
    low, high = float(spikes.min()), float(np.quantile(spikes, 0.995))
    return np.linspace(low, max(high, low + 1e-3), _BINS + 1)


def _counts(times: Tensor, edges: np.ndarray) -> list[list[float]]:
    """Percent of the samples in each bin, a row for each output."""
    spikes = times.clamp(float(edges[0]), float(edges[-1])).numpy()
    spikes[torch.isinf(times).numpy()] = np.nan  # a tensor of one value would be an index
    counts = [np.histogram(row[np.isfinite(row)], edges)[0] for row in spikes.T]
    found: list[list[float]] = plain(100 * np.stack(counts) / max(1, len(times)), 2)
    return found


def confusion(run: RunData) -> dict[str, Any]:
    """Counts on the test data, true classes in rows."""
    evaluation, counts = run.evaluation, confusion_counts(run.evaluation)
    return {
        "checkpoint": run.checkpoint.name,
        "counts": counts.tolist(),
        "decisions": [*run.class_names, "silent"][: counts.shape[1]],
        "accuracy": evaluation.accuracy,
        "error": evaluation.accuracy_error,
        "samples": len(evaluation.labels),
    }


def plane(run: RunData) -> dict[str, Any]:
    """Decisions over the plane, a letter a point and a string a row from below: ``0`` first class, ``.`` silent."""
    where = run.plane
    decisions = where.image(run.loss.predict(run.plane_record.output)).astype(int)
    letters = np.array([*"012345678", "."])
    return {
        "rows": ["".join(row) for row in letters[decisions]],  # -1 is the last letter
        "size": 2 * where.r_big,
        "outline": [plain(line, 3) for line in where.outline()],
    }


def _outputs(run: RunData) -> int:
    """Neurons of the last LIF layer, as the config says."""
    sizes = [layer.out_features for layer in run.config.network if layer.kind == "lif"]
    return int(sizes[-1]) if sizes else 0
