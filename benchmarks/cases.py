"""What is measured: layers on random times, on images, and the dense layer that they are compared with."""

import gzip
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from firstspike.neurons import LIF
from firstspike.spiketime import first_spike_time, spike_trains

LATEST = 2.0  # input times lie in [0, LATEST], in units of tau_syn
FASHION = Path("/usr/share/datasets/fashion-mnist")


class Case(NamedTuple):
    """A layer and a batch for it."""

    times: Tensor
    weight: Tensor
    neuron: Any
    delay: Tensor | None = None
    receptor: str | list[int] | None = None
    until: float = math.inf

    def layer(self, backend: str = "auto") -> Tensor:
        options: Any = {"delay": self.delay, "receptor": self.receptor, "backend": backend}
        return first_spike_time(self.times, self.weight, self.neuron, **options)

    def trains(self, most: int) -> Tensor:
        options: Any = {"max_spikes": most, "overflow": "drop", "receptor": self.receptor, "until": self.until}
        return spike_trains(self.times.unsqueeze(-1), self.weight, self.neuron, **options)

    def grad(self) -> Tensor:
        shape = (self.times.shape[0], self.weight.shape[0])
        grad = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=self.times.dtype)
        return grad.to(self.times.device)

    def to(self, device: torch.device) -> "Case":
        """The same on a device; leaves stay leaves."""
        delay = None if self.delay is None else self.delay.to(device)
        return self.leaves(self.times.to(device), self.weight.to(device))._replace(delay=delay)

    def leaves(self, times: Tensor, weight: Tensor) -> "Case":
        """The same with other values, which get gradients."""
        return self._replace(times=times.detach().requires_grad_(), weight=weight.detach().requires_grad_())


def uniform(
    batch: int,
    inputs: int,
    outputs: int,
    ratio: float = 1.0,
    dtype: torch.dtype = torch.float32,
    delayed: bool = False,
) -> Case:
    """Uniform random times; weights such that neurons fire after a third of their inputs on average. On the CPU."""
    gen = torch.Generator().manual_seed(0)
    times = torch.rand(batch, inputs, generator=gen, dtype=dtype) * LATEST
    weight = torch.randn(outputs, inputs, generator=gen, dtype=dtype) * 0.5 + 1
    delay = torch.rand(outputs, inputs, generator=gen, dtype=dtype) if delayed else None
    return scaled(Case(times, weight, LIF(tau_mem=ratio), delay))


def neurons(case: Case, learns: bool) -> tuple[LIF, LIF]:
    """The case's neurons with tensors as time constants: the same for all, and up to a fifth more for each."""
    outputs, gen = case.weight.shape[0], torch.Generator().manual_seed(1)

    def constants(spread: float) -> LIF:
        mem, syn = (
            (tau * (1 + spread * torch.rand(outputs, generator=gen))).to(case.weight).requires_grad_(learns)
            for tau in (case.neuron.tau_mem, case.neuron.tau_syn)
        )
        return LIF(mem, syn)

    return constants(0.0), constants(0.2)


def scaled(case: Case, arrived: float = 1 / 3) -> Case:
    """The weights scaled until that part of the (finite) inputs has arrived at the mean spike."""
    finite = case.times[torch.isfinite(case.times)].sort().values
    target = finite[int(arrived * (len(finite) - 1))].item()
    if case.delay is not None:
        target += case.delay.mean().item()
    sample = case.times[:16]
    low, high = 1e-6, 1e3
    with torch.no_grad():
        for _ in range(40):
            factor = math.sqrt(low * high)
            spikes = case._replace(times=sample, weight=case.weight * factor).layer("cpu")
            late = spikes.clamp(max=2 * finite[-1].item() + 10).mean().item() > target
            low, high = (factor, high) if late else (low, factor)
    return case.leaves(case.times, case.weight * high)


def several(case: Case, wanted: float, most: int = 30) -> tuple[Case, Callable[[], Tensor]]:
    """The case with weights with which neurons spike so often on average, and the layer of spike trains."""

    low, high = 1e-2, 1e2
    with torch.no_grad():
        for _ in range(20):
            factor = math.sqrt(low * high)
            found = case._replace(times=case.times[:16], weight=case.weight * factor).trains(most)
            often = torch.isfinite(found).sum().item() > wanted * found[..., 0].numel()
            low, high = (low, factor) if often else (factor, high)
    case = case.leaves(case.times, case.weight * low)
    return case, lambda: case.trains(most)


def dense(case: Case) -> Callable[[], Tensor]:
    """``Linear`` and softplus of the same shape and dtype, with a gradient by the same things."""
    outputs, inputs = case.weight.shape
    like = {"dtype": case.times.dtype, "device": case.times.device}
    linear = torch.nn.Linear(inputs, outputs, **like)
    x = torch.rand(case.times.shape, requires_grad=True, **like)
    return lambda: torch.nn.functional.softplus(linear(x))


def images(silent: bool, batch: int = 128, outputs: int = 512, folder: Path = FASHION) -> tuple[str, Case]:
    """Brightness as time, bright first; the background never spikes or comes at the late time."""
    name, pixels = _pixels(folder)
    pixels = pixels[:batch]
    times = 0.15 + (LATEST - 0.15) * (1 - pixels)
    if silent:
        times = torch.where(pixels == 0, torch.full_like(times, math.inf), times)
    weight = torch.randn(outputs, times.shape[1], generator=torch.Generator().manual_seed(0)) * 0.5 + 1
    blank = (pixels == 0).float().mean().item()
    return f"{name}, {blank:.0%} background", scaled(Case(times, weight, LIF()))


def _pixels(folder: Path) -> tuple[str, Tensor]:
    """Images (n, pixels) with values in [0, 1]: idx files (also .gz) of a folder, else scikit-learn's digits."""
    for file in sorted(folder.glob("train-images*idx3-ubyte*")) if folder.is_dir() else []:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        count, height, width = (int.from_bytes(data[at : at + 4], "big") for at in (4, 8, 12))
        raw = torch.frombuffer(bytearray(data[16:]), dtype=torch.uint8)
        return folder.name, raw.reshape(count, height * width)[:1024].float() / 255
    from sklearn.datasets import load_digits

    return "digits", torch.as_tensor(load_digits().data, dtype=torch.float32) / 16


def memory_case(name: str, on: str, batch: int, inputs: int, outputs: int) -> tuple[torch.device, Callable[[], None]]:
    """A device, and a forward and backward pass of the named kind; compiled and warmed up on something small."""
    device = torch.device(on)
    small, case = uniform(4, 32, 8).to(device), uniform(batch, inputs, outputs).to(device)
    grad = case.grad()
    linear = dense(case)

    def run(which: Case) -> None:
        which.layer(name).backward(which.grad())

    if name == "linear":
        dense(small)().backward(small.grad())  # libraries take working memory at their first call
        return device, lambda: linear().backward(grad)
    run(small)
    # ``scaled`` ran on the full inputs: give its working memory back
    from firstspike.spiketime.cpu.runtime import parallel

    parallel._local.kept = None
    return device, lambda: case.layer(name).backward(grad)
