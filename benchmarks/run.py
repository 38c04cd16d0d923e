"""Measure first_spike_time against a dense layer: ``python benchmarks/run.py --only shapes images --markdown FILE``.

Each row is measured in one go as interleaved repeats. On a machine that others use, ``--clock cpu --threads 1`` counts
only the time that this process ran.

With ``--device cuda`` everything runs on a GPU, and every clock is read after the GPU has finished. By default these
are the sections that say in a few minutes whether the kernels are right and what they cost, and the text for an issue
is written to gpu.md.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from cases import FASHION
from gpu import FIRST
from sections import SECTIONS as MEASURED
from sections import Settings
from timing import CLOCKS, machine

SECTIONS = FIRST | MEASURED
ON_GPUS = [*FIRST, "memory"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="sections to run")
    parser.add_argument("--repeats", type=int, default=40, help="of each row")
    parser.add_argument("--threads", type=int, help="of torch; default: torch's choice")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--double", action="store_true", help="float64 instead of float32")
    parser.add_argument("--images", type=Path, default=FASHION, help="folder with MNIST-like idx files")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    options = parser.parse_args()
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
    print(machine(options.clock, device))
    first = device.type == "cuda" and not options.only
    tables = [SECTIONS[name](settings) for name in options.only or (ON_GPUS if first else MEASURED)]
    file = options.markdown or (Path("gpu.md") if first else None)
    if file:
        text = "\n".join(["# Benchmarks\n", machine(options.clock, device) + "\n", *(x.markdown() for x in tables)])
        file.write_text(text)
    if first:
        print(f"\nNo GPU had run this before: please send us {file}, as an issue, whatever it says.")


if __name__ == "__main__":
    main()
