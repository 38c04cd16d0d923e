import copy
import dataclasses
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch

from firstspike import LIF, first_spike_time
from firstspike.neurons import AdaptiveLIF
from firstspike.neurons.base import Component


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
@pytest.mark.parametrize("value", ["1", None, True, 1j, {1.0}])
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


def test_a_tuple_has_a_receptor_for_each():
    lif = LIF(tau_syn=(5, np.float64(8)), tau_rise=[0.5, 0])
    assert lif.tau_syn == (5.0, 8.0)
    assert lif.tau_rise == (0.5, 0.0)
    assert {type(x) for x in lif.tau_syn + lif.tau_rise} == {float}
    assert lif == LIF(tau_syn=[5.0, 8.0], tau_rise=(0.5, 0.0))
    tau = torch.tensor([1.0, 2.0], requires_grad=True)
    assert LIF(tau_syn=(tau, 1.0)).tau_syn[0] is tau


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tau_syn": ()}, "tau_syn must have a time constant for each receptor, got none"),
        ({"tau_syn": (1.0, -2)}, r"tau_syn\[1\] must be > 0 and finite, got -2"),
        ({"tau_syn": (1.0, math.inf)}, r"tau_syn\[1\] must be > 0 and finite, got inf"),
        ({"tau_syn": (1.0, "2")}, r"tau_syn\[1\] must be a number or a tensor, got '2'"),
        ({"tau_syn": (1.0, None)}, r"tau_syn\[1\] must be a number or a tensor, got None"),
        ({"tau_mem": (1.0, 2.0)}, "tau_mem must be a number or a tensor, got"),
        ({"tau_rise": -1.0}, "tau_rise must be >= 0 and finite, got -1.0"),
        ({"tau_rise": math.inf}, "tau_rise must be >= 0 and finite, got inf"),
        ({"tau_rise": (1.0, 2.0)}, "tau_rise must have one value for each of 1 receptors, got 2"),
        ({"tau_syn": (1.0, 2.0), "tau_rise": (1.0,)}, "tau_rise must have one value for each of 2 receptors, got 1"),
        ({"bias": math.inf}, "bias must be finite, got inf"),
        ({"bias": math.nan}, "bias must be finite, got nan"),
        ({"bias": None}, "bias must be a number or a tensor, got None"),
        ({"tau_mem": math.inf, "bias": 0.1}, "bias is the membrane at rest, which a neuron without leak"),
        ({"threshold": None}, "threshold must be a number or a tensor, got None"),
        ({"reset": 1.0}, "reset must be finite and below the threshold of 1.0, got 1.0"),
        ({"reset": None}, "reset=None needs a refractory time > 0"),
    ],
)
@pytest.mark.parametrize("kind", [LIF, AdaptiveLIF])
def test_wrong_parameters_of_linear_neurons(kind, given, message):
    with pytest.raises(ValueError, match=message) as error:
        kind(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *(
            ({f"{kind}adaptation": value}, rf"^{kind}adaptation must be pairs \[\(tau, jump\), ...\], got")
            for kind in ("", "threshold_")
            for value in (5, None, [1.0, 2.0], (1.0, 2.0), [(1.0,)], [(1.0, 2.0, 3.0)])
        ),
        ({"adaptation": [(-1.0, 2.0)]}, r"adaptation_tau\[0\] must be > 0 and finite, got -1.0"),
        ({"adaptation": [(1.0, math.nan)]}, r"adaptation_jump\[0\] must be finite, got nan"),
        ({"threshold_adaptation": [(1.0, 1.0), (0.0, 1.0)]}, r"threshold_tau\[1\] must be > 0 and finite, got 0.0"),
        ({"adaptation_tau": (1.0,)}, "adaptation_tau and adaptation_jump need as many values, got 1 and 0"),
        ({"threshold_jump": (1.0, 2.0), "threshold_tau": (1.0,)}, "threshold_tau and threshold_jump need as many"),
    ],
)
def test_wrong_adaptation(given, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveLIF(**given)


def test_names_of_adaptation():
    """Pairs, and the names under which they are trained, are the same."""
    pairs = AdaptiveLIF(adaptation=[(1, 2), (3, 4)], threshold_adaptation=[(5, 6)])
    named = AdaptiveLIF(
        adaptation_tau=(1.0, 3.0), adaptation_jump=(2.0, 4.0), threshold_tau=(5.0,), threshold_jump=[6.0]
    )
    assert pairs == named
    assert hash(pairs) == hash(named)
    assert "adaptation_tau=(1.0, 3.0), adaptation_jump=(2.0, 4.0), threshold_tau=(5.0,)" in repr(pairs)
    changed = dataclasses.replace(pairs, threshold=2.0)
    assert changed.threshold == 2.0
    assert changed.components == pairs.components
    assert dataclasses.replace(pairs, adaptation=[(7, 8)]).adaptation_tau == (7.0,)
    assert dataclasses.replace(pairs, threshold_jump=(7.0,)).threshold_jump == (7.0,)
    for twin in (copy.deepcopy(pairs), pickle.loads(pickle.dumps(pairs)), dataclasses.replace(pairs)):
        assert equal(twin, pairs)


def test_components():
    """In this order, which states follow."""
    assert LIF().components == LIF(tau_rise=0.0, bias=0.0).components == ()
    assert LIF(tau_syn=(2.0,)).components == AdaptiveLIF(tau_syn=2.0).components == (Component("synapse", 2.0),)
    assert LIF(bias=0.1).components == LIF(reset=None, refractory=0.1).components == (Component("synapse", 1.0),)
    assert LIF(bias=torch.tensor(0.0)).components, "which may learn"
    alpha = LIF(tau_syn=(1.0, 2.0, 3.0), tau_rise=(0.5, 0.0, 3.0))
    kinds = [(x.kind, x.tau) for x in alpha.components]
    assert kinds == [("rise", 0.5), ("synapse", 1.0), ("synapse", 2.0), ("rise", 3.0), ("synapse", 3.0)]
    assert alpha.receptors == (0, 2, 3)
    assert [x.tau for x in LIF(tau_syn=(1.0, 2.0), tau_rise=0.3).components] == [0.3, 1.0, 0.3, 2.0]
    full = AdaptiveLIF(tau_syn=(1.0, 2.0), adaptation=[(3.0, 0.3)], threshold_adaptation=[(4.0, 0.4), (5.0, -0.5)])
    assert full.components[2:] == (
        Component("current", 3.0, 0.3),
        Component("threshold", 4.0, 0.4),
        Component("threshold", 5.0, -0.5),
    )
    assert full.receptors == (0, 1)
    assert LIF().concave_rise
    assert not full.concave_rise


def test_linear_neurons_are_shown_and_compared():
    lif = LIF(tau_syn=(1, 2), reset=None, refractory=0.1, tau_rise=(0.1, 0), bias=0.2)
    assert repr(lif) == (
        "LIF(tau_mem=1.0, tau_syn=(1.0, 2.0), threshold=1.0, reset=None, refractory=0.1, tau_rise=(0.1, 0.0), bias=0.2)"
    )
    assert repr(AdaptiveLIF()) == "AdaptiveLIF(tau_mem=1.0, tau_syn=1.0, threshold=1.0)"
    assert not equal(LIF(tau_syn=(1.0,)), LIF(tau_syn=1.0))
    assert not equal(LIF(tau_syn=(1.0, 2.0)), LIF(tau_syn=(2.0, 1.0)))
    assert not equal(AdaptiveLIF(), LIF())
    values = torch.tensor([1.0, 2.0])
    assert equal(LIF(tau_syn=(values, 2.0)), LIF(tau_syn=(values.clone().requires_grad_(), 2.0)))
    assert not equal(LIF(tau_syn=(values, 2.0)), LIF(tau_syn=(values + 1, 2.0)))
    assert len({LIF(tau_syn=(1.0, 2.0)), LIF(tau_syn=(1, 2)), LIF(tau_syn=(values, 2.0))}) == 2


PAIR = LIF(tau_syn=(1.0, 2.0))


@pytest.mark.parametrize(
    ("neuron", "receptor", "message"),
    [
        (LIF(), "sign", r"receptor needs a neuron with several, such as LIF\(tau_syn=\(1.0, 2.0\)\)"),
        (LIF(), [0, 0, 0], "receptor needs a neuron with several"),
        (PAIR, None, "has 2 receptors: say which one each input reaches"),
        (PAIR, [0, 1], r"receptor must have a number for each of 3 inputs, got \(2,\)"),
        (PAIR, 1, r"receptor must have a number for each of 3 inputs, got \(\)"),
        (PAIR, [0, 1, 2], "receptor must be from 0 to 1"),
        (PAIR, [0, 1, -1], "receptor must be from 0 to 1"),
        *((PAIR, x, 'receptor must be "sign", or a whole number for each input, got') for x in (
            "sing", [0, 1.5, 1], [0, "a", 1], [0, None, 1], torch.tensor([True, False, True]),
        )),
        (LIF(tau_syn=(1.0, 2.0, 3.0)), "sign", 'receptor="sign" needs a neuron with two receptors'),
        (LIF(tau_syn=(1.0, torch.tensor([1.0, 2.0, 3.0]))), "sign", r"tau_syn must be one number or \(2,\), got"),
        (LIF(tau_syn=(1.0, torch.tensor(-2.0))), "sign", "time constants of synapses and of adaptation must be > 0"),
        (LIF(tau_rise=torch.tensor(0.0)), None, "time constants of synapses and of adaptation must be > 0"),
        (LIF(bias=torch.tensor(math.nan)), None, "bias must be finite"),
        (AdaptiveLIF(adaptation=[(1.0, torch.tensor(math.inf))]), None, "jumps must be finite"),
        (LIF(torch.tensor(math.inf), (1.0, 2.0)), "sign", "tau_mem must be > 0 and finite"),
    ],
)  # fmt: skip
def test_receptors_and_tensors_are_checked_in_use(neuron, receptor, message):
    with pytest.raises(ValueError, match=message) as error:
        first_spike_time(torch.rand(1, 3), torch.ones(2, 3), neuron, receptor=receptor)
    assert "\n" not in str(error.value)


def test_receptors_are_named_in_any_way():
    times, weight, any_way = torch.rand(2, 3), 3 * torch.rand(4, 3), ([0, 1, 0], (0, 1, 0), torch.tensor([0, 1, 0]))
    found = [first_spike_time(times, weight, PAIR, receptor=x, backend="reference") for x in any_way]
    assert found[0].isfinite().any()
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert torch.equal(
        first_spike_time(times, weight, PAIR, receptor="sign", backend="reference"),
        first_spike_time(times, weight, PAIR, receptor=[0, 0, 0], backend="reference"),
    )
    none = first_spike_time(times[:, :0], weight[:, :0], PAIR, receptor=[], backend="reference")
    assert none.isinf().all()
