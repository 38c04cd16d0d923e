import math

import pytest
import torch

from firstspike.losses import ShiftInvariantMSE


def test_formula():
    loss = ShiftInvariantMSE(delta=0.3, tau_syn=2.0)
    times = torch.tensor([[1.2, 1.0, 1.7]], dtype=torch.float64)
    expected = ((0.2 / 2 - 0.3) ** 2 + (0.7 / 2 - 0.3) ** 2) / 2
    assert loss(times, torch.tensor([1])).item() == pytest.approx(expected)


def test_shift_of_all_times_changes_nothing():
    loss = ShiftInvariantMSE()
    times, labels = torch.rand(20, 3, dtype=torch.float64), torch.randint(3, (20,))
    assert torch.allclose(loss.per_sample(times + 5, labels), loss.per_sample(times, labels))


def test_gradients_of_a_sample_sum_to_zero():
    times = torch.rand(20, 3, dtype=torch.float64, requires_grad=True)
    ShiftInvariantMSE()(times, torch.randint(3, (20,))).backward()
    assert torch.allclose(times.grad.sum(dim=1), torch.zeros(20, dtype=torch.float64), atol=1e-15)
    assert (times.grad != 0).all()


def test_zero_at_the_wanted_lead():
    times = torch.tensor([[0.75, 0.5, 0.75]])
    assert ShiftInvariantMSE(delta=0.25)(times, torch.tensor([1])) == 0


def test_alone_costs_nothing():
    assert ShiftInvariantMSE()(torch.tensor([[0.7, math.inf]]), torch.tensor([0])) == 0


def test_earliest_spike_decides():
    assert ShiftInvariantMSE().predict(torch.tensor([[0.9, 0.3, 0.5]])).item() == 1


@pytest.mark.parametrize("delta", [0.0, -0.2, math.inf, math.nan])
def test_wrong_delta(delta):
    with pytest.raises(ValueError, match="delta must be"):
        ShiftInvariantMSE(delta=delta)
