"""One process at a time trains a run."""

import multiprocessing
import os
import socket
import sys
import threading

import pytest

import forked
from firstspike.config import load_config
from firstspike.runs.folder import RunFolder, next_folder, run_folder
from firstspike.runs.lock import HOLDER, LOCK, RunLockedError, locked
from firstspike.training import Interrupted
from trained import resume, start

SETTINGS = ["training.epochs=3"]


def hold(folder, connection):
    with locked(folder):
        connection.send("locked")
        connection.recv()


@pytest.fixture
def another(tmp_path):
    """Another process that holds the lock of a folder, until something is sent."""
    mine, its = multiprocessing.Pipe()
    process = forked.processes().Process(target=hold, args=(tmp_path / "run", its))
    process.start()
    assert mine.recv() == "locked"
    process.connection = mine
    yield process
    process.kill()
    process.join()


@pytest.mark.slow
def test_the_other_process_is_named(another, tmp_path):
    message = rf"run is being trained by process {another.pid} on {socket.gethostname()}, since \d{{4}}-"
    with pytest.raises(RunLockedError, match=message), locked(tmp_path / "run"):
        pass
    another.connection.send("enough")
    another.join()
    assert not (tmp_path / "run").exists(), "a folder of its own, and empty"
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_a_killed_process_is_in_nobodys_way(another, tmp_path):
    another.kill()
    another.join()
    assert (tmp_path / "run" / HOLDER).exists()
    with locked(tmp_path / "run"):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]


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


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', "\xff"])
def test_a_process_that_is_not_named_holds_the_lock_as_well(another, tmp_path, content):
    (tmp_path / "run" / HOLDER).write_text(content, encoding="latin-1")
    with pytest.raises(RunLockedError, match=r"run is being trained by another process$"), locked(tmp_path / "run"):
        pass
    assert another.is_alive()


class TestRuns:
    """Training and resuming, from Python and by the command."""

    @pytest.mark.slow
    def test_a_run_in_training_is_not_resumed(self, another, tmp_path):
        RunFolder(tmp_path / "run").create(load_config("bars", SETTINGS), {}, {})
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*")}
        for attempt in (resume, lambda folder, **rest: start(folder, load_config("bars", SETTINGS), **rest)):
            with pytest.raises((RunLockedError, FileExistsError)):
                attempt(tmp_path / "run", progress_bar=False)
        done = forked.run("resume", tmp_path / "run", "-q")
        assert done.returncode == 1
        assert f"run is being trained by process {another.pid} on {socket.gethostname()}" in done.stderr
        assert done.stderr.count("\n") == 1
        assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*")} == before

    @pytest.mark.slow
    def test_a_folder_that_another_process_is_about_to_fill(self, another, tmp_path):
        with pytest.raises(RunLockedError, match=f"process {another.pid}"):
            start(tmp_path / "run", load_config("bars", SETTINGS), progress_bar=False)
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [LOCK, HOLDER]

    @pytest.mark.slow
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
        assert not list(tmp_path.rglob(HOLDER))
        with locked(tmp_path / "run" / "seed_6"), pytest.raises(RunLockedError, match="seed_6"):
            resume(tmp_path / "run", progress_bar=False)
        resume(tmp_path / "run", progress_bar=False)
        assert not list(tmp_path.rglob(HOLDER))

    @pytest.mark.slow
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
