"""All losses, and the terms that need no membrane, against sums and differences of 40 digits, from their definitions.

Random times with ties, silent neurons and empty trains, in both precisions. More of them, with counts::

    FIRSTSPIKE_SOLVED=20000 pytest -s tests/losses/test_by_hand.py
"""

import functools
import itertools
import math
import os
import random

import mpmath as mp
import pytest
import torch

from firstspike import LIF, LIFLinear, Network, SmoothCount, SpikeTrains
from firstspike import losses as fs
from solving import Found

PROBLEMS = int(os.environ.get("FIRSTSPIKE_SOLVED", 30))
INF = math.inf
DIGITS = mp.workdps(40)
NEAR = {torch.float64: 1e-13, torch.float32: 1e-5}


class Drawn:
    """Random arguments of a loss: spike times of a batch, labels, and a unit."""

    def __init__(self, seed):
        self.random = pick = random.Random(seed)
        self.dtype = pick.choice([torch.float64, torch.float32])
        self.unit = pick.choice([1.0, 1.0, 0.01, 300.0])
        self.samples, self.outputs, self.columns = (
            pick.choice([1, 2, 4]),
            pick.choice([1, 2, 3, 6]),
            pick.choice([0, 1, 3, 7]),
        )
        self.grid, self.silent = pick.random() < 0.3, pick.choice([0.0, 0.2, 0.5])
        self.labels = torch.tensor([pick.randrange(self.outputs) for _ in range(self.samples)])

    def time(self, low=0.0, high=3.0):
        t = self.random.uniform(low, high)
        t = round(t * 4) / 4 if self.grid else t
        return INF if self.random.random() < self.silent else t * self.unit

    def times(self, *shape):
        flat = [self.time() for _ in range(math.prod(shape))]
        return torch.tensor(flat, dtype=torch.float64).reshape(shape).to(self.dtype)

    def trains(self, columns=None):
        return self.times(self.samples, self.outputs, self.columns if columns is None else columns).sort(-1).values

    def values(self, size=3.0):
        flat = [self.random.gauss(0, size) for _ in range(self.samples * self.outputs)]
        return torch.tensor(flat, dtype=torch.float64).reshape(self.samples, self.outputs).to(self.dtype)

    def options(self):
        """Those of all losses, by which ``reduced`` combines the samples."""
        pick = self.random
        weight = [pick.choice([0.0, 0.3, 1.0, 2.5]) for _ in range(self.outputs)] if pick.random() < 0.3 else None
        if weight and not sum(weight[k] for k in self.labels.tolist()):
            weight = None
        return {"reduction": pick.choice(["mean", "sum"]), "weight": weight, "tau_syn": self.unit}


def reduced(costs, labels, options):
    weights = [mp.mpf(1 if options["weight"] is None else options["weight"][k]) for k in labels]
    total = mp.fsum(w * c for w, c in zip(weights, costs, strict=True))
    return total / mp.fsum(weights) if options["reduction"] == "mean" else total


def cross_entropy(t, label, xi, smooth, silent_cost):
    if t[label] == INF:
        return mp.mpf(silent_cost)
    spiking = [x for x in t if x < INF]
    true = (1 - smooth) * t[label] + smooth * mp.fsum(spiking) / len(spiking)
    return mp.log(mp.fsum(mp.exp((true - x) / xi) for x in spiking))


def squares(t, label, target, silent_cost):
    """``target`` of the output n where the true one spikes at a time."""
    if t[label] == INF:
        return mp.mpf(silent_cost)
    return mp.fsum((x - target(n, t[label])) ** 2 for n, x in enumerate(t) if x < INF) / 2


def van_rossum(a, b, tau):
    """The integral between one spike of either and the next."""
    events = sorted([(t, 1) for t in a if t < INF] + [(t, -1) for t in b if t < INF])
    total, height, before = mp.mpf(0), mp.mpf(0), None
    for t, sign in [*events, (None, 0)]:
        if before is not None:
            left = mp.exp(-2 * (t - before) / tau) if t is not None else mp.mpf(0)
            total += height**2 / 2 * (1 - left)
            height = height * mp.sqrt(left) + sign
        else:
            height = mp.mpf(sign)
        before = t
    return total


def matched(a, b, scale, power):
    """By trying all: a spike of the first train is alone, or the partner of any later one of the second."""
    a, b = ([x for x in train if x < INF] for train in (a, b))

    @functools.cache
    def cost(i, used):
        if i == len(a):
            return mp.mpf(len(b) - len(used))
        pairs = [(abs(a[i] - b[k]) / scale) ** power + cost(i + 1, used | {k}) for k in range(len(b)) if k not in used]
        return min([1 + cost(i + 1, used), *pairs])

    return cost(0, frozenset())


def early(t, label, beta):
    if t[label] == INF:
        return mp.mpf(0)
    x = t[label] / beta
    return mp.exp(x) if x < 10 else mp.exp(10) * (x - 9)


def readout_entropy(v, label, temperature, smooth):
    total = mp.log(mp.fsum(mp.exp(x / temperature) for x in v))
    return total - ((1 - smooth) * v[label] + smooth * mp.fsum(v) / len(v)) / temperature


HUBER = {
    "squared": lambda x: x**2, "absolute": abs, "huber": lambda x: x**2 / 2 if abs(x) < 1 else abs(x) - mp.mpf(1) / 2
}  # fmt: skip


def problem_of(kind, drawn):
    """The loss, its inputs, and a function of the same inputs in digits."""
    pick, labels, unit = drawn.random, drawn.labels.tolist(), mp.mpf(drawn.unit)
    options = drawn.options()
    tau = mp.mpf(options["tau_syn"])
    small = {"reduction": options["reduction"]}
    if kind in ("VanRossum", "MatchedSpikes"):
        output, target = drawn.trains(), drawn.trains(pick.choice([0, 1, 4]))
        wide = options | {"weight": None}
        if kind == "VanRossum":
            tau = drawn.unit * pick.choice([0.05, 0.7, 20.0])
            loss, cost = fs.VanRossum(tau, **small), lambda a, b: van_rossum(a, b, mp.mpf(tau))
        else:
            scale, power = drawn.unit * pick.choice([0.1, 0.6, 5.0]), pick.choice([1, 2])
            error = {1: "absolute", 2: "squared"}[power]
            loss, cost = fs.MatchedSpikes(scale, error, **small), lambda a, b: matched(a, b, mp.mpf(scale), power)

        def total(output):
            goal = digits(target)
            costs = [mp.fsum(itertools.starmap(cost, zip(*x, strict=True))) for x in zip(output, goal, strict=True)]
            return reduced(costs, labels, wide)

        return output, lambda x: loss(x, target), total
    if kind == "EarlyOutput":
        beta, alpha, times = (
            pick.choice([0.05, 0.5, 2.0]),
            pick.choice([0.3, 2.0]),
            drawn.times(drawn.samples, drawn.outputs),
        )
        term = fs.EarlyOutput(alpha, beta, drawn.unit)
        return (
            times,
            lambda x: term(x, drawn.labels, torch.nn.Identity()),
            lambda x: (
                mp.mpf(alpha)
                * mp.fsum(early(t, k, mp.mpf(beta) * unit) for t, k in zip(x, labels, strict=True))
                / len(labels)
            ),
        )
    if kind == "LayerWindow":
        network, low, high = (
            Network(LIFLinear(4, drawn.outputs, dtype=drawn.dtype)),
            pick.uniform(-1, 0.5),
            pick.uniform(0.6, 2),
        )
        term = fs.LayerWindow(0.7, low, high, drawn.unit)
        both = drawn.times(drawn.samples, 4 + drawn.outputs)

        def given(x):
            record = network.record(x[:, :4].detach())
            return term(x[:, 4:], None, network, record._replace(inputs=x[:, :4], layers=(x[:, 4:],)))

        def window(x):
            found = mp.mpf(0)
            for row in x:
                seen, own = [t for t in row[:4] if t < INF], [t for t in row[4:] if t < INF]
                for t in own if seen else []:
                    s = (t - mp.fsum(seen) / len(seen)) / unit
                    found += max(low - s, 0) ** 2 + max(s - high, 0) ** 2
            return mp.mpf(0.7) * found / (drawn.samples * drawn.outputs)

        return both, given, window
    values = drawn.values() if kind.startswith("Readout") else drawn.times(drawn.samples, drawn.outputs)
    if kind == "ReadoutRegression":
        goal, error = drawn.values(), pick.choice(list(HUBER))
        loss = fs.ReadoutRegression(error, **small)

        def distances(values):
            rows = zip(values, digits(goal), strict=True)
            return [mp.fsum(HUBER[error](v - w) for v, w in zip(*row, strict=True)) / drawn.outputs for row in rows]

        return values, lambda x: loss(x, goal), lambda x: reduced(distances(x), labels, options | {"weight": None})
    if kind == "TimeCrossEntropy":
        xi, smooth = pick.choice([0.02, 0.2, 3.0]), pick.choice([0.0, 0.1])
        loss = fs.TimeCrossEntropy(xi, label_smoothing=smooth, silent_cost=7.0, **options)
        one = functools.partial(cross_entropy, xi=mp.mpf(xi) * tau, smooth=mp.mpf(smooth), silent_cost=7.0)
    elif kind == "TimeMSE":
        correct, wrong = pick.uniform(0, 1), pick.uniform(1.1, 3)
        loss = fs.TimeMSE(correct, wrong, silent_cost=7.0, **options)

        def one(t, k):
            return squares([x / tau for x in t], k, lambda n, _: correct if n == k else wrong, 7.0)
    elif kind == "ShiftInvariantMSE":
        delta = pick.uniform(0.1, 2)
        loss = fs.ShiftInvariantMSE(delta, silent_cost=7.0, **options)

        def one(t, k):
            return squares([x / tau for x in t], k, lambda n, true: true + (delta if n != k else 0), 7.0)
    elif kind == "ReadoutCrossEntropy":
        temperature, smooth = pick.choice([0.1, 1.0, 5.0]), pick.choice([0.0, 0.2])
        loss = fs.ReadoutCrossEntropy(temperature, label_smoothing=smooth, **options)
        one = functools.partial(readout_entropy, temperature=mp.mpf(temperature), smooth=mp.mpf(smooth))
    else:
        correct, wrong = pick.uniform(0.5, 2), pick.uniform(-1, 0.4)
        loss = fs.ReadoutMSE(correct, wrong, **options)

        def one(v, k):
            return mp.fsum((x - (correct if n == k else wrong)) ** 2 for n, x in enumerate(v)) / 2

    return (
        values,
        lambda x: loss(x, drawn.labels),
        lambda x: reduced([one(t, k) for t, k in zip(x, labels, strict=True)], labels, options),
    )


def digits(x):
    x = x.double().tolist() if isinstance(x, torch.Tensor) else x
    return [digits(y) for y in x] if isinstance(x, list) else INF if x == INF else mp.mpf(x)


def moved(x, place, by):
    if not place:
        return x + by
    return [moved(y, place[1:], by) if k == place[0] else y for k, y in enumerate(x)]


KINDS = [
    "TimeCrossEntropy", "TimeMSE", "ShiftInvariantMSE", "VanRossum", "MatchedSpikes", "EarlyOutput", "LayerWindow",
    "ReadoutCrossEntropy", "ReadoutMSE", "ReadoutRegression",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(kind):
    found = Found()
    with DIGITS:
        for seed in range(PROBLEMS):
            drawn = Drawn(f"{kind} {seed}")
            x, function, exact = problem_of(kind, drawn)
            x.requires_grad_()
            value = function(x)
            (gradient,) = torch.autograd.grad(value, x) if value.requires_grad else (torch.zeros_like(x),)
            numbers, near = digits(x.detach()), NEAR[drawn.dtype]
            wanted = exact(numbers)
            size = (
                1 + abs(float(wanted)) + float((gradient.nan_to_num() * x.detach().nan_to_num(posinf=0.0)).abs().sum())
            )
            found.compare(f"values, {drawn.dtype}", seed, abs(float(mp.mpf(value.item()) - wanted)), near * size)
            step = mp.mpf(10) ** -15 * drawn.unit
            for place in itertools.product(*map(range, x.shape)):
                at = x.detach()[place].item()
                got = gradient[place].item() * drawn.unit
                if at == INF:
                    found.compare("gradients of no spikes", seed, abs(got), 0.0)
                    continue
                ends = [exact(moved(numbers, place, sign * step)) for sign in (1, -1)]
                slopes = sorted(float((y - z) / step * drawn.unit) for y, z in ((ends[0], wanted), (wanted, ends[1])))
                if kind == "MatchedSpikes" and drawn.grid:
                    continue  # of equally good pairings, it is the gradient of one
                scale = near * (size + float(gradient.abs().max()) * drawn.unit)
                off = max(slopes[0] - got, got - slopes[1])  # where sides differ, anything between is a derivative
                found.compare(f"gradients, {drawn.dtype}", seed, max(off, 0.0), scale + 1e-12)
            found.counts["problems"] += 1
    found.report(kind)
    assert not found.failures, "\n".join(found.failures[:10])


@pytest.mark.filterwarnings("ignore:times of shape .* are 0 and 1 only")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_smooth_counts(dtype):
    """Sums of sigmoids, and of their derivatives."""
    found = Found()
    with DIGITS:
        for seed in range(PROBLEMS):
            drawn = Drawn(f"smooth {seed}")
            drawn.dtype, pick, unit = dtype, drawn.random, mp.mpf(drawn.unit)
            trains, until, xi = drawn.trains(), pick.uniform(0.5, 3) * drawn.unit, pick.choice([0.01, 0.3]) * drawn.unit
            start = pick.choice([None, 0.3 * drawn.unit])
            trains.requires_grad_()
            values = SmoothCount(until, xi=xi, start=start)(trains)
            gradient = torch.zeros_like(trains)
            if trains.numel():
                (gradient,) = torch.autograd.grad(values.sum(), trains)

            for place in itertools.product(range(drawn.samples), range(drawn.outputs)):
                train = [t for t in digits(trains[place].detach()) if t < INF]
                ends = [mp.mpf(until)] + ([] if start is None else [mp.mpf(start)])
                parts = [[1 / (1 + mp.exp((t - end) / xi)) for t in train] for end in ends]
                wanted = mp.fsum(parts[0]) - mp.fsum(x for part in parts[1:] for x in part)
                # a sigmoid has as many digits as the difference of its times
                near = NEAR[dtype] * (1 + 4 * drawn.unit / xi)
                found.compare(
                    "values", seed, abs(float(wanted - mp.mpf(values[place].item()))), near * (1 + len(train))
                )
                for k, got in enumerate(gradient[place].tolist()):
                    slope = 0.0
                    if k < len(train):
                        slopes = [-part[k] * (1 - part[k]) / xi for part in parts]
                        slope = float((slopes[0] - sum(slopes[1:])) * unit)
                    scale = near * drawn.unit / xi
                    found.compare("gradients", seed, abs(got * drawn.unit - slope), scale * (k < len(train)))
            found.counts["problems"] += 1
    found.report(f"SmoothCount, {dtype}")
    assert not found.failures, "\n".join(found.failures[:10])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_numbers_of_spikes(dtype):
    """Of two layers, and as their gradient the mean number of spikes of each input over the threshold."""
    found = Found()
    for seed in range(min(PROBLEMS, 300)):
        drawn = Drawn(f"count {seed}")
        drawn.dtype, pick = dtype, drawn.random
        generator = torch.Generator().manual_seed(seed)
        threshold, options = pick.uniform(0.5, 2), {"generator": generator, "dtype": dtype, "overflow": "drop"}
        layers = [
            SpikeTrains(drawn.outputs, 3, 9, LIF(threshold=threshold), **options),
            SpikeTrains(3, 2, 9, LIF(threshold=threshold), **options),
        ]
        network, least, most = Network(*layers), pick.uniform(0, 3), pick.uniform(3, 6)
        record = network.record(drawn.trains() / drawn.unit)
        value = fs.SpikeCount(0.3, least, most)(record.output, None, network, record)
        gradients = torch.autograd.grad(value, [layer.weight for layer in layers])
        received, total = record.inputs, 0.0
        for layer, trains, by in zip(layers, record.layers, gradients, strict=True):
            arrived = [sum(received[b, i].isfinite().sum().item() for b in range(drawn.samples)) / drawn.samples
                       for i in range(received.shape[1])]  # fmt: skip
            rows = len(layer.weight)
            for j in range(rows):
                n = sum(trains[b, j].isfinite().sum().item() for b in range(drawn.samples)) / drawn.samples
                total += 0.3 * (max(least - n, 0) ** 2 + max(n - most, 0) ** 2) / rows
                slope = 0.3 * 2 * (max(n - most, 0) - max(least - n, 0)) / rows / threshold
                for got, charge in zip(by[j].tolist(), arrived, strict=True):
                    found.compare(
                        "gradients", seed, abs(got - slope * charge), 10 * NEAR[dtype] * (1 + abs(slope) * charge)
                    )
            received = trains
        found.compare("values", seed, abs(value.item() - total), 10 * NEAR[dtype] * (1 + total))
        found.counts["problems"] += 1
    found.report(f"SpikeCount, {dtype}")
    assert not found.failures, "\n".join(found.failures[:10])
