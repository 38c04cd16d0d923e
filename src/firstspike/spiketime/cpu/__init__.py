"""Numba kernels for the CPU; the contract is ``backend``'s. Importing compiles nothing, the first call does.

Compiled kernels are kept in ``__pycache__``. Numba looks only at the file a kernel is written in, not at what it calls
in others, so that kernels older than any of the sources here are dropped.
"""

import contextlib
from pathlib import Path

from firstspike.spiketime.cpu.single_host import backward, forward

__all__ = ["backward", "forward"]


def _drop_outdated(folder: Path) -> None:
    newest = max(path.stat().st_mtime for path in folder.glob("*.py"))
    for kernel in (folder / "__pycache__").glob("*.nb[ci]"):
        with contextlib.suppress(OSError):  # another process was faster, or the folder is read-only
            if kernel.stat().st_mtime < newest:
                kernel.unlink()


_drop_outdated(Path(__file__).parent)
