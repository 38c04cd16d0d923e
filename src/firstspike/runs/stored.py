"""A copy of a run's data, for small data of your own."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from firstspike.config import Config, ConfigError, build_data
from firstspike.data import EventLists, SpikeData, Splits
from firstspike.data.series_encoding import as_encoder
from firstspike.runs.files import whole_file, whole_folder
from firstspike.text import first_line

OWN_DATA = ("given", "files")
"""The kinds of data of which a run may have a copy."""


def save_splits(folder: Path, data: Splits) -> None:
    """Write the training data and the splits that have samples as ``.npz`` files, all or none.

    Beside files of others, which stay, each is whole for itself.
    """
    own = {f"{name}.npz" for name in Splits._fields}
    shared = folder.is_dir() and not own.issuperset(path.name for path in folder.iterdir())
    with nullcontext(folder) if shared else whole_folder(folder) as target:
        for name, part in zip(Splits._fields, data, strict=True):
            if not len(part) and name != "train":
                (target / f"{name}.npz").unlink(missing_ok=True)
                continue
            times: Any = part.times
            tensors = {"times": times, "labels": part.labels}
            if isinstance(times, EventLists):
                tensors |= {"times": times.when, "source": times.source, "starts": times.starts}
            arrays: dict[str, Any] = {key: tensor.cpu().numpy() for key, tensor in tensors.items()}
            arrays["class_names"] = np.array(part.class_names)
            if isinstance(times, EventLists):
                arrays["inputs"] = np.array(times.inputs)
            if part.image is not None:
                arrays |= {"image": np.array(part.image), "blank": np.array(part.blank or (np.inf,) * part.image[0])}
            if part.encoder is not None:
                arrays["encoder"] = np.array(json.dumps(part.encoder.to_dict()))
            if part.columns:
                arrays["columns"] = np.array(part.columns)
            with whole_file(target / f"{name}.npz") as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)


def copy_of_data(run: Path) -> Path | None:
    """The copy of a run's data, for a seed's run in that of all seeds; None if there is none."""
    places, whole = [run / "data"], run.resolve().parent
    if run.resolve().name.startswith("seed_") and (whole / "config.yaml").is_file():
        places.append(whole / "data")
    return next((place for place in places if (place / "train.npz").is_file()), None)


def splits_of(run: Path, config: Config) -> Splits:
    """The data of a run, on the CPU: the folder's copy, otherwise those that the config describes."""
    if config.data.kind in OWN_DATA and (stored := copy_of_data(run)) is not None:
        return load_splits(stored)
    if config.data.kind == "given":
        problem = "data: they were made in Python and the folder has no copy; hand them over: fs.Run(folder, data=...)"
        raise ConfigError(str(run / "config.yaml"), [problem])
    return build_data(config.with_training(device="cpu"))


def load_splits(folder: Path) -> Splits:
    """The data that ``save_splits`` wrote; a ValueError for a damaged file."""
    train, *held = (folder / f"{name}.npz" for name in Splits._fields)
    data = _load(train)
    return Splits(data, *(_load(path) if path.is_file() else data.empty() for path in held))


def _load(path: Path) -> SpikeData:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            image = tuple(map(int, arrays["image"])) if "image" in arrays else None
            blank = tuple(map(float, arrays["blank"])) if "blank" in arrays else None
            encoder = as_encoder(json.loads(str(arrays["encoder"]))) if "encoder" in arrays else None
            names = tuple(str(name) for name in arrays["class_names"])
            columns = tuple(map(str, arrays["columns"])) if "columns" in arrays else ()
            times, labels = (torch.from_numpy(arrays[name]) for name in ("times", "labels"))
            if "source" in arrays:
                source, starts = (torch.from_numpy(arrays[name]) for name in ("source", "starts"))
                return SpikeData(EventLists(times, source, starts, int(arrays["inputs"])), labels, names)
            return SpikeData(times, labels, names, image, blank, encoder, columns)  # type: ignore[arg-type]
    except Exception as error:  # the parsers of numpy and zipfile raise many kinds of errors for damaged files
        raise ValueError(f"{path} is damaged: {first_line(error)}") from None
