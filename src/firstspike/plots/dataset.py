"""The data set itself."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from firstspike.data import SpikeData
from firstspike.layers.named import to_numpy
from firstspike.plots.plane import YinYangPlane
from firstspike.plots.run_data import RunData
from firstspike.plots.style import (
    FAINT,
    SEQUENTIAL,
    SILENT_COLOUR,
    SILENT_HATCH,
    TAU_SYN,
    axes_list,
    legend_right,
    marker_style,
    new_figure,
    square_grid,
    styled,
    time_label,
)
from firstspike.plots.yin_yang import draw_outline

_CHOSEN = 12  # images in a figure
_LOOKED_AT = 1000  # samples among which they are chosen


def yin_yang_points(data: SpikeData, ax: Axes, plane: YinYangPlane) -> Axes:
    """The samples of a Yin-Yang data set in the plane, with the symbol's outline."""
    _scatter(plane.coordinates(data.times), data, ax)
    draw_outline(ax, plane)
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    return ax


def two_inputs(data: SpikeData, ax: Axes, unit: str = TAU_SYN) -> Axes:
    """The samples of a data set with two inputs: one spike time against the other."""
    _scatter(to_numpy(data.times[:, :2]), data, ax)
    ax.set_xlabel(time_label(unit, "input 0"))
    ax.set_ylabel(time_label(unit, "input 1"))
    return ax


def spike_images(
    times: Float[Tensor, "images pixels"],
    axes: Axes | Iterable[Any],
    shape: tuple[int, int],
    titles: Sequence[str] | None = None,
    unit: str = TAU_SYN,
) -> list[Axes]:
    """Samples as images of spike times, early is dark; hatched pixels never spike.

    Args:
        times: a sample for each of the axes, pixels row by row.
        axes: one per image.
        shape: rows and columns of an image.
        titles: one per image.
        unit: of the times.
    """
    flat = axes_list(axes, len(times))[: len(times)]
    finite = times[torch.isfinite(times)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    for index, (ax, pixels) in enumerate(zip(flat, to_numpy(times), strict=True)):
        image = np.ma.masked_invalid(pixels.reshape(shape))
        ax.patch.set(facecolor=SILENT_COLOUR, edgecolor="#999999", hatch=SILENT_HATCH)
        drawn = ax.imshow(image, cmap=SEQUENTIAL, vmin=low, vmax=high)
        ax.spines[:].set_visible(True)
        ax.set_xticks([])
        ax.set_yticks([])
        if titles is not None:
            ax.set_title(titles[index])
    bar = flat[0].figure.colorbar(drawn, ax=flat, shrink=0.8)
    bar.set_label(time_label(unit, "spike time"))
    return flat


def input_raster(data: SpikeData, ax: Axes, label: int, samples: int = 20, unit: str = TAU_SYN) -> Axes:
    """Input spikes of samples of one class over each other; inputs in rows.

    Args:
        data: the samples.
        ax: where to draw.
        label: the class.
        samples: how many of them at most.
        unit: of the times.
    """
    times = to_numpy(data.times[data.labels == label][:samples])
    inputs = np.broadcast_to(np.arange(data.features), times.shape)
    spiked = np.isfinite(times)
    look = marker_style(label)
    alpha = max(FAINT, 1 / max(1, len(times)))
    ax.plot(times[spiked], inputs[spiked], "|", color=look["color"], alpha=alpha, markersize=7, markeredgewidth=1.5)
    ax.set_ylim(-0.7, data.features - 0.3)
    ax.set_xlabel(time_label(unit))
    ax.set_ylabel("input")
    ax.set_title(data.class_names[label])
    return ax


@styled
def dataset_figure(run: RunData) -> Figure:
    """The training data of a run: points, images, or rasters."""
    data, section = run.data.train, run.config.data
    if section.kind == "yin_yang":
        figure = new_figure(5.6, 4.2)
        yin_yang_points(data, figure.subplots(), run.plane)
        return figure
    if section.kind == "bars":
        times = data.times[:, :: section.multiply]
        return _images_figure(times, data, (section.size, section.size), run.unit)
    if (image := data.image) is not None:
        first_channel = data.times[:, : image[1] * image[2]]
        return _images_figure(first_channel, data, image[1:], run.unit)
    if data.features == 2:
        figure = new_figure(5.6, 4.2)
        two_inputs(data, figure.subplots(), run.unit)
        return figure
    rows, columns = square_grid(len(data.class_names), 3)
    figure = new_figure(2.5 * columns, 2.5 * rows)
    axes = axes_list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False), rows * columns)
    for label, ax in enumerate(axes):
        if label < len(data.class_names):
            input_raster(data, ax, label, unit=run.unit)
        ax.set_visible(label < len(data.class_names))
        ax.label_outer()
    return figure


def _images_figure(times: Tensor, data: SpikeData, shape: tuple[int, int], unit: str) -> Figure:
    """Examples of all classes, different ones where there are."""
    chosen = example_samples(times[:_LOOKED_AT], data.labels[:_LOOKED_AT], _CHOSEN)
    rows, columns = square_grid(len(chosen), 6)
    figure = new_figure(1.15 * columns + 0.8, 1.35 * rows)
    axes = axes_list(figure.subplots(rows, columns, squeeze=False), rows * columns)
    titles = [data.class_names[int(data.labels[sample])] for sample in chosen]
    spike_images(times[chosen], axes, shape, titles, unit)
    for ax in axes[len(chosen) :]:
        ax.set_visible(False)
    return figure


def example_samples(times: Float[Tensor, "samples inputs"], labels: Tensor, count: int) -> list[int]:
    """Up to ``count`` samples, all classes in turn, no two with the same times; sorted by class."""
    of_class: dict[int, list[int]] = {int(label): [] for label in labels.unique()}
    seen = set()
    for sample, (row, label) in enumerate(zip(times.tolist(), labels.tolist(), strict=True)):
        if tuple(row) not in seen and len(of_class[label]) < count:
            seen.add(tuple(row))
            of_class[label].append(sample)
    turns = [samples[turn] for turn in range(count) for samples in of_class.values() if turn < len(samples)]
    return sorted(turns[:count], key=lambda sample: (int(labels[sample]), sample))


def _scatter(points: Float[np.ndarray, "samples 2"], data: SpikeData, ax: Axes) -> None:
    labels = data.labels.cpu().numpy()
    size = 3.0 if len(data) > 400 else 5.0
    for label, name in enumerate(data.class_names):
        x, y = points[labels == label].T
        look = marker_style(label)
        ax.plot(x, y, linestyle="", label=name, markersize=size, markeredgewidth=0, alpha=0.8, **look)
    ax.set_aspect("equal")
    legend_right(ax, markerscale=6.0 / size, title="class")
