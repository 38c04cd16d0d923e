"""Errors of neurons from equations, which then have no result."""

from collections.abc import Iterable

from jaxtyping import Int
from torch import Tensor

from firstspike.neurons.equations import equations_of

FINE, WAITED, STUCK_STEP, NOT_FINITE, RESET_ABOVE, NO_ROOM = range(6)

_WRONG = {
    STUCK_STEP: "the steps of its series become too small: its equations have a pole, or rates that are much too fast",
    NOT_FINITE: "its states are not finite: they grow without bound before the threshold, or leave what log, "
    "powers or a quotient allow",
    RESET_ABOVE: "it is above its threshold right after its reset; lower the reset, or give it a refractory time",
}


def check_statuses(found: Int[Tensor, "E B O"], key: str) -> None:
    """Raise a ValueError for neurons without a result, whose equations have that key."""
    wrong = found > WAITED
    if bool(wrong.any()):
        e, b, j = wrong.nonzero()[0].tolist()
        which = f"neuron {j} in sample {b}" + (f" of network {e}" if len(found) > 1 else "")
        equations = "; ".join(str(equations_of(key)).splitlines())
        raise ValueError(f"{which} has no spike times: {_WRONG[int(found[e, b, j])]} ({equations})")


def check_gradients(found: Iterable[Tensor], grads: Iterable[Tensor], key: str) -> None:
    """Raise a ValueError for gradients that are not finite though those that the loss has are."""
    if not all(bool(x.isfinite().all()) for x in found) and all(bool(x.isfinite().all()) for x in grads):
        equations = "; ".join(str(equations_of(key)).splitlines())
        raise ValueError(f"neurons have no gradient: their states pass a pole or a quotient 0 / 0 ({equations})")
