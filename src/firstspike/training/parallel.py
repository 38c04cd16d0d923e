"""Processes that ``torchrun`` started train one network together: the group, who writes, sums over all.

Each process takes its part of every batch, and the gradients are summed: one flat ``all_reduce`` a batch, which also
carries loss, decisions, counts of silent neurons, and whether anyone asked to stop. ``DistributedDataParallel`` takes
the mean over processes instead, has its backward pass run whether or not the batch turns out to raise weights, and each
process needs a sample; a weighted sum is right for parts of any size, also none, and counts terms on weights once. What
it gains by summing while the backward pass runs is little for networks of a few layers.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from firstspike.substrates import SUBSTRATES
from firstspike.training.config import Config
from firstspike.training.torchrun import ProcessLostError, local_rank, processes, rank

_PATIENCE = timedelta(minutes=10)  # with a process that does not answer
_BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


class Ranks:
    """The processes that train together; by default one, for which nothing needs to be sent.

    Args:
        rank: number of this process.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def part(self, samples: int) -> slice:
        """Which of so many samples are this process's; the parts differ by one at most and may be empty."""
        return slice(samples * self.rank // self.size, samples * (self.rank + 1) // self.size)

    def sum_(self, tensor: Tensor) -> Tensor:
        """The tensor, with the sum over all processes in it: the same bits in each.

        Raises:
            ProcessLostError: another process has ended.
        """
        if self.size > 1:
            with _lost():
                dist.all_reduce(tensor)
        return tensor

    def check_same(self, start: Sequence[int], device: torch.device) -> None:
        """Whether all processes start from the same numbers: epoch, batch, batches.

        Raises:
            ValueError: they do not.
            ProcessLostError: another process has ended.
        """
        mine = torch.tensor(start, device=device)
        first = mine.clone()
        self.from_first_([first])
        if not torch.equal(mine, first):
            raise ValueError(
                f"process {self.rank} starts at epoch, batch of so many batches {mine.tolist()}, process 0 at "
                f"{first.tolist()}: all need the same run folder and data, on a file system that they share"
            )

    def from_first_(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the values that these tensors have in the first one.

        Raises:
            ProcessLostError: another process has ended.
        """
        if self.size > 1:
            with _lost():
                for tensor in tensors:
                    dist.broadcast(tensor.detach(), 0)


@contextmanager
def joined(config: Config) -> Iterator[Ranks]:
    """The processes that ``torchrun`` started, as a group, or this one alone.

    Where a group is there already it is used, and stays.

    Raises:
        ValueError: a training that cannot be shared, a device that is not there.
    """
    size = processes()
    if size == 1:
        yield Ranks()
        return
    _check(config, size)
    backend = _BACKENDS[config.training.device]
    if backend == "nccl":
        there = torch.cuda.device_count()
        if local_rank() >= there:
            raise ValueError(f"each process needs a device of its own: there are {there}, give as many processes")
        torch.cuda.set_device(local_rank())
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    with _lost():
        store, *_ = next(rendezvous("env://", timeout=_PATIENCE))
        # a script may train several times; the store still has the addresses of the group before
        turn = store.add(f"firstspike/{rank()}", 1)
        store = dist.PrefixStore(f"firstspike/group_{turn}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank(), world_size=size, timeout=_PATIENCE)
    try:
        yield Ranks(rank(), size)
    except ProcessLostError:
        raise  # to leave in good order one would wait for the lost one
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _check(config: Config, size: int) -> None:
    if config.training.device not in _BACKENDS:
        raise ValueError(
            f"device {config.training.device!r} cannot be used by {size} processes; expected cpu, or cuda, of which "
            "each process takes its own device"
        )
    if config.training.seeds > 1:
        raise ValueError(
            f"{config.training.seeds} seeds are trained side by side by one process: leave out torchrun, or give "
            "training.seeds=1"
        )
    if not SUBSTRATES[config.substrate.kind].side_by_side:
        raise ValueError(
            f"the substrate {config.substrate.kind} cannot be shared by {size} processes: leave out torchrun, or give "
            "--substrate exact"
        )


@contextmanager
def _lost() -> Iterator[None]:
    """Torch's errors of a broken connection, and of a process that did not answer in time, in one form."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            "another process of this training has ended or does not answer; its own message says why. What was saved "
            "before is kept: firstspike resume goes on from there"
        ) from error
