"""Spike trains of any neuron, from event to event, in plain PyTorch and float64, with autograd for gradients.

``neurons`` says what a kind of neuron knows: ``linear`` has exponentials for that, ``series`` Taylor series. Backward,
``replay`` goes through the events of the given spikes once more.

Shapes: P (sample, neuron) pairs of all networks, S spikes.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from firstspike.spiketime.contract import Arguments, Gradients, Grads, Held, Needs, Result, each_tensor, zero_gradients
from firstspike.spiketime.reference.neurons import Make, Neurons, Some, State, Values, rounded
from firstspike.spiketime.reference.replay import replayed
from firstspike.spiketime.statuses import FINE, RESET_ABOVE

_MEMORY = 1 << 28  # bytes
_FORWARD, _BACKWARD = 18, 60  # tensors of the size of a part's events that are alive at the same time, at most


def prepared(given: Arguments) -> Arguments:
    """The arguments in float64, those of a LIF neuron as of a linear one that has one synapse."""
    found: Arguments = each_tensor(lambda x: x.double() if x.is_floating_point() else x, given)
    if not given.closed:
        return found
    syn, (ensemble, _, inputs, _) = found.tau_syn, given.sizes
    syn = syn if isinstance(syn, Tensor) else torch.full_like(found.threshold, syn)
    return found._replace(
        components=("synapse",),
        tau_syn=syn.unsqueeze(-1),
        jumps=torch.zeros_like(syn).unsqueeze(-1),
        receptor=torch.zeros(ensemble, inputs, dtype=torch.int64, device=syn.device),
        current=None if found.current is None else found.current.unsqueeze(-1),
    )


def _in_parts(given: Arguments, make: Make, numbers: int) -> Iterator[Int64[Tensor, " P"]]:
    """Indices of all pairs, in parts, for each of which there is memory for so many tensors of each event."""
    ensemble, batch, inputs, outputs = given.sizes
    events = inputs * (given.times.shape[-1] if given.max_spikes else 1) + 2 * max(1, given.max_spikes) + 2
    number = torch.arange(ensemble * batch * outputs, device=given.times.device)
    yield from number.split(max(1, _MEMORY // (8 * numbers * events)))


@torch.no_grad()
def forward(make: Make, given: Arguments) -> Result:
    """Spike times, and, as what is saved, the neurons' ``statuses``."""
    most, wide, dtype = max(1, given.max_spikes), prepared(given), given.times.dtype
    ensemble, batch, _, outputs = given.sizes
    found: list[Sequence[Tensor]] = []
    for pairs in _in_parts(given, make, _FORWARD):
        neurons, ends = make(wide, pairs, dtype), None
        if given.observed is None:
            spikes, overflows, *ends = _trains(neurons, wide, dtype, most)
        else:
            spikes = neurons.of_pairs(given.observed)
            overflows = torch.zeros_like(spikes[:, 0], dtype=torch.bool)
        if given.until < math.inf and given.max_spikes and (ends is None or (overflows.any() and not neurons.goes_on)):
            ends = list(replayed(neurons, wide, spikes, overflows)[1:])
        found.append([spikes, neurons.status, overflows, *(x.to(dtype) for x in ends or ())])
    whole = (torch.cat(x).unflatten(0, (ensemble, batch, outputs)) for x in zip(*found, strict=True))
    spikes, status, overflows, *ends = whole
    if not given.max_spikes:
        return Result(spikes.squeeze(-1), (status,))
    if given.until == math.inf:
        return Result(spikes, (status,), overflows)
    voltage, others, left = ends
    return Result(spikes, (status,), overflows, Held(voltage, others.squeeze(-1) if given.closed else others, left))


def _trains(
    neurons: Neurons, given: Arguments, dtype: torch.dtype, most: int
) -> tuple[Float[Tensor, "P S"], Some, Values, State, Values]:
    """Spike trains, which neurons would spike more often than ``most`` times, and the state at the end.

    A spike is a number of the dtype, and all that comes later follows from that number.
    """
    time, order = neurons.time.sort(dim=-1, stable=True)
    lifts, weight, places = (x.gather(-1, order) for x in (neurons.lifts, neurons.weight, neurons.place))
    x, pairs = neurons.rest.clone(), torch.arange(len(time), device=time.device)
    free, place, count = torch.full_like(time[:, 0], -math.inf), torch.zeros_like(pairs), torch.zeros_like(pairs)
    now = spiked = lifted = free
    never = -free.to(dtype)
    if given.start > -math.inf:
        now = torch.full_like(now, given.start)
        free = torch.where(neurons.left > 0, rounded(now + neurons.left, dtype), free)
    else:
        now = torch.where(time[:, 0].isinf(), min(0.0, given.until), time[:, 0])
    spikes = time.new_full((len(time), most), math.inf, dtype=dtype)
    overflows = torch.zeros_like(place, dtype=torch.bool)
    alive = torch.ones_like(overflows)
    while bool(alive.any()):
        arrival, lifting = time[pairs, place], lifts[pairs, place]
        end = arrival.clamp(max=given.until)
        held = now < free
        stop = torch.where(held, torch.minimum(free, end), end)
        wait = torch.full_like(now, math.inf)
        looks = (alive & ~held & ~(lifting & (arrival == now))).nonzero().squeeze(-1)
        # a spike that rounds to the end counts
        ahead = torch.where(stop == given.until, torch.nextafter(stop.to(dtype), never).double(), stop)
        wait[looks] = neurons.first_crossing(x[looks], (ahead - now)[looks], looks)
        wait = torch.where(rounded(now + wait, dtype) > given.until, math.inf, wait)
        fires = wait.isfinite()
        later = torch.nextafter(now.to(dtype), stop.to(dtype)).double()
        at_once = (wait == 0) & ((now == free) | (now == lifted))
        spike = torch.where(at_once, now, torch.maximum(rounded(now + wait, dtype), later).minimum(stop))
        neurons.status[fires & (spike == spiked)] = RESET_ABOVE
        full = fires & (count == most)
        noted = fires & ~full
        spikes[pairs[noted], count[noted]] = spike[noted].to(dtype)
        overflows |= full
        count = count + noted
        until = torch.where(fires, spike, stop)
        alive &= until.isfinite()
        length = torch.where(alive, until - now, 0.0)
        x = torch.where(alive[:, None], neurons.moved(x, length, held), x)
        now = torch.where(alive, until, now)
        x = torch.where(fires[:, None], neurons.reset(x), x)
        released = rounded(spike + neurons.refractory, dtype)
        free = torch.where(fires, torch.where(full, math.inf, released), free)
        arrives = alive & ~fires & (stop == arrival) & (lifting | ~(held & (stop == free)))
        some, which = pairs[arrives], place[arrives]
        x[some, places[some, which]] += weight[some, which]
        place = place + arrives
        lifted = torch.where(arrives & lifting, now, lifted)
        spiked = torch.where(fires, spike, torch.where(arrives & lifting, -math.inf, spiked))
        alive &= fires | arrives | (stop < end) | (held & (stop == free))
        alive &= (neurons.status == FINE) & ((count < most) | (given.max_spikes > 0))
    left = torch.where(overflows, 0.0, (free - given.until).clamp(min=0))
    return spikes, overflows, *neurons.ends(x, left)


def backward(
    make: Make, grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
) -> Gradients:
    """Gradients at the given spike times. See ``contract``."""
    found = {name: x.double() for name, x in zero_gradients(given, needs).items()}
    weights = Needs() if max_weight_grad is None else needs & {"weight"}
    for pairs in _in_parts(given, make, _BACKWARD):
        for names, bound in ((needs - weights, None), (weights, max_weight_grad)):
            asked = [name for name in found if name in names]
            for name, x in _pulled_back(make, grads, result, given, pairs, bound, asked).items() if asked else ():
                found[name] += x
    return {name: x.to(given.times.dtype) for name, x in found.items()}


@contextmanager
def _recording() -> Iterator[None]:
    """Autograd, also in an operator that a compiled program calls: PyTorch switches it off there."""
    autograd = torch._C.DispatchKey.AutogradFunctionality
    with torch.enable_grad(), torch._C._SetExcludeDispatchKeyGuard(autograd, False):
        yield


@_recording()
def _pulled_back(
    make: Make,
    grads: Grads,
    result: Result,
    given: Arguments,
    pairs: Int64[Tensor, " P"],
    bound: float | None,
    names: list[str],
) -> Gradients:
    leaves = {name: getattr(given, name) for name in names}
    likes = {name: x if isinstance(x, Tensor) else torch.full_like(given.threshold, x) for name, x in leaves.items()}
    leaves = {name: x.detach().double().requires_grad_() for name, x in likes.items()}
    wide = prepared(given._replace(**leaves))
    neurons = make(wide, pairs, given.times.dtype)
    neurons.fixes_twins, wide = given.closed, wide if grads.state else wide._replace(until=math.inf)
    spikes, asked = (neurons.of_pairs(x) for x in (result.spikes, grads.spikes.double()))
    over = torch.zeros_like(pairs, dtype=torch.bool) if result.overflows is None else neurons.of_pairs(result.overflows)
    several = spikes.ndim > 1
    out = replayed(neurons, wide, spikes if several else spikes.unsqueeze(-1), over, bound)
    by: list[Tensor] = [asked if several else asked.unsqueeze(-1)]
    for x, whole in zip(out[1:], grads.state or (), strict=False):
        part = neurons.of_pairs(whole.double()).view_as(x)
        by.append(torch.where(over.view(-1, *(1,) * (x.ndim - 1)), 0.0, part) if neurons.goes_on else part)
    through = [(x, y) for x, y in zip(out, by, strict=False) if x.requires_grad]
    if not through:
        return {}
    found = torch.autograd.grad(
        [x for x, _ in through], list(leaves.values()), [y for _, y in through], allow_unused=True
    )
    return {name: x for name, x in zip(leaves, found, strict=True) if x is not None}
