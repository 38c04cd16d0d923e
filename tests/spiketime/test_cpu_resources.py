"""What the CPU kernels take of a machine: memory, threads after a fork, files on disk."""

import ctypes
import os
import platform
from pathlib import Path

import pytest
import torch

import forked
from firstspike import LIF, first_spike_time
from firstspike.spiketime import cpu, operator, shared
from firstspike.spiketime.cpu.runtime import compiling, parallel
from firstspike.spiketime.cpu.runtime.kernels import SIGNATURE
from firstspike.spiketime.reference import loop

LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux' count of memory")


def problem(samples=40, inputs=7, outputs=70, dtype=torch.float32):
    gen = torch.Generator().manual_seed(0)
    times = torch.rand(samples, inputs, generator=gen, dtype=dtype) * 2
    weight = (torch.randn(outputs, inputs, generator=gen, dtype=dtype) + 1) * 3 / inputs
    return times, weight


def run(code):
    found = forked.run_code(code)
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("learns", [False, True])
def test_memory_beside_the_output_is_bounded(learns):
    """Without gradients while it runs; with them, what stays afterwards."""
    peak, stays = run(
        f"""
import torch, firstspike as fs
def resident(name):
    lines = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Vm"))
    return int(lines[name].split()[0]) / 1024
weight = torch.full((64, 784), 0.01, requires_grad=True)
def spikes(times):
    with torch.set_grad_enabled({learns}):
        found = fs.first_spike_time(times, weight, fs.LIF(), backend="cpu")
    if {learns}:
        found.sum().backward()
    return found.detach()
spikes(torch.rand(8, 784))
times = torch.rand(20_000, 784) * 2
open("/proc/self/clear_refs", "w").write("5")
before = resident("VmRSS")
found = spikes(times)
assert found.isfinite().all()
output = found.numel() * 4 / 2**20
print(resident("VmHWM") - before - output, resident("VmRSS") - before - output)
"""
    )
    assert float(stays) < 100
    if not learns:
        assert float(peak) < 64


@pytest.mark.parametrize("delayed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_parts_without_gradient_are_the_whole(delayed, monkeypatch):
    times, weight = problem()
    delay = torch.rand(weight.shape) if delayed else None
    with torch.no_grad():
        whole = first_spike_time(times, weight, LIF(), delay=delay)
        monkeypatch.setattr(operator, "_AT_ONCE", 300)
        parted = first_spike_time(times, weight, LIF(), delay=delay)
        many = torch.func.vmap(lambda w: first_spike_time(times, w, LIF(), delay=delay))(torch.stack([weight, weight]))
    assert torch.equal(parted, whole)
    assert torch.equal(many[1], whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "backend", "part"),
    [
        (kind, *(("cpu", (1, 3, 80)[k % 3]) if of == "cpu" else (of, (1, 4 * 2 + 1)[k % 2])))
        for k, kind in enumerate(["shared", "learnt", "single", "delays", "single delays", "observed"])
        for of in ("cpu", "reference")
    ],
)
def test_parts_of_the_gradient_add_up_to_the_whole(kind, backend, part, monkeypatch):
    """Some samples of all networks at a time, at least one; the reference takes some pairs of all networks."""
    samples, outputs = (40, 70) if backend == "cpu" else (3, 4)
    times, weight = problem(samples, outputs=outputs, dtype=torch.float64)
    gen = torch.Generator().manual_seed(1)
    mem, delay = torch.rand(3, outputs, generator=gen).double() + 1, torch.rand(3, outputs, 7, generator=gen).double()

    def loss(times, weight, mem, delay):
        taus = {"learnt": (mem[0], mem[1]), "single": (mem, 1.0), "single delays": (mem, 1.0)}.get(kind, (1.5, 1.0))
        lif = LIF(*taus)
        observed = first_spike_time(times, weight, lif).detach() + 0.01 if kind == "observed" else None
        options = {"observed": observed, "max_weight_grad": 5.0, "backend": backend}
        spikes = first_spike_time(times, weight, lif, delay=delay if "delays" in kind else None, **options)
        return torch.where(spikes.isfinite(), spikes, 0.0).square().sum()

    given = times, torch.stack([weight, 1.1 * weight, weight - 0.1]), mem, delay
    gradient = torch.func.grad(loss, argnums=(0, 1, 2, 3))

    def gradients():
        return *torch.func.vmap(gradient, in_dims=(None, 0, 0, 0))(*given), *gradient(times, weight, mem[0], delay[0])

    whole = gradients()
    assert all(whole[k].any() for k in (0, 1, 4, 5))
    monkeypatch.setattr(cpu, "_MEMORY", part * 12 * (7 + 16) * 8)
    monkeypatch.setattr(loop, "_MEMORY", part * 60 * 11 * 8)
    for mine, theirs in zip(gradients(), whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("delayed", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_memory_of_the_reference_is_bounded(delayed):
    """As a whole, this would need almost 1 GiB."""
    (peak,) = run(
        f"""
import torch, firstspike as fs
def resident(name):
    lines = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Vm"))
    return int(lines[name].split()[0]) / 1024
times, weight = torch.rand(12, 392) * 2, torch.full((1600, 392), 0.032, requires_grad=True)
delay = torch.rand(1600, 392, requires_grad=True) if {delayed} else None
before = resident("VmRSS")
found = fs.first_spike_time(times, weight, fs.LIF(), delay=delay, backend="reference")
assert found.isfinite().all()
found.sum().backward()
print(resident("VmHWM") - before)
"""
    )
    assert float(peak) < 400


@pytest.mark.usefixtures("unguarded")
def test_large_scratch_memory_is_given_back(monkeypatch):
    times, weight = problem()
    first_spike_time(times, weight, LIF(), backend="cpu")
    assert parallel._local.kept is not None
    monkeypatch.setattr(parallel, "_KEPT", 100)
    first_spike_time(times, weight, LIF(), backend="cpu")
    assert parallel._local.kept is None


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept_for_the_next_call():
    """Results of 36 MB do not go back to the system, which would have to clear them again."""
    code = """
from resource import RUSAGE_SELF, getrusage
import torch, firstspike as fs

fs.first_spike_time(torch.zeros(1, 1), torch.ones(1, 1), fs.LIF())

def cleared():
    before = getrusage(RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(3 << 20) for _ in range(3)]
    return getrusage(RUSAGE_SELF).ru_minflt - before

print(cleared(), cleared(), cleared())
"""
    assert int(run(code)[-1]) < 100


@pytest.mark.slow
def test_tensors_on_the_cpu_where_the_default_device_is_another():
    code = """
import torch, firstspike as fs
torch.set_default_dtype(torch.float64)
def gradients():
    gen = torch.Generator().manual_seed(0)
    times, weight, delay = (torch.rand(n, 9, generator=gen, device="cpu", requires_grad=True) for n in (6, 4, 4))
    for neuron in (fs.LIF(), fs.LIF(torch.linspace(1, 2, 4, device="cpu"), 1.0)):
        for options in ({}, {"delay": delay}):
            for spikes in (
                fs.first_spike_time(times, weight, neuron, **options),
                fs.first_spike_time(times, weight, neuron, observed=torch.full((6, 4), 0.9, device="cpu"), **options),
                fs.spike_trains(times[..., None], weight, neuron, max_spikes=8, **options),
            ):
                spikes = torch.where(torch.isfinite(spikes), spikes, 0.0)
                yield spikes, *torch.autograd.grad(spikes.sum(), (times, weight))
mine = list(gradients())
torch.set_default_device("meta")
print(all(torch.equal(a, b) for x, y in zip(mine, gradients(), strict=True) for a, b in zip(x, y, strict=True)))
"""
    assert run(code) == ["True"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("openmp", [True, False])
def test_a_forked_process_works_in_one_thread(openmp):
    code = f"""
import os, torch, firstspike as fs
from firstspike.spiketime import shared
from firstspike.spiketime.cpu.runtime import parallel
if not {openmp}:
    parallel._openmp = lambda: None
torch.set_num_threads(2)
times, weight = torch.rand(128, 200) * 2, torch.full((400, 200), 0.04, requires_grad=True)
assert not shared.is_small(shared.work_of(128, 200, 400))
def both():
    spikes = fs.first_spike_time(times, weight, fs.LIF(), backend="cpu")
    return spikes.detach(), *torch.autograd.grad(spikes.sum(), weight)
mine = both()
child = os.fork()
if child == 0:
    alike = all(torch.equal(a, b) for a, b in zip(mine, both()))
    torch.rand(500, 500) @ torch.rand(500, 500)
    torch.set_num_threads(2)  # even so
    os._exit(0 if alike and shared.threads_for(10**9) == 1 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shared.threads_for(10**9))
"""
    assert run(code) == ["0", "2"]


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbage": lambda content: bytes(range(256)) * 10,
    "text": lambda content: b"not a kernel",
    "another pickle": lambda content: b"\x80\x04K\x07.",
    "one character": lambda content: content.replace(b"const(int, 7)", b"const(int, 8)"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_kernel_on_disk_is_compiled_anew(damage, tmp_path, monkeypatch, caplog):
    def kernel(a):
        a[0] = 7

    compilations = []
    monkeypatch.setattr(compiling, "folder", lambda: tmp_path)
    monkeypatch.setattr(shared, "listeners", [lambda: compilations.append(1)])

    def seven():
        place = (ctypes.c_int64 * 1)()
        compiling.c_function(SIGNATURE)(kernel).ctypes(place)
        return place[0]

    assert seven() == seven() == 7
    assert len(compilations) == 1
    (path,) = tmp_path.iterdir()
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert seven() == 7
    assert len(compilations) == 2
    assert "dropped what cannot be read of the compiled kernels" in caplog.text
    assert seven() == 7
    assert len(compilations) == 2, "what was compiled anew is whole"


def test_the_file_of_another_kernel_is_compiled_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "folder", lambda: tmp_path)

    def seven(a):
        a[0] = 7

    def eight(a):
        a[0] = 8

    def found(kernel):
        place = (ctypes.c_int64 * 1)()
        compiling.c_function(SIGNATURE)(kernel).ctypes(place)
        return place[0]

    assert (found(seven), found(eight)) == (7, 8)
    one, other = tmp_path.iterdir()
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert (found(seven), found(eight)) == (7, 8)
