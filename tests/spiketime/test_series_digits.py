"""Neurons from equations against 40 digits: times, decisions near tangents, and all derivatives."""

import functools
import itertools
from typing import NamedTuple

import mpmath as mp
import pytest
import torch

from firstspike import Neuron
from firstspike.spiketime import TrainState, spike_window
from series_digits import DIGITS, Truth, solve
from series_neurons import KINDS, Kind

STEP = mp.mpf(10) ** -20  # of differences; their error is its square, and that of rounding 1e-20
MOST = 40
EPS = torch.finfo(torch.float64).eps


class Problem(NamedTuple):
    """Numbers of a few neurons, each with its own parameters or all with the same."""

    kind: Kind
    values: dict
    """Tensors that have gradients, by name: of inputs, parameters, refractory time and perhaps the state."""
    receptor: list
    start: float
    until: float

    @property
    def parameters(self):
        return [name for name in (*self.kind.values, "refractory") if name in self.values]

    def solved(self, j, by=0, direction=None, watch=None, last=None) -> Truth:
        """The truth about neuron j, all of whose numbers are moved, perhaps with another weight of the last input."""

        def at(name, *place):
            x = self.values[name]
            place = place[-x.ndim :] if x.ndim else ()
            return mp.mpf(x[place].item()) + (by * mp.mpf(direction[name][place].item()) if by else 0)

        arrivals = []
        for i, k in itertools.product(*map(range, self.values["times"].shape)):
            late = at("delay", j, i) if "delay" in self.values else 0
            arrivals.append((at("times", i, k) + late, self.receptor[i], at("weight", j, i)))
        p = {name: at(name, j) for name in self.parameters}
        p.setdefault("refractory", mp.mpf(0))
        if "voltage" in self.values:
            others = self.values["current"].shape[1]
            x, left = [at("voltage", j), *(at("current", j, k) for k in range(others))], at("left", j)
        else:
            x, left = self.kind.start(p), 0
        if last is not None:
            arrivals[-1] = (*arrivals[-1][:2], last)
        return solve(self.kind.cell, p, arrivals, x=x, left=left, start=self.start, until=self.until, watch=watch)

    def computed(self):
        """Spikes and states at the end, and all leaves."""
        leaves = {name: x.clone().requires_grad_() for name, x in self.values.items()}
        parameters = {name: leaves[name] for name in self.parameters}
        neuron, state = Neuron(self.kind.text, **self.kind.options, **parameters), None
        if "voltage" in leaves:
            state = TrainState(*(leaves[x][None] for x in ("voltage", "current", "left")), self.start)
        found = spike_window(
            leaves["times"][None], leaves["weight"], neuron, delay=leaves.get("delay"), receptor=self.receptor,
            max_spikes=MOST, state=state, until=self.until, overflow="drop",
        )  # fmt: skip
        end = [found.state.voltage[..., None], found.state.current, found.state.refractory[..., None]]
        return found.trains[0], torch.cat(end, -1)[0], leaves


def make(name, own, seed, neurons=2, inputs=3, spikes=2) -> Problem:
    """Random inputs, and parameters near those of the kind."""
    kind, random = KINDS[name], torch.Generator().manual_seed(seed)

    def draw(*shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(shape, generator=random, dtype=torch.float64)

    shape = (neurons,) if own else ()
    receptor = [i % len(kind.weights) for i in range(inputs)]
    values = {name: x * draw(*shape, low=0.9, high=1.1) for name, x in kind.values.items()}
    if kind.refractory:
        values["refractory"] = kind.refractory * draw(*shape, low=0.8, high=1.2)
    scales = torch.tensor([kind.weights[r] for r in receptor], dtype=torch.float64)
    values["weight"] = scales * draw(neurons, inputs, low=0.5, high=1.5) * min(1.0, 8 / (inputs * spikes))
    values["times"] = draw(inputs, spikes, low=0.3, high=0.7 * kind.until)
    start = 0.0
    if seed % 2:
        values["delay"] = draw(neurons, inputs, high=0.1 * kind.until)
    else:  # a state in place of that at the start
        start = 0.2
        p = {name: mp.mpf(values[name].mean().item()) for name in kind.values}
        x = torch.tensor([float(y) for y in kind.start(p)], dtype=torch.float64)
        x = x + 0.05 * draw(neurons, len(x))
        values["voltage"], values["current"] = x[:, 0], x[:, 1:]
        values["left"] = draw(neurons, high=0.2).masked_fill(torch.arange(neurons) % 2 == 0, 0.0)
    return Problem(kind, values, receptor, start, kind.until)


def factors(seed, number):
    return torch.randn(number, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def objective(truth: Truth, j):
    """A sum of spikes and states of neuron j with random factors."""
    each = [*zip(factors(j, MOST).tolist(), truth.spikes, strict=False)]
    each += zip(factors(100 + j, 20).tolist(), truth.end, strict=False)
    return mp.fsum(mp.mpf(c) * x for c, x in each)


@functools.cache
def case(name, own, seed, size):
    with mp.workdps(DIGITS):
        problem = make(name, own, seed, **dict(size))
        return problem, [problem.solved(j) for j in range(len(problem.values["weight"]))]


HEAVY = ("qif", "izhikevich", "adex", "mixture", "weak")  # many small steps in 40 digits
CASES = [
    pytest.param(name, bool(k % 2), k // 2 + 1, (("neurons", 1 if name in HEAVY else 2),), id=name)
    for k, name in enumerate(KINDS)
]
LARGE = (("neurons", 3), ("inputs", 6), ("spikes", 3))
CASES += [
    pytest.param(
        name, own, seed, () if name in HEAVY else LARGE, id=f"{name}-{own}-{seed}", marks=pytest.mark.exhaustive
    )
    for name in KINDS
    for own in (False, True)
    for seed in (11, 12)
]


def lever(spike, leaves):
    """How far a spike time moves if all numbers that it follows from change by a unit in the last place."""
    by = torch.autograd.grad(spike, list(leaves.values()), retain_graph=True, allow_unused=True)
    parts = [(g * x.detach()).abs().sum() for g, x in zip(by, leaves.values(), strict=True) if g is not None]
    return EPS * max(abs(spike.item()), sum(map(float, parts)))


@pytest.mark.parametrize(("name", "own", "seed", "size"), CASES)
def test_trains_and_all_derivatives(name, own, seed, size):
    problem, truths = case(name, own, seed, size)
    trains, ends, leaves = problem.computed()
    loss = trains.new_zeros(())
    for j, truth in enumerate(truths):
        train = trains[j][trains[j].isfinite()]
        assert len(train) == len(truth.spikes) >= 2
        for t, exact in zip(train, truth.spikes, strict=True):
            assert abs(t.item() - exact) < 4 * lever(t, leaves)
            assert abs(t.item() - exact) < 1e-13 * exact or lever(t, leaves) > 1e-14 * exact
        for x, exact in zip(ends[j].tolist(), truth.end, strict=True):
            assert abs(x - exact) < 1e-12 * max(1, abs(exact))
        loss = loss + (factors(j, MOST)[: len(train)] * train).sum()
        loss = loss + (factors(100 + j, 20)[: len(ends[j])] * ends[j]).sum()
    loss.backward()
    assert all(x.grad is not None for x in leaves.values())
    # one sum of all derivatives, in which each counts as much as others
    random, direction = torch.Generator().manual_seed(seed), {}
    for name, x in leaves.items():
        size = x.grad.abs().clamp(min=1e-3 * float(x.grad.abs().max()))
        sign = torch.where(torch.rand(size.shape, generator=random) < 0.5, 1.0, -1.0)
        direction[name] = sign / torch.where(size > 0, size, 1.0)
        if name == "left":  # where it is 0, it cannot become less
            direction[name] = direction[name] * (problem.values[name] > 0)
    with mp.workdps(DIGITS):
        there, back = (
            mp.fsum(objective(problem.solved(j, h, direction), j) for j in range(len(truths))) for h in (STEP, -STEP)
        )
        slope = float((there - back) / (2 * STEP))
    assert abs(sum(float((x.grad * direction[name]).sum()) for name, x in leaves.items()) - slope) <= 1e-9


MARGINS = [1e-3, 1e-6, 1e-9, 1e-12]
LOW = {"qif": 0.4, "qif as a quotient": 0.4, "izhikevich": -55.0, "adex": 0.8}
"""Thresholds below that from where the membrane rises by itself."""
TANGENT = ["lif", "conductances", "qif as a quotient", "qif", "izhikevich", "adex", "resonator", "mixture"]


@functools.cache
def tangents(name, seed=2):
    """Neurons whose last input lifts the membrane to the threshold times 1 +- the margins, after earlier spikes."""
    base = make(name, False, seed, neurons=1, inputs=2, spikes=1)
    kind, last = base.kind, 0.5 * base.kind.until
    values = {x: y for x, y in base.values.items() if x not in ("voltage", "current", "left")}
    values["times"] = torch.tensor([[0.3], [last]], dtype=torch.float64)
    values["v_th"] = torch.tensor(LOW.get(name, kind.values["v_th"]), dtype=torch.float64)
    problem = base._replace(values=values, start=0.0, receptor=[0, 0])
    threshold = abs(values["v_th"].item())
    with mp.workdps(DIGITS):

        def peak(w):
            return problem.solved(0, watch=last, last=w).highest

        low, high = (mp.mpf(kind.weights[0] * x) for x in (0.5, 0.6))
        below, above = peak(low), peak(high)
        while abs(above) > threshold * mp.mpf(10) ** -22:
            low, below, high = high, above, high - above * (high - low) / (above - below)
            above = peak(high)
        gain = (peak(high * 1.001) - above) / (high * 0.001)
        margins = [s * m for m in MARGINS for s in (1, -1)]
        weights = [float(high + mp.mpf(m) * threshold / gain) for m in margins]
        rows = values["weight"].repeat(len(margins), 1)
        rows[:, -1] = torch.tensor(weights, dtype=torch.float64)
        problem = problem._replace(values=values | {"weight": rows})
        return problem, margins, [problem.solved(j) if m > 0 else None for j, m in enumerate(margins)]


@pytest.mark.parametrize(
    "name", [x if k < 3 else pytest.param(x, marks=pytest.mark.exhaustive) for k, x in enumerate(TANGENT)]
)
def test_near_tangents(name):
    problem, margins, truths = tangents(name)
    trains, _, leaves = problem.computed()
    before = len(truths[0].spikes) - 1
    for j, (margin, truth) in enumerate(zip(margins, truths, strict=True)):
        counts = trains[j].isfinite().sum()
        assert counts == (before if truth is None else len(truth.spikes)), margin
        if truth is None:
            continue
        t = trains[j, before]
        assert abs(t.item() - truth.spikes[before]) < 8 * lever(t, leaves), margin
        direction = {x: torch.zeros_like(y) for x, y in problem.values.items()}
        direction["weight"][j, -1] = 1.0
        with mp.workdps(DIGITS):
            there, back = (problem.solved(j, h, direction).spikes[before] for h in (STEP, -STEP))
            slope = float((there - back) / (2 * STEP))
        (by,) = torch.autograd.grad(t, leaves["weight"], retain_graph=True)
        assert abs(by[j, -1].item() - slope) <= (1e-9 + 1e-14 / margin) * abs(slope), margin
