import numpy as np
import pytest
import torch

from firstspike import plots
from firstspike.layers import LIFLinear
from firstspike.plots.membranes import draw_traces, traces
from firstspike.plots.run_data import NotApplicable
from firstspike.runs import Run
from firstspike.substrates import SUBSTRATES, SubstrateError


@pytest.fixture
def noisy(bars_run):
    return Run(bars_run.folder, substrate="integrator")


def test_times_are_compared(ax):
    exact = torch.tensor([[1.0, 2.0], [torch.inf, 1.5], [0.5, torch.inf], [torch.inf, torch.inf]])
    observed = torch.tensor([[1.1, torch.inf], [2.0, 1.5], [0.8, torch.inf], [torch.inf, torch.inf]])
    plots.time_comparison(exact, observed, ax, "hidden")
    assert ax.get_title() == "hidden, median distance 0.1\nspikes lost 12.5 %, added 12.5 %"
    dots, most = (line.get_xydata() for line in ax.get_lines() if line.get_marker() == ".")
    np.testing.assert_allclose(dots, [[1.0, 1.1], [1.5, 1.5], [0.5, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(most, [[1.0, 1.1], [0.5, 0.8]], rtol=1e-6)  # one spike more each, and further apart
    assert [text.get_text() for text in ax.texts] == ["neuron 0"]
    with pytest.raises(ValueError, match="exact and observed must have one shape"):
        plots.time_comparison(exact, observed[:2], ax)


def test_no_common_spike(ax):
    plots.time_comparison(torch.full((2, 2), torch.inf), torch.ones(2, 2), ax)
    assert ax.get_title() == "0.0 % silent in both\nspikes lost 0.0 %, added 100.0 %"


def test_membranes_end_at_their_spikes(ax):
    layer = LIFLinear(3, 2, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0, 2.0, 2.0], [-1.0, -1.0, -1.0]]))
    inputs = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    spikes = layer(inputs)
    later = spikes + 0.2
    exact, observed = (traces(layer, inputs, times, [0, 1], ["a", "b"]) for times in (spikes, later))
    draw_traces(exact, ax, other=observed)
    solid = next(line for line in ax.get_lines() if line.get_label() == "a")
    assert solid.get_xdata()[-1] == pytest.approx(spikes[0].item())
    assert solid.get_ydata()[-1] == pytest.approx(1.0)
    marks = [line for line in ax.get_lines() if len(line.get_xdata()) == 1]
    assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([spikes[0].item(), later[0].item()])
    assert marks[1].get_ydata()[0] > 1.05  # the neuron fired above its threshold


def test_figure_of_a_run(noisy, yin_yang_run):
    figure = plots.PLOTS["substrate"](noisy)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[0].startswith("hidden, median distance")
    assert titles[2] == "output, test sample 0: exact (solid) and integrator (dashed)"
    with pytest.raises(NotApplicable, match="on the exact substrate"):
        plots.PLOTS["substrate"](yin_yang_run)


@pytest.mark.nest
def test_figure_of_a_simulator(bars_run):
    figure = plots.PLOTS["substrate"](Run(bars_run.folder, substrate="nest"))
    assert figure.axes[0].get_title().endswith("spikes lost 0.0 %, added 0.0 %")
    assert figure.axes[2].get_title() == "output, test sample 0: exact (solid) and nest (dashed)"


def test_a_substrate_that_cannot_be_had_leaves_out_its_figures_only(noisy, monkeypatch):
    def unreachable(self, network):
        raise SubstrateError("no chip answers")

    monkeypatch.setattr(SUBSTRATES["integrator"], "open", unreachable)
    with pytest.raises(NotApplicable, match="no chip answers"):
        noisy.plot(["confusion"])
    (file,) = noisy.plot(["weight_matrices"])
    assert file.name == "weight_matrices_on_integrator.png"
