"""One function for each part of the report."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from cases import Case, dense, images, neurons, scaled, several, uniform
from epochs import CONFIGS, SAMPLES, epochs
from heidelberg import heidelberg
from peers import PEERS
from recurrent import INPUTS, NEURONS, STEPS, Call, sequences
from recurrent import PEERS as RECURRENT
from recurrent import ours as recurrent_layer
from solvers import COLUMNS
from solvers import rows as solver_rows
from timing import Table, clock_on, interleave, labelled, milliseconds, peak_memory, ratios, spread, two_passes
from torch import Tensor

from firstspike.neurons import EIF, LIF, QIF, AdaptiveLIF, AdEx, AdLIF, ConductanceLIF, Izhikevich

SHAPES = ((150, 5, 30), (50, 256, 128), (128, 784, 512), (256, 1024, 1024), (1024, 1024, 1024))
RATIOS = (1.0, 2.0, 1.37)
NAMED: list[tuple[Any, float, float]] = [
    (QIF(), 1.0, 1.0),
    (QIF(threshold=10.0, reset=-10.0), 1.0, 1.0),
    (EIF(), 1.0, 1.0),
    (AdLIF(), 1.0, 1.0),
    (ConductanceLIF(), 1.0, 1.0),
    (Izhikevich(), 5.0, 1.0),
    (AdEx(), 5.0, 100.0),
]
"""Neurons, synaptic time constants, and about how strong their weights are."""
_TOO_BIG = 4 << 30  # bytes that a peer may need at least


class Settings(NamedTuple):
    """Command-line options that sections heed."""

    repeats: int
    clock: str
    dtype: torch.dtype
    folder: Path
    device: torch.device = torch.device("cpu")


AGAINST = ("dense ms", "forward ms", "backward ms", "forward ratio", "backward ratio", "both ratio")


def against_dense(case: Case, settings: Settings) -> list[str]:
    """Cells for the columns ``AGAINST``."""
    case = case.to(settings.device)
    return compare(dense(case), case.layer, case.grad(), settings)


def compare(
    one: Callable[[], Tensor],
    another: Callable[[], Tensor],
    grad: Tensor,
    settings: Settings,
    own: Tensor | None = None,
) -> list[str]:
    """Milliseconds of the one, then of both passes of the other, and its times as ratios.

    Both have the same gradient of their outputs, unless the other has its ``own``.
    """
    clock = clock_on(settings.device, settings.clock)
    passes = two_passes(another, grad if own is None else own, clock)
    runs = interleave({"one": two_passes(one, grad, clock), "another": passes}, settings.repeats)
    mine, other = runs["another"], runs["one"]
    return [
        milliseconds(other, 2),
        milliseconds(mine, 0),
        milliseconds(mine, 1),
        *(spread(ratios(mine, other, part)) for part in range(3)),
    ]


def shapes(settings: Settings) -> Table:
    table = Table("Uniform random times, against Linear + softplus", ("shape", "tau ratio", *AGAINST))
    for shape in SHAPES:
        for ratio in RATIOS:
            table.add(
                "x".join(map(str, shape)),
                f"{ratio:g}",
                *against_dense(uniform(*shape, ratio, settings.dtype), settings),
            )
    return table


def pictures(settings: Settings) -> Table:
    table = Table("A batch of images, against Linear + softplus", ("images", "background", *AGAINST))
    for silent in (True, False):
        name, case = images(silent, folder=settings.folder)
        table.add(name, "silent" if silent else "late", *against_dense(case, settings))
    return table


def memory(settings: Settings) -> Table:
    table = Table(
        "Peak memory of forward + backward in a fresh process, results included, MiB",
        ("shape", "spikes", "Linear + softplus"),
    )
    for shape in SHAPES[2:]:
        place = str(settings.device)
        sizes = (peak_memory(f"{name!r}, {place!r}, {', '.join(map(str, shape))}") for name in ("auto", "linear"))
        table.add("x".join(map(str, shape)), *(f"{size:.1f}" for size in sizes))
    return table


def scaling(settings: Settings) -> Table:
    table = Table("Scaling", ("shape", "threads", *AGAINST))
    base = {"batch": 128, "inputs": 512, "outputs": 512}
    for name in base:
        for size in (64, 256, 1024, 2048):
            shape = {**base, name: size}
            case = uniform(**shape, dtype=settings.dtype)
            table.add("x".join(map(str, shape.values())), str(torch.get_num_threads()), *against_dense(case, settings))
    if settings.device.type != "cpu":  # threads do nothing there
        return table
    case, most = uniform(128, 784, 512, dtype=settings.dtype), torch.get_num_threads()
    try:
        for threads in sorted({1, *(2**k for k in range(1, 7) if 2**k < most), most}):
            torch.set_num_threads(threads)
            table.add("128x784x512", str(threads), *against_dense(case, settings))
    finally:
        torch.set_num_threads(most)
    return table


def delays(settings: Settings) -> Table:
    table = Table("With synaptic delays, against Linear + softplus", ("shape", "tau ratio", *AGAINST))
    for shape in ((150, 5, 30), (128, 64, 64)):
        for ratio in RATIOS:
            case = uniform(*shape, ratio, settings.dtype, delayed=True)
            table.add("x".join(map(str, shape)), f"{ratio:g}", *against_dense(case, settings))
    return table


def constants(settings: Settings) -> Table:
    table = Table(
        "Time constants per neuron, against shared ones",
        ("shape", "learn", "shared ms", "forward ms", "backward ms", "forward ratio", "backward ratio", "both ratio"),
    )
    for shape in ((150, 5, 30), (128, 64, 64), (128, 784, 512)):
        case = uniform(*shape, 1.37, settings.dtype).to(settings.device)
        for learns in (False, True):
            shared, own = (case._replace(neuron=neuron) for neuron in neurons(case, learns))
            runs = compare(shared.layer, own.layer, case.grad(), settings)
            table.add("x".join(map(str, shape)), "yes" if learns else "no", *runs)
    return table


def trains(settings: Settings) -> Table:
    table = Table(
        "Several spikes, against first spikes with the same weights",
        ("shape", "spikes", "first ms", "forward ms", "backward ms", "forward ratio", "backward ratio", "both ratio"),
    )
    case, layer = several(uniform(128, 784, 512, 1.37, settings.dtype).to(settings.device), 4.0)
    there = torch.isfinite(layer())
    grad = torch.where(there, 1.0, 0.0).to(settings.dtype)
    count = f"{there.sum().item() / there[..., 0].numel():.1f}"
    table.add("128x784x512", count, *compare(case.layer, layer, case.grad(), settings, grad))
    return table


def linear(settings: Settings) -> Table:
    table = Table(
        "Other linear neurons, against LIF with as many spikes",
        ("shape", "neuron", "spikes", "LIF ms", "forward ms", "backward ms", *AGAINST[3:]),
    )
    for shape in ((100, 60, 60), (128, 784, 512)):
        plain = uniform(*shape, 2.0, settings.dtype).to(settings.device)
        halves = [index % 2 for index in range(shape[1])]
        others = {
            "two receptors": plain._replace(neuron=LIF(2.0, (1.0, 0.7)), receptor=halves),
            "two receptors, by sign": plain._replace(neuron=LIF(2.0, (1.0, 0.7)), receptor="sign"),
            "adaptation current": plain._replace(neuron=AdaptiveLIF(2.0, adaptation=[(5.0, 0.3)])),
            "adaptive threshold": plain._replace(neuron=AdaptiveLIF(2.0, threshold_adaptation=[(5.0, 0.3)])),
        }
        size, (_, trains_of_lif) = "x".join(map(str, shape)), several(plain, 3.0)
        for name, case in others.items():
            own = scaled(case)
            table.add(size, name, "first", *compare(plain.layer, own.layer, plain.grad(), settings))
            _, own_trains = several(case, 3.0)
            grads = [torch.where(torch.isfinite(x), 1.0, 0.0).to(x) for x in (trains_of_lif(), own_trains())]
            table.add(size, name, "3", *compare(trains_of_lif, own_trains, grads[0], settings, grads[1]))
    return table


def equations(settings: Settings) -> Table:
    table = Table(
        "Neurons from equations, against trains of LIF with as many spikes",
        ("shape", "neuron", "spikes", "LIF ms", "forward ms", "backward ms", *AGAINST[3:]),
    )
    shape = (100, 60, 60)
    size, plain = "x".join(map(str, shape)), uniform(*shape, 2.0, settings.dtype).to(settings.device)
    _, of_lif = several(plain, 3.0)
    halves = [index % 2 for index in range(shape[1])]
    for neuron, unit, strength in NAMED:
        case = plain._replace(neuron=neuron, until=6.0 * unit).leaves(unit * plain.times, strength * plain.weight)
        if len(neuron.receptors) > 1:
            case = case._replace(receptor=halves).leaves(case.times, case.weight.abs())
        _, own = several(case, 3.0)
        grads = [torch.where(torch.isfinite(x), 1.0, 0.0).to(x) for x in (of_lif(), own())]
        table.add(size, type(neuron).__name__, "3", *compare(of_lif, own, grads[0], settings, grads[1]))
    return table


def eventax(settings: Settings) -> Table:
    table = Table("Eventax, which integrates equations by an ODE solver, in one thread", COLUMNS)
    most = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for row in solver_rows():
            table.add(*row)
    except ImportError as error:
        table.add(f"not measured: {error}", *["-"] * (len(COLUMNS) - 1))
    finally:
        torch.set_num_threads(most)
    return table


def training(settings: Settings) -> Table:
    table = Table(
        "An epoch: batches, loss, gradient, Adam; against a dense network with ReLU",
        ("config", "layers", "samples", "dense s", "spikes s", "ratio"),
    )
    for name in CONFIGS:
        layers, calls = epochs(name, settings.folder, clock_on(settings.device, settings.clock), settings.device)
        runs = interleave(calls, settings.repeats, seconds=60)
        samples = CONFIGS[name]
        seconds = (spread([x[0] * samples / SAMPLES for x in runs[kind]]) for kind in ("dense", "spikes"))
        table.add(f"`{name}`", layers, str(samples), *seconds, spread(ratios(runs["spikes"], runs["dense"], 0)))
    return table


def peers(settings: Settings) -> Table:
    table = Table(
        "Other libraries at tau ratio 2, forward + backward",
        ("shape", "library", "theirs ms", "ours ms", "theirs / ours"),
    )
    clock, gpu = clock_on(settings.device, settings.clock), settings.device.type == "cuda"
    most = torch.cuda.get_device_properties(settings.device).total_memory if gpu else _TOO_BIG
    for shape in SHAPES if gpu else SHAPES[:3]:  # most need too much memory for more
        case = uniform(*shape, 2.0).to(settings.device)
        for label, peer in PEERS.items():
            if label == "BATS" and not gpu:
                continue
            name, size = labelled(label), "x".join(map(str, shape))
            if "steps" not in label and 4 * shape[0] * shape[1] * shape[2] * 16 > most:
                table.add(size, name, "too much memory", "-", "-")
                continue
            try:
                start = time.perf_counter()
                other = peer(case)
                first = other()
                first.backward(torch.ones_like(first))
                took = time.perf_counter() - start
            except ModuleNotFoundError as error:
                table.add(size, name, f"no {error.name}", "-", "-")
                continue
            except (RuntimeError, ValueError) as error:
                why = "too much memory" if "alloc" in str(error) else f"fails: {str(error)[:40]}"
                table.add(size, name, why, "-", "-")
                continue
            grad = torch.ones_like(first)
            runs = interleave(
                {"other": two_passes(other, grad, clock), "ours": two_passes(case.layer, case.grad(), clock)},
                1 if took > 5 else min(settings.repeats, 10),
            )
            ratio = spread(ratios(runs["other"], runs["ours"], 2), 0)
            table.add(size, name, milliseconds(runs["other"], 2), milliseconds(runs["ours"], 2), ratio)
    return table


def recurrence(settings: Settings) -> Table:
    title = f"Recurrent layers, {INPUTS} inputs, {NEURONS} neurons, {STEPS} delays of duration, forward + backward"
    table = Table(title, ("batch", "library", "spikes of a neuron", "theirs ms", "ours ms", "theirs / ours"))
    clock = clock_on(settings.device, settings.clock)

    def timed(call: Call) -> Callable[[], list[float]]:
        def once() -> list[float]:
            start = clock()
            _, total = call()
            if total is not None:
                total.backward()
            return [clock() - start]

        return once

    for batch in (32, 64):
        case = sequences(batch)
        mine = recurrent_layer(case)
        others = {"ours, refractory for half a delay": partial(recurrent_layer, refractory=0.5), **RECURRENT}
        for label, peer in others.items():
            name = labelled(label)
            try:
                start = time.perf_counter()
                other = peer(case)
                spikes, _ = other()
                took = time.perf_counter() - start
            except ModuleNotFoundError as error:
                table.add(str(batch), name, f"no {error.name}", "-", "-", "-")
                continue
            runs = interleave(
                {"other": timed(other), "ours": timed(mine)}, 1 if took > 10 else min(settings.repeats, 10), seconds=60
            )
            cells = (milliseconds(runs["other"], 0), milliseconds(runs["ours"], 0))
            table.add(str(batch), name, f"{spikes:.1f}", *cells, spread(ratios(runs["other"], runs["ours"], 0), 1))
        table.add(str(batch), "ours", f"{mine()[0]:.1f}", "-", "-", "-")
    return table


def start(settings: Settings) -> Table:
    """``firstspike train bars`` where no kernel was compiled before, and once more."""
    table = Table("First use: firstspike train bars", ("kernels", "seconds", "cache MiB"))
    with tempfile.TemporaryDirectory() as cache:
        for kernels in ("not compiled yet", "compiled"):
            begin = time.perf_counter()
            command = [sys.executable, "-m", "firstspike", "train", "bars", "--quiet", "--out", f"{cache}/{kernels}"]
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "XDG_CACHE_HOME": cache})
            took = time.perf_counter() - begin
            size = sum(x.stat().st_size for x in Path(cache, "firstspike").rglob("*") if x.is_file())
            table.add(kernels, f"{took:.1f}", f"{size / 2**20:.1f}")
    return table


SECTIONS: dict[str, Callable[[Settings], Table]] = {
    "shapes": shapes,
    "images": pictures,
    "memory": memory,
    "scaling": scaling,
    "delays": delays,
    "constants": constants,
    "trains": trains,
    "linear": linear,
    "equations": equations,
    "eventax": eventax,
    "training": training,
    "peers": peers,
    "recurrence": recurrence,
    "heidelberg": lambda settings: heidelberg(),
    "start": start,
}
