"""A copy of a run's data, for small data of your own."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from firstspike.data import EventLists, SpikeData, Splits
from firstspike.data.splits import as_encoder
from firstspike.runs.files import whole_file


def save_splits(folder: Path, data: Splits) -> None:
    """Write the splits that have samples as ``.npz`` files, which are read without executing anything.

    Raises:
        OSError: no space, no permission.
    """
    folder.mkdir(exist_ok=True)
    for name, part in zip(Splits._fields, data, strict=True):
        if len(part):
            arrays: dict[str, Any] = {
                **_times(part),
                "labels": part.labels.cpu().numpy(),
                "class_names": np.array(part.class_names),
            }
            if part.image is not None:
                arrays |= {"image": np.array(part.image), "blank": np.array(part.blank or (np.inf,) * part.image[0])}
            if part.encoder is not None:
                arrays["encoder"] = np.array(json.dumps(part.encoder.to_dict()))
            if part.columns:
                arrays["columns"] = np.array(part.columns)
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)
            with whole_file(folder / f"{name}.npz") as temporary:
                temporary.write_bytes(buffer.getbuffer())


def _times(part: SpikeData) -> dict[str, Any]:
    """Arrays of the times, or of events."""
    times = part.times
    if not isinstance(times, EventLists):
        return {"times": times.cpu().numpy()}
    lists = {"times": times.when, "source": times.source, "starts": times.starts}
    return {name: tensor.cpu().numpy() for name, tensor in lists.items()} | {"inputs": np.array(times.inputs)}


def load_splits(folder: Path) -> Splits | None:
    """The data that ``save_splits`` wrote; None where there are none.

    Raises:
        ValueError: a file is damaged.
    """
    train, *held = (_load(path) if path.is_file() else None for path in (folder / f"{x}.npz" for x in Splits._fields))
    return None if train is None else Splits(train, *(train.empty() if part is None else part for part in held))


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
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
