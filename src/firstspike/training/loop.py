"""The training loop.

Everything random in an epoch follows from the seed and the number of the epoch, so the state to go on from is small:
weights, optimiser, schedule, silent-neuron policy, and how far the epoch got.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from firstspike.data import SpikeData
from firstspike.layers import jitter_from, project_delays_
from firstspike.training.build import Experiment, generator
from firstspike.training.evaluation import Evaluation, evaluate
from firstspike.training.run import Row, Run
from firstspike.training.saving import State, save_best, save_epoch
from firstspike.training.watchers import Watcher


class Interrupted(Exception):  # noqa: N818  (it is a request, no error)
    """The training stopped early, on request; its state is saved."""


def train(
    experiment: Experiment, run: Run, state: State, progress: Watcher, stop: Callable[[], bool] = lambda: False
) -> Evaluation:
    """Train up to the config's number of epochs, then test.

    Args:
        experiment: what to train.
        run: where to write.
        state: where to start; it moves along.
        progress: who is told.
        stop: asked before every batch; when it says so, the state is saved and ``Interrupted`` raised.

    Returns:
        The evaluation on the test data.
    """
    config = experiment.config.training
    began = time.monotonic() - state.seconds
    while state.epoch < config.epochs:
        totals = train_epoch(experiment, state, progress, stop)
        state.seconds = time.monotonic() - began
        if totals is None:
            save_epoch(experiment, run, state)
            raise Interrupted
        validation = evaluate(experiment.network, experiment.loss, experiment.data.validation, experiment.spiking)
        row = metrics_row(experiment, state.epoch, totals, validation)
        run.append("metrics", [row])
        run.append("output_times", output_time_rows(state.epoch, validation))
        progress.epoch(row)
        if validation.accuracy > state.best:
            state.best = validation.accuracy
            save_best(experiment, run, state)
        if state.epoch % config.save_every == 0 or state.epoch == config.epochs:
            save_epoch(experiment, run, state)
            progress.checkpoint(state.epoch, experiment, validation)
    return evaluate(experiment.network, experiment.loss, experiment.data.test, experiment.spiking)


def train_epoch(
    experiment: Experiment, state: State, progress: Watcher, stop: Callable[[], bool]
) -> list[float] | None:
    """One pass over the training data from ``state.batch`` on; its sums, or None if it was stopped."""
    config = experiment.config.training
    data = shuffled(experiment.data.train, config.seed, state.epoch)
    noise = generator(config.seed, "noise", state.epoch)
    if state.noise is not None:
        noise.set_state(state.noise)
    if state.totals is None:
        state.totals = torch.zeros(3 + len(experiment.spiking), dtype=torch.float64, device=experiment.device)

    for start in range(state.batch * config.batch_size, len(data), config.batch_size):
        if stop():
            state.noise = noise.get_state()
            return None
        times, labels = data[start : start + config.batch_size]
        if config.time_noise:
            times = times + config.time_noise * torch.randn(times.shape, generator=noise, dtype=times.dtype).to(times)
        with jitter_from(experiment.network, noise):
            state.totals += train_batch(experiment, times, labels)
        state.batch += 1
        progress.batch()

    if experiment.schedule is not None:
        experiment.schedule.step()
    totals = state.totals.tolist()
    state.epoch, state.batch, state.totals, state.noise = state.epoch + 1, 0, None, None
    return totals


def train_batch(experiment: Experiment, times: Tensor, labels: Tensor) -> Tensor:
    """One step: downhill, or, where too many neurons are silent, up with their weights.

    Returns:
        Sums over the samples: loss (without regularisers), correct decisions, 1 per sample of a raised batch, and
        the silent fraction of each layer.
    """
    network, policy = experiment.network, experiment.silent
    record = network.record(times)
    loss = experiment.loss(record.output, labels)
    fractions = policy.fractions(record)
    raised = policy.raise_weights_(network, record, fractions)
    if not raised:
        experiment.optimizer.zero_grad()
        penalties = [regularizer(record.output, labels, network) for regularizer in experiment.regularizers]
        sum(penalties, start=loss).backward()
        experiment.optimizer.step()
        project_delays_(network)
    correct = (experiment.loss.predict(record.output.detach()) == labels).mean(dtype=times.dtype)
    sums = torch.stack([loss.detach(), correct, torch.full_like(correct, raised)])
    return torch.cat([sums, fractions]).double() * len(labels)


def shuffled(data: SpikeData, seed: int, epoch: int) -> SpikeData:
    """The data in the order of one epoch."""
    order = torch.randperm(len(data), generator=generator(seed, "order", epoch)).to(data.times.device)
    return SpikeData(*data[order], data.class_names)


def metrics_row(experiment: Experiment, epoch: int, totals: list[float], validation: Evaluation) -> Row:
    """An epoch's row of ``metrics.csv``. ``raised`` is the fraction of batches that raised weights instead."""
    loss, accuracy, raised, *silent = (total / len(experiment.data.train) for total in totals)
    return {
        "epoch": epoch,
        "lr": experiment.optimizer.param_groups[0]["lr"],
        "train_loss": loss,
        "train_accuracy": accuracy,
        "validation_loss": validation.loss,
        "validation_accuracy": validation.accuracy,
        "raised": raised,
        **{f"silent_{layer}": fraction for layer, fraction in zip(experiment.spiking, silent, strict=True)},
    }


def output_time_rows(epoch: int, validation: Evaluation) -> list[Row]:
    """Mean and standard deviation of each output's spike time over the samples of each class, and how many spiked."""
    rows: list[Row] = []
    for label in range(validation.times.shape[1]):
        times = validation.times[validation.labels == label].double()
        spiked = torch.isfinite(times)
        count = spiked.sum(dim=0)
        mean = torch.where(spiked, times, 0.0).sum(dim=0) / count
        spread = torch.where(spiked, (times - mean).square(), 0.0).sum(dim=0).div(count).sqrt()
        columns = {"mean": mean, "std": spread, "spiked": count / len(times)}
        values = {name: column.tolist() for name, column in columns.items()}
        for neuron in range(times.shape[1]):
            rows.append({"epoch": epoch, "label": label, "neuron": neuron} | {k: v[neuron] for k, v in values.items()})
    return rows
