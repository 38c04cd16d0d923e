"""The arguments of all kernels of neurons that share the order of arrival and the time constants."""

from firstspike.spiketime.cpu.arrays import N_CONSTANTS, SAVED, TILE, states
from firstspike.spiketime.cpu.rows import adjoint
from firstspike.spiketime.cpu.rows.entries import TRAIN_STATE
from firstspike.spiketime.cpu.rows.intervals import BLOCK, N_BACKWARD, N_FORWARD, STATE
from firstspike.spiketime.cpu.rows.train_blocks import N_SOLVED
from firstspike.spiketime.cpu.runtime.kernels import Layout
from firstspike.spiketime.cpu.sort import SORTING

_SHAPE = "ensemble batch outputs", ""
TRAINS = {
    "bounds": "real bounds_size",
    "reset": "real ensemble outputs",
    **states("", *_SHAPE),
    **states("end_", *_SHAPE),
}
"""Arrays that both kernels of trains have: starts and ends of windows, resets, states at the start and the end."""
KEPT = {
    "order": "int32 ensemble batch room",
    "source": "int32 ensemble batch room",
    "arrival": "real ensemble batch room",
    "starts": "int32 ensemble batch bounds_size",
    "count": "int32 ensemble batch windows",
    "found": "int32 ensemble batch entries",
    "places": "int32 ensemble batch entries",
    "moments": "real ensemble batch entries",
    "slopes": "real ensemble batch entries",
    "upto": "int32 ensemble batch parts_size",
    "full": "int64 ensemble batch tiles windows",
}
"""Arrays that the forward kernel leaves for the backward one.

Of each sample, they are its events, where each window's begin and how many there are; the ``entries.Entries`` of all
tiles, where those of each window and tile begin, and which neurons would spike too often in it, as bits.
"""
_FORWARD = Layout(
    "ensemble batch inputs outputs block threads tiles packed_size stride windows sorting",
    c=f"real {N_CONSTANTS}",
    weight="real ensemble outputs inputs",
    threshold="real ensemble outputs",
    packed="real ensemble tiles packed_size",
    rows=f"real threads block {N_FORWARD} stride",
    ends="int32 threads block stride",
    start="real threads stride",
    segments="int32 threads block",
    **SORTING,
)
FORWARD = _FORWARD.extended(
    "n_saved",
    times="real ensemble batch inputs",
    **SAVED,
    spikes="real ensemble batch outputs",
    state=f"real threads {len(STATE.split()) * TILE}",
    passed=f"real threads 2 {max(BLOCK, 1) * TILE}",
    fast="int32 threads block",
    lane_last=f"int32 threads {TILE}",
    places=f"int32 threads {TILE}",
)
TRAIN_FORWARD = _FORWARD.extended(
    "copies most seen budget events room waiting entries bounds_size parts_size holds carried_lanes",
    **TRAINS,
    **KEPT,
    lag="real 1",
    times="real ensemble batch events",
    refractory="real ensemble outputs",
    observed="real ensemble batch outputs seen",
    trains="real ensemble batch outputs most",
    overflows="uint8 ensemble batch outputs",
    lacks="int32 ensemble batch",
    counts="int32 threads block outputs",  # of spikes
    outside="real threads block events",  # input spikes in order of arrival, how many, and which one comes next
    outside_order="int32 threads block events",
    arrived="int32 threads block",
    at_event="int32 threads block",
    own="real threads block waiting",  # times at which own spikes arrive, in any order, whose
    # spikes they are, and how many
    own_id="int32 threads block waiting",
    own_neuron="int32 threads block waiting",
    owns="int32 threads block",
    own_sorted="real threads waiting",
    own_order="int32 threads waiting",
    carried="real threads block 3 carried_lanes",
    state=f"real threads {len(TRAIN_STATE.split()) * TILE}",
    solved=f"real threads {N_SOLVED}",
    lanes=f"int32 threads {TILE}",
    hits=f"int32 threads {TILE}",
    totals="int32 threads 2",
)


_BACKWARD = Layout(
    "ensemble batch inputs outputs events groups time_groups chunks weight_chunks threads tiles packed_size room "
    "windows",
    c=f"real {N_CONSTANTS}",
    weight="real ensemble outputs inputs",
    threshold="real ensemble outputs",
    packed="real ensemble tiles packed_size",
    unit="real ensemble outputs",
    rows=f"real ensemble batch {N_BACKWARD} room",
    ends="int32 ensemble batch room",
    weight_parts="real ensemble weight_chunks tiles packed_size",
    times_parts="real ensemble time_groups batch room",
    threshold_parts="real ensemble chunks outputs",
    by_weight="real ensemble outputs inputs",
    by_times="real ensemble batch events",
    by_threshold="real ensemble outputs",
    state=f"real threads {adjoint.N_LANES}",
    sums="real threads 256",
)
BACKWARD = _BACKWARD.extended(
    "sorting n_saved observes",
    grad="real ensemble batch outputs",
    spikes="real ensemble batch outputs",
    times="real ensemble batch events",
    **SAVED,
    segments="int32 ensemble batch",
    used="int32 ensemble batch",
    start="real threads room",
    joins="uint64 threads room",
    places=f"int32 threads {TILE}",
    **SORTING,
)
TRAIN_BACKWARD = _BACKWARD.extended(
    "most budget asks_end holds entries asked_size bounds_size parts_size carried_lanes slots",
    **TRAINS,
    **KEPT,
    grad="real ensemble batch outputs most",
    **states("of_", *_SHAPE),
    start="real ensemble batch room",
    segments="int32 ensemble batch windows",
    asked="real ensemble batch asked_size",  # the gradient with respect to each entry, and room for 16 more
    carried="real ensemble batch 3 carried_lanes",  # between two windows: y, C and PULL
    seen="int32 ensemble batch outputs",
    **states("by_", *_SHAPE),
    reset_parts="real ensemble chunks outputs",
    by_reset="real ensemble outputs",
    lanes=f"int32 threads {TILE}",
    totals="int32 threads 2",
    rows_of="int32 threads slots",
    places_of="int32 threads slots",
    all_spikes=f"real threads {adjoint.N_SPIKES} slots",
)
