"""Compares the spikes of a system with the answers."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from lines import Array, Layer
from systems.base import Found, System

FAR = 0.1
"""An error above that, in tau_syn, is another spike."""
EPSILON = 2.0**-52


@dataclass
class Score:
    """Of some problems."""

    problems: int = 0
    cannot: int = 0
    not_run: int = 0
    raised: int = 0
    beyond: int = 0
    """Problems that doubles cannot tell: asked, but not compared."""
    compared: int = 0
    spikes: int = 0
    """That the exact neurons have, in what is compared."""
    missed: int = 0
    invented: int = 0
    far: int = 0
    errors: list[float] = field(default_factory=list)
    """Of all other spikes, in tau_syn."""
    allowed: list[float] = field(default_factory=list)
    """The same as multiples of what 16 units of rounding do, and rounding the time itself."""
    by_weight: list[float] = field(default_factory=list)
    by_time: list[float] = field(default_factory=list)
    """Of layers, the largest error of a gradient, relative to its largest part; inf where it is not finite."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Why it cannot express some problems, and how many."""
    errors_raised: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        counts = {x.name: getattr(self, x.name) for x in fields(self) if x.type is int}
        found: dict[str, Any] = {**counts, "reasons": self.reasons, "errors_raised": self.errors_raised}
        for name in ("errors", "allowed", "by_weight", "by_time"):
            values: list[float] = getattr(self, name)
            finite = [x for x in values if math.isfinite(x)]
            found[name] = {"median": digits(np.median(finite)), "largest": digits(max(finite))} if finite else None
            if len(finite) < len(values):
                found[f"{name}_not_finite"] = len(values) - len(finite)
        return found


def digits(x: Any) -> float:
    return float(f"{float(x):.3g}")


def apart(found: float, answer: str) -> float:
    with localcontext() as context:
        context.prec = 60
        return float(abs(Decimal(float(found)) - Decimal(answer)))


def compare_spikes(layer: Layer, found: Any, score: Score) -> np.ndarray[Any, Any]:
    """Adds up errors; returns where the problems (B, O) have as many spikes as they should, near the right places."""
    same = np.zeros(layer.shape[:2], dtype=bool)
    unit = layer.tau_syn if isinstance(layer.tau_syn, float) else min(layer.tau_syn)
    for b, row in enumerate(layer.spikes):
        for o, answers in enumerate(row):
            if layer.beyond[b][o]:
                continue
            spikes = found[b][o] if layer.kind == "train" else [t for t in (float(found[b][o]),) if t < math.inf]
            score.compared += 1
            score.spikes += len(answers)
            score.missed += max(0, len(answers) - len(spikes))
            score.invented += max(0, len(spikes) - len(answers))
            if len(spikes) != len(answers):
                continue
            errors = [apart(t, answer) / unit for t, answer in zip(spikes, answers, strict=True)]
            if not all(x <= FAR for x in errors):  # also where one is NaN
                score.far += sum(not x <= FAR for x in errors)
                continue
            same[b, o] = True
            score.errors += errors
            allowed = [layer.moves[b][o] + EPSILON * max(1.0, abs(float(t)) / unit) for t in answers]
            score.allowed += [x / y for x, y in zip(errors, allowed, strict=True)]
    return same


def relative(found: Array | None, answer: Array) -> float | None:
    """The largest difference of two gradients, as a multiple of the largest part."""
    largest = float(np.abs(answer).max())
    if found is None or largest == 0:
        return None
    error = float(np.abs(np.asarray(found, dtype=float) - answer).max()) / largest
    return error if math.isfinite(error) else math.inf


def compare_gradients(layer: Layer, found: Found, same: Any, factors: Array, score: Score) -> None:
    """Only where all spikes of the layer are as they should be: other errors are counted already."""
    wanted = same if layer.kind == "train" else same | ~layer.fires | ~layer.counts
    if not wanted.all():
        return
    for name, axis in (("by_weight", 0), ("by_time", 1)):
        answer = (layer.gradients(name) * factors[..., None]).sum(axis)
        error = relative(getattr(found, name), answer)
        if error is not None:
            getattr(score, name).append(error)


def asked(system: System, layers: Sequence[Layer], progress: bool = False) -> dict[str, Score]:
    """The scores of each group, and of each family of it as ``group: family``."""
    scores: dict[str, Score] = {}
    asked_of: dict[str, int] = {}
    last = time.monotonic()
    for layer in layers:
        names = (layer.group, f"{layer.group}: {layer.family}")
        here = [scores.setdefault(name, Score()) for name in names]
        reason = system.cannot(layer)
        number = asked_of[names[1]] = asked_of.get(names[1], 0) + (not reason)
        outcome: Any = None
        if not reason and number <= system.most.get(layer.group, number):
            try:
                if layer.kind == "train":
                    outcome = system.trains(layer), np.ones(layer.shape[:2])
                else:
                    factors = layer.factors() * layer.counts
                    outcome = system.first(layer, factors if system.gradients == "exact" else None), factors
            except Exception as error:  # whatever it may be, it is what a user gets
                outcome = f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:120] if str(error) else ''}"
        for score in here:
            score.problems += layer.problems
            if reason:
                score.cannot += layer.problems
                score.reasons[reason] = score.reasons.get(reason, 0) + layer.problems
            elif outcome is None:
                score.not_run += layer.problems
            elif isinstance(outcome, str):
                score.raised += layer.problems
                score.errors_raised[outcome] = score.errors_raised.get(outcome, 0) + layer.problems
            else:
                score.beyond += int((~layer.counts).sum())
                same = compare_spikes(layer, outcome[0].spikes, score)
                if layer.kind == "first" or layer.counts.all():
                    compare_gradients(layer, outcome[0], same, outcome[1], score)
        if progress and time.monotonic() > last + 20:
            last = time.monotonic()
            print(f"  {layer.id}", flush=True)
    return scores


def microseconds(system: System, layers: Sequence[Layer], rounds: int = 60, seconds: float = 10.0) -> float | None:
    """Processor time of an output, forward and backward, of a few layers: of each the fastest of some rounds.

    These have 8 neurons, 5 samples and 10 inputs.
    """
    chosen = [x for x in layers if x.family == "uniform" and x.shape == (5, 8, 10) and not system.cannot(x)][:8]
    if not chosen:
        return None
    fastest = [math.inf] * len(chosen)
    begin = time.process_time()
    for number in range(rounds):
        for k, layer in enumerate(chosen):
            factors = layer.factors() if system.gradients == "exact" else None
            start = time.process_time()
            found = system.first(layer, factors)
            elapsed = time.process_time() - start
            fastest[k] = min(fastest[k], elapsed if found.seconds is None else found.seconds)
        if number > 2 and time.process_time() > begin + seconds:
            break
    return digits(1e6 * sum(fastest) / sum(x.problems for x in chosen))
