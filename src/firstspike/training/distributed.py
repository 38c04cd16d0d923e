"""Processes that ``torchrun`` started train one network together: the group, and a step whose batch is split.

Each process takes its part of every batch. Two flat ``all_reduce`` sum the results of the parts: loss, decisions,
counts of silent neurons, and whether anyone asked to stop; then, unless the batch raises weights, the gradients.
``DistributedDataParallel`` takes the mean over processes instead, and needs a sample in each. A weighted sum is correct
for parts of any size, also empty ones, and counts terms on weights once. Overlapping the sum with the backward pass
would gain little for networks of a few layers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from firstspike.data import SpikeData
from firstspike.layers.noise import jitter_from
from firstspike.losses import SilentPeak, SpikeCount
from firstspike.torchrun import ProcessLostError, local_rank, processes, rank
from firstspike.training.engines import Pass, Sequential
from firstspike.training.evaluation import Evaluation, evaluation_of, outputs_of
from firstspike.training.member import Member
from firstspike.training.objective import Objective
from firstspike.training.silent import activity_counts, fractions

_PATIENCE = timedelta(minutes=10)  # with a process that does not answer
_BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


@dataclass(frozen=True)
class Ranks:
    """The processes that train together; by default this one alone, and nothing is sent.

    Communication raises a ``ProcessLostError`` if another process has ended.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def part(self, samples: int) -> slice:
        """The samples of this process. The parts differ by one at most and may be empty."""
        return slice(samples * self.rank // self.size, samples * (self.rank + 1) // self.size)

    def sum_(self, tensor: Tensor) -> Tensor:
        """The tensor, with the sum over all processes in it: the same bits in each."""
        if self.size > 1:
            with _lost():
                dist.all_reduce(tensor)
        return tensor

    def check_same(self, start: Sequence[int], device: torch.device) -> None:
        """Raise a ValueError unless all processes start from the same numbers: epoch, batch, batches."""
        mine = torch.tensor(start, device=device)
        first = mine.clone()
        self.from_first_([first])
        if not torch.equal(mine, first):
            raise ValueError(
                f"process {self.rank} starts at [epoch, batch, batches per epoch] {mine.tolist()}, process 0 at "
                f"{first.tolist()}: all need the same run folder and data, on a file system that they share"
            )

    def from_first_(self, tensors: Iterable[Tensor]) -> None:
        """Copy the values of these tensors from the first process to all others."""
        if self.size > 1:
            with _lost():
                for tensor in tensors:
                    dist.broadcast(tensor.detach(), 0)


@contextmanager
def joined(members: Sequence[Member], device: torch.device) -> Iterator[Ranks]:
    """The processes that ``torchrun`` started, as a group, or this one alone.

    A group that exists already is used, and left open. A ValueError for networks whose training cannot be shared.
    """
    size = processes()
    if size == 1:
        yield Ranks()
        return
    own_device(torch.device(device.type))
    if len(members) > 1:
        raise ValueError(
            f"{len(members)} networks are trained in parallel by one process: start it without torchrun, or train "
            "one network (training.n_seeds=1)"
        )
    if not members[0].substrate.side_by_side:
        raise ValueError(
            f"the substrate {members[0].substrate.kind} cannot be shared by {size} processes: start it without "
            "torchrun, or use the substrate exact, without weight_bits"
        )
    for name, module in members[0].network.named_modules():
        if isinstance(module, _BatchNorm):
            raise ValueError(
                f"{module._get_name()} ({name}) takes means over a batch, of which {size} processes have a part: "
                "start it without torchrun, or take nn.LayerNorm"
            )
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    with _lost():
        store, *_ = next(rendezvous("env://", timeout=_PATIENCE))
        # a script may train several times. The store still has the addresses of the group before
        turn = store.add(f"firstspike/{rank()}", 1)
        store = dist.PrefixStore(f"firstspike/group_{turn}", store)  # type: ignore[attr-defined]
        dist.init_process_group(_BACKENDS[device.type], store=store, rank=rank(), world_size=size, timeout=_PATIENCE)
    try:
        yield Ranks(rank(), size)
    except ProcessLostError:
        raise  # a clean shutdown would wait for the lost one
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """The device of this process, with several on GPUs its own; a ValueError if there are too few, or none to share."""
    if processes() == 1:
        return device
    if device.type not in _BACKENDS or device.index is not None:
        raise ValueError(
            f"device {str(device)!r} cannot be used by {processes()} processes; expected cpu, or cuda, of which each "
            "process takes its own device"
        )
    if device.type == "cuda":
        available = torch.cuda.device_count()
        if local_rank() >= available:
            raise ValueError(
                f"each process needs its own device, {available} are available: start {available} processes"
            )
        torch.cuda.set_device(local_rank())
    return device


@contextmanager
def _lost() -> Iterator[None]:
    """Torch's errors of a broken connection, and of a process that did not answer in time, in one form."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            "another process of this training has ended or does not answer; its own message says why. Everything "
            "saved so far is kept: firstspike resume continues from there"
        ) from error


class Distributed(Sequential):
    """One network, the same in all processes. Each goes through its part of every batch.

    All processes get whole batches and draw the same random numbers for them, so that a sample meets the same noise as
    in one process. The first process's weights are copied to all. ``asked`` says whether this process was asked to
    stop, ``stopping`` whether any of them was.
    """

    def __init__(
        self,
        member: Member,
        objective: Objective,
        clip_grad_norm: float | None,
        ranks: Ranks,
        asked: Callable[[], bool],
    ) -> None:
        own = replace(objective, regularizers=tuple(map(self._over_all, objective.regularizers)))
        super().__init__([member], own, clip_grad_norm)
        self.ranks, self.asked, self.stopping = ranks, asked, False
        ranks.from_first_(x for x in member.network.state_dict().values() if isinstance(x, Tensor))

    def _forward(self, member: Member, times: Tensor, labels: Tensor) -> Pass:
        """``Sequential._forward``, but with this process's part of the regularised loss and of the layers."""
        network, samples, mine = member.network, len(labels), self.ranks.part(len(labels))
        truth = labels[mine]
        with jitter_from(network, part=(samples, mine)):
            loss, total, record = self.objective(network, times[mine], truth, member.substrate)
        self.objective.check_derivative(total)
        share = self.objective.share(truth, labels)
        if not len(truth):  # the mean over no sample would be NaN
            loss, total, share = torch.zeros_like(loss), torch.zeros_like(total), 1.0
        correct = self.objective.success(record.output.detach(), truth).sum(dtype=torch.float64) / samples
        counts, neurons = activity_counts(network, record.layers)
        numbers = torch.stack([(loss.detach() * share).double(), correct, torch.full_like(correct, self.asked())])
        (cost, correct, asked), counts = self._summed([numbers, counts])
        self.stopping = bool(asked > 0)
        means = torch.stack([cost, correct, torch.zeros_like(cost)])
        return total * share, torch.cat([means, fractions(counts, neurons, samples)]), record.layers

    def _backward(self, member: Member, total: Tensor) -> None:
        parameters = member.parameters
        before = [p.grad for p in parameters]  # of earlier batches of a step, the same in all processes
        for parameter in parameters:
            parameter.grad = None
        if total.requires_grad:
            total.backward()
        gradients = self._summed([torch.zeros_like(p) if p.grad is None else p.grad for p in parameters])
        for parameter, gradient, kept in zip(parameters, gradients, before, strict=True):
            parameter.grad = gradient if kept is None else kept + gradient

    @torch.no_grad()
    def evaluate(self, data: SpikeData) -> list[Evaluation]:
        """Evaluate the network on the data, of which each process takes a part. All get the output times of all."""
        member = self.members[0]
        mine = self.ranks.part(len(data))
        part, silent = outputs_of(member.network, data.times[mine], member.substrate)
        times = part.new_zeros(len(data), *part.shape[1:])
        times[mine] = part
        silent = silent.to(times.device)
        times, silent = self.ranks.sum_(times), self.ranks.sum_(silent)
        return [evaluation_of(member.network, times, silent, self.objective, data.labels)]

    def _over_all(self, regularizer: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A regulariser that takes means over the batches of all processes. The caller's stays as it is."""
        if not isinstance(regularizer, SilentPeak | SpikeCount):
            return regularizer
        own = copy(regularizer)  # with the same parameters, if it has any
        own.batch_mean = self._mean
        return own

    def _mean(self, values: Tensor) -> Tensor:
        """Mean over the rows that all processes have."""
        rows = values.new_full((1,), len(values))
        summed = self.ranks.sum_(torch.cat([values.sum(dim=0), rows]))
        return summed[:-1] / summed[-1]

    def _summed(self, tensors: list[Tensor]) -> list[Tensor]:
        """The tensors, each summed over the processes, in one call."""
        whole = self.ranks.sum_(torch.cat([tensor.flatten() for tensor in tensors]))
        parts = whole.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
