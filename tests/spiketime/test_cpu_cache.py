"""Where compiled kernels are kept; what happens to damaged ones is tested in ``test_cpu_resources``."""

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
from firstspike.spiketime.cpu.runtime import cache
from firstspike.spiketime.cpu.runtime.compiling import jit

CALL = """
import torch, firstspike as fs
from firstspike.spiketime.cpu.runtime import cache
compiled = []
cache.listeners.append(lambda: compiled.append(1))
times, weight, neuron = torch.zeros(1, 2), torch.ones(3, 2, requires_grad=True), fs.LIF()
fs.first_spike_time(times, weight, neuron, backend="cpu").sum().backward()
fs.first_spike_time(times, weight, neuron, delay=torch.ones(3, 2), backend="cpu").sum().backward()
trains = fs.spike_trains(times[..., None], weight, neuron, max_spikes=2, overflow="drop", backend="cpu")
trains[torch.isfinite(trains)].sum().backward()
print(cache.folder(), len(compiled))
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def compilations():
    found = []
    listener = lambda: found.append(1)  # noqa: E731
    cache.listeners.append(listener)
    yield found
    cache.listeners.remove(listener)


def test_another_installation_of_this_version_compiles_nothing(tmp_path):
    subprocess.run([sys.executable, "-c", CALL], check=True)
    shutil.copytree(Path(fs.__file__).parent, tmp_path / "firstspike", copy_function=shutil.copyfile)  # new dates
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CALL], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(cache.folder()), "0"]


def test_other_sources_and_other_versions_have_folders_of_their_own(home, tmp_path, monkeypatch):
    shutil.copytree(Path(cache.__file__).parents[1], tmp_path / "cpu")
    now = cache.folder.__wrapped__()
    assert now.parent == home
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cpu/runtime/cache.py"))
    assert cache.folder.__wrapped__() == now
    with (tmp_path / "cpu/vectors/simd.py").open("a") as file:
        file.write("# changed\n")
    changed = cache.folder.__wrapped__()
    monkeypatch.setattr(cache, "__version__", "99.0")
    other = cache.folder.__wrapped__()
    monkeypatch.setattr(numba, "__version__", "99.0")
    assert len({now, changed, other, cache.folder.__wrapped__()}) == 4


def test_kernels_of_other_versions_are_dropped_when_nothing_uses_them(home):
    for name in ("kernels-old", "kernels-new", "something else"):
        (home / name).mkdir(parents=True)
        (home / name / "kernel.nbi").write_text("")
    long_ago = time.time() - 40 * 24 * 3600
    for name in ("kernels-old", "something else"):
        os.utime(home / name, (long_ago, long_ago))
    mine = cache.folder.__wrapped__()
    assert {path.name for path in home.iterdir()} == {mine.name, "kernels-new", "something else"}


def test_without_a_folder_kernels_are_compiled_in_every_process(home, monkeypatch, caplog, compilations):
    home.write_text("a file, where a folder is expected")
    with caplog.at_level(logging.WARNING):
        assert cache.folder.__wrapped__() is None
    assert "NUMBA_CACHE_DIR" in caplog.text
    monkeypatch.setattr(cache, "folder", lambda: None)
    double = jit(lambda x: 2 * x)
    kernel = cache.c_function(numba.float64(numba.float64))(lambda x: double(x) + 1)
    assert kernel.ctypes(3.0) == 7.0
    assert compilations == [1]


def test_the_progress_bar_says_once_that_kernels_are_compiled(capsys):
    class Compiles(fs.Callback):
        def on_batch_end(self, fit):
            cache._announce()

    before = list(cache.listeners)
    net = fs.Network(fs.LIFLinear(9, 3))
    trainer = fs.Trainer(net, fs.losses.TimeCrossEntropy(), torch.optim.Adam(net.parameters()))
    trainer.fit(fs.data.bars(samples=30), epochs=2, batch_size=10, callbacks=[Compiles()])
    assert capsys.readouterr().err.count("compiling CPU kernels") == 1
    assert cache.listeners == before
