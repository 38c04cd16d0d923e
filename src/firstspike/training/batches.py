"""Training data batch by batch: samples in a random order, or the batches of your own loader."""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, IterableDataset

from firstspike.data import SpikeData
from firstspike.data.events import padded_alike
from firstspike.seeding import generator
from firstspike.training.fit import to_network

Loader = Iterable[tuple[Tensor, Tensor]]
"""A ``torch.utils.data.DataLoader`` or another source of batches ``(times, labels)``, one pass over it an epoch."""
_AT_ONCE = 1 << 18  # numbers of several batches that are picked out of the data together
_TORCHS = "torch.utils.data"
_NO_LOADERS = Tensor | np.ndarray | tuple | dict | str  # your own data that are not SpikeData yet


class Batches:
    """The batches of each epoch, on the device and in the type of the network.

    ``like`` are data of the same kind, which name the inputs and classes of a loader's batches.
    """

    def __init__(self, source: SpikeData | Loader, size: int, network: nn.Module, like: SpikeData | None) -> None:
        self.network = network
        self.samples = 0
        self.loader = None if isinstance(source, SpikeData) else source
        if isinstance(source, SpikeData | _NO_LOADERS) or not isinstance(source, Iterable):
            self.data = to_network(source, network)  # type: ignore[arg-type]  # it refuses others
            self.size, self.count = size, -(-len(self.data) // size)
            if not len(self.data):
                raise ValueError(
                    "train: expected samples, got none; a training on a loader continues with "
                    "Trainer.fit(loader, ..., folder=..., resume=True)"
                )
            if len(self.data) % size == 1 % size and any(isinstance(x, _BatchNorm) for x in network.modules()):
                raise ValueError(
                    f"batch_size={size} leaves one sample for the last batch of {len(self.data)}, and BatchNorm takes "
                    "the variance of a batch: choose another batch_size"
                )
            return
        if isinstance(source, Iterator):
            raise ValueError(
                f"train: expected batches for every epoch, got a {type(source).__name__}, which ends after one pass; "
                "give a DataLoader, a list of batches, or an object whose __iter__ starts again"
            )
        self.size = getattr(source, "batch_size", None) or size
        self.count = 0
        with suppress(TypeError):  # it has no length
            self.count = len(source)  # type: ignore[arg-type]
        self.data = to_network((_data_of(source) or like or self._peek(source)).empty(), network)

    @torch.no_grad()
    def _peek(self, loader: Loader) -> SpikeData:
        """Sizes that follow from the first batch."""
        times, labels = _pair(next(iter(loader), None))
        found = self.network(to_network(SpikeData(times, torch.zeros_like(labels), ("",)), self.network).dense)
        return SpikeData(times, labels, tuple(map(str, range(found.shape[-1]))))

    def epoch(self, epoch: int, seeds: Sequence[int], done: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Times and labels of each batch, for each network, except the first ``done``.

        Everything random in the data and in the step after them follows from the seed, the epoch and the number of the
        batch.
        """
        shared = generator(seeds[0], "global", epoch).initial_seed()
        device = self.data.labels.device
        self.samples = len(self.data)
        if self.loader is None:
            order = torch.stack([shuffled(len(self.data), seed, epoch) for seed in seeds]).to(device)
            # event lists are padded to what their own batch needs
            numbers = self.data.times[0].numel() if isinstance(self.data.times, Tensor) else _AT_ONCE
            several = max(1, _AT_ONCE // max(1, numbers * self.size * len(seeds)))
            # the last bits of torch's layers depend on a batch's place in memory, which has to be the same if resumed
            for first in range(done - done % several, self.count, several):
                chosen = order[:, first * self.size : (first + several) * self.size]
                parts = (x[chosen].split(self.size, dim=1) for x in (self.data.times, self.data.labels))
                for number, pair in enumerate(zip(*parts, strict=True), first):
                    if number >= done:
                        _seed(shared + number * self.size, device)
                        yield pair
            return
        first = generator(seeds[0], "order", epoch).initial_seed()
        _seed(first, device)
        for own in (getattr(x, "generator", None) for x in (self.loader, *_samplers(self.loader))):
            if isinstance(own, torch.Generator):
                own.manual_seed(first)
        batches, number = iter(self.loader), 0
        while True:
            _seed(shared + number * self.size, device)
            if (batch := next(batches, None)) is None:
                break
            times, labels = _pair(batch)
            data = to_network(replace(self.data, times=times, labels=labels), self.network)
            self.samples += len(data)
            if number >= done:
                yield data.dense.unsqueeze(0), data.labels.unsqueeze(0)
            number += 1
        if not self.samples:
            raise ValueError("train: expected batches (times, labels), and the loader gave none")

    @property
    def repeatable(self) -> bool:
        """Whether an epoch's batches follow from the seed, as far as can be seen: a ``DataLoader`` with an index."""
        loader = self.loader
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            return loader is None
        known = (x is None or hasattr(x, "generator") or x.__module__.startswith(_TORCHS) for x in _samplers(loader))
        return all(known) and not loader.persistent_workers  # which go on with the numbers of earlier epochs


def in_memory(source: SpikeData | Loader, like: SpikeData | Loader | None = None) -> SpikeData:
    """Data as they are; all batches of a loader, read once, as data. ``like`` may name the classes."""
    if isinstance(source, SpikeData | _NO_LOADERS) or not isinstance(source, Iterable):
        return source  # type: ignore[return-value]  # anything else is refused later
    with torch.random.fork_rng([]):  # whatever came before, a loader that shuffles has one order
        torch.default_generator.manual_seed(0)
        pairs = [_pair(batch) for batch in source]
    if not pairs:
        raise ValueError("expected batches (times, labels), and the loader gave none")
    times, labels = torch.cat(padded_alike([x for x, _ in pairs])), torch.cat([x for _, x in pairs])
    known = _data_of(source) or (like if isinstance(like, SpikeData) else _data_of(like))
    if known is not None:
        return replace(known.empty(), times=times, labels=labels)
    classes = 0 if labels.is_floating_point() or not len(labels) else int(labels.max()) + 1
    return SpikeData(times, labels, tuple(map(str, range(classes))))


def _data_of(loader: Any) -> SpikeData | None:
    """The data behind a loader, if they are ``SpikeData``."""
    while loader is not None and not isinstance(loader, SpikeData):
        loader = getattr(loader, "dataset", None)  # torch's Subset has one, too
    return loader


def shuffled(samples: int, seed: int, epoch: int) -> Tensor:
    """The order of the samples in one epoch."""
    return torch.randperm(samples, generator=generator(seed, "order", epoch))


def _samplers(loader: Any) -> list[Any]:
    """The samplers of a loader, None for a missing one."""
    batches = getattr(loader, "batch_sampler", None)
    return [getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]


def _seed(number: int, device: torch.device) -> None:
    """Seed of the global random numbers, which your own layers, loaders and data may draw."""
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002  (others draw from it)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    try:
        times, labels = [] if isinstance(batch, Tensor | dict) else batch
    except (TypeError, ValueError):
        raise ValueError(
            f"train: expected batches (times, labels) from the loader, got a {type(batch).__name__}"
        ) from None
    return torch.as_tensor(times), torch.as_tensor(labels)
