"""One step of a training, for one network or for several that differ by their seed: in turn, or side by side."""

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from firstspike.data import SpikeData
from firstspike.layers import DelayRule, Ensemble, Record, project_delays_
from firstspike.training.build import Experiment, build_optimizer, build_schedule
from firstspike.training.evaluation import Evaluation, evaluate, judged, outputs_of


class Trainer(Protocol):
    """What the loop asks for."""

    members: Sequence[Experiment]

    def step(
        self, times: Float[Tensor, "members batch inputs"], labels: Int64[Tensor, "members batch"]
    ) -> Float64[Tensor, "members sums"]:
        """One batch of each member: downhill, or, where too many neurons are silent, up with their weights.

        Returns:
            Sums over the samples of each member: loss (without regularisers), correct decisions, 1 per sample of a
            raised batch, and the silent fraction of each LIF layer.
        """

    def end_epoch(self) -> None:
        """Move the schedules on."""

    def evaluate(self, data: SpikeData) -> list[Evaluation]:
        """What each member makes of the data."""

    def hand_over(self) -> None:
        """Let each member's optimiser and schedule be as they would be after a training of its own."""


class InTurn:
    """Each member by itself; one member is the usual training."""

    def __init__(self, members: Sequence[Experiment]) -> None:
        self.members = members

    def step(self, times: Tensor, labels: Tensor) -> Tensor:
        """See ``Trainer``."""
        return torch.stack([_step(x, t, y) for x, t, y in zip(self.members, times, labels, strict=True)])

    def end_epoch(self) -> None:
        """See ``Trainer``."""
        for member in self.members:
            _move_on(member.schedule)

    def evaluate(self, data: SpikeData) -> list[Evaluation]:
        """See ``Trainer``."""
        return [evaluate(x.network, x.loss, data, x.spiking, x.substrate) for x in self.members]

    def hand_over(self) -> None:
        """Nothing to do."""


def _step(experiment: Experiment, times: Tensor, labels: Tensor) -> Tensor:
    network, policy = experiment.network, experiment.silent
    loss, penalised, layers = experiment.objective(network, times, labels)
    fractions = policy.fractions(Record(times, layers))
    silent = policy.too_silent(fractions.tolist())
    if silent is None or not policy.instead:
        experiment.optimizer.zero_grad()
        penalised.backward()
        experiment.optimizer.step()
        project_delays_(network)
    if silent is not None:
        policy.raise_layer_(network, silent, layers[silent])
    experiment.substrate.project_(network)
    correct = (experiment.loss.predict(layers[-1].detach()) == labels).mean(dtype=times.dtype)
    sums = torch.stack([loss.detach(), correct, torch.full_like(correct, silent is not None)])
    return torch.cat([sums, fractions]).double() * len(labels)


class SideBySide:
    """All members as one program, with the results that each would have alone.

    Members that take no gradient step, since they raise weights instead, do not count it in their optimisers, as alone.

    Args:
        members: experiments that differ in their seeds only.
    """

    def __init__(self, members: Sequence[Experiment]) -> None:
        self.members = members
        networks = [member.network for member in members]
        config = members[0].config
        self.ensemble = Ensemble(networks)
        self.optimizer = build_optimizer(config, networks)
        self.schedule = build_schedule(config, self.optimizer)
        self.optimizer.load_state_dict(_joined([member.optimizer.state_dict() for member in members]))
        if self.schedule is not None and members[0].schedule is not None:
            self.schedule.load_state_dict(members[0].schedule.state_dict())

    def step(self, times: Tensor, labels: Tensor) -> Tensor:
        """See ``Trainer``."""
        first = self.members[0]
        losses, penalised, layers = self.ensemble.map(first.objective, times, labels)
        fractions = torch.stack([torch.isinf(layers[i]).mean((1, 2), dtype=times.dtype) for i in first.spiking], dim=1)
        silent = [x.silent.too_silent(mine) for x, mine in zip(self.members, fractions.tolist(), strict=True)]
        learning = [e for e, layer in enumerate(silent) if layer is None or not first.silent.instead]
        if learning:
            self.ensemble.zero_grad()
            penalised[learning].sum().backward()
            self.ensemble.share_gradients(learning)
            self.optimizer.step()
            for e in learning:
                project_delays_(self.members[e].network)
        for e, layer in enumerate(silent):
            if layer is not None:
                self.members[e].silent.raise_layer_(self.members[e].network, layer, layers[layer][e])
        correct = (first.loss.predict(layers[-1].detach()) == labels).mean(-1, dtype=times.dtype)
        raised = torch.tensor([layer is not None for layer in silent]).to(correct)
        sums = torch.stack([losses.detach(), correct, raised], dim=1)
        return torch.cat([sums, fractions], dim=1).double() * labels.shape[1]

    def end_epoch(self) -> None:
        """See ``Trainer``."""
        _move_on(self.schedule)
        for member in self.members:
            for mine, joint in zip(member.optimizer.param_groups, self.optimizer.param_groups, strict=True):
                mine["lr"] = joint["lr"]

    @torch.no_grad()
    def evaluate(self, data: SpikeData) -> list[Evaluation]:
        """See ``Trainer``."""
        times, silent = outputs_of(self.ensemble, data.times, self.members[0].spiking)
        return [
            judged(mine, fractions, member.loss, data.labels)
            for member, mine, fractions in zip(self.members, times, silent, strict=True)
        ]

    def hand_over(self) -> None:
        """See ``Trainer``."""
        states = _parted(self.optimizer.state_dict(), len(self.members))
        for member, state in zip(self.members, states, strict=True):
            member.optimizer.load_state_dict(state)
            if self.schedule is not None and member.schedule is not None:
                member.schedule.load_state_dict(self.schedule.state_dict())


def _move_on(schedule: LRScheduler | None) -> None:
    if schedule is not None:
        with warnings.catch_warnings():  # an epoch may raise weights in all of its batches
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            schedule.step()


def trainer_for(members: Sequence[Experiment]) -> Trainer:
    """Several side by side if that can be.

    One alone, networks that draw numbers inside, and those on substrates other than the exact one run in turn.
    """
    rules = (getattr(layer, "delay_rule", None) for layer in members[0].network)
    jitters = any(isinstance(rule, DelayRule) and rule.jitter for rule in rules)
    apart = jitters or not all(member.substrate.side_by_side for member in members)
    return InTurn(members) if len(members) == 1 or apart else SideBySide(members)


OptimizerState = dict[str, Any]


def _joined(states: Sequence[OptimizerState]) -> OptimizerState:
    """State of an optimiser whose groups hold the parameters of all members, one member after the other."""
    joint: OptimizerState = {"state": {}, "param_groups": []}
    place = 0
    for groups in zip(*(state["param_groups"] for state in states), strict=True):
        first = place
        for state, group in zip(states, groups, strict=True):
            for number in group["params"]:
                if number in state["state"]:
                    joint["state"][place] = state["state"][number]
                place += 1
        joint["param_groups"].append({**groups[0], "params": list(range(first, place))})
    return joint


def _parted(joint: OptimizerState, members: int) -> list[OptimizerState]:
    """The states that ``_joined`` has put together."""
    parts: list[OptimizerState] = [{"state": {}, "param_groups": []} for _ in range(members)]
    place = 0
    for group in joint["param_groups"]:
        size = len(group["params"]) // members
        for index, part in enumerate(parts):
            mine = group["params"][index * size : (index + 1) * size]
            part["param_groups"].append({**group, "params": list(range(place, place + size))})
            found = {new: joint["state"][old] for new, old in enumerate(mine, place) if old in joint["state"]}
            part["state"].update(found)
        place += size
    return parts
