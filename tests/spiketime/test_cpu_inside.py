"""Numba's private parts: kernels compute the same the public way, which is taken where a version of Numba lacks one."""

import pytest

import forked

LACKS = {
    "nothing": "",
    "a module": "sys.modules['firstspike.spiketime.cpu.runtime.inside'] = None",
    "a name": "import numba.np.arrayobj; del numba.np.arrayobj.fix_integer_index",
}
SMALL = """
import numba
from numba.core import types
from firstspike.spiketime import shared
from firstspike.spiketime.cpu.runtime import compiling
from firstspike.spiketime.cpu.runtime.compiling import c_function, chosen_by_type, emitted, inlined, jit

@jit
def power(x, n):
    found = 1
    for _ in range(n):
        found = found * x
    return found

@inlined
def shifted(x):
    return x + 1 / 3

@jit
def inverse(x):
    return 1 / x

@chosen_by_type
def halved(x):
    return (lambda x: x / 2) if isinstance(x, types.Float) else (lambda x: x // 2)

@emitted(lambda x: types.float64(types.float64))
def negative(context, builder, sig, x):
    return builder.fneg(x)

compiled = []
shared.listeners.append(lambda: compiled.append(1))
for _ in range(2):
    @c_function(numba.float64(numba.float64))
    def kernel(x):
        return negative(power(shifted(x), 3)) + power(halved(x), 2) + halved(7) + halved(x) + inverse(inverse(x - x))
    print(kernel.ctypes(0.7).hex())
print(compiling.inside is None, len(compiled))
"""
SPIKES = """
import hashlib
import torch, firstspike as fs

def parts(dtype, call):
    gen = torch.Generator().manual_seed(0)
    times, weight, delay = (torch.rand(n, 9, generator=gen, dtype=dtype, requires_grad=True) for n in (5, 17, 17))
    for neuron in (fs.LIF(), fs.LIF(1.37)):
        spikes = call(times, weight, neuron, delay)
        spikes = torch.where(spikes.isfinite(), spikes, 0.0)
        yield spikes.detach()
        yield from torch.autograd.grad(spikes.square().sum(), (times, weight, delay))

def trains(times, weight, neuron, delay):
    options = dict(max_spikes=4, overflow="drop", backend="cpu")
    return fs.spike_trains(times[..., None], weight, neuron, delay=delay, **options)

print(hashlib.sha256(b"".join(x.numpy().tobytes() for x in parts(torch.float32, trains))).hexdigest())
"""


def printed(program, lacks, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_CACHE_DIR", str(folder))
        found = forked.run_code(f"import sys\n{LACKS[lacks]}\n{program}")
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


@pytest.mark.parametrize("lacks", ["a module", pytest.param("a name", marks=pytest.mark.slow)])
def test_a_kernel_is_the_same_the_public_way(lacks, tmp_path):
    *private, how = printed(SMALL, "nothing", tmp_path)
    assert how == "False 1", "the second kernel is the first one's file"
    assert printed(SMALL, lacks, tmp_path) == [*private, "True 2"]


@pytest.mark.slow
@pytest.mark.exhaustive  # compiles all twice
def test_spikes_and_gradients_are_the_same_the_public_way(tmp_path):
    assert printed(SPIKES, "nothing", tmp_path) == printed(SPIKES, "a module", tmp_path)
