"""Figures: functions that draw data into your own axes, and whole figures of a run::

    figure, axes = plt.subplots(1, 2)
    plots.loss_and_error(fs.Run("runs/bars").metrics, axes)           # data, axes -> axes
    figure = plots.PLOTS["summary"](fs.Run("runs/bars"))              # a figure of a run
    fs.Run("runs/bars").plot(formats=("png", "pdf"))                  # all that apply, into runs/bars/figures

The colour-blind can read all of them. Nothing here touches pyplot.

Functions that draw data take the axes to draw into as ``ax`` and return them; ``unit`` is that of all times, by default
``tau_syn`` or, where layers are given, what 1 is to theirs.

To add a figure: ``<name>(data, ax) -> ax`` and ``<name>_figure(run) -> Figure`` in a file here, and a line in
``PLOTS``. A figure that does not apply to a run raises ``NotApplicable`` with the reason.
"""

from collections.abc import Callable

from matplotlib.figure import Figure

from firstspike.plots.callbacks import CALLBACKS
from firstspike.plots.dataset import dataset_figure, spike_images, yin_yang_points
from firstspike.plots.look import style
from firstspike.plots.margins import margins_figure
from firstspike.plots.matrices import (
    confusion,
    confusion_figure,
    receptive_fields,
    receptive_fields_figure,
    weight_matrices_figure,
)
from firstspike.plots.membranes import membrane, membrane_figure
from firstspike.plots.plane import YinYangPlane
from firstspike.plots.spike_times import (
    output_times,
    output_times_figure,
    raster,
    raster_figure,
    spike_histogram_figure,
    substrate_figure,
    time_comparison,
)
from firstspike.plots.summary import summary_figure
from firstspike.plots.training import (
    accuracy,
    loss_and_error,
    loss_and_error_figure,
    parameters_figure,
    spike_counts,
    spike_counts_figure,
)
from firstspike.plots.yin_yang import (
    decision_map,
    decision_map_figure,
    hidden_maps_figure,
    output_maps_figure,
    time_map,
)

PLOTS: dict[str, Callable[..., Figure]] = {
    "summary": summary_figure,
    "loss_and_error": loss_and_error_figure,
    "output_times": output_times_figure,
    "spike_counts": spike_counts_figure,
    "spike_histogram": spike_histogram_figure,
    "confusion": confusion_figure,
    "margins": margins_figure,
    "weight_matrices": weight_matrices_figure,
    "receptive_fields": receptive_fields_figure,
    "parameters": parameters_figure,
    "raster": raster_figure,
    "membrane": membrane_figure,
    "substrate": substrate_figure,
    "dataset": dataset_figure,
    "decision_map": decision_map_figure,
    "output_maps": output_maps_figure,
    "hidden_maps": hidden_maps_figure,
}
"""Figures of a run by name; each takes an ``fs.Run``, and raises a ``ValueError`` if it does not apply to it."""

AFTER_TRAINING = ("loss_and_error", "output_times")
"""Figures that every training draws at its end, if they apply. They need no network, only the tables."""


__all__ = [
    "CALLBACKS", "PLOTS", "YinYangPlane", "accuracy", "confusion", "decision_map", "loss_and_error", "membrane",
    "output_times", "raster", "receptive_fields", "spike_counts", "spike_images", "style", "time_comparison",
    "time_map", "yin_yang_points",
]  # fmt: skip
