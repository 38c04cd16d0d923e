"""Accuracies and ratios are the same wherever they are written.

Measured numbers are in ``docs/results.md``, ``docs/benchmarks.md`` and the tables of the other pages. Those in text, in
the README, the paper, ``CITATION.cff`` and the shipped configs are among them.
"""

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml

from firstspike.configs import shipped_configs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SPREAD = re.compile(r"(?<!\d)\d\d\.\d+ ± \d\.\d+")
RANGE = re.compile(r"(\d\.\d) to (\d\.\d) times as long as")
NARROW = re.compile(r"with AVX2 (\d\.\d) to (\d\.\d) times")


def text(path):
    """One form of all signs for a spread, one line for each paragraph."""
    found = path.read_text(encoding="utf-8").replace("$\\pm$", "±").replace("+-", "±")
    return re.sub(r"(?<!\n)\n(?![\n|#*-])", " ", found)


def tables(page):
    return "\n".join(line for line in text(page).splitlines() if line.startswith("|"))


PAGES = sorted(DOCS.glob("*.md"))
RESULTS = text(DOCS / "lab_notebook.md") + "".join(map(tables, PAGES))
WRITTEN = {path.relative_to(ROOT).as_posix(): text(path) for path in [ROOT / "README.md", ROOT / "paper.md", *PAGES]}
del WRITTEN["docs/results.md"]  # also has earlier and published numbers
WRITTEN |= {f"config {name}": re.sub("published:.*", "", text(path)) for name, path in shipped_configs().items()}
WRITTEN |= {"CITATION.cff": text(ROOT / "CITATION.cff")}


def ratios(part, column):
    """Ratios to a dense layer of all shapes in a part of the benchmarks: forward and backward together."""
    rows = (DOCS / "benchmarks.md").read_text(encoding="utf-8").split(f"## {part}\n")[1].split("\n## ")[0].splitlines()
    shapes = [row for row in rows if re.match(r"\| \d+x", row)]
    return [float(row.split("|")[column].split()[0]) for row in shapes]


@pytest.mark.parametrize(("script", "name"), [("results.py", "results"), ("page.py", "benchmarks")])
def test_pages_are_what_their_scripts_write(script, name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as for a script
    written = runpy.run_path(str(ROOT / "benchmarks" / script))["page"]
    numbers = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))
    assert (DOCS / f"{name}.md").read_text(encoding="utf-8") == written(numbers)


@pytest.mark.parametrize("name", WRITTEN)
def test_accuracies_are_measured_ones(name):
    assert [x for x in SPREAD.findall(WRITTEN[name]) if x not in RESULTS] == []


@pytest.mark.parametrize("name", ["README.md", "paper.md"])
def test_all_accuracies_of_readme_and_paper_are_measured_or_published_ones(name):
    found = re.findall(r"(?<![\d./(])[5-9]\d\.\d+(?![\d.])", WRITTEN[name])  # what a command prints is in brackets
    assert len(found) > 4
    assert [x for x in found if x not in RESULTS] == []


def test_published_accuracies_are_those_of_the_results():
    lines = tables(DOCS / "results.md").partition("| config | epochs |")[0].splitlines()
    rows = {row.split("`")[1]: row for row in lines if row.startswith("| `") and row.count("|") > 5}
    assert len(rows) > 20
    for name in rows.keys() & shipped_configs().keys():
        config = yaml.safe_load(shipped_configs()[name].read_text(encoding="utf-8"))
        if published := re.match(r"[\d.]+( \+- [\d.]+)?", config.get("published", "")):
            assert published[0].replace("+-", "±") in rows[name]


def test_ratios_are_measured_ones():
    fast, slow = (ratios("Uniform random times, against Linear + softplus", column) for column in (-3, -2))
    found = [found for name in ("README.md", "paper.md") for found in RANGE.findall(WRITTEN[name])]
    assert found == 2 * [(f"{min(fast):.1f}", f"{max(fast):.1f}")]
    assert NARROW.findall(WRITTEN["README.md"]) == [(f"{min(slow):.1f}", f"{max(slow):.1f}")]


def test_peers_in_the_paper_are_as_measured():
    rows = [row.split("|") for row in tables(DOCS / "benchmarks.md").splitlines() if row.startswith("| 50x256x128 |")]
    times = {row[2].split()[0]: row[-2].split()[0] for row in rows if "steps" in row[2]}
    assert re.findall(
        r"an? (\d+)(?:th|st|nd|rd) of the time of snnTorch and an? (\d+)(?:th|st|nd|rd) of", WRITTEN["paper.md"]
    ) == [(times["snnTorch"], times["Norse"])]
