"""Random neurons from equations, for the package and, written once more, for ``solved_equations``."""

import math
import random
from typing import Any

import numpy as np
import torch

from firstspike import Neuron, first_spike_time
from firstspike.neurons import EIF, QIF, AdEx, AdLIF, ConductanceLIF, Izhikevich
from firstspike.spiketime import TrainState, spike_window
from solved_equations import Dynamics, train

DTYPES = {"float64": torch.float64, "float32": torch.float32}
OPERATORS = ("first_spike_time", "spike_window", "spike_window", "pieces")


def exp(x):
    return np.exp(np.minimum(x, 200.0))  # beyond the threshold the solver only looks for it


def synapses(p, currents):
    return [-i / p[f"tau_syn {k}"] for k, i in enumerate(currents)]


class Kind:
    """A kind of neuron: how its parameters are drawn, and its dynamics by their values ``p``."""

    make: Any
    others = ()
    """States between the membrane and the currents."""
    unit, weight = 1.0, 1.0
    """Usual sizes of times and weights."""
    conducts = False

    def parameters(self, pick):
        raise NotImplementedError

    def usual(self, pick, taus):
        """Of most kinds, in units in which the threshold is 1."""
        found = {"tau_mem": self.unit * taus(), "threshold": pick.uniform(0.6, 1.4), "reset": pick.uniform(-1, 0.4)}
        return found | {"bias": pick.choice([0.0, pick.uniform(-0.5, 1.3)])}

    def drive(self, p, currents):
        return sum(i / p[f"tau_syn {k}"] for k, i in enumerate(currents))

    def start(self, p):
        return [0.0] * (1 + len(self.others))

    def excess(self, x, p):
        return x[0] - p["threshold"]

    def after(self, x, p):
        return [p["reset"], *x[1:]]

    def level(self, p):
        """How large the membrane is."""
        return 1.0

    def states(self, found):
        """Those of the package, in the order of the dynamics."""
        return found

    def neuron(self, values, refractory, receptors):
        syn = tuple(values[f"tau_syn {k}"] for k in range(receptors))
        own = {name: x for name, x in values.items() if " " not in name}
        return self.make(**own, tau_syn=syn if receptors > 1 else syn[0], refractory=refractory)


class OfQIF(Kind):
    make = QIF

    def states(self, found):
        n, d, *rest = found
        return [n / d, *rest]

    def parameters(self, pick, taus):
        found = {"tau_mem": taus(), "bias": pick.uniform(-0.5, 1.0)}
        return found | {"threshold": pick.uniform(1.5, 30.0), "reset": pick.uniform(-30.0, 0.5)}

    def flow(self, x, p):
        v, *i = x
        return [(v * (v - 1) + p["bias"] + sum(i)) / p["tau_mem"], *synapses(p, i)]


class OfQIFAtInfinity(Kind):
    """With ``v = 1/2 + tan(x/2)``, whose spikes are at pi."""

    make = QIF

    def parameters(self, pick, taus):
        return {"tau_mem": taus(), "bias": pick.uniform(-0.5, 1.0)}

    def flow(self, x, p):
        angle, *i = x
        drive = p["bias"] + sum(i) - 0.25
        return [(1 - np.cos(angle) + (1 + np.cos(angle)) * drive) / p["tau_mem"], *synapses(p, i)]

    def start(self, p):
        return [2 * math.atan(-0.5)]

    def states(self, found):
        n, d, *rest = found
        return [2 * math.atan2(n - d / 2, d), *rest]

    def excess(self, x, p):
        return x[0] - math.pi

    def after(self, x, p):
        return [-math.pi, *x[1:]]


class OfEIF(Kind):
    make = EIF

    def parameters(self, pick, taus):
        v_t, delta = pick.uniform(0.7, 1.3), pick.choice([0.02, 0.1, 0.2, 0.4])
        found = self.usual(pick, taus) | {"v_t": v_t, "delta_t": delta}
        return found | {"threshold": v_t + delta * pick.uniform(0.5, 8.0)}

    def flow(self, x, p):
        v, *i = x
        upstroke = p["delta_t"] * exp((v - p["v_t"]) / p["delta_t"])
        return [(upstroke - v + p["bias"]) / p["tau_mem"] + self.drive(p, i), *synapses(p, i)]


class OfAdEx(Kind):
    make, others, unit, weight = AdEx, ("w",), 10.0, 900.0

    def parameters(self, pick, taus):
        e_l, v_t, delta = pick.uniform(-75.0, -60.0), pick.uniform(-54.0, -46.0), pick.choice([0.5, 2.0, 4.0])
        found = {"tau_mem": 10 * taus(), "c_m": pick.uniform(100.0, 400.0), "e_l": e_l, "v_t": v_t, "delta_t": delta}
        found |= {"threshold": v_t + delta * pick.uniform(0.5, 8.0), "reset": pick.uniform(-75.0, v_t - 2 * delta)}
        found |= {"tau_w": 30 * taus(), "a": pick.uniform(-2.0, 12.0), "b": pick.uniform(0.0, 150.0)}
        return found | {"bias": pick.choice([0.0, pick.uniform(-100.0, 800.0)])}

    def flow(self, x, p):
        v, w, *i = x
        upstroke = p["delta_t"] * exp((v - p["v_t"]) / p["delta_t"])
        leak = (upstroke - (v - p["e_l"])) / p["tau_mem"]
        rest = [(p["a"] * (v - p["e_l"]) - w) / p["tau_w"], *synapses(p, i)]
        return [leak + (p["bias"] + sum(i) - w) / p["c_m"], *rest]

    def start(self, p):
        return [p["e_l"], 0.0]

    def after(self, x, p):
        return [p["reset"], x[1] + p["b"], *x[2:]]

    def level(self, p):
        return 20.0


class OfIzhikevich(Kind):
    make, others, unit, weight = Izhikevich, ("u",), 10.0, 6.0

    def parameters(self, pick, taus):
        found = {"threshold": pick.uniform(0.0, 40.0), "c": pick.uniform(-70.0, -50.0), "d": pick.uniform(0.05, 9.0)}
        found |= {"a": pick.uniform(0.01, 0.2), "b": pick.uniform(0.1, 0.27)}
        return found | {"bias": pick.choice([0.0, pick.uniform(-2.0, 12.0)])}

    def flow(self, x, p):
        v, u, *i = x
        change = 0.04 * v * v + 5 * v + 140 - u + p["bias"] + sum(i)
        return [change, p["a"] * (p["b"] * v - u), *synapses(p, i)]

    def start(self, p):
        return [-70.0, -70 * p["b"]]

    def after(self, x, p):
        return [p["c"], x[1] + p["d"], *x[2:]]

    def level(self, p):
        return 50.0


class OfAdLIF(Kind):
    make, others = AdLIF, ("w",)

    def parameters(self, pick, taus):
        return self.usual(pick, taus) | {"tau_w": taus(), "a": pick.uniform(-0.5, 30.0), "b": pick.uniform(-0.2, 1.0)}

    def flow(self, x, p):
        v, w, *i = x
        rest = [(p["a"] * v - w) / p["tau_w"], *synapses(p, i)]
        return [(p["bias"] - v - w) / p["tau_mem"] + self.drive(p, i), *rest]

    def after(self, x, p):
        return [p["reset"], x[1] + p["b"], *x[2:]]


class OfConductanceLIF(Kind):
    make, conducts, weight = ConductanceLIF, True, 2.0

    def parameters(self, pick, taus):
        return self.usual(pick, taus)

    def neuron(self, values, refractory, receptors):
        reversal = tuple(self.reversals[:receptors])
        if receptors == 1:
            reversal = reversal[0]
        self.make = lambda **x: ConductanceLIF(**x, reversal=reversal)
        return super().neuron(values, refractory, receptors)

    reversals = (4.0, -0.5, 2.0)

    def flow(self, x, p):
        v, *g = x
        pull = sum(y * (e - v) for y, e in zip(g, self.reversals, strict=False))
        return [(p["bias"] - v + pull) / p["tau_mem"], *synapses(p, g)]


OWN = """
dv/dt = (drive - v - w + bias + bend*sin(4*u)) / tau_m; dw/dt = (a*tanh(v) - w) / tau_w
du/dt = (cos(v + w) - u) / tau_u; dh/dt = -h / tau_h
"""


class OfOwn(Kind):
    """With a rise, an adaptation, an oscillation and a threshold that moves, with a reset or without one."""

    others = ("w", "u", "h")

    def __init__(self, resets):
        self.resets = resets

    def parameters(self, pick, taus):
        found = {"tau_m": taus(), "tau_w": taus(), "tau_u": taus(), "tau_h": taus(), "a": pick.uniform(-0.5, 5.0)}
        found |= {"bias": pick.uniform(-0.3, 0.8), "bend": pick.uniform(-1.0, 1.0), "level": pick.uniform(0.5, 1.2)}
        found |= {"v_r": pick.uniform(-1.0, 0.2), "jump": pick.uniform(0.1, 1.0), "bump": pick.uniform(0.05, 0.8)}
        return found if self.resets else {name: x for name, x in found.items() if name != "v_r"}

    def neuron(self, values, refractory, receptors):
        lines = [OWN.replace("drive", " + ".join(f"i{k}" for k in range(receptors)))]
        lines += [f"di{k}/dt = (s{k} - i{k}) / (0.3*tau_s{k}); ds{k}/dt = -s{k} / tau_s{k}" for k in range(receptors)]
        values = {name.replace("tau_syn ", "tau_s"): x for name, x in values.items()}
        return Neuron(
            "\n".join(lines), threshold="v > level + h", refractory=refractory,
            reset="v = v_r; w += jump; h += bump" if self.resets else "w += jump; h += bump",
            receptors=[f"s{k}" for k in range(receptors)], held=["v"] if self.resets else [], **values,
        )  # fmt: skip

    def flow(self, x, p):
        v, w, u, h, *i = x
        drive = sum(i[0::2])
        found = [(drive - v - w + p["bias"] + p["bend"] * np.sin(4 * u)) / p["tau_m"]]
        found += [(p["a"] * np.tanh(v) - w) / p["tau_w"], (np.cos(v + w) - u) / p["tau_u"], -h / p["tau_h"]]
        for k, (one, other) in enumerate(zip(i[0::2], i[1::2], strict=True)):
            tau = p[f"tau_syn {k}"]
            found += [(other - one) / (0.3 * tau), -other / tau]
        return found

    def excess(self, x, p):
        return x[0] - p["level"] - x[3]

    def after(self, x, p):
        v = p["v_r"] if self.resets else x[0]
        return [v, x[1] + p["jump"], x[2], x[3] + p["bump"], *x[4:]]


class OfDelta(Kind):
    """Inputs move the membrane at once."""

    weight = 0.6

    def parameters(self, pick, taus):
        return {"tau_m": taus(), "rest": pick.uniform(-0.5, 1.2), "level": 1.0, "v_r": pick.uniform(-1.0, 0.4)}

    def neuron(self, values, refractory, receptors):
        values = {name: x for name, x in values.items() if " " not in name}
        return Neuron(
            "dv/dt = (rest - v) / tau_m; dw/dt = -w / 2", threshold="v - 0.3*w > level", reset="v = v_r; w += 0.5",
            receptors=["v", "w"][:receptors], refractory=refractory, **values,
        )  # fmt: skip

    def flow(self, x, p):
        return [(p["rest"] - x[0]) / p["tau_m"], -x[1] / 2]

    def excess(self, x, p):
        return x[0] - 0.3 * x[1] - p["level"]

    def after(self, x, p):
        return [p["v_r"], x[1] + 0.5]


KINDS = {
    "QIF": OfQIF(), "QIF at infinity": OfQIFAtInfinity(), "EIF": OfEIF(), "AdEx": OfAdEx(),
    "Izhikevich": OfIzhikevich(), "AdLIF": OfAdLIF(), "ConductanceLIF": OfConductanceLIF(), "own": OfOwn(True),
    "own, no reset": OfOwn(False), "delta": OfDelta(),
}  # fmt: skip


class Problem:
    """Neurons, their inputs, and a call of the operator, as its seed says."""

    def __init__(self, seed, dtype, backend="cpu"):
        self.seed, self.name, self.dtype, self.backend = seed, dtype, DTYPES[dtype], backend
        self.random = pick = random.Random(seed)
        self.kind_name = pick.choice(list(KINDS))
        self.kind = kind = KINDS[self.kind_name]
        self.operator = pick.choice(OPERATORS)
        self.samples, self.outputs = pick.choice([1, 2]), pick.choice([1, 2, 3])
        self.inputs, self.copies = pick.choice([1, 2, 4, 8]), pick.choice([1, 1, 2, 3])
        self.copies = 1 if self.operator == "first_spike_time" else self.copies
        self.receptors = pick.choice([1, 2, 2, 3] if self.kind_name != "delta" else [1, 2])
        decades = pick.choice([0.5, 1.0, 2.0])

        def taus():
            return 10 ** pick.uniform(-decades / 2, decades / 2)

        self.form = pick.choice(["number", "shared", "each"])
        self.values = {}
        drawn = kind.parameters(pick, taus) | {f"tau_syn {k}": kind.unit * 0.6 * taus() for k in range(self.receptors)}
        for name, value in drawn.items():
            factors = [pick.uniform(0.97, 1.03) if self.form == "each" else 1.0 for _ in range(self.outputs)]
            self.values[name] = [self.rounded(value * x) for x in factors]
        self.refractory = self.rounded(pick.choice([0.0, 0.0, 0.1, 1.0]) * kind.unit)
        if self.kind_name == "own, no reset":
            self.refractory = self.rounded(pick.choice([0.05, 0.3]))
        self._draw_inputs(max(x[0] for name, x in self.values.items() if name.startswith("tau")))

    def rounded(self, x):
        return float(np.float32(x)) if self.dtype == torch.float32 else float(x)

    def _draw_inputs(self, slowest):
        pick, kind, count = self.random, self.kind, self.inputs * self.copies
        scale = kind.unit * 10 ** pick.uniform(-0.3, 1.2)
        times = [pick.uniform(-0.05 * scale, scale) for _ in range(count)]
        if pick.random() < 0.15:
            times = [t + 5 * slowest * (t > scale / 2) for t in times]
        if pick.random() < 0.15:
            times = [round(t / scale * 8) * scale / 8 for t in times]
        batch = []
        for _ in range(self.samples):
            some = [math.inf if pick.random() < 0.05 else t * pick.uniform(0.95, 1.05) for t in times]
            pick.shuffle(some)
            batch.append(some)
        self.leaves = {"times": torch.tensor(batch, dtype=self.dtype).reshape(self.samples, self.inputs, self.copies)}
        self.receptor = [pick.randrange(self.receptors) for _ in range(self.inputs)]
        amount = kind.weight * pick.choice([0.5, 1.0, 2.0, 4.0])
        rows = [[amount * pick.gauss(0.5, 0.8) for _ in range(self.inputs)] for _ in range(self.outputs)]
        weight = torch.tensor(rows, dtype=self.dtype)
        self.leaves["weight"] = weight.abs() if kind.conducts else weight
        if pick.random() < 0.3:
            delays = [[pick.uniform(0, scale) for _ in range(self.inputs)] for _ in range(self.outputs)]
            self.leaves["delay"] = torch.tensor(delays, dtype=self.dtype)
        latest = max((t for some in batch for t in some if t < math.inf), default=0.0)
        self.until = self.rounded(max(latest, 0.0) * pick.uniform(0.7, 1.1) + scale * pick.uniform(0.1, 1.5))
        self.most = 1 if self.operator == "first_spike_time" else pick.choice([1, 3, 12])
        self.cuts = []
        if self.operator == "pieces":
            self.most = 12
            self.cuts = sorted({self.rounded(self.until * pick.random()) for _ in range(pick.choice([1, 2, 5]))})
            self.cuts = [c for c in self.cuts if 0 < c < self.until]

    def tensors(self):
        """Parameters with a gradient."""
        if self.form == "number":
            return {}
        each = self.form == "each"
        return {name: torch.tensor(x if each else x[0], dtype=self.dtype) for name, x in self.values.items()}

    def neuron(self, tensors):
        values = {name: tensors.get(name, x[0]) for name, x in self.values.items()}
        return self.kind.neuron(values, self.refractory, self.receptors)

    def run(self):
        """Trains, the state at the end or None, who has more spikes, and the leaves."""
        leaves = {name: x.clone().requires_grad_() for name, x in (self.leaves | self.tensors()).items()}
        neuron = self.neuron(leaves)
        call: dict[str, Any] = {"delay": leaves.get("delay"), "backend": self.backend}
        if self.receptors > 1:
            call["receptor"] = self.receptor
        if self.operator == "first_spike_time":
            found = first_spike_time(leaves["times"][..., 0], leaves["weight"], neuron, until=self.until, **call)
            return found.unsqueeze(-1), None, None, leaves
        state: TrainState | None = None
        trains, more = [], False
        for until in [*self.cuts, self.until]:
            window = spike_window(
                leaves["times"], leaves["weight"], neuron, max_spikes=self.most, state=state, until=until,
                overflow="drop", **call,
            )  # fmt: skip
            state, more = window.state, window.overflows | more
            trains.append(window.trains)
        return torch.cat(trains, -1).sort(-1).values, state, more, leaves


def numbers_of(problem, b, j):
    """All numbers that matter to a neuron in a sample, by their names."""
    found = {name: x[j] for name, x in problem.values.items()}
    for name, x in problem.leaves.items():
        found[name] = (x[b] if name == "times" else x[j]).double().tolist()
    return found


def places_of(problem, name, b, j):
    """Where these are in the leaf of this name."""
    if name in problem.values:
        return j if problem.form == "each" else ()
    return b if name == "times" else j


def solved(problem, numbers, again=True):
    """The truth for one neuron in one sample, with numbers that may differ a little from those of the problem."""
    kind, count = problem.kind, problem.receptors
    start = kind.start(numbers)
    first, stride = len(start), 2 if isinstance(kind, OfOwn) else 1
    places = [first + stride * (k + 1) - 1 for k in range(count)]
    if problem.kind_name == "delta":
        first, stride, start, places = 1, 1, [0.0, 0.0], [0, 1]
    else:
        start = start + [0.0] * (stride * count)
    sizes = [kind.level(numbers)] + [max(1.0, kind.weight / 10)] * (len(start) - 1)
    neuron = Dynamics(
        lambda x: kind.flow(x, numbers), lambda x: kind.excess(x, numbers), lambda x: kind.after(x, numbers),
        start, places, () if problem.kind_name == "own, no reset" else (0,), problem.refractory, sizes,
    )  # fmt: skip
    arrivals = []
    for i, (times, weight) in enumerate(zip(numbers["times"], numbers["weight"], strict=True)):
        delay = numbers["delay"][i] if "delay" in numbers else 0.0
        arrivals += [(t + delay, problem.receptor[i] if count > 1 else 0, weight) for t in times]
    return train(neuron, arrivals, most=problem.most, until=problem.until, again=again)
