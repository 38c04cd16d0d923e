"""Data of a run for figures and reports, and reasons why some figures do not apply to it."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from firstspike.config import ConfigError
from firstspike.config.network import LayerError
from firstspike.layers import LAYERS, Network, SpikeTrains, SpikingLinear
from firstspike.layers.named import NamedLayer, named_layers
from firstspike.layers.trains import form_of
from firstspike.plots.look import as_text, styled, time_unit
from firstspike.runs.evaluate import RunEvaluation
from firstspike.runs.run import Run, Table
from firstspike.substrates import SubstrateError
from firstspike.training.state import CheckpointError

_log = logging.getLogger(__name__)
NO_CLASSES = "the labels are numbers, not classes"


class NotApplicable(ValueError):  # noqa: N818  (a reason to leave a figure out, not a fault)
    """A figure that does not apply to a run. The message says why."""


UNAVAILABLE = (NotApplicable, CheckpointError, ConfigError, LayerError, SubstrateError, ImportError, OSError)
"""Errors of a run of which a part is missing: a checkpoint, data, a substrate, an object that has to be handed over."""


def metrics_of(run: Run) -> Table:
    """The columns of ``metrics.csv``, at least one epoch."""
    if not run.epochs:
        raise NotApplicable(f"{run.folder} has no finished epoch in metrics.csv")
    return run.metrics


def output_times_of(run: Run) -> Table:
    """The columns of ``output_times.csv``, at least one epoch."""
    if not len(run.output_times.get("epoch", ())):
        reason = f"{run.folder} has no finished epoch in output_times.csv"
        if run.epochs:
            reason = "output times are recorded on validation data with classes, and not of a readout"
            reason += "; choose one of the folders seed_*" if run.seeds else ""
        raise NotApplicable(reason)
    return run.output_times


def data_name(run: Run) -> str:
    """The name of the data that the run learns."""
    kind: str = run.config.data.kind
    if kind == "files":
        return as_text(f"data from {Path(run.config.data.train).name}")
    return "data from Python" if kind == "given" else kind


def unit_in(run: Run) -> str:
    """Unit of all times, for an axis."""
    return time_unit(run.config.neuron.time_unit, run.config.neuron.unit)


def sample_title(run: Run, sample: int) -> str:
    """Number and class of a sample of ``held_out``."""
    split, data = run.held_out
    if data.labels.ndim > 2:
        return f"{split} sample {sample}"
    if data.regression:
        numbers = zip(run.class_names, data.labels[sample].tolist(), strict=True)
        return f"{split} sample {sample}, {', '.join(f'{as_text(name)} {number:.3g}' for name, number in numbers)}"
    label = int(data.labels[sample])
    return f"{split} sample {sample}, class {as_text(run.names(label + 1)[label])}"


def input_names(run: Run) -> list[str]:
    """Names of the inputs: columns of a table, or numbers."""
    data = run.data.train
    if run.config.data.kind == "yin_yang":
        return ["x", "y", "1 - x", "1 - y"]
    return list(data.input_names) or list(map(str, range(data.features)))


def classified(run: Run) -> RunEvaluation:
    """The ``evaluation`` of a run whose labels are classes."""
    if run.evaluation.labels.is_floating_point():
        raise NotApplicable(NO_CLASSES)
    return run.evaluation


def named_layers_of(run: Run) -> list[NamedLayer]:
    """The spiking layers of the network."""
    if found := named_layers(run.network):
        return found
    if isinstance(run.network, Network):
        raise NotApplicable("the network has no LIF layers")
    raise NotApplicable(f"the layers of a {run.network._get_name()} are not known; those of an fs.Network are")


def membrane_layer(run: Run) -> tuple[NamedLayer, SpikingLinear | SpikeTrains]:
    """The last spiking layer, whose membranes are drawn: of the output, or before a readout."""
    lif = named_layers_of(run)[-1]
    if isinstance(lif.layer, SpikingLinear | SpikeTrains):
        return lif, lif.layer
    kind = lif.layer._get_name()
    raise NotApplicable(f"membranes are drawn for neurons with inputs of their own, not for {kind}")


def neuron_names(run: Run) -> list[str]:
    """Names of the neurons of the last spiking layer: their classes, or before a readout numbers."""
    count = named_layers_of(run)[-1].layer.out_features
    return run.names(count) if spiking_output(run) else list(map(str, range(count)))


def spiking_output(run: Run) -> bool:
    """Whether the output's spikes decide for a class: not before a readout, nor where labels are numbers or trains."""
    decides = all(form_of(LAYERS.get(section.kind, Network)) != "values" for section in run.config.network)
    return decides and not run.data.train.regression


def left_out(what: str, error: Exception) -> str:
    """Why a figure or part is left out, in one line. A fault is also logged as a warning."""
    if isinstance(error, UNAVAILABLE):
        return str(error)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    _log.warning("no %s: %s", what, reason)
    return reason


def run_figure(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw a figure of a run in the package's style. It is ``NotApplicable`` where a part of the run is missing."""
    draw = styled(draw)

    @functools.wraps(draw)
    def wrapper(run: Run, **options: Any) -> Figure:
        try:
            return draw(run, **options)
        except ConfigError as reason:
            raise NotApplicable("; ".join(reason.errors)) from None
        except UNAVAILABLE as reason:
            raise NotApplicable(str(reason)) from None

    return wrapper
