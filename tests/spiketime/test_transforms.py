"""The private parts of torch that calls take: they agree with the public way, which is taken where they are missing."""

import importlib.util
import sys
import types

import pytest
import torch
from torch.func import grad, jacrev, jvp, vjp, vmap

import firstspike as fs
from firstspike.spiketime import transforms

TIMES = 2 * torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
WEIGHTS = 2.5 + torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(1))
MOVE = torch.rand(6, 5, generator=torch.Generator().manual_seed(2))


def spikes(weight):
    return fs.first_spike_time(TIMES, weight, fs.LIF(2.0), backend="reference")


def trains(weight):
    options = {"max_spikes": 3, "overflow": "drop", "backend": "reference"}
    found = fs.spike_trains(TIMES[..., None], weight, fs.LIF(2.0), **options)
    return torch.where(found.isfinite(), found, 0.0)


def learnt(call, weight):
    weight = weight.clone().requires_grad_()
    found = call(weight)
    return found.detach(), *torch.autograd.grad(found.sum(), weight)


USES = {
    "plain": lambda call: learnt(call, WEIGHTS[0]),
    "mapped": lambda call: vmap(call)(WEIGHTS),
    "mapped twice": lambda call: vmap(vmap(call))(WEIGHTS[None]),
    "gradients": lambda call: grad(lambda weight: call(weight).sum())(WEIGHTS[0]),
    "mapped gradients": lambda call: vmap(grad(lambda weight: call(weight).sum()))(WEIGHTS),
    "gradients of mapped": lambda call: learnt(vmap(call), WEIGHTS),
    "Jacobian": lambda call: jacrev(call)(WEIGHTS[0]),
    "tangents": lambda call: jvp(call, (WEIGHTS[0],), (MOVE,)),
    "mapped tangents": lambda call: vmap(lambda weight: jvp(call, (weight,), (MOVE,))[1])(WEIGHTS),
    "after a transform": lambda call: vjp(call, WEIGHTS[0])[1](torch.ones_like(call(WEIGHTS[0]))),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch itself, in forward mode
@pytest.mark.parametrize("call", [spikes, trains])
@pytest.mark.parametrize("use", USES)
def test_calls_by_private_parts_of_torch_agree_with_public_ones(use, call, monkeypatch):
    private = USES[use](call)
    monkeypatch.setattr(transforms, "unwrap_if_dead", None)
    torch.testing.assert_close(private, USES[use](call), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["_C._functorch", "_functorch.pyfunctorch", "_functorch.autograd_function"])
def test_a_torch_that_lacks_them_is_called_the_public_way(name, monkeypatch):
    assert transforms.unwrap_if_dead is not None
    monkeypatch.setitem(sys.modules, f"torch.{name}", types.ModuleType(name))
    spec = importlib.util.spec_from_file_location("transforms_of_another_torch", transforms.__file__)
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)

    class Doubled(other.Direct):
        @staticmethod
        def forward(x):
            return 2 * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    assert other.unwrap_if_dead is None
    x = torch.tensor([1.0, 3.0], requires_grad=True)
    Doubled.apply(x).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
