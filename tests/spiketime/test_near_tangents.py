"""Gradients in float32 of spikes just below the peak of the membrane, after all inputs.

There a spike time has few digits, and the slope follows from it: it must be that of the time which is given, up to what
one unit in the last place of that time changes.
"""

import math

import mpmath as mp
import pytest
import torch

from fifty_digits import train_gradients
from firstspike import LIF, first_spike_time, spike_trains

INF = math.inf
RATIOS = [0.3, 0.5, 1.0, 1.37, 2.0, 10.0, 100.0, INF]
KINDS = ["numbers", "many", "learnt", "delays", "observed"]
NEURONS = 16
EPS = torch.finfo(torch.float32).eps
ENOUGH = 6 * EPS  # relative, for everything else


def make(ratio, kind, exact, seed=0):
    """Times, weights and delays of neurons whose peaks are a relative 1e-7 to 1e-3 above a threshold of 1."""
    gen = torch.Generator().manual_seed(seed)
    count = 80 if kind == "many" else 5
    times = (2 * torch.rand(count, generator=gen)).float()
    delay = torch.rand(NEURONS, count, generator=gen) if kind == "delays" else torch.zeros(NEURONS, count)
    rows = []
    while len(rows) < NEURONS:
        arrival = [x.item() for x in times + delay[len(rows)]]
        weight = (1.5 + 1.2 * torch.randn(count, generator=gen, dtype=torch.float64)).tolist()
        excess = 10.0 ** (-7 + 4 * torch.rand(1, generator=gen).item())
        last = max(arrival)
        v, i = exact.membrane(last, arrival, weight, ratio, 1), exact.current(last, arrival, weight, 1)
        if v <= 0 or i <= v / ratio:
            continue
        wait = exact.summit(v, i, mp.mpf(ratio), mp.mpf(1))
        top = v + i if ratio == INF else v * mp.exp(-wait / ratio) + i * exact.response(wait, ratio, 1)
        if wait > 0.05:
            rows.append([float(w * (1 + excess) / top) for w in weight])
    return times, torch.tensor(rows).float(), delay


def slope(t, arrival, weight, ratio):
    """dV/dt at a spike."""
    drive = mp.fsum(mp.mpf(w) * mp.exp(mp.mpf(x) - mp.mpf(t)) for x, w in zip(arrival, weight, strict=True) if x < t)
    return drive - 1 / mp.mpf(ratio)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_gradients_are_those_of_the_spike_time_as_it_is_rounded(ratio, kind, backend, exact):
    times, weight, delay = make(ratio, kind, exact)
    leaves = [weight.requires_grad_(), torch.ones(NEURONS, requires_grad=True)]
    lif, extra = LIF(ratio, threshold=leaves[1]), {"delay": delay} if kind == "delays" else {}
    if kind == "learnt" and ratio < INF:
        lif = LIF(torch.tensor(ratio), torch.tensor(1.0), threshold=leaves[1])
        ratio = torch.tensor(ratio).item()
    spikes = first_spike_time(times[None], leaves[0], lif, backend=backend, **extra)[0]
    if kind == "observed":
        spikes = first_spike_time(times[None], leaves[0], lif, backend=backend, observed=spikes.detach()[None])[0]
    fired, checked = spikes.isfinite(), 0
    by_weight, by_threshold = torch.autograd.grad(spikes[fired].sum(), leaves)
    for k in fired.nonzero()[:, 0].tolist():
        t, arrival, row = spikes[k].item(), (times + delay[k]).tolist(), weight[k].tolist()
        if t <= max(arrival):  # far below a peak that comes later
            continue
        ulp = torch.nextafter(spikes[k].detach(), torch.tensor(INF)).item() - t
        with mp.workdps(50):
            steep, *others = (slope(t + x, arrival, row, ratio) for x in (0.0, ulp, -ulp))
            if steep <= 0:  # rounded to a time after the peak
                assert not by_weight[k].any()
                continue
            if min(others) <= 0:  # no digit of the slope is left
                continue
            allowed = max(abs(1 - steep / x) for x in others) + ENOUGH
            wanted = [-exact.response(mp.mpf(t) - mp.mpf(x), ratio, 1) / steep for x in arrival]
            largest = max(map(abs, wanted))
            for found, truth in zip(by_weight[k].tolist(), wanted, strict=True):
                assert abs(found - truth) <= allowed * largest
            assert abs(by_threshold[k].item() * steep - 1) <= allowed
        checked += 1
    assert checked >= NEURONS / 2


@pytest.mark.parametrize(("refractory", "reset"), [(0.0, 0.0), (0.3, -0.4)])
@pytest.mark.parametrize("tau_syn", [1.0, 5e-3])
@pytest.mark.parametrize("ratio", [1.0, 2.0, 1.37, INF])
def test_each_derivative_is_exact_to_the_size_of_its_own_terms(ratio, tau_syn, refractory, reset, backend, exact):
    """That of an input of weight 0 is 0, and that of a small one is as exact as others."""
    times, weight, _ = make(ratio, "numbers", exact)
    several = 12 * weight[:8] * torch.tensor([1.0, 0.0, 1e-9, 1.0, -1e-5])
    leaves = [(tau_syn * times[:, None]).double(), torch.cat([weight[:8], several]).double(), torch.ones(16).double()]
    times, weight, threshold = (x.requires_grad_() for x in leaves)
    lif = LIF(ratio * tau_syn, tau_syn, threshold, refractory=refractory * tau_syn, reset=reset)
    trains = spike_trains(times[None], weight, lif, max_spikes=3, overflow="drop", backend=backend)[0]
    assert (trains.isfinite().sum(1) > 1).sum() >= 4
    for k, train in enumerate(trains):
        spikes = train[train.isfinite()]
        constants = ratio * tau_syn, tau_syn, refractory * tau_syn, reset
        wanted = train_gradients(spikes.tolist(), times[:, 0].tolist(), weight[k].tolist(), *constants)
        for spike, row in zip(spikes, wanted, strict=True):
            by_times, by_weight, by_threshold = torch.autograd.grad(spike, leaves, retain_graph=True)
            found = [*by_times[:, 0].tolist(), *by_weight[k].tolist(), by_threshold[k].item()]
            assert all(abs(x - y) <= 1e-9 * size for x, (y, size) in zip(found, row, strict=True)), (k, found, row)


@pytest.mark.usefixtures("wide_kernels")
@pytest.mark.parametrize("what", ["times", "weight"])
def test_late_gradients_of_trains_are_those_of_double_precision(what, backend, exact):
    """Without leak a last spike that is only just reached comes late; what it owes to the spikes before cancels."""
    gen = torch.Generator().manual_seed(1)
    times = (2 * torch.rand(6, generator=gen)).sort().values
    rows = []
    while len(rows) < NEURONS // 2:
        row = (2 + torch.rand(6, generator=gen)).tolist()
        spikes, state = exact.spike_train(times[:5].tolist(), row[:5], INF, 1, 1, until=times[5].item())
        if spikes:
            row[5] = float(1 + 10.0 ** (-6 + 3 * torch.rand(1, generator=gen).item()) - sum(state[:2]))
            rows.append(row)
    weight = torch.tensor(rows)

    def gradients(times, weight, backend, observed=None):
        leaves = {"times": times[None, :, None].clone().requires_grad_(), "weight": weight.clone().requires_grad_()}
        options = {"max_spikes": 20, "observed": observed, "backend": backend}
        trains = spike_trains(leaves["times"], leaves["weight"], LIF(INF), **options)
        last = [train[train < INF][-1] for train in trains[0]]
        by = [torch.autograd.grad(x, leaves[what], retain_graph=True)[0].squeeze() for x in last]
        by = torch.stack(by) if what == "times" else torch.stack([x[k] for k, x in enumerate(by)])
        return by.double(), trains.detach(), torch.stack(last).detach()

    found, trains, last = gradients(times, weight, backend)
    assert (trains.isfinite().sum(-1) > 1).all()
    assert (last > 5).all()
    wide = times.double(), weight.double(), "reference"
    truth = gradients(*wide, trains.double())[0]
    moved = torch.zeros_like(truth)
    for k in range(int(trains.isfinite().sum(-1).max())):
        other = trains.clone()
        other[..., k] = torch.nextafter(trains[..., k], torch.tensor(INF))
        moved += (gradients(*wide, other.double())[0] - truth).abs()
    left = weight.double() * torch.exp(times.double() - last.double().unsqueeze(-1))
    lost = left.abs().sum(-1) / left.sum(-1)  # digits of the slope, where inputs inhibit
    allowed = moved.amax(-1) / truth.abs().amax(-1) + 6 * EPS * lost
    assert ((found - truth).abs().amax(-1) <= allowed * truth.abs().amax(-1)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [3.0, 6.0, 12.0])
@pytest.mark.parametrize("ratio", [1.0, 2.0, 100.0])
def test_digits_do_not_depend_on_a_later_input(ratio, gap, dtype, backend):
    """An input of weight 0 takes no digits from the gradients of a spike before it, however late it comes."""
    gen = torch.Generator().manual_seed(0)
    times, weight = torch.rand(8, 1, generator=gen).to(dtype), (3 * torch.rand(NEURONS, 8, generator=gen)).to(dtype)
    rows = []
    for late in ([], [times.max().item() + gap]):
        given = torch.cat([times, times.new_tensor(late).reshape(-1, 1)]).requires_grad_()
        by = torch.cat([weight, weight.new_zeros(NEURONS, len(late))], 1).requires_grad_()
        trains = spike_trains(given[None], by, LIF(ratio), max_spikes=1, overflow="drop", backend=backend)[0, :, 0]
        assert trains.isfinite().all()
        by_weight = torch.autograd.grad(trains.sum(), by, retain_graph=True)[0]
        by_times = [torch.autograd.grad(spike, given, retain_graph=True)[0] for spike in trains]
        rows.append((by_weight[:, :8], torch.stack(by_times)[:, :8]))
    for found, wanted in zip(rows[1], rows[0], strict=True):
        torch.testing.assert_close(found, wanted, rtol=30 * torch.finfo(dtype).eps, atol=0)
