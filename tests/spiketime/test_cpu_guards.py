"""What kernels do wrong does not go unnoticed: exceptions, writes outside of arrays, indices out of bounds."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from firstspike.spiketime.cpu.runtime import compiling, parallel
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import ENDED, FIRST, SIGNATURE, STARTED, Layout, kernel
from firstspike.spiketime.cpu.runtime.parallel import Call
from firstspike.spiketime.cpu.vectors.simd import fill16, load16, load_some16, store, store_some
from guards import ZONE

SOME = Layout("size two", times="real size", spikes="real size", work="real size")
ADDRESSES = FIRST + 2  # in the kernel's numbers


@pytest.fixture
def ignored(monkeypatch):
    """Exceptions of which Python only says that they are ignored."""
    found = []
    monkeypatch.setattr(sys, "unraisablehook", lambda error: found.append(error.exc_type))
    return found


@pytest.fixture(params=["one thread", "OpenMP", "Python threads"])
def threads(request, monkeypatch):
    if request.param == "Python threads":
        monkeypatch.setattr(parallel, "_openmp", lambda: None)
    return 1 if request.param == "one thread" else 2


def kernel_of(phase):
    """A kernel of ``SOME`` with one phase, which is not kept on disk."""
    return kernel(SOME)(lambda real: (jit(phase),))("float64")


def called(kernel, size=20, tasks=(8,), threads=1):
    """The array of spikes that such a kernel of ``SOME`` leaves."""
    times, spikes = torch.arange(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    Call(kernel, tasks, SOME.plan("float64", {"size": size, "two": 2}, ("times", "spikes")), threads)(times, spikes)
    return spikes


@pytest.fixture
def failing(monkeypatch):
    """A kernel that fails in the given task."""
    monkeypatch.setattr(compiling, "folder", lambda: None)

    @kernel_of
    def failing(g, slot, task):
        if task == g.times[0]:
            raise ValueError("wrong")
        g.spikes[task] = 1

    def call(task, **options):
        times, spikes = torch.full((8,), float(task), dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
        Call(failing, (8, 8), SOME.plan("float64", {"size": 8, "two": 2}, ("times", "spikes")), **options)(
            times, spikes
        )
        return spikes

    return call


def test_an_exception_in_a_kernel_is_an_error(failing, threads, ignored):
    assert failing(8, threads=threads).tolist() == [1.0] * 8
    for task in (0, 3, 7):
        with pytest.raises(RuntimeError, match="a kernel on the CPU failed"):
            failing(task, threads=threads)
        assert ignored == [ValueError], "no further phase begins"
        ignored.clear()
    assert failing(8, threads=threads).tolist() == [1.0] * 8


def numbers_at(address):
    """The numbers of a kernel of ``SOME``."""
    return (ctypes.c_int64 * (ADDRESSES + len(SOME.arrays))).from_address(address)


def writer(array, index):
    """A kernel, in Python, that writes there alone."""

    def kernel(address):
        a = numbers_at(address)
        a[STARTED] = a[ENDED] = 1
        ctypes.c_double.from_address(a[ADDRESSES + array] + 8 * index).value = 1.5

    return kernel


@pytest.mark.parametrize(("array", "name"), [(0, "times"), (1, "spikes"), (2, "work")])
def test_writes_outside_of_an_array_are_found(array, name):
    for index in (-1, -ZONE // 8, 20, 20 + ZONE // 8 - 1):
        with pytest.raises(AssertionError, match=f"bytes (after|before) {name}"):
            called(writer(array, index))


def test_writes_to_an_input_are_found():
    with pytest.raises(AssertionError, match="to its input times"):
        called(writer(0, 3))


def test_writes_inside_of_arrays_are_right():
    assert called(writer(1, 19)).tolist() == [0.0] * 19 + [1.5]
    assert not called(writer(2, 19)).any()


def test_arrays_have_the_size_of_the_layout():
    plan = SOME.plan("float32", {"size": 20, "two": 2}, ("times", "spikes"))
    with pytest.raises(AssertionError, match="says 80 bytes for spikes"):
        Call(writer(1, 0), (1,), plan, 1)(torch.zeros(20), torch.zeros(21))


def test_scratch_memory_is_full_of_nan():
    def kernel(address):
        a = numbers_at(address)
        a[STARTED] = a[ENDED] = 1
        spikes, work = ((ctypes.c_double * 20).from_address(a[ADDRESSES + array]) for array in (1, 2))
        spikes[:] = work[:]

    assert called(kernel).isnan().all()


def test_a_layout_of_one_size_and_one_array():
    plan = Layout("size", times="real size").plan("float32", {"size": 3, "other": 4}, ("times",))
    assert plan.numbers_at([1000]) == [3, 1000]


@jit
def at(array, place):
    return array[place]


@jit
def set_at(array, place):
    array[place] = 1


@jit
def vector_at(array, place):
    return load16(array, place)


@jit
def set_vector_at(array, place):
    store(array, place, fill16(array, 1.0))


@jit
def three_at(array, place):
    return load_some16(np.uint64(7), array, place)


@jit
def set_three_at(array, place):
    store_some(np.uint64(7), array, place, fill16(array, 1.0))


BOUNDED = "test_properties.py", "test_cpu_sort.py"  # files of this folder
ACCESSES = {at: 1, set_at: 1, vector_at: 16, set_vector_at: 16, three_at: 3, set_three_at: 3}


@pytest.fixture
def checked(monkeypatch):
    """Kernels are compiled with checks of bounds."""
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize(("access", "length"), ACCESSES.items(), ids=lambda x: getattr(x, "__name__", None))
def test_indices_out_of_bounds_are_errors_where_they_are_checked(access, length, monkeypatch, ignored):
    monkeypatch.setattr(compiling, "folder", lambda: None)

    @kernel_of
    def accessing(g, slot, task):
        access(g.spikes, np.intp(g.times[0]))

    def call(place):
        times, spikes = torch.full((20,), float(place), dtype=torch.float64), torch.zeros(20, dtype=torch.float64)
        Call(accessing, (1,), SOME.plan("float64", {"size": 20, "two": 2}, ("times", "spikes")), 1)(times, spikes)
        return spikes

    for place in (0, 20 - length):
        assert call(place)[place : place + length].tolist() == [float("set" in access.__name__)] * length
    assert ignored == []
    for place in (-1, -20, 20 - length + 1, 20, 1 << 40):
        with pytest.raises(RuntimeError, match="a kernel on the CPU failed"):
            call(place)
        assert ignored == [IndexError]
        ignored.clear()


def test_kernels_with_and_without_checks_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "folder", lambda: tmp_path)
    compilations = []
    monkeypatch.setattr(compiling, "_announce", lambda: compilations.append(bool(numba.config.BOUNDSCHECK)))

    def kernel(a):
        a[FIRST] = 1

    for checks in (0, 1, 0, 1):
        monkeypatch.setattr(numba.config, "BOUNDSCHECK", checks)
        compiling.c_function(SIGNATURE)(kernel)
    assert compilations == [False, True]


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", ["shift or sorted", "not shift"])
def test_kernels_stay_within_bounds(part):
    """The tests of kernels where all indices are checked, with more examples than elsewhere."""
    options = "-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile", "thorough", "-k", f"cpu and ({part})"
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, *BOUNDED],
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1"},
        cwd=Path(__file__).parent,
        check=True,
    )
