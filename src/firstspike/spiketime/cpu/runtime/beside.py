"""Two kernels at once: while this process compiles one, a second compiles the one that is needed next.

Most of compiling is Python, which works in one thread at a time, so it takes a process. It only fills the cache, from
which this process reads. Where it fails, this process finds nothing there and compiles by itself. This file is the
second process's program, too. It loads the kernels alone, as torch takes as long to load as a small kernel to compile.
"""

import importlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)

_LONGEST = 60  # seconds that the second process may take
_started: dict[tuple[Any, ...], Thread] = {}


def start(kernel: str, kind: tuple[Any, ...], cache: Path) -> None:
    """Compile ``kernel``, a function named with its module, into the cache below the folder, if a core is free."""
    if (kernel, kind) not in _started and has_free_core():
        _started[kernel, kind] = Thread(target=_compile_there, args=(kernel, kind, cache), daemon=True)
        _started[kernel, kind].start()


def wait(kernel: str, kind: tuple[Any, ...]) -> None:
    """Until the second process has compiled that kernel, if it was asked to."""
    thread = _started.pop((kernel, kind), None)
    if thread is not None:
        thread.join()


def has_free_core() -> bool:
    """Whether a second process has a core for itself, so far as can be told, and a Python to run."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # in the last minute, with this process
    alone = os.environ.get("LOCAL_WORLD_SIZE", "1") == "1"  # the processes of torchrun compile at the same time
    python = not getattr(sys, "frozen", False) and Path(sys.executable or "").name.lower().startswith("python")
    return alone and python and cores > 1 and busy < cores


def _compile_there(kernel: str, kind: tuple[Any, ...], cache: Path) -> None:
    """Run the second process. It knows nothing of this one's main program."""
    paths = [*(path for path in sys.path if path), str(Path(__file__).parents[4])]
    try:
        subprocess.run(
            [sys.executable, __file__, kernel, json.dumps(kind)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "NUMBA_CACHE_DIR": str(cache)},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0), timeout=_LONGEST, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        logger.info("no second process for %s: %s", kernel, error)


def _compile_here(kernel: str, kind: list[Any]) -> None:
    """The second process: compile a kernel without loading the packages around it."""
    folder = Path(__file__).parents[1]
    for path in (folder.parent, folder):
        package = ModuleType(".".join(("firstspike", *path.relative_to(folder.parents[1]).parts)))
        package.__path__ = [str(path)]
        sys.modules[package.__name__] = package
    module, _, name = kernel.rpartition(".")
    getattr(importlib.import_module(module), name)(*kind)


if __name__ == "__main__":
    sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]
    _compile_here(sys.argv[1], json.loads(sys.argv[2]))
