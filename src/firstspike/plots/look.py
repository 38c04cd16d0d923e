"""The look of all figures: colours that the colour-blind tell apart, sizes for a page, axes with units.

Functions that draw data use the caller's axes and fonts. Figures of a run are made inside ``style``. Nothing here
touches pyplot.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

from firstspike.text import printable

P = ParamSpec("P")

DPI = 150

# Okabe and Ito's colours without yellow, and three more. Neighbours differ in lightness, too
COLOURS = (
    "#0072B2", "#E69F00", "#222222", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#8452EA", "#593B00", "#EA004E",
)  # fmt: skip
POPULATIONS = {r"exc|E$": COLOURS[-1], r"inh|I$": COLOURS[0]}
"""Colours of excitatory and inhibitory populations, by how their names begin."""
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (2, 1)), (0, (8, 2, 1, 2, 1, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
FAINT = 0.3
GREY = "#777777"
SEQUENTIAL = "viridis"
"""Colour map of spike times: early is dark."""
SILENT_COLOUR = "#FFFFFF"
SILENT_HATCH = "xxx"

_RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "figure.titlesize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "lines.linewidth": 1.5,
    "hatch.linewidth": 0.5,
    "figure.constrained_layout.w_pad": 0.08,  # inches on each side of all that belongs to a panel
    "figure.constrained_layout.h_pad": 0.07,
    "pdf.fonttype": 42,  # embeds fonts unchanged, so that text stays text
}


@contextmanager
def style() -> Iterator[None]:
    """Sizes and fonts of the package's figures inside a ``with`` block."""
    with mpl.rc_context(_RC):
        yield


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a function's figure in the package's style, and keep it so when it is rendered later."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style():
            figure = draw(*args, **kwargs)
            for ax in figure.axes:  # ticks are made while rendering, by the settings of that time
                ax.tick_params(which="both", labelsize=mpl.rcParams["xtick.labelsize"])
        return figure

    return wrapper


def new_figure(width: float = 6.5, height: float = 3.0) -> Figure:
    """An empty figure, sized in inches, that makes room for labels and legends."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def panels(
    count: int, columns: int, size: tuple[float, float], margin: tuple[float, float] = (0.0, 0.0), **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels of ``size`` inches each in up to ``columns`` columns, with a further ``margin``."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = new_figure(size[0] * columns + margin[0], size[1] * rows + margin[1])
    axes = list(figure.subplots(rows, columns, squeeze=False, **shared).ravel())
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, axes[:count]


def label_outer(axes: Sequence[Axes], columns: int) -> None:
    """Label axes that panels of a grid share only on the left and at the bottom."""
    for index, ax in enumerate(axes):
        if index % min(columns, len(axes)):
            ax.set_ylabel("")
        if index + columns < len(axes):
            ax.set_xlabel("")


def axes_list(axes: Axes | Iterable[Any], needed: int) -> list[Axes]:
    """One axes or any array of them as a flat list; a ``ValueError`` if they are fewer than needed."""
    flat: list[Axes] = [axes] if isinstance(axes, Axes) else list(np.ravel(np.asarray(axes, dtype=object)))
    if len(flat) < needed:
        raise ValueError(f"axes: expected {needed}, got {len(flat)}; make them with subplots(1, {needed})")
    return flat


def time_unit(tau_syn: float = 1.0, unit: str | None = None) -> str:
    """The unit of all times, for an axis: a given one, ``tau_syn``, or the fraction of it that is 1."""
    if unit:
        return as_text(unit)
    return r"$\tau_\mathrm{syn}$" if tau_syn == 1 else rf"$\tau_\mathrm{{syn}}$/{tau_syn:g}"


TAU_SYN = time_unit()


def time_label(unit: str = TAU_SYN, what: str = "time") -> str:
    """``what [unit]``, without a unit ``what``."""
    return f"{what} [{unit}]" if unit else what


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of a line, different for the first 30 indices; ten colours."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[(index + index // len(COLOURS)) % len(LINES)]}


def marker_style(index: int) -> dict[str, Any]:
    """Colour and marker of points, different for the first 40 indices; ten colours."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]}


def legend_right(ax: Axes, **options: Any) -> None:
    """A legend on the right of the axes, where it covers nothing."""
    spacing = 0.2 if len(ax.get_legend_handles_labels()[0]) > 6 else 0.5
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.2}
    ax.legend(labelspacing=spacing, alignment="left", **place, **options)


def label_lines(ax: Axes) -> None:
    """Name each labelled line at its right end, in its colour. Names that would overlap move apart.

    Call it last: the limits of the axes have to be final.
    """
    ax.autoscale_view()  # the limits may not include all that is drawn yet
    ends: list[tuple[float, str, Any]] = []
    for line in ax.get_lines():
        points = np.asarray(line.get_xydata(), dtype=float)
        points = points[np.isfinite(points).all(axis=1)]
        name = str(line.get_label())
        if len(points) and not name.startswith("_"):
            height = (ax.transScale + ax.transLimits).transform(points[-1])[1]
            ends.append((float(height), name, line.get_color()))
    ends.sort(key=lambda end: end[0])
    gap = mpl.rcParams["font.size"] * 1.2 / 72 * ax.figure.dpi / ax.get_window_extent().height
    lowest = -math.inf
    for place, (height, name, colour) in enumerate(ends):
        height = min(max(height, lowest), 1.05 - gap * (len(ends) - 1 - place))
        lowest = height + gap
        dark = tuple(0.75 * part for part in to_rgb(colour))
        ax.text(1.01, height, name, transform=ax.transAxes, color=dark, va="center", fontsize="small")


def epoch_axis(ax: Axes, most: int = 6) -> None:
    """Name the x axis, with ticks at whole epochs and at most ``most`` intervals. Lines of a single epoch are dots."""
    ax.set_xlabel("epoch")
    first, last = ax.dataLim.intervalx
    if 0 <= last - first < 1:
        ax.set_xlim(first - 1, last + 1)
        for line in ax.get_lines():
            line.set_marker("o")
    ax.xaxis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10], integer=True))


def log_ticks(axis: Axis, low: float, high: float, zero: bool = False) -> None:
    """Few ticks of a logarithmic axis have numbers, without powers if possible. ``zero`` adds a tick at 0."""
    steps = LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,), numticks=8)
    ticks = [float(t) for t in steps.tick_values(low, high) if low <= t <= high]
    if high < 10 * low and (zero or len(ticks) < 3):
        even, least = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]), 0.0 if zero else low
        ticks = [float(t) for t in even.tick_values(least, high) if least <= t <= high]
    elif zero:
        ticks = [0.0, *(t for t in ticks if t > 1.3 * low)]
    plain, scientific = all(t == 0 or 1e-3 <= t < 1e5 for t in ticks), LogFormatterSciNotation()
    axis.set_ticks(ticks, [f"{t:g}" if plain or t == 0 else scientific(t) for t in ticks])
    between = LogLocator(subs=range(2, 10)).tick_values(low, high)
    axis.set_ticks([t for t in between if low <= t <= high], minor=True)
    axis.set_minor_formatter(NullFormatter())


def log_axis(ax: Axes, values: Iterable[float], top: float = math.inf) -> None:
    """A logarithmic y axis for finite values >= 0, up to ``top`` at most. 0 has a tick below the smallest other."""
    finite = np.asarray([v for v in values if math.isfinite(v)], dtype=float)
    positive = finite[finite > 0]
    if not positive.size:
        ax.set_ylim(-0.05, 1)
        return
    low, high = float(positive.min()) / 1.3, min(float(positive.max()) * 1.3, top)
    if zero := positive.size < finite.size:
        ax.set_yscale("symlog", linthresh=1.3 * low, linscale=0.4)
    else:
        ax.set_yscale("log")
    ax.set_ylim(-0.26 * low if zero else low, high)
    log_ticks(ax.yaxis, low, high, zero)


def signed(values: ArrayLike, limit: float | None = None) -> dict[str, Any]:
    """Colours of an image of signed values, up to the largest magnitude or a ``limit``. Zero is white."""
    limit = limit or float(np.abs(values).max(initial=0)) or 1.0
    return {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}


def image_panels(
    images: Iterable[Any],
    axes: Sequence[Axes],
    titles: Sequence[str] | None,
    label: str,
    channels: int = 1,
    **options: Any,
) -> None:
    """Images with one colour bar and no ticks, a panel for each. ``options`` are those of ``imshow``.

    Lines divide the ``channels``, which are next to each other.
    """
    for index, (ax, image) in enumerate(zip(axes, images, strict=True)):
        for channel in range(1, channels):
            ax.axvline(channel * image.shape[1] / channels - 0.5, color="black", linewidth=0.8)
        drawn = ax.imshow(image, **options)
        ax.spines[:].set_visible(True)
        ax.set_xticks([])
        ax.set_yticks([])
        if titles is not None:
            ax.set_title(titles[index])
    axes[0].figure.colorbar(drawn, ax=axes, shrink=0.8, label=label)


def as_text(name: str) -> str:
    """Text that a user has given, to be drawn as it stands: nothing in it is a formula."""
    return printable(name).replace("$", r"\$")


def class_names(names: Sequence[str] | None, count: int) -> list[str]:
    """The given names, to be drawn, or numbers; a ``ValueError`` if they are not ``count``."""
    if names is None:
        return [str(index) for index in range(count)]
    if len(names) != count:
        raise ValueError(f"class_names: expected {count}, got {len(names)}")
    return list(map(as_text, names))
