"""A row of the table: something public, random problems for it, and which invariances do not apply, and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from problems import Outputs, Problem, Setting

from firstspike.layers import Network

BOTH = ("reference", "cpu")
SHIFTS = (0.3, -0.7, -5.0, 64.0, -1000.0, 3e4)

NO_WEIGHTS = "has no weights"
NO_STATE = "keeps no state that a second call could take up"
NO_BUDGET = "has no budget of spikes"
NO_OBSERVED = "takes no observed times"
NO_NETWORK = "is no layer of a network"
ONE_BACKEND = "is plain PyTorch, the same for all backends"
ONE_TO_ONE = "each of its inputs is an output of its own; permuted as neurons"
PASSES_ON = "passes times on to neurons, readouts or losses, which refuse them"


@dataclass(frozen=True, eq=False)
class Row:
    """One thing that the invariances are tested for.

    Args:
        name: of the row.
        make: a problem for a setting; those of other members differ in their tensors only.
        covers: public names that this row is for.
        excused: for each invariance that does not apply, the reason.
        backends: that it can be computed with.
        slow: whether also the CPU kernels are not fast, so that problems are small.
        shifts: in time that it is tested with.
        observed: the output that may be observed.
        empty: whether there may be no inputs, or none with a spike.
        pieces: the outputs, computed in pieces that end at these times.
        network: the layers of a problem, for those that are layers.
        others: options that another member of an ensemble may have.
        unchecked: values that are passed on without a look at them.
        often: how many times as many problems as of other rows.
    """

    name: str
    make: Callable[[Setting, int], Problem]
    covers: tuple[str, ...] = ()
    excused: Mapping[str, str] = field(default_factory=dict)
    backends: tuple[str, ...] = BOTH
    slow: bool = False
    shifts: tuple[float, ...] = SHIFTS
    empty: bool = False
    observed: str | None = None
    pieces: Callable[[Problem, list[float], str], Outputs] | None = None
    network: Callable[..., Network] | None = None
    parameters: Callable[[Mapping[str, Any]], Outputs] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    unchecked: tuple[str, ...] = ()
    often: int = 1
