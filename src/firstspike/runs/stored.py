"""A copy of a run's data, for small data of your own."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from firstspike.data import LatencyEncoder, SpikeData, Splits
from firstspike.runs.files import whole_file


def save_splits(folder: Path, data: Splits) -> None:
    """Write the splits that have samples into a folder.

    Raises:
        OSError: no space, no permission.
    """
    folder.mkdir(exist_ok=True)
    for name, part in zip(Splits._fields, data, strict=True):
        if len(part):
            save_data(folder / f"{name}.npz", part)


def save_data(path: Path, data: SpikeData) -> None:
    """Write labelled spike times as an ``.npz`` file, which is read without executing anything."""
    arrays: dict[str, Any] = {
        "times": data.times.cpu().numpy(),
        "labels": data.labels.cpu().numpy(),
        "class_names": np.array(data.class_names),
    }
    if data.image is not None:
        arrays |= {"image": np.array(data.image), "blank": np.array(data.blank or (np.inf,) * data.image[0])}
    if data.encoder is not None:
        arrays["encoder"] = np.array(json.dumps(data.encoder.to_dict()))
    with whole_file(path) as temporary:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        temporary.write_bytes(buffer.getbuffer())


def load_data(path: Path) -> SpikeData | None:
    """The data that ``save_data`` wrote; None where there is no such file.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            image = tuple(map(int, arrays["image"])) if "image" in arrays else None
            blank = tuple(map(float, arrays["blank"])) if "blank" in arrays else None
            encoder = LatencyEncoder.from_dict(json.loads(str(arrays["encoder"]))) if "encoder" in arrays else None
            names = tuple(str(name) for name in arrays["class_names"])
            times, labels = (torch.from_numpy(arrays[name]) for name in ("times", "labels"))
            return SpikeData(times, labels, names, image, blank, encoder)  # type: ignore[arg-type]
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
