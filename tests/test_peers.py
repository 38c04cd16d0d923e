"""Numbers that other simulators test themselves with, for the same neurons here.

In their units: seconds for jaxsnn, milliseconds for the others. jaxsnn's and Eventax's current is that of
``tau_mem V' = -V + I``, so weights are theirs times tau_syn / tau_mem. Their code is not here.
"""

import math

import pytest
import torch

from firstspike import LIF, first_spike_time, spike_trains
from firstspike.spiketime import TrainState, spike_window

INF = math.inf
DTYPE = torch.float64


def tensor(*values):
    return torch.tensor(values, dtype=DTYPE)


def state(neuron, voltage, current, time=0.0):
    """Of as many neurons as there are voltages, in one sample."""
    voltage = torch.tensor([voltage] if isinstance(voltage, list) else [[voltage]], dtype=DTYPE)
    current = torch.full((*voltage.shape, *neuron.parts), current, dtype=DTYPE)
    return TrainState(voltage, current, torch.zeros_like(voltage), time)


JAXSNN = {
    "half": (LIF(1e-2, 5e-3, 0.6), 3.0, 0.00323507, -0.00618034),
    "equal": (LIF(5e-3, 5e-3, 0.6), 3.0, 0.00129586, -0.0017492),
    "half, silent": (LIF(1e-2, 5e-3, 0.6), 2.0, INF, 0.0),
    "equal, silent": (LIF(5e-3, 5e-3, 0.6), 1.0, INF, 0.0),
}


@pytest.mark.parametrize("name", JAXSNN)
def test_jaxsnn_first_spikes_and_their_gradients(name, backend):
    neuron, current, time, slope = JAXSNN[name]
    scale = torch.ones((), dtype=DTYPE, requires_grad=True)
    weight = scale * current * neuron.tau_syn / neuron.tau_mem
    spike = first_spike_time(tensor([0.0]), weight.reshape(1, 1), neuron, backend=backend)
    (found,) = torch.autograd.grad(spike[spike.isfinite()].sum() + 0 * scale, scale)
    assert spike.item() == pytest.approx(time, abs=1e-8)
    assert found.item() == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize(
    ("voltage", "current"), [(0.239, 1.368), (0.0, 0.0), (0.0, -0.72), (0.0, -0.25), (-551.67, 0.0006)]
)
def test_jaxsnn_states_that_lead_to_no_spike(voltage, current, backend):
    neuron = LIF(1e-2, 5e-3, 0.6)
    given = state(neuron, voltage, current * neuron.tau_syn / neuron.tau_mem)
    none = tensor([[INF]]), torch.zeros(1, 1, dtype=DTYPE)
    spikes = spike_trains(*none, neuron, max_spikes=1, state=given, backend=backend)
    assert spikes.item() == INF


def test_jaxsnn_membrane_between_spikes(backend):
    neuron = LIF(threshold=9.0)
    given = state(neuron, 1.0, 1.0)
    none = tensor([[INF]]), torch.zeros(1, 1, dtype=DTYPE)
    found = spike_window(*none, neuron, max_spikes=1, state=given, until=1.0, backend=backend).state
    assert (found.voltage.item(), found.current.item()) == pytest.approx((0.736, 0.368), abs=1e-3)


@pytest.mark.parametrize(
    ("voltage", "current", "time"), [(0.0, 0.0, 0.01386294), (0.3, 0.0, 0.01061257), (0.3, 0.001, 0.01061257)]
)
def test_jaxsnn_leak_potential_above_the_threshold(voltage, current, time):
    neuron = LIF(0.02, 0.01, 1.0, bias=2.0)
    none = tensor([[INF]]), torch.zeros(1, 1, dtype=DTYPE)
    spike = spike_trains(
        *none, neuron, max_spikes=1, overflow="drop", until=1.0, state=state(neuron, voltage, current / 2)
    )
    assert spike.item() == pytest.approx(time, abs=1e-5 if current else 1e-8)


def test_jaxsnn_intervals_without_inputs_are_equal():
    neuron = LIF(1e-2, 5e-3, 1.0, bias=3.0)
    none = tensor([[INF]]), torch.zeros(1, 1, dtype=DTYPE)
    train = spike_trains(*none, neuron, max_spikes=60, until=0.2)[0, 0]
    train = train[train < INF]
    assert len(train) == 49
    assert torch.diff(train, prepend=tensor(0.0)).tolist() == pytest.approx([1e-2 * math.log(1.5)] * 49, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_eventax_membrane_spikes_and_gradients(seed, backend):
    """A membrane after one input; a spike by a constant current, with its derivative by that current."""
    random = torch.Generator().manual_seed(seed)
    tau_syn, tau_mem, when, current, share = torch.rand(5, generator=random, dtype=DTYPE).tolist()
    tau_syn, tau_mem, when, current = 1 + 99 * tau_syn, 1 + 99 * tau_mem, 30 * when, 0.2 + 3.8 * current
    neuron = LIF(tau_mem, tau_syn, threshold=9.0)
    given = state(neuron, 0.0, tau_syn / tau_mem)
    none = tensor([[INF]]), torch.zeros(1, 1, dtype=DTYPE)
    found = spike_window(*none, neuron, max_spikes=1, state=given, until=when, backend=backend).state.voltage.item()
    expected = (math.exp(-when / tau_mem) - math.exp(-when / tau_syn)) / ((1 / tau_syn - 1 / tau_mem) * tau_mem)
    assert found == pytest.approx(expected, rel=1e-9)
    threshold = 0.95 * share * current
    weight = tensor([current]).requires_grad_()
    charged = first_spike_time(tensor([0.0]), weight, LIF(INF, tau_mem, threshold), backend=backend)
    (slope,) = torch.autograd.grad(charged.sum(), weight)
    assert charged.item() == pytest.approx(tau_mem * math.log(current / (current - threshold)), rel=1e-9)
    assert slope.item() == pytest.approx(tau_mem * (1 / current - 1 / (current - threshold)), rel=1e-9)


def test_nest_direct_current():
    """1000 pA into 250 pF, with 10 ms: -70 mV would become -30, the threshold is -55, and 2 ms are refractory."""
    neuron = LIF(10.0, 2.0, 15.0, refractory=2.0, bias=40.0)
    none = tensor([[INF]]), torch.zeros(1, 1, dtype=DTYPE)
    train = spike_trains(*none, neuron, max_spikes=9, until=30.0)[0, 0]
    first = -10.0 * math.log(1 - 15 / 40)
    assert train[train < INF].tolist() == pytest.approx(
        [first, *(k * (first + 2) + first for k in (1, 2, 3))], rel=1e-12
    )


def test_nest_spikes_between_steps_of_the_lossless_model(backend):
    """Weights of 55, 70 and 90 pA at 4 ms; until then a direct current keeps the membrane near the threshold.

    The times are those of NEST 3.10 with these weights.
    """
    neuron = LIF(100.0, 1.0, 21.0)
    weight = tensor([55.0], [70.0], [90.0]) / 250.0
    given = state(neuron, [21 - 0.001 * math.exp(-0.02)] * 3, 0.0, time=4.0)
    spikes = spike_trains(tensor([[4.0]]), weight, neuron, max_spikes=1, state=given, backend=backend)[0, :, 0]
    assert spikes.tolist() == pytest.approx([INF, 4.014415459912228, 4.006586385666122], rel=1e-13)


def test_brian2_refractory_time():
    """dv/dt = (2 - v) / tau, which spikes at 1 and is held for 1 ms."""
    none = tensor([[INF]]), torch.zeros(1, 1, dtype=DTYPE)
    train = spike_trains(*none, LIF(refractory=1.0, bias=2.0), max_spikes=9, until=10.0)[0, 0]
    train = train[train < INF].tolist()
    assert train == pytest.approx([k * (math.log(2) + 1) + math.log(2) for k in range(len(train))], rel=1e-12)
    assert len(train) == 6


def test_a_bias_below_the_threshold_is_a_shift(backend):
    """Of a neuron that has come to rest before its inputs: threshold and reset are lower by the bias."""
    random = torch.Generator().manual_seed(3)
    times = 3 * torch.rand(4, 6, 1, generator=random, dtype=DTYPE)
    weight = torch.randn(5, 6, generator=random, dtype=DTYPE) + 1
    with_bias = LIF(2.0, 1.0, 1.0, reset=0.1, refractory=0.2, bias=0.4)
    rested, none = torch.full((4, 5), 0.4, dtype=DTYPE), torch.zeros(4, 5, dtype=DTYPE)
    given = TrainState(rested, none.reshape(4, 5, *(1 for _ in with_bias.parts)), none, 0.0)
    options = {"max_spikes": 20, "until": 40.0, "backend": backend}
    shifted = LIF(2.0, 1.0, 1.0 - 0.4, reset=0.1 - 0.4, refractory=0.2)
    found = spike_trains(times, weight, with_bias, state=given, **options)
    assert found.isfinite().sum() > 10
    torch.testing.assert_close(found, spike_trains(times, weight, shifted, **options), rtol=1e-11, atol=1e-11)
