"""A training while it runs: epochs, batches, evaluations, and the callbacks in between."""

import logging
import math
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from firstspike.deferred import raise_deferred_errors
from firstspike.layers.noise import jitter_from
from firstspike.layers.timescales import warn_of_misfit
from firstspike.seeding import generator
from firstspike.torchrun import ProcessLostError
from firstspike.training.callbacks import Stop
from firstspike.training.distributed import Distributed, Ranks
from firstspike.training.divergence import Cures, signs_of_failure, signs_of_silence, staying_finite
from firstspike.training.engines import Sequential, engine_for
from firstspike.training.evaluation import Evaluation
from firstspike.training.fit import Fit, FitResult, Interrupted, Row
from firstspike.training.silent import activity_names
from firstspike.training.threads import Pace, threads_worth_starting

logger = logging.getLogger(__name__)

_EARLY = 3  # epochs, or a tenth of all, after which a network should be alive
_ENDS = ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # of terminals that close, and of batch systems


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether a signal to stop came. A second Ctrl-C interrupts at once.

    After a ``ProcessLostError``, SIGTERM goes on without effect: ``torchrun`` sends it to all processes once it has
    missed one, and the first of them still has to report the error.
    """
    asked, before = threading.Event(), dict[int, Any]()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()
        child = getattr(signal, "SIGCHLD", None)  # by which torch raises errors, anywhere, if workers of a loader end
        if child is not None and callable(signal.getsignal(child)):
            before[child] = signal.signal(child, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield asked.is_set
        return
    ends = [number for name in _ENDS if (number := getattr(signal, name, None))]
    free = [number for number in ends if signal.getsignal(number) is signal.SIG_DFL]  # nohup ignores one
    try:
        for number in (signal.SIGINT, signal.SIGTERM, *free):
            before[number] = signal.signal(number, ask)
        yield asked.is_set
    except ProcessLostError:
        del before[signal.SIGTERM]
        raise
    finally:
        for number, handler in [*before.items()]:
            signal.signal(number, handler)


def run(fit: Fit, ranks: Ranks, stop: Stop, stack: ExitStack) -> FitResult:
    """Train, with callbacks and substrates open."""
    trainer = fit.trainer
    members, device = trainer.members, trainer.device
    try:
        before = fit.epoch  # of earlier calls, not of the run folder
        fit.callbacks.call("on_restore", fit)
        done, more = f"{fit.epoch} epochs are done already", fit.epoch + fit.epochs
        total = f"epochs is their total: {more} trains {fit.epochs} more"
        if fit.epoch > fit.epochs:
            raise ValueError(f"{done}; {total}")
        if before == fit.epoch == fit.epochs and fit.first:
            warnings.warn(f"{done}, nothing is trained; {total}", stacklevel=3)
        if (before, 0) != (fit.epoch, fit.batch) and not fit.source.repeatable:
            logger.warning("the training continues exactly only if its loader gives the same batches again")
        signalled = stack.enter_context(stop_on_signals())
        batch = -(-fit.batch_size * len(members) // ranks.size)
        pace = stack.enter_context(threads_worth_starting(trainer.network, batch))
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))  # layers may draw from it
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002  (and data from these)
        stack.callback(random.setstate, random.getstate())

        def asked() -> bool:
            return engine.stopping if isinstance(engine, Distributed) else signalled() or stop()

        objective, clip = trainer.objective, trainer.clip_grad_norm
        engine = engine_for(members, objective, clip, trainer.compile, trainer.accumulate)
        if ranks.size > 1:
            ranks.check_same([fit.epoch, fit.batch, fit.batches], device)
            engine = Distributed(members[0], objective, clip, ranks, lambda: signalled() or stop())
        engine.accumulate, engine.by_batch = trainer.accumulate, trainer.schedule_by == "batch"
        fit.callbacks.call("on_fit_start", fit)
        metrics = _train(fit, engine, asked, pace)
        with trainer.averaged():
            validations, tests = (
                () if data is None else tuple(engine.evaluate(data)) for data in (fit.validation, fit.test)
            )
    except BaseException as reason:
        fit.callbacks.call("on_interrupt", fit, reason)
        raise
    if fit.first:
        _warn(fit, validations)
    progress = [member.progress for member in members]
    best = tuple(p.best if math.isfinite(p.best) and not fit.train.regression else math.nan for p in progress)
    result = FitResult(progress[0].epoch, progress[0].seconds, metrics, best, validations, tests)
    fit.callbacks.call("on_fit_end", fit, result)
    return result


def _train(fit: Fit, engine: Sequential, stop: Stop, pace: Pace) -> dict[str, list[float]]:
    """Train the remaining epochs and return their metrics."""
    members, metrics = fit.trainer.members, dict[str, list[float]]()
    began = time.monotonic() - members[0].progress.seconds
    for member in members:
        member.network.train()
        if fit.epoch < fit.epochs and not fit.finished:
            member.restore_trained()
    while fit.epoch < fit.epochs and not fit.finished:
        totals = _epoch(fit, engine, stop, pace)
        for member in members:
            member.progress.seconds = time.monotonic() - began
        if totals is None:
            where = f"stopped in epoch {fit.epoch + 1}, after {fit.batch} of its batches"
            raise Interrupted(f"{where}; to continue, call fit of the same trainer once more")
        with fit.trainer.averaged():
            fit.validations = [] if fit.validation is None else engine.evaluate(fit.validation)
        for number, member in enumerate(members):
            member.see(fit.validations[number] if fit.validations else totals[number][0] / fit.source.samples)
        fit.rows = [_metrics(fit, number, sums) for number, sums in enumerate(totals)]
        fit.improved = [x.progress.improve(found) for x, found in zip(members, fit.validations, strict=False)]
        row = _mean(fit.rows)
        for name, value in row.items():
            metrics.setdefault(name, []).append(float(value))
        fit.callbacks.call("on_epoch_end", fit, row)
        if fit.first and fit.epoch == max(_EARLY, fit.epochs // 10) < fit.epochs and not fit.finished:
            _warn(fit, fit.validations, f"epoch {fit.epoch}: ")
    return metrics


def _warn(fit: Fit, validations: Sequence[Evaluation], early: str = "") -> None:
    """Report signs of failure of each network; ``early``, with the epoch in words, only the first one of silence."""
    cures = Cures(fit.trainer.network, fit.keys, fit.misfit)
    with tqdm.external_write_mode(file=sys.stderr):  # not into the progress bar
        for seed, (validation, row) in zip(fit.seeds, zip_longest(validations, fit.rows), strict=False):
            given = validation, row or {}, cures
            for sign in signs_of_silence(*given, early=True)[:1] if early else signs_of_failure(*given):
                logger.warning("%s%s%s", early, f"seed {seed}: " if len(fit.seeds) > 1 else "", sign)


def _epoch(fit: Fit, engine: Sequential, stop: Stop, pace: Pace) -> list[list[float]] | None:
    """One pass over the training data from the next batch on; each network's sums, or None if it was stopped."""
    trainer, epoch = fit.trainer, fit.epoch
    members = trainer.members
    sources = [generator(seed, "noise", epoch) for seed in fit.seeds]
    for source, member in zip(sources, members, strict=True):
        if member.progress.noise is not None:
            source.set_state(member.progress.noise.cpu())
        member.restore_gradients()
    empty = torch.zeros(3 + len(activity_names(trainer.network)), dtype=torch.float64, device=trainer.device)
    saved = [member.progress.totals for member in members]
    totals = torch.stack([empty if sums is None else sums.to(empty) for sums in saved])

    with ExitStack() as stack:
        stack.enter_context(staying_finite(members, epoch + 1, fit.seeds))
        for member, source in zip(members, sources, strict=True):
            stack.enter_context(jitter_from(member.network, source))
        for batch in _until(stop, fit.source.epoch(epoch, fit.seeds, fit.batch)):
            if batch is None:
                for member, source, sums in zip(members, sources, totals.clone(), strict=True):
                    member.progress.noise, member.progress.totals = source.get_state(), sums
                    member.keep_gradients()
                return None
            times, labels = batch
            if trainer.augment is not None:
                times = trainer.augment(times, fit.train, sources)
            if fit.first and not fit.epoch and not fit.batch:
                with tqdm.external_write_mode(file=sys.stderr):
                    fit.misfit = warn_of_misfit(trainer.network, times[0])
            with pace.step():
                totals.add_(engine.step(times, labels), alpha=labels.shape[1])
            for member in members:
                member.progress.batch += 1
            engine.end_batch()
            fit.callbacks.call("on_batch_end", fit)
        raise_deferred_errors()

    engine.end_epoch()
    for member in members:
        member.progress.end_epoch()
    found: list[list[float]] = totals.tolist()
    return found


def _until(stop: Stop, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor] | None]:
    """Batches, and None where the training is to stop. Workers of a loader may have ended by the same signal."""
    while True:
        try:
            if (batch := next(batches, None)) is None:
                return
        except Exception:
            if not stop():
                raise
            yield None
            return
        yield None if stop() else batch


def _mean(rows: Sequence[Row]) -> Row:
    """Mean of each column over several networks."""
    if len(rows) == 1:
        return rows[0]
    return {name: sum(float(row[name]) for row in rows) / len(rows) for name in rows[0]} | {"epoch": rows[0]["epoch"]}


def _metrics(fit: Fit, number: int, totals: Sequence[float]) -> Row:
    """An epoch's row of metrics of one network. ``raised`` is the fraction of batches that raised weights."""
    member = fit.trainer.members[number]
    loss, success, *counts = (total / fit.source.samples for total in totals)
    scores = fit.validations[number].scores.values() if fit.validations else ()
    found = [member.progress.epoch, member.optimizer.param_groups[0]["lr"], loss, success, *scores, *counts]
    return dict(zip(fit.columns, found, strict=True))
