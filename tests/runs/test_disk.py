"""Flushing to disk where systems differ."""

import errno
import os
import sys

import pytest

from firstspike.runs import files
from firstspike.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from firstspike.runs.files import flush_to_disk, remove_empty, write_whole


@pytest.fixture
def windows(monkeypatch):
    """Windows does not open folders, and flushes only what may be written to; gives the names of what was flushed."""
    system_open, flushed, writable = os.open, [], {}

    def opening(path, flags, *mode):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        handle = system_open(path, flags, *mode)
        writable[handle] = flags & os.O_RDWR and os.path.basename(path)
        return handle

    def fsync(handle):
        if not writable[handle]:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flushed.append(writable[handle])

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(files.os, "open", opening)
    monkeypatch.setattr(files.os, "fsync", fsync)
    return flushed


def test_checkpoints_and_files_on_windows(tmp_path, windows):
    write_whole(tmp_path / "a.txt", "text")
    assert [name[: len(".a.txt.")] for name in windows] == [".a.txt."]
    save_checkpoint(tmp_path / "epoch_0001", Checkpoint(1, 0, {}, {"value": 1}))
    assert sorted(windows[1:]) == ["manifest.json", "state.pt", "weights.safetensors"]
    assert load_checkpoint(tmp_path / "epoch_0001").state == {"value": 1}


def test_two_that_write_the_same_file_at_the_same_time_do_not_share_a_temporary_one(tmp_path):
    with files.whole_file(tmp_path / "a.json") as mine:
        mine.write_text("mine")
        write_whole(tmp_path / "a.json", "other")
    assert (tmp_path / "a.json").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_file_system_that_cannot_flush_folders(tmp_path, monkeypatch):
    def invalid(_):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(files.os, "fsync", invalid)
    flush_to_disk(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Invalid argument"):
        flush_to_disk(tmp_path / "file")


def test_folders_go_as_long_as_they_are_empty(tmp_path):
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    (tmp_path / "a" / "file").write_text("")
    remove_empty([inner, inner.parent, inner.parent.parent, tmp_path])
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
