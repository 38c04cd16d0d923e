"""Compiled kernels on disk: numba keeps them, and here those are dropped that it would not, or could not read."""

import contextlib
import logging
import pickle
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

from firstspike.spiketime.cpu.pack import tiles_of

logger = logging.getLogger(__name__)

Kernel = Callable[[Any], None]


def kept_on_disk(make: Callable[..., Kernel]) -> Callable[..., Kernel]:
    """Make each kernel once. One whose file on disk cannot be read is compiled as if there were none."""

    @lru_cache(maxsize=8)
    @wraps(make)
    def kernel(*kind: Any) -> Kernel:
        try:
            return make(*kind)
        except Exception:
            damaged = [path for path in _files() if not _readable(path)]
            if not damaged:
                raise
            _drop(damaged)
            logger.warning("dropped what cannot be read of the compiled kernels in %s", damaged[0].parent)
            return make(*kind)

    return kernel


def drop_outdated() -> None:
    """Drop kernels older than any of the sources here: numba only looks at the file that a kernel is written in."""
    newest = max(path.stat().st_mtime for path in Path(__file__).parent.glob("*.py"))
    for path in _files():
        with contextlib.suppress(OSError):  # another process was faster
            if path.stat().st_mtime < newest:
                _drop([path])


def _files() -> list[Path]:
    folder = tiles_of.stats.cache_path
    return list(Path(folder).glob("*.nb[ci]")) if folder else []


def _readable(path: Path) -> bool:
    """Whether numba could read its index, which begins with its version, or a kernel."""
    try:
        with path.open("rb") as file:
            content = pickle.load(file)
            return isinstance(pickle.load(file)[1], dict) if path.suffix == ".nbi" else isinstance(content, tuple)
    except Exception:
        return False


def _drop(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # another process was faster, or the folder is read-only
            path.unlink()
