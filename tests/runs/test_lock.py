"""One process at a time trains a run."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from firstspike.runs.lock import HOLDER, LOCK, RunLockedError, locked

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


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', "\xff"])
def test_a_process_that_is_not_named_holds_the_lock_as_well(another, tmp_path, content):
    (tmp_path / "run" / HOLDER).write_text(content, encoding="latin-1")
    with pytest.raises(RunLockedError, match=r"run is being trained by another process$"), locked(tmp_path / "run"):
        pass
    assert another.poll() is None
