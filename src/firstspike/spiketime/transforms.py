"""Support for ``torch.func`` with any backend: vmap and forward mode.

vmap folds a mapped dimension into that of the networks, or into the batch where nothing of the network is mapped.

Forward mode uses the backward pass, which sums over spikes, samples and, for the input times, over neurons. With one
spike of each neuron in one sample per network nothing is left to sum but that: the gradients with respect to weights,
delays, thresholds and time constants of ``sum_j T_j`` are the derivatives of each T_j alone, since neuron j has its
own. An input that shifts acts on neuron j like its delay there, so that the derivative with respect to the delay serves
for both. The tangent follows from these rows of the Jacobian by a sum over the inputs:

    dT_j = sum_i (dT_j/dw_ji dw_ji + dT_j/ddelay_ji (ddelay_ji + dt_i)) + dT_j/dthreshold_j dthreshold_j + ...

It is linear in the tangents, and computed exactly by the backward pass, with the same kernels. Of trains, each spike
and each number of the state at the end is a separate row, and each time of an input a separate input.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from firstspike.spiketime.contract import DIFFERENTIABLE, OF_SAMPLES, QUANTITIES, Needs, in_order

try:
    from torch._C._functorch import _add_batch_dim, _unwrap_batched, unwrap_if_dead
    from torch._functorch.autograd_function import VmapInfo
    from torch._functorch.pyfunctorch import VmapInterpreter, retrieve_current_functorch_interpreter
except ImportError:  # another torch, whose public way takes longer
    unwrap_if_dead = None  # type: ignore[assignment]

_AT_ONCE = 1 << 22  # numbers in a part of the Jacobian
_PRODUCTS = {
    "EOI": "ebroi,eoi->ebro", "EO": "ebro...,eo...->ebro", "EOM": "ebrom,eom->ebro", "EOP": "ebrop,eop->ebro",
    "EBO": "ebrso...,ebo...->ebro", "EBI": "ebroi,ebi->ebro",
}  # fmt: skip
"""Products of Jacobian rows and tangents, by the quantities' shapes; those for times equal those for delays."""


class Direct(torch.autograd.Function):
    """A function whose calls skip the work that only default arguments or ``torch.func`` need."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        if unwrap_if_dead is None:
            return super().apply(*args)
        if torch._C._are_functorch_transforms_active():
            found = cls._mapped(args)
            return super().apply(*args) if found is None else found
        alive = [unwrap_if_dead(x) if x is not None and isinstance(x, Tensor) else x for x in args]
        return super(torch.autograd.Function, cls).apply(*alive)  # type: ignore[misc]

    @classmethod
    def _mapped(cls, args: tuple[Any, ...]) -> tuple[Tensor, ...] | None:
        """The call below ``vmap``, None below others. Unlike torch, it skips each argument's parts."""
        interpreter = retrieve_current_functorch_interpreter()
        if not isinstance(interpreter, VmapInterpreter) or cls.generate_vmap_rule:
            return None
        level = interpreter.level()
        parts = [_unwrap_batched(x, level) if isinstance(x, Tensor) else (x, None) for x in args]
        inner, dims = zip(*parts, strict=True)
        if all(dim is None for dim in dims):
            return None
        info = VmapInfo(interpreter.batch_size(), interpreter.randomness())
        with interpreter.lower():
            outputs, places = cls.vmap(info, dims, *inner)
        return tuple(_add_batch_dim(x, place, level) for x, place in zip(outputs, places, strict=True))


def mapped(
    call: Callable[..., Sequence[Tensor]],
    info: Any,
    dims: Sequence[int | None],
    tensors: Sequence[Tensor | None],
    of_samples: Collection[str] = (),
) -> tuple[list[Tensor], list[int]]:
    """A call with a mapped dimension, for ``vmap``: its result, and the places of the dimension.

    The dimension is merged into that of the networks, or becomes it where there is none; or it is merged into that of
    samples where only tensors ``of_samples`` are mapped.
    """
    assert tensors[0] is not None
    alone = tensors[0].ndim - (dims[0] is not None) == 2
    places = [place for place, name in enumerate(QUANTITIES) if name in of_samples]
    batch = all(dim is None or place in places for place, dim in enumerate(dims))
    into, merged = int(batch and not alone), batch or not alone
    folded: list[Tensor | None] = []
    for place, (x, dim) in enumerate(zip(tensors, dims, strict=True)):
        if x is not None and (not batch or place in places):
            x = x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            if merged:
                x = x.movedim(0, into).flatten(into, into + 1)
        folded.append(x)
    found = [x.unflatten(into, (info.batch_size, -1)) if merged else x for x in call(*folded)]
    return found, [into] * len(found)


def tangent(
    gradients: Callable[..., tuple[Tensor, ...]],
    moves: dict[str, Any],
    spikes: Float[Tensor, "E B O *S"],
    inputs: dict[str, Any],
    overflows: Bool[Tensor, "E B O"] | None = None,
    ends: bool = False,
) -> tuple[Tensor, ...]:
    """The directional derivative of the spike times and, with ``ends``, of the state at the end.

    ``gradients`` is the backward pass, ``SpikeGradient`` without options. ``moves`` are the tangents, None for 0.
    """
    if overflows is not None:
        moves, inputs = (_each_time_apart(x, inputs["times"].shape[-1]) for x in (moves, inputs))
    moved = [name for name in DIFFERENTIABLE if moves[name] is not None]
    needs = Needs("delay" if name == "times" else name for name in moved)
    if "delay" in needs and inputs["delay"] is None:
        inputs = inputs | {"delay": torch.zeros_like(inputs["weight"])}
    if "times" in moved:  # inputs that never arrive move nothing
        moves = moves | {"times": torch.where(inputs["times"].isfinite(), moves["times"], 0.0)}
    each = 1 if overflows is None else spikes.shape[3]
    several = inputs["jumps" if inputs["parameters"] is None else "current"]
    parts = 1 if several is None else several.shape[-1]  # of the current
    rows = each + (2 + parts) * ends

    def jacobian(some: slice) -> dict[str, Tensor]:
        """The derivatives of each row, ``(E, B, R, ...)``. Each becomes a separate network."""
        lead = (*spikes[:, some].shape[:2], rows)

        def alone(x: Tensor) -> Tensor:
            return x[:, some].unsqueeze(2).expand(*lead, *x.shape[2:]).flatten(0, 2).unsqueeze(1)

        def copied(x: Tensor) -> Tensor:
            return x[:, None, None].expand(*lead, *x.shape[1:]).flatten(0, 2)

        given = inputs | {"observed": None}
        for name, x in given.items():
            given[name] = x if x is None else alone(x) if name in OF_SAMPLES else copied(x)
        # nothing here is written in place, which ``torch.func.linearize`` does not see
        grad = torch.ones_like(spikes[:, some]).unsqueeze(2)
        by_ends: list[Any] = [None] * 3
        if overflows is not None:
            one = torch.eye(rows, dtype=spikes.dtype, device=spikes.device)
            neurons = (*lead, spikes.shape[2])
            grad = one[:, None, :each].expand(*neurons, each)
            if ends:
                at_end = one[:, None, each:].expand(*neurons, -1).flatten(0, 2).unsqueeze(1)
                current = at_end[..., 1] if several is None else at_end[..., 1:-1]
                by_ends = [at_end[..., 0], current, at_end[..., -1]]
            given["times"] = given["times"].unsqueeze(-1)
        saved = () if overflows is None else (alone(overflows),)
        found = gradients(needs, grad.flatten(0, 2).unsqueeze(1), *by_ends, alone(spikes), *given.values(), *saved)
        return dict(zip(in_order(needs), (x.unflatten(0, lead) for x in found), strict=True))

    size, parts = max(1, _AT_ONCE // max(1, inputs["weight"].numel() * rows)), []
    with torch.autocast(spikes.device.type, enabled=False):
        for start in range(0, max(1, spikes.shape[1]), size):
            some = slice(start, start + size)
            by = jacobian(some) if needs else {}  # otherwise nothing but the observed times moves
            total = spikes.new_zeros((*spikes[:, some].shape[:2], rows, spikes.shape[2]))
            for name in moved:
                row, move = by["delay" if name == "times" else name], moves[name]
                move = move[:, some] if name in OF_SAMPLES else move
                total = total + torch.einsum(_PRODUCTS[DIFFERENTIABLE[name].shape], row, move)
            parts.append(total)
    whole = torch.cat(parts, 1).movedim(2, -1)
    if overflows is None:
        return (whole.squeeze(-1),)
    if not ends:
        return (whole,)
    current = whole[..., each + 1 : -1]
    current = current.squeeze(-1) if several is None else current
    return whole[..., :each], whole[..., each], current, whole[..., -1]


def _each_time_apart(x: dict[str, Any], copies: int) -> dict[str, Any]:
    """The arguments of trains with each time of an input as a separate input."""
    changed: dict[str, Callable[[Tensor], Tensor]] = {"times": lambda y: y.flatten(2)}
    changed["weight"] = changed["delay"] = changed["receptor"] = lambda y: y.repeat_interleave(copies, -1)
    return x | {name: None if x[name] is None else change(x[name]) for name, change in changed.items()}
