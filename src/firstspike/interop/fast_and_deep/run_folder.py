"""Makes a run of ours out of a result folder of theirs."""

import json
import math
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from firstspike.interop.fast_and_deep.compare import Comparison, compare
from firstspike.interop.fast_and_deep.curves import metrics
from firstspike.interop.fast_and_deep.folder import Found, look
from firstspike.interop.fast_and_deep.translate import Translation, import_config
from firstspike.interop.fast_and_deep.weights import read_network
from firstspike.training.build import Experiment, build
from firstspike.training.config import Config
from firstspike.training.config.substrate import Noisy
from firstspike.training.files import write_whole
from firstspike.training.run import Run
from firstspike.training.saving import State, save_epochs


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Args:
        config: our config.
        network: their file that the weights come from, None if there was none.
        epoch: how far it is trained.
        parameters: number of weights and delays taken over.
        lacking: what has no counterpart here, one line each.
        inexact: reasons for spike times of theirs that an exact computation does not give.
        comparison: with their saved spike times; in words, why there is none.
    """

    config: Config
    network: Path | None
    epoch: int
    parameters: int
    lacking: tuple[str, ...]
    inexact: tuple[str, ...]
    comparison: Comparison | str

    @property
    def verdict(self) -> str:
        """The comparison in a sentence."""
        if isinstance(self.comparison, str):
            return f"not compared: {self.comparison}"
        return self.comparison.sentence + (f" (but {', '.join(self.inexact)})" if self.inexact else "")


def import_folder(folder: Path, out: Path) -> Imported:
    """Make a run folder from a result folder of theirs; nothing in it is executed.

    The run has ``config.yaml``, a checkpoint with their weights, and ``import.json`` with all that is said about the
    translation; the losses and accuracies that they saved become ``metrics.csv``. The optimiser starts anew, should the
    training go on.

    Args:
        folder: their result folder, or one ``epoch_N`` of it.
        out: our run folder; it must not exist, or be empty.

    Raises:
        UnsafePickleError: their network's file wants to call something.
        FileExistsError: ``out`` is not empty.
        FileNotFoundError: no config in ``folder``.
        ValueError: a config or network that cannot be read or expressed.
    """
    first = look(folder)
    config, translation = import_config(first.config, exact=first.network is not None)
    found = look(folder, translation.name)
    lacking = list(translation.remarks.lacking)
    experiment = build(config)
    epoch = (config.training.epochs if found.epoch is None else found.epoch) if found.trained else 0
    comparison: Comparison | str = "there is no trained network"
    curves = "there is no network"
    count = 0
    if found.network is not None:
        state = read_network(found.network, translation.sources)
        count = sum(values.numel() for values in state.values())
        experiment.network.load_state_dict(experiment.network.state_dict() | state)
        lacking.append("optimiser state and random numbers: a training that goes on starts them anew")
        if isinstance(config.substrate, Noisy) and config.substrate.threshold_spread:
            lacking.append("fixed pattern of the thresholds: drawn anew here, so the network runs on another device")
    if found.trained:
        comparison = compare(experiment, found.tests)
    run = Run.create(out, config)
    if found.network is not None:
        rates = _advance(experiment, epoch)
        rows = metrics(found.curves, rates, experiment.spiking)
        best = -math.inf
        curves = rows if isinstance(rows, str) else f"metrics of {len(rows)} epochs"
        if not isinstance(rows, str) and rows:
            best = max(float(row["validation_accuracy"]) for row in rows)
            run.append("metrics", rows)
        save_epochs([experiment], [run], [State(epoch=epoch, best=best)])
    imported = Imported(config, found.network, epoch, count, tuple(lacking), tuple(translation.inexact), comparison)
    write_whole(
        run.path / "import.json",
        json.dumps(_record(imported, found, translation) | {"curves": curves}, indent=1) + "\n",
    )
    return imported


def _advance(experiment: Experiment, epoch: int) -> list[float]:
    """Bring the schedule of learning rates to an epoch; the rates on the way."""
    rates = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        for _ in range(epoch):
            if experiment.schedule is not None:
                experiment.schedule.step()
            rates.append(experiment.optimizer.param_groups[0]["lr"])
    return rates


def _record(imported: Imported, found: Found, translation: Translation) -> dict[str, object]:
    """What ``import.json`` says."""
    comparison = imported.comparison
    return {
        "from": "fastAndDeep",
        "config": str(found.config.resolve()),
        "network": str(found.network.resolve()) if found.network else None,
        "trained": found.trained,
        "epoch": imported.epoch,
        "parameters": imported.parameters,
        "no_counterpart": list(imported.lacking),
        "without_effect": translation.remarks.unused,
        "inexact": list(imported.inexact),
        "comparison": comparison if isinstance(comparison, str) else asdict(comparison),
        "torch": torch.__version__,
    }
