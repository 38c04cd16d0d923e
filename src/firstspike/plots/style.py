"""How all figures look: colours that differ in lightness and for the colour-blind, sizes for a page, axes with units.

Data-level functions draw into axes of the caller and leave fonts alone; the figures of a run are made inside ``style``.
No function touches pyplot.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullFormatter

P = ParamSpec("P")

DPI = 150

# Okabe and Ito's colours, ordered so that neighbours differ in lightness, too
COLOURS = ("#0072B2", "#E69F00", "#222222", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#B8A900")
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (2, 1)), (0, (8, 2, 1, 2, 1, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
FAINT = 0.3
SEQUENTIAL = "viridis"
"""Colour map of spike times: early is dark."""
SIGNED = "cividis"
"""Colour map of signed values: negative is dark, positive is bright, also in grey."""
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
    "lines.linewidth": 1.5,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # fonts are embedded as they are, so that text stays text
}


@contextmanager
def style() -> Iterator[None]:
    """Sizes and fonts of the package's figures, for the time of a ``with`` block."""
    with mpl.rc_context(_RC):
        yield


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a function's figure in the package's style, and keep it so when it is rendered later."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style():
            figure = draw(*args, **kwargs)
            for ax in figure.axes:  # ticks are made while rendering, by the settings of that time
                ax.tick_params(axis="x", which="both", labelsize=mpl.rcParams["xtick.labelsize"])
                ax.tick_params(axis="y", which="both", labelsize=mpl.rcParams["ytick.labelsize"])
        return figure

    return wrapper


def new_figure(width: float = 6.5, height: float = 3.0) -> Figure:
    """An empty figure, its size in inches, that makes room for labels and legends by itself."""
    return Figure(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07))


def time_unit(tau_syn: float = 1.0) -> str:
    """The unit of all times, for an axis: with ``tau_syn = 1`` it is tau_syn, else the fitting part of it."""
    return r"$\tau_\mathrm{syn}$" if tau_syn == 1 else rf"$\tau_\mathrm{{syn}}$/{tau_syn:g}"


TAU_SYN = time_unit()


def time_label(unit: str = TAU_SYN, what: str = "time") -> str:
    """``what [unit]``."""
    return f"{what} [{unit}]"


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of a line, different for the first 24 indices."""
    colours = len(COLOURS)
    return {"color": COLOURS[index % colours], "linestyle": LINES[(index + index // colours) % len(LINES)]}


def marker_style(index: int) -> dict[str, Any]:
    """Colour and marker of points, different for the first 64 indices."""
    colours = len(COLOURS)
    return {"color": COLOURS[index % colours], "marker": MARKERS[(index + index // colours) % len(MARKERS)]}


def axes_list(axes: Axes | Iterable[Any], needed: int) -> list[Axes]:
    """One axes or any array of them as a flat list.

    Raises:
        ValueError: fewer than are needed.
    """
    flat: list[Axes] = [axes] if isinstance(axes, Axes) else list(np.ravel(np.asarray(axes, dtype=object)))
    if len(flat) < needed:
        raise ValueError(f"axes: expected {needed}, got {len(flat)}. Make more, e.g. with subplots(1, {needed}).")
    return flat


def legend_right(ax: Axes, **options: Any) -> None:
    """A legend on the right of the axes, where it covers nothing."""
    many = len(ax.get_legend_handles_labels()[0]) > 6
    spacing = 0.2 if many else 0.5
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, labelspacing=spacing, **options)


def epoch_axis(ax: Axes, most: int = 6) -> None:
    """Name the x axis, and give it ticks at whole epochs, ``most`` or fewer intervals between them."""
    ax.set_xlabel("epoch")
    first, last = ax.dataLim.intervalx
    if 0 <= last - first < 1:  # a single epoch
        ax.set_xlim(first - 1, last + 1)
    ax.xaxis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10], integer=True))


def square_grid(count: int, columns: int) -> tuple[int, int]:
    """Rows and columns for so many panels."""
    columns = min(count, columns)
    return -(-count // columns), columns


def log_axis(ax: Axes, values: Iterable[float], zero: bool = True) -> None:
    """A logarithmic y axis for values >= 0.

    Where there are zeros among them and ``zero``, the axis is linear below the smallest positive value, so that 0 has
    a place and a tick at the bottom. Values that are not finite are left out of account.
    """
    finite = np.asarray([v for v in values if math.isfinite(v)], dtype=float)
    positive = finite[finite > 0]
    if not positive.size:
        ax.set_ylim(-0.05, 1)
        return
    least, most = float(positive.min()), float(positive.max())
    ticks = _decades(least, most)
    if zero and positive.size < finite.size:
        ax.set_yscale("symlog", linthresh=least, linscale=0.4)
        ax.set_ylim(-0.2 * least, most * 1.3)
        ticks = [0.0, *(t for t in ticks if t > least)]
    else:
        ax.set_yscale("log")
        ax.set_ylim(least / 1.3, most * 1.3)
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_major_formatter(FixedFormatter(_numbers(ticks)))
    minor = [m * 10.0**k for k in range(_floor(least), _floor(most) + 1) for m in range(2, 10)]
    ax.yaxis.set_minor_locator(FixedLocator([m for m in minor if m not in ticks and least / 1.3 <= m <= most * 1.3]))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _floor(value: float) -> int:
    return math.floor(math.log10(value))


def _decades(least: float, most: float) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, and steps between where there are few."""
    low, high = least / 1.3, most * 1.3
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 5, 7)):
        ticks = [step * 10.0**k for k in range(_floor(low), _floor(high) + 1) for step in steps]
        ticks = [t for t in ticks if low <= t <= high]
        if len(ticks) >= 3:
            every = -(-len(ticks) // 8)
            return ticks[::-every][::-1]
    return [float(t) for t in MaxNLocator(4).tick_values(low, high) if low <= t <= high]


def _numbers(ticks: list[float]) -> list[str]:
    """All plain, or if there is a small or large one all as powers of ten."""
    if all(t == 0 or 1e-2 <= t < 1e5 for t in ticks):
        return [f"{t:g}" for t in ticks]
    labels = []
    for tick in ticks:
        exponent = _floor(tick * (1 + 1e-9)) if tick else 0
        factor = tick / 10.0**exponent
        power = rf"10^{{{exponent}}}"
        labels.append("0" if tick == 0 else f"${power}$" if round(factor, 6) == 1 else rf"${factor:g}\cdot{power}$")
    return labels


def class_names(names: Sequence[str] | None, count: int) -> list[str]:
    """The given names, or numbers.

    Raises:
        ValueError: another number of names than ``count``.
    """
    if names is None:
        return [str(index) for index in range(count)]
    if len(names) != count:
        raise ValueError(f"class_names: expected {count}, got {len(names)}. Name each class once.")
    return list(names)
