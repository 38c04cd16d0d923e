"""What a walk through the inputs asks of a neuron between two of them: one function here, one for each flow.

A kernel is compiled for ``closed`` neurons, whose membrane has one current and one maximum, or for ``linear`` ones, of
any number of exponentials. States are those of 32 lanes, in units of the thresholds: of closed neurons vectors in
registers, of linear ones the number of a buffer. Times are vectors in the unit of the group.
"""

# mypy: disable-error-code="no-untyped-def"
from collections.abc import Callable
from functools import wraps
from typing import Any

from firstspike.spiketime.cpu.lanes import closed, linear, linear_back, search
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type

FLOWS = {"closed": (closed,), "linear": (linear, search, linear_back)}


def _chosen_by_flow(described: Callable[..., Any]) -> Any:
    """The function of this name of the flow that a kernel is for."""

    @wraps(described)
    def choose(*args: Any) -> Any:
        name = described.__name__
        return next(getattr(x, name) for x in FLOWS[args[0].kind[0]] if hasattr(x, name)).py_func

    return chosen_by_type(choose)


@_chosen_by_flow
def constants(g, at):
    """The constants ``c`` of a group."""


@_chosen_by_flow
def at_rest(g, at, number):
    """The state of first spikes at the start, in a buffer."""


@_chosen_by_flow
def loaded(g, at, number):
    """The state in a buffer."""


@_chosen_by_flow
def stored(g, at, x):
    """The number of the buffer that a state is in, or is written to."""


@_chosen_by_flow
def receive(g, at, x, receptor, w):
    """The state after an input of weights ``w`` to a receptor."""


@_chosen_by_flow
def step(g, at, c, x, wait, is_brief):
    """The state after a time without events, and bounds up to then, to rounding.

    They are of V / threshold, and of by how much V exceeds what is left of a reset at any time.
    """


@_chosen_by_flow
def step_after(g, at, c, x, k, wait, is_brief):
    """``step`` from input ``k`` to the next one, of neurons with the same order of arrival."""


@_chosen_by_flow
def pass_quiet(g, at, c, x, k, n, keys, values, source, active):
    """Take the state through inputs from ``k`` on, as long as no active lane may spike; the last of these inputs."""


@_chosen_by_flow
def above(g, at, x):
    """Lanes that are at their threshold or above."""


@_chosen_by_flow
def decide(g, at, c, x, after, wait, candidates):
    """The candidates that surely reach the threshold before ``after``, those that may, and the latest time for it."""


@_chosen_by_flow
def solve(g, at, c, x, limit, lanes):
    """Which lanes reach the threshold up to ``limit``, when, and how fast V and the threshold approach there."""


@_chosen_by_flow
def to_spike(g, at, c, x, s, is_brief):
    """The state at the time of spikes, but for V of closed neurons, which is the threshold there."""


@_chosen_by_flow
def leap(g, at, c, x, after, s, wait, slope, lanes, holds):
    """Let lanes spike once on the way to ``after``, and go on or be held until then.

    UP becomes dV/dt behind the spikes.
    """


@_chosen_by_flow
def slope_of(g, at, c, x):
    """How fast V and the threshold approach where V is at the threshold."""


@_chosen_by_flow
def up_of(g, at, c, x):
    """dV/dt, of closed neurons at the reset."""


@_chosen_by_flow
def held(g, at, x, lanes):
    """The state with some lanes at the reset, of neurons that are reset."""


@_chosen_by_flow
def jumped(g, at, x, lanes):
    """The state with the jumps of a spike of some lanes."""


@_chosen_by_flow
def merge(g, at, lanes, x, y):
    """The state ``x`` in some lanes and ``y`` in the others, where ``y`` was."""


@_chosen_by_flow
def settled(g, at, spike, slope, lanes):
    """Slopes at first spikes, anew where few digits are left of them."""


@_chosen_by_flow
def reload(g, at):
    """Backward: the adjoint of the rows of the state, see ``adjoint``."""


@_chosen_by_flow
def now_of(g, at, x):
    """Where the lanes are."""


@_chosen_by_flow
def save(g, at, x, rows, place):
    """Store an adjoint in other rows."""


@_chosen_by_flow
def back(g, at, c, x, target, is_brief, bounds, taus):
    """The adjoint at ``target``, where that is earlier."""


@_chosen_by_flow
def reached(g, at, c, x, i, w):
    """The adjoint of what an input reaches, that of what this feeds, and its rate."""


@_chosen_by_flow
def piece_at(g, at, first):
    """The piece that ``save`` stored there, for ``back_at``."""


@_chosen_by_flow
def back_at(g, at, c, last, first, size, target, inside, i, w, bounds, taus):
    """``reached`` at ``target``, from the piece ``last`` at ``first``, or those that follow up to ``size``."""


@_chosen_by_flow
def add_taus(g, at, x, place, i, w):
    """Add an input's gradients with respect to time constants. Those of linear neurons are in rows from a place on."""


@_chosen_by_flow
def pass_back(g, at, c, k, due, keys, source):
    """Add the gradients of inputs from ``k`` back, as long as no event is DUE; the input before these."""
