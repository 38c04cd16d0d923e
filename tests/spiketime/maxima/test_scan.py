"""The states of LIF neurons just after each of their inputs."""

import math

import pytest
import torch

from firstspike.spiketime.maxima.scan import accumulate
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
