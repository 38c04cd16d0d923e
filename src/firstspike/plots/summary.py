"""A run on one page."""

import textwrap
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from firstspike.layers.named import named_lif_layers
from firstspike.plots.confusion import confusion
from firstspike.plots.membrane import output_membranes
from firstspike.plots.run_data import NotApplicable, RunData, run_figure
from firstspike.plots.spike_times import output_times, raster, spike_histogram
from firstspike.plots.style import axes_list, new_figure
from firstspike.plots.training import loss_and_error
from firstspike.plots.yin_yang import decision_map
from firstspike.training import confusion_counts

_CLASSES = 3  # panels of output times


@run_figure
def summary_figure(run: RunData, sample: int = 0) -> Figure:
    """Training, output times, decisions, and one test sample in all layers, on a page of A4."""
    figure = new_figure(8.27, 11.0)
    figure.suptitle(_headline(run))
    grid = figure.add_gridspec(4, 1, height_ratios=[1.0, 0.95, 1.15, 1.15])
    rows = [figure.add_subfigure(grid[row]) for row in range(4)]
    names = run.names(len(confusion_counts(run.evaluation, len(run.class_names))))

    loss_and_error(run.metrics, rows[0].subplots(1, 2))

    shown = min(_CLASSES, len(names))
    axes = axes_list(rows[1].subplots(1, shown, sharey=True), shown)
    _or_reason(lambda: output_times(run.output_times, axes, names, run.unit), axes)
    if shown < len(names):
        rows[1].suptitle(f"the first {shown} of {len(names)} classes")

    left, right = rows[2].subplots(1, 2)
    confusion(run.evaluation, left, names)
    if run.config.data.kind == "yin_yang":
        decision_map(run.plane_record.output, run.loss, right, run.plane, names=names)
    else:
        spike_histogram(run.record.output, right, "output", unit=run.unit)

    left, right = rows[3].subplots(1, 2)
    raster(run.network, run.record, left, sample, run.unit).set_title(run.sample_title(sample))
    _or_reason(lambda: output_membranes(run, sample, right), [right])
    return figure


def _or_reason(draw: Callable[[], object], axes: Sequence[Axes]) -> None:
    """Draw, or write why a part does not apply to the run."""
    try:
        draw()
    except NotApplicable as reason:
        for ax in axes:
            ax.set_axis_off()
        middle = axes[len(axes) // 2]
        middle.text(0.5, 0.5, textwrap.fill(str(reason), 40), transform=middle.transAxes, ha="center", va="center")


def _headline(run: RunData) -> str:
    config, result = run.config, run.evaluation
    layers = [str(lif.layer.out_features) for lif in named_lif_layers(run.network)] or [type(run.network).__name__]
    loss = config.loss.name if config.loss.kind == "custom" else config.loss.kind
    return (
        f"{run.data_name}, network {' - '.join([str(run.data.train.features), *layers])}, {loss}, "
        f"{int(run.metrics['epoch'][-1])} epochs, seed {config.training.seed}: {run.held_out[0]} accuracy "
        f"{100 * result.accuracy:.1f} ± {100 * result.accuracy_error:.1f} %"
    )
