"""Random linear neurons over the whole legal space, for the package and for ``solved_linear``."""

import math
import random
import re
from decimal import Context, Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np
import torch

from firstspike import Neuron, first_spike_time
from firstspike.neurons import LIF, AdaptiveLIF
from firstspike.spiketime import TrainState, spike_window
from solved_linear import Cell, Flow, train

INF = math.inf
DTYPES = {"float64": torch.float64, "float32": torch.float32}
OPERATORS = ("first_spike_time", "spike_window", "spike_window", "pieces")


class Parameter(NamedTuple):
    values: list
    """One for each neuron."""
    form: str
    """``number``, ``shared`` or ``each``."""


class Problem:
    """Neurons, their inputs, and a call of the operator, as its seed says.

    ``leaves`` holds the tensors with a gradient, by names such as ``tau_syn 1``. ``written`` neurons are described by
    their equations.
    """

    def __init__(self, seed, dtype, backend="cpu", written=False):
        self.seed, self.name, self.dtype, self.backend, self.written = seed, dtype, DTYPES[dtype], backend, written
        self.random = pick = random.Random(seed)
        small = backend == "reference"
        self.operator = pick.choice(OPERATORS)
        self.samples = pick.choice([1, 2, 3])
        self.outputs = pick.choice([1, 2, 3] if small else [1, 2, 3, 5, 31, 33, 40])
        self.inputs, self.copies = pick.choice([1, 2, 3, 5, 8]), pick.choice([1, 1, 2, 3])
        self.copies = 1 if self.operator == "first_spike_time" else self.copies
        self.unit = 1.0 if pick.random() < 0.7 else 10 ** pick.uniform(-9, 9)
        self.level = 1.0 if pick.random() < 0.7 else 10 ** pick.uniform(-6, 6)
        self.decades = pick.choice([0.5, 1.5, 3.0] if small or written else [0.5, 1.5, 3.0, 6.0])
        self.form = pick.choice(["number", "shared", "each"])
        self.values: dict[str, Parameter] = {}
        self.times_so_far: list[float] = []
        self._draw_neuron()
        self._draw_inputs()
        self._draw_window()

    def rounded(self, x):
        return float(np.float32(x)) if self.dtype == torch.float32 else float(x)

    def add(self, name, value, form=None):
        """A parameter near a value: shared by all neurons, or of each."""
        form = self.form if form is None else form
        spread = [self.random.uniform(0.9, 1.1) if form == "each" else 1.0 for _ in range(self.outputs)]
        self.values[name] = Parameter([self.rounded(value * x) for x in spread], form)
        return value

    def tau(self, name):
        """A time constant, at times that of another."""
        chance = self.random.random()
        if self.times_so_far and chance < 0.2:
            value = self.random.choice(self.times_so_far) * (1 if chance < 0.15 else 1 + 1e-7)
        else:
            value = self.unit * 10 ** self.random.uniform(-self.decades / 2, self.decades / 2)
        self.times_so_far.append(value)
        return self.add(name, value)

    def _draw_neuron(self):
        pick, level = self.random, self.level
        mem = INF if pick.random() < 0.1 else self.tau("tau_mem")
        if mem == INF:
            self.add("tau_mem", INF, "number")

        def size(*taus):
            """The inverse of how high a current with these lifts the membrane."""
            return 1.0 if mem == INF else max(mem, *taus) / mem

        self.receptors = pick.choice([1, 1, 2, 2, 3])
        self.charges = []
        for k in range(self.receptors):
            syn, rise = self.tau(f"tau_syn {k}"), 0.0
            if pick.random() < 0.35:
                rise = syn if pick.random() < 0.2 else self.tau(f"tau_rise {k}")
            self.add(f"tau_rise {k}", rise, None if rise else "number")
            if rise == syn:
                self.values[f"tau_rise {k}"] = self.values[f"tau_syn {k}"]
            self.charges.append(level * size(syn, rise))
        self.add("threshold", level)
        kind = pick.choice(["plain", "plain", "adaptive"])
        self.adapts = kind == "adaptive"
        self.numbers = {"adaptation": pick.choice([0, 1, 2]), "threshold": pick.choice([0, 1, 2])}
        if not self.adapts:
            self.numbers = dict.fromkeys(self.numbers, 0)
        for k in range(self.numbers["adaptation"]):
            tau = self.tau(f"adaptation_tau {k}")
            rises = random.Random(self.seed + k).random() < 0.35
            rise = self.tau(f"adaptation_rise {k}") if rises else self.add(f"adaptation_rise {k}", 0.0, "number")
            self.add(f"adaptation_jump {k}", level * size(tau, rise) * pick.gauss(0.3, 0.4))
        for k in range(self.numbers["threshold"]):
            self.tau(f"threshold_tau {k}")
            self.add(f"threshold_jump {k}", level * pick.uniform(0, 1))
        resets = [0.0, 0.0, -pick.uniform(0, 2), pick.uniform(0, 0.8), None]
        reset = pick.choice(resets)
        if reset is not None:
            self.add("reset", level * reset, None if reset else "number")
        self.refractory = 0.0
        if pick.random() < 0.5 or (reset is None and not self.numbers["threshold"]):
            self.refractory = self.scale() * pick.choice([0.01, 0.3, 3.0])
        self.add("refractory", self.refractory, "number")
        self.bias = 0.0
        if mem != INF and pick.random() < 0.35:
            self.bias = level * pick.choice([pick.uniform(-1, 0.98), 1 + 10 ** pick.uniform(-6, 0.3)])
        self.add("bias", self.bias, None if self.bias else "number")

    def scale(self):
        """A time that is neither short nor long."""
        fast, slow = math.log(min(self.times_so_far)), math.log(max(self.times_so_far))
        return math.exp(self.random.uniform(fast, slow))

    def _draw_inputs(self):
        pick, count = self.random, self.inputs * self.copies
        scale = self.scale()
        times = sorted(pick.uniform(0, 4 * scale) for _ in range(count))
        if pick.random() < 0.25:  # a long gap
            gap, begin = max(self.times_so_far) * 10 ** pick.uniform(0, 4), pick.randrange(count)
            times = [t + gap * (k >= begin) for k, t in enumerate(times)]
        if pick.random() < 0.15:  # ties
            times = [round(t / scale * 4) * scale / 4 for t in times]
        shift = pick.choice([0.0, 0.0, -scale, 10 * scale])
        batch = []
        for _ in range(self.samples):
            some = [t * pick.uniform(0.95, 1.05) + shift for t in times]
            some = [INF if pick.random() < 0.05 else t for t in some]
            pick.shuffle(some)
            batch.append(some)
        self.latest = max((t for some in batch for t in some if t < INF), default=0.0)
        self.leaves: dict[str, torch.Tensor] = {}
        shape = (self.samples, self.inputs, self.copies)
        self.leaves["times"] = torch.tensor(batch, dtype=self.dtype).reshape(shape)
        self.by_sign = self.receptors == 2 and pick.random() < 0.4
        self.receptor = [pick.randrange(self.receptors) for _ in range(self.inputs)]
        amount = pick.choice([0.5, 1.0, 3.0])
        rows = []
        for _ in range(self.outputs):
            rows.append([])
            for i in range(self.inputs):
                share = amount * pick.gauss(0.5, 0.8)
                receptor = int(share <= 0) if self.by_sign else self.receptor[i]
                rows[-1].append(self.charges[receptor] * share)
        self.leaves["weight"] = torch.tensor(rows, dtype=self.dtype)
        if pick.random() < 0.3:
            delays = [[pick.uniform(0, scale) for _ in range(self.inputs)] for _ in range(self.outputs)]
            self.leaves["delay"] = torch.tensor(delays, dtype=self.dtype)
        self.span = max(scale, self.latest)

    def _draw_window(self):
        pick = self.random
        self.most = 1 if self.operator == "first_spike_time" else pick.choice([1, 2, 5, 15])
        self.most = 15 if self.operator == "pieces" else self.most
        self.start, self.until, self.cuts, self.has_state = None, INF, [], False
        if self.bias or self.written:
            self.start = 0.0
        if self.written:
            self.until = self.rounded(abs(self.latest) + self.scale() * pick.uniform(0.1, 10))
        if self.operator == "first_spike_time":
            return
        if self.operator == "pieces" or pick.random() < 0.5:
            self.until = self.rounded(abs(self.latest) * pick.uniform(0.5, 1.2) + self.scale() * pick.uniform(0.1, 3))
        if pick.random() < 0.4:
            self.has_state, self.start = True, self.rounded(pick.choice([0.0, 0.3, -0.5]) * abs(self.latest))
            if not self.start < self.until:
                self.start = self.rounded(self.until - self.span)
            self._draw_state()
        if self.operator == "pieces":
            begin = self.start if self.start is not None else min(0.0, self.until - self.span)
            cuts = {self.rounded(begin + (self.until - begin) * pick.random()) for _ in range(pick.choice([1, 2, 5]))}
            self.cuts = sorted(c for c in cuts if begin < c < self.until)

    def _draw_state(self):
        pick, shape = self.random, (self.samples, self.outputs)
        many = self.samples * self.outputs
        voltage = [self.level * pick.uniform(-1, 0.9) * 0.9 for _ in range(many)]
        self.leaves["voltage"] = torch.tensor(voltage, dtype=self.dtype).reshape(shape)
        columns = []
        for k in range(self.receptors):
            if self.values[f"tau_rise {k}"].values[0]:
                columns.append(self.charges[k])
            columns.append(self.charges[k])
        onsets = [bool(self.values[f"adaptation_rise {k}"].values[0]) for k in range(self.numbers["adaptation"])]
        columns += [self.level] * (len(onsets) + sum(onsets))
        current = [[0.5 * size * pick.gauss(0, 1) for size in columns] for _ in range(many)]
        for row in current:
            row += [self.level * pick.uniform(0, 1) for _ in range(self.numbers["threshold"])]
        found = torch.tensor(current, dtype=self.dtype).reshape(*shape, -1)
        self.leaves["current"] = found[..., 0] if self.closed else found
        left = [max(0.0, pick.uniform(-1, 1)) * self.scale() * (not self.written) for _ in range(many)]
        self.left = torch.tensor(left, dtype=self.dtype).reshape(shape)

    @property
    def closed(self):
        return not self.written and not self.neuron().components

    def equations(self, value):
        """The neuron of the package, by its equations."""
        lines, receptors, held = [], [], [] if "reset" not in self.values else ["v"]
        flow, threshold, reset = "dv/dt = -v*leak + bias*leak", "v > threshold_", "v = reset_" if held else ""
        for k in range(self.receptors):
            fed, flow = "", f"{flow} + y{k}/tau_syn_{k}"
            receptors.append(f"y{k}")
            if self.values[f"tau_rise {k}"].values[0]:
                lines.append(f"dr{k}/dt = -r{k} / tau_rise_{k}")
                receptors[k], fed = f"r{k}", f" + r{k}/tau_rise_{k}"
            lines.append(f"dy{k}/dt = -y{k}/tau_syn_{k}{fed}")
        for k in range(self.numbers["adaptation"]):
            fed, jumps, flow = "", f"a{k}", f"{flow} - a{k}/adaptation_tau_{k}"
            if self.values[f"adaptation_rise {k}"].values[0]:
                lines.append(f"do{k}/dt = -o{k} / adaptation_rise_{k}")
                fed, jumps = f" + o{k}/adaptation_rise_{k}", f"o{k}"
            reset = f"{reset}; {jumps} += adaptation_jump_{k}"
            lines.append(f"da{k}/dt = -a{k} / adaptation_tau_{k}{fed}")
        for k in range(self.numbers["threshold"]):
            threshold, reset = f"{threshold} + h{k}", f"{reset}; h{k} += threshold_jump_{k}"
            lines.append(f"dh{k}/dt = -h{k} / threshold_tau_{k}")
        given = {name.replace(" ", "_"): x for name, x in value.items()}
        given |= {"leak": 1 / given.pop("tau_mem"), "threshold_": given.pop("threshold")}
        given |= {"reset_": given.pop("reset")} if held else {}
        text = "\n".join([flow, *lines])
        used = {name: x for name, x in given.items() if re.search(rf"\b{name}\b", f"{text} {threshold} {reset}")}
        return Neuron(
            text, threshold=threshold, reset=reset, receptors=receptors, held=held, refractory=given["refractory"],
            **used,
        )  # fmt: skip

    def tensors(self):
        """Parameters with a gradient."""
        found = {}
        for name, (values, form) in self.values.items():
            if form != "number" and name != "refractory":
                found[name] = torch.tensor(values if form == "each" else values[0], dtype=self.dtype)
        return found

    def neuron(self, tensors=None):
        """The neuron of the package."""
        tensors = tensors or {}
        value = {name: tensors.get(name, x.values[0]) for name, x in self.values.items()}
        if self.written:
            return self.equations(value)
        several = range(self.receptors)
        syn, rise = ([value[f"{name} {k}"] for k in several] for name in ("tau_syn", "tau_rise"))
        given: dict[str, Any] = {name: value[name] for name in ("tau_mem", "threshold", "refractory", "bias")}
        given |= {"reset": value.get("reset"), "tau_rise": tuple(rise)}
        given |= {"tau_syn": tuple(syn)} if self.receptors > 1 else {"tau_syn": syn[0], "tau_rise": rise[0]}
        if not self.adapts:
            return LIF(**given)
        for name, count in self.numbers.items():
            given[f"{name}_tau"] = tuple(value[f"{name}_tau {k}"] for k in range(count))
            given[f"{name}_jump"] = tuple(value[f"{name}_jump {k}"] for k in range(count))
        if self.numbers["adaptation"]:
            given["adaptation_rise"] = tuple(value[f"adaptation_rise {k}"] for k in range(self.numbers["adaptation"]))
        return AdaptiveLIF(**given)

    def run(self):
        """Trains, the state at the end or None, who has more spikes, and the leaves."""
        leaves = {name: x.clone().requires_grad_() for name, x in (self.leaves | self.tensors()).items()}
        neuron = self.neuron(leaves)
        call: dict[str, Any] = {"delay": leaves.get("delay"), "backend": self.backend}
        if self.receptors > 1:
            call["receptor"] = "sign" if self.by_sign else self.receptor
        if self.operator == "first_spike_time":
            trains = first_spike_time(leaves["times"][..., 0], leaves["weight"], neuron, until=self.until, **call)
            return trains.unsqueeze(-1), None, None, leaves
        state, trains, more = None, [], False
        if self.has_state:
            state = TrainState(leaves["voltage"], leaves["current"], self.left, self.start)
        for until in [*self.cuts, self.until]:
            found = spike_window(
                leaves["times"], leaves["weight"], neuron, max_spikes=self.most, state=state, until=until,
                overflow="drop", **call,
            )  # fmt: skip
            state, more = found.state, found.overflows | more
            trains.append(found.trains)
        return torch.cat(trains, -1).sort(-1).values, state, more, leaves


def decimals(x):
    """Numbers as they are, in lists as they are in tensors."""
    x = x.detach().double().tolist() if isinstance(x, torch.Tensor) else x
    return [decimals(y) for y in x] if isinstance(x, list) else Decimal(x)


def numbers_of(problem, b, j):
    """All numbers that matter to a neuron in a sample, by their names."""
    found = {name: decimals(x.values[j]) for name, x in problem.values.items()}
    for name, x in problem.leaves.items():
        found[name] = decimals(x[b] if name == "times" else x[j] if name in ("weight", "delay") else x[b, j])
    if problem.has_state:
        found["left"] = decimals(problem.left[b, j])
    return found


def places_of(problem, name, b, j):
    """Where these are in the leaf of this name."""
    if name in problem.values:
        return j if problem.values[name].form == "each" else ()
    return b if name == "times" else j if name in ("weight", "delay") else (b, j)


def cell_of(problem, numbers):
    """The neuron for the solver."""

    def parts(name, *keys):
        return tuple(tuple(numbers[f"{name}_{key} {k}"] for key in keys) for k in range(problem.numbers[name]))

    synapses = tuple((numbers[f"tau_syn {k}"], numbers[f"tau_rise {k}"]) for k in range(problem.receptors))
    return Cell(
        numbers["tau_mem"], synapses, numbers["threshold"], numbers.get("reset"), numbers["refractory"],
        numbers["bias"], parts("adaptation", "tau", "jump", "rise"), parts("threshold", "tau", "jump"),
    )  # fmt: skip


def arrivals_of(problem, numbers):
    """The inputs for the solver."""
    found = []
    with localcontext(Context(prec=90)):
        for i, (times, weight) in enumerate(zip(numbers["times"], numbers["weight"], strict=True)):
            receptor = int(weight <= 0) if problem.by_sign else problem.receptor[i] if problem.receptors > 1 else 0
            delay = numbers["delay"][i] if "delay" in numbers else 0
            found += [(t + delay, receptor, weight) for t in times]
    return found


def solved(problem, numbers, rounded=None):
    """The truth for one neuron in one sample, with numbers that may differ a little from those of the problem."""
    state = None
    if problem.has_state:
        current = numbers["current"]
        state = [numbers["voltage"], *(current if isinstance(current, list) else [current])], numbers["left"]
    return train(
        Flow(cell_of(problem, numbers)), arrivals_of(problem, numbers), most=problem.most,
        start=None if problem.start is None else Decimal(problem.start), until=Decimal(problem.until), state=state,
        rounded=rounded,
    )  # fmt: skip
