"""One network with its optimiser and schedule, and the progress of its training."""

import math
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from firstspike.substrates import Substrate
from firstspike.text import first_line
from firstspike.training.averaging import WeightAverage
from firstspike.training.evaluation import Evaluation
from firstspike.training.silent import SilentNeurons
from firstspike.training.state import CheckpointError, checked_state, keep_settings, own_tensors


@dataclass
class Progress:
    """How far the training of one network is.

    Args:
        epoch: whole epochs done.
        batch: batches done of the next one.
        best: highest validation accuracy so far, or ``r2``.
        best_loss: validation loss at that epoch. Of equal scores the lower loss is the better one.
        seconds: time spent so far.
        totals: sums over the batches of the unfinished epoch, see ``Sequential.step``.
        noise: state of the random numbers of the unfinished epoch.
        pending: samples since the last optimiser step, where several batches share one.
        gradients: of the parameters that have one, by number, from these samples.
    """

    epoch: int = 0
    batch: int = 0
    best: float = -math.inf
    best_loss: float = math.inf
    seconds: float = 0.0
    totals: Tensor | None = None
    noise: Tensor | None = None
    pending: int = 0
    gradients: dict[int, Tensor] | None = None

    def end_epoch(self) -> None:
        """One more epoch is done."""
        self.epoch += 1
        self.batch = 0
        self.totals = None
        self.noise = None

    def improve(self, validation: Evaluation) -> bool:
        """Note an evaluation if it is the best so far. Of equal scores, the lower loss wins."""
        better = (validation.score, -validation.loss) > (self.best, -self.best_loss)
        if better:
            self.best, self.best_loss = validation.score, validation.loss
        return better


Weights = dict[str, Any]
"""The entries of a ``state_dict``."""


@dataclass(eq=False)
class Member:
    """One network with its optimiser and schedule."""

    network: nn.Module
    optimizer: optim.Optimizer
    schedule: LRScheduler | None
    silent: SilentNeurons
    substrate: Substrate
    average: WeightAverage | None = None
    progress: Progress = field(default_factory=Progress)
    best: Weights | None = None
    """Weights of the best epoch for ``EarlyStopping``, averaged if evaluations use the average."""
    trained: tuple[Weights, Weights] | None = None
    """The last weights and averages, from which the training continues, while the network has the best ones."""

    def __post_init__(self) -> None:
        if not isinstance(self.optimizer, optim.Optimizer):
            raise ValueError(
                f"optimizer: expected one of torch.optim, got {self.optimizer!r}; write "
                "torch.optim.Adam(network.parameters())"
            )
        if isinstance(self.optimizer, optim.LBFGS):
            raise ValueError(
                "optimizer: LBFGS computes the loss several times a step, which a Trainer does not; take "
                "torch.optim.Adam(network.parameters()), or write a loop of your own"
            )
        learning = [p for p in self.network.parameters() if p.requires_grad]
        moved = {id(p) for p in self.parameters}
        if learning and not any(id(p) in moved for p in learning):
            raise ValueError(
                "optimizer: it has none of the network's parameters; create it from network.parameters(), after the "
                "network"
            )

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Parameters that the optimiser moves."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def keep_gradients(self) -> None:
        """Note the gradients that wait for their step, where a training stops."""
        if self.progress.pending:
            found = {k: p.grad.clone() for k, p in enumerate(self.parameters) if p.grad is not None}
            self.progress.gradients = found

    def restore_gradients(self) -> None:
        """Continue with the noted gradients."""
        kept, self.progress.gradients = self.progress.gradients, None
        for k, parameter in enumerate(self.parameters if kept is not None else ()):
            parameter.grad = None if kept is None or k not in kept else kept[k].to(parameter)

    def see(self, result: Evaluation | float) -> None:
        """Let a schedule that follows results have those of an epoch, of the validation data or the training loss."""
        if isinstance(self.schedule, ReduceLROnPlateau):
            best = self.schedule.mode == "max" and isinstance(result, Evaluation)
            self.schedule.step(result if isinstance(result, float) else result.score if best else result.loss)

    @property
    def groups(self) -> list[list[str]]:
        """Names of the parameters in each group of the optimiser."""
        names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        return [[names.get(id(p), "") for p in group["params"]] for group in self.optimizer.param_groups]

    def _regroup(self, groups: Any, where: str) -> None:
        """Give the optimiser the groups of a saved one: in Python they may be others than a config makes."""
        found = dict(self.network.named_parameters())
        named = isinstance(groups, list) and all(
            isinstance(group, list) and all(isinstance(name, str) for name in group) for group in groups
        )
        if named and groups == self.groups:
            return
        if not named or sorted(chain(*groups)) != sorted(chain(*self.groups)):
            raise CheckpointError(f"{where}: the optimiser was saved with other parameters than those of the network")
        self.optimizer.param_groups[:] = [
            {**self.optimizer.param_groups[0], "params": [found[name] for name in group]} for group in groups
        ]

    def weights(self) -> Weights:
        """A copy of the network's weights, averaged if they are."""
        return own_tensors(self.network.state_dict() | self._averages)

    @property
    def _averages(self) -> Weights:
        return {} if self.average is None else self.average.averages

    def restore_best(self) -> None:
        """Give the network the weights of its best epoch."""
        if self.best is not None and self.trained is None:
            self.trained = own_tensors((self.network.state_dict(), self._averages))
            self._set(self.best, self.best)

    def restore_trained(self) -> None:
        """Give the network the weights again with which its training continues."""
        if self.trained is not None:
            self._set(*self.trained)
            self.trained = None

    def _set(self, weights: Weights, averages: Weights) -> None:
        self.network.load_state_dict(weights)
        for name, average in self._averages.items():
            average.copy_(averages[name])

    def state_dict(self) -> dict[str, Any]:
        """The state to continue a training bit for bit. ``network`` holds the weights, averaged if they are."""
        weights, average, optimizer = self.network.state_dict(), self.average, self.optimizer.state_dict()
        optimizer["state"] = {number: kept for number, kept in optimizer["state"].items() if kept}
        return {
            "network": weights if average is None else weights | average.averages,
            "average": None if average is None else average.state_dict(),
            "optimizer": optimizer,
            "groups": self.groups,
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "silent": self.silent.state_dict(),
            "substrate": {"identity": self.substrate.identity(), "state": self.substrate.state_dict()},
            "progress": asdict(self.progress),
            **({} if self.best is None else {"best": self.best, "trained": self.trained}),
        }

    def load_state_dict(self, state: dict[str, Any], allow_other_chip: bool = False, where: str = "state") -> None:
        """Restore a saved state, which messages call ``where``, or raise a CheckpointError if it is of other objects.

        Weights and optimiser are checked before anything is changed.
        """
        self._regroup(state.get("groups"), where)
        state = checked_state(self, state, where)
        kept = state["substrate"]
        before, now = (identity.get("chip") for identity in (kept["identity"], self.substrate.identity()))
        if before != now and before is not None and not allow_other_chip:
            raise ValueError(
                f"the run was trained on chip {before}, this is {'not a chip' if now is None else f'chip {now}'}: its "
                "weights fit that chip. To resume here nevertheless: firstspike resume --allow-other-chip"
            )
        try:
            self.network.load_state_dict(state["network"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            keep_settings(self.optimizer, state["optimizer"]["param_groups"], where)
            self.optimizer.load_state_dict(state["optimizer"])
            if self.schedule is not None:
                self.schedule.load_state_dict(state["schedule"])
            self.silent.load_state_dict(state["silent"])
            if kept["identity"].get("kind") == self.substrate.kind:
                self.substrate.load_state_dict(kept["state"])
            self.progress = Progress(**state["progress"])
            self.best, self.trained = state.get("best"), state.get("trained")
        except (AttributeError, KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{where}: does not fit the training: {first_line(error)}") from None
