"""States from input to input, and spike trains whatever neurons look at together."""

import math

import pytest
import torch

from firstspike.neurons import LIF
from firstspike.spiketime import spike_trains
from firstspike.spiketime.maxima.scan import accumulate
from firstspike.spiketime.reference import event_loop
from firstspike.spiketime.response import kappa


@pytest.mark.parametrize("inputs", [1, 2, 7, 8, 9, 63, 64, 65, 200, 600])
@pytest.mark.parametrize("taus", [(1.0, 1.0), (0.7, 1.3), (math.inf, 1.0)])
def test_states_are_sums_over_earlier_inputs(inputs, taus):
    source = torch.Generator().manual_seed(inputs)
    time = (6 * torch.rand(inputs, 3, 1, generator=source, dtype=torch.float64)).sort(0).values
    time[inputs // 2 :, 0] = time[inputs // 2, 0].clone()
    weight = torch.randn(inputs, 3, 4, generator=source, dtype=torch.float64)
    voltage, current = torch.zeros_like(weight), weight.clone()
    voltage[0] = 0.3
    accumulate(time, voltage, current, *taus)
    elapsed = time.unsqueeze(1) - time
    before = (torch.arange(inputs) <= torch.arange(inputs)[:, None])[..., None, None]
    wanted = (torch.where(before, kappa(elapsed.clamp(min=0), *taus), 0.0) * weight).sum(1)
    wanted = wanted + 0.3 * torch.exp((time[0] - time) / taus[0])
    torch.testing.assert_close(voltage, wanted, rtol=1e-12, atol=1e-12)
    wanted = (torch.where(before, torch.exp(-elapsed.clamp(min=0) / taus[1]), 0.0) * weight).sum(1)
    torch.testing.assert_close(current, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ahead", [1, 2, 5, 1000])
def test_neurons_may_look_ahead_as_far_as_they_like(ahead, monkeypatch):
    source = torch.Generator().manual_seed(0)
    times = 5 * torch.rand(6, 12, 4, generator=source, dtype=torch.float64)
    times[torch.rand(6, 12, 4, generator=source) < 0.2] = math.inf
    weight = 0.3 + torch.randn(5, 12, generator=source, dtype=torch.float64)

    def run():
        options = {"max_spikes": 30, "refractory": 0.1, "reset": -0.2, "backend": "reference"}
        return spike_trains(times, weight, LIF(1.6), **options), spike_trains(
            times, weight, LIF(1.6), until=3.0, **options
        )

    whole = run()
    assert int(whole[0].isfinite().sum(-1).max()) > 5
    monkeypatch.setattr(event_loop, "_ahead", lambda given, events: min(ahead, events))
    for mine, theirs in zip(run(), whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
