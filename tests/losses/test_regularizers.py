import math

import pytest
import torch
from torch import nn

from firstspike import Concatenate, Delay, DelayRule, LIFLinear, LIFRecurrent, Multiplex, Network
from firstspike.losses import REGULARIZERS, DelayL2, EarlyOutput, LayerWindow, SilentPeak, SpikeCount

pytestmark = pytest.mark.usefixtures("on_device")

inf = math.inf


class WithDelay(nn.Module):
    """A delay that is computed from its parameter, as a parametrised one is."""

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))

    @property
    def delay(self):
        return self.theta.exp()


class WithoutDelay(nn.Module):
    delay = None


def network():
    return nn.Sequential(WithDelay([0.0, 1.0]), WithoutDelay(), nn.Sequential(WithDelay([[0.5]]), nn.Identity()))


def double(values):
    return torch.tensor(values, dtype=torch.float64)


NEED_RECORDS = {"layer_window", "silent_peak", "spike_count", "spike_errors"}
NEEDED = {"spike_errors": {"scale": 1.0}}


@pytest.mark.parametrize("name", sorted(set(REGULARIZERS) - NEED_RECORDS))
def test_scalar_in_proportion_to_alpha(name):
    arguments = double([[0.5, 1.0], [inf, 0.3]]), torch.tensor([0, 1]), network()
    one, three = (REGULARIZERS[name](alpha=alpha)(*arguments) for alpha in (1.0, 3.0))
    assert one.shape == ()
    assert one.dtype == torch.float64
    assert one > 0
    assert torch.allclose(three, 3 * one)
    assert REGULARIZERS[name](alpha=0.0)(*arguments) == 0


@pytest.mark.parametrize("name", sorted(REGULARIZERS))
@pytest.mark.parametrize("arguments", [{"alpha": -1.0}, {"alpha": inf}, {"alpha": 1.0, "tau_syn": 0.0}])
def test_wrong_arguments(name, arguments):
    with pytest.raises(ValueError, match=r"(alpha|tau_syn) must be"):
        REGULARIZERS[name](**NEEDED.get(name, {}), **arguments)


def test_early_output_formula_and_mean():
    regularizer = EarlyOutput(alpha=0.5, beta=2.0, tau_syn=3.0)
    value = regularizer(double([[1.0, 9.0], [9.0, 2.0]]), torch.tensor([0, 1]), nn.Identity())
    assert value.item() == pytest.approx(0.5 * (math.exp(1 / 6) + math.exp(2 / 6)) / 2)


def test_early_output_ignores_silent_true_neurons():
    times = double([[inf, 0.5], [0.7, inf], [inf, inf]]).requires_grad_()
    value = EarlyOutput(alpha=1.0)(times, torch.tensor([0, 0, 1]), nn.Identity())
    value.backward()
    assert value.item() == pytest.approx(math.exp(0.7) / 3)
    assert times.grad.tolist() == [[0.0, 0.0], [pytest.approx(math.exp(0.7) / 3), 0.0], [0.0, 0.0]]


def test_early_output_of_a_sample_is_the_same_beside_late_and_silent_ones():
    regularizer, some = EarlyOutput(alpha=1.0), double([[0.5, 1.0], [0.2, 3.0]]).requires_grad_()
    more = double([*some.tolist(), [inf, 0.5], [25.0, 0.5]]).requires_grad_()
    regularizer(some, torch.tensor([0, 1]), nn.Identity()).backward()
    regularizer(more, torch.tensor([0, 1, 0, 0]), nn.Identity()).backward()
    assert torch.equal(2 * more.grad[:2], some.grad)


def test_early_output_is_linear_beyond_an_exponent_of_ten():
    def value_and_slope(time):
        times = double([[time]]).requires_grad_()
        value = EarlyOutput(alpha=1.0, beta=0.5)(times, torch.tensor([0]), nn.Identity())
        value.backward()
        return value.item(), times.grad.item()

    slope = math.exp(10) / 0.5
    assert value_and_slope(4.9) == pytest.approx((math.exp(9.8), math.exp(9.8) / 0.5))
    assert value_and_slope(5.0) == pytest.approx((math.exp(10), slope))
    assert value_and_slope(7.0) == pytest.approx((math.exp(10) * 5, slope))
    assert value_and_slope(5e6) == pytest.approx((math.exp(10) * (1e7 - 9), slope))


def test_early_output_gradcheck():
    labels = torch.tensor([0, 1, 1])
    times = double([[0.5, 1.0], [0.2, 3.0], [1.0, 25.0]]).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: EarlyOutput(alpha=0.1)(t, labels, nn.Identity()), times)


def test_early_output_works_under_vmap():
    times, labels = double([[0.5, 1.0], [inf, 3.0]]), torch.tensor([1, 0])
    regularizer = EarlyOutput(alpha=1.0)
    each = torch.func.vmap(lambda t, k: regularizer(t, k, nn.Identity()))(times, labels)
    assert each.tolist() == pytest.approx([math.exp(1.0), 0.0])


@pytest.mark.parametrize("beta", [0.0, -1.0, inf])
def test_wrong_beta(beta):
    with pytest.raises(ValueError, match="beta must be"):
        EarlyOutput(alpha=1.0, beta=beta)


@pytest.mark.host
def test_early_output_checks_labels():
    with pytest.raises(ValueError, match="labels: expected"):
        EarlyOutput(alpha=1.0)(double([[0.5, 1.0]]), torch.tensor([2]), nn.Identity())


def test_delay_l2_sums_the_squares_of_all_delays():
    delays = network()
    value = DelayL2(alpha=0.1, tau_syn=2.0)(double([[0.5]]), torch.tensor([0]), delays)
    assert value.item() == pytest.approx(0.1 * (1 + math.exp(2) + math.exp(1)) / 4)
    value.backward()
    assert delays[0].theta.grad.tolist() == pytest.approx([0.1 * 2 / 4, 0.1 * 2 * math.exp(2) / 4])
    assert delays[2][0].theta.grad.item() == pytest.approx(0.1 * 2 * math.exp(1) / 4)


@pytest.mark.parametrize("term", [EarlyOutput(1.0), LayerWindow(1.0), SilentPeak(1.0), SpikeCount(1.0, least=1.0)])
def test_means_over_no_sample_are_nan_as_in_torch(term):
    net = Network(LIFLinear(4, 5), LIFLinear(5, 3))
    record = net.record(torch.zeros(0, 4))
    assert term(record.output, torch.zeros(0, dtype=torch.int64), net, record).isnan()


def test_delay_l2_of_a_shared_module_counts_once():
    shared = WithDelay([0.0])
    once = DelayL2(alpha=1.0)(double([[0.5]]), torch.tensor([0]), nn.Sequential(shared, shared))
    assert once.item() == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_delay_l2_without_delays_is_zero(dtype):
    value = DelayL2(alpha=1.0)(torch.rand(2, 2, dtype=dtype), torch.tensor([0, 1]), nn.Linear(2, 2))
    assert value == 0
    assert value.dtype == dtype


def test_delay_l2_counts_a_delay_that_copies_share_once():
    """The copies of an input, the pixels of a channel; the delays of recurrent synapses without their window."""
    rule = DelayRule("clip", scale=3.0, mean=2.0, std=0.0)
    shared = Network(Multiplex(5), Delay(15, rule, copies=5))
    value = DelayL2(alpha=1.0)(torch.rand(2, 15), torch.tensor([0, 1]), shared)
    assert value.item() == 3 * 4.0
    value.backward()
    assert shared[1].delay_raw.grad.tolist() == [4.0] * 3
    channels = Concatenate((2, 3, 3), skipped=(4, 3, 3), over=1, delay=rule)
    assert DelayL2(alpha=1.0)(torch.rand(2, 2), torch.tensor([0, 1]), channels).item() == 4 * 4.0
    loop = LIFRecurrent(2, 3, 4, 5.0, window=0.5, recurrent_delay=rule, delay=rule)
    assert DelayL2(alpha=1.0)(torch.rand(2, 2), torch.tensor([0, 1]), loop).item() == (3 * 3 + 3 * 2) * 4.0
