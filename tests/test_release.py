"""What a release consists of says the same everywhere."""

import re
import runpy
import sys
import tomllib
import types
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

import firstspike

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
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


def test_the_source_distribution_has_what_its_tests_and_documentation_read():
    included = SETTINGS["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    sources = [path for folder in ("tests", "docs", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    read = {*re.findall(r'(?:ROOT|HERE\.parent|parents\[1\]) / "([^"]+)"', text)} - {"pyproject.toml"}
    read = {name for name in read if (ROOT / name).exists()}
    assert {"benchmarks", "examples", "README.md", ".github"} <= read
    assert not {name for name in read if not any(fnmatch(name, pattern.lstrip("/")) for pattern in included)}


def test_citations_of_the_paper_exist():
    cited = set(re.findall(r"@(\w+\d{4})", (ROOT / "paper.md").read_text(encoding="utf-8")))
    entries = re.findall(r"^@\w+\{(\w+),$", (ROOT / "paper.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(cited) == sorted(entries)


def test_links_of_the_readme_lead_to_the_repository_on_an_index():
    interface = types.ModuleType("hatchling.metadata.plugin.interface")
    interface.MetadataHookInterface = object
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, interface.__name__, interface)  # of the build alone
        found = runpy.run_path(str(ROOT / "hatch_build.py"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = found["absolute"](readme, "https://host/owner/name", "1.2")
    assert "![A membrane" in text
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) == len(re.findall(r"\]\(([^)\s]+)\)", readme)) > 10
    assert all(link.startswith("https://") for link in links)
    assert "https://host/owner/name/raw/v1.2/docs/_static/readme.png" in links
    assert "https://host/owner/name/blob/v1.2/docs/own_data.md" in links


URLS = {"Source": "https://github.com/owner/name", "Documentation": "https://name.host/"}
SHOWN = {
    "README.md": ["[![Tests](https://github.com/owner/name/actions/", "](https://name.host/)"],
    "docs/index.md": ["  url = {https://github.com/owner/name},"],
    "CITATION.cff": ["repository-code: https://github.com/owner/name", "url: https://name.host/"],
}


@pytest.mark.parametrize("name", SHOWN)
def test_addresses_are_those_of_pyproject(name):
    """They appear once they are filled in there, and in no other way."""
    found = runpy.run_path(str(ROOT / "docs" / "_ext" / "address.py"))
    write, text = found["WRITES"][name], (ROOT / name).read_text(encoding="utf-8")
    assert write(text, PROJECT.get("urls", {})) == text, "run docs/_ext/address.py"
    addressed = write(text, URLS)
    assert [x for x in SHOWN[name] if x not in addressed] == []
    assert write(addressed, URLS) == addressed
    assert write(addressed, PROJECT.get("urls", {})) == text
    assert addressed.count("\n") <= 130 or name != "README.md"
    assert found["theme_options"](URLS)["source_repository"] == "https://github.com/owner/name/"
    assert found["theme_options"]({}) == {}
