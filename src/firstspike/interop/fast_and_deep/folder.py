"""What lies in a result folder of theirs."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_TEST = {"times": "_test_spiketimes.npy", "labels": "_test_labels.npy", "inputs": "_test_inputs.npy"}
_CURVES = {
    "train_loss": "_train_losses.npy",
    "train_accuracy": "_train_accuracies.npy",
    "validation_loss": "_val_losses.npy",
    "validation_accuracy": "_val_accuracies.npy",
}


@dataclass(frozen=True)
class Found:
    """Files of a result folder.

    Args:
        config: the YAML file.
        network: the pickled network, None if there is none.
        trained: whether it is the trained one.
        epoch: after how many epochs, None if no folder name says it.
        tests: spike times, labels and inputs that they saved for the test data, by these names, as far as there are.
        curves: losses and accuracies over training, by our names, as far as there are.
    """

    config: Path
    network: Path | None
    trained: bool
    epoch: int | None
    tests: dict[str, Path]
    curves: dict[str, Path]


def look(folder: Path, name: str | None = None) -> Found:
    """Look for config, network and test results.

    A folder with ``epoch_N`` folders and no network of its own stands for the last of them.

    Args:
        folder: a result folder, or one ``epoch_N`` of it.
        name: their name of the data set, with which their files begin; by default any.

    Raises:
        FileNotFoundError: no config.
        ValueError: several networks.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder and no file")
    epoch = _epoch(folder)
    network = _network(folder, name, "_network.pt")
    place = folder
    if network is None and epoch is None:
        numbered = [(number, inner) for inner in folder.glob("epoch_*") if (number := _epoch(inner)) is not None]
        for number, inner in sorted(numbered, reverse=True):
            network = _network(inner, name, "_network.pt")
            if network is not None:
                place, epoch = inner, number
                break
    trained = network is not None
    if network is None:
        network = _network(folder, name, "_untrained_network.pt")
    configs = [p for p in (place / "config.yaml", folder / "config.yaml", folder.parent / "config.yaml") if p.is_file()]
    if not configs:
        raise FileNotFoundError(f"{folder} has no config.yaml; give a result folder of fastAndDeep, or a YAML file")
    prefix = network.name.removesuffix("_network.pt") if trained and network else name

    def present(ends: dict[str, str]) -> dict[str, Path]:
        return {key: path for key, end in ends.items() if (path := place / f"{prefix}{end}").is_file()}

    return Found(configs[0], network, trained, epoch, present(_TEST), present(_CURVES))


def load_numbers(path: Path) -> np.ndarray | str:
    """Numbers of an ``.npy`` file, never a pickled object; in words, why it cannot be read."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        return f"{path.name} cannot be read: {error}"
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        return f"{path.name} holds no numbers"
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _epoch(folder: Path) -> int | None:
    match = re.fullmatch(r"epoch_(\d+)", folder.resolve().name)
    return int(match[1]) if match else None


def _network(folder: Path, name: str | None, end: str) -> Path | None:
    found = sorted(folder.glob(f"*{end}"))
    if end == "_network.pt":
        found = [path for path in found if not path.name.endswith("_untrained_network.pt")]
    named = [path for path in found if path.name == f"{name}{end}"]
    if len(found) > 1 and not named:
        raise ValueError(f"{folder} has several networks: {', '.join(path.name for path in found)}; keep one")
    return next(iter(named or found), None)
