"""Asks a system all problems of a file, and prints how many it missed, invented or got wrong.

python benchmarks/exactness/check.py [FILE] [--system firstspike] [--save RESULTS.json] [--seconds]

FILE is the committed part by default. ``--system`` is one of those in ``systems``, which has to be installed.
"""

import argparse
import datetime
import importlib
import json
import platform
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from lines import Layer, read  # noqa: E402
from score import asked, microseconds  # noqa: E402

COUNTS = {"problems": "problems", "cannot": "cannot", "raised": "raised", "beyond": "beyond", "missed": "missed",
          "invented": "invented", "far": "> 0.1"}  # fmt: skip
COLUMNS = ("", *COUNTS.values(), "largest", "median", "by weight", "by time")
FILES = {
    "firstspike": "firstspike", "firstspike-float32": "firstspike", "spikingjelly": "spikingjelly", "jaxsnn": "jaxsnn",
    "spikegd": "spikegd", "exact-snn-nn": "exact_snn_nn", "exact-snn-nn-grid": "exact_snn_nn",
    "exact-event-adjoint": "exact_event_adjoint", "fastanddeep": "fastanddeep", "nest-ps": "nest",
    "nest-lossless": "nest", "nest-grid": "nest", "brian2": "brian2", "snntorch": "snntorch", "norse": "norse",
}  # fmt: skip
"""Systems, and in which file of ``systems`` each has its adapter."""


def system_of(name: str) -> Any:
    """A system; SystemExit if it is not installed."""
    try:
        return importlib.import_module(f"systems.{FILES[name]}").SYSTEMS[name]()
    except ImportError as error:
        how = f"nox -s \"exactness(system='{name}')\" installs and runs it"
        raise SystemExit(f"{name} is not installed here ({error}); {how}") from None


def number(x: Any) -> str:
    return "-" if x is None else f"{x:.0e}" if x < 1e-2 or x >= 100 else f"{x:.2g}"


def row(name: str, found: dict[str, Any]) -> list[str]:
    counts = [str(found[key]) for key in COUNTS]
    errors = found["errors"] or {"largest": None, "median": None}
    gradients = [
        number((found[key] or {"largest": None})["largest"]) + (" +nan" if f"{key}_not_finite" in found else "")
        for key in ("by_weight", "by_time")
    ]
    return [name, *counts, number(errors["largest"]), number(errors["median"]), *gradients]


def table(scores: dict[str, dict[str, Any]]) -> str:
    rows = [list(COLUMNS), *(row(name, found) for name, found in scores.items())]
    widths = [max(len(x[k]) for x in rows) for k in range(len(COLUMNS))]
    return "\n".join("  ".join([x[0].ljust(widths[0]), *map(str.rjust, x[1:], widths[1:])]) for x in rows)


def checked(name: str, layers: list[Layer], seconds: bool = False, progress: bool = False) -> dict[str, Any]:
    """What is saved of a system."""
    system = system_of(name)
    found = {key: score.summary() for key, score in asked(system, layers, progress).items()}
    return {
        "name": system.name,
        "version": system.version(),
        "step": system.step,
        "gradients": system.gradients,
        "notes": system.notes,
        "date": f"{datetime.date.today()}",
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "microseconds": microseconds(system, layers) if seconds else None,
        "scores": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=HERE / "small.jsonl")
    parser.add_argument("--system", default="firstspike", choices=FILES)
    parser.add_argument("--save", type=Path, help="a JSON file that keeps what all systems got")
    parser.add_argument("--seconds", action="store_true", help="also the time for an output")
    options = parser.parse_args()
    found = checked(options.system, read(options.file), options.seconds, progress=True)
    print(f"{found['name']}: {found['version']}", f"step {found['step']}" if found["step"] else "", sep="\n")
    print(table(found["scores"]))
    reasons = {x: n for key, score in found["scores"].items() if ":" not in key for x, n in score["reasons"].items()}
    print(*(f"{n} problems: {reason}" for reason, n in reasons.items()), sep="\n")
    if options.seconds:
        print(f"{found['microseconds']} microseconds for an output")
    if options.save:
        saved = json.loads(options.save.read_text("utf-8")) if options.save.exists() else {}
        saved[options.system] = found
        options.save.write_text(json.dumps(saved, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
