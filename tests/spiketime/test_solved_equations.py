"""Random neurons from equations against scipy's DOP853: no spike is missed or invented, all are where they belong.

Seeded and few. A longer run, with its counts, of that many random problems in total::

    FIRSTSPIKE_SOLVED=20000 pytest -s tests/spiketime/test_solved_equations.py
"""

import itertools
import os
import random

import pytest
import torch
from equation_problems import Problem, numbers_of, places_of, solved

from solving import Fault, Found, flat, mapped, moved, steady_spikes

PROBLEMS = int(os.environ.get("FIRSTSPIKE_SOLVED", 40))
SHARES = {("cpu", "float64"): 0.75, ("cpu", "float32"): 0.225, ("reference", "float64"): 0.025}
PARTS = max(1, PROBLEMS // 1000)  # one test each, which shows its counts
CHANGE = 1e-6
"""Relative change of all numbers that a spike must survive to be compared, and step of differences."""
SOLVER = 1e-10  # its errors, in units of the times and of how far a change of all numbers moves a spike

# Faults of the package. Delete an entry when it is mended.
FAULTS: tuple[Fault, ...] = ()
AGAIN = True
"""Whether a neuron without a reset spikes at the end of a refractory time because it is above its threshold."""


def check(problem, trains, state, more, leaves, b, j, found):
    """One neuron in one sample."""
    numbers, seed, source = numbers_of(problem, b, j), problem.seed, random.Random(problem.seed)
    again = AGAIN or problem.kind_name != "own, no reset"
    learnt = {
        name: mapped(lambda x: source.gauss(0, 1) * abs(x) if abs(x) < 1e300 else 0.0, numbers[name]) for name in leaves
    }
    others = {name: moved(x, mapped(lambda x: source.choice([-1, 1]) * x, x), CHANGE) for name, x in numbers.items()}
    try:
        truth = solved(problem, numbers, again)
        ends = [
            solved(
                problem, numbers | {name: moved(numbers[name], x, sign * CHANGE) for name, x in learnt.items()}, again
            )
            for sign in (1, -1)
        ]
        other = solved(problem, others, again)
    except ArithmeticError as error:  # above its threshold after its reset, or a pole
        found.counts[f"left out, {error}"] += 1
        return
    moves = steady_spikes(truth.spikes, [x.spikes for x in (*ends, other)], CHANGE)
    steady = len(moves) == len(truth.spikes) and all(
        len(x.spikes) == len(moves) and x.more == truth.more for x in (*ends, other)
    )
    own, rounding = trains[b, j], 2 * torch.finfo(problem.dtype).eps
    times = [x for x in own.tolist() if x < float("inf")]
    if problem.operator == "pieces" and truth.more:  # as many as there is room for in one piece
        times = times[: problem.most]
    found.counts["neurons"] += 1
    found.counts["spikes that are not steady"] += len(truth.spikes) - len(moves)
    if len(times) < len(moves) or (steady and len(times) != len(moves)):
        text = f"{len(times)} of neuron {j} in sample {b}, not {len(truth.spikes)} ({problem.kind_name})"
        found.fail("spikes", seed, text, found.known("spikes", problem, j))
        return
    for time, wanted, move in zip(times, truth.spikes, moves, strict=False):
        tolerance = SOLVER * (move + problem.until) + rounding * abs(wanted) * (
            1 + (problem.operator == "pieces") * move
        )
        found.compare(
            f"times of {problem.kind_name}", seed, abs(time - wanted), tolerance, found.known("times", problem, j)
        )
    if steady and state is not None and truth.end is not None and not bool(more[b, j]):
        values = problem.kind.states(flat([x[b, j].tolist() for x in state[:3]]))
        for k, (value, wanted) in enumerate(zip(values, truth.end, strict=True)):
            move = max(abs(x.end[k] - wanted) for x in (*ends, other)) / CHANGE
            size = max(1.0, problem.kind.weight, problem.kind.level(numbers), abs(wanted), problem.until)
            found.compare(
                "states",
                seed,
                abs(value - wanted),
                (SOLVER + 8 * rounding) * (move + size),
                found.known("states", problem, j),
            )
    if moves and leaves:
        check_gradient(
            problem, (b, j), leaves, learnt, own[: len(moves)], [x.spikes for x in (*ends, truth)], found, source
        )


def check_gradient(problem, pair, leaves, learnt, spikes, ends, found, source):
    """The derivative of a random sum of spikes in a random direction of all leaves is a difference."""
    factors = [source.gauss(0, 1) for _ in spikes]
    terms = [f * (a - b) / (2 * CHANGE) for f, a, b in zip(factors, *ends[:2], strict=False)]
    bends = sum(abs(f * (a + b - 2 * c)) / CHANGE for f, a, b, c in zip(factors, *ends, strict=False))
    gradients = torch.autograd.grad(
        sum(map(torch.mul, spikes, torch.tensor(factors, dtype=spikes.dtype))), list(leaves.values()),
        allow_unused=True, retain_graph=True,
    )  # fmt: skip
    total = size = 0.0
    for name, by in zip(leaves, gradients, strict=True):
        if by is not None:
            part = by[places_of(problem, name, *pair)].double().flatten()
            part = part * torch.tensor(flat(learnt[name]), dtype=torch.float64)
            total, size = total + float(part.sum()), size + float(part.abs().sum())
    wanted, size = sum(terms), size + sum(map(abs, terms)) + 1e-3 * problem.until
    near = 2e-5 if problem.name == "float64" else 2e-4
    found.compare(
        "gradients", problem.seed, abs(total - wanted), near * size + bends, found.known("gradients", problem, pair[1])
    )


RUNS = [
    pytest.param(*kind, round(share * PROBLEMS / PARTS), part, marks=[pytest.mark.slow] * ("float32" in kind))
    for kind, share in SHARES.items()
    for part in range(PARTS)
]


@pytest.mark.parametrize(("backend", "dtype", "number", "part"), RUNS)
def test_solved_equations(backend, dtype, number, part):
    found, seeds = Found(FAULTS), itertools.count(part, PARTS)
    while found.counts["problems"] < number:
        problem = Problem(next(seeds), dtype, backend)
        found.counts["problems"] += 1
        try:
            trains, state, more, leaves = problem.run()
        except (ValueError, RuntimeError) as error:
            found.fail("errors", problem.seed, str(error), found.known("errors", problem, 0))
            continue
        b, j = problem.random.randrange(problem.samples), problem.random.randrange(problem.outputs)
        check(problem, trains, state, more, leaves, b, j, found)
    found.report(f"neurons from equations, {backend}, {dtype}")
    assert not found.failures, "\n".join(found.failures[:20])
    assert sum(count for name, count in found.counts.items() if name.startswith("times")) > number / 4
