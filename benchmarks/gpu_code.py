"""What GPUs would execute, read from machine code on a machine without one: ``python benchmarks/gpu_code.py``.

Triton compiles each kernel and ships NVIDIA's disassembler. The tables count what the kernels do in their loop over
the inputs, on the shortest way once around it, which it takes as long as no neuron of the tile needs anything special.
From the counts follows an estimate of the time of a layer, beside one of a dense layer. It is no measurement.
"""

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from firstspike.spiketime.triton import kernels

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
TILE, LANES = 64, 32
BLOCK = getattr(kernels, "BLOCK", 1)  # inputs of a turn of the loop
NUMBERS = {"batch", "inputs", "outputs", "chunks", "first_tile"}
WHOLE = {"order", "count"}
SHAPES = ((128, 784, 512), (1024, 1024, 1024))
ARRIVED = 1 / 3  # of the inputs when a neuron spikes
BUSY = 0.7  # part of the peak that a dense layer reaches
LATENCY = 280  # cycles until the second-level cache answers
RESIDENT = 8  # programs of a scheduler at the same time
LONE = 2  # cycles for each instruction of a program that is alone


class Device(NamedTuple):
    """What is published of a GPU: multiprocessors of four schedulers, GHz, and 10^12 operations a second."""

    name: str
    arch: int
    multiprocessors: int
    clock: float
    fp32: float
    tf32: float


DEVICES = (
    Device("A100", 80, 108, 1.41, 19.5, 156),
    Device("H100", 90, 132, 1.83, 67, 495),
    Device("B200", 100, 148, 1.85, 75, 1125),
)


class Variant(NamedTuple):
    """A kernel with the constants that choose what it does."""

    kernel: Any
    real: str
    constants: dict[str, Any]

    @property
    def name(self) -> str:
        flags = [key.lower() for key, value in self.constants.items() if value is True]
        return f"{self.kernel.__name__.removesuffix('_kernel')} {self.real} {' '.join(flags)}".strip()

    def compiled(self, target: GPUTarget) -> Any:
        """As for arrays that torch made, and numbers of inputs and outputs that 16 divides."""
        names = self.kernel.arg_names
        kinds = {x: "i32" if x in NUMBERS else "*i32" if x in WHOLE else f"*{self.real}" for x in names}
        signature = {x: "constexpr" if x in self.constants else kind for x, kind in kinds.items()}
        aligned = (x for x in names if signature[x].startswith("*") or x in ("inputs", "outputs"))
        attributes = {(names.index(x),): [["tt.divisibility", 16]] for x in aligned}
        source = ASTSource(fn=self.kernel, signature=signature, constexprs=self.constants, attrs=attributes)
        return triton.compile(source, target=target, options={"enable_fp_fusion": True, "num_warps": 1})


def variants(reals: tuple[str, ...] = ("fp32", "fp64")) -> Iterator[Variant]:
    """All kernels; of needed gradients all, and each kind alone."""
    for real, own, delayed in product(reals, (False, True), (False, True)):
        common = {"TERMS": 9 if real == "fp32" else 17, "TILE": TILE, "OWN": own, "DELAYED": delayed}
        for leaky in (True, False):
            yield Variant(kernels.forward_kernel, real, {**common, "LEAKY": leaky, "STEPS": 60, "EPS": 1e-7})
        for taus in (False, True):
            yield Variant(kernels.slope_kernel, real, {**common, "TAUS": taus})
        for needs in ((True, True, delayed), (True, False, False), (False, True, False)):
            flags = dict(zip(("WEIGHT", "TIMES", "DELAY"), needs, strict=True))
            yield Variant(kernels.gradient_kernel, real, {**common, **flags})


class Instruction(NamedTuple):
    """One line of machine code."""

    name: str
    operands: tuple[str, ...]
    predicated: bool

    @property
    def loads(self) -> bool:
        return self.name.startswith("LDG")

    @property
    def writes(self) -> frozenset[int]:
        """Registers, as far as the loop's loads are concerned."""
        if not self.operands or not re.fullmatch(r"R\d+", self.operands[0]):
            return frozenset()
        wide = 4 if ".128" in self.name else 2 if re.search(r"\.64|\.WIDE|^D[A-Z]+|F64", self.name) else 1
        first = int(self.operands[0][1:])
        return frozenset(range(first, first + wide))

    @property
    def reads(self) -> frozenset[int]:
        stores = self.name.startswith(("ST", "RED"))
        found = (re.finditer(r"\bR(\d+)(\.64)?", x) for x in self.operands[0 if stores else 1 :])
        return frozenset(int(m[1]) + i for each in found for m in each for i in range(2 if m[2] else 1))


class Code:
    """The machine code of a kernel."""

    def __init__(self, cubin: bytes) -> None:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(cubin)
            file.flush()
            text = _output(TOOLS / "nvdisasm", "-c", file.name)
            usage = _output(TOOLS / "cuobjdump", "--dump-resource-usage", file.name)
        self.registers, self.spilled = (int(re.findall(rf"{name}:(\d+)", usage)[-1]) for name in ("REG", "STACK"))
        self.instructions: list[Instruction] = []
        self.labels: dict[str, int] = {}
        for line in text.splitlines():
            if label := re.match(r"(\.L_\w+):", line):
                self.labels[label[1]] = len(self.instructions)
            elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(@!?U?P\w+ )?\s*([A-Z][\w.]*)\s*(.*?)\s*;", line):
                operands = tuple(x.strip() for x in found[3].split(",")) if found[3] else ()
                self.instructions.append(Instruction(found[2], operands, bool(found[1])))

    def _following(self, at: int) -> list[int]:
        one = self.instructions[at]
        if not one.name.startswith("BRA"):
            return [] if one.name.startswith(("EXIT", "RET")) and not one.predicated else [at + 1]
        target = self.labels[re.search(r"\.L_\w+", one.operands[-1])[0]]  # type: ignore[index]
        conditional = one.predicated or len(one.operands) > 1
        return [target, at + 1] if conditional else [target]

    def _shortest(self, start: int, end: int) -> list[Instruction]:
        """The shortest way from one place to another; none if there is none."""
        before: dict[int, int] = {start: start}
        row = [start]
        while row and end not in before:
            reached = []
            for at in row:
                for to in self._following(at):
                    if to not in before:
                        before[to] = at
                        reached.append(to)
            row = [at for at in reached if at < len(self.instructions)]
        if end not in before:
            return []
        way = [end]
        while way[-1] != start:
            way.append(before[way[-1]])
        return [self.instructions[at] for at in reversed(way)]

    @cached_property
    def loop(self) -> list[Instruction]:
        """The shortest way around the loop that loads most."""
        ways = [
            self._shortest(to, at)
            for at in range(len(self.instructions))
            if self.instructions[at].name.startswith("BRA")
            for to in self._following(at)
            if to < at
        ]
        return max(ways, key=lambda way: (sum(x.loads for x in way), -len(way)))

    @property
    def loads(self) -> int:
        return sum(x.loads for x in self.loop)

    @cached_property
    def in_flight(self) -> int:
        """The most loads of which none has been waited for."""
        most, flying = 0, []
        for one in self.loop * 2:
            flying = [registers for registers in flying if not registers & (one.reads | one.writes)]
            if one.loads:
                flying.append(one.writes)
            most = max(most, len(flying))
        return most

    @cached_property
    def waits(self) -> int:
        """How often in a turn a load needs an address that was loaded before, and 1."""
        depth: dict[int, int] = {}
        for one in self.loop:
            new = max((depth.get(x, 0) for x in one.reads), default=0) + one.loads
            depth.update(dict.fromkeys(one.writes, new))
        return max(depth.values(), default=0)

    def each(self) -> float:
        """Instructions for each input and neuron."""
        return len(self.loop) / BLOCK / (TILE // LANES)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def amd_usage(text: str) -> tuple[int, int]:
    """Registers and spills, which AMD's compiler notes in its assembly."""
    found = [re.search(rf"\.vgpr_{name}:\s*(\d+)", text) for name in ("count", "spill_count")]
    assert all(found)
    return tuple(int(x[1]) for x in found)  # type: ignore[index,return-value]


def estimated(code: Code, device: Device, shape: tuple[int, int, int], programs: int) -> float:
    """Microseconds of a kernel: what its instructions need, or what a lone program waits, whatever is more."""
    batch, inputs, outputs = shape
    tiles, schedulers = -(-outputs // TILE), 4 * device.multiprocessors
    turns = batch * tiles * inputs * ARRIVED / BLOCK
    issued = turns * len(code.loop) / schedulers
    rounds = -(-programs // (schedulers * RESIDENT))
    alone = rounds * turns / programs * (code.waits * LATENCY + LONE * len(code.loop))
    return max(issued, alone) / device.clock / 1e3


def dense(peak: float, shape: tuple[int, int, int], products: int) -> float:
    """Microseconds of a dense layer's matrix products."""
    batch, inputs, outputs = shape
    return products * 2 * batch * inputs * outputs / (BUSY * peak * 1e6)


def row(*cells: object) -> str:
    return "| " + " | ".join(f"{x:.1f}" if isinstance(x, float) else str(x) for x in cells) + " |"


def header(*cells: str) -> str:
    return row(*cells) + "\n" + row(*("---" for _ in cells))


def loops(chosen: list[Variant]) -> None:
    """Counts of the loops, and the estimate from them."""
    print(header("kernel", "GPU", "instructions", "loads", "in flight", "waits", "registers", "spilled"))
    codes: dict[tuple[str, int], Code] = {}
    for variant, device in product(chosen, DEVICES):
        code = Code(variant.compiled(GPUTarget("cuda", device.arch, 32)).asm["cubin"])
        codes[variant.name, device.arch] = code
        counts = (code.each(), code.loads / BLOCK, code.in_flight, code.waits, code.registers, code.spilled)
        print(row(variant.name, device.name, *counts), flush=True)
    print()
    print(header("shape", "GPU", "forward us", "to FP32", "to TF32", "backward us", "to FP32", "to TF32"))
    for shape, device in product(SHAPES, DEVICES):
        forward, backward = estimates(codes, device, shape)
        ratios = ((us / dense(peak, shape, n) for peak in (device.fp32, device.tf32))
                  for us, n in ((forward, 1), (backward, 2)))  # fmt: skip
        one, other = ratios
        print(row("x".join(map(str, shape)), device.name, forward, *one, backward, *other))


def estimates(codes: dict[tuple[str, int], Code], device: Device, shape: tuple[int, int, int]) -> tuple[float, float]:
    batch, _, outputs = shape
    tiles = -(-outputs // TILE)
    programs = {"forward": batch * tiles, "slope": batch * tiles, "gradient": min(16, batch) * min(tiles, 8)}
    us = {}
    for (name, arch), code in codes.items():
        kernel = name.split()[0]
        if arch == device.arch and "fp32" in name and kernel not in us:
            us[kernel] = estimated(code, device, shape, programs[kernel])
    return us["forward"], us.get("slope", 0.0) + us["gradient"]


def registers(targets: list[str]) -> None:
    """Registers and spills of all variants."""
    print(header("kernel", *targets))
    for variant in variants():
        cells = []
        for name in targets:
            kind, arch = name.split(":")
            amd = kind == "hip"
            made = variant.compiled(GPUTarget(kind, arch if amd else int(arch), 64 if amd else 32))
            used = amd_usage(made.asm["amdgcn"]) if amd else (lambda x: (x.registers, x.spilled))(Code(made.asm["cubin"]))
            cells.append("{} registers, {} spilled".format(*used))
        print(row(variant.name, *cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registers", nargs="+", metavar="cuda:90", help="of all variants, for these targets instead")
    parser.add_argument("--variants", default="^(forward.*leaky|slope|gradient.*weight times)$", help="whose loops")
    options = parser.parse_args()
    if options.registers:
        registers(options.registers)
        return
    loops([x for x in variants(("fp32",)) if re.search(options.variants, x.name.replace(" fp32", ""))])


if __name__ == "__main__":
    main()
