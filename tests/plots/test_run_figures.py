import errno
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

import firstspike as fs
from firstspike import plots
from firstspike.config import load_config
from firstspike.config.builder import build_network
from firstspike.plots.margins import input_effects, margins_of
from firstspike.plots.run_data import NotApplicable
from firstspike.plots.save import save_all
from firstspike.plots.training import history
from firstspike.runs import Run

YIN_YANG_ONLY = {"decision_map", "output_maps", "hidden_maps"}


@pytest.mark.slow
def test_all_figures_of_a_yin_yang_run(yin_yang_run):
    files = yin_yang_run.plot(formats=("png", "pdf"))
    applicable = plots.PLOTS.keys() - {"substrate", "receptive_fields", "spike_counts"}
    assert {file.name for file in files} == {f"{name}.{suffix}" for name in applicable for suffix in ("png", "pdf")}
    assert {file.parent for file in files} == {yin_yang_run.folder / "figures"}
    assert {file.name for file in (yin_yang_run.folder / "figures").iterdir()} == {file.name for file in files}
    for file in files:
        if file.suffix == ".png":
            height, width, _ = imread(file).shape
            assert 300 < height < 2000
            assert 300 < width < 1600
        else:
            text = file.read_bytes()
            assert text.startswith(b"%PDF")
            assert b"/FontFile2" in text
            assert b"/Type3" not in text


@pytest.mark.slow
def test_figures_that_apply_to_a_bars_run(bars_run):
    files = fs.Run(bars_run.folder).plot()
    assert {file.stem for file in files} == set(plots.PLOTS) - YIN_YANG_ONLY - {"substrate", "spike_counts"}


@pytest.mark.parametrize("name", sorted(YIN_YANG_ONLY))
def test_a_figure_asked_for_by_name_that_does_not_apply(bars_run, name):
    with pytest.raises(NotApplicable, match=r"only runs on yin_yang .* this one is on bars"):
        bars_run.plot([name])


def broken(run):
    """A figure that fails."""
    raise IndexError("no such row\nin this table")


def unrendered(run):
    """A figure that fails when it is written."""
    figure = Figure()
    figure.text(0, 0, r"$\frac$")
    return figure


def test_a_figure_that_fails_takes_no_other_with_it(tmp_path, caplog):
    figures = {"broken": broken, "unrendered": unrendered, "fine": lambda run: Figure()}
    assert save_all(figures, None, tmp_path, None, ("png",)) == [tmp_path / "fine.png"]
    assert caplog.messages[0] == "no figure broken: IndexError: no such row in this table"
    assert caplog.messages[1].startswith("no figure unrendered: ")
    assert [message.count("\n") for message in caplog.messages] == [0, 0]
    assert {file.name for file in tmp_path.iterdir()} == {"fine.png"}
    with pytest.raises(NotApplicable, match=r"no figure broken: IndexError: no such row in this table$"):
        save_all(figures, None, tmp_path / "named", ["broken", "fine"], ("png",))
    assert (tmp_path / "named" / "fine.png").is_file()


def test_no_space_for_a_figure_is_an_error(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="No space"):
        save_all({"fine": lambda run: Figure()}, None, tmp_path, None, ("png",))


def test_figures_at_a_checkpoint_have_names_of_their_own(bars_run):
    name = bars_run.checkpoints[0]
    for run, ending in (
        (fs.Run(bars_run.folder, name), f"_at_{name}"),
        (fs.Run(bars_run.folder, name, "noisy"), f"_on_noisy_at_{name}"),
    ):
        assert [file.stem for file in run.plot(["weight_matrices"])] == [f"weight_matrices{ending}"]


def test_unknown_names_and_formats(bars_run, tmp_path):
    with pytest.raises(ValueError, match="there is no figure 'confusio'; did you mean confusion"):
        bars_run.plot(["confusio"])
    with pytest.raises(ValueError, match="there is no format 'bmp'; choose from png, pdf, svg"):
        bars_run.plot(formats=["bmp"])
    with pytest.raises(FileNotFoundError, match="is not a run folder"):
        fs.Run(tmp_path).plot()


@pytest.mark.slow
def test_figures_are_the_same_to_the_byte(bars_run):
    def written():
        return [file.read_bytes() for file in bars_run.plot(["weight_matrices"], ("png", "pdf"))]

    assert written() == written()


def test_figures_after_training_need_no_checkpoint(bars_run, monkeypatch):
    run = Run(bars_run.folder)
    monkeypatch.setattr(Run, "network", property(lambda self: pytest.fail("the network was loaded")))
    assert len(run.plot([name for name in plots.AFTER_TRAINING if name != "decision_map"])) == 2


def test_run_without_epochs_has_no_curves(bars_run, tmp_path):
    (tmp_path / "config.yaml").write_text((bars_run.folder / "config.yaml").read_text())
    run = Run(tmp_path)
    for name in ("loss_and_error", "confusion"):
        with pytest.raises(NotApplicable, match=r"no finished epoch|no checkpoint"):
            plots.PLOTS[name](run)
    assert [file.stem for file in run.plot()] == ["dataset"]


def test_bias_columns_are_marked(yin_yang_run, bars_run):
    def marked(run):
        return [[text.get_text() for text in ax.texts] for ax in plots.PLOTS["weight_matrices"](run).axes if ax.images]

    assert marked(yin_yang_run) == [["bias"], ["bias"], [], []]
    assert marked(bars_run) == [[]] * 4
    (bar,) = (line for line in plots.PLOTS["weight_matrices"](yin_yang_run).axes[0].lines)
    assert bar.get_xdata() == pytest.approx([3.5, 4.5])  # the fifth input


def test_learnt_delays_are_drawn_with_their_unit(bars_run):
    figure = plots.PLOTS["parameters"](bars_run)
    labels = {ax.get_title(): ax.get_ylabel().partition(" [")[0] for ax in figure.axes}
    assert labels["hidden, 45 synaptic delays"] == "synaptic delay"
    assert labels["input, 9 delays"] == "delay"
    assert labels["output, 30 weights"] == "weight"


@pytest.mark.slow
def test_of_many_outputs_the_membranes_of_the_class_and_of_the_earliest_are_drawn(tmp_path):
    (tmp_path / "config.yaml").write_text(load_config("digits").to_yaml())
    run = Run(tmp_path)
    run.network = run.initial
    ax = plots.PLOTS["membrane"](run).axes[0]
    names = [line.get_label() for line in ax.lines if line.get_label()[0] in "0123456789"]
    sample = int((run.data.test.labels == 0).nonzero()[0])
    earliest = [str(k) for k in run.record.output[sample].argsort(stable=True).tolist() if k != 0][:5]
    assert names == ["0", *earliest]
    assert ax.get_legend().get_title().get_text() == "the true class and the\n5 earliest of 9 others"


def test_images_with_two_channels_are_shown_once(tmp_path):
    config = load_config("digits", ["data.on_off=true"])
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    figure = plots.PLOTS["dataset"](Run(tmp_path))
    assert {ax.images[0].get_array().shape for ax in figure.axes if ax.images} == {(8, 8)}


@pytest.fixture
def table_run(tmp_path):
    """A run of a table that is not trained."""
    (tmp_path / "a.csv").write_text("width,height,kind\n" + "1,2,b\n3,4,c\n1,,b\n" * 4)
    data = "data: {kind: files, train: a.csv, validation: 0.25, test: 0.25, encode: {}}"
    layers = "network: [{kind: lif, out_features: 2}]\nloss: {kind: cross_entropy}"
    (tmp_path / "own.yaml").write_text(f"{data}\n{layers}\ntraining: {{epochs: 1, batch_size: 2}}\n")
    (tmp_path / "config.yaml").write_text(load_config(tmp_path / "own.yaml").to_yaml())
    run = Run(tmp_path)
    run.network = run.initial
    return run


def ticks(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_figures_of_a_table_name_its_columns_and_classes(table_run):
    left, *_ = plots.PLOTS["dataset"](table_run).axes
    assert ticks(left.yaxis) == ["width", "height", "width (off)", "height (off)"]
    assert left.get_ylabel() == ""
    weights = plots.PLOTS["weight_matrices"](table_run).axes[0]
    assert ticks(weights.xaxis) == ["width", "height", "width (off)", "height (off)"]
    assert ticks(weights.yaxis) == ["b", "c"]


def test_margins_of_a_table_are_of_its_values(table_run):
    """Both channels of a column are one, and a larger value speaks for or against the decision."""
    run, encoder = table_run, table_run.data.train.table
    values = encoder.decode(run.held_out[1].times)
    known = int(values.isfinite().all(dim=1).nonzero()[0])
    figure = plots.PLOTS["margins"](run, sample=known)
    left, right = figure.axes[:2]
    named = {f"{name} = {value:.4g}" for name, value in zip(("width", "height"), values[known].tolist(), strict=True)}
    assert set(ticks(left.yaxis)) == named
    widths = [bar.get_width() for bar in right.patches]
    assert widths == sorted(widths, reverse=True)
    change = torch.tensor([[0.001 * 2, 0.0]])  # of the width, whose range is 2
    middle = torch.tensor([[2.0, 3.0]])
    before, after = (
        fs.training.margins(run.network, encoder(x), labels=torch.tensor([0])).margin.item()
        for x in (middle - change, middle + change)
    )
    found = fs.training.margins(run.network, encoder(middle), labels=torch.tensor([0]))
    assert encoder.by_values(found.by_times)[0, 0].item() == pytest.approx((after - before) / 0.002, rel=0.02)


def test_a_missing_value_has_no_number(table_run):
    values = table_run.data.train.table.decode(table_run.held_out[1].times)
    missing = int(values.isnan().any(dim=1).nonzero()[0])
    left = plots.PLOTS["margins"](table_run, sample=missing).axes[0]
    assert "height = missing" in ticks(left.yaxis)


def test_figures_of_a_chosen_sample(yin_yang_run):
    files = yin_yang_run.plot(["raster", "membrane"], sample=7)
    assert [file.name for file in files] == ["raster_7.png", "membrane_7.png"]
    assert plots.of_sample(7).keys() == {"summary", "margins", "raster", "membrane"}
    (ax,) = plots.of_sample(7)["membrane"](yin_yang_run).axes
    assert "test sample 7, class" in ax.get_title()
    with pytest.raises(ValueError, match=r"sample: expected 0 \.\.\. 39 for the test data, got 40"):
        yin_yang_run.plot(sample=40)
    with pytest.raises(
        ValueError, match="there is no figure 'confusion'; choose from summary, margins, raster, membrane"
    ):
        yin_yang_run.plot(["confusion"], sample=0)


def test_networks_before_and_after(yin_yang_run):
    config = yin_yang_run.config
    fresh = build_network(config, yin_yang_run.data.train, config.training.seed)
    torch.testing.assert_close(yin_yang_run.initial[1].weight, fresh[1].weight.detach(), rtol=0, atol=0)
    assert not torch.equal(yin_yang_run.initial[1].weight, yin_yang_run.network[1].weight)
    epochs, parameters = history(yin_yang_run)
    weights = parameters["weights, hidden"]
    assert epochs == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(weights[0], yin_yang_run.initial[1].weight.double().ravel())
    np.testing.assert_allclose(weights[-1], yin_yang_run.network[1].weight.double().ravel())


def test_history_names_all_parameters(bars_run):
    _, parameters = history(bars_run)
    assert {name: values.shape[1] for name, values in parameters.items()} == {
        "delays, input": 9,
        "weights, hidden": 45,
        "synaptic delays, hidden": 45,
        "delays, hidden": 5,
        "weights, output": 30,
        "membrane time constants, output": 3,
        "synaptic time constants, output": 3,
        "delays, output": 3,
    }
    assert (parameters["synaptic delays, hidden"] > 0).all()
    taus = parameters["membrane time constants, output"]
    np.testing.assert_allclose(taus[0], 1.0)
    np.testing.assert_allclose(taus[-1], bars_run.network[4].log_tau_mem.double().exp())
    assert (taus[-1] != 1).all()


def test_damaged_newest_checkpoint_is_named_and_left_out(yin_yang_run, tmp_path, caplog):
    shutil.copytree(yin_yang_run.folder, tmp_path / "run")
    weights = tmp_path / "run" / "checkpoints" / "epoch_0004" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    run = Run(tmp_path / "run")
    for best in (tmp_path / "run" / "checkpoints").glob("best_*"):
        shutil.rmtree(best)
    third = history(run)[1]["weights, hidden"][3]
    np.testing.assert_allclose(run.network[1].weight.double().ravel(), third)
    assert "weights.safetensors is damaged" in caplog.text


@pytest.mark.slow
def test_drawing_leaves_matplotlib_as_it_was():
    code = """
import sys, matplotlib
def settings():
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}  # reading it loads pyplot
before = settings()
from firstspike.plots.look import new_figure, styled
@styled
def draw():
    figure = new_figure()
    figure.subplots().plot([1, 2])
    return figure
draw().draw_without_rendering()
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_margins_show_inputs_by_name(yin_yang_run):
    ax, bars = plots.PLOTS["margins"](yin_yang_run).axes[:2]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["x", "y", "1 - x", "1 - y"]
    found = margins_of(yin_yang_run)
    np.testing.assert_allclose(ax.collections[0].get_array(), found.by_times[0], rtol=1e-6)
    finite = found.margin.isfinite()
    expected = found.by_times[finite].double().abs().mean(dim=0)
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], expected, rtol=1e-6)
    assert bars.get_title() == f"mean of {int(finite.sum())} samples"


@pytest.mark.parametrize(
    ("margin", "rival", "words"),
    [(float("nan"), -1, "no output spikes"), (float("inf"), -1, "no other output spikes"), (0.25, 0, "0.25 ")],
)
def test_margins_say_what_was_decided(bars_run, monkeypatch, margin, rival, words):
    found = margins_of(bars_run)
    margins, rivals = found.margin.clone(), found.rival.clone()
    margins[0], rivals[0] = margin, rival
    found = found._replace(margin=margins, rival=rivals)
    monkeypatch.setattr("firstspike.plots.margins.margins_of", lambda run: found)
    figure = plots.PLOTS["margins"](bars_run)
    right = figure.axes[1]
    assert words in figure.get_suptitle()
    np.testing.assert_allclose(right.images[0].get_array(), input_effects(found).reshape(3, 3))


def test_margins_need_two_outputs_that_spike(bars_run, monkeypatch):
    found = margins_of(bars_run)
    found = found._replace(margin=torch.full_like(found.margin, float("inf")))
    monkeypatch.setattr("firstspike.plots.margins.margins_of", lambda run: found)
    with pytest.raises(NotApplicable, match="in no sample do two outputs spike"):
        plots.PLOTS["margins"](bars_run)
