"""Interleaved measurements, peak memory in a fresh process, and the table they end up in."""

import gc
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

INSTRUCTIONS = {"AVX512": "AVX-512", "DEFAULT": "SSE"}
GENERATIONS = {"23": "Zen 2", "25": "Zen 3", "26": "Zen 5"}  # of AMD, by family: virtual machines hide the model
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def clock_on(device: torch.device, name: str) -> Clock:
    """A clock that, for a GPU, is read when all work that it was given is done."""
    clock = CLOCKS[name]
    if device.type != "cuda":
        return clock

    def after_all() -> float:
        torch.cuda.synchronize(device)
        return clock()

    return after_all


@dataclass
class Table:
    """Rows of text under a heading; printed as they come."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        print(f"\n{self.title}\n" + "".join(f"{x:>27}" for x in self.columns), flush=True)

    def add(self, *cells: str) -> None:
        self.rows.append(list(cells))
        print("".join(f"{x:>27}" for x in cells), flush=True)

    def markdown(self) -> str:
        return f"## {self.title}\n\n{markdown([self.columns, *self.rows])}\n"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its heading."""
    heading, *others = rows
    return "\n".join("| " + " | ".join(line) + " |" for line in (heading, ["---"] * len(heading), *others))


def interleave(
    calls: dict[str, Callable[[], list[float]]], repeats: int, seconds: float = 20.0
) -> dict[str, list[list[float]]]:
    """Time ``calls`` in turn, so that whatever else the machine does hits all of them alike.

    Each call returns the times of its parts. The first round does not count; stops after ``repeats`` or ``seconds``.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in calls}
    gc.collect()
    start = time.perf_counter()
    for round_ in range(repeats + 1):
        for name, call in calls.items():
            parts = call()
            if round_:
                found[name].append(parts)
        if round_ and time.perf_counter() - start > seconds:
            break
    return found


def two_passes(make: Callable[[], torch.Tensor], grad: torch.Tensor, clock: Clock) -> Callable[[], list[float]]:
    """A call that times forward, backward and both."""

    def call() -> list[float]:
        start = clock()
        output = make()
        middle = clock()
        output.backward(grad)
        end = clock()
        return [middle - start, end - middle, end - start]

    return call


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and the quartiles around it."""
    if len(values) < 3:
        return f"{statistics.median(values):.{digits}f}"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def ratios(mine: list[list[float]], other: list[list[float]], part: int) -> list[float]:
    """Round by round, so that both were measured next to each other."""
    return [a[part] / b[part] for a, b in zip(mine, other, strict=True)]


def milliseconds(runs: list[list[float]], part: int) -> str:
    return spread([1e3 * x[part] for x in runs], 3)


def peak_memory(statement: str) -> float:
    """MiB by which ``statement``'s peak exceeds what is taken before it, in a fresh process (on the CPU, Linux).

    Setting ``clear_refs`` to 5 resets the kernel's own high-water mark of resident memory, ``VmHWM``. On a GPU it is
    the memory that torch allocated.
    """
    return float(in_fresh_process("timing, cases", f"timing.rise(*cases.memory_case({statement}))"))


def in_fresh_process(modules: str, expression: str) -> Any:
    """The value, which JSON can hold, of an expression that uses these modules, of this folder too."""
    code = f"import json, {modules}\nprint(json.dumps({expression}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def rise(device: torch.device, call: Callable[[], None]) -> float:
    """MiB by which the peak of a call exceeds what was taken before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        start = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - start) / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """A line of ``/proc/self/status`` in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no line {name}")


def labelled(peer: str) -> str:
    """A peer's name, whose first word is its distribution, with the version that is installed."""
    name, _, rest = peer.partition(" ")
    try:
        return f"{name.strip(',')} {version(name.strip(','))}{', ' if rest else ''}{rest}"
    except PackageNotFoundError:
        return peer


def machine(clock: str, device: torch.device, name: str | None = None) -> str:
    """What the numbers depend on; up to the semicolon the name of their run, with that of the processor if given."""
    model, info = name or platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if not name and info.exists():
        told = dict(re.findall(r"^([\w ]+?)\s*: (.+)", info.read_text(), re.MULTILINE))
        model = re.sub(r"\((R|TM)\)|@.*| CPU| Processor", "", told.get("model name", model)).strip()
        if model == "AMD EPYC":
            family = told["cpu family"]
            zen4 = family == "25" and "avx512f" in told["flags"]
            model += f", {'Zen 4' if zen4 else GENERATIONS.get(family, f'family {family}')}"
    capability = torch.backends.cpu.get_cpu_capability()
    model = f"{model}, {INSTRUCTIONS.get(capability, capability)}"
    versions = ", ".join(f"{x} {version(x)}" for x in ("torch", "numba", "numpy"))
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        model = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB; {model}"
        versions += f", CUDA {torch.version.cuda or f'(HIP {torch.version.hip})'}, triton {version('triton')}"
    return (
        f"{model}; {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch, {clock} time; "
        f"Python {platform.python_version()}, {versions}. Numbers are medians, with the quartiles in brackets."
    )
