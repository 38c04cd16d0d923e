"""Measure first_spike_time against a dense layer: ``python benchmarks/run.py --only shapes images``.

Each row is measured in one go as interleaved repeats. On a machine that others use, ``--clock cpu --threads 1`` counts
only the time that this process ran. ``--instructions avx2`` limits both sides to older instructions. ``--save`` keeps
the tables in ``benchmarks.json``, in the run of this processor with these instructions and beside those of others;
``page.py`` writes docs/benchmarks.md from it.

With ``--device cuda`` everything runs on a GPU, and every clock is read after the GPU has finished. By default these
are the sections that say in a few minutes whether the kernels are right and what they cost, and the text for an issue
is written to gpu.md.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from cases import FASHION
from gpu import FIRST
from sections import SECTIONS as MEASURED
from sections import Settings
from timing import CLOCKS, Table, machine

SECTIONS = FIRST | MEASURED
ON_GPUS = [*FIRST, "memory"]
NUMBERS = Path(__file__).parent / "benchmarks.json"
LIMITS = {
    "avx2": {"NUMBA_CPU_NAME": "haswell", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "sse": {"NUMBA_CPU_NAME": "x86-64", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ATEN_CPU_CAPABILITY": "default"},
}


def limited(instructions: str) -> None:
    """Start again with these instructions, which libraries read from the environment as they are loaded."""
    limit = {"NUMBA_CPU_FEATURES": "", **LIMITS[instructions]}
    if any(os.environ.get(name) != value for name, value in limit.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **limit})


def save(name: str, table: Table, description: str) -> None:
    """Keep a table in the run of a processor with its instructions, in place of an earlier one."""
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8")) if NUMBERS.exists() else {}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    numbers.setdefault(description.split(";")[0], {})[name] = {
        "title": table.title,
        "columns": list(table.columns),
        "rows": table.rows,
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": description,
    }
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="sections to run")
    parser.add_argument("--repeats", type=int, default=40, help="of each row")
    parser.add_argument("--threads", type=int, help="of torch; default: torch's choice")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--double", action="store_true", help="float64 instead of float32")
    parser.add_argument("--images", type=Path, default=FASHION, help="folder with MNIST-like idx files")
    parser.add_argument(
        "--instructions", choices=["native", *LIMITS], default="native", help="of the CPU; default: all"
    )
    parser.add_argument("--processor", help="its name, where a virtual machine does not tell")
    parser.add_argument("--save", action="store_true", help="keep the tables in benchmarks.json")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    options = parser.parse_args()
    if options.instructions != "native":
        limited(options.instructions)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {device}: torch {torch.__version__} finds no GPU here")
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and options.clock != "wall"):
        parser.error("--device is cpu or cuda, and on cuda only the wall clock counts")
    if options.threads:
        torch.set_num_threads(options.threads)
    settings = Settings(
        options.repeats, options.clock, torch.float64 if options.double else torch.float32, options.images, device
    )
    description = machine(options.clock, device, options.processor)
    print(description)
    first = device.type == "cuda" and not options.only
    tables = []
    for name in options.only or (ON_GPUS if first else MEASURED):
        tables.append(SECTIONS[name](settings))
        if options.save:
            save(name, tables[-1], description)
    file = options.markdown or (Path("gpu.md") if first else None)
    if file:
        text = "\n".join(["# Benchmarks\n", description + "\n", *(x.markdown() for x in tables)])
        file.write_text(text)
    if first:
        print(f"\nNo GPU had run this before: please send us {file}, as an issue, whatever it says.")


if __name__ == "__main__":
    main()
