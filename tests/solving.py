"""What fuzzers with a solver share: counts of what was compared, the worst errors, and faults that are known."""

import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple


class Fault(NamedTuple):
    """A fault that is known: what it spoils is counted and not a failure, until the entry is deleted."""

    reason: str
    spoils: frozenset
    """Of ``spikes`` (missed or invented), ``times``, ``gradients``, ``states`` and ``errors``."""
    holds: Callable[..., bool]
    """Whether a problem may have it."""


class Found:
    """Counts, and the worst errors in units of the tolerance, with the seeds of their problems."""

    def __init__(self, faults=()):
        self.counts, self.worst, self.failures, self.faults = Counter(), {}, [], faults

    def known(self, what, *problem):
        return next((x.reason for x in self.faults if what in x.spoils and x.holds(*problem)), None)

    def compare(self, what, seed, error, tolerance, known=None):
        """Note an error, which is a failure where it exceeds the tolerance."""
        ratio = error / tolerance if tolerance > 0 else math.inf if error > 0 else 0.0
        self.counts[what] += 1
        if (ratio <= 1 or not known) and not ratio <= self.worst.get(what, (0.0, 0))[0]:
            self.worst[what] = ratio, seed
        if not ratio <= 1:
            self.fail(what, seed, f"off by {error:.3g}, tolerance {tolerance:.3g}", known)

    def fail(self, what, seed, text, known=None):
        self.counts[f"known, {known}" if known else "failures"] += 1
        if not known:
            self.failures.append(f"{what} of seed {seed}: {text}")

    def report(self, title):
        """Show all of it, with ``-s``."""
        lines = [f"{name}: {count}" for name, count in sorted(self.counts.items())]
        lines += [
            f"worst error of {name}: {ratio:.2g} tolerances, seed {seed}" for name, (ratio, seed) in self.worst.items()
        ]
        sys.stdout.write("\n".join([f"\n{title}", *lines, *self.failures[:50], ""]))


def mapped(function: Callable[[Any], Any], x: Any) -> Any:
    """A function of all numbers in nested lists."""
    return [mapped(function, y) for y in x] if isinstance(x, list) else function(x)


def moved(x: Any, by: Any, step: Any) -> Any:
    """Numbers in nested lists, each moved along others by a step."""
    return [moved(y, z, step) for y, z in zip(x, by, strict=True)] if isinstance(x, list) else x + step * by


def flat(x: Any) -> list:
    """The numbers in nested lists."""
    return [z for y in x for z in flat(y)] if isinstance(x, list) else [x]


def steady_spikes(spikes: list, others: list, change: Any) -> list:
    """By how much the first spikes move for each unit of a change, as far as they do not depend on digits.

    ``others`` are the spikes of neurons that differ by the change. The list ends where one of these spikes is missing,
    or is elsewhere.
    """
    moves = []
    for k, spike in enumerate(spikes):
        if any(len(x) <= k for x in others):
            break
        move = max(abs(x[k] - spike) for x in others)
        gaps = [abs(spikes[n] - spike) for n in (k - 1, k + 1) if 0 <= n < len(spikes)]
        if gaps and 8 * move > min(gaps):
            break
        moves.append(float(move / change))
    return moves


def signs(seed: int) -> Callable[[], int]:
    """Random -1 and 1."""
    source = random.Random(seed)
    return lambda: source.choice([-1, 1])
