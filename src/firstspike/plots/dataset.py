"""The data set itself."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from firstspike.data import SpikeData
from firstspike.layers.named import to_numpy
from firstspike.plots import look, run_data
from firstspike.plots.plane import YinYangPlane
from firstspike.plots.run_data import NO_CLASSES, NotApplicable, run_figure
from firstspike.plots.yin_yang import draw_outline, plane_of
from firstspike.runs import Run

_EXAMPLES = 12  # images, or classes, in a figure
_CANDIDATES = 1000  # samples among which they are chosen
_NAMED = 16  # inputs whose names have room next to a raster


def yin_yang_points(data: SpikeData, ax: Axes, plane: YinYangPlane) -> Axes:
    """The samples of a Yin-Yang data set in the plane, with the symbol's outline."""
    _scatter(plane.coordinates(data.dense), data, ax)
    draw_outline(ax, plane)
    ax.set(xlabel="x", ylabel="y")
    return ax


def _scatter(points: Float[np.ndarray, "samples 2"], data: SpikeData, ax: Axes) -> None:
    labels = data.labels.cpu().numpy()
    size = 3.0 if len(data) > 400 else 5.0
    for label, name in enumerate(data.class_names):
        x, y = points[labels == label].T
        drawn_as = look.marker_style(label)
        ax.plot(x, y, linestyle="", label=look.as_text(name), markersize=size, markeredgewidth=0, alpha=0.8, **drawn_as)
    ax.set_aspect("equal")
    look.legend_right(ax, markerscale=6.0 / size, title="class")


def spike_images(
    times: Float[Tensor, "images pixels"],
    axes: Axes | Iterable[Any],
    shape: tuple[int, int],
    titles: Sequence[str] | None = None,
    unit: str = look.TAU_SYN,
) -> list[Axes]:
    """Samples as images of spike times, early is dark. Hatched pixels never spike.

    Args:
        times: a sample for each of the axes, pixels row by row.
        axes: one per image.
        shape: rows and columns of an image.
        titles: one per image.
    """
    flat = look.axes_list(axes, len(times))[: len(times)]
    images = np.ma.masked_invalid(to_numpy(times).reshape(-1, *shape))
    low, high = (images.min(), images.max()) if images.count() else (0.0, 1.0)
    for ax in flat:
        ax.patch.set(facecolor=look.SILENT_COLOUR, edgecolor="#999999", hatch=look.SILENT_HATCH)
    colours: dict[str, Any] = {"cmap": look.SEQUENTIAL, "vmin": low, "vmax": high}
    look.image_panels(images, flat, titles, look.time_label(unit, "spike time"), **colours)
    return flat


def input_raster(data: SpikeData, ax: Axes, label: int, unit: str = look.TAU_SYN) -> Axes:
    """Input spikes of up to 20 samples of the class ``label`` over each other; inputs in rows."""
    times = to_numpy(data.times[data.labels == label][:20])
    numbers = np.arange(data.features)
    inputs = np.broadcast_to(numbers[:, None] if data.trains else numbers, times.shape)
    spiked = np.isfinite(times)
    alpha = max(look.FAINT, 1 / max(1, len(times)))
    drawn_as = {"color": look.marker_style(label)["color"], "alpha": alpha, "markersize": 7, "markeredgewidth": 1.5}
    ax.plot(times[spiked], inputs[spiked], "|", **drawn_as)
    ax.set(xlabel=look.time_label(unit), ylabel="input", ylim=(-0.7, data.features - 0.3))
    ax.set_title(look.as_text(data.class_names[label]))
    return ax


@run_figure
def dataset_figure(run: Run) -> Figure:
    """The training data: points, images, or rasters."""
    data = run.data.train
    if data.regression:
        raise NotApplicable(NO_CLASSES)
    if data.image is not None:
        _, height, width = data.image
        times = data.dense[:, : height * width]
        chosen = example_samples(times[:_CANDIDATES], data.labels[:_CANDIDATES], _EXAMPLES)
        figure, axes = look.panels(len(chosen), 6, (1.15, 1.35), (0.8, 0.0))
        titles = [look.as_text(data.class_names[label]) for label in data.labels[chosen].tolist()]
        spike_images(times[chosen], axes, (height, width), titles, run_data.unit_in(run))
    elif run.config.data.kind == "yin_yang":
        figure = look.new_figure(5.6, 4.2)
        yin_yang_points(data, figure.subplots(), plane_of(run))
    elif data.features == 2 and not data.trains:
        figure = look.new_figure(5.6, 4.2)
        ax = figure.subplots()
        _scatter(to_numpy(data.dense), data, ax)
        names = data.input_names or ("input 0", "input 1")
        first, second = (look.time_label(run_data.unit_in(run), look.as_text(name)) for name in names)
        ax.set(xlabel=first, ylabel=second)
    else:
        classes = len(data.class_names)
        figure, axes = look.panels(min(classes, _EXAMPLES), 3, (2.5, 2.5), sharex=True, sharey=True)
        for label, ax in enumerate(axes):
            input_raster(data, ax, label, unit=run_data.unit_in(run))
            if data.input_names and data.features <= _NAMED:
                ax.set_yticks(range(data.features), list(map(look.as_text, data.input_names)))
                ax.set_ylabel("")
        look.label_outer(axes, 3)
        if classes > _EXAMPLES:
            figure.suptitle(f"the first {_EXAMPLES} of {classes} classes")
    return figure


def example_samples(times: Float[Tensor, "samples inputs"], labels: Tensor, count: int) -> list[int]:
    """Up to ``count`` samples, all classes in turn, no two with the same times; sorted by class."""
    distinct = np.sort(np.unique(to_numpy(times), axis=0, return_index=True)[1])
    classes = labels.cpu().numpy()[distinct]
    turns = [(classes[:place] == label).sum() for place, label in enumerate(classes)]
    chosen = np.sort(np.lexsort((classes, turns))[:count])
    return distinct[chosen[np.argsort(classes[chosen], kind="stable")]].tolist()
