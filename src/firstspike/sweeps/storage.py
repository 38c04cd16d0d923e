"""Where studies live: an SQLite file, Optuna's journal on a shared file system, or a database server.

All give back the trials of workers that died, by heartbeat. Optuna has one for databases; here it covers the journal,
too, and trials whose worker died before its first sign of life.
"""

import logging
import sqlite3
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

logger = logging.getLogger(__name__)

_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_WAIT = 60  # seconds for a locked database
_SIGN = "sign_of_life"
_SQLITE, _JOURNAL = "sqlite:///", "journal:"


class Unchanged:
    """Tells which of some things have not changed for a while, by this machine's own clock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.seen: dict[int, tuple[Any, float]] = {}

    def among(self, marks: Iterable[tuple[int, Any]]) -> list[int]:
        """Those whose mark is the same as ``seconds`` ago; whatever is not named any more is forgotten."""
        now = time.monotonic()
        self.seen = {
            key: old if (old := self.seen.get(key)) is not None and old[0] == mark else (mark, now)
            for key, mark in marks
        }
        return [key for key, (_, since) in self.seen.items() if now - since > self.seconds]


class Database(RDBStorage):
    """Optuna's database, where a trial that never gave a sign of life is given back as well."""

    def __init__(self, url: str, heartbeat: int, grace: int) -> None:
        lite = url.startswith(_SQLITE)
        # whatever tests connections before it uses them outlives a restart of the server
        options: dict[str, Any] = {"pool_pre_ping": True}
        if lite:
            # a path may have letters that mean something else in a URL, so that it is opened by itself
            file, url = url.removeprefix(_SQLITE), f"{_SQLITE}study.db"
            options = {"creator": lambda: sqlite3.connect(file, timeout=_WAIT, check_same_thread=False)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(url, options, heartbeat_interval=heartbeat, grace_period=grace)
        if lite:
            _serialise(self.engine)
        self._silent = Unchanged(grace)

    def record_heartbeat(self, trial_id: int) -> None:
        """A sign of life; a database that cannot be reached for a while ends no training."""
        try:
            super().record_heartbeat(trial_id)
        except StorageInternalError as error:
            logger.warning("no sign of life could be given: %s", _cause(error))

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        with self.scoped_session() as session:
            beating = set(session.scalars(sqlalchemy.text("SELECT trial_id FROM trial_heartbeats")))
        never = self._silent.among((trial._trial_id, None) for trial in running if trial._trial_id not in beating)
        return [*super()._get_stale_trial_ids(study_id), *never]


class JournalFile(JournalFileBackend):
    """Optuna's file, whose errors of the file system are those of a storage, as a database has them."""

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Entries from that number on."""
        with _of_storage():
            yield from super().read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """More entries."""
        with _of_storage():
            super().append_logs(logs)


@contextmanager
def _of_storage() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageInternalError("the journal cannot be read or written") from error


class Journal(JournalStorage, BaseHeartbeat):
    """Optuna's journal file with a heartbeat. A sign of life is a count; how old it is, who looks measures himself."""

    def __init__(self, file: Path, heartbeat: int, grace: int) -> None:
        super().__init__(JournalFile(str(file)))
        self._heartbeat = heartbeat
        self._silent = Unchanged(grace)
        self._count = 0

    def record_heartbeat(self, trial_id: int) -> None:
        """A sign of life."""
        self._count += 1
        try:
            self.set_trial_system_attr(trial_id, _SIGN, self._count)
        except UpdateFinishedTrialError:
            return  # given to another; the worker sees it by itself
        except StorageInternalError as error:
            logger.warning("no sign of life could be given: %s", _cause(error))

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        return self._silent.among((trial._trial_id, trial.system_attrs.get(_SIGN)) for trial in running)

    def get_heartbeat_interval(self) -> int | None:
        """Seconds between signs of life."""
        return self._heartbeat

    def get_heartbeat_stale_trial_callback(self) -> Callable[[optuna.Study, FrozenTrial], None] | None:
        """None: the survey of a study sees which points are open."""
        return None


def open_storage(where: str, heartbeat: int, grace: int) -> BaseStorage:
    """A storage by its URL.

    Args:
        where: ``sqlite:///FILE``, ``journal:FILE``, ``postgresql://...``, ``mysql://...``, or a file: ``.db`` and
            ``.sqlite`` are SQLite, ``.log`` and ``.journal`` a journal.
        heartbeat: seconds between signs of life.
        grace: seconds without one after which a trial is given back.

    Raises:
        ValueError: a URL that is none.
        ImportError: the driver of a database is not installed.
        ConnectionError: the database does not answer.
    """
    url = storage_url(where)
    if (file := file_of(url)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        if url.startswith(_JOURNAL):
            return Journal(file, heartbeat, grace)
    kind = url.partition(":")[0].partition("+")[0]
    try:
        return _database(url, heartbeat, grace)
    except ImportError as error:
        raise ImportError(f'the driver for {kind} is missing. Install it: pip install "firstspike[{kind}]"') from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise ConnectionError(f"{without_password(url)}: {_cause(error)}") from error


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Inside, a storage that does not answer is a ``ConnectionError`` of one line."""
    try:
        yield
    except StorageInternalError as error:
        raise ConnectionError(f"{without_password(url)}: {_cause(error.__cause__ or error)}") from error


def _database(url: str, heartbeat: int, grace: int) -> Database:
    """The database; where two make its tables at the same moment, one of them has to look again."""
    for _ in range(2):
        try:
            return Database(url, heartbeat, grace)
        except sqlalchemy.exc.SQLAlchemyError:
            time.sleep(0.5)
    return Database(url, heartbeat, grace)


def storage_url(where: str) -> str:
    """A storage's full URL, see ``open_storage``.

    Raises:
        ValueError: it is none.
    """
    if where.startswith(_JOURNAL):
        return f"{_JOURNAL}{Path(where.removeprefix(_JOURNAL).removeprefix('//')).resolve()}"
    if "://" not in where:
        suffix = Path(where).suffix
        if suffix in (".db", ".sqlite", ".sqlite3"):
            return f"{_SQLITE}{Path(where).resolve()}"
        if suffix in (".log", ".journal"):
            return f"{_JOURNAL}{Path(where).resolve()}"
        raise ValueError(
            f"--storage {where}: expected sqlite:///FILE.db, journal:FILE, postgresql://USER@HOST/NAME, mysql://..., "
            "or a file that ends in .db or .journal"
        )
    kind, _, rest = where.partition("://")
    if kind.partition("+")[0] == "sqlite":
        return f"{_SQLITE}{Path(rest.removeprefix('/')).resolve()}"
    try:
        port = make_url(where).port
    except sqlalchemy.exc.ArgumentError as error:
        raise ValueError(f"--storage: {error}") from None
    except ValueError:  # what stands for the port may be a password, so it is not shown
        port = 0
    if port is not None and not 0 < port < 2**16:
        raise ValueError("--storage: expected KIND://USER@HOST:PORT/NAME with a port from 1 to 65535, got another one")
    return f"{_DRIVERS.get(kind, kind)}://{rest}"


def file_of(url: str) -> Path | None:
    """The file of a ``storage_url``; None for that of a server."""
    return next((Path(url.removeprefix(kind)) for kind in (_SQLITE, _JOURNAL) if url.startswith(kind)), None)


def without_password(url: str) -> str:
    """The ``storage_url`` as it may be shown."""
    if file_of(url) is not None:
        return url
    hidden = dict.fromkeys(_secrets(make_url(url)), "***")
    return make_url(url).update_query_dict(hidden).render_as_string(hide_password=True)


def has_password(url: str) -> bool:
    """Whether a secret is in a ``storage_url``."""
    return file_of(url) is None and (make_url(url).password is not None or bool(_secrets(make_url(url))))


def _secrets(url: sqlalchemy.URL) -> list[str]:
    """Passwords among the options behind the ``?``."""
    return [key for key in url.query if "passw" in key.lower()]


def _serialise(engine: sqlalchemy.Engine) -> None:
    """One transaction at a time. SQLite knows no lock of a row, so that two workers could take the same trial."""

    @sqlalchemy.event.listens_for(engine, "connect")
    def manual(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # the driver begins no transaction by itself

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # of the connections that were made without


def _cause(error: BaseException) -> str:
    """The first line of what the driver says."""
    found = error.__cause__ or error
    return str(getattr(found, "orig", None) or found).strip().splitlines()[0]
