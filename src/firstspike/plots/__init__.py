"""Figures: functions that draw data into axes of yours, and whole figures of a finished run::

    figure, axes = plt.subplots(1, 2)
    plots.loss_and_error(fs.load_run("runs/bars").metrics, axes)           # data, axes -> axes
    figure = plots.PLOTS["summary"](plots.RunData("runs/bars"))            # a figure of a run
    plots.save_figures("runs/bars", formats=("png", "pdf"))                # all that apply, into runs/bars/figures

All are readable in grey and for the colour-blind. Nothing here touches pyplot.

To add a figure: a file here with ``<name>(data, ax) -> ax`` and ``<name>_figure(run) -> Figure``, and a line in
``PLOTS``. A figure that makes no sense for a run raises ``NotApplicable`` with the reason.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from firstspike.plots.callbacks import CALLBACKS
from firstspike.plots.confusion import confusion, confusion_figure
from firstspike.plots.dataset import dataset_figure, input_raster, spike_images, two_inputs, yin_yang_points
from firstspike.plots.membrane import membrane, membrane_figure, membrane_voltage
from firstspike.plots.plane import YinYangPlane
from firstspike.plots.raster import raster, raster_figure
from firstspike.plots.run_data import NotApplicable, RunData
from firstspike.plots.save import save_run_figures, write_figure
from firstspike.plots.spike_times import output_times, output_times_figure, spike_histogram, spike_histogram_figure
from firstspike.plots.style import style
from firstspike.plots.substrate import membrane_comparison, substrate_figure, time_comparison
from firstspike.plots.summary import summary_figure
from firstspike.plots.training import (
    accuracy,
    loss_and_error,
    loss_and_error_figure,
    parameter_history,
    parameters_figure,
)
from firstspike.plots.weights import weight_histogram, weight_histograms_figure, weight_matrices_figure, weight_matrix
from firstspike.plots.yin_yang import (
    decision_map,
    decision_map_figure,
    difference_map,
    hidden_maps_figure,
    output_maps_figure,
    time_map,
)
from firstspike.runs import LoadedRun
from firstspike.training import confusion_counts

PLOTS: dict[str, Callable[[RunData], Figure]] = {
    "summary": summary_figure,
    "loss_and_error": loss_and_error_figure,
    "output_times": output_times_figure,
    "spike_histogram": spike_histogram_figure,
    "confusion": confusion_figure,
    "weight_histograms": weight_histograms_figure,
    "weight_matrices": weight_matrices_figure,
    "parameters": parameters_figure,
    "raster": raster_figure,
    "membrane": membrane_figure,
    "substrate": substrate_figure,
    "dataset": dataset_figure,
    "decision_map": decision_map_figure,
    "output_maps": output_maps_figure,
    "hidden_maps": hidden_maps_figure,
}

AFTER_TRAINING = ("loss_and_error", "output_times")
"""What is drawn at the end of every training. It needs no network, only the tables and the class names."""

AFTER_TRAINING_OF_SEVERAL = ("loss_and_error",)
"""The same of several seeds, from the table of their mean."""


def save_figures(
    run: LoadedRun | Path | str, names: Sequence[str] | None = None, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Draw figures of a run and write them to ``<run>/figures/NAME.png`` (or other formats), each whole or not at all.

    Of a run on another substrate than its own they are called ``NAME_on_KIND``.

    Args:
        run: its folder, or what ``fs.load_run`` gives.
        names: keys of ``PLOTS``; by default all that apply.
        formats: file formats.

    Returns:
        The files.

    Raises:
        ValueError: a name or format that there is not.
        NotApplicable: a figure asked for by name that makes no sense for this run.
        FileNotFoundError: no run lives there.
    """
    if not isinstance(run, LoadedRun):
        run = RunData(run)
    data = run if isinstance(run, RunData) else RunData.of(run)
    return save_run_figures(PLOTS, data, names, formats)


__all__ = [
    "AFTER_TRAINING",
    "CALLBACKS",
    "PLOTS",
    "NotApplicable",
    "RunData",
    "YinYangPlane",
    "accuracy",
    "confusion",
    "confusion_counts",
    "decision_map",
    "difference_map",
    "input_raster",
    "loss_and_error",
    "membrane",
    "membrane_comparison",
    "membrane_voltage",
    "output_times",
    "parameter_history",
    "raster",
    "save_figures",
    "spike_histogram",
    "spike_images",
    "style",
    "time_comparison",
    "time_map",
    "two_inputs",
    "weight_histogram",
    "weight_matrix",
    "write_figure",
    "yin_yang_points",
]
