"""What a release consists of says the same everywhere."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import firstspike

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_version_and_date():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    sections = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections[:2] == ["Unreleased", f"{firstspike.__version__} - {citation['date-released']}"]
    assert citation["version"] == firstspike.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]


def test_pythons():
    named = [x.split()[-1] for x in PROJECT["classifiers"] if re.fullmatch(r"Programming .* 3\.\d+", x)]
    assert named == PYTHONS
    assert f"PYTHONS = {PYTHONS}".replace("'", '"') in (ROOT / "noxfile.py").read_text(encoding="utf-8")
    (jobs,) = (yaml.safe_load(path.read_text())["jobs"] for path in WORKFLOWS if path.name == "tests.yml")
    assert jobs["tests"]["strategy"]["matrix"]["python"] == jobs["core"]["strategy"]["matrix"]["python"] == PYTHONS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_sessions_that_exist(path):
    sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)
    for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
        used = job.get("strategy", {}).get("matrix", {}).get("session", [])
        used += [
            re.split(r"-\$", run)[0]
            for step in job.get("steps", ())
            for run in re.findall(r'nox -s "([^"]+)"', step.get("run", ""))
        ]
        assert set(used) - {"${{ matrix.session }}"} <= set(sessions)


def test_citations_of_the_paper_exist():
    cited = set(re.findall(r"@(\w+\d{4})", (ROOT / "paper.md").read_text(encoding="utf-8")))
    entries = re.findall(r"^@\w+\{(\w+),$", (ROOT / "paper.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(cited) == sorted(entries)


def test_numbers_of_readme_and_paper_are_measured_ones():
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").replace("+-", "±")
    for name in ("README.md", "paper.md"):
        text = (ROOT / name).read_text(encoding="utf-8").replace("$\\pm$", "±")
        accuracies = re.findall(r"\d\d\.\d+ ± \d\.\d+", text)
        assert accuracies
        assert [x for x in accuracies if x not in results] == []
