"""Figures: functions that draw data into your own axes, and whole figures of a run::

    figure, axes = plt.subplots(1, 2)
    plots.loss_and_error(fs.Run("runs/bars").metrics, axes)           # data, axes -> axes
    figure = plots.PLOTS["summary"](fs.Run("runs/bars"))              # a figure of a run
    fs.Run("runs/bars").plot(formats=("png", "pdf"))                  # all that apply, into runs/bars/figures

The colour-blind can read all of them. Nothing here touches pyplot.

Functions that draw data take the axes to draw into as ``ax`` and return them. ``unit`` is that of all times, by default
``tau_syn`` or, where layers are given, what 1 is to theirs.

To add a figure: ``<name>(data, ax) -> ax`` and ``<name>_figure(run) -> Figure`` in a file here, and a line in
``PLOTS``. A figure that does not apply to a run raises ``NotApplicable`` with the reason.
"""

from collections.abc import Callable
from functools import partial
from inspect import signature

from matplotlib.figure import Figure

from firstspike.plots import dataset, margins, matrices, membranes, spike_times, summary, training, yin_yang
from firstspike.plots.callbacks import CALLBACKS
from firstspike.plots.dataset import spike_images, yin_yang_points
from firstspike.plots.look import style
from firstspike.plots.matrices import confusion, receptive_fields
from firstspike.plots.membranes import membrane
from firstspike.plots.plane import YinYangPlane
from firstspike.plots.spike_times import output_times, raster, time_comparison
from firstspike.plots.training import accuracy, loss_and_error, spike_counts
from firstspike.plots.yin_yang import decision_map, time_map

PLOTS: dict[str, Callable[..., Figure]] = {
    "summary": summary.summary_figure,
    "loss_and_error": training.loss_and_error_figure,
    "output_times": spike_times.output_times_figure,
    "spike_counts": training.spike_counts_figure,
    "spike_histogram": spike_times.spike_histogram_figure,
    "confusion": matrices.confusion_figure,
    "margins": margins.margins_figure,
    "weight_matrices": matrices.weight_matrices_figure,
    "receptive_fields": matrices.receptive_fields_figure,
    "parameters": training.parameters_figure,
    "raster": spike_times.raster_figure,
    "membrane": membranes.membrane_figure,
    "substrate": spike_times.substrate_figure,
    "dataset": dataset.dataset_figure,
    "decision_map": yin_yang.decision_map_figure,
    "output_maps": yin_yang.output_maps_figure,
    "hidden_maps": yin_yang.hidden_maps_figure,
}
"""Figures of a run by name. Each takes an ``fs.Run``, and raises a ``ValueError`` if it does not apply to it."""


def of_sample(sample: int) -> dict[str, Callable[..., Figure]]:
    """The figures that show one sample, of this one."""
    takes = {name: draw for name, draw in PLOTS.items() if "sample" in signature(draw).parameters}
    return {name: partial(draw, sample=sample) for name, draw in takes.items()}


AFTER_TRAINING = ("loss_and_error", "output_times", "decision_map")
"""Figures that every training draws at its end, if they apply: of the tables, and of exact networks on a plane."""


__all__ = [
    "CALLBACKS", "PLOTS", "YinYangPlane", "accuracy", "confusion", "decision_map", "loss_and_error", "membrane",
    "output_times", "raster", "receptive_fields", "spike_counts", "spike_images", "style", "time_comparison",
    "time_map", "yin_yang_points",
]  # fmt: skip
