"""Files and folders that are there whole or not at all."""

import csv
import errno
import io
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives the path of a temporary file to write. It takes the place of ``path`` at the end, if nothing failed."""
    temporary = path.with_name(f".{path.name}.{token_hex(4)}.partial")  # others may write the same file
    try:
        with with_file_name(path):
            if path.exists() and not path.is_file():  # such as /dev/null, whose place root may take
                raise OSError(errno.EINVAL, "expected a file, or nothing yet")
            yield temporary
            flush_to_disk(temporary)
            temporary.replace(path)
    finally:
        with suppress(OSError):  # if nothing can be written nothing is left over. The first error is raised
            temporary.unlink(missing_ok=True)


def read_regular(path: Path) -> bytes:
    """The content of a file; an OSError for one that is none, such as a pipe, which may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "expected a regular file", str(path))
    return path.read_bytes()


def write_whole(path: Path, text: str, source: Path | None = None) -> None:
    """Write a text file whole or not at all; a FileExistsError if it is the ``source`` that was read."""
    if source is not None and path.exists() and path.samefile(source):
        raise FileExistsError(f"{path} is the file that is read; choose another --out")
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder to fill. It takes the place of ``path``, and of all in it, if nothing failed."""
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with with_file_name(path):
            temporary.mkdir(parents=True)
            yield temporary
            for entry in (*temporary.iterdir(), temporary):
                flush_to_disk(entry)
            remove_folder(path)
            temporary.rename(path)
            flush_to_disk(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_folder(path: Path) -> None:
    """Remove a folder, if there is one, so that no half of it is ever seen under its name."""
    if path.exists():
        leaving = path.with_name(f".{path.name}.leaving")
        shutil.rmtree(leaving, ignore_errors=True)
        path.rename(leaving)
        shutil.rmtree(leaving, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Remove the remains of processes that were killed while they wrote to, or removed from, a folder."""
    for ending in ("partial", "leaving"):
        for path in parent.glob(f".*.{ending}"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


@contextmanager
def with_file_name(path: Path) -> Iterator[None]:
    """Errors of the system inside have the name of the file: writing to a full disk raises one without."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror or "", str(path)) from error


def flush_to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk. On systems that cannot flush folders, only files are flushed."""
    folder, windows = path.is_dir(), sys.platform == "win32"
    if folder and windows:  # it does not even open them
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)  # Windows flushes only files opened for writing
    try:
        os.fsync(handle)
    except OSError as error:
        if not (folder and error.errno == errno.EINVAL):  # some network file systems flush no folders either
            raise
    finally:
        os.close(handle)


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, in this order, as long as there is nothing in them."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
