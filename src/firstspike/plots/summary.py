"""A run on one page."""

from matplotlib.figure import Figure

from firstspike.layers.named import named_lif_layers
from firstspike.plots.confusion import confusion
from firstspike.plots.membrane import output_membranes
from firstspike.plots.raster import raster
from firstspike.plots.run_data import RunData
from firstspike.plots.spike_times import output_times, spike_histogram
from firstspike.plots.style import axes_list, new_figure, styled
from firstspike.plots.training import loss_and_error
from firstspike.plots.yin_yang import decision_map

_PANELS = 3  # classes whose output times are shown


@styled
def summary_figure(run: RunData, sample: int = 0) -> Figure:
    """Training, output times, decisions, and one test sample all through the network of a run, on a page of A4."""
    figure = new_figure(8.27, 11.0)
    figure.suptitle(_headline(run))
    grid = figure.add_gridspec(4, 1, height_ratios=[1.0, 0.95, 1.15, 1.15])
    rows = [figure.add_subfigure(grid[row]) for row in range(4)]
    names, unit = run.class_names, run.unit

    loss_and_error(run.metrics, rows[0].subplots(1, 2))

    shown = min(_PANELS, len(names))
    panels = axes_list(rows[1].subplots(1, shown, sharey=True), shown)
    output_times(run.output_times, panels, names, unit)
    if shown < len(names):
        rows[1].suptitle(f"the first {shown} of {len(names)} classes")

    left, right = rows[2].subplots(1, 2)
    confusion(run.evaluation, left, names)
    if run.config.data.kind == "yin_yang":
        decision_map(run.plane_record.output, run.loss, right, run.plane, names=names)
    else:
        spike_histogram(run.record.output, right, "output", unit=unit)

    left, right = rows[3].subplots(1, 2)
    split, data = run.held_out
    label = names[int(data.labels[sample])]
    raster(run.network, run.record, left, sample, unit)
    left.set_title(f"{split} sample {sample}, class {label}")
    output_membranes(run, sample, right)
    right.set_title(f"output neurons, {split} sample {sample}")
    return figure


def _headline(run: RunData) -> str:
    config, result = run.config, run.evaluation
    inputs = run.data.train.features
    sizes = [str(inputs), *(str(lif.layer.out_features) for lif in named_lif_layers(run.network))]
    epochs = int(run.metrics["epoch"][-1])
    return (
        f"{config.data.kind}, network {' - '.join(sizes)}, {config.loss.kind}, {epochs} epochs, seed "
        f"{config.training.seed}: {run.held_out[0]} accuracy "
        f"{100 * result.accuracy:.1f} ± {100 * result.accuracy_error:.1f} %"
    )
