"""What a training needs of its process: signals, and the number of threads."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import nn

from firstspike.layers import LIFLayer
from firstspike.spiketime.cpu.runtime.parallel import is_small, work_of


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether Ctrl-C or SIGTERM came; a second Ctrl-C interrupts at once."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def threads_worth_starting(network: nn.Module, batch: int) -> Iterator[None]:
    """Torch on one thread while it works on small layers.

    For a few hundred numbers some of torch's functions (``exp``, ``log``, ``sqrt`` of MKL) start all threads at every
    call, which costs more than the call; where other programs use the cores, twenty times as much as all the rest.

    Args:
        network: the network that will be trained.
        batch: samples at once.
    """
    layers = [module for module in network.modules() if isinstance(module, LIFLayer)]
    work = max((work_of(batch, x.synapses.shape[1], x.out_features) for x in layers), default=None)
    threads = torch.get_num_threads()
    if work is not None and is_small(work):  # the kernels of its largest layer use one thread, too
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
