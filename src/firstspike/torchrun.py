"""The place of this process among those that ``torchrun`` started, from its environment. Needs no torch."""

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_WAIT = 10.0  # seconds that the first process has to report an error that all have


class ProcessLostError(OSError):
    """Another process of the training ended, or did not answer."""


def processes() -> int:
    """Number of processes that work together; 1 without ``torchrun``."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _NEEDED) else 1


def rank() -> int:
    """Number of this process among them. The first one, 0, writes and prints."""
    return int(os.environ["RANK"]) if processes() > 1 else 0


def local_rank() -> int:
    """Number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", rank()))


def check_command(name: str | None) -> None:
    """Raise a ValueError for a command that processes cannot share, if there are several."""
    if processes() > 1 and name not in ("train", "resume"):
        raise ValueError(f"firstspike {name} is for one process: start it without torchrun")


@contextmanager
def only_first_reports() -> Iterator[None]:
    """Inside, the output of processes other than the first is held back.

    An error that all have is thus reported once. One that the first process does not have is printed after a while:
    ``torchrun`` would have ended this process if the first had failed.
    """
    if not rank():
        yield
        return
    held = io.StringIO()
    try:
        with redirect_stdout(held), redirect_stderr(held):
            yield
    except ProcessLostError:  # the first reports it, or is itself lost
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseException as error:
        if not (isinstance(error, SystemExit) and error.code in (None, 0, 130)):
            time.sleep(_WAIT)
            sys.stderr.write(f"process {rank()} of {processes()}:\n{held.getvalue()}")
        raise
