"""Runs that were made in Python, of all kinds: what the command could not have made, and what a run may lack."""

import functools
import itertools
from unittest import mock

import torch
from torch import nn

import firstspike as fs
from firstspike.runs import Run
from firstspike.runs.writer import RunWriter
from trained import start

SAMPLES, INPUTS, CLASSES = 45, 6, 3


def data(inputs=INPUTS, classes=CLASSES, seed=0, **options):
    """Samples whose class is the part of the inputs that spikes early."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(SAMPLES) % classes
    times = 1.2 + torch.rand(SAMPLES, inputs, generator=source)
    times -= 0.9 * (torch.arange(inputs) * classes // inputs == labels[:, None])
    return fs.data.SpikeData(times, labels, tuple(f"class {k}" for k in range(classes)), **options)


def network(*sizes, delays=False, **options):
    source = torch.Generator().manual_seed(1)
    layers = [fs.LIFLinear(a, b, generator=source, **options) for a, b in itertools.pairwise(sizes)]
    return fs.Network(*(x for layer in layers for x in ([layer, fs.Delay(layer.out_features)] if delays else [layer])))


class Plain(nn.Module):
    """Not an ``fs.Network``: figures know its input and output only."""

    def __init__(self):
        super().__init__()
        self.first, self.second = network(INPUTS, 8, CLASSES)
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, times):
        return self.second(self.first(times)) + self.shift


class Own(nn.Module):
    """A layer of one's own in an ``fs.Network``."""

    def output_size(self, inputs):
        return inputs

    def forward(self, times, observed=None):
        return times + 0.1 if observed is None else observed


class Pooled(nn.Module):
    """A loss of one's own: each class has two outputs. ``predict`` decides."""

    def forward(self, times, labels):
        return fs.losses.TimeCrossEntropy()(self.earliest(times), labels)

    def earliest(self, times):
        return times.unflatten(1, (CLASSES, 2)).amin(dim=2)

    def predict(self, times):
        return fs.losses.TimeCrossEntropy().predict(self.earliest(times))


def margin(times, labels):
    """A loss of one's own without ``predict``, a function."""
    times = times.clamp(max=10.0)
    return (0.5 + times.gather(1, labels[:, None]) - times).clamp(min=0).mean()


def train(folder, net, loss=None, train=None, validation=None, test=None, epochs=3):
    trained = net if isinstance(net, list) else [net]
    optimizers = [torch.optim.Adam(each.parameters(), lr=0.01) for each in trained]
    trainer = fs.Trainer(
        net, loss or fs.losses.TimeCrossEntropy(), optimizers if isinstance(net, list) else optimizers[0]
    )
    writer = RunWriter(folder, checkpoint_every=1)
    result = trainer.fit(
        train or data(),
        validation,
        test=test,
        epochs=epochs,
        batch_size=15,
        callbacks=[writer],
        progress_bar=False,
    )
    Run.written(writer, result)
    return folder


def only_training_data(folder):
    return train(folder, network(INPUTS, 8, CLASSES)), {}


def own_loss(folder):
    net = network(INPUTS, 8, CLASSES, delays=True)
    return train(folder, net, margin, validation=data(seed=1)), {"loss": margin}


def plain_module(folder):
    return train(folder, Plain(), test=data(seed=1)), {"network": Plain()}


def more_outputs_than_classes(folder):
    net = network(INPUTS, 8, 2 * CLASSES)
    return train(folder, net, Pooled(), validation=data(seed=1), test=data(seed=2)), {"loss": Pooled()}


def own_layer(folder):
    build = functools.partial(fs.Network, *network(INPUTS, 8, CLASSES), Own())
    return train(folder, build(), test=data(seed=1)), {"network": build()}


def images(folder):
    make = functools.partial(data, 2 * 4 * 4, 5, image=(2, 4, 4))
    source = torch.Generator().manual_seed(1)
    conv = fs.LIFConv2d((2, 4, 4), 3, 3, generator=source)
    net = fs.Network(conv, fs.LIFLinear(12, 5, generator=source))
    return train(folder, net, train=make(), validation=make(seed=1), test=make(seed=2)), {}


def data_elsewhere(folder):
    given = fs.data.Splits(data(), data(seed=1), data(seed=2))
    with mock.patch("firstspike.runs.writer._COPIED", -1):  # as large data
        train(folder, network(INPUTS, 8, CLASSES), None, *given)
    return folder, {"data": given}


def table(folder):
    """Data of kind ``files``, trained by a config."""
    file = folder.parent / f"{folder.name}.csv"
    samples = data()
    columns = zip(samples.times.tolist(), samples.labels, strict=True)
    rows = [[*map(str, times), f"kind {label}"] for times, label in columns]
    file.write_text("\n".join(",".join(row) for row in rows) + "\n")
    raw = {
        "data": {"kind": "files", "train": str(file), "validation": 0.0, "test": 0.2},
        "network": [{"kind": "lif", "out_features": 8}, {"kind": "lif", "out_features": CLASSES}],
        "loss": {"kind": "cross_entropy"},
        "training": {"epochs": 2, "batch_size": 10},
    }
    start(folder, fs.config.load_config(raw), progress_bar=False)
    file.unlink()
    return folder, {}


def seeds(folder):
    nets = [network(INPUTS, 8, CLASSES), network(INPUTS, 8, CLASSES)]
    return train(folder, nets, validation=data(seed=1)), {}


def seeds_with_only_training_data(folder):
    return train(folder, [network(INPUTS, 8, CLASSES), network(INPUTS, 8, CLASSES)]), {}


KINDS = {
    make.__name__: make
    for make in (
        only_training_data,
        own_loss,
        plain_module,
        more_outputs_than_classes,
        own_layer,
        images,
        data_elsewhere,
        table,
        seeds,
        seeds_with_only_training_data,
    )
}
"""Each makes a run in a folder, and returns it with what ``fs.Run`` has to be handed."""
