"""The lock of a run: one process at a time trains it.

``RUN/.lock`` is there while a process trains the run, and names that process. The operating system holds a lock on the
file and drops it when the process ends, however that happens, so that a file left behind by a crash is in nobody's way.
A file system may lack such locks, or keep them within one machine. Then the name decides: a process that still runs on
this machine, recognised by its number and the time of its start, or any on another machine.
"""

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter

from firstspike.runs.files import remove_empty

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"
_BEHIND = 1 << 30  # Windows locks bytes, and nobody else can read these: one far behind the content
_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)


class RunLockedError(OSError):
    """Another process trains the run; the message names it."""


@dataclass(frozen=True)
class Holder:
    """Who trains a run.

    Args:
        host: name of the machine.
        pid: number of the process.
        started: start of the process, in a form that only serves to tell it from another one of the same number; empty
            where the system does not say.
        since: date and time from which it has the lock.
    """

    host: str
    pid: int
    started: str
    since: str

    def runs_here(self) -> bool:
        """Whether the process runs on this machine; False for another process that has its number by now."""
        return self.host == socket.gethostname() and process_started(self.pid) == self.started


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep all others from training the run in this folder.

    A folder that is not there is made, and removed if it is still empty in the end.

    Raises:
        RunLockedError: another process trains the run, or another thread of this one.
        OSError: the folder or the lock cannot be written.
    """
    made = _make(folder)
    path = folder / LOCK
    try:
        handle = _acquire(path)
        try:
            yield
        finally:
            _release(handle, path)
    finally:
        remove_empty(made)


def _make(folder: Path) -> list[Path]:
    """Make a folder where there is none; what was made, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return []
    return missing


def _acquire(path: Path) -> int:
    """An open, locked file of that name, with this process in it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            taken = _lock(handle)
            holder = _read(handle)
            if taken is False or (holder is not None and _in_the_way(holder, taken is True)):
                raise RunLockedError(_message(path, holder, certain=taken is False))
            if _is_at(handle, path):  # its last holder may have removed it just before
                content = json.dumps(asdict(_self())).encode()
                os.ftruncate(handle, 0)
                os.lseek(handle, 0, os.SEEK_SET)
                os.write(handle, content)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _release(handle: int, path: Path) -> None:
    """Remove the file of a lock, and close it; Windows removes no open files."""
    if sys.platform == "win32":
        os.close(handle)
        with suppress(OSError):  # somebody else opened it
            path.unlink()
    else:
        with suppress(OSError):  # the folder is gone, or read-only: then a name is left, of a process that has ended
            if _is_at(handle, path):
                path.unlink()
        os.close(handle)


def _lock(handle: int) -> bool | None:
    """Lock an open file: whether it is this process's now, or None where the file system has no locks."""
    try:
        if sys.platform == "win32":
            os.lseek(handle, _BEHIND, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD else None
    return True


def _in_the_way(holder: Holder, locks: bool) -> bool:
    """Whether the process that a lock names may still train, where the system does not say that it does.

    Args:
        holder: the process.
        locks: whether the file system has locks; one of this machine would then be seen.
    """
    if holder.host != socket.gethostname():
        return True
    return not locks and holder.runs_here()


def _message(path: Path, holder: Holder | None, certain: bool) -> str:
    if holder is None:
        return f"{path.parent} is being trained by another process"
    text = f"{path.parent} is being trained by process {holder.pid} on {holder.host}, since {holder.since}"
    return text if certain or holder.runs_here() else f"{text}; if that process has ended, remove {path}"


def _read(handle: int) -> Holder | None:
    """Who a lock names; None where it names nobody, or half a name that a crash left."""
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        return TypeAdapter(Holder).validate_json(os.read(handle, 4096), strict=True)
    except (OSError, ValueError):
        return None


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _self() -> Holder:
    since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    return Holder(socket.gethostname(), os.getpid(), process_started(os.getpid()) or "", since)


def process_started(pid: int) -> str | None:
    """Start of a process of this machine, see ``Holder``; None if there is no such process, or nobody says."""
    if Path("/proc/self/stat").exists():
        try:
            return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
        except (OSError, IndexError):
            return None
    try:
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=os.environ | {"LC_ALL": "C"})
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
