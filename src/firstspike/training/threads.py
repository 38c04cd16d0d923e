"""How many threads a training takes."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from firstspike.layers import SpikingLayer
from firstspike.spiketime.shared import is_small, use_threads, work_of

_FEW = 1 << 18  # numbers on which torch's own functions are fast enough on one thread
_TRIES = 3  # steps of a trial with each number of threads
_SELDOM = 100  # times as long as a trial it takes until the next
_SLOW = 4  # steps in a row, longer than those that lost the trial, after which there is another at once


class Pace:
    """How many threads the kernels take for a step of a training: as many as make it fast.

    If other programs use the cores, threads that wait for each other make a step many times as long. So from time to
    time some steps are done with half as many threads, or twice as many, and the faster number is kept. Results have
    the same bits for any number of threads. It begins with as many as it may take.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._threads = self._kept = self._most = most
        self._clock = clock
        self._fewer = True  # which way the next trial goes
        self._rest = 0.0  # seconds until then. The first step, which may compile, is not part of one
        self._trial: list[float] | None = None
        self._other, self._slow = math.inf, 0  # seconds of a step that lost the trial, steps since that took longer

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step of the training."""
        use_threads(self._threads)
        began = self._clock()
        yield
        if self._most > 1:
            self._took(self._clock() - began)

    def _took(self, seconds: float) -> None:
        """Note how long a step took, and choose the threads of the next one."""
        if self._trial is None:
            self._rest -= seconds
            self._slow = self._slow + 1 if seconds > self._other else 0
            if self._rest > 0 and self._slow < _SLOW:
                return
            self._trial = []
        else:
            self._trial.append(seconds)
        candidate = max(1, self._kept // 2) if self._fewer else min(self._most, 2 * self._kept)
        self._threads = self._kept if len(self._trial) % 2 else candidate
        if len(self._trial) == 2 * _TRIES:
            self._decide(candidate, sum(self._trial[::2]), sum(self._trial[1::2]))

    def _decide(self, candidate: int, tried: float, kept: float) -> None:
        better = tried < kept
        self._kept = self._threads = candidate if better else self._kept
        self._other, self._slow = max(tried, kept) / _TRIES, 0
        at_end = self._kept in (1, self._most)
        self._fewer = self._kept > 1 if at_end else self._fewer == better
        self._rest = 0.0 if better and not at_end else _SELDOM * (tried + kept)  # or on in the same direction
        self._trial = None


@contextmanager
def threads_worth_starting(network: nn.Module, batch: int) -> Iterator[Pace]:
    """Torch on one thread while it works on small layers; yields the ``Pace`` of the kernels' threads.

    For a few hundred numbers some of torch's functions (``exp``, ``log``, ``sqrt`` of MKL) start all threads at every
    call, which costs more than the call. If other programs use the cores, twenty times as much as all the rest.
    """
    layers = [module for module in network.modules() if isinstance(module, SpikingLayer)]
    sizes = [(batch, x.matrix_shape[1], x.out_features) for x in layers]
    threads = torch.get_num_threads()
    most = 1 if sizes and all(is_small(work_of(*size)) for size in sizes) else threads
    weights = sum(x.numel() for x in network.parameters())
    if sizes and max(weights, *(batch * outputs for _, _, outputs in sizes)) <= _FEW:
        torch.set_num_threads(1)
    try:
        yield Pace(most)
    finally:
        use_threads(None)
        torch.set_num_threads(threads)
