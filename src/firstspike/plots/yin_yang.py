"""What a network does on the plane of the Yin-Yang data set.

plane = YinYangPlane()
record = plane.record(network)
decision_map(record.output, loss, ax, plane)
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from torch import Tensor

from firstspike.data import SpikeData
from firstspike.layers.named import named_lif_layers
from firstspike.losses import TimeLoss
from firstspike.plots.plane import YinYangPlane
from firstspike.plots.run_data import NotApplicable, RunData
from firstspike.plots.style import (
    COLOURS,
    SEQUENTIAL,
    SIGNED,
    SILENT_COLOUR,
    SILENT_HATCH,
    TAU_SYN,
    axes_list,
    class_names,
    new_figure,
    square_grid,
    styled,
    time_label,
)

_HIDDEN = 12  # neurons in the figure of the hidden ones


def decision_map(
    times: Float[Tensor, "points outputs"],
    loss: TimeLoss,
    ax: Axes,
    plane: YinYangPlane,
    points: SpikeData | None = None,
    names: Sequence[str] | None = None,
) -> Axes:
    """Decision at each point of the plane, faint outside of the symbol, hatched where no neuron decides.

    Args:
        times: output times on the grid, from ``plane.record(network).output``.
        loss: makes the decision.
        ax: where to draw.
        plane: the grid.
        points: samples to draw, if any; those with a wrong decision of the map are crosses.
        names: of the classes.
    """
    decisions = plane.image(loss.predict(times))
    names = class_names(names, times.shape[-1])
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(names))]
    shown = np.ma.masked_less(decisions, 0)
    outside = np.hypot(*(plane.grid() - plane.r_big)) > plane.r_big
    ax.imshow(
        shown,
        cmap=ListedColormap(colours),
        vmin=-0.5,
        vmax=len(names) - 0.5,
        origin="lower",
        extent=plane.extent,
        alpha=np.where(outside, 0.3, 0.75),
        interpolation="nearest",
    )
    handles: list[Artist] = [Patch(facecolor=c, alpha=0.75, label=name) for c, name in zip(colours, names, strict=True)]
    if shown.mask.any():
        hatch_silent(decisions < 0, ax, plane)
        handles.append(Patch(facecolor=SILENT_COLOUR, edgecolor="#555555", hatch=SILENT_HATCH, label="silent"))
    draw_outline(ax, plane)
    if points is not None:
        x, y = plane.coordinates(points.times).T
        column, row = (np.clip(v / (2 * plane.r_big) * plane.resolution, 0, plane.resolution - 1) for v in (x, y))
        wrong = decisions[row.astype(int), column.astype(int)] != points.labels.cpu().numpy()
        ax.plot(x[~wrong], y[~wrong], ".", color="white", markersize=1.5)
        crosses = ax.plot(x[wrong], y[wrong], "x", color="white", markersize=5, markeredgewidth=1.5)
        crosses[0].set_path_effects([withStroke(linewidth=3, foreground="black")])
        crosses[0].set_label("wrong")
        handles += crosses
    _plane_axes(ax, plane)
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, title="decision")
    return ax


def time_map(
    times: Float[Tensor, " points"],
    ax: Axes,
    plane: YinYangPlane,
    limits: tuple[float, float] | None = None,
    unit: str | None = TAU_SYN,
) -> Axes:
    """Spike time of one neuron at each point of the plane, early is dark; hatched where it is silent.

    Args:
        times: on the grid, a column of a layer's times in ``plane.record(network)``.
        ax: where to draw.
        plane: the grid.
        limits: of the colour scale, by default earliest and latest.
        unit: of the times, for the colour bar; None draws none.
    """
    image = plane.image(times)
    silent = ~np.isfinite(image)
    spikes = image[~silent]
    low, high = limits or ((spikes.min(), spikes.max()) if spikes.size else (0.0, 1.0))
    drawn = _image(np.ma.masked_array(image, silent), ax, plane, SEQUENTIAL, low, high)
    hatch_silent(silent, ax, plane)
    draw_outline(ax, plane)
    if unit is not None:
        ax.figure.colorbar(drawn, ax=ax, label=time_label(unit, "spike time"), shrink=0.9)
    _plane_axes(ax, plane)
    return ax


def difference_map(
    first: Float[Tensor, " points"],
    second: Float[Tensor, " points"],
    ax: Axes,
    plane: YinYangPlane,
    limit: float | None = None,
    unit: str | None = TAU_SYN,
) -> Axes:
    """Spike time of one neuron minus another's; dark where the first is earlier, a line where both are equal.

    Args:
        first: times on the grid.
        second: times on the grid.
        ax: where to draw.
        plane: the grid. It is hatched where one of the two is silent.
        limit: largest magnitude of the colour scale, by default the largest difference.
        unit: of the times, for the colour bar; None draws none.
    """
    image = plane.image(first) - np.where(np.isfinite(plane.image(second)), plane.image(second), np.nan)
    silent = ~np.isfinite(image)
    spikes = np.abs(image[~silent])
    limit = limit or (float(spikes.max()) if spikes.size else 1.0) or 1.0
    masked = np.ma.masked_array(image, silent)
    drawn = _image(masked, ax, plane, SIGNED, -limit, limit)
    hatch_silent(silent, ax, plane)
    draw_outline(ax, plane)
    if spikes.size and masked.min() < 0 < masked.max():
        zero = ax.contour(masked, levels=[0.0], colors="black", linewidths=1.2, origin="lower", extent=plane.extent)
        zero.set_linestyle("--")
    if unit is not None:
        ax.figure.colorbar(drawn, ax=ax, label=time_label(unit, "difference"), shrink=0.9)
    _plane_axes(ax, plane)
    return ax


def draw_outline(ax: Axes, plane: YinYangPlane) -> Axes:
    """The symbol's lines, white with a dark rim so that they are seen on all colours."""
    for line in plane.outline():
        drawn = ax.plot(line[:, 0], line[:, 1], color="white", linewidth=1.0, zorder=3)
        drawn[0].set_path_effects([withStroke(linewidth=2.0, foreground="black")])
    return ax


def hatch_silent(silent: np.ndarray, ax: Axes, plane: YinYangPlane) -> Axes:
    """Hatch the points ``silent (y, x)`` of the plane."""
    if silent.any():
        ax.contourf(
            silent.astype(float),
            levels=[0.5, 1.5],
            colors=[SILENT_COLOUR],
            hatches=[SILENT_HATCH],
            origin="lower",
            extent=plane.extent,
            zorder=1,
        )
    return ax


@styled
def decision_map_figure(run: RunData) -> Figure:
    """Decision map of a Yin-Yang run with its test samples."""
    plane = run.plane
    figure = new_figure(5.0, 4.0)
    ax = figure.subplots()
    decision_map(run.plane_record.output, run.loss, ax, plane, run.held_out[1], run.class_names)
    ax.set_title(f"test accuracy {100 * run.evaluation.accuracy:.1f} %")
    return figure


@styled
def output_maps_figure(run: RunData) -> Figure:
    """Spike times of a Yin-Yang run's outputs over the plane, and the differences between them."""
    plane, times = run.plane, run.plane_record.output
    names = run.class_names
    pairs = [(a, b) for a in range(len(names)) for b in range(a + 1, len(names))]
    figure = new_figure(7.5, 5.0)
    axes = figure.subplots(2, len(names), sharex=True, sharey=True)
    limits = _limits(times)
    gaps = [times[:, a] - times[:, b] for a, b in pairs]
    limit = max((float(gap[torch.isfinite(gap)].abs().max()) for gap in gaps if torch.isfinite(gap).any()), default=1.0)
    for index, ax in enumerate(axes[0]):
        time_map(times[:, index], ax, plane, limits, None)
        ax.set_title(f"output {names[index]}")
        ax.set_xlabel("")
    for (a, b), ax in zip(pairs, axes[1], strict=True):
        difference_map(times[:, a], times[:, b], ax, plane, limit, None)
        ax.set_title(f"{names[a]} - {names[b]}")
    for row, label in ((axes[0], "spike time"), (axes[1], "difference")):
        figure.colorbar(row[0].images[0], ax=list(row), label=time_label(run.unit, label), shrink=0.9)
        for ax in row[1:]:
            ax.set_ylabel("")
    return figure


@styled
def hidden_maps_figure(run: RunData) -> Figure:
    """Spike times of a selection of a Yin-Yang run's hidden neurons over the plane, from those that spike anywhere."""
    plane = run.plane
    first, *others = named_lif_layers(run.network)
    if not others:
        raise NotApplicable("the network has no hidden layer")
    times = run.plane_record.layers[first.index]
    spiking = torch.isfinite(times).any(dim=0).nonzero().flatten().tolist()
    if not spiking:
        raise NotApplicable("no hidden neuron spikes anywhere on the plane")
    neurons = [spiking[i] for i in np.linspace(0, len(spiking) - 1, min(_HIDDEN, len(spiking))).astype(int)]
    rows, columns = square_grid(len(neurons), 4)
    figure = new_figure(7.5, 1.75 * rows + 0.5)
    axes = axes_list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False), rows * columns)
    limits = _limits(times[:, neurons])
    for ax, neuron in zip(axes, neurons, strict=False):
        time_map(times[:, neuron], ax, plane, limits, None)
        ax.set_title(f"{first.name} neuron {neuron}")
        ax.label_outer()
    for ax in axes[len(neurons) :]:
        ax.set_visible(False)
    figure.suptitle(f"{len(neurons)} of {len(spiking)} neurons that spike somewhere; {times.shape[1]} in all")
    figure.colorbar(axes[0].images[0], ax=axes, label=time_label(run.unit, "spike time"), shrink=0.6)
    return figure


def _image(values: np.ndarray, ax: Axes, plane: YinYangPlane, colours: str, low: float, high: float) -> AxesImage:
    return ax.imshow(values, cmap=colours, vmin=low, vmax=high, origin="lower", extent=plane.extent, zorder=0)


def _plane_axes(ax: Axes, plane: YinYangPlane) -> None:
    ax.set_xlim(plane.extent[:2])
    ax.set_ylim(plane.extent[2:])
    ax.set_aspect("equal")
    ax.set_xticks([0, plane.r_big, 2 * plane.r_big])
    ax.set_yticks([0, plane.r_big, 2 * plane.r_big])
    ax.set_xlabel("x")
    ax.set_ylabel("y")


def _limits(times: Tensor) -> tuple[float, float]:
    """Earliest and latest spike; the latest without the last hundredth, so that stragglers do not eat the scale."""
    spikes = times[torch.isfinite(times)]
    if not len(spikes):
        return 0.0, 1.0
    low, high = float(spikes.min()), float(np.quantile(spikes.double().cpu().numpy(), 0.99))
    return low, high if high > low else math.nextafter(low, math.inf) + 1e-6
