"""Time constants, and numbers of any size in units in which they fit the arithmetic.

Time constants that are tensors become numbers for a backend wherever all neurons share them. Where they do, results are
bit for bit those of the numbers, from the same kernels.

Units are powers of two, so that a result has the same digits in any of them. The weights and the threshold of a neuron
have one of their own, see ``unit_of_weights``. Times stay in the unit that is given while the faster time constant is
neither very short nor very long in it, see ``in_units``.
"""

import math
from collections.abc import Sequence
from functools import lru_cache, partial, wraps
from operator import itemgetter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from firstspike.deferred import TAU_MEM, TAU_SYN, UNIT, is_host, mark, read_at_once, require
from firstspike.spiketime.contract import (
    DIFFERENTIABLE,
    QUANTITIES,
    Arguments,
    Backend,
    Constants,
    Gradients,
    Grads,
    Held,
    Needs,
    Result,
    Run,
    each_tensor,
    joined,
)
from firstspike.spiketime.values import LARGEST, check_range

LONGEST = {torch.float32: 1e35, torch.float64: 1e250}
"""Limit of time constants. The shortest is the inverse of the longest."""

_LONGEST_UNREAD = {torch.float32: 1e9, torch.float64: 1e60}
"""The limit for tensors on a GPU, for which no unit is chosen, as that would wait for their values."""

_NEAR = 2.0**12  # largest ratio of the unit to the faster time constant, and of that to the unit


def unit_of_weights(weight: Float[Tensor, "E O I"], threshold: Float[Tensor, "E O"]) -> Float[Tensor, "E O"]:
    """For each neuron a power of two about as large as the threshold, or as the largest weight if that is larger."""
    size = torch.maximum(weight.abs().amax(dim=-1), threshold) if weight.shape[-1] else threshold
    limit = 126 if size.dtype == torch.float32 else 1022  # its inverse is a normal number, too
    return torch.ldexp(torch.ones_like(size), torch.frexp(size).exponent.clamp(-limit, limit))


def in_units(backend: Backend) -> Backend:
    """The backend for time constants in any unit of time, and others in each network.

    It itself sees a faster time constant of about 1, and numbers wherever all neurons of a network share them.
    """

    @partial(_by_network, backend.forward)
    def forward(given: Arguments) -> Result:
        unit, inner = _inside(given)
        found = backend.forward(inner)
        if unit == 1:
            return found
        state = found.state and Held(*(x * unit**power for x, power in zip(found.state, _POWERS, strict=True)))
        if given.observed is not None:
            return found._replace(spikes=given.observed, state=state)
        spikes = found.spikes * unit
        # rounded up, a spike stays after the inputs that cause it
        later = torch.nextafter(spikes, torch.full_like(spikes, math.inf))
        spikes = torch.where(spikes / unit < found.spikes, later, spikes)
        return found._replace(spikes=torch.where(spikes.isinf(), spikes, spikes.clamp(max=given.until)), state=state)

    @partial(_by_network, backend.backward)
    def backward(
        grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
    ) -> Gradients:
        unit, inner = _inside(given)
        if unit == 1:
            return backend.backward(grads, result, inner, max_weight_grad, needs)
        # some derivatives are times, too: a long unit counts before they are small, a short one after
        first, then = max(unit, 1.0), min(unit, 1.0)
        bound = None if max_weight_grad is None else max_weight_grad / then
        before = 1 / then, first  # by power of time
        after = then, 1 / first
        state = grads.state and Held(*(x * before[power] for x, power in zip(grads.state, _POWERS, strict=True)))
        result = result._replace(spikes=result.spikes / unit)
        found = backend.backward(Grads(grads.spikes * first, state), result, inner, bound, needs)
        return {name: x * after[DIFFERENTIABLE[name].time] for name, x in found.items()}

    return backend._replace(forward=forward, backward=backward)


def _by_network(plain: Run, run: Run) -> Run:
    """A pass that goes network by network where each has constants of its own, shared by its neurons.

    ``plain`` computes what fits as it is: numbers that need no other unit, and neurons from equations. Tensors saved
    for one network may be longer than those of another, and are padded.
    """

    def padded(tensors: Sequence[Tensor]) -> Tensor:
        longest = max(x.shape[-1] for x in tensors)
        return torch.cat([functional.pad(x, (0, longest - x.shape[-1])) for x in tensors])

    @wraps(run)
    def each(*given: Any) -> Any:
        place = 0 if len(given) == 1 else 2  # of the arguments: forward, backward
        arguments = given[place]
        mem, syn = arguments.tau_mem, arguments.tau_syn
        numbers = not isinstance(syn, Tensor) and not arguments.equations
        fits = numbers and _unit_of_numbers(mem, syn, arguments.times.dtype) == (1, (mem, syn))
        if arguments.equations or fits:
            return plain(*given)
        networks = _members(arguments.constants) if arguments.closed else ()
        if not networks:
            return run(*given)
        found = []
        for number, own in enumerate(networks):
            part = list(each_tensor(itemgetter(slice(number, number + 1)), given))
            part[place] = part[place]._replace(**own._asdict())
            found.append(run(*part))
        return joined(found, padded)

    return each  # type: ignore[return-value]


_POWERS = [DIFFERENTIABLE[name].time for name in Held._fields]
_IN_TIME = {name: name for name, quantity in QUANTITIES.items() if quantity.time} | {"left": "state.refractory"}
"""Values in the unit of time, by their names in errors."""


def _inside(given: Arguments) -> tuple[float, Arguments]:
    """The unit to work in, and the arguments in it."""
    unit, constants = _unit_of(given)
    if unit == 1:
        return unit, given._replace(**constants._asdict())
    values = {name: getattr(given, name) for name in _IN_TIME.keys() - constants._asdict().keys()}
    times: Any = {name: in_unit(_IN_TIME[name], x, unit) for name, x in values.items() if x is not None}
    inner = given._replace(**times, **constants._asdict())
    if not given.max_spikes:
        return unit, inner
    in_unit("until", given.times.new_tensor([given.until, given.start]), unit)
    recurrence = given.recurrence and given.recurrence._replace(
        bounds=tuple(x / unit for x in given.recurrence.bounds), lag=given.recurrence.lag / unit
    )
    return unit, inner._replace(start=given.start / unit, until=given.until / unit, recurrence=recurrence)


def in_unit(name: str, x: Tensor, unit: float | Tensor) -> Tensor:
    """Times in a unit. Those that have no number in it raise a ValueError, on a GPU later."""
    inner = x / unit
    fits, limit = (inner.isinf() == x.isinf()).all(), torch.finfo(x.dtype).max
    require(UNIT, fits, lambda: f"{name} must be below {float(unit) * limit:g} with such time constants in {x.dtype}")
    return inner


def _unit_of(given: Arguments) -> tuple[float, Constants]:
    """The unit to work in, and the constants in it; 1 for tensors on a GPU."""
    mem, syn, dtype = given.tau_mem, given.tau_syn, given.times.dtype
    if not isinstance(syn, Tensor):
        assert not isinstance(mem, Tensor)
        return _unit_of_numbers(mem, syn, dtype)
    if not syn.numel():
        return 1.0, given.constants
    faster = torch.minimum(mem.amin(), syn.amin()) if isinstance(mem, Tensor) else syn.amin().clamp(max=mem)
    if not is_host(faster.device):
        in_unit("times", given.times, faster)
        return 1.0, given.constants
    unit = _power_of(float(faster))
    if unit == 1:
        return unit, given.constants
    if not isinstance(mem, Tensor):
        return unit, Constants(mem / unit, syn / unit)
    mem = torch.where(mem.isinf(), mem, (mem / unit).clamp(max=torch.finfo(dtype).max))
    return unit, Constants(mem, syn / unit)


@lru_cache(maxsize=256)
def _unit_of_numbers(mem: float, syn: float, dtype: torch.dtype) -> tuple[float, Constants]:
    """The unit of time constants that are numbers. Neurons that leak too slowly to show have no leak."""
    unit = _power_of(min(mem, syn))
    return unit, Constants(math.inf if mem > LARGEST[dtype] * syn else mem / unit, syn / unit)


def _power_of(faster: float) -> float:
    return 1.0 if 1 / _NEAR <= faster <= _NEAR else 2.0 ** math.frexp(faster)[1]


@lru_cache(maxsize=256)
def numbers_of(fixed_mem: float | None, tau_syn: float, dtype: torch.dtype) -> Constants:
    """Time constants that are numbers, None if infinite; a ValueError where they do not fit the dtype."""
    tau_mem = math.inf if fixed_mem is None else fixed_mem
    _check_range(tau_mem, tau_syn, tau_syn, LONGEST[dtype], dtype)
    return Constants(tau_mem, tau_syn)


def resolve(given: Constants, tau_mem: Tensor | None, tau_syn: Tensor | None) -> Constants:
    """Two numbers if all neurons share them, else two tensors ``(E, O)``, or ``(O,)`` of one network.

    At least one is a tensor. ``given`` holds those that are numbers. On a GPU values are not read: tensors stay
    tensors, and only their layout tells whether neurons share them. There, neurons without leak have the number
    ``inf``.
    """
    like = tau_syn if tau_mem is None else tau_mem
    assert like is not None
    host = is_host(like.device)
    found = [
        x if tau is None else _shared(tau) if host else tau for x, tau in zip(given, (tau_mem, tau_syn), strict=True)
    ]
    if host and not any(isinstance(x, Tensor) for x in found):
        return Constants(*found)
    mem, syn = (x if isinstance(x, Tensor) else like.new_full((), x).expand_as(like) for x in found)
    return Constants(math.inf if not host and tau_mem is None and given.tau_mem == math.inf else mem, syn)


def _members(constants: Constants) -> Sequence[Constants]:
    """The numbers of each network of an ensemble, if the neurons of a network share them but not all networks do."""
    mem, syn = constants
    if not isinstance(mem, Tensor) or not isinstance(syn, Tensor) or not is_host(mem.device):
        return ()
    if mem.ndim == 1 or len(mem) == 1 or not bool(((mem == mem[:, :1]) & (syn == syn[:, :1])).all()):
        return ()
    return [Constants(m, s) for m, s in zip(mem[:, 0].tolist(), syn[:, 0].tolist(), strict=True)]


def check_time_constants(given: Constants, tensors: Arguments) -> None:
    """Raise ValueError for tensors with values that no neuron can have, and for constants that do not fit the dtype.

    At least one is a tensor. ``given`` holds those that are numbers. On a GPU, tensors are checked later
    (``raise_deferred_errors``).
    """
    tau_mem: Any = tensors.tau_mem
    tau_syn: Any = tensors.tau_syn
    dtype = tensors.times.dtype
    like = tau_syn if tau_mem is None else tau_mem
    ranges: list[Any] = []
    taus = (TAU_MEM, "tau_mem", tau_mem, given.tau_mem), (TAU_SYN, "tau_syn", tau_syn, given.tau_syn)
    for failure, name, tau, number in taus:
        if tau is None or not tau.numel():
            ranges.append((number, number))
            continue
        hint = " in a tensor" + ("; a neuron without leak has the number math.inf" if name == "tau_mem" else "")
        ranges.append(check_range(failure, name, tau, hint=hint))
    (shortest, _), (low, high) = ranges
    limit, least = (LONGEST if is_host(like.device) else _LONGEST_UNREAD)[dtype], 1 / LARGEST[dtype]
    if read_at_once(like.device) or not like.numel():
        _check_range(float(shortest), float(low), float(high), limit, dtype)
    else:
        fits = (shortest >= 1 / limit) & (low >= 1 / limit) & (high <= limit) & (shortest >= least * high)
        mark(TAU_SYN if tau_mem is None else TAU_MEM, ~fits)


def _check_range(shortest: float, low: float, high: float, limit: float, dtype: torch.dtype) -> None:
    """Whether the shortest tau_mem, and tau_syn from ``low`` to ``high``, fit the arithmetic."""
    least = 1 / LARGEST[dtype]
    if shortest < 1 / limit:
        raise ValueError(f"tau_mem must be at least {1 / limit:g} in {dtype}, got {shortest:g}")
    if low < 1 / limit or high > limit:
        got = low if low < 1 / limit else high
        raise ValueError(f"tau_syn must be between {1 / limit:g} and {limit:g} in {dtype}, got {got:g}")
    if shortest < least * high:
        raise ValueError(f"tau_mem must be at least {least:g} tau_syn in {dtype}, got {shortest:g} and {high:g}")


def _shared(tau: Tensor) -> float | Tensor:
    if tau.numel() == 0:
        return 1.0  # of no neuron
    low, high = (x.item() for x in tau.detach().aminmax())
    return low if low == high else tau
