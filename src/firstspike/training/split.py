"""A trainer whose batches are split over processes: what one process would do, up to rounding."""

from collections.abc import Callable

import torch
from torch import Tensor

from firstspike.data import SpikeData
from firstspike.layers import part_of_batch, project_delays_
from firstspike.losses import SilentPeak
from firstspike.training.build import Experiment
from firstspike.training.evaluation import Evaluation, judged, outputs_of
from firstspike.training.parallel import Ranks
from firstspike.training.trainers import InTurn


class OverRanks(InTurn):
    """One network, the same in all processes; each goes through its part of every batch.

    All processes get whole batches and draw the same random numbers for them, so that a sample meets the same noise as
    in one process.

    Args:
        experiment: the training; the first process's weights are given to all.
        ranks: the processes.
        asked: whether this process was asked to stop.
    """

    def __init__(self, experiment: Experiment, ranks: Ranks, asked: Callable[[], bool]) -> None:
        super().__init__([experiment])
        self.ranks, self.asked, self.stopping = ranks, asked, False
        self.parameters = [p for group in experiment.optimizer.param_groups for p in group["params"]]
        for regularizer in experiment.regularizers:
            if isinstance(regularizer, SilentPeak):
                regularizer.batch_mean = self._mean
        ranks.from_first_(experiment.network.state_dict().values())

    def stop(self) -> bool:
        """Whether any process was asked to stop, as all know since the last batch."""
        return self.stopping

    def step(self, times: Tensor, labels: Tensor) -> Tensor:
        """See ``Trainer``."""
        experiment = self.members[0]
        network, policy, samples = experiment.network, experiment.silent, labels.shape[1]
        mine = self.ranks.part(samples)
        times, labels = times[0, mine], labels[0, mine]
        with part_of_batch(network, samples, mine):
            loss, penalised, layers = experiment.objective(network, times, labels)
        experiment.optimizer.zero_grad()
        if len(labels):  # the mean over none would be NaN
            (penalised * (len(labels) / samples)).backward()
        correct = (experiment.loss.predict(layers[-1].detach()) == labels).sum()
        cost = loss.detach() * len(labels) if len(labels) else loss.new_zeros(())
        numbers = torch.stack([cost, correct.to(cost), torch.full_like(cost, self.asked())])
        silent_counts = [torch.isinf(layers[i]).sum(dim=0, dtype=times.dtype) for i in policy.limits]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]

        parts = self._summed([numbers, *silent_counts, *gradients])
        (cost, correct, asked), parts = parts[0], parts[1:]
        silent_counts, gradients = parts[: len(silent_counts)], parts[len(silent_counts) :]
        fractions = torch.stack([counts.sum() / (samples * len(counts)) for counts in silent_counts])
        *known, asking = torch.cat([fractions, asked[None]]).tolist()
        self.stopping = asking > 0
        silent = policy.too_silent(known)
        if silent is None or not policy.instead:
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            experiment.optimizer.step()
            project_delays_(network)
        if silent is not None:
            policy.raise_silent_(network, silent, silent_counts[list(policy.limits).index(silent)] / samples)
        experiment.substrate.project_(network)
        raised = torch.full_like(cost, samples * (silent is not None))
        return torch.cat([torch.stack([cost, correct, raised]), fractions * samples]).double()[None]

    @torch.no_grad()
    def evaluate(self, data: SpikeData) -> list[Evaluation]:
        """See ``Trainer``. Each process has the times of its part of the samples; all get those of all."""
        experiment = self.members[0]
        mine = self.ranks.part(len(data))
        part, silent = outputs_of(experiment.network, data.times[mine], experiment.spiking, experiment.substrate)
        times = part.new_zeros(len(data), part.shape[1])
        times[mine] = part
        silent = silent.to(times.device)
        times, silent = self.ranks.sum_(times), self.ranks.sum_(silent)
        return [judged(times, silent, experiment.loss, data.labels)]

    def _mean(self, values: Tensor) -> Tensor:
        """Mean over the rows that all processes have."""
        rows = values.new_tensor([len(values)])
        summed = self.ranks.sum_(torch.cat([values.sum(dim=0), rows]))
        return summed[:-1] / summed[-1]

    def _summed(self, tensors: list[Tensor]) -> list[Tensor]:
        """Each of the tensors, summed over the processes, in one go."""
        whole = self.ranks.sum_(torch.cat([tensor.flatten() for tensor in tensors]))
        parts = whole.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
