"""When neurons spike: over training, over all samples, in one sample, and on a substrate."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor, nn

from firstspike.layers import Network, Record
from firstspike.layers.named import NamedSpikes, Neurons, named_layers, named_spikes, populations_of, to_numpy
from firstspike.layers.trains import form_of
from firstspike.plots import look, run_data
from firstspike.plots.membranes import draw_traces, traces, unit_of
from firstspike.plots.run_data import NotApplicable, run_figure
from firstspike.plots.training import running_median
from firstspike.runs import Run
from firstspike.training.evaluation import record_in_parts

_LINES_UP_TO = 4  # outputs; of more, all but the true class's are a band
_OFTEN, _SELDOM = 0.5, 0.1  # fractions of the samples
_DOTS = 4000  # of a comparison. More merge into a blot
_TICKS_UP_TO = 20  # neurons of a layer whose spikes are drawn as ticks, otherwise as dots


def output_times(
    rows: Mapping[str, ArrayLike],
    axes: Axes | Iterable[Any],
    names: Sequence[str] | None = None,
    unit: str = look.TAU_SYN,
) -> list[Axes]:
    """Mean and standard deviation of each output's spike time over epochs, one panel for each true class.

    Of more than four outputs the one of the true class is drawn, and the range of the others' means. Lines are running
    medians of a twentieth of all epochs: the mean jumps when samples begin or cease to make the neuron spike. They are
    faint where fewer than half of the samples do, and interrupted where fewer than a tenth do. Lines that reach the
    last epoch are named.

    Args:
        rows: the columns ``epoch``, ``label``, ``neuron``, ``mean``, ``std``, ``spiked`` (fraction of the samples in
            which the neuron spiked), a row for each epoch, class and neuron. Times in the unit of the run.
        axes: as many as there are classes. Fewer show the first classes.
        names: of the classes.
    """
    order = np.lexsort([np.asarray(rows[name], dtype=float) for name in ("neuron", "epoch")])
    table = {name: np.asarray(column, dtype=float)[order] for name, column in rows.items()}
    classes, neurons = classes_of(rows), int(table["neuron"].max()) + 1
    names, few = look.class_names(names, classes), neurons <= _LINES_UP_TO
    flat = look.axes_list(axes, 1)[:classes]
    for label, ax in enumerate(flat):
        part = {name: column[table["label"] == label].reshape(-1, neurons) for name, column in table.items()}
        epoch, window = part["epoch"][:, 0], max(1, len(part["epoch"]) // 20)
        mean, std, spiked = (running_median(part[name], window) for name in ("mean", "std", "spiked"))
        drawn, often = (np.where(spiked >= least, mean, np.nan) for least in (_SELDOM, _OFTEN))
        if not few:
            others = np.ma.masked_invalid(np.delete(part["mean"], label, axis=1))
            low, high = (bound.filled(np.nan) for bound in (others.min(axis=1), others.max(axis=1)))
            ax.fill_between(epoch, low, high, color=look.GREY, alpha=look.FAINT, linewidth=0, label="other outputs")
        for neuron in range(neurons) if few else range(label, min(label + 1, neurons)):
            drawn_as = look.line_style(neuron if few else 0)
            low, high = often[:, neuron] - std[:, neuron], often[:, neuron] + std[:, neuron]
            ax.fill_between(epoch, low, high, color=drawn_as["color"], alpha=0.15, linewidth=0)
            name = "true class" if not few else names[neuron] if neuron < classes else str(neuron)
            there = few and bool(np.isfinite(drawn[-2:, neuron]).all())
            ax.plot(epoch, drawn[:, neuron], alpha=look.FAINT, label=name if there else None, **drawn_as)
            ax.plot(epoch, often[:, neuron], label=None if few else name, **drawn_as)
        ax.set_title(f"true class: {names[label]}")
        look.epoch_axis(ax, 4)
    flat[0].set_ylabel(look.time_label(unit, "output spike time"))
    if few:
        for ax in flat:
            look.label_lines(ax)  # when the limits of all panels, which may share theirs, are final
    else:
        look.legend_right(flat[-1])
    return flat


def classes_of(rows: Mapping[str, ArrayLike]) -> int:
    """Number of classes of which there are samples."""
    label, spiked = (np.asarray(rows[name], dtype=float) for name in ("label", "spiked"))
    return int(label[np.isfinite(spiked)].max(initial=0)) + 1


def spike_histogram(
    times: Float[Tensor, "samples neurons *spikes"], ax: Axes, name: str = "", bins: int = 40, unit: str = look.TAU_SYN
) -> Axes:
    """Histogram of all spike times of a layer, with the fraction of silent (sample, neuron) pairs in the title.

    Bars are percentages of these pairs or, of trains, numbers of spikes in each.

    Args:
        times: spike times, ``inf`` = silent, or trains ``(samples, neurons, spikes)``.
        name: of the layer.
        bins: number of bins between the earliest and the latest spike.
    """
    values, trains = to_numpy(times), times.ndim > 2
    spikes = values[np.isfinite(values)]
    first = values[..., 0] if trains else values
    title = ", ".join(part for part in (name, f"{100 * (1 - np.isfinite(first).mean()):.1f} % silent") if part)
    if trains:
        title += f"\n{len(spikes) / first.size:.3g} spikes per neuron"
    if len(spikes):
        weights = np.full(len(spikes), (1 if trains else 100) / first.size)
        ax.hist(spikes, bins=bins, weights=weights, color=look.COLOURS[0], edgecolor="white", linewidth=0.3)
        ax.set_ylim(bottom=0)
    else:
        ax.text(0.5, 0.5, "no spikes", transform=ax.transAxes, ha="center", va="center")
    share = "spikes per neuron and sample" if trains else r"neurons $\times$ samples [%]"
    ax.set(xlabel=look.time_label(unit, "spike time"), ylabel=share, title=title)
    return ax


def raster(
    network: nn.Module | None, record: Record | Float[Tensor, "samples neurons spikes"], ax: Axes, sample: int = 0,
    unit: str | None = None, populations: Mapping[str, Neurons] | None = None,
) -> Axes:  # fmt: skip
    """Spikes of one sample in all layers, input at the bottom, a row per neuron. Larger layers are taller.

    Outputs have the colours of their classes, all else is grey. Rows of silent neurons are empty. The number of neurons
    that spiked follows the name of a layer, and of trains the number of spikes.

    Args:
        network: the network of the record, or the layer of the trains; None for trains from elsewhere.
        record: spike times of a batch through it, see ``Network.record``, or trains.
        sample: index in the batch.
        populations: neurons of the last layer, such as ``{"E": slice(0, 80), "I": slice(80, 100)}``, drawn one above
            the other: ``E`` and ``exc...`` red, ``I`` and ``inh...`` blue, others in further colours. By default ``E``
            and ``I`` by its ``recurrent_signs``.
    """
    alone = isinstance(record, Tensor)
    network = nn.Identity() if network is None else network
    shown = [NamedSpikes("neurons", record)] if isinstance(record, Tensor) else named_spikes(network, record)
    readout = isinstance(network, Network) and network.gives == "values"  # has the classes
    if populations is None:
        layer = next((x.layer for x in reversed(named_layers(network))), network)
        populations = populations_of(layer) if getattr(layer, "out_features", 0) == shown[-1].neurons else {}
    ticks: list[tuple[float, str, str]] = []
    top = 0.0
    for spikes, rows in zip(shown, raster_rows(shown), strict=True):
        trains, last = to_numpy(spikes.times[sample]).reshape(spikes.neurons, -1), spikes is shown[-1]
        neurons, often = trains.shape
        half = 0.4 * (rows[1] - rows[0] if neurons > 1 else 1.0)
        if top:
            ax.axhline(top, color="#AAAAAA", linewidth=0.6)
        top = rows[0] + rows[-1] - top
        for name, numbers, colour in _parts(spikes, populations if last else {}):
            own, places, rows = trains[numbers], rows[: len(numbers)], rows[len(numbers) :]
            spiked, tones = np.isfinite(own), np.full(len(numbers), colour)
            if last and not (alone or readout or populations):
                tones = np.resize(look.COLOURS, len(numbers))
            for tone in dict.fromkeys(tones.tolist()):
                where = spiked & (tones == tone)[:, None]
                at, row = own[where], np.broadcast_to(places[:, None], own.shape)[where]
                if neurons <= _TICKS_UP_TO:
                    ax.vlines(at, row - half, row + half, tone, linewidth=2 if often == 1 else 1.2)
                else:  # ticks would be too short to be seen
                    size = 3.5 if neurons <= 100 else 2.2 if neurons <= 500 else 1.4
                    ax.plot(at, row, "o", color=tone, markersize=size, markeredgewidth=0)
            total = f", {spiked.sum()} spikes" if often > 1 else ""
            ticks.append((float(places.mean()), f"{name} {spiked[:, 0].sum()}/{len(numbers)}{total}", colour))
    ax.set_yticks([x[0] for x in ticks], [x[1] for x in ticks])
    for text, (_, _, colour) in zip(ax.get_yticklabels(), ticks, strict=True):
        text.set(color=text.get_color() if colour == look.GREY else colour)
    ax.tick_params(axis="y", length=0)
    unit = unit_of(network) if unit is None else unit
    ax.set(
        xlabel=look.time_label(unit), ylabel="spikes / neurons" if alone else "layer, spikes / neurons", ylim=(0, top)
    )
    ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
    return ax


def _parts(spikes: NamedSpikes, populations: Mapping[str, Neurons]) -> list[tuple[str, Any, str]]:
    """Name, neurons and colour of each population of a layer, and of all neurons that are in none."""
    rest, parts, others = np.arange(spikes.neurons), [], iter(look.COLOURS[1:-1])
    for name, own in populations.items():
        numbers = np.intersect1d(np.arange(spikes.neurons)[own], rest)
        rest = np.setdiff1d(rest, numbers)
        known = (colour for start, colour in look.POPULATIONS.items() if re.match(start, name, re.IGNORECASE))
        parts.append((look.as_text(name), numbers, next(known, None) or next(others, look.GREY)))
    return [x for x in (*parts, (spikes.name, rest, look.GREY)) if len(x[1])]


def raster_rows(shown: list[NamedSpikes]) -> list[Float[np.ndarray, " neurons"]]:
    """Height of each neuron in a raster, layer by layer from 0 upwards. The next layer begins as far above the middle.

    Larger layers are taller, but none vanishes or dwarfs the others.
    """
    heights = [min(6.0, max(1.3, math.sqrt(spikes.neurons))) for spikes in shown]
    heights = [max(height, 0.07 * sum(heights)) for height in heights]
    bottoms = np.cumsum([0.0, *heights])
    return [
        bottom + height * (0.08 + 0.84 * (np.arange(spikes.neurons) + 0.5) / spikes.neurons)
        for bottom, height, spikes in zip(bottoms[:-1], heights, shown, strict=True)
    ]


@run_figure
def output_times_figure(run: Run) -> Figure:
    """Output spike times over the epochs, a panel per class."""
    rows = run_data.output_times_of(run)
    names = run.names(classes_of(rows))
    columns = 3 if len(names) <= 6 else 4
    figure, axes = look.panels(len(names), columns, (2.4, 2.2), (1.1, 0.4), sharey=True)
    output_times(rows, axes, names, run_data.unit_in(run))
    for ax in axes:
        ax.set_ylabel(axes[0].get_ylabel())
    look.label_outer(axes, columns)
    if (legend := axes[-1].get_legend()) is not None:  # beside the first row
        legend.remove()
        look.legend_right(axes[min(columns, len(axes)) - 1])
    return figure


@run_figure
def spike_histogram_figure(run: Run) -> Figure:
    """Spike times of every LIF layer on the test data."""
    layers = [NamedSpikes(lif.name, run.record.layers[lif.index]) for lif in named_layers(run.network)]
    layers = layers or named_spikes(run.network, run.record)[-1:]
    figure, axes = look.panels(len(layers), 3, (3.0, 2.6))
    for ax, spikes in zip(axes, layers, strict=True):
        spike_histogram(spikes.times, ax, spikes.name, unit=run_data.unit_in(run))
    return figure


@run_figure
def raster_figure(run: Run, sample: int = 0) -> Figure:
    """Spikes of a test sample in all layers (without test data, of another split)."""
    top = raster_rows(named_spikes(run.network, run.record))[-1][-1]
    figure = look.new_figure(6.0, min(7.0, 0.8 + 0.33 * top))
    ax = raster(run.network, run.record, figure.subplots(), sample, run_data.unit_in(run))
    ax.set_title(run_data.sample_title(run, sample))
    return figure


def time_comparison(
    exact: Float[Tensor, "samples neurons"],
    observed: Float[Tensor, "samples neurons"],
    ax: Axes,
    name: str = "",
    unit: str = look.TAU_SYN,
) -> Axes:
    """Observed against exact spike times, a dot for each sample and neuron (of many, some evenly chosen).

    The title has the median distance, and the fractions whose spike is lost, or added, on the substrate. The neuron
    with most of these, or else the largest distance, is orange.

    Of trains, the first spikes are compared with each other, then the second ones, and so on.

    Args:
        exact: spike times, ``inf`` = silent.
        observed: those of a substrate.
        name: of the layer.

    Raises:
        ValueError: different shapes.
    """
    if exact.shape != observed.shape:
        raise ValueError(f"exact and observed must have one shape, got {tuple(exact.shape)}, {tuple(observed.shape)}")
    one, other = (to_numpy(times).reshape(*times.shape[:2], -1) for times in (exact, observed))
    both, changed = np.isfinite(one) & np.isfinite(other), np.isfinite(one) != np.isfinite(other)
    x, y = one[both], other[both]
    apart = np.subtract(one, other, out=np.zeros_like(one), where=both)
    worst = np.lexsort((abs(apart).max(axis=(0, 2)), changed.sum(axis=(0, 2))))[-1]
    lost, new = (100 * np.mean(np.isfinite(a) & ~np.isfinite(b)) for a, b in ((one, other), (other, one)))
    if len(x):
        limits = [min(x.min(), y.min()), max(x.max(), y.max())]
        ax.plot(limits, limits, color=look.GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        step = -(-len(x) // _DOTS)
        dots: Any = {"markersize": 3, "markeredgewidth": 0, "linestyle": "", "marker": "."}
        ax.plot(x[::step], y[::step], **dots, color=look.COLOURS[0], alpha=0.4, zorder=2)
        ax.plot(*(times[:, worst][both[:, worst]][:_DOTS] for times in (one, other)), **dots, color=look.COLOURS[1])
        ax.text(0.98, 0.04, f"neuron {worst}", color=look.COLOURS[1], ha="right", transform=ax.transAxes)
        title = f"median distance {np.median(np.abs(x - y)):.2g}"
    else:
        title = f"{100 - lost - new:.1f} % silent in both"
        ax.text(0.5, 0.5, "no spike in both", transform=ax.transAxes, ha="center", va="center")
    head = ", ".join(part for part in (name, title) if part)
    ax.set_title(f"{head}\nspikes lost {lost:.1f} %, added {new:.1f} %")
    ax.set(xlabel=look.time_label(unit, "exact"), ylabel=look.time_label(unit, "on the substrate"))
    return ax


@run_figure
def substrate_figure(run: Run) -> Figure:
    """Spike times of every LIF layer on the run's substrate against the exact ones, and membranes of a sample."""
    if run.substrate == "exact":
        raise NotApplicable("the run is on the exact substrate: there is nothing to compare it with")
    layers, (output, last), observed = run_data.named_layers_of(run), run_data.membrane_layer(run), run.record
    exact = record_in_parts(run.stored_network, run.held_out[1].times)
    figure = look.new_figure(max(6.5, 2.7 * len(layers)), 5.2)
    grid = figure.add_gridspec(2, len(layers), height_ratios=(1.15, 1))
    for place, lif in enumerate(layers):
        ax = figure.add_subplot(grid[0, place])
        time_comparison(exact.layers[lif.index], observed.layers[lif.index], ax, lif.name, run_data.unit_in(run))
    ax = figure.add_subplot(grid[1, :])
    chosen = range(min(2 if form_of(last) == "trains" else 4, last.out_features))
    names = run_data.neuron_names(run)[: len(chosen)]
    sides = (
        traces(last, output.inputs(record)[0], record.layers[output.index][0], chosen, names)
        for record in (exact, observed)
    )
    draw_traces(next(sides), ax, run_data.unit_in(run), next(sides))
    ax.set_title(f"{output.name}, {run.held_out[0]} sample 0: exact (solid) and {run.substrate} (dashed)")
    if form_of(last) != "trains":
        look.legend_right(ax, title="output" if run_data.spiking_output(run) else "neuron", title_fontsize=8)
    return figure
