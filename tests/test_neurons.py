import copy
import dataclasses
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch

from firstspike import LIF


def test_defaults():
    lif = LIF()
    assert (lif.tau_mem, lif.tau_syn, lif.threshold) == (1.0, 1.0, 1.0)


def test_numbers_become_floats():
    lif = LIF(2, 1, np.float64(3))
    assert [type(x) for x in (lif.tau_mem, lif.tau_syn, lif.threshold)] == [float] * 3


@pytest.mark.parametrize("name", ["tau_mem", "tau_syn", "threshold"])
@pytest.mark.parametrize("value", [0, 0.0, -1.0, -math.inf, math.nan])
def test_not_positive(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be > 0.*got {value}"):
        LIF(**{name: value})


@pytest.mark.parametrize("name", ["tau_syn", "threshold"])
def test_infinite(name):
    with pytest.raises(ValueError, match=f"{name} must be > 0 and finite, got inf"):
        LIF(**{name: math.inf})


@pytest.mark.parametrize("name", ["tau_mem", "tau_syn", "threshold"])
@pytest.mark.parametrize("value", ["1", None, True, 1j, [1.0]])
def test_not_a_number(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number or a tensor, got"):
        LIF(**{name: value})


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.float16(0.5), Fraction(1, 2)])
def test_any_real_number(value):
    lif = LIF(value, value, value)
    assert (lif.tau_mem, lif.tau_syn, lif.threshold) == (0.5, 0.5, 0.5)
    assert {type(x) for x in (lif.tau_mem, lif.tau_syn, lif.threshold)} == {float}
    assert LIF(np.int64(3)).tau_mem == 3.0


@pytest.mark.parametrize("name", ["tau_mem", "tau_syn", "threshold"])
def test_tensors_are_kept(name):
    value = torch.tensor([0.5, 2.0], requires_grad=True)
    assert getattr(LIF(**{name: value}), name) is value


def test_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LIF().tau_mem = 2.0


def test_tensor_threshold_is_kept():
    threshold = torch.tensor([1.0, 2.0], requires_grad=True)
    lif = LIF(threshold=threshold)
    assert lif.threshold is threshold
    assert "threshold=tensor" in repr(lif)
    assert len({lif, lif}) == 1


@pytest.mark.parametrize("threshold", [0.7, torch.tensor([1.0, 2.0])])
def test_copies(threshold):
    lif = LIF(math.inf, 0.3, threshold)
    for twin in (copy.copy(lif), copy.deepcopy(lif), pickle.loads(pickle.dumps(lif)), dataclasses.replace(lif)):
        assert (twin.tau_mem, twin.tau_syn) == (math.inf, 0.3)
        assert torch.equal(torch.as_tensor(twin.threshold), torch.as_tensor(threshold))


def equal(one, other):
    found = one == other
    assert found == (other == one)
    assert found != (one != other)
    assert not found or hash(one) == hash(other)
    return found


def test_equality():
    assert equal(LIF(), LIF())
    assert equal(LIF(2, 1), LIF(2.0, np.float64(1.0), threshold=1))
    assert equal(LIF(math.inf), LIF(math.inf))
    assert not equal(LIF(), LIF(2.0))
    assert not equal(LIF(1.0, 2.0), LIF(2.0, 1.0))
    assert not equal(LIF(), 1.0)
    assert not equal(LIF(), (1.0, 1.0, 1.0))
    assert len({LIF(), LIF(), LIF(2.0)}) == 2
    assert {LIF(2.0): "value"}[LIF(2)] == "value"


def test_equality_of_tensors():
    values = torch.tensor([1.0, 2.0])
    lif = LIF(threshold=values)
    assert equal(lif, LIF(threshold=values.clone().requires_grad_()))
    assert equal(lif, LIF(threshold=values.double()))
    assert equal(lif, LIF(threshold=torch.nn.Parameter(values)))
    assert not equal(lif, LIF(threshold=torch.tensor([1.0, 2.5])))
    assert not equal(lif, LIF(threshold=torch.tensor([[1.0, 2.0]])))
    assert not equal(lif, LIF(threshold=torch.tensor([1.0])))
    assert not equal(LIF(threshold=torch.tensor(1.0)), LIF(threshold=1.0)), "one may learn, the other may not"
    assert equal(lif, copy.deepcopy(lif))
    assert equal(lif, pickle.loads(pickle.dumps(lif)))
    elsewhere = LIF(threshold=values.to("meta"))
    assert equal(elsewhere, elsewhere)
    assert not equal(lif, elsewhere)
    assert len({lif, LIF(threshold=values.clone()), LIF()}) == 2
