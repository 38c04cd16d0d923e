"""How many threads a training is worth."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from firstspike.layers import LIFLayer, Network
from firstspike.spiketime.cpu.parallel import is_small, work_of


@contextmanager
def threads_worth_starting(network: Network, batch: int) -> Iterator[None]:
    """Torch on one thread while it works on small layers.

    For a few hundred numbers some of torch's functions (``exp``, ``log``, ``sqrt`` of MKL) start all threads at every
    call, which costs more than the call; where other programs use the cores, twenty times as much as all the rest.

    Args:
        network: what will be trained.
        batch: samples at once.
    """
    layers = [layer for layer in network if isinstance(layer, LIFLayer)]
    work = max((work_of(batch, x.synapses.shape[1], x.out_features) for x in layers), default=0)
    threads = torch.get_num_threads()
    if is_small(work):  # the kernels of its largest layer use one thread, too
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
