import pytest
import torch

from firstspike.neuron import LIF
from firstspike.spiketime import first_spike_time
from firstspike.substrates.events import Cells, simulate, spike_trains

DOUBLE = {"dtype": torch.float64}


def cells(tau_mem=1.0, tau_syn=1.0, threshold=1.0, refractory=1.0):
    return Cells(tau_mem, tau_syn, torch.as_tensor(threshold, **DOUBLE), refractory)


@pytest.mark.parametrize("taus", [(1.0, 1.0), (2.0, 1.0), (0.5, 1.0), (1.3, 0.4)])
def test_first_spikes_are_those_of_the_operator(taus, source):
    times = 2 * torch.rand(80, 12, generator=source, **DOUBLE)
    times[:, 3] = torch.inf
    times[:, 5] = times[:, 6]
    weight = 0.4 + 0.7 * torch.randn(25, 12, generator=source, **DOUBLE)
    wanted = first_spike_time(times, weight, LIF(*taus, 1.0))
    trains = simulate(times.unsqueeze(-1), weight, cells(*taus), 1e9)
    found = trains[..., 0]
    assert 0.1 < float(torch.isinf(wanted).double().mean()) < 0.9
    assert torch.equal(torch.isinf(found), torch.isinf(wanted))
    both = torch.isfinite(wanted)
    torch.testing.assert_close(found[both], wanted[both], rtol=0, atol=1e-9)
    assert torch.equal(trains.sort(dim=-1).values, trains)


@pytest.mark.parametrize("refractory", [0.2, 1.0])
def test_what_needs_no_simulation_is_left_out_without_a_trace(refractory, source):
    times = 3 * torch.rand(300, 12, generator=source, **DOUBLE)
    times[torch.rand(300, 12, generator=source) < 0.2] = torch.inf
    times[5] = torch.inf
    weight = 0.2 + 0.5 * torch.randn(20, 12, generator=source, **DOUBLE)
    neurons = cells(1.4, 1.0, 0.8 + 0.4 * torch.rand(20, generator=source), refractory)
    whole, found = (run(times.unsqueeze(-1), weight, neurons, 2.8) for run in (simulate, spike_trains))
    assert whole.shape == found.shape
    assert bool(torch.isfinite(whole[..., 1:]).any())
    assert torch.equal(torch.isfinite(whole), torch.isfinite(found))
    both = torch.isfinite(whole)
    torch.testing.assert_close(whole[both], found[both], rtol=0, atol=1e-9)


def test_time_constants_of_each_neuron(source):
    times, weight = torch.rand(9, 5, 2, generator=source, **DOUBLE), torch.full((3, 5), 1.5, **DOUBLE)
    mem, syn = torch.tensor([0.5, 1.0, 2.0], **DOUBLE), torch.tensor([1.0, 1.0, 0.6], **DOUBLE)
    together = spike_trains(times, weight, cells(mem, syn), 9.0)
    assert together.shape[2] > 1
    for neuron in range(3):
        alone = spike_trains(times, weight[:1], cells(float(mem[neuron]), float(syn[neuron])), 9.0)
        found = together[:, neuron, : alone.shape[2]]
        torch.testing.assert_close(found, alone[:, 0], rtol=0, atol=1e-9)
        assert bool(torch.isinf(together[:, neuron, alone.shape[2] :]).all())


def stepped(times, weight, tau_mem, tau_syn, threshold, refractory, until, dt):
    """Spikes of one neuron by small steps."""
    voltage = current = 0.0
    free, found = -1.0, []
    arrivals = sorted((t, w) for t, w in zip(times, weight, strict=True) if t < until)
    for k in range(round(until / dt)):
        now = (k + 1) * dt
        voltage += dt * (current / tau_syn - voltage / tau_mem) if now > free else -voltage
        current -= dt * current / tau_syn
        while arrivals and arrivals[0][0] <= now:
            current += arrivals.pop(0)[1]
        if voltage >= threshold:
            found.append(now)
            voltage, free = 0.0, now + refractory
    return found


@pytest.mark.parametrize("refractory", [0.3, 2.0])
def test_trains_are_those_of_small_steps(refractory, source):
    times = 4 * torch.rand(6, 10, generator=source, **DOUBLE)
    weight = 1.0 + torch.rand(2, 10, generator=source, **DOUBLE)
    found = spike_trains(times.unsqueeze(-1), weight, cells(1.5, 0.8, 1.0, refractory), 8.0)
    assert int(torch.isfinite(found).sum(-1).min()) >= 2
    for sample in range(6):
        for neuron in range(2):
            wanted = stepped(times[sample].tolist(), weight[neuron].tolist(), 1.5, 0.8, 1.0, refractory, 8.0, 2e-4)
            train = found[sample, neuron]
            train = train[torch.isfinite(train)]
            assert len(train) == len(wanted)
            torch.testing.assert_close(train, torch.tensor(wanted, **DOUBLE), rtol=0, atol=4e-3 * len(wanted))


def test_several_spikes_of_an_input_count_each(source):
    times = 3 * torch.rand(20, 4, 3, generator=source, **DOUBLE)
    times[..., 2] = torch.inf
    weight = torch.rand(5, 4, generator=source, **DOUBLE)
    single = simulate(times.flatten(1).unsqueeze(-1), weight.repeat_interleave(3, dim=1), cells(), 50.0)
    assert torch.equal(spike_trains(times, weight, cells(), 50.0), single)


def test_nothing_after_the_end():
    times = torch.tensor([[[0.0], [3.0]]], **DOUBLE)
    weight = torch.tensor([[4.0, 4.0]], **DOUBLE)
    assert int(torch.isfinite(spike_trains(times, weight, cells(), 50.0)).sum()) >= 2
    found = spike_trains(times, weight, cells(), 1.0)
    assert torch.isfinite(found).flatten().tolist() == [True]
    assert bool(torch.isinf(spike_trains(times + 1.0, weight, cells(), 1.0)).all())


def test_each_sample_and_neuron_may_have_its_threshold(source):
    times = torch.rand(7, 3, 1, generator=source, **DOUBLE)
    weight = torch.full((4, 3), 3.0, **DOUBLE)
    threshold = 0.5 + torch.rand(7, 4, generator=source, **DOUBLE)
    together = spike_trains(times, weight, cells(threshold=threshold), 20.0)[..., 0]
    for sample in range(7):
        alone = first_spike_time(times[sample, :, 0], weight, LIF(1.0, 1.0, threshold[sample]))
        torch.testing.assert_close(together[sample], alone, rtol=0, atol=1e-9)
