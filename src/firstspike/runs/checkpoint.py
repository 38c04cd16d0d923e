"""Checkpoints: whole or not at all, and readable without executing anything.

A checkpoint is a folder with the weights (safetensors), the training's state (tensors and plain values, read with
``weights_only=True``) and a manifest with a checksum of each file. It is written next to its place under another name,
flushed to disk and renamed, so that a crash at any moment leaves the old ones untouched.
"""

import difflib
import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from firstspike.runs.files import read_regular, remove_folder, whole_folder
from firstspike.runs.forms import Manifest, read_json
from firstspike.text import first_line
from firstspike.training.state import CheckpointError

logger = logging.getLogger(__name__)

_MADE = re.compile(r"(epoch|best)_\d+(_batch_\d+)?")  # names that a training gives. Copies may have others
_WEIGHTS, _STATE, _MANIFEST = "weights.safetensors", "state.pt", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """Weights and state of a training after ``epoch`` whole epochs and ``batch`` batches of the next.

    ``folder`` is the one that it was read from.
    """

    epoch: int
    batch: int
    weights: dict[str, Tensor]
    state: dict[str, Any]
    folder: Path = Path()

    @property
    def name(self) -> str:
        """Name of the folder; empty if there is none."""
        return self.folder.name


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint. One of the same name is replaced.

    Raises:
        OSError: no space or no permission. Earlier files are unchanged.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in checkpoint.weights.items()}
    state = io.BytesIO()  # on a full disk the libraries' own writing raises misleading errors
    torch.save(checkpoint.state, state)
    content = {_WEIGHTS: save(weights), _STATE: state.getvalue()}
    manifest = {
        "format": 1,
        "epoch": checkpoint.epoch,
        "batch": checkpoint.batch,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in content.items()},
    }
    with whole_folder(folder) as temporary:
        for name, data in content.items():
            (temporary / name).write_bytes(data)
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, to the CPU, and check it against its manifest.

    Raises:
        CheckpointError: files that are missing, changed, or of a format that is unknown to this version.
    """
    try:
        manifest = read_json(folder / _MANIFEST, Manifest)
        content = {name: read_regular(folder / name) for name in (_WEIGHTS, _STATE)}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: cannot be read: {first_line(error)}") from None
    for name, data in content.items():
        if hashlib.sha256(data).hexdigest() != manifest["sha256"].get(name):
            raise CheckpointError(f"{folder}: {name} is damaged, its checksum differs from the manifest's")
    name = _WEIGHTS
    try:
        weights = load(content[name])
        name = _STATE
        state = torch.load(io.BytesIO(content[name]), map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise ValueError(f"expected a mapping of names, it holds a {type(state).__name__}")
    except Exception as error:  # torch reports a refused pickle with an exception of the pickle module
        raise CheckpointError(f"{folder}: {name} is refused: {first_line(error)}") from None
    return Checkpoint(manifest["epoch"], manifest["batch"], weights, state, folder)


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint in a folder that can be read. Damaged ones are reported (logging) and passed over.

    Raises:
        CheckpointError: there are some, and none of them can be read.
    """
    found = newest_of_all([folder])
    return None if found is None else found[0]


def newest_of_all(folders: Sequence[Path]) -> list[Checkpoint] | None:
    """The newest regular checkpoints in the folders of several runs. Damaged ones are reported (logging).

    None before the first of them. Several runs are saved one after the other, so the last save may be
    there without the rest. A CheckpointError if none can be read, or none is in all of the runs.
    """
    names = [[path.name for path in newest_first(folder) if path.name.startswith("epoch_")] for folder in folders]
    common = [name for name in names[0] if all(name in others for others in names)]
    if not common and len({name for found in names for name in found}) > 1:
        has = (f"{folder.parent.name} {(*found, 'none')[0]}" for folder, found in zip(folders, names, strict=True))
        raise CheckpointError(
            f"{folders[0].parents[1]}: no checkpoints of the same moment; the newest are {', '.join(has)}"
        )
    errors: list[CheckpointError] = []
    for name in common:
        try:
            loaded = [load_checkpoint(folder / name) for folder in folders]
        except CheckpointError as error:
            errors.append(error)
            continue
        for damage in errors:
            logger.warning("%s; taking %s", damage, name)
        return loaded
    if errors:
        rest = f" ({len(errors) - 1} more cannot be read either)" if len(errors) > 1 else ""
        raise CheckpointError(f"{errors[0]}{rest}")
    return None


def find_checkpoint(folder: Path, name: str) -> Path:
    """The checkpoint of a name in a folder, or a CheckpointError. ``best`` is that of the best validation accuracy."""
    known = {path.name: path for path in newest_first(folder)}
    if best := next((path for path in known.values() if path.name.startswith("best_")), None):
        known.setdefault("best", best)
    if name in known:
        return known[name]
    if near := difflib.get_close_matches(name, known, 1):
        raise CheckpointError(f"{folder} has no {name!r}; did you mean {near[0]}?")
    few = [*list(known)[:4], *(["..."] if len(known) > 4 else [])]
    raise CheckpointError(f"{folder} has no {name!r}; it has {', '.join(few) or 'nothing yet'}")


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder that look complete, oldest first."""
    found = []
    for path in newest_first(folder):
        with suppress(OSError, ValueError):
            manifest = read_json(path / _MANIFEST, Manifest)
            found.append((manifest["epoch"], manifest["batch"], path.name, path))
    return [path for *_, path in sorted(found)]


def place_of(folder: Path, checkpoint: Checkpoint, mark: str = "") -> Path:
    """The folder of a checkpoint: inside an epoch or after one, or with a mark such as ``best_``."""
    inside = f"_batch_{checkpoint.batch:05d}" if checkpoint.batch else ""
    return folder / f"{mark or 'epoch_'}{checkpoint.epoch:04d}{inside}"


def remove_others(folder: Path, mark: str = "", kept: Path | None = None) -> None:
    """Remove the training's checkpoints whose names have the mark, but for one. Copies under other names stay."""
    for path in newest_first(folder):
        if mark in path.name and _MADE.fullmatch(path.name) and path != kept:
            remove_folder(path)


def newest_first(folder: Path) -> list[Path]:
    """All folders that may be checkpoints, torn ones included: the regular ones, then the best, newest names first."""
    try:
        entries = sorted(os.listdir(folder))
    except FileNotFoundError:
        entries = []
    found = [folder / entry for entry in entries if not entry.startswith(".") and (folder / entry).is_dir()]

    def order(path: Path) -> tuple[bool, list[int]]:
        return path.name.startswith("epoch_"), [int(part) for part in path.name.split("_") if part.isdecimal()]

    return sorted(found, key=order, reverse=True)
