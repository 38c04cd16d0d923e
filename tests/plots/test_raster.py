import math

import numpy as np
import torch

import firstspike as fs
from firstspike import plots
from firstspike.layers.named import named_spikes


def network():
    source = torch.Generator().manual_seed(0)
    return fs.Network(
        fs.BiasSpikes([0.9, 1.1]),
        fs.Delay(4, generator=source),
        fs.Multiplex(2),
        fs.LIFLinear(8, 50, generator=source),
        fs.LIFLinear(50, 3, generator=source),
    )


def test_spikes_are_named_after_what_each_layer_adds():
    net = network()
    record = net.record(torch.tensor([[0.1, math.inf]]))
    found = named_spikes(net, record)
    assert [(spikes.name, spikes.times.shape[1]) for spikes in found] == [
        ("input", 2),
        ("bias", 2),
        ("delayed", 4),
        ("hidden", 50),
        ("output", 3),
    ]
    torch.testing.assert_close(found[1].times, torch.tensor([[0.9, 1.1]]))


def test_raster_shows_every_spike_once(ax):
    net = network()
    record = net.record(torch.tensor([[0.1, math.inf], [0.5, 0.7]]))
    assert plots.raster(net, record, ax, sample=0) is ax
    ax.figure.draw_without_rendering()
    ticks = [path.vertices[0, 0] for lines in ax.collections for path in lines.get_paths()]
    dots = [x for line in ax.lines if line.get_marker() == "o" for x in line.get_xdata()]
    expected = torch.cat([spikes.times[0] for spikes in named_spikes(net, record)])
    np.testing.assert_allclose(sorted(ticks + dots), expected[expected.isfinite()].detach().double().sort().values)
    assert "input 1/2" in [label.get_text() for label in ax.get_yticklabels()]


def test_raster_without_any_spike(ax):
    net = fs.Network(fs.LIFLinear(2, 3))
    plots.raster(net, net.record(torch.full((1, 2), math.inf)), ax).figure.draw_without_rendering()
