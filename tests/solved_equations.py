"""Spikes of neurons from differential equations by scipy's DOP853, event by event: no code of the package.

The excess over the threshold is looked at between the solver's steps, too: at points of the dense solution, and at its
maxima between these. So a neuron that is above its threshold for less than a step is seen.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, minimize_scalar

POINTS = 8  # of the dense solution in each step
ACCURACY = {"rtol": 1e-13, "method": "DOP853", "dense_output": True}


class Dynamics(NamedTuple):
    """A neuron. States are lists of numbers, or of arrays."""

    flow: Callable
    """The derivatives of the states."""
    excess: Callable
    """What is 0 or more where the neuron spikes."""
    after: Callable
    """The states after a spike."""
    start: list
    receptors: list
    """The state that an input adds to, for each receptor."""
    held: tuple
    """The states that stand still in the refractory time."""
    refractory: float
    sizes: list
    """How large the states are."""


class Solved(NamedTuple):
    spikes: list
    more: bool
    """Whether there are more spikes than asked for."""
    end: list | None
    """The states and the rest of the refractory time at the end."""


class _Interval:
    """The solution from one event to the next, which ends where the threshold is reached."""

    def __init__(self, neuron, now, end, x, held, looks):
        def flow(_, y):
            found = neuron.flow(y)
            return [0.0 if held and k in neuron.held else v for k, v in enumerate(found)]

        def above(_, y):
            return neuron.excess(y)

        above.terminal, above.direction = True, 1
        self.neuron, self.flow = neuron, flow
        self.atol = [1e-14 * size for size in neuron.sizes]
        self.done = solve_ivp(flow, (now, end), x, events=above if looks else None, atol=self.atol, **ACCURACY)
        if self.done.status < 0:
            raise ArithmeticError(self.done.message)

    def crossing(self):
        """When the threshold is first reached, or None."""
        done, excess = self.done, self.neuron.excess

        def g(t):
            return float(excess(done.sol(t)))

        steps = done.t
        parts = np.linspace(0, 1, POINTS, endpoint=False)
        grid = np.unique(np.append((steps[:-1, None] + np.diff(steps)[:, None] * parts).ravel(), steps[-1]))
        values = np.asarray(excess(done.sol(grid)))
        found = math.inf
        for k in range(1, len(grid)):
            if values[k - 1] < 0 <= values[k] and k < len(grid) - 1:
                found = brentq(g, grid[k - 1], grid[k], xtol=1e-15)
                break
            if k + 1 < len(grid) and values[k - 1] <= values[k] >= values[k + 1] and values[k - 1] < 0:
                top = minimize_scalar(lambda t: -g(t), bounds=(grid[k - 1], grid[k + 1]), method="bounded",
                                      options={"xatol": 1e-9 * (grid[k + 1] - grid[k - 1])})  # fmt: skip
                if g(top.x) >= 0 and top.x < grid[-1]:
                    found = brentq(g, grid[k - 1], top.x, xtol=1e-15)
                    break
        if not math.isfinite(found):
            if done.status != 1:
                return None
            found = done.t_events[0][0]
        return found

    def exactly(self, time):
        """The time and the states at the threshold, which is reached about then: without the dense solution."""
        steps = self.done.t
        k = max(0, int(np.searchsorted(steps, time)) - 1)
        begin, x = steps[k], self.done.y[:, k]
        for _ in range(4):
            y = x
            if time > begin:
                y = solve_ivp(self.flow, (begin, time), x, atol=self.atol, rtol=1e-13, method="DOP853").y[:, -1]
            change = np.array(self.flow(time, y))
            step = 1e-4 * min(1.0, *(s / abs(c) for s, c in zip(self.neuron.sizes, change, strict=True) if c))
            slope = (self.neuron.excess(y + step * change) - self.neuron.excess(y - step * change)) / (2 * step)
            by = -float(self.neuron.excess(y) / slope)
            if not abs(by) < 1e-3 * (steps[-1] - steps[0]):  # it only just touches the threshold
                break
            time, y = time + by, y + by * change
            if abs(by) < 1e-14 * abs(time):
                break
        return time, list(y)


def train(neuron, arrivals, *, most, until, start=0.0, state=None, again=True):
    """Spikes of a neuron that begins at ``start``.

    Args:
        neuron: its dynamics.
        arrivals: ``(time, receptor, weight)``.
        most: largest number of spikes.
        until: when to stop.
        start: when to begin.
        state: the states then, and the rest of the refractory time.
        again: whether a neuron that is above its threshold when its refractory time ends spikes then. Otherwise it has
            to be below before.
    """
    queue = sorted((a for a in arrivals if start <= a[0] < until), reverse=True)
    x, left = (list(neuron.start), 0.0) if state is None else (list(state[:-1]), state[-1])
    now, free, spikes, released = start, start + left, [], False
    while now < until:
        below = neuron.excess(x) < 0
        while queue and queue[-1][0] <= now:
            _, receptor, weight = queue.pop()
            x[neuron.receptors[receptor]] += weight
        held = now < free
        end = min([until, *(a[0] for a in queue[-1:]), *([free] if held else [])])
        here = None
        if not held and neuron.excess(x) >= 0 and (again or below):
            if spikes and spikes[-1] == now and not released:
                raise ArithmeticError("above the threshold after a reset")
            here = now  # lifted by an input, or the refractory time ends
        else:
            interval = _Interval(neuron, now, end, x, held, not held)
            here = None if held else interval.crossing()
            if here is None:
                x = list(interval.done.y[:, -1])
                now, released = end, held and end == free
                continue
            here, x = interval.exactly(here)
        if len(spikes) == most:
            return Solved(spikes, True, None)
        spikes.append(here)
        now, x, released = here, list(neuron.after(x)), False
        free = now + neuron.refractory
    return Solved(spikes, False, [*x, max(free - until, 0.0)])
