"""The figures of a run as files."""

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from matplotlib.figure import Figure

from firstspike.plots.run_data import NotApplicable, RunData
from firstspike.plots.style import DPI, style
from firstspike.runs.files import whole_file

_log = logging.getLogger(__name__)

FORMATS = ("png", "pdf", "svg")

T = TypeVar("T")
Plots = Mapping[str, Callable[[T], Figure]]


def save_run_figures(
    plots: Plots[RunData], run: RunData, names: Sequence[str] | None, formats: Sequence[str]
) -> list[Path]:
    """Draw figures of a run and write them to its folder ``figures/``; see ``firstspike.plots.save_figures``."""
    on = "" if run.elsewhere is None else f"_on_{run.elsewhere}"
    return save_all(plots, run, run.folder / "figures", names, formats, on)


def save_all(
    plots: Plots[T], data: T, folder: Path, names: Sequence[str] | None, formats: Sequence[str], ending: str = ""
) -> list[Path]:
    """Draw figures of some data and write them to ``folder/NAME.FORMAT``, each whole or not at all.

    Args:
        plots: the figures that there are.
        data: what they draw.
        folder: made if it is not there.
        names: those to draw; by default all that apply.
        formats: file formats.
        ending: of each file's name.

    Raises:
        ValueError: a name or format that there is not.
        NotApplicable: a figure asked for by name that makes no sense for these data.
    """
    for kind, given, valid in (("figure", names or (), plots), ("format", formats, FORMATS)):
        for name in given:
            if name not in valid:
                near = difflib.get_close_matches(name, valid, 1)
                hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(valid)}"
                raise ValueError(f"there is no {kind} {name!r}; {hint}")
    folder.mkdir(exist_ok=True)
    written = []
    for name in plots if names is None else names:
        try:
            figure = plots[name](data)
        except NotApplicable as reason:
            if names is not None:
                raise
            _log.info("no figure %s: %s", name, reason)
            continue
        written += [write_figure(figure, folder / f"{name}{ending}.{suffix}") for suffix in formats]
    return written


def write_figure(figure: Figure, path: Path) -> Path:
    """Write a figure whole or not at all, in the format of the path's suffix; the same figure gives the same bytes."""
    suffix = path.suffix.removeprefix(".")
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(suffix)
    with whole_file(path) as temporary, style():
        figure.savefig(temporary, format=suffix, dpi=DPI, metadata=metadata)
    return path
