"""What a walk through the inputs asks of a neuron between two of them: one function here, one for each flow.

A kernel is compiled for ``closed`` neurons, whose membrane has one current and one maximum, or for ``linear`` ones, of
any number of exponentials. States are those of 32 lanes, in units of the thresholds: of closed neurons vectors in
registers, of linear ones the number of a buffer. Times are vectors in the unit of the group.
"""

from functools import wraps
from typing import Any

from firstspike.spiketime.cpu.lanes import closed, linear, linear_back, search
from firstspike.spiketime.cpu.runtime.compiling import chosen_by_type

FLOWS = {"closed": (closed,), "linear": (linear, search, linear_back)}


def _of_flow(name: str) -> Any:
    """The function of this name of the flow that a kernel is for."""

    @wraps(getattr(closed, name).py_func)
    def choose(*args: Any) -> Any:
        return next(getattr(x, name) for x in FLOWS[args[0].kind[0]] if hasattr(x, name)).py_func

    return chosen_by_type(choose)


constants = _of_flow("constants")
"""The constants ``c`` of a group."""
at_rest = _of_flow("at_rest")
"""The state of first spikes at the start, in a buffer."""
loaded = _of_flow("loaded")
"""The state in a buffer."""
stored = _of_flow("stored")
"""The number of the buffer that a state is in, or is written to."""
receive = _of_flow("receive")
"""The state after an input of weights ``w`` to a receptor."""
step = _of_flow("step")
"""The state after a time without events, and bounds up to then, to rounding.

They are of V / threshold, and of by how much V exceeds what is left of a reset at any time.
"""
step_after = _of_flow("step_after")
"""``step`` from input ``k`` to the next one, of neurons with the same order of arrival."""
pass_quiet = _of_flow("pass_quiet")
"""Take the state through inputs from ``k`` on, as long as no active lane may spike; the last of these inputs."""
add_up = _of_flow("add_up")
"""The state with what is left of inputs, in rows of a size: in V, and from the third on in the receptors' currents."""
above = _of_flow("above")
"""Lanes that are at their threshold or above."""
decide = _of_flow("decide")
"""The candidates that surely reach the threshold before ``after``, those that may, and the latest time for it."""
solve = _of_flow("solve")
"""Which lanes reach the threshold up to ``limit``, when, and how fast V and the threshold approach there."""
to_spike = _of_flow("to_spike")
"""The state at the time of spikes, but for V of closed neurons, which is the threshold there."""
leap = _of_flow("leap")
"""Let lanes spike once on the way to ``after``, and go on or be held until then.

UP becomes dV/dt behind the spikes.
"""
slope_of = _of_flow("slope_of")
"""How fast V and the threshold approach where V is at the threshold."""
up_of = _of_flow("up_of")
"""dV/dt, of closed neurons at the reset."""
held = _of_flow("held")
"""The state with some lanes at the reset, of neurons that are reset."""
jumped = _of_flow("jumped")
"""The state with the jumps of a spike of some lanes."""
merge = _of_flow("merge")
"""The state ``x`` in some lanes and ``y`` in the others, where ``y`` was."""
settled = _of_flow("settled")
"""Slopes at first spikes, anew where few digits are left of them."""
reload = _of_flow("reload")
"""Backward: the adjoint of the rows of the state, see ``adjoint``."""
now_of = _of_flow("now_of")
"""Where the lanes are."""
save = _of_flow("save")
"""Store an adjoint in other rows."""
back = _of_flow("back")
"""The adjoint at ``target``, where that is earlier."""
reached = _of_flow("reached")
"""The adjoint of what an input reaches, that of what this feeds, and its rate."""
piece_at = _of_flow("piece_at")
"""The piece that ``save`` stored there, for ``back_at``."""
back_at = _of_flow("back_at")
"""``reached`` at ``target``, from the piece ``last`` at ``first``, or those that follow up to ``size``."""
add_taus = _of_flow("add_taus")
"""Add an input's gradients with respect to time constants. Those of linear neurons are in rows from a place on."""
pass_back = _of_flow("pass_back")
"""Add the gradients of inputs from ``k`` back, as long as no event is DUE; the input before these."""
