"""The backend for GPUs, on machines without one: in Triton's interpreter, and compiled for several GPUs."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from firstspike import LIF, first_spike_time
from firstspike.spiketime import backends

HERE = Path(__file__).parent
GPU_CODE = HERE.parents[1] / "benchmarks" / "gpu_code.py"


def run(*command, **environment):
    options = {"cwd": HERE, "env": {**os.environ, **environment}, "capture_output": True, "text": True, "check": False}
    found = subprocess.run([sys.executable, *command], **options)
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
    return found.stdout


def run_interpreted(part, *more):
    """Tests of that part in a process of their own, as kernels are interpreted from their definition on."""
    options = ("-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning")  # of NumPy, in lanes without a neuron
    output = run("-m", "pytest", *options, "-k", part, *more, "triton_interpreted.py", TRITON_INTERPRET="1")
    assert " passed" in output


@pytest.mark.triton
@pytest.mark.slow
def test_interpreted():
    run_interpreted("not float64 and not float32")


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.parametrize(
    "target", [*(pytest.param(x, marks=pytest.mark.exhaustive) for x in ("cuda:80", "cuda:100")), "hip:gfx942"]
)
def test_compiled_without_a_device(target):
    """Some variants; ``python benchmarks/gpu_code.py --registers`` compiles all, which takes minutes.

    Tests below compile others for cuda:90.
    """
    _, _, *rows = run(GPU_CODE, "--registers", target, "--every", "31").splitlines()
    assert len(rows) == 3
    assert all(" 0 spilled" in row for row in rows), rows


@pytest.mark.triton
def test_instructions_of_a_block(monkeypatch):
    """Few for each input and neuron, and the weights of many inputs on their way together."""
    monkeypatch.syspath_prepend(GPU_CODE.parent)
    gpu_code = import_module("gpu_code")
    for name in ("forward fp32 leaky", "gradient fp32 weight"):
        variant = next(x for x in gpu_code.variants() if x.name == name)
        code = gpu_code.Code(variant.compiled(gpu_code.GPUTarget("cuda", 90, 32)).asm["cubin"])
        assert 4 < len(code.loop) / gpu_code.BLOCK / (gpu_code.TILE / gpu_code.LANES) <= 12
        assert code.in_flight >= gpu_code.BLOCK
        assert code.loads >= 4 * gpu_code.BLOCK
        assert code.spilled == 0


@pytest.mark.triton
@pytest.mark.parametrize("name", ["forward fp64 again leaky finite", "jump fp64 start ends bound"])
def test_float64_throughout(name, monkeypatch):
    """The interpreter computes numbers in float64 that would be in float32 in a kernel."""
    monkeypatch.syspath_prepend(GPU_CODE.parent)
    gpu_code = import_module("gpu_code")
    variant = next(x for x in gpu_code.variants() if x.name == name)
    assert "f32" not in variant.compiled(gpu_code.GPUTarget("cuda", 90, 32)).asm["ttir"]


def test_needs_a_gpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="backend 'triton' needs tensors on a CUDA or ROCm device, got cpu; use auto"):
        first_spike_time(torch.rand(2, 3), torch.rand(4, 3), LIF(), backend="triton")


@pytest.mark.parametrize("there", [True, False])
def test_automatic_choice(there, monkeypatch, caplog):
    """What ``auto`` takes on a GPU, with and without Triton; said once."""
    monkeypatch.setattr(backends, "find_spec", lambda name: there or None)
    monkeypatch.setattr(backends, "BACKENDS", {name: lambda name=name: name for name in backends.BACKENDS})
    backends._automatic.cache_clear()
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert backends._automatic("cuda") == ("triton" if there else "reference")
    backends._automatic.cache_clear()
    assert caplog.messages == [f"backend {'triton' if there else 'reference'} for tensors on cuda"]
