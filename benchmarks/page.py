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
"""Sections that are measured with all instructions and with AVX2."""
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


def ratio(sections: Numbers, section: str, begins: str) -> str:
    """The ratio at the end of the first such row of a run, or a dash where it was not measured."""
    rows = sections.get(section, {}).get("rows", [])
    return next((row[-1] for row in rows if row[0].startswith(begins)), "-")


def top(numbers: Numbers) -> str:
    rows = [[name, *(ratio(sections, *place) for sections in numbers.values())] for name, place in TOP.items()]
    return markdown([["", *numbers], *rows])


def table(name: str, numbers: Numbers) -> str:
    """A section as Markdown: its command, the first run of it, and the ratios of all others; of times the median."""
    (own, first), *others = ((run, sections[name]) for run, sections in numbers.items() if name in sections)
    kept = [k for k, column in enumerate(first["columns"]) if column not in LEFT_OUT]
    timed = [column.endswith(" ms") for column in first["columns"]]
    cells = [[x.split(" (")[0] if ms else x for x, ms in zip(row, timed, strict=True)] for row in first["rows"]]
    rows = [[row[k] for k in kept] for row in [first["columns"], *cells]]
    if "ratio" not in rows[0][-1] and "/" not in rows[0][-1]:
        others = []
    for run, other in others:
        rows[0].append(f"{first['columns'][-1]}, {run}")
        found = {tuple(row[:2]): row[-1] for row in other["rows"][::-1]}
        for k, row in enumerate(first["rows"]):
            same = k < len(other["rows"]) and other["rows"][k][:2] == row[:2]  # rows may begin alike
            rows[k + 1].append(other["rows"][k][-1] if same else found.get(tuple(row[:2]), "-"))
    return f"## {first['title']}\n\n`python benchmarks/run.py --only {name}` ({own})\n\n{markdown(rows)}"


def origin(numbers: Numbers) -> str:
    """Dates, commits and machine of each run: one of each, if all was measured in one go."""
    lines = []
    for sections in numbers.values():
        found = (
            sorted({x[key].split(". Numbers")[0] for x in sections.values()}) for key in ("machine", "date", "commit")
        )
        machines, dates, commits = map(", ".join, found)
        lines.append(f"* {machines}; {dates}, commit {commits}")
    return "\n".join(lines)


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
