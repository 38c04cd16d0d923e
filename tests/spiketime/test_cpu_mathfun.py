"""Exponentials and logarithms of vectors against mpmath, and machines without FMA."""

import os
import subprocess
import sys

import mpmath as mp
import numba
import numpy as np
import pytest

from firstspike.spiketime.cpu.vectors import mathfun
from firstspike.spiketime.cpu.vectors.simd import load16, store


@numba.njit
def _apply(x, out):
    for k in range(0, x.size, 16):
        store(out[0], k, mathfun.exp(load16(x, k)))
        store(out[1], k, mathfun.expm1(load16(x, k)))


@numba.njit
def _apply_log(x, out):
    for k in range(0, x.size, 16):
        store(out[0], k, mathfun.log(load16(x, k) + 1.0))
        store(out[1], k, mathfun.log1p(load16(x, k)))


def worst_error(found, function, x):
    return max(abs(mp.mpf(a) / function(mp.mpf(b)) - 1) for a, b in zip(found.tolist(), x.tolist(), strict=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mathfun_agrees_with_mpmath(dtype):
    mid = np.linspace(-80, 80, 400)
    tiny = np.logspace(-30, 0, 200)
    x = np.concatenate([mid, tiny, -tiny]).astype(dtype)
    found = np.empty((2, x.size), dtype)
    _apply(x, found)
    for mine, function in zip(found, (mp.exp, mp.expm1), strict=True):
        assert worst_error(mine, function, x) < 2 * np.finfo(dtype).eps
    x = np.concatenate([tiny, -tiny * 0.99, np.logspace(0, 20, 16)]).astype(dtype)
    found = np.empty((2, x.size), dtype)
    _apply_log(x, found)
    assert worst_error(found[1], mp.log1p, x) < 2 * np.finfo(dtype).eps


WITHOUT_FMA = """
import numba, numpy as np
from firstspike.spiketime.cpu.vectors import mathfun
from firstspike.spiketime.cpu.vectors.simd import load16, store

@numba.njit
def exponential(x):
    store(x, 0, mathfun.exp(load16(x, 0)))

for dtype, accuracy in ((np.float32, 3e-7), (np.float64, 1e-15)):
    x = np.linspace(-20, 20, 16, dtype=dtype)
    expected = np.exp(x)
    exponential(x)
    assert np.abs(x / expected - 1).max() < accuracy
for assembly in exponential.inspect_asm().values():
    assert "mulps" in assembly or "mulpd" in assembly
    assert "fma" not in assembly and "nearbyint" not in assembly
"""


@pytest.mark.slow
def test_machines_without_fma_multiply_and_add():
    plain = {**os.environ, "NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}
    subprocess.run([sys.executable, "-c", WITHOUT_FMA], check=True, env=plain)
