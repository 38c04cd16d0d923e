"""Every figure of every kind of run is drawn, or says why it does not apply; nothing else."""

import pytest

import firstspike as fs
import python_runs
from firstspike import plots
from firstspike.plots.run_data import NotApplicable

YIN_YANG = {"decision_map", "output_maps", "hidden_maps"}
NEVER = YIN_YANG | {"substrate", "spike_counts"}
LAYERS = {"weight_matrices", "membrane"}
NOT_DRAWN = {
    "only_training_data": {"receptive_fields", "output_times"},
    "own_loss": {"receptive_fields"},
    "plain_module": LAYERS | {"receptive_fields", "output_times"},
    "more_outputs_than_classes": {"receptive_fields"},
    "own_layer": {"receptive_fields", "output_times"},
    "images": set(),
    "data_elsewhere": {"receptive_fields"},
    "table": {"receptive_fields", "output_times"},
    "seeds": set(plots.PLOTS) - {"loss_and_error", "dataset"},
    "seeds_with_only_training_data": set(plots.PLOTS) - {"loss_and_error", "dataset"},
}


pytestmark = pytest.mark.draws


@pytest.fixture(scope="module", params=python_runs.KINDS)
def made(request, tmp_path_factory):
    folder, parts = python_runs.KINDS[request.param](tmp_path_factory.mktemp("python") / request.param)
    return request.param, folder, parts


@pytest.mark.slow
def test_every_figure_is_drawn_or_says_why(made):
    kind, folder, parts = made
    run = fs.Run(folder, **parts)
    reasons = {}
    for name, draw in plots.PLOTS.items():
        try:
            draw(run)
        except NotApplicable as reason:
            reasons[name] = str(reason)
    assert set(reasons) == NOT_DRAWN[kind] | NEVER
    for reason in reasons.values():
        assert reason
        assert "\n" not in reason


@pytest.mark.slow
def test_summary_has_a_row_of_output_times_if_they_were_recorded(made):
    kind, folder, parts = made
    if "summary" in NOT_DRAWN[kind]:
        pytest.skip("no summary of several seeds")
    figure = plots.PLOTS["summary"](fs.Run(folder, **parts))
    figure.draw_without_rendering()
    assert len(figure.subfigs) == (3 if "output_times" in NOT_DRAWN[kind] else 4)


@pytest.mark.slow
def test_files_are_written_for_what_the_command_has(made):
    """Without the parts that have to be handed over, and without their data, there are the figures of the tables."""
    kind, folder, parts = made
    files = {file.stem for file in (folder / "figures").iterdir()}  # of the end of the training
    assert files == {"loss_and_error"} | ({"output_times"} - NOT_DRAWN[kind])
    if "network" in parts:
        with pytest.raises(NotApplicable, match=r"hand .* over in Python: network=\.\.\."):
            fs.Run(folder).plot(["confusion"])
    if "loss" in parts:
        with pytest.raises(NotApplicable, match=r"pass it in Python: loss=\.\.\.") as reason:
            fs.Run(folder).plot(["confusion", "summary"])
        assert str(reason.value).startswith("no figure confusion, summary: loss: ")
        assert len(str(reason.value).splitlines()) == str(reason.value).count("pass it in Python") == 1
    if "data" in parts:
        with pytest.raises(NotApplicable, match=r"fs\.Run\(folder, data=\.\.\.\)"):
            fs.Run(folder).plot(["dataset"])


def test_the_initial_network_is_the_one_that_was_handed_over(tmp_path):
    net = python_runs.network(python_runs.INPUTS, 8, python_runs.CLASSES)
    weight = net[0].weight.detach().clone()
    run = fs.Run(python_runs.train(tmp_path / "run", net))
    assert (run.initial[0].weight == weight).all()
    assert not (run.network[0].weight == weight).all()
