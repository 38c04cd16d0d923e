"""Asks a system all problems of a file, and prints how many it missed, invented or got wrong.

python benchmarks/exactness/check.py [FILE] [--system firstspike] [--save RESULTS.json] [--seconds]

FILE is the committed part by default. ``--system`` is one of those in ``systems``, which has to be installed.
"""

import argparse
import datetime
import importlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread for all
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

from lines import Layer, read  # noqa: E402
from score import asked, microseconds  # noqa: E402

COUNTS = {"problems": "problems", "cannot": "cannot", "raised": "raised", "beyond": "beyond", "missed": "missed",
          "invented": "invented", "far": "> 0.1"}  # fmt: skip
COLUMNS = ("", *COUNTS.values(), "largest", "median", "by weight", "by time")
SYSTEMS = json.loads((HERE / "systems" / "systems.json").read_text("utf-8"))
"""Systems: in which file of ``systems`` each has its adapter, what it needs, and where its source is, if no package."""


def system_of(name: str) -> Any:
    """A system; SystemExit if it is not installed."""
    try:
        return importlib.import_module(f"systems.{SYSTEMS[name]['file']}").SYSTEMS[name]()
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


def checked(name: str, layers: list[Layer], progress: bool = False) -> dict[str, Any]:
    """The saved numbers of a system."""
    system = system_of(name)
    return {
        "name": system.name,
        "version": system.version(),
        "step": system.step,
        "gradients": system.gradients,
        "notes": system.notes,
        "date": f"{datetime.date.today()}",
        "python": platform.python_version(),
        "microseconds": None,
        "scores": {key: score.summary() for key, score in asked(system, layers, progress).items()},
    }


def shown(found: dict[str, Any]) -> str:
    groups = [score for key, score in found["scores"].items() if ":" not in key]
    reasons = [
        f"{n} problems {what}: {reason}"
        for score in groups
        for what, key in (("cannot be expressed", "reasons"), ("raise", "errors_raised"))
        for reason, n in score[key].items()
    ]
    first = f"{found['name']}: {found['version']}" + (f", steps of {found['step']}" if found["step"] else "")
    return "\n".join([first, table(found["scores"]), *reasons])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=HERE / "small.jsonl")
    parser.add_argument("--system", default="firstspike", choices=SYSTEMS)
    parser.add_argument("--save", type=Path, help="a JSON file that keeps what all systems got")
    parser.add_argument("--seconds", action="store_true", help="only the time for an output; what is saved stays")
    options = parser.parse_args()
    layers = read(options.file)
    saved = json.loads(options.save.read_text("utf-8")) if options.save and options.save.exists() else {}
    if options.seconds:
        time = microseconds(system_of(options.system), layers)
        print(f"{options.system}: {time} microseconds for an output")
        if found := saved.get(options.system):
            found["microseconds"] = min((x for x in (time, found["microseconds"]) if x is not None), default=None)
    else:
        found = checked(options.system, layers, progress=True)
        print(shown(found))
        saved[options.system] = found
    if options.save:
        rows = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in saved.items()]
        options.save.write_text("{\n" + ",\n".join(rows) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
