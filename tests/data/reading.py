"""Files read for data of which only the form is known."""

import torch

from firstspike.data import SpikeData, files


def like(inputs, class_names=(), encoder=None, trains=False, columns=()):
    """Data without samples."""
    times = torch.empty(0, inputs, 1) if trains else torch.empty(0, inputs)
    labels = torch.empty(0, dtype=torch.int64)
    return SpikeData(times, labels, tuple(class_names), encoder=encoder, columns=tuple(columns))


def read_times(path, inputs, dtype=torch.float32, encoder=None, trains=False, columns=()):
    return files.read_times(path, like(inputs, (), encoder, trains, columns), dtype)


def read_labelled(path, inputs, class_names, dtype=torch.float32, encoder=None, labels=None, trains=False):
    return files.read_labelled(path, like(inputs, class_names, encoder, trains), dtype, labels)
