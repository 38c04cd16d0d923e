"""Disks that are full and folders that cannot be written: one message, nothing lost, and the run goes on later."""

import ctypes
import errno
import os
import shutil
import stat
import sys
from functools import partial

import pytest
import torch

import forked
from firstspike.config import load_config
from firstspike.runs.checkpoint import Checkpoint, checkpoints, load_checkpoint, save_checkpoint
from firstspike.runs.files import write_whole
from firstspike.runs.folder import RunFolder
from firstspike.runs.lock import HOLDER, locked
from trained import start

SETTINGS = ["training.epochs=40", "training.checkpoint_every=10"]


def limited(size):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def unprivileged():
    """Root writes into any folder; without the capability CAP_DAC_OVERRIDE it heeds permissions like everyone else."""
    if sys.platform == "linux":
        version_3, dac_override = 0x20080522, 1 << 1
        process, sets = (ctypes.c_uint32 * 2)(version_3, 0), (ctypes.c_uint32 * 6)()
        libc = ctypes.CDLL(None)
        libc.capget(process, sets)
        sets[0] &= ~dac_override  # of those in effect
        assert libc.capset(process, sets) == 0


def one_message(done, *parts):
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in parts), done.stderr


@pytest.fixture
def read_only():
    """Makes folders read-only, and writable again so that they can be removed."""
    changed = []

    def protect(*folders):
        for folder in folders:
            folder.chmod(0o555)
            changed.append(folder)

    yield protect
    for folder in changed:
        folder.chmod(0o755)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run; it also compiles the kernels, which are large files."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    start(folder, load_config("bars", SETTINGS), progress_bar=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "every", "file", "saved"),
    [(3_000, 1, "checkpoints/best_", []), (12_000, 10, "output_times.csv", ["epoch_0010", "epoch_0020"])],
    ids=["first checkpoint", "between checkpoints"],
)
def test_no_room_while_training(whole, tmp_path, command_here, limit, every, file, saved):
    changed = [*SETTINGS, f"training.checkpoint_every={every}"]
    settings = [part for setting in changed for part in ("--set", setting)]
    run = tmp_path / "run"
    done = forked.run("train", "bars", "-q", "--out", run, *settings, before=partial(limited, limit))
    one_message(done, f"{run / file}", "File too large", f"firstspike resume {run}")
    assert [path.name for path in checkpoints(run / "checkpoints") if path.name.startswith("epoch")] == saved
    assert not list(run.rglob("*.partial"))
    for path in checkpoints(run / "checkpoints"):
        load_checkpoint(path)
    done = command_here("resume", run, "-q")
    assert done.returncode == 0, done.stderr
    for table in ("metrics.csv", "output_times.csv"):
        assert (run / table).read_bytes() == (whole / table).read_bytes()


@pytest.mark.slow
def test_a_run_folder_that_cannot_be_written(bars_folder, tmp_path, read_only):
    run = shutil.copytree(bars_folder, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    read_only(tmp_path, run, *(path for path in run.rglob("*") if path.is_dir()))
    one_message(
        forked.run("resume", run, "-q", "--epochs", 14, before=unprivileged),
        f"{run / '.lock.json'}: Permission denied",
        "Everything saved so far is kept",
        f"firstspike resume {run}",
    )
    one_message(forked.run("train", "bars", "-q", "--out", tmp_path / "new", before=unprivileged), "Permission denied")
    one_message(forked.run("plot", run, "confusion", before=unprivileged), f"{run / 'figures'}: Permission denied")
    tested = forked.run("evaluate", run, before=unprivileged)
    assert tested.stdout.startswith("test accuracy")
    assert tested.stderr == f"error: {run / 'evaluation'}: Permission denied\n"
    assert tested.returncode == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_file_in_the_place_of_a_folder(tmp_path, command_here):
    run = RunFolder(tmp_path / "run")
    run.create(load_config("bars", SETTINGS))
    (run.path / "checkpoints").write_text("in the way")
    done = command_here("resume", run.path, "-q")
    one_message(done, "checkpoints", f"firstspike resume {run.path}")
    (run.path / "checkpoints").unlink()
    assert command_here("resume", run.path, "-q").returncode == 0


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["write_bytes", "write_text", "mkdir", "flush_to_disk", "rename"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_old_ones(tmp_path, monkeypatch, step):
    def checkpoint(value):
        return Checkpoint(1, 0, {"weight": torch.full((3,), value)}, {"value": value})

    save_checkpoint(tmp_path / "epoch_0001", checkpoint(1.0))
    place = "firstspike.runs.files.flush_to_disk" if step == "flush_to_disk" else f"pathlib.Path.{step}"
    monkeypatch.setattr(place, full_disk)
    for name in ("epoch_0001", "epoch_0002"):
        with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / name}'") as raised:
            save_checkpoint(tmp_path / name, checkpoint(2.0))
        assert raised.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_0001"]
    assert load_checkpoint(tmp_path / "epoch_0001").state == {"value": 1.0}
    save_checkpoint(tmp_path / "epoch_0002", checkpoint(2.0))
    assert load_checkpoint(tmp_path / "epoch_0002").weights["weight"].tolist() == [2.0] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full")
def test_a_lock_on_a_full_disk(tmp_path):
    (tmp_path / HOLDER).symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"No space left on device: .*{HOLDER}"), locked(tmp_path):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full")
def test_rows_on_a_full_disk(tmp_path):
    (tmp_path / "metrics.csv").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*metrics\.csv"):
        RunFolder(tmp_path).append("metrics", [{"epoch": 1, "loss": 0.5}])


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_whole(tmp_path / "a", "old")
    monkeypatch.setattr("firstspike.runs.files.flush_to_disk", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes of this kind")
def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match=f"expected a file, or nothing yet: '{tmp_path / name}'"):
            write_whole(tmp_path / name, "text")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "folder"}


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_cannot_begin_leaves_nothing(tmp_path, monkeypatch, there):
    folder = tmp_path / "run"
    if there:
        folder.mkdir()
    monkeypatch.setattr("firstspike.runs.files.flush_to_disk", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        RunFolder(folder).create(load_config("bars"))
    assert folder.exists() == there
    assert list(tmp_path.rglob("*")) == [folder] * there


@pytest.mark.parametrize("torn", ["", "epoch,lo", "epoch,loss\n", "epoch,loss\n1,0.5\n2,0.", "epoch,loss\n1,0.5\n2"])
def test_torn_tables_are_mended(tmp_path, torn):
    run = RunFolder(tmp_path)
    (tmp_path / "metrics.csv").write_text(torn)
    run.drop_rows_after(1)
    rows = [] if "1,0.5\n" in torn else [{"epoch": 1, "loss": 0.5}]
    run.append("metrics", [*rows, {"epoch": 2, "loss": 0.25}])
    assert (tmp_path / "metrics.csv").read_text() == "epoch,loss\n1,0.5\n2,0.25\n"
