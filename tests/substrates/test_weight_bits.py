"""Weights that are rounded to a few bits, and trained so."""

import pytest
import torch

import firstspike as fs
from firstspike.substrates import Exact


def test_each_layer_has_steps_of_its_own(source):
    network = fs.Network(
        fs.LIFConv2d((1, 3, 3), 2, kernel_size=2, generator=source),
        fs.LIFLinear(8, 3, generator=source),
        fs.IntegralReadout(3, 2),
    )
    found = Exact(weight_bits=4).parameters(network)
    assert found.keys() == {"0.weight", "1.weight", "2.weight"}
    for name, rounded in found.items():
        weight = network.get_parameter(name)
        steps = rounded / (weight.abs().max() / 7)
        torch.testing.assert_close(steps, steps.round())
        assert steps.abs().max().round() == 7
        assert (rounded - weight).abs().max() <= weight.abs().max() / 14 * 1.001


def test_weights_that_are_all_zero_stay_so():
    network = fs.Network(fs.LIFLinear(2, 3))
    torch.nn.init.zeros_(network[0].weight)
    assert torch.equal(Exact(weight_bits=2).parameters(network)["0.weight"], network[0].weight)
    with pytest.raises(ValueError, match="weight_bits must be >= 2"):
        Exact(weight_bits=1)


def test_spikes_and_gradient_are_those_of_the_rounded_weights(network, times):
    substrate, rounded = Exact(weight_bits=3), fs.Network(*network)
    found = substrate.record(network, times)
    found.output[found.output.isfinite()].sum().backward()
    gradient = network[3].weight.grad.clone()
    with torch.no_grad():
        for name, weight in substrate.parameters(network).items():
            rounded.get_parameter(name).copy_(weight)
    network.zero_grad()
    alone = rounded.record(times)
    assert all(torch.equal(one, other) for one, other in zip(found.layers, alone.layers, strict=True))
    alone.output[alone.output.isfinite()].sum().backward()
    torch.testing.assert_close(gradient, network[3].weight.grad)


def test_a_training_moves_the_weights_behind_them():
    data = fs.data.yin_yang(60, seed=1)
    network = fs.Network(fs.LIFLinear(data.features, 3, generator=torch.Generator().manual_seed(2)))
    before = network[0].weight.detach().clone()
    trainer = fs.Trainer(
        network, fs.losses.TimeCrossEntropy(), torch.optim.Adam(network.parameters()), substrate=Exact(weight_bits=4)
    )
    trainer.fit(data, data, epochs=2, batch_size=20, progress_bar=False)
    moved = (network[0].weight - before).abs()
    assert 0 < moved.max() < before.abs().max() / 7
    used = trainer.members[0].substrate.parameters(network)["0.weight"]
    with torch.no_grad():
        network[0].weight.copy_(used)
    assert (
        trainer.evaluate(data).loss
        == fs.Trainer(network, trainer.objective.loss, trainer.members[0].optimizer).evaluate(data).loss
    )
