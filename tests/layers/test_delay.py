import copy
import dataclasses
import math
import pickle

import pytest
import torch

from firstspike import Delay, DelayRule

pytestmark = pytest.mark.usefixtures("poisoned_memory")

INF = math.inf


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("raw", [-50.0, -1.0, 0.0, 3.0, 50.0])
def test_sigmoid_bounds(raw):
    delay = DelayRule("sigmoid", scale=2.0, shift=0.5)(torch.tensor(raw, dtype=torch.float64)).item()
    assert delay == pytest.approx(0.5 + 2 / (1 + math.exp(-raw)))
    assert 0.5 <= delay <= 2.5


@pytest.mark.parametrize("raw", [-50.0, -1.0, 0.0, 3.0, 50.0])
def test_softplus_bounds(raw):
    delay = DelayRule("softplus", scale=2.0, shift=0.5)(torch.tensor(raw, dtype=torch.float64)).item()
    assert delay == pytest.approx(0.5 + 2 * math.log1p(math.exp(raw)))
    assert delay >= 0.5


@pytest.mark.parametrize("bound", ["sigmoid", "softplus"])
def test_delays_stay_positive_whatever_is_learnt(bound):
    delay = DelayRule(bound)(torch.tensor([-1e30, -1e3, 1e3]))
    assert (delay >= 0).all()
    assert not delay.isnan().any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bound": "relu"}, "bound must be sigmoid or softplus, got 'relu'"),
        ({"scale": 0.0}, "scale > 0, shift >= 0 and std >= 0, got scale 0.0"),
        ({"scale": -1.0}, "got scale -1.0"),
        ({"shift": -0.1}, "got scale 1.0, shift -0.1"),
        ({"std": -1.0}, "std -1.0"),
    ],
)
def test_wrong_rules(options, message):
    with pytest.raises(ValueError, match=message):
        DelayRule(**options)


@pytest.mark.parametrize("name", ["scale", "shift", "std", "mean"])
@pytest.mark.parametrize("value", [math.nan, INF])
def test_rules_with_values_that_are_not_finite(name, value):
    with pytest.raises(ValueError, match=rf"expected finite values .*{name} {value}"):
        DelayRule(**{name: value})


def test_rules_are_immutable_and_equal_by_value():
    assert DelayRule(scale=2.0) == DelayRule(scale=2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        DelayRule().scale = 3.0


def test_start():
    raw = Delay(5000, DelayRule(mean=-1.0, std=0.5), generator=seeded()).delay_raw
    assert raw.mean().item() == pytest.approx(-1, abs=0.03)
    assert raw.std().item() == pytest.approx(0.5, abs=0.03)
    fixed = Delay(3, DelayRule(mean=0.0, std=0.0))
    assert fixed.delay.tolist() == [0.5] * 3


def test_generator():
    first, again, other = (Delay(4, generator=seeded(k)).delay_raw for k in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("lead", [(), (3,), (2, 0), (2, 3)])
def test_adds(lead):
    layer = Delay(4)
    times = torch.rand(*lead, 4)
    assert torch.equal(layer(times), times + layer.delay)


def test_gradients():
    layer = Delay(3, DelayRule("softplus", scale=0.7), generator=seeded(), dtype=torch.float64)
    times = torch.rand(5, 3, dtype=torch.float64).requires_grad_()

    def delayed(times, raw):
        return torch.func.functional_call(layer, {"delay_raw": raw}, (times,))

    assert torch.autograd.gradcheck(delayed, (times, layer.delay_raw))


def test_spikes_that_never_come():
    layer = Delay(2)
    times = torch.tensor([[0.5, INF], [INF, INF]], requires_grad=True)
    out = layer(times)
    assert out.isinf().tolist() == [[False, True], [True, True]]
    torch.where(out.isfinite(), out, torch.zeros_like(out)).sum().backward()
    assert times.grad.tolist() == [[1, 0], [0, 0]]
    assert layer.delay_raw.grad[0] > 0
    assert layer.delay_raw.grad[1] == 0


def test_observed():
    """Returned as they are, bit for bit, with the gradient of the sum; none where either is silent."""
    layer = Delay(3)
    times = torch.tensor([[0.1, 0.2, INF], [0.7, INF, 0.3]], requires_grad=True)
    observed = torch.tensor([[0.3, INF, INF], [1e-3, 5.0, 0.9]])
    out = layer(times, observed)
    assert torch.equal(out, observed)
    out.backward(torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]))
    assert times.grad.tolist() == [[1, 0, 0], [8, 0, 32]]
    slope = layer.delay.detach() * (1 - layer.delay.detach())
    torch.testing.assert_close(layer.delay_raw.grad, slope * torch.tensor([9.0, 0.0, 32.0]))


def test_observed_of_a_wrong_shape():
    with pytest.raises(ValueError, match=r"observed must have the shape \(5, 3\), got \(1, 3\)"):
        Delay(3)(torch.rand(5, 3), torch.rand(1, 3))


def test_fixed():
    layer = Delay(3, DelayRule(trainable=False))
    assert not layer.delay_raw.requires_grad
    assert not layer(torch.rand(2, 3)).requires_grad


@pytest.mark.parametrize("features", [0, -1])
def test_wrong_size(features):
    with pytest.raises(ValueError, match=f"features must be >= 1, got {features}"):
        Delay(features)


def test_output_size():
    assert Delay(3).output_size(3) == 3
    with pytest.raises(ValueError, match=r"Delay\(3\) gets 4 inputs"):
        Delay(3).output_size(4)


def test_dtype_device_state_and_copies():
    layer = Delay(3, dtype=torch.float64)
    assert list(layer.state_dict()) == ["delay_raw"]
    assert layer.delay.dtype == torch.float64
    assert Delay(3, device="meta").delay_raw.device.type == "meta"
    times = torch.rand(2, 3, dtype=torch.float64)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(times), layer(times))
    assert repr(layer).startswith("Delay(3, DelayRule(bound='sigmoid', scale=1.0")
