"""The lock of a run: one process at a time trains it.

The operating system locks the file ``RUN/.lock`` for a process that trains the run, and drops the lock when the process
ends, however that happens. ``RUN/.lock.json`` names that process. One that a crash left does not block others.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from firstspike.runs.files import remove_empty, with_file_name

LOCK, HOLDER = ".lock", ".lock.json"


class RunLockedError(OSError):
    """Another process trains the run. The message names it."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep all others, also threads of this process, from training the run in this folder.

    A folder that is not there is made, and removed if it is still empty in the end.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]  # innermost first
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            raise RunLockedError(f"{folder} is being trained by {_holder(folder)}") from None
        with held:
            try:
                since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
                holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
                with with_file_name(folder / HOLDER):
                    (folder / HOLDER).write_text(json.dumps(holder), encoding="utf-8")
                yield
            finally:
                with suppress(OSError):  # the folder is gone, or read-only
                    (folder / HOLDER).unlink()
        if made and [path.name for path in folder.glob("*")] == [LOCK]:
            (folder / LOCK).unlink()
    finally:
        remove_empty(made)


def _holder(folder: Path) -> str:
    """Who trains the run, for a message."""
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
