"""Losses on values: against torch's, and what does not decide."""

import pytest
import torch
from torch import nn

from firstspike.losses import LOSSES, ReadoutCrossEntropy, ReadoutMSE

LABELS = torch.tensor([0, 2, 1, 1])


def values(seed=0):
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("weight", [None, (1.0, 2.0, 0.5)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_is_that_of_torch(weight, reduction):
    like = nn.CrossEntropyLoss(None if weight is None else torch.tensor(weight).double(), reduction=reduction)
    loss = ReadoutCrossEntropy(temperature=0.5, weight=weight, reduction=reduction)
    torch.testing.assert_close(loss(values(), LABELS), like(values() / 0.5, LABELS))


def test_smoothed_labels_are_those_of_torch():
    like = nn.CrossEntropyLoss(label_smoothing=0.2)
    torch.testing.assert_close(ReadoutCrossEntropy(label_smoothing=0.2)(values(), LABELS), like(values(), LABELS))
    with pytest.raises(ValueError, match=r"label_smoothing must be >= 0 and < 1, got 1\.0"):
        ReadoutCrossEntropy(label_smoothing=1.0)


def test_mse_is_the_distance_to_the_targets():
    targets = torch.full((4, 3), -1.0).double()
    targets[range(4), LABELS] = 2.0
    expected = (values() - targets).square().sum(-1) / 2
    torch.testing.assert_close(ReadoutMSE(2.0, -1.0).per_sample(values(), LABELS), expected)
    with pytest.raises(ValueError, match=r"correct, wrong: expected wrong < correct, got 1.0 and 1.0"):
        ReadoutMSE(1.0, 1.0)
    with pytest.raises(ValueError, match=r"wrong must be finite, got -inf"):
        ReadoutMSE(1.0, -float("inf"))


@pytest.mark.parametrize("kind", ["readout_cross_entropy", "readout_mse"])
def test_the_largest_value_wins_and_equal_values_do_not_decide(kind):
    loss = LOSSES[kind]()
    output = torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 0.0], [3.0, 3.0, 1.0]])
    assert loss.predict(output).tolist() == [1, -1, 0]
    assert loss.predict(output[:, None]).tolist() == [[1], [-1], [0]]
    assert torch.autograd.gradcheck(lambda x: loss.per_sample(x, LABELS), (values(),))


@pytest.mark.parametrize("kind", ["readout_cross_entropy", "readout_mse"])
def test_wrong_batches(kind):
    loss = LOSSES[kind]()
    with pytest.raises(ValueError, match=r"output: expected a floating-point tensor .* Pass the values of a readout"):
        loss(torch.ones(4, 3).long(), LABELS)
    with pytest.raises(ValueError, match=r"labels: expected 0 \.\.\. 1 for 2 output neurons, got 0 \.\.\. 2"):
        loss(values()[:, :2], LABELS)
    with pytest.raises(ValueError, match="tau_syn must be > 0 and finite"):
        LOSSES[kind](tau_syn=0.0)
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none"):
        LOSSES[kind](reduction="max")


@pytest.mark.parametrize("kind", ["readout_cross_entropy", "readout_mse"])
def test_nan_decides_for_no_class(kind):
    output = torch.tensor([[0.3, float("nan")], [0.1, 0.2], [0.5, 0.5]])
    assert LOSSES[kind]().predict(output).tolist() == [-1, 1, -1]
    assert LOSSES[kind]().predict(torch.tensor([[0.3], [float("nan")]])).tolist() == [0, -1]
