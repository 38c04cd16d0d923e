"""A result folder of the original becomes a run."""

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from firstspike.config import build, build_data
from firstspike.interop.fast_and_deep.layers import Origin
from firstspike.interop.fast_and_deep.results import Comparison, ResultsError, compare, find_files, saved_spike_times
from firstspike.interop.fast_and_deep.translate import import_config
from firstspike.interop.torch_file import StandIn, read_torch_file
from firstspike.layers import Network
from firstspike.runs.checkpoint import place_of, save_checkpoint
from firstspike.runs.files import write_whole
from firstspike.runs.folder import RunFolder
from firstspike.runs.writer import captured
from firstspike.substrates import Noisy
from firstspike.training.evaluation import record_in_parts
from firstspike.training.member import Member, Progress

_WEIGHTS = ("weights", ("NeuronLayer", "EqualtimeLayer"))
_DELAYS = ("_delay_parameters", ("DelayLayer",))


@dataclass
class Imported:
    """The outcome of an import, as ``import.json`` has it."""

    config: str  # the original's file
    network: str | None  # the original's file
    epoch: int  # up to which it was trained
    inexact: list[str]  # as in ``Translation``
    no_counterpart: list[str]  # as in ``Translation``
    parameters: int = 0  # number of imported weights and delays
    comparison: Comparison | str = "there is no trained network"  # with the saved spike times, or why there is none

    @property
    def verdict(self) -> str:
        """The comparison in a sentence."""
        if isinstance(self.comparison, str):
            return f"not compared: {self.comparison}"
        return str(self.comparison) + (f" (but {', '.join(self.inexact)})" if self.inexact else "")


def import_folder(folder: Path, out: Path) -> Imported:
    """Make a run folder from a result folder of the original. Nothing in it is executed.

    The run has ``config.yaml``, a checkpoint with the original's weights, and ``import.json`` with all notes on the
    translation. If the training is resumed, the optimiser is reset.

    Args:
        folder: a result folder, or one ``epoch_N`` of it.
        out: our run folder. It must not exist, or be empty.

    Raises:
        UnsafePickleError: the file of the network wants to call something.
        FileExistsError: ``out`` is not empty.
        FileNotFoundError: no config in ``folder``.
        ValueError: a config or network that cannot be read or expressed.
    """
    files = find_files(folder)
    config, translation = import_config(files.config, exact=files.network is not None)
    data = build_data(config)
    trainer = build(config, data)
    member = trainer.members[0]
    found = Imported(
        str(files.config.resolve()),
        str(files.network.resolve()) if files.network else None,
        0 if files.network is None else config.training.epochs if files.epoch is None else files.epoch,
        translation.inexact,
        translation.no_counterpart,
    )
    if files.network is not None:
        state = _read_network(files.network, translation.sources)
        found.parameters = sum(values.numel() for values in state.values())
        member.network.load_state_dict(member.network.state_dict() | state)
        found.no_counterpart.append("optimiser state and random numbers: a resumed training resets them")
        if isinstance(member.substrate, Noisy) and member.substrate.threshold_spread:
            found.no_counterpart.append("fixed pattern of the thresholds: redrawn, as if on another device")
        try:
            times, inputs = saved_spike_times(files.tests, data.test, translation.config["data"]["kind"])
            found.comparison = compare(times, _outputs(member, inputs))
        except ResultsError as reason:
            found.comparison = str(reason)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            if (schedule := member.schedule) is not None:
                for _ in range(found.epoch):
                    schedule.step()
        member.progress = Progress(epoch=found.epoch)
    run = RunFolder(out)  # from here on only the disk can fail
    run.create(config, data=data.checksum)
    if files.network is not None:
        checkpoint = captured(trainer)[0]
        save_checkpoint(place_of(run.checkpoints, checkpoint), checkpoint)
    record = {"from": "fastAndDeep", **asdict(found), "torch": torch.__version__}
    write_whole(run.path / "import.json", json.dumps(record, indent=1) + "\n")
    return found


def _outputs(member: Member, times: Tensor) -> np.ndarray:
    """Output times by the exact equations. Thresholds and weights are the substrate's, but it draws no noise."""
    assert isinstance(member.network, Network)
    names = ("threshold_offset", "weight_scale", "weight_max") if isinstance(member.substrate, Noisy) else ()
    with Noisy(**{name: getattr(member.substrate, name) for name in names}).open(member.network) as opened:
        return record_in_parts(member.network, times, opened).output.cpu().double().numpy()


def _read_network(path: Path, sources: dict[str, Origin]) -> dict[str, Tensor]:
    """Our parameters from a pickled network, in double precision: weights ``(out, in)``, delays before the bound."""
    network = read_torch_file(path)
    if not isinstance(network, StandIn):
        raise ValueError(f"{path}: expected a network, got {type(network).__name__}")
    container = _modules(network).get("layers")
    if not isinstance(container, StandIn):
        raise ValueError(f"{path}: {network.qualified} has no layers; expected a network of fastAndDeep")
    layers = _modules(container)
    return {name: _values(path, layers, source) for name, source in sources.items()}


def _modules(module: StandIn) -> dict[str, object]:
    found = module.attributes.get("_modules")
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _values(path: Path, layers: dict[str, object], source: Origin) -> Tensor:
    """A parameter of the original, ``(inputs, neurons)``, in the order and form of ours."""
    attribute, classes = _WEIGHTS if source.kind == "weight" else _DELAYS
    layer, place = layers.get(str(source.layer)), f"{path}: layers[{source.layer}]"
    if not isinstance(layer, StandIn) or type(layer).__name__ not in classes:
        found = getattr(layer, "qualified", type(layer).__name__)
        raise ValueError(f"{place}: expected {classes[0]}, got {found}; the network does not fit the config")
    learned = layer.attributes.get("_parameters")  # parameters that are not trained are plain attributes
    tensor = (learned if isinstance(learned, dict) else {}).get(attribute, layer.attributes.get(attribute))
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{place}: has no tensor {attribute}")
    if tensor.shape != source.shape:
        shapes = f"expected shape {source.shape} by the config, got {tuple(tensor.shape)}"
        raise ValueError(f"{place}.{attribute}: {shapes}; is it the network of this config?")
    values = tensor.double()
    if not values.isfinite().all():
        raise ValueError(f"{place}.{attribute}: holds numbers that are not finite")
    if source.kind == "dendritic":
        return values[0]
    values = values[list(source.order)]
    return values[:, 0] if source.kind == "axonal" else values.T
