"""Where the files of data sets are, and their names in errors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def folder_of(given: str | Path | None, name: str = "") -> Path:
    """The folder that was given; by default the one of that name in the user's cache, or the cache itself."""
    try:
        if given is not None:
            return Path(given).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "firstspike" / name
    except RuntimeError:  # the user, or another one in ~name, has no home
        what = f"{given}: there is no such home folder" if given is not None else "the user has no home folder"
        raise FileNotFoundError(f"{what}; set the folder of the data, or XDG_CACHE_HOME") from None


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """A ValueError inside names the file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
