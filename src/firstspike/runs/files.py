"""Files that are there whole or not at all."""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives the path of a temporary file to write; it takes the place of ``path`` at the end, if nothing failed.

    Raises:
        OSError: no space, no permission; it names the file, and what was there before is still there.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        raise named(error, path) from error
    finally:
        with suppress(OSError):  # where nothing can be written nothing can be left over; the first error counts
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def named(error: OSError, path: Path) -> OSError:
    """The same error with the name of the file: writing to a full disk raises one without."""
    if error.errno is None:
        return error
    return type(error)(error.errno, error.strerror or "", str(path))


def flush_to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk. Where the system cannot flush folders, only files are."""
    folder, windows = path.is_dir(), sys.platform == "win32"
    if folder and windows:  # it does not even open them
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)  # there it flushes what may be written to
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
