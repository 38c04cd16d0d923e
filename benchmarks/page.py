"""Speed: writes ``docs/benchmarks.md`` from ``benchmarks.json`` and ``benchmarks.template.md``.

python benchmarks/page.py --measure   # everything again, about half an hour; nothing else may run
python benchmarks/page.py             # only writes
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from string import Template
from typing import Any

from timing import markdown

HERE = Path(__file__).parent
NUMBERS, PAGE, DOCS = HERE / "benchmarks.json", HERE / "benchmarks.template.md", HERE.parent / "docs"
BOTH = ["shapes", "images", "delays", "constants", "trains", "linear", "equations", "training"]
"""Sections that are measured with AVX-512 and with AVX2."""
MEASURED = {"native": [*BOTH, "eventax", "memory", "peers", "recurrence", "heidelberg", "start"], "avx2": BOTH}
LEFT_OUT = ("forward ratio", "backward ratio")
Numbers = dict[str, Any]

TOP = {
    "layer of 30 neurons, 5 inputs, batch of 150": ("shapes", "150x5x30"),
    "128 neurons, 256 inputs, batch of 50": ("shapes", "50x256x128"),
    "512 neurons, 784 inputs, batch of 128": ("shapes", "128x784x512"),
    "1024 neurons, 1024 inputs, batch of 256": ("shapes", "256x1024x1024"),
    "512 neurons on MNIST, background silent": ("images", ""),
    "30 neurons, 5 inputs, synaptic delays": ("delays", "150x5x30"),
    "64 neurons, 64 inputs, synaptic delays": ("delays", "128x64x64"),
    "training of `yin_yang`, 4-120-3": ("training", "`yin_yang`"),
    "training of `mnist`, 784-350-10": ("training", "`mnist`"),
    "training of `mnist_trains`, several spikes": ("training", "`mnist_trains`"),
}
"""Rows of the first table: the section, and how the first row of it that counts begins."""


def ratio(numbers: Numbers, section: str, begins: str) -> str:
    """The ratio at the end of the first such row, or a dash where it was not measured."""
    rows = numbers.get(section, {}).get("rows", [])
    return next((row[-1] for row in rows if row[0].startswith(begins)), "-")


def top(numbers: Numbers) -> str:
    kinds = (numbers["native"], numbers.get("avx2", {}))
    rows = [[name, *(ratio(kind, *place) for kind in kinds)] for name, place in TOP.items()]
    return markdown([["", "AVX-512", "AVX2"], *rows])


def table(name: str, numbers: Numbers) -> str:
    """A section as Markdown: its command, its columns, and the last one of the run with AVX2; of times the median."""
    native, other = numbers["native"][name], numbers.get("avx2", {}).get(name)
    kept = [k for k, column in enumerate(native["columns"]) if column not in LEFT_OUT]
    timed = [column.endswith(" ms") for column in native["columns"]]
    cells = [[x.split(" (")[0] if ms else x for x, ms in zip(row, timed, strict=True)] for row in native["rows"]]
    rows = [[row[k] for k in kept] for row in [native["columns"], *cells]]
    if other:
        for row, found in zip(rows, [[f"{native['columns'][-1]}, AVX2"], *other["rows"]], strict=True):
            row.append(found[-1])
    return f"## {native['title']}\n\n`python benchmarks/run.py --only {name}`\n\n{markdown(rows)}"


def origin(numbers: Numbers) -> str:
    """Commits, dates and machine of all tables: one of each, if all were measured in one go."""
    tables = [table for sections in numbers.values() for table in sections.values()]
    commits, dates = (sorted({table[key] for table in tables}) for key in ("commit", "date"))
    return f"{', '.join(dates)}, commit {', '.join(commits)}. {next(iter(numbers['native'].values()))['machine']}"


def page(numbers: Numbers) -> str:
    tables = {name: table(name, numbers) for name in numbers["native"]}
    text = Template(PAGE.read_text(encoding="utf-8"))
    return text.substitute(tables, top=top(numbers), origin=origin(numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure everything first")
    parser.add_argument("--images", help="folder with MNIST-like idx files, as of benchmarks/run.py")
    options = parser.parse_args()
    for instructions, sections in MEASURED.items() if options.measure else ():
        images = ["--images", options.images] if options.images else []
        command = ["--instructions", instructions, "--save", *images, "--only", *sections]
        subprocess.run([sys.executable, str(HERE / "run.py"), *command], check=True)
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    (DOCS / "benchmarks.md").write_text(page(numbers), encoding="utf-8")


if __name__ == "__main__":
    main()
