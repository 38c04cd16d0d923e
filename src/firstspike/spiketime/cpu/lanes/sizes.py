"""The sizes of the kernels' arguments, which follow from what a call asks for."""

import math
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from firstspike.neurons.base import ROLES, receptors_of
from firstspike.spiketime.contract import Arguments, Sizes
from firstspike.spiketime.cpu.arrays import LANES, PAD, saved_size
from firstspike.spiketime.cpu.lanes.adjoint import BY_PARTS, EACH, N_OTHERS
from firstspike.spiketime.cpu.lanes.adjoint import PARTS as ADJOINT
from firstspike.spiketime.cpu.lanes.kernels import SAMPLES
from firstspike.spiketime.cpu.lanes.search import TERMS
from firstspike.spiketime.cpu.lanes.shared import EACH_ROW, FIRST
from firstspike.spiketime.cpu.lanes.state import BIAS, BUFFERS, N_BUFFERS, RISE, SYNAPSE, THRESHOLD
from firstspike.spiketime.cpu.runtime.parallel import name_of
from firstspike.spiketime.cpu.sort import sorting_for
from firstspike.spiketime.cpu.vectors.shuffles import rows_for
from firstspike.spiketime.shared import threads_for

PARTS, CHUNKS = 8, 4  # into which the sums over neurons and over samples are cut
_COST = {"closed": 4, "linear": 8}  # of a synapse, in units of one of the usual kernels. Trains cost twice as much
_KINDS = {kind: THRESHOLD if not role.sign else RISE if role.feeds else SYNAPSE for kind, role in ROLES.items()}
# kinds of components of states in registers
_QUICK = (SYNAPSE,), (SYNAPSE, SYNAPSE), (SYNAPSE, THRESHOLD), (SYNAPSE, BIAS), (RISE, SYNAPSE)


class Settings(NamedTuple):
    """What the sizes of a call follow from, but for those of its results."""

    real: str
    kinds: tuple[int, ...]
    """Of components; a plain LIF neuron has one."""
    places: tuple[int, ...]
    """Components of receptors."""
    closed: bool
    delayed: bool
    shape: Sizes
    taus: int
    """How many neurons have time constants of their own, 1 if all share them."""
    jumps: bool = False
    signed: bool = False
    copies: int = 1
    most: int = 0
    """Spikes, 0 for first spikes. This and what follows is of trains."""
    resets: bool = True
    starts: bool = False
    observes: bool = False
    holds: bool = False
    ends: bool = False
    recurs: bool = False
    threads: int = 1

    @property
    def kind(self) -> tuple[str, str, bool, bool]:
        """The kind of kernels of neurons on their own."""
        return self.real, "closed" if self.closed else "linear", self.delayed, self.most > 0


def settings_of(given: Arguments) -> Settings:
    """The settings of a call."""
    by = _settings_of(given)
    return by._replace(threads=threads_for(_work(by.shape, by.copies, by.most, _COST[by.kind[1]])))


def _settings_of(given: Arguments) -> Settings:
    real, several, syn = name_of(given.times.dtype), given.max_spikes > 0, given.tau_syn
    taus = given.threshold.numel()
    if not isinstance(syn, Tensor) or (not given.closed and taus > 0 and _alike(given)):
        taus = 1
    if given.closed:
        by = Settings(real, (SYNAPSE,), (0,), True, given.delay is not None, given.sizes, taus)
    else:
        kinds = (*(_KINDS[kind] for kind in given.components), *(BIAS,) * (given.bias is not None))
        places = tuple(receptors_of(given.components))
        by = Settings(real, kinds, places, False, given.delay is not None, given.sizes, taus)
        by = by._replace(jumps=any(ROLES[kind].own for kind in given.components), signed=given.receptor is None)
    if not several:
        return by
    observes = given.observed is not None
    holds = observes or bool((given.refractory > 0).any()) or (given.left is not None and bool((given.left > 0).any()))
    return by._replace(
        copies=given.times.shape[-1], most=given.max_spikes, resets=given.closed or given.resets,
        starts=given.voltage is not None, observes=observes, holds=holds, ends=given.until < math.inf,
        recurs=given.recurrence is not None,
    )  # fmt: skip


def _alike(given: Arguments) -> bool:
    """Whether all neurons have the same time constants."""
    parts, one = len(given.components) or 1, given.tau_mem
    assert isinstance(given.tau_syn, Tensor)
    several = [given.tau_syn.reshape(-1, parts), *([one.reshape(-1)] if isinstance(one, Tensor) else [])]
    return all(not len(x) or bool((x == x[0]).all()) for x in several)


def sizes_of_neurons(shape: Sizes, copies: int, most: int, receptors: int, variables: int, cost: int) -> dict[str, int]:
    """Most of the sizes of ``NEURONS``, where a synapse is this much work, in units of one of the usual kernels."""
    ensemble, batch, inputs, outputs = shape
    events = inputs * copies
    return {
        "ensemble": ensemble, "batch": batch, "samples": ensemble * batch, "inputs": inputs, "copies": copies,
        "events": events, "outputs": outputs, "most": max(1, most), "variables": variables, "receptors": receptors,
        **sorting_for(events), "threads": threads_for(_work(shape, copies, most, cost)),
    }  # fmt: skip


def _work(shape: Sizes, copies: int, most: int, cost: int) -> int:
    ensemble, batch, inputs, outputs = shape
    return (2 if most else 1) * cost * ensemble * batch * max(1, inputs * copies) * outputs


@lru_cache(maxsize=256)
def sizes_of(by: Settings) -> dict[str, int]:
    """The sizes of a forward pass."""
    ensemble, batch, inputs, outputs = by.shape
    groups, events, count = -(-outputs // LANES), inputs * by.copies, len(by.kinds)
    biased, several = by.kinds[-1] == BIAS, by.most > 0
    planes = 1 if by.signed else len(by.places)
    rows = rows_for.py_func(events) if by.delayed else 0
    alike = not (by.closed or by.delayed) and by.taus == 1
    sizes = sizes_of_neurons(by.shape, by.copies, by.most, len(by.places), count - biased, _COST[by.kind[1]])
    sizes["threads"] = by.threads
    return sizes | {
        "kept": sizes["threads"] * (groups if by.recurs else 1), "tables": sizes["threads" if by.recurs else "samples"],
        "delayed": outputs * by.delayed, "signed": by.signed, "observes": by.observes, "ends": by.ends,
        "starts": by.starts, "groups": groups, "all_groups": ensemble * groups,
        "group_inputs": inputs * LANES, "delay_inputs": inputs * LANES * by.delayed, "taus": by.taus, "count": count,
        "planes": planes, "reached_inputs": inputs if planes > 1 else 0, "sorted": rows,
        "sorted_keys": rows * LANES, "sorted_values": rows * LANES * planes,
        "padded": (events + PAD) * (several and not by.delayed), "releases": (by.most + 1) * several,
        "n_saved": 0 if several else saved_size(inputs, outputs), "holds": by.holds, "biased": biased,
        "resets": by.resets, "jumping": count * LANES * by.jumps,
        "alike": alike, "pairs": by.kinds in _QUICK[:2], "quick": alike and by.kinds in _QUICK,
        "rated": count * alike, **sizes_of_intervals(events, count * alike),
        "state_rows": BUFFERS + N_BUFFERS * (1 + count) * LANES,
        "series_rows": 0 if by.closed else (TERMS + count) * LANES, "blocks": -(-ensemble * batch // SAMPLES),
    }  # fmt: skip


def sizes_of_intervals(events: int, count: int) -> dict[str, int]:
    """Sizes of the table of intervals that neurons with the same constants share; 0 without components."""
    intervals = -(-(events + 1) // 16) * 16 * (count > 0)
    return {"intervals": intervals, "intervals_size": (FIRST + EACH_ROW * count) * intervals}


def sizes_back(
    by: Settings, sizes: dict[str, int], by_taus: bool, bounded: bool, asks_end: bool, most: int
) -> dict[str, int]:
    """Sizes of a backward pass, from those of the forward pass. No neuron has more than ``most`` spikes."""
    batch, count, groups = by.shape[1], len(by.kinds), sizes["groups"]
    parts, chunks = max(1, min(PARTS, groups)), max(1, min(CHUNKS, batch))
    adjoint, rows = ADJOINT + count * EACH, BY_PARTS + 2 * count * LANES
    return sizes | {
        "parts": parts, "chunks": chunks, "stride": -(-sizes["events"] // 16) * 16, "lanes": groups * LANES,
        "pieces_size": (2 * most + 2) * adjoint * by.delayed, "by_taus": by_taus, "bounded": bounded,
        "bounded_spikes": most * bounded, "largest_rows": most * LANES * bounded, "asks_end": asks_end,
        "rising": RISE in by.kinds, "scratch_place": adjoint + N_OTHERS, "state_rows": 2 * adjoint + N_OTHERS,
        "grown": sizes["delay_inputs"] * (by.closed and not by.most and not by_taus), "total_rows": rows,
        "joining": sizes["intervals"] * (not by.most),
    }  # fmt: skip
