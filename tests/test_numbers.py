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
RANGE = re.compile(r"(\d\.\d) to (\d\.\d) times as (?:long as|fast with AVX-512)")
NARROW = re.compile(r"(\d\.\d) to (\d\.\d) times with AVX2")


def text(path):
    """One form of all signs for a spread, one line for each paragraph."""
    found = path.read_text(encoding="utf-8").replace("$\\pm$", "±")
    return re.sub(r"(?<!\n)\n *(?![\n |#*-])", " ", found)


def tables(page):
    return "\n".join(line for line in text(page).splitlines() if line.startswith("|"))


def printed(tutorial):
    """What a tutorial printed when it was stored."""
    cells = json.loads((DOCS / "tutorials" / f"{tutorial}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "".join(line for cell in cells for x in cell.get("outputs", ()) for line in x.get("text", ()))


PAGES = sorted(DOCS.glob("*.md"))
RESULTS = text(DOCS / "lab_notebook.md") + "".join(map(tables, PAGES))
WRITTEN = {path.relative_to(ROOT).as_posix(): text(path) for path in [ROOT / "README.md", ROOT / "paper.md", *PAGES]}
del WRITTEN["docs/results.md"]  # also has earlier and published numbers
WRITTEN |= {f"config {name}": re.sub("published:.*", "", text(path)) for name, path in shipped_configs().items()}
WRITTEN |= {"CITATION.cff": text(ROOT / "CITATION.cff")}


RUNS = json.loads((ROOT / "benchmarks" / "benchmarks.json").read_text(encoding="utf-8"))


def rows_of(section, instructions=""):
    """Rows of a section in all runs whose processor used such instructions."""
    runs = [sections for run, sections in RUNS.items() if run.endswith(instructions) and section in sections]
    return [row for sections in runs for row in sections[section]["rows"]]


def whole_range(instructions):
    """The least and the largest ratio to a dense layer, forward and backward together, over all runs."""
    found = [float(row[-1].split()[0]) for row in rows_of("shapes", instructions)]
    return f"{min(found):.1f}", f"{max(found):.1f}"


@pytest.mark.parametrize(
    ("script", "stored", "name"),
    [
        ("results.py", "results.json", "results"),
        ("page.py", "benchmarks.json", "benchmarks"),
        ("exactness/page.py", "exactness/results.json", "exactness"),
    ],
)
def test_pages_are_what_their_scripts_write(script, stored, name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as for a script
    written = runpy.run_path(str(ROOT / "benchmarks" / script))["page"]
    numbers = json.loads((ROOT / "benchmarks" / stored).read_text(encoding="utf-8"))
    assert (DOCS / f"{name}.md").read_text(encoding="utf-8") == written(numbers)


def test_known_networks_are_those_that_were_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    written = runpy.run_path(str(ROOT / "benchmarks" / "large.py"))["table"]
    numbers = json.loads((ROOT / "benchmarks" / "large.json").read_text(encoding="utf-8"))
    page = (DOCS / "large_networks.md").read_text(encoding="utf-8")
    assert any(written(found) in page for found in numbers.values())


@pytest.mark.parametrize("name", WRITTEN)
def test_accuracies_are_measured_ones(name):
    assert [x for x in SPREAD.findall(WRITTEN[name]) if x not in RESULTS] == []


@pytest.mark.parametrize("name", ["README.md", "paper.md"])
def test_all_accuracies_of_readme_and_paper_are_measured_or_published_ones(name):
    shown = re.sub("```.*?```", "", WRITTEN[name], flags=re.DOTALL)  # without what a command prints
    found = re.findall(r"(?<![\d./(])[5-9]\d\.\d+(?![\d.])", shown)
    assert len(found) > 4
    assert [x for x in found if x not in RESULTS + printed("07_noisy_device")] == []


def test_published_accuracies_are_those_of_the_results():
    lines = tables(DOCS / "results.md").partition("| config | epochs |")[0].splitlines()
    rows = {row.split("`")[1]: row for row in lines if row.startswith("| `") and row.count("|") > 4}
    assert len(rows) > 20
    for name in rows.keys() & shipped_configs().keys():
        config = yaml.safe_load(shipped_configs()[name].read_text(encoding="utf-8"))
        if published := re.match(r"[\d.]+( ± [\d.]+)?", config.get("published", "")):
            assert published[0] in rows[name]


def test_ratios_are_measured_ones():
    """The README, the paper and guides have the range over all processors that were measured."""
    found = {name: RANGE.findall(text) for name, text in WRITTEN.items() if RANGE.search(text)}
    assert found.keys() >= {"README.md", "paper.md"}
    assert {x for ranges in found.values() for x in ranges} == {whole_range("AVX-512")}
    assert NARROW.findall(WRITTEN["README.md"]) == [whole_range("AVX2")]


def test_peers_in_the_paper_are_as_measured():
    """With the least advantage of all processors."""
    rows = [row for row in rows_of("peers") if row[0] == "50x256x128" and "steps" in row[1]]
    times = {x: min(int(row[-1].split()[0]) for row in rows if row[1].startswith(x)) for x in ("snnTorch", "Norse")}
    assert re.findall(
        r"an? (\d+)(?:th|st|nd|rd) of the time of snnTorch and an? (\d+)(?:th|st|nd|rd) of", WRITTEN["paper.md"]
    ) == [tuple(map(str, times.values()))]


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "index.md"], ids=lambda page: page.stem)
def test_what_the_first_pages_begin_with_is_measured(page):
    head = text(page).partition("* **Exact.**")[2].partition("\n\n")[0]
    exactness = text(DOCS / "exactness.md")
    (asked,) = re.findall(r"There are (\d+) random first spikes", exactness)
    own = next(line for line in exactness.splitlines() if line.startswith("| firstspike (float64) |"))
    *_, times, gradients, _, _ = (x.strip().replace("\u2011", "-") for x in own.split("|"))
    assert all(x in head for x in (f"{asked} random", f"most {times} and", f"most {gradients}"))
    assert re.findall("NEST to ([^ ]*) ms", head) == re.findall(
        "differ by at most ([^ ]*) ms", text(DOCS / "substrates.md")
    )
    ratios = [int(row[-1].split()[0]) for row in rows_of("peers") if "100 steps" in row[1]]
    assert f"an {min(ratios)}th to a {max(ratios)}th of the time" in head
    device = re.findall(r"on (?:device )?7: +([\d.]+) %", printed("07_noisy_device"))
    assert [x for x in device if x not in head] == []
    assert len(device) == 3


def test_runs_of_processors_stand_side_by_side(monkeypatch):
    """One that is measured again replaces its own tables; another one adds columns of ratios, with what it measured."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    page, numbers = runpy.run_path(str(ROOT / "benchmarks" / "page.py"))["page"], json.loads(json.dumps(RUNS))
    own = next(iter(RUNS.values()))
    other = {
        name: {**own[name], "machine": "Other, AVX2; 4 cores. Numbers", "rows": own[name]["rows"][3:]}
        for name in ("shapes", "memory", "peers")
    }
    found = page({**numbers, "Other, AVX2": other})
    head = next(line for line in found.splitlines() if line.startswith("| shape | "))
    assert [x.strip() for x in head.strip("|").split("|")][-1].endswith("ratio, Other, AVX2")
    assert "* Other, AVX2; 4 cores; " in found
    rows = [line for line in found.split("## ")[1].splitlines() if line.startswith("| ") and "x" in line.split("|")[1]]
    assert rows[0].endswith("| - |")  # a row is a shape, with the range over the time constants
    measured = iter(float(row[-1].split()[0]) for row in other["shapes"]["rows"])
    for row, ratios in zip(rows[1:], zip(measured, measured, measured, strict=True), strict=True):
        assert row.split("|")[-2].strip() == f"{min(ratios):.2f}\u2011{max(ratios):.2f}"
    assert "| 128x784x512, Other, AVX2 |" in found
    assert len(page(numbers).split("## ")) == len(found.split("## "))
