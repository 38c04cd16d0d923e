"""Where the files of data sets are, and their names in errors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def folder_of(given: str | Path | None, name: str = "") -> Path:
    """The folder that was given; by default the one of that name in the user's cache, or the cache itself."""
    if given is not None:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "firstspike" / name


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """A ValueError inside names the file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
