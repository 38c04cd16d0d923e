"""Spikes, decisions and membranes of a trained network, as plain data for the page's scripts.

Parts that a run lacks (a checkpoint, a chip that is not here, data that are gone) are left out, with reasons in the
``notes``.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.layers.named import named_spikes
from firstspike.layers.trains import form_of
from firstspike.plots import run_data
from firstspike.plots.margins import number_text
from firstspike.plots.membranes import TRACES, membranes_of
from firstspike.plots.run_data import UNAVAILABLE, NotApplicable
from firstspike.plots.spike_times import raster_rows
from firstspike.plots.yin_yang import map_image, plane_of
from firstspike.reports.page import as_source
from firstspike.runs import Run
from firstspike.training.evaluation import success_text

POINTS = 160  # of a membrane trace
_NAMED = 64  # largest number of inputs that are listed with their names
_FEWEST = 12  # samples in the file, however large they are


def details(run: Run, budget: int) -> dict[str, Any]:
    """One trained network, with at most ``budget`` numbers for its samples.

    ``name``, ``notes``, and those of ``classes``, ``split`` (the data that are shown), ``confusion``, ``samples``,
    ``plane`` that apply to the run.
    """
    found: dict[str, Any] = {"name": f"seed {run.config.training.seed}"}
    parts: dict[str, tuple[str, Callable[[], Any]]] = {
        "classes": ("names of classes", lambda: list(run.class_names)),
        "split": ("data", lambda: run.held_out[0]),
        "confusion": ("confusion matrix", lambda: confusion(run)),
        "samples": ("single samples", lambda: samples(run, budget)),
    }
    if run.config.data.kind == "yin_yang":
        parts["plane"] = ("decision map", lambda: plane(run))
    reasons: dict[str, list[str]] = {}
    for name, (title, make) in parts.items():
        try:
            found[name] = make()
        except Exception as error:
            reason = run_data.left_out(title, error)
            if isinstance(error, UNAVAILABLE) and not isinstance(error, NotApplicable) and reason not in reasons:
                logging.getLogger(__name__).warning("the report is not whole: %s", reason)
            reasons.setdefault(reason, []).append(title)
    return found | {"notes": [f"{', '.join(titles)}: {reason}" for reason, titles in reasons.items()]}


def confusion(run: Run) -> dict[str, Any]:
    """Counts on the held-out data, true classes in rows."""
    found = run_data.classified(run).numbers
    shown = {name: found[name] for name in ("checkpoint", "decisions", "samples")}
    return shown | {"counts": found["confusion"], "accuracy": success_text(found)}


def samples(run: Run, budget: int) -> dict[str, Any]:
    """Samples of the held-out data to choose from, as many as the budget of numbers allows.

    ``index``, ``label`` and ``decision`` (-1 is silent), one per sample; ``layers`` with ``name``, ``rows`` and
    ``times[sample][neuron]``, each a time or, of trains, a list of times; ``readout``, whether the classes are not
    neurons of the last of these layers; if they apply, ``membrane`` (of the last spiking layer, in units of the
    thresholds), ``image`` with its shape or the names of the ``inputs`` (of a table, with
    ``values``), and ``points`` on the plane.
    """
    evaluation, (_, data), shown = run_data.classified(run), run.held_out, named_spikes(run.network, run.record)
    size = sum(spikes.times[0].numel() for spikes in shown) + POINTS * TRACES
    chosen = choose(evaluation.predictions != data.labels, max(_FEWEST, budget // size))
    found: dict[str, Any] = {
        "of": len(data),
        "index": chosen.tolist(),
        "label": data.labels[chosen].tolist(),
        "decision": evaluation.predictions[chosen].tolist(),
        "layers": [
            {"name": spikes.name, "rows": plain(rows), "times": plain(spikes.times[chosen])}
            for spikes, rows in zip(shown, raster_rows(shown), strict=True)
        ],
        "readout": evaluation.readout,
    }
    try:
        found["membrane"] = _membranes(run, chosen)
    except Exception as error:
        found["no_membrane"] = run_data.left_out("membranes", error)
    if run.config.data.kind == "yin_yang":
        found["points"] = plain(plane_of(run).coordinates(data.times[chosen]))
    if data.image is not None:
        found["image"] = dict(zip(("rows", "columns"), data.image[1:], strict=True))
    elif (encoder := run.data.train.table) is not None and encoder.features <= _NAMED:
        found["inputs"] = list(run.data.train.columns)
        found["values"] = [list(map(number_text, row)) for row in encoder.decode(data.times[chosen]).tolist()]
    elif data.features <= _NAMED:
        found["inputs"] = run_data.input_names(run)
    return found


def choose(wrong: Tensor, count: int) -> Tensor:
    """Indices of samples, sorted: wrong ones, at most half, then the first ones."""
    first = set(wrong.nonzero().flatten()[: count // 2].tolist())
    others = [sample for sample in range(len(wrong)) if sample not in first]
    return torch.tensor(sorted([*first, *others[: count - len(first)]]))


def _membranes(run: Run, chosen: Tensor) -> dict[str, Any]:
    """Exact voltages of the last spiking layer, which its input spikes and, of trains, its own spikes cause."""
    lif, layer = run_data.membrane_layer(run)
    drawn = [membranes_of(run, sample, POINTS) for sample in chosen.tolist()]
    return {
        "layer": lif.name,
        "trains": form_of(layer) == "trains",
        "outputs": run_data.spiking_output(run),
        "of": layer.out_features,
        "samples": [
            {name: getattr(x, name) for name in ("neurons", "tones", "names", "bases")}
            | {"at": plain(x.at), "voltage": plain(x.voltage, 3), "spikes": list(map(plain, x.spikes))}
            for x in drawn
        ],
    }


def plane(run: Run) -> dict[str, Any]:
    """The decision map as an image, and the side of the plane."""
    return {"image": as_source(map_image(run)), "size": 2 * plane_of(run).r_big}


def plain(values: ArrayLike, digits: int = 4) -> Any:
    """Nested lists of rounded numbers, None for those that are not finite, such as the time of no spike."""
    array = np.round(np.asarray(values, dtype=float), digits)
    shown = array.astype(object)
    shown[~np.isfinite(array)] = None
    return shown.tolist()
