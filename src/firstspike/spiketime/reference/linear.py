"""Linear neurons, LIF among them. ``flow`` says how they move, and in which pieces of time the excess g is monotone.

Shapes: P (sample, neuron) pairs, L of which are looked at, B borders of pieces of time, D numbers of a state.
"""

import math

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn.functional import pad

from firstspike.neurons.base import receptors_of
from firstspike.spiketime.contract import Arguments
from firstspike.spiketime.flow import Columns, Flow, root_within
from firstspike.spiketime.reference.neurons import Make, Neurons, Some, State, Values
from firstspike.spiketime.units import unit_of_weights

_ROUNDING = 1e-15
_LONG = 700.0  # slowest time constants, after which an exponential is only just a number


def first_crossing(flow: Flow, x: Columns, threshold: Tensor, length: Tensor) -> Float64[Tensor, " L"]:
    """When g, below 0 at the start, first is 0 or more within a length; ``inf`` if it is not."""
    taus = torch.stack([flow.mem, *flow.syn])
    ends = torch.minimum(length, _LONG * torch.where(taus.isinf(), 0.0, taus).amax(0))
    borders = flow.pieces(x, ends)
    flow, x, threshold = flow.each((..., None)), [y.unsqueeze(1) for y in x], threshold.unsqueeze(1)
    levels = flow.excess(flow.moved(x, borders), threshold)
    above = levels[:, 1:] >= _least(flow, x, threshold)
    fires, nth = above.any(1, keepdim=True), above.long().argmax(1, keepdim=True)
    low, high = borders[:, :-1].gather(1, nth), borders[:, 1:].gather(1, nth)
    high = torch.where(fires, high, low)
    below, top = levels[:, :-1].gather(1, nth), levels[:, 1:].gather(1, nth)
    guess = high - (high - low) * (top / (top - below)).clamp(0, 1).sqrt().nan_to_num(nan=1.0)  # with a parabola's top

    def of(s: Tensor) -> tuple[Tensor, Tensor]:
        now = flow.moved(x, s)
        return flow.excess(now, threshold), flow.excess(flow.rates(now), torch.zeros_like(threshold))

    return torch.where(fires, root_within(of, low, high, guess), math.inf).squeeze(1)


def _least(flow: Flow, x: Columns, threshold: Tensor) -> Tensor:
    """The least g that counts: what it only comes close to for ever it never reaches, even if it is rounded so."""
    last, rounding = flow.excess(flow.at_last(x), threshold), _ROUNDING * threshold
    return torch.where((last <= 0) & (last > -rounding), rounding, 0.0)


class _Linear(Neurons):
    """Linear neurons. Voltages are in a unit of each neuron, so that nothing overflows.

    Where derivatives are asked for, a state has two halves, x and y, and stands for ``x + A y``. An input that comes
    later by dt adds ``-kick * dt`` to y. What that does to g is then the slope of its own response, and not the
    difference of two effects on the state, which are equal where there is no leak. The value of y is 0.
    """

    goes_on = False

    def __init__(self, given: Arguments, pairs: Int64[Tensor, " P"], dtype: torch.dtype) -> None:
        unit = unit_of_weights(given.weight.detach(), given.threshold.detach())
        self.parts = len(given.components)
        places = [place + 1 for place in receptors_of(given.components)]
        given = given._replace(weight=given.weight / unit.unsqueeze(-1))
        super().__init__(given, pairs, dtype, places, [False] * (self.parts + 2))
        self.unit, self.threshold = self.of_neurons(unit), self.of_neurons(given.threshold / unit)
        mem = given.tau_mem if isinstance(given.tau_mem, Tensor) else torch.full_like(unit, given.tau_mem)
        bias = torch.zeros_like(unit) if given.bias is None else given.bias / unit
        assert isinstance(given.tau_syn, Tensor)
        taus = list(self.of_neurons(given.tau_syn).unbind(-1))
        self.flow = Flow(given.components, self.of_neurons(mem), taus, self.of_neurons(bias))
        reset = given.reset / unit if given.max_spikes else torch.zeros_like(unit)
        assert given.jumps is not None
        self.jumps = self.of_neurons(given.jumps / unit.unsqueeze(-1))
        self.to = self.of_neurons(reset) if given.resets else None
        one = torch.ones_like(self.left).unsqueeze(-1)
        self.rest = torch.cat([torch.zeros_like(one).expand(-1, self.parts + 1), one], -1)
        if given.state is not None:
            voltage, others = self.of_pairs(given.state.voltage), self.of_pairs(given.state.current)
            voltage, others = voltage / self.unit, others / self.unit.unsqueeze(-1)
            if self.to is not None:
                voltage = torch.where(self.left > 0, self.to, voltage)
            self.rest = torch.cat([voltage.unsqueeze(-1), others, one], -1)
        self.width, self.halves = self.rest.shape[1], 2 if torch.is_grad_enabled() else 1
        self.rest = pad(self.rest, (0, (self.halves - 1) * self.width))

    def moved(self, x: State, time: Values, held: Some) -> State:
        voltage, *others = (y for half in self._halves(x) for y in self.flow.moved(half, time))
        if self.to is not None:
            voltage = torch.where(held, x[:, 0], voltage)
        return torch.stack([voltage, *others], 1)

    def first_crossing(self, x: State, length: Values, looks: Int64[Tensor, " L"]) -> Float64[Tensor, " L"]:
        flow, threshold, now = self.flow.each(looks), self.threshold[looks], list(x.unbind(1))
        excess = flow.excess(now, threshold)
        found = torch.full_like(length, math.inf).masked_fill(excess >= _least(flow, now, threshold), 0.0)
        some = (found.isinf() & (length > 0) & flow.may_cross(now, excess, length)).nonzero().squeeze(-1)
        if len(some):
            flow, threshold, now = flow.each(some), threshold[some], [y[some] for y in now]
            found[some] = first_crossing(flow, now, threshold, length[some])
        return found

    def excess(self, x: State) -> Values:
        return self.flow.excess(self._whole(x), self.threshold)

    def slope(self, x: State) -> Values:
        slope = self.flow.excess(self.flow.rates(self._halves(x)[0]), torch.zeros_like(self.threshold))
        return (slope + self.excess(x) / self.flow.mem).detach()

    def reset(self, x: State) -> State:
        jumps = pad(self.jumps, (1, x.shape[1] - 1 - self.parts))
        if self.to is None:
            return x + jumps
        _, *others = self._whole(x)
        return pad(torch.stack([self.to, *others], 1), (0, x.shape[1] - self.width)) + jumps

    def kicked(self, x: State, kicks: State, held: Some) -> State:
        held = (held if self.to is not None else torch.zeros_like(held)).unsqueeze(1)
        first = self._halves(kicks)[0]
        rates = torch.stack([torch.zeros_like(first[0]), *self.flow.rates(first)[1:]], 1)
        halves = torch.where(held, rates, 0.0), torch.where(held, 0.0, torch.stack(first, 1))
        return torch.cat(halves, 1)[:, : x.shape[1]]

    def turned(self, x: State, after: State, held: Some) -> State:
        jumps = pad(self.jumps, (1, 1))
        change = pad(torch.stack(self.flow.rates(list(jumps.unbind(1))), 1), (0, x.shape[1] - self.width))
        voltage = change[:, :1] if self.to is None else self.freed(after)[:, :1].masked_fill(held.unsqueeze(1), 0.0)
        return torch.cat([voltage, change[:, 1:]], 1)

    def freed(self, x: State) -> State:
        rate = self.flow.rates(self._halves(x)[0])[0]
        return pad((torch.zeros_like(rate) if self.to is None else rate).unsqueeze(1), (0, x.shape[1] - 1))

    def ends(self, x: State, left: Values) -> tuple[Values, State, Values]:
        return super().ends(torch.stack(self._whole(x), 1), left)

    def _halves(self, x: State) -> list[Columns]:
        return [list(half.unbind(1)) for half in x.split(self.width, 1)]

    def _whole(self, x: State) -> Columns:
        """``x + A y``."""
        first, *more = self._halves(x)
        return [a + b for a, b in zip(first, self.flow.rates(more[0]), strict=True)] if more else first


LINEAR: Make = _Linear
