"""Whole training steps of shipped configs, beside a dense network of the same shape."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import torch
from timing import Clock
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from firstspike.config import load_config
from firstspike.config.builder import build, build_data
from firstspike.layers import BiasSpikes, EarliestPool2d, LIFConv2d, Network

CONFIGS = {"yin_yang": 5000, "mnist": 60000, "mnist_trains": 60000, "fashion_mnist": 60000, "fashion_mnist_conv": 60000}
"""Samples of an epoch of each config."""
SAMPLES = 4000  # that are measured


def epochs(
    name: str, folder: Path, clock: Clock, device: torch.device
) -> tuple[str, dict[str, Callable[[], list[float]]]]:
    """A config's layers, and calls that train on ``SAMPLES`` of its data: all that happens between two validations.

    The dense twin has the same numbers of inputs, neurons and channels, ReLU, cross-entropy, Adam, and the same noise
    on its inputs. Images are neither shifted nor deformed.
    """
    sizes = [f"data.train={SAMPLES}", "data.validation=10", "data.test=10"]
    files = [f"data.folder={folder}"] if "mnist" in name else []
    still = [f"training.augment.{change}=0" for change in ("shift", "deform")]
    config = load_config(name, [*files, f"training.device={device}", *sizes, *still])
    splits = build_data(config)
    training, data = config.training, splits.train
    trainer = build(config, splits)
    network = trainer.network
    assert isinstance(network, Network)
    twin = nn.Sequential(*dense_twin(network)).to(device)
    optimizer = torch.optim.Adam(twin.parameters(), fused=True)
    values = torch.where(data.times.isinf(), 0.0, data.times)
    total = count(1)

    def spikes() -> None:
        trainer.fit(data, epochs=next(total), batch_size=training.batch_size, progress_bar=False)

    def dense() -> None:
        order = torch.randperm(len(data), device=device)
        for chosen in order.split(training.batch_size):
            x: Tensor = values[chosen]
            if training.augment.jitter:
                x = x + training.augment.jitter * torch.randn_like(x)
            if training.augment.dropout:
                x = torch.where(torch.rand_like(x) < training.augment.dropout, 0.0, x)
            optimizer.zero_grad()
            cross_entropy(twin(x), data.labels[chosen]).backward()
            optimizer.step()

    def timed(run: Callable[[], None]) -> Callable[[], list[float]]:
        def call() -> list[float]:
            start = clock()
            run()
            return [clock() - start]

        return call

    layers = "-".join(str(len(layer.weight)) for layer in network if hasattr(layer, "weight"))
    return f"{data.features}-{layers}", {"spikes": timed(spikes), "dense": timed(dense)}


def dense_twin(network: Network) -> Iterator[nn.Module]:
    """Layers of the same shapes, with ReLU between those that have weights; they have biases, not bias spikes."""
    biases = 0
    for layer in network:
        if isinstance(layer, BiasSpikes):
            biases += len(layer.times)
        elif isinstance(layer, LIFConv2d):
            biases = 0
            window, channels = layer.window, (layer.image.channels, layer.out_image.channels)
            yield nn.Unflatten(-1, layer.image)
            yield nn.Conv2d(*channels, window.kernel, window.stride, window.padding)
            yield nn.Flatten()
        elif isinstance(layer, EarliestPool2d):
            yield nn.Unflatten(-1, layer.image)
            yield nn.MaxPool2d(layer.window.kernel, layer.window.stride)
            yield nn.Flatten()
        else:
            yield nn.Linear(layer.weight.shape[1] - biases, len(layer.weight))
            biases = 0
        if hasattr(layer, "weight") and layer is not network[-1]:
            yield nn.ReLU()
