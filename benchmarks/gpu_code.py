"""What GPUs would execute, read from machine code on a machine without one: ``python benchmarks/gpu_code.py``.

Triton compiles each kernel and ships NVIDIA's disassembler. The tables count what the kernels do in their loop over
the inputs, on the shortest way once around it, which it takes as long as no neuron of the tile needs anything special.
The counts give an estimate of the time of a layer, next to one of a dense layer. It is not a measurement: sorting,
launches and what torch does around the kernels are left out.
"""

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from firstspike.spiketime.triton import adjoint, scan
from firstspike.spiketime.triton.gradients import chunks_of

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
TILE, LANES = 64, 32
BLOCK = scan.BLOCK.value  # inputs of a turn of the loop
NUMBERS = {"batch", "inputs", "events", "outputs", "width", "chunks", "first_tile"}
WHOLE = {"order", "count", "last"}
ALIGNED = {"events", "outputs", "width"}
SHAPES = ((128, 784, 512), (1024, 1024, 1024))
ARRIVED = 1 / 3  # of the inputs when a neuron spikes
SPIKING, DEARER = 0.5, 3  # blocks in which a neuron of the tile spikes, and how much they cost beside the first try
BUSY = 0.7  # part of the peak that a dense layer reaches
LATENCY = 280  # cycles until the second-level cache answers
REGISTERS = 65536 // 4 // LANES  # of a scheduler, for each lane
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


FORWARD, BACKWARD = "forward", "gradients by weights and times"
COUNTED = {
    "forward fp32 leaky": FORWARD,
    "forward fp32 leaky own": "forward, own time constants",
    "forward fp32 delayed leaky": "forward, delays",
    "forward fp32 again leaky finite": "forward, trains",
    "gradient fp32 weight times": BACKWARD,
    "gradient fp32 weight": "gradients by weights",
    "gradient fp32 times": "gradients by times",
    "gradient fp32 again weight times start ends": "gradients by weights and times, trains",
}


class Variant(NamedTuple):
    """A kernel with the constants that choose what it does."""

    kernel: Any
    real: str
    constants: dict[str, Any]

    @property
    def name(self) -> str:
        flags = [key.lower() for key, value in self.constants.items() if value is True]
        return f"{self.kernel.__name__.removesuffix('_kernel')} {self.real} {' '.join(flags)}".strip()

    @property
    def inputs(self) -> int:
        """Of a turn of the loop."""
        alone = self.constants.get("OWN") or self.constants.get("DELAYED")
        return BLOCK if not alone else scan.FEW.value if self.kernel is scan.forward_kernel else 1

    def compiled(self, target: GPUTarget) -> Any:
        """As for arrays that torch made, and numbers of inputs and outputs that 16 divides."""
        names = self.kernel.arg_names
        kinds = {x: "i32" if x in NUMBERS else "*i32" if x in WHOLE else f"*{self.real}" for x in names}
        signature = {x: "constexpr" if x in self.constants else kind for x, kind in kinds.items()}
        aligned = (x for x in names if signature[x].startswith("*") or (x in ALIGNED and signature[x] == "i32"))
        attributes = {(names.index(x),): [["tt.divisibility", 16]] for x in aligned}
        source = ASTSource(fn=self.kernel, signature=signature, constexprs=self.constants, attrs=attributes)
        options = {"enable_fp_fusion": True, "num_warps": 1} | ({"maxnreg": 255} if target.backend == "cuda" else {})
        return triton.compile(source, target=target, options=options)


def variants(reals: tuple[str, ...] = ("fp32", "fp64")) -> Iterator[Variant]:
    """All kernels; of needed gradients all, and each kind alone."""
    for real, own, delayed, again in product(reals, (False, True), (False, True), (False, True)):
        if delayed and again:
            continue
        single = real == "fp32"
        common = {"TERMS": 9 if single else 17, "TILE": TILE, "OWN": own}
        solver = {"STEPS": 60, "EPS": 1e-7, "WHOLE": tl.int32 if single else tl.int64, **common}
        trains = {"AGAIN": again, "DELAYED": delayed}
        most = 8 if again else 1
        for leaky, observed in ((True, False), (False, False), (True, True)):
            flags = {**trains, "LEAKY": leaky, "OBSERVED": observed, "FINITE": again}
            if not (delayed and observed):
                yield Variant(scan.forward_kernel, real, {**flags, "SPIKES": most, **solver})
        jumps = {"JUMPS": 2 * most + 2 if again else 1, "START": again, "ENDS": again}
        for weight, times, bound in (
            (True, True, True),
            (True, True, False),
            (True, False, False),
            (False, True, False),
        ):
            needs = {"WEIGHT": weight, "TIMES": times, "DELAY": delayed and times and weight, "BOUND": bound}
            yield Variant(adjoint.gradient_kernel, real, {**trains, **needs, **jumps, **common})
        if again:
            yield Variant(
                adjoint.jump_kernel, real, {**common, "SPIKES": most, "START": True, "ENDS": True, "BOUND": True}
            )
        else:
            yield Variant(adjoint.terms_kernel, real, {"DELAYED": delayed, "TAUS": True, **common})


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

    @cached_property
    def loop(self) -> list[Instruction]:
        """The shortest way around the loop, through the straight piece of code with the most loads."""
        ends = [at for at, one in enumerate(self.instructions) if one.name.startswith(("BRA", "EXIT"))]
        pieces = sorted({0, *self.labels.values(), *(at + 1 for at in ends), len(self.instructions)})
        start, _ = max(pairwise(pieces), key=lambda piece: sum(x.loads for x in self.instructions[slice(*piece)]))
        before: dict[int, int] = {}
        row = [start]
        while row and start not in before:
            reached = []
            for at in row:
                for to in self._following(at):
                    if to not in before and to < len(self.instructions):
                        before[to] = at
                        reached.append(to)
            row = reached
        way = [before[start]]
        while way[-1] != start:
            way.append(before[way[-1]])
        return [self.instructions[at] for at in reversed(way)]

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


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def amd_usage(text: str) -> tuple[int, int]:
    """Registers and spills, which AMD's compiler notes in its assembly."""
    found = [re.search(rf"\.vgpr_{name}:\s*(\d+)", text) for name in ("count", "spill_count")]
    assert all(found)
    return tuple(int(x[1]) for x in found)  # type: ignore[index,return-value]


def estimated(code: Code, device: Device, shape: tuple[int, int, int], programs: int) -> float:
    """Microseconds of a kernel: what its instructions need, or what programs that are nearly alone wait, if more."""
    batch, inputs, outputs = shape
    schedulers = 4 * device.multiprocessors
    turns = batch * -(-outputs // TILE) * inputs * ARRIVED / BLOCK
    instructions = len(code.loop) * (1 + SPIKING * DEARER)
    rounds = -(-programs // (schedulers * (REGISTERS // code.registers)))
    alone = rounds * turns / programs * (code.waits * LATENCY + LONE * instructions)
    return max(turns * instructions / schedulers, alone) / device.clock / 1e3


def dense(peak: float, shape: tuple[int, int, int], products: int) -> float:
    """Microseconds of a dense layer's matrix products."""
    batch, inputs, outputs = shape
    return products * 2 * batch * inputs * outputs / (BUSY * peak * 1e6)


def row(*cells: object) -> str:
    return "| " + " | ".join(f"{x:.1f}" if isinstance(x, float) else str(x) for x in cells) + " |"


def header(*cells: str) -> str:
    return row(*cells) + "\n" + row(*("---" for _ in cells))


def loops() -> None:
    """Counts of the loops, and the estimate from them."""
    print(header("kernel", "GPU", "instructions", "loads", "in flight", "waits", "registers", "spilled"))
    codes: dict[tuple[str, int], Code] = {}
    for variant in variants(("fp32",)):
        if variant.name not in COUNTED:
            continue
        for device in DEVICES:
            code = Code(variant.compiled(GPUTarget("cuda", device.arch, 32)).asm["cubin"])
            codes[variant.name, device.arch] = code
            each = len(code.loop) / variant.inputs / (TILE // LANES)
            counts = (each, code.loads / variant.inputs, code.in_flight, code.waits, code.registers, code.spilled)
            print(row(COUNTED[variant.name], device.name, *counts), flush=True)
    print()
    print(header("shape", "GPU", "forward us", "to FP32", "to TF32", "backward us", "to FP32", "to TF32"))
    forward, backward = (next(name for name, text in COUNTED.items() if text == x) for x in (FORWARD, BACKWARD))
    for shape, device in product(SHAPES, DEVICES):
        batch, inputs, outputs = shape
        tiles = -(-outputs // TILE)
        chunks = chunks_of(batch, 4 * inputs * tiles * TILE)
        cells: list[object] = ["x".join(map(str, shape)), device.name]
        for name, programs, products in ((forward, batch * tiles, 1), (backward, chunks * tiles, 2)):
            us = estimated(codes[name, device.arch], device, shape, programs)
            cells += [us, *(us / dense(peak, shape, products) for peak in (device.fp32, device.tf32))]
        print(row(*cells))


def registers(targets: list[str], every: int = 1) -> None:
    """Registers and spills of every n-th variant."""
    print(header("kernel", *targets))
    for variant in list(variants())[::every]:
        cells = []
        for name in targets:
            kind, arch = name.split(":")
            if kind == "hip":
                used = amd_usage(variant.compiled(GPUTarget(kind, arch, 64)).asm["amdgcn"])
            else:
                code = Code(variant.compiled(GPUTarget(kind, int(arch), 32)).asm["cubin"])
                used = code.registers, code.spilled
            cells.append("{} registers, {} spilled".format(*used))
        print(row(variant.name, *cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registers", nargs="+", metavar="cuda:90", help="of all variants, for these targets instead")
    parser.add_argument("--every", type=int, default=1, help="with --registers, only every n-th variant")
    options = parser.parse_args()
    if options.registers:
        registers(options.registers, options.every)
        return
    loops()


if __name__ == "__main__":
    main()
