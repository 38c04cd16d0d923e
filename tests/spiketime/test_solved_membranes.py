"""Membranes of random linear neurons against their exact solution: readouts, peaks of silent neurons, and voltages.

Seeded and few. A longer run, with its counts, of that many random problems in total::

    FIRSTSPIKE_SOLVED=20000 pytest -s tests/spiketime/test_solved_membranes.py
"""

import itertools
import math
import os
import random
from decimal import Context, Decimal, localcontext
from types import SimpleNamespace

import pytest
import torch
from linear_problems import Problem, arrivals_of, cell_of, numbers_of, places_of, solved

from firstspike.layers import IntegralReadout, MaximumReadout, MembraneReadout, states_at
from firstspike.spiketime.maxima.peaks import lacking
from solved_linear import Flow, highest
from solving import Fault, Found, flat, mapped, moved, signs

PROBLEMS = int(os.environ.get("FIRSTSPIKE_SOLVED", 60))
PARTS = max(1, PROBLEMS // 1000)
ROUNDINGS = {"float64": 512, "float32": 64}
CHANGE, STEP = {"float64": Decimal("1e-10"), "float32": Decimal("3e-5")}, Decimal("1e-15")
FAR = Decimal("1e60")
KINDS = ["membrane", "maximum", "integral", "lacking", "voltages"]

# Faults of the package. Delete an entry when it is mended.
FAULTS: tuple[Fault, ...] = ()


def quiet(problem, numbers, until):
    """The membrane at a time, without spikes."""
    like = SimpleNamespace(**vars(problem) | {"until": until, "has_state": False, "start": start_of(problem)})
    end = solved(like, numbers | {"threshold": FAR}).end
    return Decimal(0) if end is None else end[0]  # at rest, without inputs


def start_of(problem):
    return Decimal(0) if problem.bias else None


class Membrane:
    """A readout or the like: what the package gives for all neurons, and the truth for one."""

    def __init__(self, kind, problem):
        self.kind, self.problem, pick = kind, problem, problem.random
        self.time = problem.rounded(
            abs(problem.latest) * pick.uniform(0.3, 1.2) + problem.scale() * pick.uniform(0.1, 3)
        )
        self.discount = math.inf if not problem.bias and pick.random() < 0.1 else problem.scale() * 3
        if self.discount == math.inf and problem.values["tau_mem"].values[0] == math.inf:
            self.discount = problem.span

    def found(self):
        """Values ``(samples, outputs)`` and leaves."""
        problem = self.problem
        leaves = {name: x.clone().requires_grad_() for name, x in (problem.leaves | problem.tensors()).items()}
        leaves = {name: x for name, x in leaves.items() if name not in ("voltage", "current")}
        given = leaves
        if self.kind in ("maximum", "lacking"):  # of which time constants have no gradient
            given = {name: x if name in ("times", "weight", "delay") else x.detach() for name, x in leaves.items()}
            leaves = {name: given[name] for name in given if name in ("times", "weight", "delay")}
        neuron, receptor = problem.neuron(given), None
        if problem.receptors > 1:
            receptor = "sign" if problem.by_sign else problem.receptor
        if self.kind == "lacking":
            silent = torch.ones(problem.samples, problem.outputs, dtype=torch.bool)
            delay, times = given.get("delay"), given["times"].flatten(1)
            repeated = (x if x is None else x.repeat_interleave(problem.copies, 1) for x in (given["weight"], delay))
            weight, delay = repeated
            if receptor not in (None, "sign"):
                receptor = torch.tensor(receptor).repeat_interleave(problem.copies)
            return lacking(times, weight, neuron, silent, delay, self.time, receptor), leaves
        if self.kind == "voltages":
            values, _ = states_at(
                torch.tensor([self.time], dtype=problem.dtype), given["times"], given["weight"], neuron,
                max_spikes=problem.most, delay=given.get("delay"), receptor=receptor,
            )  # fmt: skip
            return values[..., 0], leaves
        leaves.pop("delay", None)
        options = {"receptor": receptor, "dtype": problem.dtype}
        size = problem.inputs, problem.outputs, neuron
        if self.kind == "membrane":
            layer = MembraneReadout(*size, time=self.time, **options)
        elif self.kind == "integral":
            layer = IntegralReadout(*size, tau=self.discount, **options)
        else:
            layer = MaximumReadout(*size, **options)
        layer.weight = torch.nn.Parameter(given["weight"])
        leaves["weight"] = layer.weight
        return layer(given["times"]), leaves

    def truth(self, numbers):
        problem = self.problem
        if self.kind in ("membrane", "maximum", "integral"):
            numbers = {name: x for name, x in numbers.items() if name != "delay"}
        if self.kind == "membrane":
            return quiet(problem, numbers, self.time)
        if self.kind == "voltages":
            like = SimpleNamespace(
                **vars(problem) | {"until": self.time, "has_state": False, "start": start_of(problem)}
            )
            found = solved(like, numbers)
            self.count = len(found.spikes)
            return None if found.more or found.end is None else found.end[0]
        cell, arrivals = cell_of(problem, numbers), arrivals_of(problem, numbers)
        if self.kind == "integral":
            return self.integral(cell, arrivals)
        flow = Flow(cell)
        if self.kind == "maximum":
            return highest(flow, arrivals, start=start_of(problem))
        height = highest(flow, arrivals, start=start_of(problem), until=Decimal(self.time))
        return max(cell.threshold - height, Decimal(0))

    def integral(self, cell, arrivals):
        with localcontext(Context(prec=60)):
            s = 0 if self.discount == math.inf else 1 / Decimal(self.discount)
            leak = 0 if cell.tau_mem.is_infinite() else 1 / cell.tau_mem
            total = cell.bias * leak / (s * (s + leak)) if cell.bias else Decimal(0)
            for time, receptor, weight in arrivals:
                tau, rise = cell.synapses[receptor]
                if time.is_finite() and (not cell.bias or time >= 0):
                    total += weight * (-s * time).exp() / (1 + s * rise) / (1 + s * tau) / (s + leak)
            return total


def check(membrane, values, leaves, b, j, found):
    problem = membrane.problem
    numbers, eps = numbers_of(problem, b, j), torch.finfo(problem.dtype).eps
    change = CHANGE[problem.name]
    try:
        wanted = membrane.truth(numbers)
        count, others = getattr(membrane, "count", 0), []
        for k in range(3):
            sign = signs(k)
            around = {
                n: mapped(lambda x, sign=sign: x * (1 + change * sign()) if x.is_finite() else x, x)
                for n, x in numbers.items()
            }
            others.append(membrane.truth(around | {"refractory": numbers["refractory"]}))
            if others[-1] is None or getattr(membrane, "count", 0) != count:
                wanted = None
    except ArithmeticError:
        wanted = None
    if wanted is None:
        found.counts["left out: more spikes than asked for, or not steady"] += 1
        return
    move = float(max(abs(x - wanted) for x in others) / change)
    size = max(abs(float(wanted)), problem.level * (membrane.kind != "integral"))
    error = abs(float(Decimal(values[b, j].item()) - wanted))
    least = torch.finfo(problem.dtype).smallest_normal
    tolerance = ROUNDINGS[problem.name] * eps * max(move + size, least)
    found.compare(f"{membrane.kind}", problem.seed, error, tolerance, found.known("values", membrane))
    source = random.Random(problem.seed)
    name = source.choice(list(leaves))
    (by,) = torch.autograd.grad(values[b, j], leaves[name], allow_unused=True, retain_graph=True)
    along = mapped(lambda x: Decimal(source.gauss(0, 1)) * abs(x) if x.is_finite() else Decimal(0), numbers[name])
    with localcontext(Context(prec=60)):
        ends = [membrane.truth(numbers | {name: moved(numbers[name], along, step)}) for step in (STEP, -STEP)]
    if None in ends:
        return
    terms = torch.tensor([float(x) for x in flat(along)], dtype=torch.float64)
    terms = terms * (0.0 if by is None else by[places_of(problem, name, b, j)].double().flatten())
    slope = float((ends[0] - ends[1]) / (2 * STEP))
    near = {"float64": 1e-8, "float32": 1e-3}[problem.name]
    near = near * (float(terms.abs().sum()) + abs(slope)) + near * 1e-3 * size
    near += ROUNDINGS[problem.name] * eps * max(move, least)
    if name in ("times", "delay"):  # the slope at a peak is 0 up to the rounding of its time
        near += ROUNDINGS[problem.name] * eps * size * abs(problem.latest) / min(problem.times_so_far)
    found.compare(
        f"gradients of {membrane.kind}",
        problem.seed,
        abs(float(terms.sum()) - slope),
        near,
        found.known("gradients", membrane),
    )


RUNS = [
    pytest.param(kind, dtype, part, marks=[pytest.mark.slow] * (dtype == "float32" or kind == "voltages"))
    for kind, dtype, part in itertools.product(KINDS, ROUNDINGS, range(PARTS))
]


@pytest.mark.filterwarnings("ignore:times of shape")  # a random time is 0 and the last of its train
@pytest.mark.parametrize(("kind", "dtype", "part"), RUNS)
def test_solved_membranes(kind, dtype, part):
    found, seeds = Found(FAULTS), itertools.count(part, PARTS)
    while found.counts["problems"] < PROBLEMS / PARTS / len(KINDS) / 2:
        problem = Problem(next(seeds), dtype)
        if problem.has_state or (problem.adapts and kind != "voltages") or "reset" not in problem.values:
            continue
        if problem.decades > 3:  # which takes very long
            continue
        found.counts["problems"] += 1
        membrane = Membrane(kind, problem)
        values, leaves = membrane.found()
        b, j = problem.random.randrange(problem.samples), problem.random.randrange(problem.outputs)
        check(membrane, values, leaves, b, j, found)
    found.report(f"{kind}, {dtype}")
    assert not found.failures, "\n".join(found.failures[:20])
