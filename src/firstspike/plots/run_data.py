"""A run as figures need it, and why some figures do not apply to it."""

import functools
import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure

from firstspike.config import ConfigError
from firstspike.config.network import LayerError
from firstspike.layers import LAYERS, LIFLinear, LIFSpikeTrains, Network, Record
from firstspike.layers.named import NamedLIF, named_lif_layers, named_parameters, to_numpy
from firstspike.layers.trains import form_of
from firstspike.plots.look import as_text, styled, time_unit
from firstspike.plots.plane import YinYangPlane
from firstspike.runs.checkpoint import load_checkpoint
from firstspike.runs.evaluate import RunEvaluation
from firstspike.runs.run import Run
from firstspike.runs.saved import Table
from firstspike.substrates import SubstrateError
from firstspike.training.margin import Margins, margins
from firstspike.training.state import CheckpointError

_log = logging.getLogger(__name__)
NO_CLASSES = "the labels are numbers, not classes"
_SAMPLES = 1000  # whose margins are taken


class NotApplicable(ValueError):  # noqa: N818  (a reason to leave a figure out, not a fault)
    """A figure that does not apply to a run; the message says why."""


UNAVAILABLE = (NotApplicable, CheckpointError, ConfigError, LayerError, SubstrateError, ImportError, OSError)
"""Errors of a run of which a part is missing: a checkpoint, data, a substrate, an object that has to be handed over."""


class RunData(Run):
    """A run for figures; what it lacks for one of them raises ``NotApplicable`` with the reason."""

    @classmethod
    def of(cls, run: Run) -> Self:
        """The same run for figures."""
        if isinstance(run, cls):
            return run
        data = cls.__new__(cls)
        data.__dict__.update(run.__dict__)
        return data

    @property
    def epochs(self) -> int:
        """See ``Run``; of a run that has not begun none."""
        return len(super()._table("metrics").get("epoch", ()))

    @property
    def data_name(self) -> str:
        """What the run learns."""
        kind: str = self.config.data.kind
        if kind == "files":
            return as_text(f"data from {Path(self.config.data.train).name}")
        return "data from Python" if kind == "given" else kind

    @property
    def unit(self) -> str:
        """Unit of all times, for an axis."""
        return time_unit(self.config.neuron.tau_syn)

    def sample_title(self, sample: int) -> str:
        """Number and class of a sample of ``held_out``."""
        split, data = self.held_out
        if data.regression:
            numbers = zip(self.class_names, data.labels[sample].tolist(), strict=True)
            return f"{split} sample {sample}, {', '.join(f'{as_text(name)} {number:.3g}' for name, number in numbers)}"
        label = int(data.labels[sample])
        return f"{split} sample {sample}, class {as_text(self.names(label + 1)[label])}"

    def names(self, count: int) -> list[str]:
        """See ``Run``; all of them numbers where the data are missing."""
        try:
            return super().names(count)
        except UNAVAILABLE:
            return list(map(str, range(count)))

    @cached_property
    def input_names(self) -> list[str]:
        """Names of the inputs: columns of a table, or numbers."""
        data = self.data.train
        if self.config.data.kind == "yin_yang":
            return ["x", "y", "1 - x", "1 - y"]
        return list(data.input_names) or list(map(str, range(data.features)))

    @property
    def classified(self) -> RunEvaluation:
        """``evaluation`` of a run whose labels are classes."""
        if self.evaluation.labels.is_floating_point():
            raise NotApplicable(NO_CLASSES)
        return self.evaluation

    @cached_property
    def margins(self) -> Margins:
        """Margins of the decisions of the exact network on the first samples of ``held_out``, and their derivatives."""
        try:
            return margins(self.stored_network, self.held_out[1].times[:_SAMPLES], readout=self.classified.readout)
        except (ValueError, RuntimeError) as reason:  # a network of one output; one that has no gradient
            raise NotApplicable(str(reason)) from None

    @cached_property
    def input_effects(self) -> Float[np.ndarray, " inputs"]:
        """Mean absolute derivative of the margins by the time of each input, of a train by that of all its spikes."""
        found = to_numpy(self.margins.by_times[torch.isfinite(self.margins.margin)])
        if not len(found):
            raise NotApplicable("in no sample do two outputs spike, so that no decision has a margin")
        return np.abs(found.reshape(*found.shape[:2], -1).sum(axis=-1)).mean(axis=0)

    @property
    def lif_layers(self) -> list[NamedLIF]:
        """The LIF layers of the network."""
        if found := named_lif_layers(self.network):
            return found
        if isinstance(self.network, Network):
            raise NotApplicable("the network has no LIF layers")
        raise NotApplicable(f"the layers of a {type(self.network).__name__} are not known; those of an fs.Network are")

    @property
    def membrane_layer(self) -> tuple[NamedLIF, LIFLinear | LIFSpikeTrains]:
        """The last LIF layer, whose membranes are drawn: of the output, or before a readout."""
        lif = self.lif_layers[-1]
        if isinstance(lif.layer, LIFLinear | LIFSpikeTrains):
            return lif, lif.layer
        kind = type(lif.layer).__name__
        raise NotApplicable(f"membranes are drawn for neurons with inputs of their own, not for {kind}")

    @property
    def neuron_names(self) -> list[str]:
        """Names of the neurons of ``membrane_layer``: their classes, or before a readout numbers."""
        count = self.membrane_layer[1].out_features
        return self.names(count) if self.spiking_output else list(map(str, range(count)))

    @property
    def spiking_output(self) -> bool:
        """Whether the output spikes, which a readout does not."""
        return form_of(LAYERS.get(self.config.network[-1].kind, Network)) != "values"

    @cached_property
    def history(self) -> tuple[list[float], dict[str, Float[np.ndarray, "checkpoints parameters"]]]:
        """All that is learnt before training and at each readable checkpoint, oldest first: epochs, and the values.

        A checkpoint inside an epoch has a fraction of it.
        """
        epochs, states = [0.0], [named_parameters(self.initial)]
        batches = max(1, -(-len(self.data.train) // self.config.training.batch_size))
        for name in self.checkpoints:
            try:
                checkpoint = load_checkpoint(self.folder / "checkpoints" / name)
                network = self._network(checkpoint)
            except CheckpointError as error:
                _log.warning("%s; the figures leave it out", error)
                continue
            epoch = checkpoint.epoch + checkpoint.batch / batches
            if epoch > epochs[-1]:  # the best checkpoint may be one of the regular ones
                epochs.append(epoch)
                states.append(named_parameters(network))
        if len(epochs) == 1:
            raise NotApplicable(f"{self.folder} has no checkpoint that can be read")
        return epochs, {name: np.stack([state[name].ravel() for state in states]) for name in states[0]}

    @cached_property
    def plane(self) -> YinYangPlane:
        """The plane of a Yin-Yang run."""
        data = self.config.data
        if data.kind != "yin_yang":
            raise NotApplicable(f"only runs on yin_yang have a plane, this one is on {self.data_name}")
        return YinYangPlane(data.early, data.late, data.r_small, data.r_big)

    @cached_property
    def plane_record(self) -> Record:
        """Spike times of all layers on the grid of ``plane``."""
        return self.observe(self.plane.times(self.dtype))

    def _table(self, name: str) -> Table:
        table = super()._table(name)
        if not len(table.get("epoch", ())):
            reason = f"{self.folder} has no finished epoch in {name}.csv"
            if name == "output_times" and self.epochs:
                reason = "output times are recorded on validation data with classes, and not of a readout"
                reason += "; choose one of the folders seed_*" if self.seeds else ""
            raise NotApplicable(reason)
        return table


def left_out(what: str, error: Exception) -> str:
    """Why a figure or part is left out, in one line; what is a fault rather than a reason is also a warning."""
    if isinstance(error, UNAVAILABLE):
        return str(error)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    _log.warning("no %s: %s", what, reason)
    return reason


def run_figure(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw a figure of a run in the package's style; it is ``NotApplicable`` where a part of the run is missing."""
    draw = styled(draw)

    @functools.wraps(draw)
    def wrapper(run: Run, **options: Any) -> Figure:
        try:
            return draw(RunData.of(run), **options)
        except ConfigError as reason:
            raise NotApplicable("; ".join(reason.errors)) from None
        except UNAVAILABLE as reason:
            raise NotApplicable(str(reason)) from None

    return wrapper
