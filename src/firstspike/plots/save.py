"""Figures as files."""

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from matplotlib.figure import Figure

from firstspike.plots import AFTER_TRAINING
from firstspike.plots.look import DPI, style
from firstspike.plots.run_data import NotApplicable, left_out
from firstspike.runs import Run
from firstspike.runs.files import whole_file

_log = logging.getLogger(__name__)

FORMATS = ("png", "pdf", "svg")

T = TypeVar("T")


def save_all(
    plots: Mapping[str, Callable[[T], Figure]],
    data: T,
    folder: Path,
    names: Sequence[str] | None,
    formats: Sequence[str],
    ending: str = "",
) -> list[Path]:
    """Draw the ``plots`` of these names, or all that apply, and write them to ``folder/NAME + ending.FORMAT``.

    Of those asked for by name, a ``NotApplicable`` names the ones that do not apply to these data, or fail. The others
    are written.
    """
    for kind, given, valid in (("figure", names or (), plots), ("format", formats, FORMATS)):
        for name in given:
            if name not in valid:
                near = difflib.get_close_matches(name, valid, 1)
                hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(valid)}"
                raise ValueError(f"there is no {kind} {name!r}; {hint}")
    folder.mkdir(exist_ok=True)
    written, reasons = [], dict[str, list[str]]()
    for name in plots if names is None else names:
        try:
            figure = plots[name](data)
            written += [write_figure(figure, folder / f"{name}{ending}.{suffix}") for suffix in formats]
        except OSError:  # there is no room for the next one either
            raise
        except Exception as error:
            reasons.setdefault(left_out(f"figure {name}", error), []).append(name)
    if reasons and names is not None:
        raise NotApplicable("; ".join(f"no figure {', '.join(left)}: {reason}" for reason, left in reasons.items()))
    return written


def draw_after_training(run: Run) -> None:
    """Draw figures that take little time. A training is not lost to a figure that cannot be drawn."""
    for name in AFTER_TRAINING:
        if name == "decision_map" and run.config.substrate.kind != "exact":
            continue  # its 40000 samples may take a simulator hours
        try:
            run.plot([name])
        except NotApplicable as reason:  # e.g. without validation data
            _log.info("%s", reason)
        except (OSError, ValueError) as error:
            _log.warning("no figure %s: %s", name, error)


def write_figure(figure: Figure, path: Path) -> Path:
    """Write a figure whole or not at all, in the format of the path's suffix. The same figure gives the same bytes."""
    suffix = path.suffix.removeprefix(".")
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(suffix)
    with whole_file(path) as temporary, style():
        figure.savefig(temporary, format=suffix, dpi=DPI, metadata=metadata)
    return path
