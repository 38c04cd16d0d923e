"""A run on one page."""

import textwrap

from matplotlib.figure import Figure

from firstspike.layers import Readout
from firstspike.layers.named import named_layers, named_spikes
from firstspike.plots import run_data
from firstspike.plots.look import axes_list, new_figure
from firstspike.plots.matrices import confusion
from firstspike.plots.membranes import output_membranes
from firstspike.plots.run_data import NotApplicable, run_figure
from firstspike.plots.spike_times import classes_of, output_times, raster, spike_histogram
from firstspike.plots.training import loss_and_error
from firstspike.plots.yin_yang import decision_map, plane_of, plane_record
from firstspike.runs import Run
from firstspike.runs.writer import summary
from firstspike.training.evaluation import success_text

_CLASSES = 3  # panels of output times


@run_figure
def summary_figure(run: Run, sample: int = 0) -> Figure:
    """Training, output times, decisions, and one test sample in all layers, on a page of A4."""
    heights = {"training": 1.0, "times": 0.95, "decisions": 1.15, "sample": 1.15}
    unit = run_data.unit_in(run)
    try:
        table = run_data.output_times_of(run)
    except NotApplicable:
        del heights["times"]
    figure = new_figure(8.27, 11.0 * sum(heights.values()) / 4.25)
    figure.suptitle(_headline(run))
    grid = figure.add_gridspec(len(heights), 1, height_ratios=list(heights.values()))
    rows = {name: figure.add_subfigure(grid[place]) for place, name in enumerate(heights)}
    loss_and_error(run_data.metrics_of(run), rows["training"].subplots(1, 2))

    if "times" in rows:
        names = run.names(classes_of(table))
        shown = min(_CLASSES, len(names))
        output_times(table, axes_list(rows["times"].subplots(1, shown, sharey=True), shown), names, unit)
        if shown < len(names):
            rows["times"].suptitle(f"the first {shown} of {len(names)} classes")

    left, right = rows["decisions"].subplots(1, 2)
    confusion(run.evaluation, left, run.class_names)
    if run.config.data.kind == "yin_yang":
        times = plane_record(run).output
        decision_map(times, run.loss, right, plane_of(run), names=run.names(times.shape[-1]))
    else:
        last = named_spikes(run.network, run.record)[-1]  # a readout has no spikes
        spike_histogram(last.times, right, last.name, unit=unit)

    left, right = rows["sample"].subplots(1, 2)
    raster(run.network, run.record, left, sample, unit).set_title(run_data.sample_title(run, sample))
    try:
        output_membranes(run, sample, right)
    except NotApplicable as reason:
        right.set_axis_off()
        right.text(0.5, 0.5, textwrap.fill(str(reason), 40), transform=right.transAxes, ha="center", va="center")
    return figure


def _headline(run: Run) -> str:
    config, result = run.config, run.evaluation
    layers = [str(lif.layer.out_features) for lif in named_layers(run.network)] or [run.network._get_name()]
    layers += [str(layer.out_features) for layer in run.network.modules() if isinstance(layer, Readout)]
    loss = config.loss.name if config.loss.kind == "custom" else config.loss.kind
    return (
        f"{run_data.data_name(run)}, network {' - '.join([str(run.data.train.features), *layers])}, {loss}, "
        f"{int(run_data.metrics_of(run)['epoch'][-1])} epochs, seed {config.training.seed}: {run.held_out[0]} "
        f"{success_text(summary(result), 1)}"
    )
