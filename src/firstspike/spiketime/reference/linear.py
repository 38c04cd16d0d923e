"""Linear neurons in plain PyTorch, in float64: one matrix for the flow between events.

The state x of a neuron is its membrane, its ``components`` and the number 1. Between events ``dx/dt = A x``, so that
``x(t + s) = exp(A s) x(t)``. A spike is where ``g = G x`` rises to 0. Nothing else is known of the neuron here, while
kernels solve the same equations term by term. ``loop`` goes from event to event.

The first crossing in a piece of time follows from g and its derivatives at the start and a bound of the third: they
tell whether g stays below 0, rises or falls throughout, or is concave there, with one maximum. Otherwise the piece is
halved.

Shapes: P (sample, neuron) pairs of all networks, D numbers of a state.
"""

import math

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from firstspike.neurons.base import receptors_of
from firstspike.spiketime.contract import Arguments
from firstspike.spiketime.reference import loop
from firstspike.spiketime.reference.adjoint import samples_at_once
from firstspike.spiketime.reference.loop import Some, State, Values
from firstspike.spiketime.reference.search import course_of, root_within

_STEPS = 40_000  # of a search in an interval, whose length at least halves in two
_SMALL, _TERMS = 0.3, 14  # norms of a matrix whose series has no more terms in double precision

Matrix = Float64[Tensor, "P D D"]


class _Linear(loop.Neurons):
    """Linear neurons, whose flow is a matrix exponential."""

    goes_on = False

    def __init__(self, given: Arguments) -> None:
        assert given.jumps is not None
        self.parts, none = len(given.components), torch.zeros_like(given.threshold)
        places = [place + 1 for place in receptors_of(given.components)]
        refractory = given.refractory if given.max_spikes else none
        super().__init__(given, refractory, places, [False] * (self.parts + 2))
        flow = flow_of(given)
        reads = [none + 1, *(none - float(kind == "threshold") for kind in given.components), -given.threshold]
        held = torch.cat([torch.zeros_like(flow[..., :1, :]), flow[..., 1:, :]], -2) if given.resets else flow
        self.flow, self.held_flow, self.reads = map(self.of_pairs, (flow, held, torch.stack(reads, -1)))
        reset = given.reset if given.max_spikes else none
        self.jumps, self.to = self.of_pairs(given.jumps), self.of_pairs(reset) if given.resets else None
        one = flow.new_ones(*self.shape, 1)
        rest = torch.cat([torch.zeros_like(one), one.new_zeros(*self.shape, self.parts), one], -1)
        if given.state is not None:
            begins = (given.state.left > 0) & given.resets
            voltage = torch.where(begins, reset.unsqueeze(1), given.state.voltage)
            rest = torch.cat([voltage.unsqueeze(-1), given.state.current, one], -1)
        self.rest = rest.flatten(0, 2)

    def moved(self, x: State, time: Values, held: Some) -> State:
        return moved(torch.where(held[:, None, None], self.held_flow, self.flow), x, time)

    def first_crossing(self, x: State, length: Values, looks: Int64[Tensor, " L"]) -> Float64[Tensor, " L"]:
        return _first_crossing(self.flow[looks], self.reads[looks], x, length)

    def excess(self, x: State) -> Values:
        return _value(self.reads, x)

    def rates(self, x: State) -> tuple[State, Values]:
        change = (self.flow @ x.unsqueeze(-1)).squeeze(-1).detach()
        slope = _value(self.reads, change) - self.flow[:, 0, 0] * _value(self.reads, x)
        return change, slope.detach()

    def reset(self, x: State) -> State:
        voltage = x[:, 0] if self.to is None else self.to
        return torch.cat([voltage[:, None], x[:, 1:-1] + self.jumps, x[:, -1:]], -1)


def flow_of(given: Arguments) -> Float64[Tensor, "E O D D"]:
    """A, of neurons without spikes."""
    mem = given.tau_mem if isinstance(given.tau_mem, Tensor) else torch.full_like(given.threshold, given.tau_mem)
    assert isinstance(given.tau_syn, Tensor)
    leak, rates = 1 / mem, 1 / given.tau_syn
    none, size = torch.zeros_like(leak), len(given.components) + 2
    rows = [[none] * size for _ in range(size)]
    rows[0][0] = -leak
    rows[0][-1] = none if given.bias is None else given.bias * leak
    for k, kind in enumerate(given.components, 1):
        rate = rates[..., k - 1]
        rows[k][k] = -rate
        if kind == "rise":
            rows[k + 1][k] = rate
        elif kind != "threshold":
            rows[0][k] = rate if kind == "synapse" else -rate
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def exponential(matrix: Matrix, time: Float64[Tensor, " P"]) -> Matrix:
    """exp(A s), by its series of a part of the time, and squares. That of torch has errors of 1e-11."""
    whole = matrix * time[:, None, None]
    norm = whole.detach().abs().sum(-1).amax(-1)
    squares = torch.frexp(norm / _SMALL).exponent.clamp(min=0)
    part = whole * torch.ldexp(torch.ones_like(norm), -squares)[:, None, None]
    found = one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for n in range(_TERMS, 0, -1):
        found = one + part @ found / n
    for step in range(int(squares.max()) if len(squares) else 0):
        found = torch.where((step < squares)[:, None, None], found @ found, found)
    return found


def moved(matrix: Matrix, x: State, time: Float64[Tensor, " P"]) -> State:
    """States after a time without events."""
    return (exponential(matrix, time) @ x.unsqueeze(-1)).squeeze(-1)


def _value(reads: State, x: State) -> Float64[Tensor, " P"]:
    return (reads * x).sum(-1)


def _first_crossing(flow: Matrix, reads: State, x: State, length: Float64[Tensor, " P"]) -> Float64[Tensor, " P"]:
    """Time until g first is >= 0, ``inf`` if it is not within the length."""
    found = torch.full_like(length, math.inf).masked_fill(_value(reads, x) >= 0, 0.0)
    begin, step = torch.zeros_like(length), 1 / flow.diagonal(dim1=1, dim2=2).abs().amax(1)
    once = reads.unsqueeze(1) @ flow
    derivatives = [once, once @ flow, once @ flow @ flow]
    looks = (found.isinf() & (length > 0)).nonzero().squeeze(-1)
    for _ in range(_STEPS):
        looks = looks[~(stays_below(flow[looks], reads[looks], x[looks]) & length[looks].isinf())]
        if not len(looks):
            break
        a, g, now = flow[looks], reads[looks], x[looks]
        g1, g2 = (_value(by[looks].squeeze(1), now) for by in derivatives[:2])
        d = torch.minimum(step[looks], length[looks] - begin[looks])
        change = (derivatives[2][looks].squeeze(1).abs() * largest(a, now, d)).sum(-1)
        following = moved(a, now, d)
        until = _value(g, following) >= 0
        at_end = (derivatives[0][looks].squeeze(1) * following).sum(-1)
        most, falls, rises, bends = course_of(_value(g, now), g1, g2, change, at_end, d)
        below = most < 0
        known = below | falls | rises | bends
        high = torch.where(rises & ~below & ~falls & until, d, -1.0)
        summit = (bends & ~below & ~falls & ~rises).nonzero().squeeze(-1)
        if len(summit):
            top = root_of(-(once[looks][summit].squeeze(1)), a[summit], now[summit], d[summit])
            reached = _value(g[summit], moved(a[summit], now[summit], top)) >= 0
            high[summit] = torch.where(reached, top, -1.0)
        crosses = (high >= 0).nonzero().squeeze(-1)
        if len(crosses):
            which = looks[crosses]
            found[which] = begin[which] + root_of(g[crosses], a[crosses], now[crosses], high[crosses])
        passed = known & (high < 0)
        begin[looks] = torch.where(passed, begin[looks] + d, begin[looks])
        x = x.index_copy(0, looks, torch.where(passed[:, None], following, now))
        step[looks] = torch.where(passed, 2 * d, d / 2)
        looks = looks[found[looks].isinf() & (begin[looks] < length[looks])]
    return found


def largest(flow: Matrix, x: State, time: Float64[Tensor, " P"]) -> State:
    """Bounds of the magnitudes of all numbers of a state for a time that follows."""
    size, coupling = x.abs(), flow.abs() - torch.diag_embed(flow.diagonal(dim1=1, dim2=2).abs())
    inner = size.clone()
    inner[:, 1:-1] += (coupling[:, 1:-1, 1:-1] @ size[:, 1:-1, None]).squeeze(-1) * time[:, None]
    inner[:, 0] = size[:, 0] + (coupling[:, 0] * inner).sum(-1) * time
    return inner


def stays_below(flow: Matrix, reads: State, x: State) -> Bool[Tensor, " P"]:
    """Whether g stays below 0 for ever, by a bound on the effect of each component's rest."""
    rates, leak = -flow.diagonal(dim1=1, dim2=2), -flow[:, :1, 0]
    alone = torch.where(leak > 0, flow[:, :1, -1] / leak, 0.0).squeeze(-1)
    drive = flow[:, 0, 1:-1] / torch.maximum(leak, rates[:, 1:-1])
    fed = (flow[:, 1:-1, 1:-1].tril(-1) > 0).to(x)
    lifts = (drive * x[:, 1:-1]).clamp(min=0) + ((drive.unsqueeze(1) @ fed).squeeze(1) * x[:, 1:-1]).clamp(min=0)
    lifts = lifts + (reads[:, 1:-1] * x[:, 1:-1]).clamp(min=0)
    return torch.maximum(x[:, 0], alone) + lifts.sum(-1) + reads[:, -1] < 0


def root_of(reads: State, flow: Matrix, x: State, high: Values) -> Values:
    """Where a value that rises from below 0 at 0 to 0 or more at ``high`` is 0."""
    slope = (reads.unsqueeze(1) @ flow).squeeze(1)

    def of(s: Values) -> tuple[Values, Values]:
        now = moved(flow, x, s)
        return _value(reads, now), _value(slope, now)

    return root_within(of, high)


def _samples(given: Arguments) -> int:
    _, _, inputs, _ = given.sizes
    events = inputs * (given.times.shape[-1] if given.max_spikes else 1) + 2 * given.max_spikes + 2
    return samples_at_once(given, 8 * events * (len(given.components) + 2) ** 2)


KIND: loop.Kind = _Linear, _samples
