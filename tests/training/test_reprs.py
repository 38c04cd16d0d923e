"""What a notebook shows of data and results: one line, no tensors."""

import torch

import firstspike as fs


def test_one_line():
    data = fs.data.split(torch.rand(40, 3), torch.arange(40) % 2)
    assert repr(data) == "Splits(train: 32, validation: 4, test: 4 samples, 3 inputs, 2 classes)"
    assert repr(data.train) == "SpikeData(32 samples, 3 inputs, 2 classes)"
    trains = fs.data.SpikeData(torch.rand(4, 3, 2).sort().values, torch.zeros(4, dtype=torch.int64), ("one",))
    assert repr(trains) == "SpikeData(4 samples, 3 inputs, up to 2 spikes, 1 classes)"
    network = fs.Network(fs.LIFLinear(3, 2))
    loss, optimizer = fs.losses.TimeCrossEntropy(), torch.optim.Adam(network.parameters())
    result = fs.Trainer(network, loss, optimizer).fit(data.train, data.validation, epochs=1, batch_size=8)
    assert repr(result).startswith("FitResult(1 epoch in ")
    assert f"validation accuracy {100 * result.validation.accuracy:.2f} %" in repr(result)
    assert repr(result.validation).endswith("4 samples)")
    assert all(len(repr(x).splitlines()) == 1 for x in (data, data.train, result, result.validation))
