"""What the documentation shows runs as it is shown, and its pages read on a code host as on the site.

Its build is part of the checks in .ci/run.
"""

import importlib
import json
import pkgutil
import re
from pathlib import Path

import pytest
import yaml

from firstspike.config import load_config
from firstspike.plots import PLOTS
from firstspike.sweeps.figures import SWEEP_PLOTS
from firstspike.sweeps.plan import load_plan

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    "concepts",
    "neurons",
    "fit_recording",
    "own_parts",
    "large_networks",
    "devices",
    "deep_networks",
    "getting_started",
    "own_data",
    "sklearn",
    "training",
    "troubleshooting",
    "gradients",
    "plots",
    "substrates",
    "images",
    "sequences",
    "nir",
    "coming_from_time_steps",
    "coming_from_simulators",
]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    found = blocks(page, "python")
    assert found
    names: dict[str, object] = {}  # a page is read from top to bottom
    for block in found:
        exec(block, names)


@pytest.mark.nir_readers
@pytest.mark.filterwarnings("default")
def test_examples_of_other_libraries_learn_too(capsys):
    names: dict[str, object] = {}
    exec(blocks("coming_from_time_steps", "python")[1], names)  # the data
    for block in blocks("coming_from_time_steps", "py"):
        exec(block, names)
    found = re.findall(r"^test accuracy (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(found) == 2
    assert min(map(float, found)) > 0.7


def test_sweeps_of_the_page_are_valid(tmp_path):
    whole, axes, pruning = blocks("sweeps", "yaml")
    shared = "base: bars\naxes: {training.optimizer.lr: {from: 0.001, to: 0.1, log: true}}\n"
    for text, trials in ((whole, 12), (axes, 24), (shared + pruning, 60)):
        (tmp_path / "sweep.yaml").write_text(text)
        assert len(load_plan(tmp_path / "sweep.yaml").trials()) == trials


def test_config_of_the_page_is_valid():
    (text,) = blocks("training", "yaml")
    config = load_config(yaml.safe_load(text))
    assert config.training.epochs == 30


def test_neuron_of_the_page_is_valid():
    (text,) = blocks("neurons", "yaml")
    rest = "{data: {kind: yin_yang}, loss: {kind: cross_entropy}, training: {epochs: 1, batch_size: 20}}"
    config = load_config(yaml.safe_load(text) | yaml.safe_load(rest))
    assert config.neuron.kind == "equations"


def test_substrate_of_the_page_is_valid():
    text, _ = blocks("substrates", "yaml")
    (setting,) = yaml.safe_load(text).items()
    config = load_config("bars_mock_bss2", [f"{setting[0]}={yaml.safe_dump(setting[1], default_flow_style=True)}"])
    assert config.substrate.kind == "brainscales2"
    assert config.substrate.largest_batch == 150


def test_every_key_of_a_config_has_a_description(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "_ext")
    found = importlib.import_module("generated").descriptions()
    assert len(found) > 150
    for key in ("neuron.threshold", "training.optimizer (sgd).momentum", "network[].delay.scale", "loss (mse).wrong"):
        assert key in found
    odd = re.compile(r"$|of |see |the same|its |their |[<>=]", re.IGNORECASE)  # says nothing on its own
    assert {key: text for key, text in found.items() if odd.match(text)} == {}


def test_page_of_figures_has_every_one():
    text = (DOCS / "plots.md").read_text(encoding="utf-8")
    assert {*PLOTS, *SWEEP_PLOTS} == set(re.findall(r"^\*\*`(\w+)`\*\*", text, re.MULTILINE))
    shown = {path.removeprefix("_static/gallery/") for path in re.findall(r"\]\(([^)]*\.png)\)", text)}
    assert shown == {path.name for path in (DOCS / "_static" / "gallery").iterdir()}


@pytest.fixture
def drawing(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("figures")


def test_images_are_not_older_than_what_makes_them(drawing):
    digests = json.loads(drawing.DIGESTS.read_text(encoding="utf-8"))
    stale = [name for name in drawing.FIGURES if digests.get(name) != drawing.figure_digest(name)]
    assert not stale, f"draw them again: python docs/figures.py {' '.join(stale)}"


@pytest.mark.parametrize("path", sorted((DOCS / "tutorials").glob("*.ipynb")), ids=lambda path: path.stem)
def test_outputs_of_tutorials_are_not_older_than_their_code(drawing, path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    stale = notebook["metadata"].get("code") != drawing.code_digest(notebook)
    assert not stale, f"execute it again: python docs/figures.py {path.relative_to(ROOT)}"
    kinds = [output["output_type"] for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert "error" not in kinds


def texts():
    """The Markdown of every page and notebook, by its path: what a code host shows, without code blocks."""
    files = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("examples/*.ipynb"), *DOCS.glob("tutorials/*.ipynb")]
    found = {}
    for file in files:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
        found[file] = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return {file: text for file, text in found.items() if "_build" not in file.parts}


def anchors(text):
    """What a code host makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text):
    """Texts and targets, also of pictures."""
    text = re.sub(r"(`+)(?!`).*?[^`]\1(?!`)", "code", text)
    return re.findall(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]*)\)", text)


def test_every_link_has_a_text_and_a_target():
    pages = texts()
    assert sum(len(links(text)) for text in pages.values()) > 100
    wrong = []
    for file, text in pages.items():
        for shown, target in links(text):
            path, _, anchor = target.partition("#")
            if not shown.strip():
                wrong.append(f"{file.name}: no text for {target}")
            if re.match(r"\w+:", target):
                continue
            to = (file.parent / path).resolve() if path else file
            if not to.exists() or (to.suffix == ".md" and anchor and anchor not in anchors(pages[to])):
                wrong.append(f"{file.name}: nothing at {target}")
    assert wrong == []


def test_pages_are_listed_by_their_titles():
    """The list of the first page says what the sidebar says, and has as many entries."""
    source = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\* \[([^\]]*)\]\((\S*)\)", source.partition("## Tutorials")[2], re.MULTILINE)
    assert {
        name: re.search("^# (.*)$", (DOCS / page).read_text("utf-8"), re.MULTILINE)[1] for name, page in listed
    } == {name: name for name, _ in listed}
    entries = re.findall(r"^\w[\w/]*$", "".join(re.findall(r"```\{toctree\}(.*?)```", source, re.DOTALL)), re.MULTILINE)
    assert [page.removesuffix(".md") for _, page in listed] == entries


def test_pages_have_nothing_that_only_sphinx_understands():
    only_sphinx = re.compile(r"\{[\w:]+\}`|^:::|^: |^%|^\([\w-]+\)=$|^ *```\{", re.MULTILINE)
    assert {file.name: found for file, text in texts().items() if (found := only_sphinx.findall(text))} == {}


def test_names_in_code_exist():
    unknown = []
    for file, text in texts().items():
        if file.name == "CHANGELOG.md":
            continue  # also tells of earlier names
        for name in re.findall(r"`(?:fs|firstspike)((?:\.[a-z_]\w*)*\.[A-Za-z_]\w*)(?:\(\))?`", text):
            try:
                pkgutil.resolve_name(f"firstspike{name}")
            except (AttributeError, ImportError):
                unknown.append(f"{file.name}: {name}")
    assert unknown == []
