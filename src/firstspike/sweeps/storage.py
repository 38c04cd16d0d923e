"""Where studies are kept: an SQLite file, Optuna's journal on a shared file system, or a database server."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url

_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_SQLITE, _JOURNAL = "sqlite:///", "journal:"
_SUFFIXES = {".db": _SQLITE, ".sqlite": _SQLITE, ".sqlite3": _SQLITE, ".log": _JOURNAL, ".journal": _JOURNAL}
_LOCK_TIMEOUT = 60  # seconds

UNREACHABLE = (StorageInternalError, OSError)
"""Errors of a storage that is out of reach: a database's, and the file system's for a journal."""


def open_storage(where: str) -> BaseStorage:
    """A storage by its URL: ``sqlite:///FILE``, ``journal:FILE``, ``postgresql://...``, ``mysql://...``, or a file.

    Files that end in ``.db`` or ``.sqlite`` are SQLite, in ``.log`` or ``.journal`` a journal.

    Raises:
        ValueError: an invalid URL.
        ImportError: the driver of a database is not installed.
        ConnectionError: the database does not answer.
    """
    url = storage_url(where)
    if (file := file_of(url)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        if url.startswith(_JOURNAL):
            return JournalStorage(JournalFileBackend(str(file)))
    kind = url.partition(":")[0].partition("+")[0]
    attempts = 0
    while True:
        attempts += 1
        try:
            return _sqlite(str(file)) if file is not None else RDBStorage(url, {"pool_pre_ping": True})
        except ImportError as error:
            raise ImportError(f'the {kind} driver is missing. Install it: pip install "firstspike[{kind}]"') from error
        except sqlalchemy.exc.SQLAlchemyError as error:
            if attempts == 3:
                raise ConnectionError(f"{without_password(url)}: {cause(error)}") from error
            time.sleep(0.5)  # another process may have created the tables at the same moment


def _sqlite(file: str) -> RDBStorage:
    """A file as a storage, with one transaction at a time: SQLite cannot lock a row, and two could take one trial."""
    # the file is opened here, as its path may hold characters with a meaning in a URL
    options = {"creator": lambda: sqlite3.connect(file, timeout=_LOCK_TIMEOUT, check_same_thread=False)}
    storage = RDBStorage(f"{_SQLITE}study.db", options)

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def no_implicit_transactions(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(storage.engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()  # connections made without these
    return storage


@contextmanager
def one_line_errors(url: str) -> Iterator[None]:
    """Turn the error of a database that does not answer into a ``ConnectionError`` of one line."""
    try:
        yield
    except StorageInternalError as error:
        raise ConnectionError(f"{without_password(url)}: {cause(error)}") from error


def cause(error: BaseException) -> str:
    """The first line of the message of whatever caused a storage's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(getattr(error, "orig", None) or error).strip() or type(error).__name__).splitlines()[0]


def storage_url(where: str) -> str:
    """A storage's full URL, see ``open_storage``; a ValueError if it is invalid."""
    for prefix in (_SQLITE, _JOURNAL):
        if where.startswith(prefix):
            return f"{prefix}{Path(where.removeprefix(prefix)).resolve()}"
    if "://" not in where:
        if (suffix := Path(where).suffix) in _SUFFIXES:
            return f"{_SUFFIXES[suffix]}{Path(where).resolve()}"
        kinds = "sqlite:///FILE.db, journal:FILE, postgresql://USER@HOST/NAME, mysql://..."
        raise ValueError(f"--storage {where}: expected {kinds}, or a file that ends in .db or .journal")
    try:
        port = make_url(where).port
    except sqlalchemy.exc.ArgumentError as error:
        raise ValueError(f"--storage: {error}") from None
    except ValueError:  # what stands for the port may be a password, so it is not shown
        port = 0
    if port is not None and not 0 < port < 2**16:
        raise ValueError("--storage: expected KIND://USER@HOST:PORT/NAME with a port from 1 to 65535, got another one")
    kind, _, rest = where.partition("://")
    return f"{_DRIVERS.get(kind, kind)}://{rest}"


def file_of(url: str) -> Path | None:
    """The file of a ``storage_url``; None for that of a server."""
    return next((Path(url.removeprefix(kind)) for kind in (_SQLITE, _JOURNAL) if url.startswith(kind)), None)


def without_password(url: str) -> str:
    """A ``storage_url`` with ``***`` for its password, also for one in its query."""
    return url if file_of(url) else re.sub(r"(?i)(://[^/:@]*:)[^@]*(?=@)|(passw[^=&]*=)[^&]*", r"\1\2***", url)
