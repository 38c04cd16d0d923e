"""One process at a time trains a run."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import types

import pytest

from firstspike.config import load_config
from firstspike.runs import RunFolder, lock, next_folder, resume, run_folder, start
from firstspike.runs.lock import LOCK, RunLockedError, locked, process_started
from firstspike.training import Interrupted

SETTINGS = ["training.epochs=3"]
HOLD = """
import sys
from pathlib import Path
from firstspike.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def another(tmp_path):
    """Another process that holds the lock of a folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def leave(folder, **changes):
    """A lock as a process leaves it that was killed."""
    started = process_started(os.getpid()) or ""
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "started": started, "since": "before"} | changes
    folder.mkdir(exist_ok=True)
    (folder / LOCK).write_text(json.dumps(holder))


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)


def test_the_other_process_is_named(another, tmp_path):
    message = rf"run is being trained by process {another.pid} on {socket.gethostname()}, since \d{{4}}-"
    with pytest.raises(RunLockedError, match=message), locked(tmp_path / "run"):
        pass
    another.stdin.close()
    another.wait()
    assert not (tmp_path / "run").exists(), "a folder of its own, and empty"
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_a_killed_process_is_in_nobodys_way(another, tmp_path):
    another.send_signal(signal.SIGKILL)
    another.wait()
    assert (tmp_path / "run" / LOCK).exists()
    with locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / LOCK).exists()


def test_another_thread_counts_as_another_process(tmp_path):
    errors = []

    def attempt():
        try:
            with locked(tmp_path):
                pass
        except RunLockedError as error:
            errors.append(error)

    with locked(tmp_path):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert f"by process {os.getpid()} on" in str(errors[0])


@pytest.mark.usefixtures("no_locks")
def test_without_locks_of_the_system_a_process_is_known_by_its_start(tmp_path):
    leave(tmp_path)
    with pytest.raises(RunLockedError, match=f"by process {os.getpid()} on"), locked(tmp_path):
        pass
    leave(tmp_path, started="another")  # its number is another process's by now
    with locked(tmp_path):
        with pytest.raises(RunLockedError), locked(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    leave(tmp_path, pid=gone.pid, started=process_started(gone.pid))
    gone.wait()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("changes", [{}, {"started": "another"}, {"pid": 2**22 + 1}], ids=["same", "reused", "gone"])
def test_a_lock_that_the_system_dropped_is_stale_whoever_it_names(tmp_path, changes):
    leave(tmp_path, **changes)
    with locked(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_a_process_on_another_machine_may_live(tmp_path):
    leave(tmp_path, host="elsewhere", pid=7)
    message = rf"by process 7 on elsewhere, since before; if that process has ended, remove .*{LOCK}"
    with pytest.raises(RunLockedError, match=message), locked(tmp_path):
        pass
    (tmp_path / LOCK).unlink()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"host": 1, "pid": 2, "started": 3, "since": 4}', "[" * 9000, "\xff"]
)
def test_half_a_lock_is_none(tmp_path, content):
    (tmp_path / LOCK).write_text(content, encoding="latin-1")
    with locked(tmp_path):
        pass


def test_processes_are_told_apart_where_there_is_no_proc(monkeypatch):
    mine = process_started(os.getpid())
    assert mine
    assert process_started(2**22 + 1) is None
    monkeypatch.setattr(lock.Path, "exists", lambda _: False)
    monkeypatch.setattr(lock.subprocess, "run", lambda command, **_: types.SimpleNamespace(stdout=f"{command[-1]}\n"))
    assert process_started(7) == "7"

    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(lock.subprocess, "run", missing)
    assert process_started(7) is None


def test_windows_locks_a_byte_behind_the_content(tmp_path, monkeypatch):
    """Its locks keep others from reading; an open file cannot be removed."""
    held, opened = [], set()

    def locking(handle, mode, size):
        place = (os.fstat(handle).st_ino, os.lseek(handle, 0, os.SEEK_CUR), size)
        if place in held:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        held.append(place)

    def unlink(path, missing_ok=False):
        assert not opened, "the file is open"
        os.unlink(path)

    system_open, system_close = os.open, os.close

    def close(handle):
        opened.discard(handle)
        system_close(handle)

    def opening(path, *arguments):
        handle = system_open(path, *arguments)
        opened.add(handle)
        return handle

    monkeypatch.setattr(lock.sys, "platform", "win32")
    monkeypatch.setattr(lock, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2), raising=False)
    monkeypatch.setattr(lock.Path, "unlink", unlink)
    monkeypatch.setattr(lock.os, "open", opening)
    monkeypatch.setattr(lock.os, "close", close)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        with pytest.raises(RunLockedError, match=f"by process {os.getpid()}"), locked(tmp_path):
            pass
    assert held[0][1:] == (1 << 30, 1)
    assert not list(tmp_path.iterdir())


class TestRuns:
    """Training and resuming, from Python and by the command."""

    def test_a_run_in_training_is_not_resumed(self, another, tmp_path):
        RunFolder(tmp_path / "run").create(load_config("bars", SETTINGS), {}, {})
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*")}
        for attempt in (resume, lambda folder, **rest: start(folder, load_config("bars", SETTINGS), **rest)):
            with pytest.raises((RunLockedError, FileExistsError)):
                attempt(tmp_path / "run", progress_bar=False)
        command = [sys.executable, "-m", "firstspike", "resume", str(tmp_path / "run"), "-q"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        assert f"run is being trained by process {another.pid} on {socket.gethostname()}" in done.stderr
        assert done.stderr.count("\n") == 1
        assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*")} == before

    def test_a_folder_that_another_process_is_about_to_fill(self, another, tmp_path):
        with pytest.raises(RunLockedError, match=f"process {another.pid}"):
            start(tmp_path / "run", load_config("bars", SETTINGS), progress_bar=False)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]

    def test_each_seed_of_several_is_locked_as_well(self, tmp_path):
        config = load_config("yin_yang", [*SETTINGS, "training.n_seeds=2", "training.seed=5", "data.train=50"])
        refused, batches = [], iter(range(100))

        def look():
            if next(batches) == 1:
                for folder in (tmp_path / "run", tmp_path / "run" / "seed_5", tmp_path / "run" / "seed_6"):
                    with pytest.raises(RunLockedError):
                        resume(folder, progress_bar=False)
                    refused.append(folder.name)
                return True
            return False

        with pytest.raises(Interrupted):
            start(tmp_path / "run", config, progress_bar=False, stop=look)
        assert refused == ["run", "seed_5", "seed_6"]
        assert not list(tmp_path.rglob(LOCK))
        with locked(tmp_path / "run" / "seed_6"), pytest.raises(RunLockedError, match="seed_6"):
            resume(tmp_path / "run", progress_bar=False)
        resume(tmp_path / "run", progress_bar=False)
        assert not list(tmp_path.rglob(LOCK))

    def test_the_first_of_several_processes_has_the_lock(self, another, tmp_path, monkeypatch):
        RunFolder(tmp_path / "run").create(load_config("bars", SETTINGS), {}, {})
        for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(RunLockedError, match=f"process {another.pid}"):
            resume(tmp_path / "run", progress_bar=False)

    def test_a_run_that_cannot_be_built_leaves_no_folder(self, tmp_path):
        with pytest.raises(ValueError, match="device"):
            start(tmp_path / "run", load_config("bars", [*SETTINGS, "training.device=nowhere"]), progress_bar=False)
        assert not list(tmp_path.iterdir())


class TestFolders:
    """Numbered folders, each for one process."""

    def test_many_at_once_get_different_ones(self, tmp_path):
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(next_folder(tmp_path / "runs", "a"))) for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found)) == 20
        assert {path.name for path in found} == {"a", *(f"a-{number}" for number in range(2, 21))}

    def test_a_folder_that_stays_empty_is_removed(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with run_folder(None, "a") as folder:
            assert folder.is_dir()
        assert not folder.exists()
        with run_folder(None, "a") as folder:
            (folder / "file").write_text("")
        assert folder.is_dir()
        with run_folder(folder, "a") as chosen:
            assert chosen == folder

    def test_of_several_processes_the_first_makes_the_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
            monkeypatch.setenv(name, value)
        with run_folder(None, "a"):
            assert not list(tmp_path.iterdir())
