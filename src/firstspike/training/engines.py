"""How a batch is trained: one network after the other, or several networks as one program."""

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import ReduceLROnPlateau

from firstspike.data import SpikeData
from firstspike.deferred import sent
from firstspike.layers import Network, PoissonSpikes, SpikeDropout
from firstspike.layers.delay import delays_in
from firstspike.layers.ensembles import Ensemble
from firstspike.layers.synapses import bounded_in, project_
from firstspike.layers.trains import of_values
from firstspike.training.evaluation import Evaluation, evaluate, evaluation_of, outputs_of
from firstspike.training.member import Member
from firstspike.training.objective import Objective
from firstspike.training.silent import activity, first_spikes_in, silence

logger = logging.getLogger(__name__)

Pass = tuple[Tensor, Tensor, tuple[Tensor, ...]]
"""Loss with regularisers, means over the samples as ``Sequential.step`` gives them, and spikes of the layers."""
_RAISED, _SILENT = 2, 3  # places among these means


class Sequential:
    """Each network by itself; the base of the other engines.

    With ``compile``, ``torch.compile`` joins all operations on a batch, from the network to the loss, and their
    gradient. ``accumulate`` batches share an optimiser step; ``by_batch``, schedules follow these steps, not epochs.
    """

    accumulate = 1
    by_batch = False

    def __init__(
        self,
        members: Sequence[Member],
        objective: Objective,
        clip_grad_norm: float | None = None,
        compile: bool = False,
    ) -> None:
        self.members, self.objective, self.clip_grad_norm = members, objective, clip_grad_norm
        # the last batch of an epoch is the only one of another size: two programs instead of one for any size
        self._pass = torch.compile(self._forward, dynamic=False) if compile else self._forward
        # a search after every step would take long compared with a small step
        self.has_bounds = any(delays_in(x.network) or bounded_in(x.network) for x in members)

    def step(
        self, times: Float[Tensor, "members batch inputs"], labels: Int64[Tensor, "members batch"]
    ) -> Float[Tensor, "members means"]:
        """Train on one batch of each network: a gradient step, or raised weights if too many neurons are silent.

        Gives means over the samples of each network: loss (without regularisers), correct decisions or errors, 1 for
        a batch that raised weights, and the ``activity`` of the layers.
        """
        means = [self._step(*each) for each in zip(self.members, times.unbind(), labels.unbind(), strict=True)]
        return torch.stack(means) if len(means) > 1 else means[0].unsqueeze(0)

    def _forward(self, member: Member, times: Tensor, labels: Tensor) -> Pass:
        loss, total, record = self.objective(member.network, times, labels, member.substrate)
        cost = loss.detach()
        correct = self.objective.success(record.output.detach(), labels).mean(dtype=times.dtype)
        means = [cost, correct, torch.zeros_like(cost), *activity(member.network, record.layers)]
        return total, torch.stack(means), record.layers

    def _step(self, member: Member, times: Tensor, labels: Tensor) -> Tensor:
        network, silent = member.network, member.silent
        total, means, layers = self._pass(member, times, labels)
        raised = silent.too_silent(network, means.tolist()[_SILENT:]) if silent.active else None
        if raised is None or not silent.skip_step:  # otherwise nothing learns from this batch
            if not member.progress.pending:
                for parameter in member.parameters:
                    parameter.grad = None
            self._backward(member, total * len(labels) if self._of_means else total)
            member.progress.pending += len(labels)
        if (member.progress.batch + 1) % self.accumulate == 0:
            self._update(member)
        if raised is not None:
            share = self._mean(silence(first_spikes_in(network, layers, raised)))
            silent.raise_layer_(network, raised, share)
            means[_RAISED] = 1.0
        if self.has_bounds:
            project_(network)
        if isinstance(network, Network):
            member.substrate.project_(network)
        return means

    def _backward(self, member: Member, total: Tensor) -> None:
        """Let the parameters of a network have the gradient of the loss."""
        self.objective.check_derivative(total)
        total.backward()

    @property
    def _of_means(self) -> bool:
        """Whether several batches share a step, whose gradient is a mean over all of their samples."""
        return self.accumulate > 1 and getattr(self.objective.loss, "reduction", "mean") != "sum"

    def _update(self, member: Member) -> None:
        """Take the step that the gradients since the last one ask for."""
        pending, member.progress.pending = member.progress.pending, 0
        if not pending:
            return
        if self._of_means:
            torch._foreach_div_([p.grad for p in member.parameters if p.grad is not None], pending)
        self._clip(member)
        member.optimizer.step()

    def _mean(self, values: Float[Tensor, "batch neurons"]) -> Float[Tensor, " neurons"]:
        """Mean over the samples of a batch."""
        return values.mean(dim=0)

    def _clip(self, member: Member) -> None:
        """Limit the norm of a network's gradient."""
        if self.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(member.parameters, self.clip_grad_norm)

    def end_batch(self) -> None:
        """After an optimiser step, average weights and advance schedules by batch."""
        if self.members[0].progress.batch % self.accumulate == 0:
            self._end_step()

    def end_epoch(self) -> None:
        """Take the step of batches that are left, and advance the schedules."""
        if self.members[0].progress.batch % self.accumulate:
            for member in self.members:
                self._update(member)
            self._end_step()
        if not self.by_batch:
            self._advance()

    def _end_step(self) -> None:
        for member in self.members:
            if member.average is not None:
                member.average.update()
        if self.by_batch:
            self._advance()

    def _advance(self) -> None:
        with warnings.catch_warnings():  # all batches of an epoch may have raised weights and skipped their step
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            for member in self.members:
                if member.schedule is not None and not isinstance(member.schedule, ReduceLROnPlateau):
                    member.schedule.step()

    def evaluate(self, data: SpikeData) -> list[Evaluation]:
        """Evaluate each network on the data."""
        return [evaluate(x.network, self.objective, data, x.substrate) for x in self.members]


class SideBySide(Sequential):
    """Computes all networks as one program, each with the results that it would have alone.

    They have one shape, and optimisers of the same settings. A network that skips its step in a batch does not count it
    in its optimiser, as alone.
    """

    def __init__(self, members: Sequence[Member], objective: Objective, clip_grad_norm: float | None = None) -> None:
        super().__init__(members, objective, clip_grad_norm)
        self.ensemble = Ensemble([member.network for member in members if isinstance(member.network, Network)])
        self.optimizer = _joint_optimizer([member.optimizer for member in members])

    def step(self, times: Tensor, labels: Tensor) -> Tensor:
        """Train on one batch of each network, as ``Sequential.step``."""
        members, substrate = self.members, self.members[0].substrate
        skip = members[0].silent.skip_step

        def objective(network: nn.Module, times: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
            loss, total, record = self.objective(network, times, labels, substrate)
            return loss, total, record.layers

        losses, totals, layers = self.ensemble.map(objective, times, labels)
        correct = self.objective.success(layers[-1].detach(), labels).mean(-1, dtype=times.dtype)
        cost = losses.detach()
        active = activity(members[0].network, layers)
        means = torch.stack([cost, correct, torch.zeros_like(cost), *active], dim=1)
        raised: list[int | None] = [None] * len(members)
        if any(member.silent.active for member in members):
            fractions = means[:, _SILENT:].tolist()
            raised = [x.silent.too_silent(x.network, mine) for x, mine in zip(members, fractions, strict=True)]
        learning = [e for e, layer in enumerate(raised) if layer is None or not skip]
        if learning:
            self.objective.check_derivative(totals)
            self.ensemble.zero_grad()
            totals.index_select(0, sent(torch.tensor(learning), totals.device)).sum().backward()
            self.ensemble.share_gradients(learning)
            for e in learning:
                self._clip(members[e])
            self.optimizer.step()
        for e, layer in enumerate(raised):
            if layer is not None:
                silent = silence(first_spikes_in(members[0].network, layers, layer)[e])
                members[e].silent.raise_layer_(members[e].network, layer, self._mean(silent))
                means[e, _RAISED] = 1.0
        if self.has_bounds:
            for member in members:
                project_(member.network)
        return means

    def _advance(self) -> None:
        """Advance the schedules, whose learning rates and momenta the joint optimiser follows."""
        super()._advance()
        for own, joint in zip(self.members[0].optimizer.param_groups, self.optimizer.param_groups, strict=True):
            joint.update({name: value for name, value in own.items() if name != "params"})

    @torch.no_grad()
    def evaluate(self, data: SpikeData) -> list[Evaluation]:
        """Evaluate each network on the data."""
        times, silent = outputs_of(self.ensemble, data.times)
        like = self.members[0].network
        return [evaluation_of(like, *each, self.objective, data.labels) for each in zip(times, silent, strict=True)]


def engine_for(
    members: Sequence[Member],
    objective: Objective,
    clip_grad_norm: float | None = None,
    compile: bool = False,
    accumulate: int = 1,
) -> Sequential:
    """The engine: parallel if each network's results are as if it were alone, otherwise sequential.

    One network, networks that draw random numbers, accumulate gradients or learn at rates of their own, networks with
    modules of values or other settings of their layers, optimisers or substrates, and those on a substrate that is not
    a pure function run one after the other.
    """
    first = members[0]
    alike = (
        len(members) > 1
        and accumulate == 1
        and not any(isinstance(member.schedule, ReduceLROnPlateau) for member in members)
        and all(isinstance(x.network, Network) and not any(map(of_values, x.network)) for x in members)
        and not any(rule.jitter for rule, _ in delays_in(first.network))
        and not any(isinstance(x, PoissonSpikes | SpikeDropout) and getattr(x, "p", 1) for x in first.network.modules())
        and all(_settings(member.optimizer) == _settings(first.optimizer) for member in members)
        and all(member.silent == first.silent for member in members)
        and all(member.substrate.side_by_side for member in members)
        and all(member.substrate.identity() == first.substrate.identity() for member in members)
    )
    if alike:
        try:
            return SideBySide(members, objective, clip_grad_norm)
        except ValueError as error:  # networks that differ in more than their parameters
            logger.info("the networks are trained one after the other: %s", error)
    return Sequential(members, objective, clip_grad_norm, compile)


def _settings(optimizer: optim.Optimizer) -> Any:
    """The kind of an optimiser, and the settings and shapes of its parameter groups."""
    groups = [
        ({k: v for k, v in group.items() if k != "params"}, [p.shape for p in group["params"]])
        for group in optimizer.param_groups
    ]
    return type(optimizer), groups


def _joint_optimizer(optimizers: Sequence[optim.Optimizer]) -> optim.Optimizer:
    """One optimiser whose groups hold the parameters of all, one network after the other. It shares their states."""
    groups = [
        {**same[0], "params": [p for group in same for p in group["params"]]}
        for same in zip(*(optimizer.param_groups for optimizer in optimizers), strict=True)
    ]
    make: Any = type(optimizers[0])
    joint: optim.Optimizer = make(groups, lr=groups[0]["lr"])
    for optimizer in optimizers:
        joint.state.update({p: optimizer.state[p] for group in optimizer.param_groups for p in group["params"]})
    return joint
