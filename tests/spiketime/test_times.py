"""What cannot be spike times is refused with what to write instead."""

import math
import warnings

import numpy as np
import pytest
import torch

import firstspike
from firstspike import LIF, BiasSpikes, Delay, EarliestPool2d, LIFConv2d, LIFLinear, Multiplex, Network
from firstspike.spiketime import first_spike_time
from firstspike.spiketime.values import FROM_RASTER, check_times

LAYERS = [
    LIFLinear(4, 2),
    LIFConv2d((1, 2, 2), 1, 1),
    EarliestPool2d((1, 2, 2), 1),
    Delay(4),
    BiasSpikes([0.5]),
    Multiplex(2),
    Network(LIFLinear(4, 2)),
    Network(),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("times", [np.ones((3, 4), np.float32), [[1.0] * 4] * 3, ((1.0,) * 4,), None])
def test_layers_take_tensors_only(layer, times):
    with pytest.raises(ValueError, match=rf"times must be a torch tensor, got {type(times).__name__}") as error:
        layer(times)
    assert str(error.value).endswith("write torch.as_tensor(times, dtype=torch.float32)")
    if times is not None:
        layer(torch.as_tensor(times, dtype=torch.float32))


def test_shape_of_what_came_instead():
    with pytest.raises(ValueError, match=r"got ndarray of shape \(3, 4\); write"):
        LIFLinear(4, 2)(np.ones((3, 4)))


@pytest.mark.parametrize("name", ["times", "weight", "delay", "observed"])
def test_the_operator_takes_tensors_only(name):
    arguments = {"times": torch.ones(2, 3), "weight": torch.ones(4, 3), "delay": None, "observed": None}
    with pytest.raises(ValueError, match=f"{name} must be a torch tensor, got ndarray"):
        first_spike_time(**{**arguments, name: np.ones((2, 3))}, neuron=LIF())
    with pytest.raises(ValueError, match=r"neuron must be a LIF, such as LIF\(tau_mem=2.0\), got 2.0"):
        first_spike_time(torch.ones(2, 3), torch.ones(4, 3), 2.0)


@pytest.mark.parametrize("layer", LAYERS[:6], ids=lambda layer: type(layer).__name__)
def test_layers_take_floating_point_only(layer):
    for times, message in (
        (torch.ones(3, 4).long(), r"got torch.int64: spike times are real .* times \* step$"),
        (torch.ones(3, 4).bool(), r"got torch.bool: a raster of 0 and 1 .* becomes spike times by"),
        (torch.ones(5, 3, 4, dtype=torch.uint8), r"got torch.uint8: a raster of 0 and 1 .* becomes spike times by"),
    ):
        with pytest.raises(ValueError, match=f"times must be float32 or float64, {message}"):
            layer(times)


def raster():
    steps = (torch.rand(6, 5, 4, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    steps[:, 0, 0] = 0
    return steps


@pytest.mark.parametrize("layer", LAYERS[:7], ids=lambda layer: type(layer).__name__)
def test_a_raster_is_noticed(layer):
    with pytest.warns(UserWarning, match=r"times of shape \(6, 5, 4\) are 0 and 1 only.*becomes spike times by"):
        layer(raster())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64])
def test_the_conversion_that_is_given_is_right(dtype):
    code, _, of_trains = FROM_RASTER.partition("becomes spike times by ")[2].partition(", or, with all spikes")
    code_of_trains = of_trains.rpartition("by ")[2]
    known = {"firstspike": firstspike, "raster": raster().to(dtype), "dt": 0.25}
    times, trains = eval(code, known), eval(code_of_trains, known)
    assert trains.ndim == 3
    assert torch.equal(trains[..., 0], times)
    for sample in range(5):
        for place in range(4):
            steps = raster()[:, sample, place].nonzero().flatten().tolist()
            assert times[sample, place] == (steps[0] * 0.25 if steps else math.inf)
    assert times.isinf().any()
    assert LIFLinear(4, 2)(times).shape == (5, 2)


@pytest.mark.parametrize(
    "times",
    [
        torch.rand(6, 5, 4),
        torch.zeros(6, 5, 4),
        torch.ones(6, 5, 4),
        raster()[0],
        torch.where(raster() > 0, 1.0, torch.inf),
        torch.cat([raster(), torch.full((1, 5, 4), 0.5)]),
        torch.zeros(0, 5, 4),
        raster().to("meta"),
    ],
)
def test_other_times_are_not_taken_for_one(times):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_times(times)
        torch.vmap(check_times_of)(times)


def check_times_of(times):
    check_times(times)
    return times


def test_under_vmap_values_are_not_looked_at():
    torch.vmap(check_times_of)(torch.stack([raster(), raster()]))
