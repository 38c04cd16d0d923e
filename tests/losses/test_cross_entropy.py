import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from firstspike.losses import TimeCrossEntropy

inf = math.inf


def test_formula():
    t = [0.9, 0.5, 1.4]
    expected = math.log(sum(math.exp((t[2] - x) / (0.3 * 2.0)) for x in t))
    loss = TimeCrossEntropy(xi=0.3, tau_syn=2.0)
    assert loss(torch.tensor([t], dtype=torch.float64), torch.tensor([2])).item() == pytest.approx(expected)


def test_is_softmax_cross_entropy_of_negative_times():
    times, labels = torch.rand(50, 5, dtype=torch.float64), torch.randint(5, (50,))
    assert torch.allclose(TimeCrossEntropy(xi=0.2)(times, labels), cross_entropy(-times / 0.2, labels))


def test_shift_of_all_times_changes_nothing():
    times, labels = torch.rand(20, 3, dtype=torch.float64), torch.randint(3, (20,))
    loss = TimeCrossEntropy()
    assert torch.allclose(loss.per_sample(times + 5, labels), loss.per_sample(times, labels))


def test_alone_costs_nothing():
    assert TimeCrossEntropy()(torch.tensor([[0.7, inf, inf]]), torch.tensor([0])) == 0


@pytest.mark.parametrize("silent", [(), ([0], [1]), ([0, 3], [2, 0])], ids=["none", "a wrong one", "true ones, too"])
def test_a_batch_costs_the_mean_of_its_samples(silent):
    times, labels = torch.rand(9, 3), torch.arange(9) % 3
    if silent:
        times[silent] = inf
    loss, found = TimeCrossEntropy(), []
    for cost in (loss, lambda *given: loss.per_sample(*given).mean()):
        leaf = times.clone().requires_grad_()
        value = cost(leaf, labels)
        value.backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*found, rtol=1e-6, atol=0)


@pytest.mark.parametrize("wrong", [math.nan, -inf])
@pytest.mark.parametrize("place", [0, 1])
def test_times_that_are_no_times_are_refused(wrong, place):
    times = torch.rand(2, 3)
    times[0, place] = wrong
    with pytest.raises(ValueError, match="must be real numbers or inf"):
        TimeCrossEntropy()(times, torch.tensor([0, 2]))


def test_values_far_beyond_the_range_of_exp():
    times = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]], requires_grad=True)
    costs = TimeCrossEntropy(xi=0.2).per_sample(times, torch.tensor([0, 0]))
    costs.sum().backward()
    assert costs.tolist() == [5000.0, 0.0]
    assert times.grad.tolist() == [[5.0, -5.0], [0.0, 0.0]]


def test_gradient_asks_the_true_neuron_to_be_earlier():
    times = torch.tensor([[0.5, 0.6, 0.7]], requires_grad=True)
    TimeCrossEntropy()(times, torch.tensor([1])).backward()
    assert times.grad[0, 1] > 0
    assert (times.grad[0, [0, 2]] < 0).all()


def test_smoothed_labels_are_torchs():
    times, labels = torch.rand(50, 5, dtype=torch.float64), torch.randint(5, (50,))
    expected = cross_entropy(-times / 0.2, labels, label_smoothing=0.3)
    assert torch.allclose(TimeCrossEntropy(xi=0.2, label_smoothing=0.3)(times, labels), expected)


def test_smoothed_labels_leave_silent_neurons_out():
    loss = TimeCrossEntropy(xi=0.2, label_smoothing=0.3)
    some = torch.tensor([[0.9, inf, 0.5, inf]], requires_grad=True)
    cost = loss(some, torch.tensor([2]))
    cost.backward()
    assert torch.allclose(cost, loss(torch.tensor([[0.9, 0.5]]), torch.tensor([1])))
    assert torch.isfinite(some.grad).all()
    assert some.grad[0, [1, 3]].tolist() == [0, 0]
    assert loss(torch.tensor([[0.7, inf]]), torch.tensor([0])) == 0


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_a_sample_costs_the_same_beside_one_whose_true_neuron_is_silent(label_smoothing):
    loss = TimeCrossEntropy(xi=0.2, label_smoothing=label_smoothing, reduction="sum", silent_cost=7.0)
    some = torch.tensor([[0.5, 0.6, inf], [0.1, 2.0, 0.4]], requires_grad=True)
    more = torch.tensor([*some.tolist(), [0.3, inf, 0.2], [inf, inf, inf]], requires_grad=True)
    cost, whole = loss(some, torch.tensor([1, 2])), loss(more, torch.tensor([1, 2, 1, 0]))
    (cost + whole).backward()
    assert whole.item() == pytest.approx(cost.item() + 2 * 7.0)
    assert torch.equal(more.grad, torch.cat([some.grad, torch.zeros(2, 3)]))


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_wrong_smoothing(value):
    with pytest.raises(ValueError, match="label_smoothing must be >= 0 and < 1"):
        TimeCrossEntropy(label_smoothing=value)


def test_earliest_spike_decides():
    assert TimeCrossEntropy().predict(torch.tensor([[0.9, 0.3, 0.5]])).item() == 1


@pytest.mark.parametrize("xi", [0.0, -0.2, inf, math.nan])
def test_wrong_xi(xi):
    with pytest.raises(ValueError, match="xi must be"):
        TimeCrossEntropy(xi=xi)


def test_torchs_cross_entropy_takes_scores_not_times():
    """What the documentation says of it."""
    times, labels = torch.tensor([[1.0, 1.5, 2.0], [0.5, 0.3, 0.9]], dtype=torch.float64), torch.tensor([1, 0])
    ours = TimeCrossEntropy(xi=0.2, tau_syn=2.0).per_sample(times, labels)
    torch.testing.assert_close(cross_entropy(-times / 0.4, labels, reduction="none"), ours)
    for loss, direction in ((nn.CrossEntropyLoss(), -1), (TimeCrossEntropy(), 1)):
        given = times.clone().requires_grad_()
        loss(given, labels).backward()
        assert (direction * given.grad.gather(1, labels[:, None]) > 0).all()
    late = torch.tensor([[1.0, math.inf]])
    assert cross_entropy(late, torch.tensor([0])).isnan()
