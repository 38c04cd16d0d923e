"""Decisions and spike times of a network on the plane of the Yin-Yang data set."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from torch import Tensor

from firstspike.data import SpikeData
from firstspike.layers import Record
from firstspike.layers.named import to_numpy
from firstspike.plots import look, run_data
from firstspike.plots.plane import YinYangPlane
from firstspike.plots.run_data import NotApplicable, run_figure
from firstspike.runs import Run
from firstspike.text import no_decision
from firstspike.training.objective import Loss, Objective

_HIDDEN = 12  # neurons in the figure of the hidden ones


def decision_map(
    times: Float[Tensor, "points outputs"],
    loss: Loss,
    ax: Axes,
    plane: YinYangPlane,
    points: SpikeData | None = None,
    names: Sequence[str] | None = None,
) -> Axes:
    """Decision at each point of the plane, faint outside of the symbol, hatched where there is none.

    Args:
        times: output times on the grid, from ``plane.record(network).output``.
        loss: its ``predict(times)`` decides, otherwise the earliest spike.
        plane: the grid.
        points: samples to draw, if any. Those with a wrong decision of the map are crosses.
        names: of the classes.
    """
    decisions = plane.image(Objective(loss).predict(times))
    names = look.class_names(names, times.shape[-1])
    colours = [look.COLOURS[index % len(look.COLOURS)] for index in range(len(names))]
    outside = np.hypot(*(plane.grid() - plane.r_big)) > plane.r_big
    shades: dict[str, Any] = {"vmin": -0.5, "vmax": len(names) - 0.5, "alpha": np.where(outside, 0.3, 0.75)}
    _draw(np.ma.masked_less(decisions, 0), ax, plane, ListedColormap(colours), **shades)
    for colour, name in zip(colours, names, strict=True):
        ax.fill([], [], color=colour, linewidth=0, alpha=0.75, label=name)
    if (decisions < 0).any():
        hatched: dict[str, Any] = {"facecolor": look.SILENT_COLOUR, "edgecolor": "#555555", "hatch": look.SILENT_HATCH}
        ax.fill([], [], label=no_decision(names), **hatched)
    if points is not None:
        x, y = plane.coordinates(points.dense).T
        column, row = (np.clip(v / (2 * plane.r_big) * plane.resolution, 0, plane.resolution - 1) for v in (x, y))
        wrong = decisions[row.astype(int), column.astype(int)] != points.labels.cpu().numpy()
        dot: dict[str, Any] = {"marker": "o", "color": "white", "markeredgecolor": "black", "linestyle": ""}
        ax.plot(x[~wrong], y[~wrong], markersize=2.0, markeredgewidth=0.3, **dot)
        ax.plot([], [], markersize=4, markeredgewidth=0.6, label="correct sample", **dot)  # larger in the legend
        cross: dict[str, Any] = {"marker": "x", "color": look.COLOURS[9], "linestyle": "", "markersize": 5}
        rim = [withStroke(linewidth=3.5, foreground="white")]
        ax.plot(x[wrong], y[wrong], markeredgewidth=1.8, path_effects=rim, zorder=4, label="wrong sample", **cross)
    look.legend_right(ax, title="decision")
    return ax


def time_map(
    times: Float[Tensor, " points"],
    ax: Axes,
    plane: YinYangPlane,
    limits: tuple[float, float] | None = None,
    unit: str | None = look.TAU_SYN,
) -> Axes:
    """Spike time of one neuron at each point of the plane, early is dark; hatched where it is silent.

    Args:
        times: on the grid, a column of a layer's times in ``plane.record(network)``.
        plane: the grid.
        limits: of the colour scale, by default earliest and latest.
        unit: of the times, for the colour bar. None draws none.
    """
    image = np.ma.masked_invalid(plane.image(times))
    low, high = limits or ((image.min(), image.max()) if image.count() else (0.0, 1.0))
    drawn = _draw(image, ax, plane, look.SEQUENTIAL, vmin=low, vmax=high)
    if unit is not None:
        ax.figure.colorbar(drawn, ax=ax, label=look.time_label(unit, "spike time"), shrink=0.9)
    return ax


def difference_map(gap: Float[Tensor, " points"], ax: Axes, plane: YinYangPlane, limit: float = 1.0) -> Axes:
    """Spike time of one neuron minus another's on the grid, with colours from ``-limit`` to ``limit``.

    It is blue where the first is earlier, hatched where one of the two is silent, with a line where both are equal.
    """
    image = np.ma.masked_invalid(plane.image(gap))
    _draw(image, ax, plane, **look.signed(image, limit))
    if image.count() and image.min() < 0 < image.max():
        ax.contour(image, [0.0], colors="black", linewidths=1.2, linestyles="--", origin="lower", extent=plane.extent)
    return ax


def _draw(image: np.ma.MaskedArray, ax: Axes, plane: YinYangPlane, cmap: str | Colormap, **options: Any) -> AxesImage:
    """Values on the plane ``(y, x)`` with the symbol, hatched where they are masked, which means silent."""
    place: dict[str, Any] = {"origin": "lower", "extent": plane.extent}
    drawn = ax.imshow(image, cmap=cmap, interpolation="nearest", zorder=0, **place, **options)
    silent = np.ma.getmaskarray(image)
    if silent.any():
        hatch: dict[str, Any] = {"colors": [look.SILENT_COLOUR], "hatches": [look.SILENT_HATCH], "zorder": 1}
        ax.contourf(silent.astype(float), levels=[0.5, 1.5], **hatch, **place)
    draw_outline(ax, plane)
    ticks = [0, plane.r_big, 2 * plane.r_big]
    ax.set(xlim=plane.extent[:2], ylim=plane.extent[2:], xticks=ticks, yticks=ticks, aspect="equal")
    ax.set(xlabel="x", ylabel="y")
    return drawn


def draw_outline(ax: Axes, plane: YinYangPlane) -> None:
    """The symbol's lines, white with a dark rim, visible on all colours."""
    for line in plane.outline():
        rim = [withStroke(linewidth=2.0, foreground="black")]
        ax.plot(line[:, 0], line[:, 1], color="white", linewidth=1.0, zorder=3, path_effects=rim)


def plane_of(run: Run) -> YinYangPlane:
    """The plane of a Yin-Yang run."""
    data = run.config.data
    if data.kind != "yin_yang":
        raise NotApplicable(f"only runs on yin_yang have a plane, this one is on {run_data.data_name(run)}")
    return YinYangPlane(data.early, data.late, data.r_small, data.r_big)


def plane_record(run: Run) -> Record:
    """Spike times of all layers on the grid of ``plane_of``, computed once for all figures."""
    if "plane" not in run.kept:
        run.kept["plane"] = run.observe(plane_of(run).times(run.dtype))
    return run.kept["plane"]


@run_figure
def decision_map_figure(run: Run) -> Figure:
    """Decisions of a Yin-Yang run over the plane, with its test samples."""
    plane, (split, data) = plane_of(run), run.held_out
    figure = look.new_figure(5.0, 4.0)
    ax = figure.subplots()
    decision_map(plane_record(run).output, run.loss, ax, plane, data, run.class_names)
    ax.set_title(f"{split} accuracy {100 * run.evaluation.accuracy:.1f} %")
    return figure


@run_figure
def map_image(run: Run) -> Figure:
    """The decisions of a Yin-Yang run without axes, to draw on."""
    figure = Figure(figsize=(4.0, 4.0), facecolor="none")
    ax = figure.add_axes((0, 0, 1, 1))
    decision_map(plane_record(run).output, run.loss, ax, plane_of(run)).legend().remove()
    ax.set_axis_off()
    return figure


@run_figure
def output_maps_figure(run: Run) -> Figure:
    """Spike times of a Yin-Yang run's outputs over the plane, and the differences between them."""
    plane, times, names = plane_of(run), plane_record(run).output, [look.as_text(x) for x in run.class_names]
    pairs = list(itertools.combinations(range(len(names)), 2))
    figure, axes = look.panels(len(names) + len(pairs), len(names), (2.5, 2.5), sharex=True, sharey=True)
    first, second = axes[: len(names)], axes[len(names) :]
    limits, gaps = _limits(times), torch.stack([times[:, a] - times[:, b] for a, b in pairs])
    limit = max(gaps[torch.isfinite(gaps)].abs().tolist(), default=0.0) or 1.0
    for index, ax in enumerate(first):
        time_map(times[:, index], ax, plane, limits, None).set_title(f"output {names[index]}")
    for (a, b), gap, ax in zip(pairs, gaps, second, strict=True):
        difference_map(gap, ax, plane, limit).set_title(f"{names[a]} - {names[b]}")
    for row, label in ((first, "spike time"), (second, "difference")):
        figure.colorbar(row[0].images[0], ax=row, label=look.time_label(run_data.unit_in(run), label), shrink=0.9)
    look.label_outer(axes, len(names))
    return figure


@run_figure
def hidden_maps_figure(run: Run) -> Figure:
    """Spike times of hidden neurons of a Yin-Yang run over the plane, a selection of those that spike anywhere."""
    plane = plane_of(run)
    first, *others = run_data.named_layers_of(run)
    if not others:
        raise NotApplicable("the network has no hidden layer")
    times = plane_record(run).layers[first.index]
    spiking = torch.isfinite(times).any(dim=0).nonzero().flatten().tolist()
    if not spiking:
        raise NotApplicable("no hidden neuron spikes anywhere on the plane")
    neurons = [spiking[i] for i in np.linspace(0, len(spiking) - 1, min(_HIDDEN, len(spiking))).astype(int)]
    figure, axes = look.panels(len(neurons), 4, (1.875, 1.75), (0.0, 0.5), sharex=True, sharey=True)
    limits = _limits(times[:, neurons])
    for ax, neuron in zip(axes, neurons, strict=True):
        time_map(times[:, neuron], ax, plane, limits, None).set_title(f"{first.name} neuron {neuron}")
    look.label_outer(axes, 4)
    figure.suptitle(f"{len(neurons)} of {times.shape[1]} hidden neurons; {times.shape[1] - len(spiking)} never spike")
    figure.colorbar(axes[0].images[0], ax=axes, label=look.time_label(run_data.unit_in(run), "spike time"), shrink=0.6)
    return figure


def _limits(times: Tensor) -> tuple[float, float]:
    """Earliest and latest spike; the latest without the last hundredth, so that outliers do not stretch the scale."""
    spikes = to_numpy(times[torch.isfinite(times)])
    low, high = np.quantile(spikes if len(spikes) else (0.0, 1.0), (0.0, 0.99)).tolist()
    return low, high
