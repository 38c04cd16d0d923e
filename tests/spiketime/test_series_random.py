"""Neurons from random equations against a solver for ordinary differential equations: no spike is missed."""

import random

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from firstspike import Neuron
from firstspike.spiketime import spike_window

STATES = ("v", "u", "i")
UNTIL, GRID = 6.0, 3000
UNARY = {"sin": np.sin, "cos": np.cos, "tanh": np.tanh}


def tree(gen, depth):
    """A random formula: its text, and a function of the states."""
    if depth == 0 or gen.random() < 0.1:
        if gen.random() < 0.3:
            number = round(gen.uniform(-2, 2), 3)
            return f"({number})", lambda x: number
        k = gen.randrange(len(STATES))
        return STATES[k], lambda x: x[k]
    operation = gen.choice(["+", "-", "*", "/", "exp", "power", *UNARY])
    one, f = tree(gen, depth - 1)
    if operation in UNARY:
        return f"{operation}({one})", lambda x: UNARY[operation](f(x))
    if operation == "exp":
        return f"exp(sin({one}))", lambda x: np.exp(np.sin(f(x)))
    if operation == "power":
        return f"sqrt(1 + ({one})**2)", lambda x: np.sqrt(1 + f(x) ** 2)
    other, g = tree(gen, depth - 1)
    if operation == "/":
        return f"({one}) / (1.5 + tanh({other}))", lambda x: f(x) / (1.5 + np.tanh(g(x)))
    if operation == "*":
        return f"({one}) * ({other})", lambda x: f(x) * g(x)
    if operation == "+":
        return f"({one}) + ({other})", lambda x: f(x) + g(x)
    return f"({one}) - ({other})", lambda x: f(x) - g(x)


class Random:
    """A neuron, and inputs for it."""

    def __init__(self, seed):
        gen = random.Random(seed)
        (one, f), (other, g), (jump, r), (bend, e) = (tree(gen, gen.choice([2, 3, 4])) for _ in range(4))
        tau, fast, self.level = gen.uniform(0.3, 1.5), gen.uniform(2, 8), gen.uniform(0.3, 0.9)
        self.refractory = gen.choice([0.0, 0.1])
        self.neuron = Neuron(
            f"dv/dt = (2*tanh({one}) - v + i + sin(fast*u)) / tau; du/dt = 2*sin({other}) - u; di/dt = -i/0.5",
            threshold=f"v + 0.3*sin({bend}) > level", reset=f"v = -0.5 + 0.1*tanh({jump}); u += 0.3", receptors=["i"],
            refractory=self.refractory, tau=tau, fast=fast, level=self.level,
        )  # fmt: skip

        def flow(x, held):
            dv = (2 * np.tanh(f(x)) - x[0] + x[2] + np.sin(fast * x[1])) / tau
            return [0.0 if held else dv, 2 * np.sin(g(x)) - x[1], -x[2] / 0.5]

        self.flow = flow
        self.excess = lambda x: x[0] + 0.3 * np.sin(e(x)) - self.level
        self.reset = lambda x: [-0.5 + 0.1 * np.tanh(r(x)), x[1] + 0.3, x[2]]
        self.inputs = sorted((gen.uniform(0, UNTIL), gen.choice([-1, 1, 2]) * gen.uniform(0.5, 2)) for _ in range(5))

    def spikes(self):
        """By pieces of fine solutions, on a fine grid."""
        now, x, free, queue, found = 0.0, [0.0] * 3, 0.0, list(self.inputs), []
        while True:
            while queue and queue[0][0] <= now:
                x = [x[0], x[1], x[2] + queue.pop(0)[1]]
            if now >= UNTIL:
                return found
            held = now < free
            end = min([UNTIL, *(t for t, _ in queue[:1]), *([free] if held else [])])
            done = solve_ivp(
                lambda _, y, held=held: self.flow(y, held), (now, end), x, "DOP853", rtol=1e-13, atol=1e-14,
                dense_output=True,
            ).sol  # fmt: skip
            here = None
            if not held:
                grid = np.linspace(now, end, GRID)
                rises = np.flatnonzero(self.excess(done(grid)) >= 0)
                if len(rises):  # at once, where an input lifts the neuron over its threshold
                    k = int(rises[0])
                    here = (
                        brentq(lambda t, done=done: self.excess(done(t)), *grid[k - 1 : k + 1], xtol=1e-14)
                        if k
                        else now
                    )
            x = list(done(end if here is None else here))
            if here is None:
                now = end
                continue
            found.append(here)
            now, x = here, self.reset(x)
            free = now + self.refractory


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(k, marks=pytest.mark.exhaustive) for k in range(2, 64))])
def test_no_spike_of_random_equations_is_missed(seed):
    problem = Random(seed)
    wanted = problem.spikes()
    times = torch.tensor([[[t] for t, _ in problem.inputs]], dtype=torch.float64)
    weight = torch.tensor([[w for _, w in problem.inputs]], dtype=torch.float64)
    trains = spike_window(times, weight, problem.neuron, max_spikes=100, until=UNTIL).trains[0, 0]
    found = trains[trains.isfinite()].tolist()
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)
