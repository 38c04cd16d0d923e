"""The truth about spike times for all tests of the operator; ``fifty_digits`` computes it."""

from types import SimpleNamespace

import pytest
import torch

from fifty_digits import DIGITS, EXTREME, current, first_spike, membrane, response, slope, spike_train, summit
from firstspike.spiketime.cpu import arrays


@pytest.fixture(scope="session")
def exact():
    """Exact spike times of single neurons, and of all in a batch."""

    def spikes(times, weight, lif):
        """Times (batch, out) in float64 for ``times (batch, in)`` and ``weight (out, in)``."""
        rows = [
            [
                float(first_spike(tuple(x.tolist()), tuple(w.tolist()), lif.tau_mem, lif.tau_syn, float(lif.threshold)))
                for w in weight
            ]
            for x in times
        ]
        return torch.tensor(rows, dtype=torch.float64)

    return SimpleNamespace(
        digits=DIGITS,
        extreme=EXTREME,
        response=response,
        membrane=membrane,
        slope=slope,
        current=current,
        summit=summit,
        first_spike=first_spike,
        spikes=spikes,
        spike_train=spike_train,
    )


@pytest.fixture
def wide_kernels(monkeypatch):
    """Small layers take the kernels of large ones: those in float32 are compiled for trainings anyway."""
    monkeypatch.setattr(arrays, "NARROW", ())
