"""What the documentation shows runs as it is shown. Its build is part of the checks in .ci/run."""

import re
from pathlib import Path

import pytest
import yaml

from firstspike.config import load_config, parse_config
from firstspike.sweeps.plan import load_plan

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ["concepts", "getting_started", "own_data", "training", "plots", "substrates", "images", "nir"]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    found = blocks(page, "python")
    assert found
    names: dict[str, object] = {}  # a page is read from top to bottom
    for block in found:
        exec(block, names)


def test_sweeps_of_the_page_are_valid(tmp_path):
    whole, axes, pruning = blocks("sweeps", "yaml")
    shared = "base: bars\naxes: {training.optimizer.lr: {from: 0.001, to: 0.1, log: true}}\n"
    for text, trials in ((whole, 12), (axes, 24), (shared + pruning, 60)):
        (tmp_path / "sweep.yaml").write_text(text)
        assert load_plan(tmp_path / "sweep.yaml").n_trials == trials


def test_config_of_the_page_is_valid():
    (text,) = blocks("training", "yaml")
    config = parse_config(yaml.safe_load(text))
    assert config.training.epochs == 400


def test_substrate_of_the_page_is_valid():
    text, _ = blocks("brainscales2", "yaml")
    (setting,) = yaml.safe_load(text).items()
    config = load_config("bars_mock_bss2", [f"{setting[0]}={yaml.safe_dump(setting[1], default_flow_style=True)}"])
    assert config.substrate.kind == "brainscales2"
    assert config.substrate.largest_batch == 150
