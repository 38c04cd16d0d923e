"""What holds for every loss on spike times in LOSSES."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import grad, vmap

from firstspike.deferred import raise_deferred_errors
from firstspike.losses import LOSSES, ReadoutCrossEntropy, SpikeCount, TimeCrossEntropy, TimeLoss

pytestmark = pytest.mark.usefixtures("on_device")

ARGUMENTS = {"mse": {"correct": 0.5, "wrong": 1.5}}
NAMES = sorted(name for name, loss in LOSSES.items() if issubclass(loss, TimeLoss))
SILENT_COST = 37.0
inf = math.inf


def build(name, **arguments):
    return LOSSES[name](silent_cost=SILENT_COST, **(ARGUMENTS.get(name, {}) | arguments))


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def loss(name):
    return build(name)


def batch(samples=6, outputs=4, silent=True, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    times = 3 * torch.rand(samples, outputs, generator=generator, dtype=dtype)
    labels = torch.randint(outputs, (samples,), generator=generator)
    if silent:  # sample 0: a wrong neuron, 1: the true one, 2: all
        times[0, (labels[0] + 1) % outputs] = inf
        times[1, labels[1]] = inf
        times[2] = inf
    return times, labels


def test_is_a_module_whose_forward_is_the_mean(loss):
    times, labels = batch()
    assert isinstance(loss, TimeLoss)
    assert isinstance(loss, nn.Module)
    assert loss.per_sample(times, labels).shape == labels.shape
    assert loss(times, labels).shape == ()
    assert torch.equal(loss(times, labels), loss.per_sample(times, labels).mean())


@pytest.mark.host
@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda times, labels: (times.numpy(), labels), "times must be a torch tensor, got ndarray"),
        (lambda times, labels: (times.tolist(), labels), "times must be a torch tensor, got list"),
        (
            lambda times, labels: (times, labels.numpy()),
            r"labels: expected a tensor, got ndarray; write torch\.as_tensor",
        ),
        (
            lambda times, labels: (times, labels.tolist()),
            r"labels: expected a tensor, got list; write torch\.as_tensor",
        ),
    ],
)
def test_arrays_and_lists_are_refused(loss, convert, message):
    with pytest.raises(ValueError, match=message):
        loss(*convert(*batch()))


def test_gradcheck_with_silent_neurons(loss):
    times, labels = batch()
    spiking = torch.isfinite(times)

    def of_spiking(values):
        return loss.per_sample(times.masked_scatter(spiking, values), labels)

    assert torch.autograd.gradcheck(of_spiking, times[spiking].requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_silent_true_neuron_costs_and_gives_no_gradient(loss, dtype):
    times, labels = batch(dtype=dtype)
    times.requires_grad_()
    costs = loss.per_sample(times, labels)
    costs.sum().backward()
    assert costs.dtype == dtype
    assert costs[1] == costs[2] == SILENT_COST
    assert torch.isfinite(times.grad).all()
    assert (times.grad[1:3] == 0).all()
    assert times.grad[0, (labels[0] + 1) % 4] == 0
    assert (times.grad[3:] != 0).any(dim=1).all()


def test_a_silent_wrong_neuron_is_as_if_it_were_not_there(loss):
    times, labels = torch.tensor([[0.3, 0.7, 1.1, inf]]), torch.tensor([1])
    assert torch.equal(loss.per_sample(times, labels), loss.per_sample(times[:, :3], labels))


@pytest.mark.parametrize("time", [1e8, 1e15, 1e30])
@pytest.mark.parametrize("place", [0, 1])
def test_very_late_spikes_give_finite_gradients(loss, time, place):
    times = torch.tensor([[0.5, 0.7, inf]])
    times[0, place] = time
    times.requires_grad_()
    loss(times, torch.tensor([0])).backward()
    assert torch.isfinite(times.grad).all()


def test_inputs_stay_as_they_are(loss):
    times, labels = batch()
    before = times.clone()
    leaf = times.requires_grad_()
    loss(leaf, labels).backward()
    assert torch.equal(times, before)


def test_per_sample_needs_only_its_sample(loss):
    times, labels = batch()
    costs = torch.stack([loss.per_sample(t, label) for t, label in zip(times, labels, strict=True)])
    assert torch.equal(costs, loss.per_sample(times, labels))


def test_vmap_over_samples_and_over_trials(loss):
    times, labels = batch()
    assert torch.allclose(vmap(loss.per_sample)(times, labels), loss.per_sample(times, labels))
    trials = torch.stack([times, times + 0.1])
    assert torch.allclose(vmap(loss, in_dims=(0, None))(trials, labels), torch.stack([loss(t, labels) for t in trials]))
    assert torch.equal(vmap(loss.predict)(trials), loss.predict(trials))


def test_per_sample_gradients_by_vmap(loss):
    times, labels = batch()
    leaf = times.clone().requires_grad_()
    loss.per_sample(leaf, labels).sum().backward()
    assert torch.allclose(vmap(grad(loss))(times, labels), leaf.grad)


def test_label_outside_in_vmap_is_an_error(loss):
    with pytest.raises((RuntimeError, IndexError)):
        vmap(loss.per_sample)(torch.rand(2, 3), torch.tensor([0, 3]))


def test_predict_of_silent_neurons(loss):
    classes = loss.predict(torch.tensor([[inf, inf, inf], [inf, 0.5, inf], [3.0, inf, inf]]))
    assert classes.dtype == torch.int64
    assert classes.tolist() == [-1, 1, 0]


def test_ties_go_to_the_lower_class(loss):
    assert loss.predict(torch.tensor([[inf, 0.5, 0.5], [0.7, 0.7, inf]])).tolist() == [1, 0]


@given(name=st.sampled_from(NAMES), scale=st.floats(0.01, 100), seed=st.integers(0, 100))
def test_the_unit_of_time_does_not_matter(name, scale, seed):
    times, labels = batch(seed=seed)
    here, there = build(name), build(name, tau_syn=scale)
    assert torch.allclose(here.per_sample(times, labels), there.per_sample(scale * times, labels), rtol=1e-9)


@given(name=st.sampled_from(NAMES), order=st.permutations(range(4)), seed=st.integers(0, 100))
def test_order_of_the_classes_does_not_matter(name, order, seed):
    times, labels = batch(seed=seed)
    order = torch.tensor(order)
    loss = build(name)
    permuted = loss.per_sample(times[:, order], order.argsort()[labels])
    assert torch.allclose(loss.per_sample(times, labels), permuted)
    silent = torch.isinf(times).all(dim=1)
    assert torch.equal(order[loss.predict(times[:, order])][~silent], loss.predict(times)[~silent])


def test_descent_makes_the_true_class_win(loss):
    times, labels = batch(20, 4, silent=False)
    times.requires_grad_()
    optimizer = torch.optim.Adam([times], lr=0.05)
    before = (loss.predict(times) == labels).double().mean()
    for _ in range(300):
        optimizer.zero_grad()
        loss(times, labels).backward()
        optimizer.step()
    assert before < 0.6
    assert (loss.predict(times) == labels).all()


@pytest.mark.parametrize(
    ("times", "labels", "message"),
    [
        (torch.rand(2, 3), torch.tensor([0, 3]), r"labels: expected 0 \.\.\. 2 for 3 output neurons"),
        (torch.rand(2, 3), torch.tensor([-1, 0]), r"labels: expected 0 \.\.\. 2"),
        (torch.rand(2, 3), torch.tensor([0.0, 1.0]), "labels: expected int64"),
        (torch.rand(2, 3), torch.tensor([0, 1], dtype=torch.int32), "labels: expected int64"),
        (torch.rand(2, 3), torch.tensor([0, 1, 2]), "labels: expected int64 of shape"),
        (torch.rand(2, 3), torch.tensor([[0], [1]]), "labels: expected int64 of shape"),
        (torch.ones(2, 3, dtype=torch.int64), torch.tensor([0, 1]), "times: expected a floating-point"),
        (torch.rand(2, 0), torch.tensor([0, 1]), "times: expected"),
        (torch.rand(2, 3, 4), torch.tensor([0, 1]), r"got spike trains \(2, 3, 4\): end the network with a readout"),
    ],
)
def test_wrong_batches(loss, times, labels, message):
    with pytest.raises(ValueError, match=message) as error:
        loss(times, labels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arguments", [{"tau_syn": 0.0}, {"tau_syn": inf}, {"tau_syn": math.nan}])
def test_wrong_tau(name, arguments):
    with pytest.raises(ValueError, match="tau_syn must be"):
        build(name, **arguments)


@pytest.mark.parametrize("cost", [-1.0, inf, math.nan])
def test_wrong_silent_cost(name, cost):
    with pytest.raises(ValueError, match="silent_cost must be"):
        LOSSES[name](silent_cost=cost, **ARGUMENTS.get(name, {}))


def test_nan_decides_for_no_class(loss):
    times = torch.tensor([[0.3, math.nan], [math.nan, 0.3], [0.3, 0.4]])
    assert (loss.predict(times) == -1).tolist() == [True, True, False]
    for bad in (math.nan, -inf):  # also where the true neuron is silent, which costs the same whatever the others do
        with pytest.raises(ValueError, match="times must be real numbers or inf"):  # noqa: PT012
            loss.per_sample(torch.tensor([[inf, bad]]), torch.tensor([0]))
            raise_deferred_errors()  # of devices that are not waited for


@pytest.mark.parametrize("loss", [TimeCrossEntropy(), ReadoutCrossEntropy()])
def test_arrays_are_no_output(loss):
    with pytest.raises(
        ValueError, match=r"output must be a torch tensor, got ndarray of shape .3, 2.; write torch.as_te"
    ):
        loss.predict(np.ones((3, 2)))


def test_too_few_class_weights():
    with pytest.raises(ValueError, match=r"weight: expected one for each class, got 2 for labels 0 \.\.\. 2"):
        TimeCrossEntropy(weight=[1, 2]).share(torch.tensor([0]), torch.tensor([0, 2]))


def test_what_is_printed():
    assert repr(TimeCrossEntropy()) == "TimeCrossEntropy()"
    assert repr(TimeCrossEntropy(xi=0.1, weight=[1, 2])) == "TimeCrossEntropy(xi=0.1, weight=(1.0, 2.0))"
    assert repr(SpikeCount(alpha=0.1, least=1)) == "SpikeCount(alpha=0.1, least=1.0)"
