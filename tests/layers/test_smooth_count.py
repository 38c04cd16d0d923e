"""Numbers of spikes as the end of a network: smooth with exact derivatives, and the gradient that counts."""

import math

import pytest
import torch

from firstspike import LIF, LIFSpikeTrains, Network, SmoothCount, Trainer, losses
from firstspike.data import split


def trains():
    found = torch.rand(5, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(4).sort().values
    found[0, 1] = found[2, 0, 4:] = math.inf
    return found


@pytest.mark.parametrize("start", [None, 1.0])
def test_short_ends_give_the_number_in_the_window(start):
    expected = ((trains() < 3) & (trains() > (-math.inf if start is None else start))).sum(-1)
    torch.testing.assert_close(SmoothCount(3.0, 1e-6, start)(trains()), expected.double())


@pytest.mark.parametrize("start", [None, 1.0])
def test_smooth_gradient_is_exact(start):
    times = trains().where(trains().isfinite(), 9.0).requires_grad_()
    assert torch.autograd.gradcheck(SmoothCount(3.0, 0.3, start), times)
    silent = torch.full((1, 3, 4), math.inf, requires_grad=True)
    SmoothCount(3.0, 0.3, start)(silent).sum().backward()
    assert not silent.grad.any()


def test_counting_gives_all_spikes_of_a_train_the_same_error():
    times, error = trains().requires_grad_(), torch.randn(5, 3, dtype=torch.float64)
    smooth, counting = (SmoothCount(3.0, 0.5, gradient=x) for x in ("smooth", "counting"))
    found = counting(times)
    assert torch.equal(found, smooth(times))
    found.backward(error)
    expected = torch.where(times.isfinite(), -2 * error.unsqueeze(-1), 0.0)
    torch.testing.assert_close(times.grad, expected)


def network(gradient):
    generator = torch.Generator().manual_seed(0)
    layer = LIFSpikeTrains(6, 3, 40, LIF(2.0), overflow="drop", generator=generator, dtype=torch.float64)
    return Network(layer, SmoothCount(8.0, 0.1, gradient=gradient))


@pytest.mark.parametrize(("gradient", "reaches"), [("counting", True), ("smooth", False)])
def test_training_of_numbers_of_spikes(gradient, reaches):
    """With ends so short that hardly any spike is near one, only counting reaches the targets."""
    times = torch.rand(1, 6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 5
    net, wanted = network(gradient), torch.tensor([[3.0, 6.0, 12.0]], dtype=torch.float64)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(100):
        optimizer.zero_grad()
        (net(times) - wanted).square().sum().backward()
        optimizer.step()
    assert (net(times).round() == wanted).all().item() is reaches


def test_trainer_classifies_by_counting():
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(120) % 3
    times = torch.rand(120, 6, 4, generator=generator, dtype=torch.float64) * 4
    times[:, :, 2:] = math.inf
    for place in (2 * labels, 2 * labels + 1):  # two inputs of six spike twice as often
        times[torch.arange(120), place] = torch.rand(120, 4, generator=generator, dtype=torch.float64) * 4
    times = times.sort().values
    parts = split(times, labels, trains=True, validation=0.2, test=0.2)
    net = network("counting")
    trainer = Trainer(net, losses.ReadoutCrossEntropy(), torch.optim.Adam(net.parameters(), lr=0.03))
    trainer.fit(parts.train, parts.validation, epochs=15, batch_size=12, progress_bar=False)
    assert trainer.evaluate(parts.test).accuracy > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 3.0}, r"^start must be before until, 3, got 3$"),
        ({"gradient": "exact"}, r"^gradient must be one of smooth, counting, got 'exact'$"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SmoothCount(3.0, 0.1, **options)
