import fake_pynn_brainscales
import pytest
import torch

from firstspike.layers import BiasSpikes, Delay, DelayRule, LIFLinear, Multiplex, Network
from firstspike.neurons import LIF


@pytest.fixture
def source():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A stand-in for a BrainScaleS-2 and its software; it has an ideal calibration."""
    monkeypatch.chdir(tmp_path)
    found = fake_pynn_brainscales.Machine().install(monkeypatch)
    fake_pynn_brainscales.calibration(tmp_path / "ideal.pbin")
    return found


@pytest.fixture
def network(source):
    """Two LIF layers with all that a chip has, too; weights are multiples of 1/30."""
    lif = LIF(1.0, 1.0, 2.6)
    options = {"generator": source, "dtype": torch.float64}
    found = Network(
        BiasSpikes([0.9], dtype=torch.float64),
        Multiplex(3),
        Delay(15, DelayRule("clip", scale=2.0, shift=1.5, mean=2.0, std=0.3), **options),
        LIFLinear(15, 20, lif, weight_mean=0.9, weight_std=0.6, **options),
        BiasSpikes([2.1], dtype=torch.float64),
        LIFLinear(21, 4, lif, weight_mean=0.4, weight_std=0.4, **options),
    )
    with torch.no_grad():
        for layer in (found[3], found[5]):
            layer.weight.copy_((layer.weight * 30).round().clamp(-57, 57) / 30)
        found[3].weight[0] = -0.1  # a neuron that is always silent
        found[2].delay_raw.copy_((found[2].delay_raw * 48).round() / 48)  # an eighth of a microsecond of 6
    return found


@pytest.fixture
def times(source):
    found = 0.15 + 1.85 * torch.rand(40, 4, generator=source, dtype=torch.float64)
    found[3, 1] = torch.inf
    found[7] = torch.inf
    return found
