"""What to measure first on a GPU, in a few minutes: is it right, how fast is it, what waits, does it learn?"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from cases import dense, uniform
from sections import AGAINST, Settings, compare
from timing import Table
from torch import Tensor

from firstspike import LIF, first_spike_time
from firstspike.config import build, build_data, load_config
from firstspike.spiketime import TrainState, spike_window

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
SHAPES = ((128, 784, 512), (256, 1024, 1024), (1024, 1024, 1024))
RECURRENT = "{kind: recurrent, out_features: 20, max_spikes: 30, duration: 12.0, window: 1.0, overflow: drop}"
TRAININGS = {
    "images (digits)": ("digits", ["data.train=1200", "training.epochs=10"]),
    "spike trains (delayed_xor)": ("delayed_xor", ["training.epochs=10"]),
    "recurrent (delayed_xor)": ("delayed_xor", ["training.epochs=3", f"network[0]={RECURRENT}"]),
}

Problem = Callable[[str, Tensor | None], tuple[Tensor, Sequence[Tensor]]]
"""Spikes and gradients of a backend, at given spikes if there are any."""


def correct(settings: Settings, shape: tuple[int, int, int] = (16, 300, 130), backend: str = "auto") -> Table:
    """A backend, by default that of the device, against plain PyTorch there; gradients at the same spikes."""
    table = Table(
        "Against plain PyTorch on the same device",
        ("problem", "dtype", "spikes", "another count", "largest difference", "of gradients", "verdict"),
    )
    for dtype, tolerance in TOLERANCE.items():
        for name, problem in _problems(dtype, settings.device, shape).items():
            wanted, _ = problem("reference", None)
            found, _ = problem(backend, None)
            there = wanted.isfinite() & found.isfinite()
            wrong = int((wanted.isfinite() != found.isfinite()).sum())
            off = float(torch.where(there, found - wanted, 0.0).abs().max())
            gradients = [problem(of, wanted)[1] for of in (backend, "reference")]
            by = max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(*gradients, strict=True))
            few = wrong <= (0 if dtype == torch.float64 else 0.002 * wanted.numel())
            right = few and off < tolerance and by < tolerance
            cells = (str(int(there.sum())), str(wrong), f"{off:.1e}", f"{by:.1e}", "right" if right else "WRONG")
            table.add(name, str(dtype).removeprefix("torch."), *cells)
    return table


def _problems(dtype: torch.dtype, device: torch.device, shape: tuple[int, int, int]) -> dict[str, Problem]:
    batch, inputs, outputs = shape
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, dtype=torch.float64).to(device, dtype)

    times, weight = 2 * draw(batch, inputs), (3 * draw(outputs, inputs) - 1) * 6 / inputs
    times[:, ::7] = times[:, :1]
    times[:, 5::11] = math.inf
    delay, own = draw(outputs, inputs), LIF(1 + draw(outputs), 0.5 + draw(outputs))
    state = TrainState(draw(batch, outputs) / 2, draw(batch, outputs), draw(batch, outputs) / 4, 0.1)

    def first(neuron: LIF, delay: Tensor | None = None) -> Problem:
        def run(backend: str, observed: Tensor | None) -> tuple[Tensor, Sequence[Tensor]]:
            x, w = (leaf.clone().requires_grad_() for leaf in (times, weight))
            spikes = first_spike_time(x, w, neuron, delay=delay, observed=observed, backend=backend)
            return spikes.detach(), torch.autograd.grad(_finite(spikes).sin().sum(), (x, w))

        return run

    def trains(backend: str, observed: Tensor | None) -> tuple[Tensor, Sequence[Tensor]]:
        x, w, *start = (leaf.clone().requires_grad_() for leaf in (times, 4 * weight, *state[:3]))
        options: dict[str, Any] = {"max_spikes": 12, "overflow": "drop", "backend": backend}
        now = TrainState(*start, state.time)
        lif = LIF(2.0, refractory=0.05)
        found, after, _ = spike_window(x.unsqueeze(-1), w, lif, state=now, until=1.5, observed=observed, **options)
        assert after is not None
        return found.detach(), torch.autograd.grad(_finite(found).sin().sum() + after.voltage.sum(), (x, w, *start))

    return {
        "first spikes": first(LIF(1.37)),
        "no leak": first(LIF(math.inf)),
        "own time constants": first(own),
        "delays": first(LIF(2.0), delay),
        "spike trains in a window": trains,
    }


def _finite(x: Tensor) -> Tensor:
    return torch.where(x.isfinite(), x, 0.0)


def layers(settings: Settings, shapes: Sequence[tuple[int, int, int]] = SHAPES) -> Table:
    """Against a dense layer whose products are in float32, and in TF32, which has 10 bits."""
    table = Table("Uniform random times, against Linear + softplus", ("shape", "products", *AGAINST))
    before = torch.get_float32_matmul_precision()
    try:
        for shape in shapes:
            case = uniform(*shape, 1.37, settings.dtype).to(settings.device)
            for name, precision in (("float32", "highest"), ("TF32", "high")):
                torch.set_float32_matmul_precision(precision)
                cells = compare(dense(case), case.layer, case.grad(), settings)
                table.add("x".join(map(str, shape)), name, *cells)
    finally:
        torch.set_float32_matmul_precision(before)
    return table


@contextmanager
def _watched(device: torch.device) -> Iterator[list[str]]:
    """What waits for a GPU meanwhile, as torch says."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    found += [f"{x.filename.rpartition('/')[2]}:{x.lineno}" for x in said if "synchroniz" in str(x.message)]


def trainings(settings: Settings, names: Sequence[str] = tuple(TRAININGS), epochs: int | None = None) -> Table:
    """A few epochs of shipped configs: what they cost and reach, and what waits in the second one."""
    table = Table("Trainings", ("config", "epochs", "first epoch s", "later epochs s", "accuracy", "waits of an epoch"))
    for name in names:
        of, options = TRAININGS[name]
        config = load_config(of, [*options, f"training.device={settings.device}"])
        splits, training = build_data(config), config.training
        trainer, most = build(config, splits), epochs or training.epochs
        options_of_fit: dict[str, Any] = {"batch_size": training.batch_size, "progress_bar": False}
        seconds, waits = [], []
        for last in range(1, most + 1):
            start = time.perf_counter()
            with _watched(settings.device) as waits_now:
                trainer.fit(splits.train, epochs=last, **options_of_fit)
            seconds.append(time.perf_counter() - start)
            waits.append(waits_now)
        right = trainer.evaluate(splits.test).accuracy
        later = f"{sum(seconds[1:]) / (most - 1):.2f}" if most > 1 else "-"
        places = ", ".join(sorted(set(waits[-1]))) or "none seen"
        table.add(name, str(most), f"{seconds[0]:.2f}", later, f"{right:.1%}", f"{len(waits[-1])} ({places})")
    return table


FIRST: dict[str, Callable[[Settings], Table]] = {"correct": correct, "layers": layers, "trainings": trainings}
