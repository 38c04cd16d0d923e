"""The notebooks run from top to bottom, without a warning, and reach what they say."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

from firstspike.sweeps.plan import load_plan

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(("name", "trials"), [("hidden_sizes", 24), ("yin_yang_small", 12)])
def test_sweeps_can_be_built(name, trials):
    assert load_plan(EXAMPLES / "sweeps" / f"{name}.yaml").n_trials == trials


def test_every_sweep_has_a_test():
    assert sorted(path.stem for path in (EXAMPLES / "sweeps").iterdir()) == ["hidden_sizes", "yin_yang_small"]


NAMES = sorted(path.stem for path in EXAMPLES.glob("*.ipynb"))

pytestmark = pytest.mark.slow


def executed(name, tmp_path, monkeypatch):
    """Text that a notebook printed, and the number of its figures."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # no settings of whoever runs the tests
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute(cwd=str(tmp_path))  # raises at an error in a cell
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = [output for output in outputs if output.output_type == "stream"]
    assert [output.text for output in printed if output.name != "stdout"] == []
    figures = sum("image/png" in output.get("data", {}) for output in outputs)
    return "".join(output.text for output in printed), figures


def percent(text, what):
    found = re.findall(rf"{what}:? ([0-9.]+) %", text)
    assert found, f"{what!r} is not printed"
    return float(found[-1])


def test_bars(tmp_path, monkeypatch):
    text, figures = executed("fast_and_not_so_deep", tmp_path, monkeypatch)
    assert figures == 6
    assert len(re.findall(r"^epoch ", text, re.MULTILINE)) == 9  # the first and every 50th of 400
    assert percent(text, "validation accuracy") == 100
    assert percent(text, "test accuracy") == 100
    assert "observed times are kept: True" in text
    assert percent(text, "trained with it") > percent(text, "trained without")


def test_yin_yang(tmp_path, monkeypatch):
    text, figures = executed("yin_yang", tmp_path, monkeypatch)
    assert figures == 7
    assert percent(text, "test accuracy") > 90


def test_every_notebook_has_a_test():
    assert NAMES == ["fast_and_not_so_deep", "yin_yang"]


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_stored_clean(name):
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
