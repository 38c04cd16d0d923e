"""The tutorials run from top to bottom, without a warning but those meant, reach what they say, and are stored so."""

import re
from itertools import groupby
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
NAMES = sorted(path.stem for path in TUTORIALS.glob("*.ipynb"))
WARNS = ("05_silent_neurons",)
"""Those whose networks are silent on purpose, of which a training warns."""
LARGEST = 3 * 2**20
"""Bytes of all notebooks together."""


def stored(name):
    import nbformat

    return nbformat.read(TUTORIALS / f"{name}.ipynb", as_version=4)


def outputs(notebook, name):
    """Text that a notebook printed, and the number of its figures."""
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = [output for output in found if output.output_type == "stream"]
    warned = [output.text for output in printed if output.name != "stdout"]
    assert [text for text in warned if name not in WARNS or "are silent in the training data" not in text] == []
    assert [output.evalue for output in found if output.output_type == "error"] == []
    figures = sum("image/png" in output.get("data", {}) for output in found)
    return "".join(output.text for output in printed), figures


def form(text):
    """The text without its numbers, which differ between machines, and without the spaces that align them.

    Lines that are then alike, such as those of several seeds, count once.
    """
    lines = re.sub(r"-?(?:\d[\d.]*(?:e-?\d+)?|inf|nan)", "0", text).splitlines()
    return [line for line, _ in groupby(map(str.split, lines))]


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    """Of the kernel that executes all notebooks one after another: each of its own would import torch for seconds."""
    import nbclient
    import nbformat
    from nbclient.util import run_sync

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))  # no settings of whoever runs the tests
        first = nbclient.NotebookClient(nbformat.v4.new_notebook(), kernel_name="python3")
        first.create_kernel_manager()
        first.execute(cleanup_kc=False)
        first.kc.stop_channels()
        yield first.km
        run_sync(first.km.shutdown_kernel)(now=True)


@pytest.fixture
def executed(manager, tmp_path):
    """Executes a notebook: its text has the form of what is stored, and there are as many figures.

    ``quicker`` takes the place of a part of its code.
    """
    import nbclient
    import nbformat

    def execute(name, quicker=()):
        notebook = stored(name)
        shown, drawn = outputs(notebook, name)
        if quicker:
            changed = next(cell for cell in notebook.cells if cell.cell_type == "code" and quicker[0] in cell.source)
            changed.source = changed.source.replace(*quicker)
        alone = f"%reset -f\n%cd -q {tmp_path}\nimport torch\ntorch.set_default_dtype(torch.float32)"
        notebook.cells.insert(0, nbformat.v4.new_code_cell(alone))  # nothing of others
        client = nbclient.NotebookClient(notebook, timeout=300, km=manager)
        client.execute(cleanup_kc=False)  # raises at an error in a cell
        client.kc.stop_channels()
        text, figures = outputs(notebook, name)
        assert figures == drawn > 0
        assert form(text) == form(shown)
        return text

    return execute


def numbers(text, before, after=""):
    found = re.findall(rf"{before} *(-?[0-9.]+){after}", text)
    assert found, f"{before!r} is not printed"
    return [float(number) for number in found]


def percent(text, what):
    return numbers(text, f"{what}:?", r"(?: ± [0-9.]+)? %")[-1]


pytestmark = pytest.mark.slow


def test_spike_times(executed):
    text = executed("01_spike_times")
    exact, quotient = numbers(text, "exact derivative"), numbers(text, "difference quotient")
    assert exact == pytest.approx(quotient, abs=1e-6)
    assert re.search(r"sum 1\.0$", text, re.MULTILINE)
    assert "after:  tensor([0.9000, 1.2000, 1.5000]" in text


def test_training_loop(executed):
    text = executed("02_training_loop")
    assert percent(text, "own loop: test accuracy") > 95
    assert percent(text, "Trainer:  test accuracy") > 95


def test_your_own_data(executed):
    text = executed("03_your_own_data")
    assert percent(text, "after:  validation accuracy") > 80
    assert percent(text, "test accuracy") > 80
    assert "['class_0' 'class_1' 'class_2']" in text
    assert "run folder: runs/mine" in text


def test_yin_yang(executed):
    text = executed("04_yin_yang", ("training.epochs=60", "training.epochs=10"))
    assert percent(text, "test accuracy") > 95


def test_silent_neurons(executed):
    text = executed("05_silent_neurons", ("EPOCHS, SEEDS = 100, 3", "EPOCHS, SEEDS = 30, 2"))
    assert percent(text, "no remedy: test accuracy") == 0
    for start in ("raise weights", "membrane peak"):  # rounding decides how far these short trainings get
        assert percent(text, f"{start}: test accuracy") > 50
    assert percent(text, "default weights: test accuracy") > 90
    lost, recovered = numbers(text, "final loss")
    assert lost > 10 > 1 > recovered


def test_delays(executed):
    text = executed("06_delays", ("EPOCHS, SEEDS = 60, 5", "EPOCHS, SEEDS = 10, 3"))
    assert min(percent(text, rf"{kind}: .*test accuracy") for kind in ("no delays", "axonal", "synaptic")) > 70
    sizes = numbers(text, "neurons,", " parameters")
    assert max(sizes) - min(sizes) <= 2
    assert "after:  delays tensor([1.0143, 0.3143]) spike tensor([[2.2000]])" in text


def test_noisy_device(executed):
    text = executed("07_noisy_device", ("EPOCHS = 20", "EPOCHS = 6"))
    before, after = percent(text, "trained in software, tested on 7"), percent(text, "trained on 7, tested on 7")
    assert percent(text, "trained and tested in software") > after > before


def test_images(executed):
    text = executed("08_images", ("EPOCHS = 60", "EPOCHS = 4"))
    assert min(numbers(text, "test accuracy", " ±")) > 75


def test_sequences(executed):
    text = executed("09_sequences")
    assert percent(text, "several spikes: test accuracy") > 95
    assert percent(text, "first spikes: test accuracy") < 65
    assert percent(text, "recurrent: test accuracy") > 75
    assert 1 < numbers(text, "spikes per neuron:")[0] < 5


def test_neurons(executed):
    text = executed("10_neurons", ("EPOCHS, SEEDS = 15, 3", "EPOCHS, SEEDS = 2, 3"))
    assert numbers(text, "QIF with pseudospikes: .*mean")[0] > 50
    assert re.search(r"QIF with .*\n  silent hidden neurons 0 %", text)
    assert "the same spikes: True" in text
    assert numbers(text, "own equations: .*mean")[0] > 50


def test_target_trains(executed):
    text = executed("11_target_trains", ("STEPS, UNTIL = 600", "STEPS, UNTIL = 250"))
    alone, both = numbers(text, r"spikes, distance")
    assert both < alone
    assert "tau_mem, tau_syn and threshold found: [17.0, 3.0, 14.0]" in text


def test_large_networks(executed):
    text = executed(
        "12_large_networks",
        ("EXCITE, INHIBIT, DURATION = 1000, 8000, 2000", "EXCITE, INHIBIT, DURATION = 1000, 2000, 500"),
    )
    target, after = (numbers(text, f"{when}: *excitatory", " Hz")[0] for when in ("target", "after"))
    assert after == pytest.approx(target, rel=0.15)
    assert numbers(text, "correlation of rates with targets")[0] > 0.9
    expected, found = numbers(text, "expected shift"), numbers(text, "found", " ms")
    assert found == pytest.approx(expected, rel=0.1, abs=1e-4)


def test_cameras(executed):
    text = executed("13_cameras", ("SEEDS, EPOCHS = 5, 30", "SEEDS, EPOCHS = 2, 15"))
    assert percent(text, "worst seed") > 85
    assert percent(text, "connected to all pixels: test accuracy") < percent(text, "seed 1: test accuracy")


def test_every_tutorial_has_a_test_and_a_line_in_the_index():
    assert {f"test_{name.partition('_')[2]}" for name in NAMES} <= set(globals())
    index = (TUTORIALS / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"^\d+\. .*\((\w+)\.ipynb\)", index, re.MULTILINE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_tutorials_are_stored_as_they_ran(name):
    import nbformat

    notebook = stored(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))  # from top to bottom
    assert not any(cell.metadata for cell in code)
    text, _ = outputs(notebook, name)
    assert not re.search(r"/(home|root|tmp|work)/", text)
    assert "## Something to change" in notebook.cells[-1].source


def test_tutorials_are_small():
    assert sum((TUTORIALS / f"{name}.ipynb").stat().st_size for name in NAMES) < LARGEST
