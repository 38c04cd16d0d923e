"""Neurons that are linear between events, against 50 digits: times, decisions near tangents, and all derivatives."""

import functools
import math
from typing import NamedTuple

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.linalg import expm

from firstspike import LIF
from firstspike.neurons import AdaptiveLIF
from firstspike.spiketime import TrainState, first_spike_time, spike_trains, spike_window
from linear_digits import DIGITS, Cell, again, summit, train

STEP = mp.mpf(10) ** -20  # of differences; their error is its square, and that of rounding 1e-30
NEAR = 1e-9

PAIR = {"tau_mem": 1.3, "tau_syn": (1.0, 1.7), "reset": 0.1, "refractory": 0.2}
KINDS = {
    "two receptors": PAIR,
    "by sign": {**PAIR, "tau_syn": (0.8, 2.0), "sign": True},
    "no leak": {**PAIR, "tau_mem": math.inf, "refractory": 0.0},
    "equal constants": {**PAIR, "tau_mem": 1.0, "tau_syn": (1.0, 1.0)},
    "nearly equal": {**PAIR, "tau_mem": 1.0, "tau_syn": (1.0 + NEAR, 1.0 - NEAR)},
    "rise": {**PAIR, "tau_rise": (0.3, 0.0)},
    "alpha": {**PAIR, "tau_syn": (1.0, 1.7), "tau_rise": (1.0, 1.7)},
    "alpha, all equal": {**PAIR, "tau_mem": 1.0, "tau_syn": (1.0,), "tau_rise": (1.0,)},
    "bias below": {**PAIR, "bias": 0.6},
    "bias above": {**PAIR, "bias": 1.3, "tau_syn": (1.0,)},
    "adaptation": {**PAIR, "adaptation_tau": (3.0,), "adaptation_jump": (0.3,)},
    "two currents": {**PAIR, "refractory": 0.0, "adaptation_tau": (0.5, 4.0), "adaptation_jump": (-0.1, 0.3)},
    "slow adaptation": {**PAIR, "adaptation_tau": (3.0,), "adaptation_jump": (0.5,), "adaptation_rise": (0.6,)},
    "threshold": {**PAIR, "refractory": 0.0, "threshold_tau": (2.0,), "threshold_jump": (0.4,)},
    "mat2": {**PAIR, "reset": None, "refractory": 0.4, "threshold_tau": (1.0, 5.0), "threshold_jump": (0.8, 0.3)},
    "mixture": {
        **PAIR, "tau_syn": (1.0, 0.7), "tau_rise": (0.0, 0.7), "bias": 0.4, "adaptation_tau": (1.3, 6.0),
        "adaptation_jump": (0.2, 0.1), "threshold_tau": (0.7, 2.0), "threshold_jump": (0.2, 0.1), "held": True,
    },
}  # fmt: skip
WITH_END = ("bias below", "bias above", "mixture", "rise", "mat2")


def each(value):
    return value if isinstance(value, tuple) else (value,)


def cell_of(values):
    """Components of a neuron, one after the other, from its parameters."""
    kinds, taus, jumps = [], [], []
    rises = values.get("tau_rise", (0.0,) * len(values["tau_syn"]))
    for tau, rise in zip(values["tau_syn"], rises, strict=True):
        if rise:
            kinds, taus, jumps = [*kinds, "rise"], [*taus, rise], [*jumps, 0.0]
        kinds, taus, jumps = [*kinds, "synapse"], [*taus, tau], [*jumps, 0.0]
    for kind, name in (("current", "adaptation"), ("threshold", "threshold")):
        pairs = zip(values.get(f"{name}_tau", ()), values.get(f"{name}_jump", ()), strict=True)
        for k, (tau, jump) in enumerate(pairs):
            rises = values.get(f"{name}_rise", ())
            if rises:
                kinds, taus, jumps, jump = [*kinds, "onset"], [*taus, rises[k]], [*jumps, jump], 0.0
            kinds, taus, jumps = [*kinds, kind], [*taus, tau], [*jumps, jump]
    others = (values["tau_mem"], values["threshold"], values["reset"], values["refractory"], values.get("bias", 0.0))
    return Cell(tuple(kinds), tuple(taus), tuple(jumps), *others)


class Problem(NamedTuple):
    kind: str
    values: list
    """Parameters of each neuron, numbers and tuples of numbers."""
    own: bool
    """Whether neurons have parameters of their own."""
    times: torch.Tensor
    weight: torch.Tensor
    delay: torch.Tensor | None
    receptor: object
    until: float
    state: tuple | None
    """Of each neuron and component: (neurons, 1 + components), and the time left."""

    @property
    def start(self):
        return 0.2 if self.state is not None else 0.0 if self.values[0].get("bias") else None

    def arrivals(self, j):
        cell, found = cell_of(self.values[j]), []
        for i, row in enumerate(self.times.tolist()):
            w = self.weight[j, i].item()
            receptor = int(w <= 0) if self.receptor == "sign" else self.receptor[i]
            late = 0 if self.delay is None else mp.mpf(self.delay[j, i].item())
            found += [(mp.mpf(t) + late, cell.receptors[receptor], w) for t in row]
        return found

    def options(self, j):
        state = None if self.state is None else (self.state[0][j].tolist(), self.state[1][j].item())
        return {"start": self.start, "until": mp.mpf(self.until), "state": state}

    def neuron(self, dtype):
        """With tensors that require gradients, by their names."""
        given, leaves = {}, {}
        for name, first in self.values[0].items():
            if name in ("sign", "held") or first is None:
                continue
            found = []
            for k, x in enumerate(each(first)):
                if math.isinf(x) or name == "refractory" or (name == "tau_rise" and not x):
                    found.append(x)
                    continue
                rows = [each(v[name])[k] for v in self.values]
                leaves[name, k] = torch.tensor(rows if self.own else x, dtype=dtype).requires_grad_()
                found.append(leaves[name, k])
            given[name] = tuple(found) if isinstance(first, tuple) else found[0]
        own = any(name.startswith(("adaptation", "threshold_")) for name in given)
        return (AdaptiveLIF if own else LIF)(reset=given.pop("reset", None), **given), leaves


def make(kind, own, seed=0, neurons=2, inputs=3, spikes=2, dtype=torch.float64):
    """Random weights, times, and parameters near those of the kind, in the precision of the dtype."""
    gen = torch.Generator().manual_seed(seed)

    def draw(*shape, low=0.0, high=1.0):
        return (low + (high - low) * torch.rand(shape, generator=gen, dtype=torch.float64)).to(dtype)

    values, common = [], {"threshold": 1.0} | KINDS[kind]
    for j in range(neurons):
        factor = 1 + 0.2 * draw(1).item() if own or j == 0 else None
        scaled = {}
        for name, x in common.items():
            fixed = factor is None or name in ("sign", "held", "refractory") or x is None
            some = x if fixed else tuple(factor * y for y in each(x)) if isinstance(x, tuple) else factor * x
            if "alpha" not in kind and "equal" not in kind and isinstance(some, tuple) and name != "tau_rise":
                some = tuple(y * (1 + 0.1 * draw(1).item()) for y in some)
            some = tuple(torch.tensor(y, dtype=dtype).item() for y in some) if isinstance(some, tuple) else some
            if isinstance(some, float):
                some = torch.tensor(some, dtype=dtype).item()
            scaled[name] = some
        values.append(scaled if own or j == 0 else values[0])
    receptors = len(KINDS[kind]["tau_syn"])
    weight = draw(neurons, inputs, low=0.8, high=3.0) * min(1.0, 8 / (inputs * spikes))
    weight[:, inputs // 2] *= -0.4
    held = KINDS[kind].get("held")
    state = None
    if held:
        size = 1 + len(cell_of(values[0]).kinds)
        state = draw(neurons, size, high=0.3), draw(neurons, high=0.2).masked_fill(torch.arange(neurons) % 2 == 0, 0.0)
    return Problem(
        kind, values, own, draw(inputs, spikes, low=0.2, high=3.0), weight,
        draw(neurons, inputs, high=0.5) if seed % 2 == 0 and own else None,
        "sign" if KINDS[kind].get("sign") else [i % receptors for i in range(inputs)],
        torch.tensor(4.0 if kind in WITH_END else math.inf).item(), state,
    )  # fmt: skip


MOST = 30


def solved(problem, most=MOST):
    with mp.workdps(DIGITS):
        cells = [cell_of(x) for x in problem.values]
        return [train(c, problem.arrivals(j), most=most, **problem.options(j)) for j, c in enumerate(cells)]


def factors(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def objective(spikes, end, j):
    """A sum of spikes and states of neuron j with random factors; with numbers of mpmath."""
    total = mp.fsum(mp.mpf(c) * t for c, t in zip(factors(j, MOST).tolist(), spikes, strict=False))
    if end is not None:
        total += mp.fsum(mp.mpf(c) * x for c, x in zip(factors(100 + j, 20).tolist(), end, strict=False))
    return total


def derivatives(problem, truths, measure=objective):
    """Of the objective of each neuron by all that it has, by central differences at a fixed order of events."""
    found = []
    with mp.workdps(DIGITS):
        for j, truth in enumerate(truths):
            values, arrivals, options = problem.values[j], problem.arrivals(j), problem.options(j)

            def at(cell=None, arrivals=arrivals, options=options, values=values, truth=truth, j=j):
                return measure(*again(cell or cell_of(values), arrivals, truth, **options), j)

            def differ(change, at=at):
                return float((at(**change(STEP)) - at(**change(-STEP))) / (2 * STEP))

            by = {}
            for n, (t, place, w) in enumerate(arrivals):
                i, k = divmod(n, problem.times.shape[1])

                def moved_input(h, n=n, t=t, place=place, w=w, arrivals=arrivals):
                    return {"arrivals": [*arrivals[:n], (t + h, place, w), *arrivals[n + 1 :]]}

                by["times", i, k] = differ(moved_input)
                by["delay", i] = by.get(("delay", i), 0.0) + by["times", i, k]
            for i in range(len(problem.times)):
                some = range(i * problem.times.shape[1], (i + 1) * problem.times.shape[1])

                def heavier(h, some=some, arrivals=arrivals):
                    return {"arrivals": [(t, p, w + h if n in some else w) for n, (t, p, w) in enumerate(arrivals)]}

                by["weight", i] = differ(heavier)
            for name in problem.neuron(torch.float64)[1]:

                def other(h, name=name, values=values):
                    x = values[name[0]]
                    y = tuple(v + h * (k == name[1]) for k, v in enumerate(x)) if isinstance(x, tuple) else x + h
                    return {"cell": cell_of(values | {name[0]: y})}

                by[name] = differ(other)
            for k in range(0 if problem.state is None else problem.state[0].shape[1]):

                def begun(h, k=k, options=options):
                    x, left = options["state"]
                    return {"options": options | {"state": ([v + h * (n == k) for n, v in enumerate(x)], left)}}

                by["state", k] = differ(begun)
            found.append(by)
    return found


def computed(problem, backend, dtype=torch.float64, most=MOST):
    """Spikes and the state at the end, and all leaves."""
    neuron, leaves = problem.neuron(dtype)
    for name in ("times", "weight", "delay"):
        if getattr(problem, name) is not None:
            leaves[name] = getattr(problem, name).clone().requires_grad_()
    state = None
    if problem.state is not None:
        leaves["voltage"], leaves["current"] = (
            x.clone().requires_grad_() for x in (problem.state[0][:, 0], problem.state[0][:, 1:])
        )
        state = TrainState(leaves["voltage"][None], leaves["current"][None], problem.state[1][None], problem.start)
    found = spike_window(
        leaves["times"][None], leaves["weight"], neuron, delay=leaves.get("delay"), receptor=problem.receptor,
        max_spikes=most, state=state, until=problem.until, overflow="drop", backend=backend,
    )  # fmt: skip
    end = None if found.state is None else torch.cat([found.state.voltage[0, :, None], found.state.current[0]], -1)
    return found.trains[0], end, leaves


def expected(problem, by, name):
    """The derivative as the package gives it."""
    inputs, spikes = problem.times.shape
    if name == "times":
        rows = [[sum(b["times", i, k] for b in by) for k in range(spikes)] for i in range(inputs)]
    elif name in ("weight", "delay"):
        rows = [[b[name, i] for i in range(inputs)] for b in by]
    elif name == "voltage":
        rows = [b["state", 0] for b in by]
    elif name == "current":
        rows = [[b["state", k] for k in range(1, problem.state[0].shape[1])] for b in by]
    else:
        rows = [b[name] for b in by] if problem.own else sum(b[name] for b in by)
    return torch.tensor(rows, dtype=torch.float64)


@functools.cache
def case(kind, own, seed, size):
    problem = make(kind, own, seed, **dict(size))
    truths = solved(problem)
    return problem, truths, derivatives(problem, truths)


SLOW = pytest.mark.slow  # for delays there are kernels of their own
CASES = [pytest.param(kind, bool(k % 2), 0, (), id=kind, marks=[SLOW] * (k % 2)) for k, kind in enumerate(KINDS)]
LARGE = (("neurons", 3), ("inputs", 6), ("spikes", 3))
CASES += [
    pytest.param(kind, own, seed, LARGE, id=f"{kind}-{own}-{seed}", marks=pytest.mark.exhaustive)
    for kind in KINDS
    for own in (False, True)
    for seed in (1, 2)
]


@pytest.mark.parametrize(("kind", "own", "seed", "size"), CASES)
def test_trains_and_all_derivatives(kind, own, seed, size, backend):
    problem, truths, by = case(kind, own, seed, size)
    trains, end, leaves = computed(problem, backend)
    loss = trains.new_zeros(())
    for j, truth in enumerate(truths):
        assert not truth.more
        train = trains[j][trains[j].isfinite()]
        assert len(train) == len(truth.spikes)
        slowest = 1.0  # of all rises to the threshold up to a spike
        for t, exact, steep in zip(train.tolist(), truth.spikes, truth.slopes, strict=True):
            slowest = min(slowest, float(steep or 1))
            assert abs(t - exact) < 1e-13 / slowest
        loss = loss + (factors(j, MOST)[: len(train)] * train).sum()
        if truth.end is not None:
            for x, exact in zip(end[j].tolist(), truth.end, strict=True):
                assert abs(x - exact) < 1e-13
            loss = loss + (factors(100 + j, 20)[: len(truth.end)] * end[j]).sum()
    assert sum(len(truth.spikes) for truth in truths) >= 2
    loss.backward()
    for name, leaf in leaves.items():
        wanted = expected(problem, by, name)
        assert wanted.any(), name
        found = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max(), name


MARGINS = {torch.float64: [1e-3, 1e-6, 1e-9, 1e-12], torch.float32: [0.1, 1e-2, 1e-3, 1e-4, 1e-6]}
ROUNDING = 16  # units in the last place of the sum of all that a membrane is made of


@functools.cache
def tangents(kind, dtype, seed=3):
    """Neurons whose last input lifts the membrane to the threshold times 1 +- the margins, after earlier spikes.

    Gives the problem, what is above the threshold at the peak, and the truth.
    """
    base = make(kind, False, seed, neurons=1, inputs=4, spikes=1, dtype=dtype)
    until, last = 60.0, 6.0
    base = base._replace(until=math.inf, state=None, delay=None)
    base.times[:] = base.times.sort(0).values
    base.times[-1] = last
    margins = [s * m for m in MARGINS[dtype] for s in (1, -1)]
    with mp.workdps(DIGITS):
        cell = cell_of(base.values[0])
        arrivals, start = base.arrivals(0), base.start
        before = train(cell, arrivals[:-1], most=MOST, start=start, until=mp.mpf(last))
        assert before.end is not None

        def peak(w):
            x = list(before.end)
            x[1 + arrivals[-1][1]] += w
            return summit(cell, x)

        low, high = mp.mpf(1), mp.mpf(2)
        for _ in range(12):
            y, z = peak(low), peak(high)
            if abs(z) < mp.mpf(10) ** -25:
                break
            low, high = high, high - z * (high - low) / (z - y)
        gain = (peak(high) - peak(high * 0.999)) / (high * 0.001)
        threshold = mp.mpf(base.values[0]["threshold"])
        weights = [float(high + mp.mpf(m) * threshold / gain) for m in margins]
        rows = base.weight.repeat(len(margins), 1)
        rows[:, -1] = torch.tensor(weights, dtype=dtype)
        problem = base._replace(values=base.values * len(margins), weight=rows)
        above = [peak(mp.mpf(w)) / threshold for w in rows[:, -1].tolist()]
        truths = [
            train(cell, problem.arrivals(j), most=len(before.spikes) + 1, start=start, until=mp.mpf(until))
            for j in range(len(margins))
        ]
        return problem, above, truths, len(before.spikes)


def check_tangents(kind, backend, dtype, exact, relative):
    problem, above, truths, before = tangents(kind, dtype)
    eps = torch.finfo(dtype).eps
    scale = ROUNDING * eps * (1 + float(problem.weight.abs().sum(1).max()) / problem.values[0]["threshold"])
    trains, _, leaves = computed(problem, backend, dtype, before + 1)
    checked = 0
    for j, (margin, truth) in enumerate(zip(above, truths, strict=True)):
        fires = len(truth.spikes) > before
        assert fires == (margin >= 0)
        if abs(margin) < scale:
            continue
        assert bool(trains[j, before].isfinite()) == fires, float(margin)
        if not fires:
            continue
        slope = truth.slopes[before] / mp.mpf(problem.values[0]["threshold"])
        assert abs(trains[j, before].item() - truth.spikes[before]) < exact + scale / slope, float(margin)
        checked += 1
        allowed = relative + scale / float(margin)
        if allowed > 0.1:
            continue
        one = problem._replace(values=problem.values[:1], weight=problem.weight[j : j + 1])
        (by,) = derivatives(one, [truth], lambda spikes, end, _: spikes[before])
        grads = torch.autograd.grad(trains[j, before], list(leaves.values()), retain_graph=True, allow_unused=True)
        # constants that hardly matter have an error of what cancels
        lever = (expected(one, [by], "weight") * one.weight).abs().max()
        for name, grad in zip(leaves, grads, strict=True):
            wanted = expected(one, [by], name)
            found = torch.zeros_like(wanted) if grad is None else grad[j : j + 1] if name == "weight" else grad
            largest = max(wanted.abs().max(), 1e-2 * lever / each(one.values[0].get(name[0], math.inf))[-1])
            assert (found - wanted).abs().max() <= allowed * largest, (name, float(margin))
    assert checked >= 2


TANGENT = [kind for kind in KINDS if kind != "bias above"]  # it spikes for ever


@pytest.mark.parametrize(
    "kind", [x if x in ("alpha", "two currents") else pytest.param(x, marks=pytest.mark.exhaustive) for x in TANGENT]
)
def test_near_tangents(kind, backend):
    check_tangents(kind, backend, torch.float64, 1e-13, 1e-10)


@pytest.mark.slow  # it has kernels of its own to compile
@pytest.mark.parametrize(
    "kind", [x if k % 4 == 3 else pytest.param(x, marks=pytest.mark.exhaustive) for k, x in enumerate(TANGENT)]
)
def test_near_tangents_in_float32(kind, backend):
    check_tangents(kind, backend, torch.float32, 1e-5, 1e-4)


@pytest.mark.parametrize(
    ("dtype", "backend"),
    [
        (dtype, backend) if backend == "reference" else pytest.param(dtype, backend, marks=pytest.mark.slow)
        for dtype in (torch.float32, torch.float64)
        for backend in ("cpu", "reference")
    ],
)
@pytest.mark.parametrize(("rise", "syn"), [(1.7, 0.01), (0.01, 1.7), (40.0, 0.3)])
def test_a_synapse_that_is_fed_slowly_may_be_fast(rise, syn, dtype, backend):
    """Against the solution by matrix exponentials: the membrane is just at the threshold at the time of the spike."""
    neuron = LIF(1.0, syn, tau_rise=rise)
    times, weight = torch.ones(1, 1, dtype=dtype), torch.full((1, 1), 9.0 if rise < 10 else 60.0, dtype=dtype)
    spike = float(first_spike_time(times, weight, neuron, backend=backend))
    flow = np.array([[-1.0, 1 / syn, 0.0], [0.0, -1 / syn, 1 / rise], [0.0, 0.0, -1 / rise]])
    grid = np.linspace(0.0, spike - 1.0, 200)
    heights = [(expm(flow * s) @ [0.0, 0.0, float(weight)])[0] for s in grid]
    assert heights[-1] == pytest.approx(1.0, abs=2e-5 if dtype == torch.float32 else 1e-12)
    assert max(heights[:-1]) < 1


@pytest.mark.parametrize("backend", [pytest.param("cpu", marks=pytest.mark.slow), "reference"])
@pytest.mark.parametrize("unit", [2.0**-20, 3e-7, 1e7])
def test_single_precision_does_not_depend_on_the_unit(unit, backend):
    source = torch.Generator().manual_seed(3)
    times = (4 * torch.rand(5, 8, 2, generator=source)).sort(-1).values
    weight = 0.2 + torch.randn(7, 8, generator=source)

    def trains(unit):
        neuron = AdaptiveLIF(
            2.0 * unit, (unit, 0.5 * unit), tau_rise=(0.3 * unit, 0.0), refractory=0.2 * unit,
            adaptation=[(2.0 * unit, 0.3)], threshold_adaptation=[(1.3 * unit, 0.4)],
        )  # fmt: skip
        weights = weight.clone().requires_grad_()
        found = spike_trains(times * unit, weights, neuron, max_spikes=20, receptor="sign", backend=backend)
        found[found.isfinite()].sum().backward()
        return found.detach() / unit, weights.grad / unit

    for found, expected in zip(trains(unit), trains(1.0), strict=True):
        torch.testing.assert_close(found, expected, rtol=0 if unit == 2.0**-20 else 2e-3, atol=0)
