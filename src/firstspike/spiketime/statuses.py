"""Errors of neurons that have no result, most of them from equations."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int
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
    """Raise a ValueError for neurons without a result, whose equations have that key, if they have any."""
    wrong = found > WAITED
    if bool(wrong.any()):
        e, b, j = wrong.nonzero()[0].tolist()
        which = f"neuron {j} in sample {b}" + (f" of network {e}" if len(found) > 1 else "")
        equations = f" ({'; '.join(str(equations_of(key)).splitlines())})" if key else ""
        raise ValueError(f"{which} has no spike times: {_WRONG[int(found[e, b, j])]}{equations}")


def check_repeated(trains: Float[Tensor, "E B O spikes"], may: Bool[Tensor, "E O"]) -> None:
    """Raise a ValueError for linear neurons whose resets ``may`` be above the threshold, if two spikes are at once."""
    again = trains.diff(dim=-1) <= 4 * torch.finfo(trains.dtype).eps * trains[..., 1:].abs()
    again = (again & trains[..., 1:].isfinite()).any(dim=-1) & may.unsqueeze(1)
    check_statuses(torch.where(again, RESET_ABOVE, FINE), "")


def check_gradients(found: Iterable[Tensor], grads: Iterable[Tensor], key: str) -> None:
    """Raise a ValueError for gradients that are not finite though those that the loss has are."""
    if not all(bool(x.isfinite().all()) for x in found) and all(bool(x.isfinite().all()) for x in grads):
        equations = "; ".join(str(equations_of(key)).splitlines())
        raise ValueError(f"neurons have no gradient: their states pass a pole or a quotient 0 / 0 ({equations})")
