"""Speed: writes ``docs/benchmarks.md`` from ``benchmarks.json`` and ``benchmarks.template.md``.

python benchmarks/page.py --measure   # everything again, about half an hour. Nothing else may run
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
"""Sections that are measured with all instructions and with AVX2."""
MEASURED = {"native": [*BOTH, "eventax", "memory", "peers", "recurrence", "heidelberg", "start"], "avx2": BOTH}
LEFT_OUT = ("forward ratio", "backward ratio", "as many spikes", "first call", "samples", "cache MiB")
RANGES = {"shapes": "tau ratio", "delays": "tau ratio", "linear": "neuron", "recurrence": "batch"}
"""Columns whose rows are one, with the range of their numbers."""
KEYS = (
    "",
    "shape",
    "images",
    "background",
    "learn",
    "neuron",
    "spikes",
    "passes",
    "config",
    "layers",
    "samples",
    "library",
    "kernels",
)
"""Columns that name a row."""
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


def ratio(sections: Numbers, section: str, begins: str) -> str:
    """The ratio at the end of the first such row of a run, or a dash where it was not measured."""
    rows = sections.get(section, {}).get("rows", [])
    return next((row[-1] for row in rows if row[0].startswith(begins)), "-")


def top(numbers: Numbers) -> str:
    rows = [[name, *(ratio(sections, *place) for sections in numbers.values())] for name, place in TOP.items()]
    return markdown([["", *numbers], *rows])


def table(name: str, numbers: Numbers) -> str:
    """A section as Markdown: the first run of it, and the ratios of all others."""
    (own, first), *others = ((run, sections[name]) for run, sections in numbers.items() if name in sections)
    columns = [x for x in first["columns"] if x not in (*LEFT_OUT, RANGES.get(name))]
    columns = [x for x in columns if name == "shapes" or not x.endswith((" ms", " s"))]
    if name == "peers":
        rows = wide(own, first, others)
    else:
        found = merged(first, columns)
        rows = [[x.removeprefix("both ") for x in columns], *found.values()]
        if "ratio" in columns[-1] or "/" in columns[-1]:
            for run, other in others:
                ratios = merged(other, columns)
                rows[0].append(f"{rows[0][len(columns) - 1]}, {run}")
                for key, row in zip(found, rows[1:], strict=True):
                    row.append(ratios[key][-1] if key in ratios else "-")
    same = [k for k, x in enumerate(rows[0]) if x in ("shape", "spikes") and len({row[k] for row in rows[1:]}) == 1]
    shared = "".join(f", {rows[0][k]} {rows[1][k]}" for k in same if len(rows) > 2)
    rows = [[x for k, x in enumerate(row) if k not in same or len(rows) == 2] for row in rows]
    lines = [f"## {first['title']}"]
    if shared or own != next(iter(numbers)):
        lines.append(f"{own}{shared}:")
    return "\n\n".join([*lines, markdown(rows)])


def merged(section: Numbers, columns: list[str]) -> dict[tuple[str, ...], list[str]]:
    """These columns of a section, by the cells that name a row. Equal names become one row, with a range."""
    places = [section["columns"].index(x) for x in columns]
    keys = [k for k in places if section["columns"][k] in KEYS]
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for row in section["rows"]:
        groups.setdefault(tuple(row[k] for k in keys), []).append(row)
    return {
        key: [rows[0][k] if k in keys else range_of([row[k] for row in rows]) for k in places]
        for key, rows in groups.items()
    }


def range_of(cells: list[str]) -> str:
    """A median without its quartiles, or the least and the largest of several. Text stays as it is."""
    found = sorted({x.split(" (")[0] for x in cells if x[:1].isdigit()}, key=float)
    return "\u2011".join(found[:: max(len(found) - 1, 1)]) if found else cells[0]


def wide(own: str, first: Numbers, others: list[tuple[str, Numbers]]) -> list[list[str]]:
    """Ratios of each library, with a column for each shape and run."""
    rows = {row[1]: [row[1]] for row in first["rows"]}
    head = ["theirs / ours"]
    for run, section in [(own, first), *others]:
        cells = {(row[0], row[1]): row[-1] if row[-1] != "-" else row[2] for row in section["rows"]}
        for shape in dict.fromkeys(x[0] for x in cells):
            head.append(shape if run == own else f"{shape}, {run}")
            for library, row in rows.items():
                row.append(cells.get((shape, library), "-"))
    return [head, *rows.values()]


def origin(numbers: Numbers) -> str:
    """Dates, commits and machine of each run: one of each, if all was measured in one go."""
    runs: dict[str, list[str]] = {}
    for run, sections in numbers.items():
        found = (
            sorted({x[key].split(". Numbers")[0] for x in sections.values()}) for key in ("machine", "date", "commit")
        )
        machines, dates, commits = map(", ".join, found)
        runs.setdefault(f"{machines.partition('; ')[2]}; {dates}, commit {commits}", []).append(run)
    return "\n".join(f"* {' and '.join(names)}; {rest}" for rest, names in runs.items())


def page(numbers: Numbers) -> str:
    tables = {name: table(name, numbers) for sections in numbers.values() for name in sections}
    text = Template(PAGE.read_text(encoding="utf-8"))
    return text.substitute(tables, top=top(numbers), origin=origin(numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure everything first")
    parser.add_argument("--processor", help="its name, as of benchmarks/run.py")
    parser.add_argument("--images", help="folder with MNIST-like idx files, as of benchmarks/run.py")
    options = parser.parse_args()
    for instructions, sections in MEASURED.items() if options.measure else ():
        named = [("--images", options.images), ("--processor", options.processor)]
        given = [x for option in named if option[1] for x in option]
        command = ["--instructions", instructions, "--save", *given, "--only", *sections]
        subprocess.run([sys.executable, str(HERE / "run.py"), *command], check=True)
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    (DOCS / "benchmarks.md").write_text(page(numbers), encoding="utf-8")


if __name__ == "__main__":
    main()
