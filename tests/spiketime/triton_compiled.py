"""Compile all kernels for a GPU that need not be there, and print what they take: ``triton_compiled.py cuda:90``."""

import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from firstspike.spiketime.triton import kernels

NUMBERS = {"batch", "inputs", "outputs", "chunks", "first_tile"}
WHOLE = {"order", "count"}


def variants(real):
    """All kernels, with the constants that choose what they do; of needed gradients all, and each kind alone."""
    common = {"TERMS": 9 if real == "fp32" else 17, "TILE": 64}
    for own, delayed in product((False, True), repeat=2):
        of = {**common, "OWN": own, "DELAYED": delayed}
        for leaky in (True, False):
            yield kernels.forward_kernel, {**of, "LEAKY": leaky, "STEPS": 60, "EPS": 1e-7}
        for taus in (False, True):
            yield kernels.slope_kernel, {**of, "TAUS": taus}
        for needs in ((True, True, delayed), (True, False, False), (False, True, False)):
            yield kernels.gradient_kernel, {**of, **dict(zip(("WEIGHT", "TIMES", "DELAY"), needs, strict=True))}


def compiled(kernel, real, constants, target):
    kinds = {name: "i32" if name in NUMBERS else "*i32" if name in WHOLE else f"*{real}" for name in kernel.arg_names}
    signature = {name: "constexpr" if name in constants else kind for name, kind in kinds.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return triton.compile(source, target=target, options={"enable_fp_fusion": True, "num_warps": 1})


def usage(made):
    """Registers and spills, as NVIDIA's tool reads them from a program, or as AMD's compiler notes them."""
    if "amdgcn" in made.asm:
        registers, spilled = (
            re.search(rf"\.vgpr_{name}:\s*(\d+)", made.asm["amdgcn"])[1] for name in ("count", "spill_count")
        )
        return f"{registers} registers, {spilled} spilled"
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = (re.search(rf"{name}:(\d+)", text)[1] for name in ("REG", "STACK"))
    return f"{registers} registers, {stack} spilled"


def main(name):
    kind, arch = name.split(":")
    target = GPUTarget(kind, int(arch), 32) if kind == "cuda" else GPUTarget(kind, arch, 64)
    for real in ("fp32", "fp64"):
        for kernel, constants in variants(real):
            made = compiled(kernel, real, constants, target)
            of = ", ".join(f"{key}={value}" for key, value in constants.items() if isinstance(value, bool))
            print(f"{kernel.__name__} {real} {of}: {usage(made)}, {made.metadata.shared} bytes shared")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
