"""The training loop.

Everything random in an epoch follows from the seed and the number of the epoch, so the state to go on from is small:
weights, optimiser, schedule, silent-neuron policy, and how far the epoch got.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from firstspike.layers import jitter_from
from firstspike.seeding import generator
from firstspike.substrates import SubstrateError
from firstspike.training.augment import augmented
from firstspike.training.build import Experiment
from firstspike.training.divergence import DivergedError, staying_finite
from firstspike.training.evaluation import Evaluation
from firstspike.training.run import Row, Run
from firstspike.training.saving import LastEpoch, State, save_best, save_epochs
from firstspike.training.trainers import Trainer
from firstspike.training.watchers import Watcher


class Interrupted(Exception):  # noqa: N818  (it is a request, no error)
    """The training stopped early, on request; its state is saved."""


def train(
    trainer: Trainer,
    runs: Sequence[Run],
    states: Sequence[State],
    watcher: Watcher,
    stop: Callable[[], bool] = lambda: False,
    writes: bool = True,
) -> list[Evaluation]:
    """Train up to the config's number of epochs, then test.

    Args:
        trainer: with one or more networks, each with its own seed.
        runs: where to write, one for each network.
        states: where to start, all at the same batch; they move along.
        watcher: who is told; of several networks the mean.
        stop: asked before every batch; when it says so, the state is saved and ``Interrupted`` raised.
        writes: False in a process beside the one that writes.

    Returns:
        The evaluations on the test data.

    Raises:
        Interrupted: see ``stop``.
        SubstrateError: a substrate that does not answer; the state after the last whole epoch is saved.
        DivergedError: weights that are not finite any more; likewise.
    """
    last = LastEpoch(trainer.members, runs, states)
    try:
        return _train(trainer, runs, states, watcher, stop, last, writes)
    except (SubstrateError, DivergedError):
        if writes:
            last.save()
        raise


def _train(
    trainer: Trainer,
    runs: Sequence[Run],
    states: Sequence[State],
    watcher: Watcher,
    stop: Callable[[], bool],
    last: LastEpoch,
    writes: bool,
) -> list[Evaluation]:
    members, first = trainer.members, states[0]
    config = members[0].config.training
    began = time.monotonic() - first.seconds
    while first.epoch < config.epochs:
        totals = train_epoch(trainer, states, watcher, stop)
        for state in states:
            state.seconds = time.monotonic() - began
        if totals is None:
            if writes:
                _save(trainer, runs, states)
            raise Interrupted
        validations, rows = trainer.evaluate(members[0].data.validation), []
        for member, run, sums, validation in zip(members, runs, totals, validations, strict=True):
            rows.append(metrics_row(member, first.epoch, sums, validation))
            if writes:
                run.append("metrics", rows[-1:])
                run.append("output_times", output_time_rows(first.epoch, validation))
        watcher.epoch(mean_row(rows))
        better = [v.accuracy > state.best for v, state in zip(validations, states, strict=True)]
        if any(better):
            trainer.hand_over()
        for member, run, state, validation in zip(members, runs, states, validations, strict=True):
            if validation.accuracy > state.best:
                state.best = validation.accuracy
                if writes:
                    save_best(member, run, state)
        if writes and (first.epoch % config.save_every == 0 or first.epoch == config.epochs):
            _save(trainer, runs, states)
            watcher.checkpoint(first.epoch, members[0], validations[0])
        trainer.hand_over()
        last.keep()
    return trainer.evaluate(members[0].data.test)


def train_epoch(
    trainer: Trainer, states: Sequence[State], watcher: Watcher, stop: Callable[[], bool]
) -> list[list[float]] | None:
    """One pass over the training data from ``state.batch`` on; each network's sums, or None if it was stopped."""
    members, first = trainer.members, states[0]
    config, data, seeds = members[0].config.training, members[0].data.train, [m.config.training.seed for m in members]
    order = torch.stack([shuffled(len(data), seed, first.epoch) for seed in seeds]).to(members[0].device)
    noises = [generator(seed, "noise", first.epoch) for seed in seeds]
    for noise, state in zip(noises, states, strict=True):
        if state.noise is not None:
            noise.set_state(state.noise)
    empty = torch.zeros(3 + len(members[0].spiking), dtype=torch.float64, device=members[0].device)
    totals = torch.stack([empty if state.totals is None else state.totals.to(empty) for state in states])

    with ExitStack() as epoch:
        epoch.enter_context(staying_finite(members, first.epoch + 1))
        for member, noise in zip(members, noises, strict=True):
            epoch.enter_context(jitter_from(member.network, noise))
        for start in range(first.batch * config.batch_size, len(data), config.batch_size):
            if stop():
                for state, noise, sums in zip(states, noises, totals.clone(), strict=True):
                    state.noise, state.totals = noise.get_state(), sums
                return None
            chosen = order[:, start : start + config.batch_size]
            times = augmented(data.times[chosen], members[0].config, noises)
            labels = data.labels[chosen]
            totals += trainer.step(times, labels)
            for state in states:
                state.batch += 1
            watcher.batch()

    trainer.end_epoch()
    for state in states:
        state.epoch, state.batch, state.totals, state.noise = state.epoch + 1, 0, None, None
    return totals.tolist()


def shuffled(samples: int, seed: int, epoch: int) -> Tensor:
    """The order of the samples in one epoch."""
    return torch.randperm(samples, generator=generator(seed, "order", epoch))


def _save(trainer: Trainer, runs: Sequence[Run], states: Sequence[State]) -> None:
    trainer.hand_over()
    save_epochs(trainer.members, runs, states)


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean of each column over several networks."""
    if len(rows) == 1:
        return rows[0]
    return {name: sum(float(row[name]) for row in rows) / len(rows) for name in rows[0]} | {"epoch": rows[0]["epoch"]}


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
