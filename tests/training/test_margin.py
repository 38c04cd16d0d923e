"""Margins of decisions and what they depend on, against finite differences and by what must hold exactly."""

import math

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.training import margin as module
from firstspike.training import margins

DOUBLE = {"dtype": torch.float64}
STEP = 1e-6


def inputs(*shape, seed=0):
    source = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=source, dtype=torch.float64)


def first_spikes():
    return fs.Network(fs.LIFLinear(5, 8, **DOUBLE), fs.LIFLinear(8, 3, **DOUBLE)), inputs(6, 5)


def readout():
    return fs.Network(fs.LIFLinear(5, 8, **DOUBLE), fs.MaximumReadout(8, 3, **DOUBLE)), inputs(6, 5)


def trains():
    times = inputs(6, 5, 3).mul(3).sort(dim=-1).values
    times[:, 0, 1:] = math.inf
    layer = fs.LIFSpikeTrains(5, 8, 6, weight_mean=0.4, weight_std=0.2, **DOUBLE)
    return fs.Network(layer, fs.IntegralReadout(8, 3, **DOUBLE)), times


def bias_and_delay():
    delay, output = (
        fs.Delay(6, fs.DelayRule(jitter=0.1), **DOUBLE),
        fs.LIFLinear(6, 3, trainable=["threshold"], **DOUBLE),
    )
    return fs.Network(fs.BiasSpikes([0.4]), delay, output), inputs(6, 5)


@pytest.fixture(params=[first_spikes, readout, trains, bias_and_delay], ids=lambda make: make.__name__)
def problem(request):
    torch.manual_seed(3)
    network, times = request.param()
    if request.param is not readout:
        assert torch.isfinite(margins(network, times).margin).sum() > 3
    return network, times


def test_derivatives_by_times_are_those_of_finite_differences(problem):
    network, times = problem
    found = margins(network, times)
    some = torch.isfinite(times[0]).nonzero()
    for place in map(tuple, some.tolist()):
        ends = []
        for step in (STEP, -STEP):
            moved = times.clone()
            moved[(slice(None), *place)] += step
            ends.append(margins(network, moved, found.chosen).margin)
        expected = (ends[0] - ends[1]) / (2 * STEP)
        finite = torch.isfinite(found.margin)
        torch.testing.assert_close(found.by_times[(finite, *place)], expected[finite], rtol=1e-5, atol=1e-6)
    assert (found.by_times[torch.isinf(times)] == 0).all()


def test_derivatives_by_parameters_are_those_of_finite_differences(problem):
    network, times = problem
    found = margins(network, times)
    assert found.by_parameter.keys() == dict(network.named_parameters()).keys()
    finite = torch.isfinite(found.margin)
    for name, parameter in network.named_parameters():
        assert found.by_parameter[name].shape == parameter.shape
        assert parameter.grad is None
        flat = parameter.data.reshape(-1)
        for place in range(0, len(flat), 5):
            ends, before = [], flat[place].item()
            for step in (STEP, -STEP):
                flat[place] = before + step
                ends.append(margins(network, times, found.chosen).margin[finite].mean())
            flat[place] = before
            expected = (ends[0] - ends[1]) / (2 * STEP)
            torch.testing.assert_close(found.by_parameter[name].reshape(-1)[place], expected, rtol=1e-4, atol=1e-6)


def test_margins_are_differences_of_the_outputs(problem):
    network, times = problem
    output = network.eval()(times).detach()
    if values := network.gives == "values":
        output = -output
    best = output.sort(dim=-1)
    found = margins(network, times)
    torch.testing.assert_close(found.margin, best.values[:, 1] - best.values[:, 0], equal_nan=True)
    assert found.chosen.tolist() == best.indices[:, 0].tolist()
    label = torch.full((len(times),), 2)
    own = margins(network, times, label)
    others = output[:, :2].min(dim=1)
    torch.testing.assert_close(own.margin, others.values - output[:, 2], equal_nan=True)
    assert own.rival.tolist() == torch.where(torch.isposinf(others.values), -1, others.indices).tolist()
    assert values or (found.margin[torch.isfinite(found.margin)] >= 0).all()


def test_a_shift_of_all_inputs_changes_nothing():
    torch.manual_seed(1)
    network, times = first_spikes()
    found, later = margins(network, times), margins(network, times + 7)
    torch.testing.assert_close(found.by_times.sum(dim=1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(later.margin, found.margin)
    torch.testing.assert_close(later.by_times, found.by_times)


def test_what_comes_after_both_outputs_has_a_derivative_of_exactly_0():
    layer = fs.LIFLinear(3, 2, **DOUBLE)
    layer.weight.data[:] = torch.tensor([[4.0, 0.5, 1.0], [3.0, 0.5, 1.0]])
    times = torch.tensor([[0.0, 0.1, 50.0], [0.0, 0.1, 0.2]], **DOUBLE)
    by_times = margins(fs.Network(layer), times).by_times
    assert by_times[0, 2].item() == 0
    assert (by_times[0, :2] != 0).all()
    between = torch.tensor([[0.0, 0.1, 0.5]], **DOUBLE)  # after the decision, before the other output
    layer.weight.data[:] = torch.tensor([[5.0, 0.0, 1.0], [1.0, 0.0, 4.0]])
    output = layer(between)
    assert output[0, 0] < 0.5 < output[0, 1]
    assert margins(fs.Network(layer), between).by_times[0, 2].item() != 0


@pytest.mark.parametrize("reference", [False, True])
def test_silent_outputs(reference):
    layer = fs.LIFLinear(2, 2, backend="reference" if reference else "auto", **DOUBLE)
    layer.weight.data[:] = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    times = torch.tensor([[0.0, math.inf], [math.inf, math.inf], [0.0, 0.4]], **DOUBLE)
    found = margins(fs.Network(layer), times)
    assert found.margin[0] == math.inf
    assert math.isnan(found.margin[1])
    assert found.margin[2].item() == pytest.approx(0.4)
    assert found.rival.tolist() == [-1, -1, 1]
    assert (found.by_times[:2] == 0).all()
    torch.testing.assert_close(found.by_times[2], torch.tensor([-1.0, 1.0], **DOUBLE))
    alone = margins(fs.Network(layer), times[2:])
    torch.testing.assert_close(found.by_parameter["0.weight"], alone.by_parameter["0.weight"])
    asked = margins(fs.Network(layer), times, torch.tensor([1, 1, 1]))
    assert asked.margin[0] == -math.inf
    assert asked.margin[2].item() == pytest.approx(-0.4)
    nothing = margins(fs.Network(layer), times[:2]).by_parameter["0.weight"]
    assert (nothing == 0).all()


def test_parts_change_nothing(monkeypatch):
    torch.manual_seed(1)
    network, times = first_spikes()
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    whole = margins(network, times, labels)
    monkeypatch.setattr(module, "samples_at_once", lambda *_: 4)
    parts = margins(network, times, labels)
    for one, other in zip(whole[:4], parts[:4], strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)
    torch.testing.assert_close(whole.by_parameter, parts.by_parameter)
    assert margins(network, times[:0]).by_times.shape == (0, 5)


def test_images_keep_their_form_and_modules_their_state():
    torch.manual_seed(0)
    network = fs.Network(fs.LIFConv2d((1, 4, 4), 2, 3), fs.LIFLinear(8, 3)).train()
    with torch.no_grad():
        found = margins(network.requires_grad_(False), inputs(2, 1, 4, 4).float())
    assert found.by_times.shape == (2, 1, 4, 4)
    assert (found.by_times != 0).any()
    assert network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_other_modules_say_what_their_outputs_are():
    torch.manual_seed(2)
    network, times = readout()
    other = nn.Sequential(*network)
    assert margins(other, times, readout=True).margin.tolist() == margins(network, times).margin.tolist()
    assert margins(other, times).margin.tolist() != margins(network, times).margin.tolist()


def test_outputs_that_have_no_margin():
    with pytest.raises(ValueError, match=r"at least two of them, got \(6, 1\)"):
        margins(fs.Network(fs.LIFLinear(5, 1, **DOUBLE)), inputs(6, 5))
    with pytest.raises(ValueError, match=r"got \(6, 2, 4\); a network that gives trains ends with"):
        margins(fs.Network(fs.LIFSpikeTrains(5, 2, 4, overflow="drop", **DOUBLE)), inputs(6, 5))
    network, times = first_spikes()
    with pytest.raises(ValueError, match=r"labels: expected 0 \.\.\. 2 for 3 output neurons, got 3"):
        margins(network, times, torch.full((6,), 3))
    with pytest.raises(ValueError, match=r"labels: expected int64 of shape \(6,\)"):
        margins(network, times, torch.zeros(7, dtype=torch.int64))
