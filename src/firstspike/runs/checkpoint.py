"""Checkpoints: whole or not at all, and readable without executing anything.

A checkpoint is a folder with the weights (safetensors), the training's state (tensors and plain values, read with
``weights_only=True``) and a manifest with a checksum of each file. It is written beside its place under another name,
flushed to disk and renamed, so that a crash at any moment leaves the old ones untouched.
"""

import difflib
import hashlib
import io
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from firstspike.runs.files import flush_to_disk, named

logger = logging.getLogger(__name__)

FORMAT = 1
_WEIGHTS, _STATE, _MANIFEST = "weights.safetensors", "state.pt", "manifest.json"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights and state of a training after ``epoch`` whole epochs and ``batch`` batches of the next.

    ``name`` is that of the folder it was read from.
    """

    epoch: int
    batch: int
    weights: dict[str, Tensor]
    state: dict[str, Any]
    name: str = ""


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; one of the same name is replaced.

    Raises:
        OSError: no space or no permission; what was there before is still there.
    """
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    state = io.BytesIO()  # on a full disk the libraries' own writing raises what says nothing of it
    torch.save(checkpoint.state, state)
    try:
        temporary.mkdir(parents=True)
        weights = {key: value.detach().cpu().contiguous() for key, value in checkpoint.weights.items()}
        (temporary / _WEIGHTS).write_bytes(save(weights))
        (temporary / _STATE).write_bytes(state.getbuffer())
        manifest = {
            "format": FORMAT,
            "epoch": checkpoint.epoch,
            "batch": checkpoint.batch,
            "sha256": {name: _digest(temporary / name) for name in (_WEIGHTS, _STATE)},
        }
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            flush_to_disk(path)
        remove_checkpoint(folder)
        temporary.rename(folder)
        flush_to_disk(folder.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise named(error, folder) from error
        raise


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, to the CPU, and check it against its manifest.

    Raises:
        CheckpointError: files that are missing, changed, or of a format that this version does not know.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise CheckpointError(f"{folder}: has format {manifest['format']}, this version reads {FORMAT}")
        for name in (_WEIGHTS, _STATE):
            if _digest(folder / name) != manifest["sha256"][name]:
                raise CheckpointError(f"{folder}: {name} is damaged, its checksum differs from the manifest's")
        weights = load_file(folder / _WEIGHTS)
        state = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
        return Checkpoint(int(manifest["epoch"]), int(manifest["batch"]), weights, state, folder.name)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}") from None
    except Exception as error:  # torch reports a refused pickle with an exception of the pickle module
        raise CheckpointError(f"{folder}: {_STATE} is refused: {str(error).splitlines()[0]}") from None


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint in a folder that can be read; damaged ones are reported (logging) and passed over."""
    return load_first(newest_first(folder))


def load_first(paths: Iterable[Path]) -> Checkpoint | None:
    """The first of these that can be read; damaged ones are reported (logging) and passed over."""
    for path in paths:
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            logger.warning("%s; trying the one before", error)
    return None


def find_checkpoint(folder: Path, name: str) -> Path:
    """The checkpoint of a name in a folder; ``best`` is the one of the best validation accuracy.

    Raises:
        CheckpointError: there is none of that name.
    """
    known = {path.name: path for path in newest_first(folder)}
    for path in list(known.values()):
        if path.name.startswith("best_"):
            known.setdefault("best", path)
    if name in known:
        return known[name]
    near = [key for key in known if _plain(key) == _plain(name)] or difflib.get_close_matches(name, known, 3)
    if near:
        raise CheckpointError(f"{folder} has no {name!r}; did you mean {' or '.join(near)}?")
    few = [*list(known)[:4], *(["..."] if len(known) > 4 else [])]
    raise CheckpointError(f"{folder} has no {name!r}; it has {', '.join(few) or 'nothing yet'}")


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint, if there is one, so that no half of it is ever seen under its name."""
    if folder.exists():
        leaving = folder.with_name(f".{folder.name}.leaving")
        shutil.rmtree(leaving, ignore_errors=True)
        folder.rename(leaving)
        shutil.rmtree(leaving, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder that look complete, oldest first."""
    found = []
    for path in folder.glob("*") if folder.is_dir() else ():
        try:
            manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
            found.append((int(manifest["epoch"]), int(manifest["batch"]), path.name, path))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return [path for *_, path in sorted(found)]


def newest_of_all(folders: Sequence[Path]) -> list[Checkpoint] | None:
    """The newest checkpoints of the same moment in all folders, or None; damaged ones are reported (logging)."""
    found = [_by_moment(folder) for folder in folders]
    for moment in sorted(set(found[0]).intersection(*found[1:]), reverse=True):
        loaded = [load_first(paths[moment]) for paths in found]
        whole = [checkpoint for checkpoint in loaded if checkpoint is not None]
        if len(whole) == len(folders):
            return whole
    return None


def _by_moment(folder: Path) -> dict[tuple[int, ...], list[Path]]:
    """Folders that may be checkpoints, by the numbers in their names: epoch, and batch if there is one."""
    found: dict[tuple[int, ...], list[Path]] = {}
    for path in newest_first(folder):
        found.setdefault(tuple(int(n) for n in path.name.split("_") if n.isdigit()), []).append(path)
    return found


def place_of(folder: Path, checkpoint: Checkpoint, mark: str = "") -> Path:
    """Where a checkpoint is saved: inside an epoch or after one, or with a mark such as ``best_``."""
    inside = f"_batch_{checkpoint.batch:05d}" if checkpoint.batch else ""
    return folder / f"{mark or 'epoch_'}{checkpoint.epoch:04d}{inside}"


def keep_only(place: Path, mark: str) -> None:
    """Remove the other checkpoints whose names have the mark."""
    for path in checkpoints(place.parent):
        if mark in path.name and path != place:
            remove_checkpoint(path)


def newest_first(folder: Path) -> Iterator[Path]:
    """All folders that may be checkpoints, torn ones included, newest first by their names; regular before best."""
    named = [path for path in folder.glob("[!.]*") if path.is_dir()] if folder.is_dir() else []

    def moment(path: Path) -> tuple[list[int], bool]:
        return [int(n) for n in path.name.split("_") if n.isdigit()], path.name.startswith("epoch")

    yield from sorted(named, key=moment, reverse=True)


def _plain(name: str) -> list[str]:
    """The parts of a checkpoint's name, numbers without leading zeros."""
    return [str(int(part)) if part.isdecimal() else part for part in name.split("_")]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
