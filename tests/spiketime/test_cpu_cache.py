"""Where compiled kernels are kept; what happens to damaged ones is tested in ``test_cpu_resources``."""

import errno
import importlib
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numba
import pytest
import torch

import firstspike as fs
from firstspike.spiketime import shared
from firstspike.spiketime.cpu.runtime import beside, compiling
from firstspike.spiketime.cpu.runtime.compiling import jit

CALL = """
import torch, firstspike as fs
from firstspike.spiketime import shared
from firstspike.spiketime.cpu.runtime import compiling
compiled = []
shared.listeners.append(lambda: compiled.append(1))
torch.set_default_dtype(torch.float64)  # whose kernels for these calls other tests need, too
times, weight, neuron = torch.zeros(1, 2), torch.ones(3, 2, requires_grad=True), fs.LIF()
fs.first_spike_time(times, weight, neuron, backend="cpu").sum().backward()
fs.first_spike_time(times, weight, neuron, delay=torch.ones(3, 2), backend="cpu").sum().backward()
trains = fs.spike_trains(times[..., None], weight, neuron, max_spikes=2, overflow="drop", backend="cpu")
trains[torch.isfinite(trains)].sum().backward()
print(compiling.folder(), len(compiled))
"""

PAIR = """
from functools import lru_cache
from numba import float64
from firstspike.spiketime.cpu.runtime.compiling import c_function

@lru_cache
def first(kind):
    @c_function(float64(float64), kind, following="pair_of_kernels.second")
    def kernel(x):
        return x + 1
    return kernel.ctypes

@lru_cache
def second(kind):
    @c_function(float64(float64), kind)
    def kernel(x):
        return x + 2
    return kernel.ctypes
"""
KINDS = """
import sys
import torch
from firstspike.spiketime.cpu.runtime.kernels import Layout
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import kernel
from firstspike.spiketime.cpu.runtime.parallel import Call
SOME = Layout("one two", found="real one", others="real two")
@kernel(SOME)
def constant(real, number):
    @jit
    def phase(g, slot, task):  # too long to become a part of the function that calls it
        LONG
        g.found[0] = number
    return (phase,)
for number in map(int, sys.argv[1:]):
    found = torch.zeros(1)
    plan = SOME.plan("float32", {"one": 1, "two": 2}, ("found",))
    Call(constant("float32", number), (1,), plan, 1)(found)
    print(int(found))
"""
WITHOUT_TORCH = """
import runpy, sys
sys.argv = ["", "firstspike.spiketime.cpu.{}", '["float32", {}]']
runpy.run_path({!r}, run_name="__main__")
assert "torch" not in sys.modules
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def compilations():
    found = []
    listener = lambda: found.append(1)  # noqa: E731
    shared.listeners.append(listener)
    yield found
    shared.listeners.remove(listener)


@pytest.mark.slow
def test_another_installation_of_this_version_compiles_nothing(tmp_path):
    subprocess.run([sys.executable, "-c", CALL], check=True)
    shutil.copytree(Path(fs.__file__).parent, tmp_path / "firstspike", copy_function=shutil.copyfile)  # new dates
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CALL], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(compiling.folder()), "0"]


@pytest.mark.slow
def test_kinds_of_a_kernel_from_several_processes_are_told_apart(tmp_path):
    """Each process names what it compiles by numbers that begin anew."""
    long = "; ".join(f"g.others[{k % 2}] /= g.others[{(k + 1) % 2}] + {k}" for k in range(80))
    (tmp_path / "kinds.py").write_text(KINDS.replace("LONG", long))
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "home")}
    for numbers in (["1"], ["2"], ["2", "1"]):
        command = [sys.executable, str(tmp_path / "kinds.py"), *numbers]
        found = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120)
        assert found.stdout.split() == numbers


def test_other_sources_and_other_versions_have_folders_of_their_own(home, tmp_path, monkeypatch):
    sources = Path(compiling.__file__).parents[1]
    shutil.copytree(sources, tmp_path / "cpu")
    shutil.copy(sources.parent / "shared.py", tmp_path)
    now = compiling.folder.__wrapped__()
    assert now.parent == home
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "cpu/runtime/compiling.py"))
    assert compiling.folder.__wrapped__() == now
    changed = []
    for name in ("cpu/vectors/simd.py", "shared.py"):
        with (tmp_path / name).open("a") as file:
            file.write("# changed\n")
        changed.append(compiling.folder.__wrapped__())
    monkeypatch.setattr(compiling, "__version__", "99.0")
    other = compiling.folder.__wrapped__()
    monkeypatch.setattr(numba, "__version__", "99.0")
    assert len({now, *changed, other, compiling.folder.__wrapped__()}) == 5


def test_kernels_of_other_versions_are_dropped_when_nothing_uses_them(home):
    for name in ("kernels-old", "kernels-new", "something else"):
        (home / name).mkdir(parents=True)
        (home / name / "some.kernel").write_text("")
    long_ago = time.time() - 40 * 24 * 3600
    for name in ("kernels-old", "something else"):
        os.utime(home / name, (long_ago, long_ago))
    mine = compiling.folder.__wrapped__()
    assert {path.name for path in home.iterdir()} == {mine.name, "kernels-new", "something else"}


def test_without_a_folder_kernels_are_compiled_in_every_process(home, monkeypatch, caplog, compilations):
    home.write_text("a file, where a folder is expected")
    with caplog.at_level(logging.WARNING):
        assert compiling.folder.__wrapped__() is None
    assert "NUMBA_CACHE_DIR" in caplog.text
    monkeypatch.setattr(compiling, "folder", lambda: None)
    double = jit(lambda x: 2 * x)
    kernel = compiling.c_function(numba.float64(numba.float64))(lambda x: double(x) + 1)
    assert kernel.ctypes(3.0) == 7.0
    assert compilations == [1]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the system has no owners of files")
def test_a_folder_in_which_others_could_put_kernels_is_not_used(home, monkeypatch, caplog):
    """To read a kernel is to run it."""
    mine, stat = compiling.folder.__wrapped__(), Path.stat
    assert mine.parent == home
    mine.chmod(0o777)
    assert compiling.folder.__wrapped__() is None
    mine.chmod(0o775)
    assert compiling.folder.__wrapped__() == mine
    caplog.clear()
    for owner, used in ((0, mine), (os.geteuid(), mine), (54321, None)):
        found = [*stat(mine)[:4], owner, *stat(mine)[5:10]]
        monkeypatch.setattr(Path, "stat", lambda path, found=found, **_: os.stat_result(found))
        assert compiling.folder.__wrapped__() == used
    assert "others could put kernels there" in caplog.text
    assert "NUMBA_CACHE_DIR names another folder" in caplog.text


def test_without_a_home_kernels_are_not_kept(monkeypatch, caplog):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert compiling.folder.__wrapped__() is None
    assert "Could not determine home directory.); NUMBA_CACHE_DIR names another folder" in caplog.text


def test_a_kernel_that_cannot_be_kept_is_used_and_leaves_nothing(tmp_path, monkeypatch, caplog):
    def full(path, content):
        write(path, content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    write = Path.write_bytes
    monkeypatch.setattr(compiling, "folder", lambda: tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full)
    kernel = compiling.c_function(numba.float64(numba.float64))(lambda x: x + 1)
    assert kernel.ctypes(3.0) == 4.0
    assert not list(tmp_path.iterdir())
    assert f"cannot keep a compiled kernel in {tmp_path}: No space left on device" in caplog.text


@pytest.fixture
def pair(home, tmp_path, monkeypatch):
    """Two small kernels, of which the second is needed after the first, and an empty cache."""
    (tmp_path / "pair_of_kernels.py").write_text(PAIR)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(beside, "has_free_core", lambda: True)
    compiling.folder.cache_clear()
    yield importlib.import_module("pair_of_kernels")
    compiling.folder.cache_clear()
    del sys.modules["pair_of_kernels"]


def test_a_second_process_compiles_the_kernel_that_is_needed_next(pair, home, compilations):
    assert pair.first(True)(1.0) == 2.0
    assert pair.second(True)(1.0) == 3.0
    assert compilations == [1]
    assert len(list(home.rglob("*.kernel"))) == 2


@pytest.mark.parametrize(("name", "value"), [("_LONGEST", 0.01), ("__file__", "/no/such/file/as/this/one.py")])
def test_without_the_second_process_the_kernel_is_compiled_here(pair, monkeypatch, compilations, name, value):
    monkeypatch.setattr(beside, name, value)  # it is killed, or it fails
    assert pair.first(False)(1.0) == 2.0
    assert pair.second(False)(1.0) == 3.0
    assert compilations == [1, 1]


def test_a_second_process_only_where_a_core_is_free(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.0, 0.0), raising=False)
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert beside.has_free_core()
    for where, name, value in (
        (os, "sched_getaffinity", lambda _: {0}),
        (os, "getloadavg", lambda: (2.5, 0.0, 0.0)),
        (sys, "executable", "/usr/bin/uwsgi"),
        (sys, "frozen", True),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value, raising=False)
            assert not beside.has_free_core()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert not beside.has_free_core()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("rows.backward.backward_kernel", "32, false"),
        pytest.param("rows.backward.backward_kernel", "32, true", marks=pytest.mark.exhaustive),
        ("lanes.kernels.backward_kernel", '"closed", true, false'),
        pytest.param("lanes.kernels.backward_kernel", '"linear", true, true', marks=pytest.mark.exhaustive),
    ],
)
def test_the_second_process_does_without_torch(kernel, kind):
    program = WITHOUT_TORCH.format(kernel, kind, beside.__file__)
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(fs.__file__).parents[1])


def test_the_progress_bar_says_once_that_kernels_are_compiled(capsys):
    class Compiles(fs.Callback):
        def on_batch_end(self, fit):
            compiling._announce()

    before = list(shared.listeners)
    net = fs.Network(fs.LIFLinear(9, 3))
    trainer = fs.Trainer(net, fs.losses.TimeCrossEntropy(), torch.optim.Adam(net.parameters()))
    trainer.fit(fs.data.bars(samples=30), epochs=2, batch_size=10, callbacks=[Compiles()])
    assert capsys.readouterr().err.count("compiling CPU kernels") == 1
    assert shared.listeners == before
