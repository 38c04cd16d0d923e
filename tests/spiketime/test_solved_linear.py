"""Random linear neurons against their exact solution: no spike is missed or invented, all are where they belong.

Seeded and few. A longer run, with its counts, of that many random problems in total::

    FIRSTSPIKE_SOLVED=20000 pytest -s tests/spiketime/test_solved_linear.py
"""

import itertools
import os
import random
from decimal import Context, Decimal, localcontext

import pytest
import torch
from linear_problems import Problem, numbers_of, places_of, solved

from solving import Fault, Found, flat, mapped, moved, signs, steady_spikes

PROBLEMS = int(os.environ.get("FIRSTSPIKE_SOLVED", 60))
SHARES = {
    ("cpu", "float64"): 0.4,
    ("equations", "float64"): 0.15,
    ("cpu", "float32"): 0.35,
    ("reference", "float64"): 0.05,
    ("reference", "float32"): 0.05,
}
PAIRS = 2  # of a neuron and a sample, that are solved in each problem
ROUNDINGS = {"float64": 512, "float32": 64}
"""How many may come together, each of which moves a spike as far as a change of all numbers by eps."""
CHANGE = {"float64": Decimal("1e-10"), "float32": Decimal("3e-5")}
"""Relative change of all numbers that a spike must survive to be compared."""
STEP = Decimal("1e-15")  # of differences
LEVELS = ("weight", "voltage", "current", "threshold", "reset", "bias", "jump")


# Faults of the package. Delete an entry when it is mended.
FAULTS = (
    Fault("errors grow with the number of fastest time constants until the spike",
          frozenset(("times", "gradients", "states")), lambda problem, j: problem.decades > 3),
)  # fmt: skip
# Problems that are left out, and why
LEFT_OUT = {
    "neurons from equations that keep their membrane wait until they are below": lambda problem: (
        problem.written and "reset" not in problem.values and not problem.numbers["threshold"]
    ),
}


def nearby(problem, numbers):
    """The truth where all numbers, and all spikes before they go on, are a little different."""
    change, found = CHANGE[problem.name], []
    for k in range(2):
        sign = signs(k)

        def other(x, sign=sign):
            return x * (1 + change * sign()) if x.is_finite() else x

        others = {name: x if name == "refractory" else mapped(other, x) for name, x in numbers.items()}
        found.append(solved(problem, others, rounded=other))
    for k in (-1, 1):
        found.append(solved(problem, numbers | {"threshold": numbers["threshold"] * (1 + k * change)}))
    return found


def check(problem, trains, state, more, leaves, b, j, found):
    """One neuron in one sample."""
    numbers, seed, eps = numbers_of(problem, b, j), problem.seed, torch.finfo(problem.dtype).eps
    try:
        truth = solved(problem, numbers)
        others = nearby(problem, numbers)
    except ArithmeticError:  # above its threshold after its reset
        found.counts["left out, above the threshold after a reset"] += 1
        return
    moves = steady_spikes(truth.spikes, [x.spikes for x in others], CHANGE[problem.name])
    steady = len(moves) == len(truth.spikes) and all(
        len(x.spikes) == len(moves) and x.more == truth.more for x in others
    )
    own = trains[b, j]
    times = [x for x in own.tolist() if x < float("inf")]
    if problem.operator == "pieces" and truth.more:  # as many as there is room for in one piece
        times = times[: problem.most]
    found.counts["spikes that are not steady"] += len(truth.spikes) - len(moves)
    spoilt = found.known("spikes", problem, j)
    if len(times) < len(moves) or (steady and len(times) != len(moves)):
        found.fail("spikes", seed, f"{len(times)} of neuron {j} in sample {b}, not {len(truth.spikes)}", spoilt)
        return
    found.counts["neurons"] += 1
    for time, wanted, move in zip(times, truth.spikes, moves, strict=False):
        error = abs(float(Decimal(time) - wanted))
        tolerance = ROUNDINGS[problem.name] * eps * (move + abs(float(wanted)))
        found.compare("times", seed, error, tolerance, found.known("times", problem, j))
    if steady and state is not None and truth.end is not None and not bool(more[b, j]):
        ends = [x.end for x in others]
        values = flat([x[b, j].tolist() for x in state[:3]])
        for k, (value, wanted) in enumerate(zip(values, truth.end, strict=True)):
            move = float(max(abs(x[k] - wanted) for x in ends) / CHANGE[problem.name])
            size = max(abs(problem.until), float(wanted)) if k == len(values) - 1 else problem.level
            error, tolerance = abs(float(Decimal(value) - wanted)), ROUNDINGS[problem.name] * eps * (move + size)
            found.compare("states", seed, error, tolerance, found.known("states", problem, j))
    if moves:
        check_gradient(problem, numbers, (b, j), leaves, own[: len(moves)], moves, found)


def check_gradient(problem, numbers, pair, leaves, spikes, moves, found):
    """The derivative of a random sum of spikes in a random direction of one leaf is a difference."""
    source = random.Random(problem.seed)
    name = source.choice(list(leaves))
    factors = [source.gauss(0, 1) for _ in spikes]
    (by,) = torch.autograd.grad(
        sum(map(torch.mul, spikes, torch.tensor(factors))), leaves[name], allow_unused=True, retain_graph=True
    )
    scale = problem.level if any(x in name for x in LEVELS) else problem.unit
    along = mapped(lambda x: Decimal(source.gauss(0, 1) * (abs(float(x)) or scale)), numbers[name])
    along = mapped(lambda x: x if x.is_finite() else Decimal(0), along)
    if name in ("times", "delay") and problem.start is not None and problem.start in flat(numbers["times"]):
        return  # an input that moves before the start does not arrive
    with localcontext(Context(prec=60)):
        changed = [numbers | {name: moved(numbers[name], along, step)} for step in (STEP, -STEP)]
    ends = [solved(problem, x).spikes for x in changed]
    if min(map(len, ends)) < len(spikes):
        return
    slopes = [float((a - b) / (2 * STEP)) for a, b in zip(*ends, strict=False)][: len(spikes)]
    wanted = sum(map(float.__mul__, factors, slopes))
    direction = torch.tensor([float(x) for x in flat(along)], dtype=torch.float64)
    terms = direction * (0.0 if by is None else by[places_of(problem, name, *pair)].double().flatten())
    size = float(terms.abs().sum()) + sum(abs(f * x) for f, x in zip(factors, slopes, strict=True))
    size += 1e-4 * sum(abs(f * x) for f, x in zip(factors, spikes.tolist(), strict=True))
    fastest = min(x.values[pair[1]] for key, x in problem.values.items() if "tau" in key and x.values[pair[1]] > 0)
    slope = torch.finfo(problem.dtype).eps * max(moves) / fastest  # which is a difference of larger rates
    near = {"float64": 1e-7, "float32": 0.02}[problem.name] + ROUNDINGS[problem.name] * slope
    found.compare(
        "gradients",
        problem.seed,
        abs(float(terms.sum()) - wanted),
        near * size,
        found.known("gradients", problem, pair[1]),
    )


PARTS = max(1, PROBLEMS // 1000)  # one test each, which shows its counts
RUNS = [
    pytest.param(
        *kind, round(share * PROBLEMS / PARTS), part, marks=[pytest.mark.slow] * ("float32" in kind or "cpu" in kind)
    )  # all kernels of linear neurons
    for kind, share in SHARES.items()
    for part in range(PARTS)
]


@pytest.mark.parametrize(("backend", "dtype", "number", "part"), RUNS)
def test_solved_linear(backend, dtype, number, part):
    found, seeds = Found(FAULTS), itertools.count(part, PARTS)
    while found.counts["problems"] < number:
        written = backend == "equations"
        problem = Problem(next(seeds), dtype, "cpu" if written else backend, written)
        if any(reason := [name for name, out in LEFT_OUT.items() if out(problem)]):
            found.counts[f"left out, {reason[0]}"] += 1
            continue
        found.counts["problems"] += 1
        try:
            trains, state, more, leaves = problem.run()
        except (ValueError, RuntimeError) as error:
            if written and "much too fast" in str(error):  # more than 131072 steps
                found.counts["refused as too stiff"] += 1
                continue
            found.fail("errors", problem.seed, str(error), found.known("errors", problem, 0))
            continue
        for _ in range(PAIRS):
            b, j = problem.random.randrange(problem.samples), problem.random.randrange(problem.outputs)
            check(problem, trains, state, more, leaves, b, j, found)
    found.report(f"linear neurons, {backend}, {dtype}")
    assert not found.failures, "\n".join(found.failures[:20])
    assert found.counts["times"] > number / 2
