import math

import pytest
import torch

from firstspike.losses import TimeMSE


def test_formula():
    loss = TimeMSE(correct=0.5, wrong=1.5, tau_syn=2.0)
    times = torch.tensor([[1.2, 2.0, 3.6]], dtype=torch.float64)
    expected = ((1.2 / 2 - 1.5) ** 2 + (2.0 / 2 - 0.5) ** 2 + (3.6 / 2 - 1.5) ** 2) / 2
    assert loss(times, torch.tensor([1])).item() == pytest.approx(expected)


def test_targets_are_as_precise_as_the_times():
    loss = TimeMSE(correct=0.1, wrong=0.3)
    times = torch.tensor([[0.1, 0.3]], dtype=torch.float64)
    assert loss(times, torch.tensor([0])) == 0  # 0.1 rounded to float32 would differ


def test_zero_exactly_at_the_targets():
    loss = TimeMSE(correct=0.5, wrong=1.5)
    times = torch.tensor([[1.5, 0.5, 1.5]], requires_grad=True)
    loss(times, torch.tensor([1])).backward()
    assert (times.grad == 0).all()


def test_nearest_to_the_target_decides():
    loss = TimeMSE(correct=1.0, wrong=2.0)
    assert loss.predict(torch.tensor([[0.1, 1.2, 1.9], [0.7, 1.2, 0.9]])).tolist() == [1, 2]


def test_target_in_units_of_tau_decides():
    assert TimeMSE(correct=1.0, wrong=2.0, tau_syn=3.0).predict(torch.tensor([[1.0, 3.1]])).item() == 1


@pytest.mark.parametrize(
    ("correct", "wrong", "message"),
    [
        (1.0, 1.0, "two different targets"),
        (-1.0, 1.0, "correct must be"),
        (1.0, math.inf, "wrong must be"),
    ],
)
def test_wrong_targets(correct, wrong, message):
    with pytest.raises(ValueError, match=message):
        TimeMSE(correct=correct, wrong=wrong)
