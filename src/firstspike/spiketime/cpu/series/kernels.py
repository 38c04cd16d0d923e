"""Kernels for neurons from equations. A task is a part of the samples of one network. Its neurons go 32 at a time.

A call ends after a number of steps, for Python to look at signals and errors, and the next one goes on from there.
"""

# mypy: disable-error-code="no-untyped-def"
import math

from firstspike.spiketime.cpu.arrays import LANES
from firstspike.spiketime.cpu.lanes.kernels import GRADIENTS, NEURONS
from firstspike.spiketime.cpu.runtime.compiling import jit
from firstspike.spiketime.cpu.runtime.kernels import kernel, part_of
from firstspike.spiketime.cpu.series.expansion import WIDTH
from firstspike.spiketime.cpu.series.forward import begin, integrate
from firstspike.spiketime.cpu.series.unwind import ALL, LARGEST, OTHERS, WEIGHTS, unwind
from firstspike.spiketime.statuses import NO_ROOM

FORWARD = NEURONS.extended(
    "states slots coefficients once records room flow_size reset_size vector_states "
    "vector_slots vector_tops noted probes peaked keeps all_chunks limit",
    slot_values="real ensemble outputs slots",
    direct="int32 states",
    held="int32 states",
    flow="int32 flow_size",
    reset="int32 reset_size",
    found="int32 samples outputs 2",
    highest="real peaked outputs 4",
    # what is kept for the next call: how many pairs of a task are done
    progress="int64 all_chunks",
    turns="int64 threads",
    # what a thread works on
    # arrivals of a lane, and which lane's those are that a lane has
    order=f"int32 threads {LANES} events",
    arrival=f"real threads {LANES} events",
    **dict.fromkeys(("inside", "listed"), f"int32 threads {LANES}"),
    column="real threads events",
    work="real threads coefficients",
    x="real threads vector_states",
    own_slots="real threads vector_slots",
    tops="real threads vector_tops",
    vectors=f"real threads 2 {LANES}",
    polynomial=f"real threads 4 {WIDTH}",
    **dict.fromkeys(("now", "target", "free"), f"real threads {LANES}"),
    **dict.fromkeys(("sample", "neuron", "place", "count", "last", "comes"), f"int64 threads {LANES}"),
    **dict.fromkeys(("done", "entries", "status"), f"int64 threads {LANES}"),
    record=f"real threads {LANES} room noted",
)
BACKWARD = FORWARD.extended(
    "adjoint_size plain_adjoint_size excess_adjoint_size reset_adjoint_size by_slots by_time bounded asks_end "
    "delayed_parts vector_flows",
    adjoint="int32 adjoint_size",
    plain_adjoint="int32 plain_adjoint_size",
    excess_adjoint="int32 excess_adjoint_size",
    reset_adjoint="int32 reset_adjoint_size",
    **GRADIENTS,
    weight_parts="real all_chunks outputs inputs",
    delay_parts="real delayed_parts outputs inputs",
    slot_parts="real all_chunks outputs slots",
    refractory_parts="real all_chunks outputs",
    a="real threads vector_states",
    owed=f"real threads {LANES}",
    entry=f"int64 threads {LANES}",
    flows="real threads 5 vector_flows",
    slot_rows="real threads vector_slots",
    own_parts="real threads vector_slots",
    largest=f"real threads most {LANES}",
)


@jit
def next_ones(g, slot, task):
    """Put the next neurons of a task into the lanes, and take them to the end; returns how many, or 0 to stop."""
    samples = part_of(g.samples, g.all_chunks, task)
    first = samples[0] * g.outputs + g.progress[task]
    lanes = min(LANES, samples[1] * g.outputs - first)
    if lanes == 0 or g.turns[slot] >= g.limit:
        return 0
    g.progress[task] += lanes
    begin(g, slot, first, lanes)
    integrate(g, slot)
    return lanes


@kernel(FORWARD, following=f"{__name__}.backward_kernel")
def forward_kernel(dtype: str):
    """The forward kernel of neurons from equations."""

    @jit
    def run(g, slot, task):
        while True:
            lanes = next_ones(g, slot, task)
            if lanes == 0:
                return
            for lane in range(lanes):
                b, j = g.sample[slot, lane], g.neuron[slot, lane]
                g.found[b, j, 0], g.found[b, j, 1] = g.entries[slot, lane], g.status[slot, lane]
                if g.ends != 0:
                    g.end_voltage[b, j] = g.x[slot, lane]
                    for k in range(1, g.states):
                        g.end_current[b, j, k - 1] = g.x[slot, k * LANES + lane]
                    left = g.free[slot, lane] - g.bounds[1]
                    g.end_left[b, j] = left if 0 < left < math.inf and g.overflows[b, j] == 0 else 0.0

    return (run,)


@kernel(BACKWARD)
def backward_kernel(dtype: str):
    """The backward kernel of neurons from equations."""

    @jit
    def run(g, slot, task):
        while True:
            lanes = next_ones(g, slot, task)
            if lanes == 0:
                return
            for lane in range(lanes):
                if g.status[slot, lane] == NO_ROOM:
                    g.refused = 1
                    return
            g.own_parts[slot] = 0
            if g.bounded == 0:
                unwind(g, slot, task, ALL, 0)
            else:
                g.largest[slot], most = 0, 0
                for lane in range(lanes):
                    most = max(most, g.count[slot, lane])
                for number in range(most):
                    unwind(g, slot, task, LARGEST, number)
                unwind(g, slot, task, OTHERS, 0)
                unwind(g, slot, task, WEIGHTS, 0)
            for lane in range(lanes):
                for k in range(g.slots):
                    g.slot_parts[task, g.neuron[slot, lane], k] += g.own_parts[slot, k * LANES + lane]

    return (run,)
