"""Fit the parameters of a neuron to a recording of it: spikes, voltages, or both.

The neuron is reset at the recorded spikes, whatever its own would be, so that an error does not carry on. What should
vanish is then smooth: of a linear neuron how far its membrane is from the threshold at each of the spikes, of one from
equations how far its next spike is from the recorded one, and of both how far its membrane is from the recorded one.
All starts are neurons of one layer, and so are the derivatives of each, in forward mode, with respect to its values.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from tqdm import tqdm

from firstspike.layers.voltages import after_spikes, excess_of, states_at
from firstspike.layers.windows import columns_within
from firstspike.neurons import Neuron
from firstspike.spiketime import TrainState, spike_trains, spike_window
from firstspike.spiketime.current import Current
from firstspike.spiketime.parameters import Receptor, starting_state

GAIN, REST = "gain", "rest"
_STEP = 1e-4  # how much earlier still, in intervals, for a slope
_AT_BOUND = 12.0  # logits
_EARLY = 1e-9  # how long before a spike its membrane is looked at, in the unit of time
_DAMP, _MOST_DAMP, _ENOUGH = 1e-2, 1e5, 1e-20
Noise = Literal["membrane", "times"]


@dataclass(frozen=True, eq=False)
class Recording:
    """What a neuron was given, and what it did, from time 0 on, in units of the neuron that is fitted.

    Args:
        spikes: its spikes, sorted.
        current: what was injected.
        times: trains of its inputs, as ``inf`` after the last spike of each.
        weight: their weights, with ``times``.
        receptor: their receptors, as in ``spike_trains``.
        voltage: times and the membrane at each: some hundred points away from its spikes, whose shape no neuron here
            has.

    Raises:
        ValueError: numbers that are not finite or not sorted, other shapes, and a recording without any spike or point.
    """

    spikes: Float[Tensor, " spikes"]
    current: Current | None = None
    times: Float[Tensor, "inputs input_spikes"] | None = None
    weight: Float[Tensor, " inputs"] | None = None
    receptor: Receptor = None
    voltage: tuple[Float[Tensor, " points"], Float[Tensor, " points"]] | None = None

    def __post_init__(self) -> None:
        points = [] if self.voltage is None else list(self.voltage)
        for name, x in (("spikes", self.spikes), *zip(("times", "values"), points, strict=False)):
            if not isinstance(x, Tensor) or x.ndim != 1 or not bool(x.isfinite().all()):
                raise ValueError(f"a recording needs {name} as finite numbers of shape (n,), got {x!r:.80}")
        if bool((self.spikes.diff() <= 0).any()) or bool((self.spikes <= 0).any()):
            raise ValueError("spikes of a recording must be sorted, above 0, and each only once")
        if points and (len(points) != 2 or points[0].shape != points[1].shape):
            raise ValueError(f"voltage must be times and values, as many of both, got {[len(x) for x in points]}")
        if not len(self.spikes) and not (points and len(points[0])):
            raise ValueError("a recording needs spikes or a voltage, got neither")
        if (self.times is None) != (self.weight is None):
            raise ValueError("inputs of a recording need times and weight, got one of them")


class _Problem(NamedTuple):
    """A neuron and a recording in float64."""

    neuron: Neuron
    spikes: Float[Tensor, " spikes"]
    times: Float[Tensor, "inputs input_spikes"]
    weight: Float[Tensor, " inputs"]
    receptor: Receptor
    current: Current | None
    at: Float[Tensor, " points"]
    voltage: Float[Tensor, " points"]
    in_time: bool

    @classmethod
    def of(cls, neuron: Neuron, given: Recording, noise: Noise) -> "_Problem":
        empty = torch.empty(0, dtype=torch.float64)
        at, voltage = (empty, empty) if given.voltage is None else (x.detach().double() for x in given.voltage)
        order = at.argsort()
        times = torch.full((1, 1), math.inf) if given.times is None else given.times
        weight = torch.zeros(1) if given.weight is None else given.weight
        receptor: Receptor = [0] if given.times is None and len(neuron.receptors) > 1 else given.receptor
        current = given.current and Current(given.current.times.double(), given.current.values.detach().double())
        inputs = times.double().sort(dim=-1).values, weight.detach().double(), receptor, current
        return cls(neuron, given.spikes.double(), *inputs, at[order], voltage[order], noise == "times")

    def misses(
        self, values: Mapping[str, Float[Tensor, " starts"]], free: bool
    ) -> tuple[Float[Tensor, "starts spikes"], Float[Tensor, "starts points"]]:
        """What should be 0: at spikes, and at points of the membrane."""
        values = dict(values)
        gain, rest = (values.pop(name, None) for name in (GAIN, REST))
        count = len(next(x for x in (*values.values(), gain, rest) if x is not None))
        neuron, weight, current = with_named(self.neuron, values), self.weight.expand(count, -1), self.current
        if gain is not None:
            weight = weight * gain.unsqueeze(-1)
            current = None if current is None else Current(current.times, current.values * gain.unsqueeze(-1))
        run = self._linear if neuron.equations is None else self._walked
        given = neuron, weight, {"receptor": self.receptor}, current
        at_spikes, membrane = run(*given)
        at_spikes = self._free(*given) if free and len(self.spikes) else at_spikes
        return at_spikes, membrane - self.voltage + (0.0 if rest is None else rest.unsqueeze(-1))

    def _linear(self, neuron: Neuron, weight: Tensor, options: Any, current: Current | None) -> tuple[Tensor, Tensor]:
        seen = self.spikes.expand(len(weight), -1)
        before = self.spikes - _EARLY
        points = torch.cat([before, before - self._gap * _STEP, self.at])
        found = states_at(points, self.times, weight, neuron, observed=seen, current=current, **options)
        sizes = [len(self.spikes), len(self.spikes), len(self.at)]
        voltages, others = (x.split(sizes, dim=d) for x, d in zip(found, (-1, -2), strict=True))
        misses, earlier = (excess_of(neuron, *x) for x in zip(voltages[:2], others[:2], strict=True))
        if self.in_time:
            slope = (misses - earlier).detach().abs() / (self._gap * _STEP)
            misses = misses / torch.maximum(slope, 0.1 * slope.median(dim=-1, keepdim=True).values)
        return misses, voltages[2]

    def _free(self, neuron: Neuron, weight: Tensor, options: Any, current: Current | None) -> Tensor:
        """How far the nearest of its own spikes is from each of the recorded ones, if nothing resets it."""
        room = self._gap / 2
        given = options | {"until": float(self.spikes[-1] + room), "current": current, "overflow": "drop"}
        own = spike_trains(self.times, weight, neuron, max_spikes=2 * len(self.spikes) + 8, **given)
        place = (own.detach().unsqueeze(-1) - self.spikes).abs().nan_to_num(nan=math.inf).argmin(dim=-2)
        apart = own.gather(-1, place) - self.spikes
        return torch.where(apart.abs() < room, apart, room)

    @property
    def _gap(self) -> float:
        """A usual interval."""
        return float(self.spikes.diff(prepend=torch.zeros(1).to(self.spikes)).median())

    def _walked(self, neuron: Any, weight: Tensor, options: Any, current: Current | None) -> tuple[Tensor, Tensor]:
        """From each recorded spike to the next, or the next point."""
        waiting, count = neuron.waiting(), len(weight)
        voltage, others, left = (x.squeeze(0) for x in starting_state(neuron, 1, weight))
        state = TrainState(voltage, others, left, 0.0)
        every = torch.ones(count, dtype=torch.bool)
        ahead = self._gap if len(self.spikes) else 0.0
        own, misses, membranes = torch.full_like(voltage, math.inf), [], []

        def run(one: Neuron, end: float, state: TrainState) -> Any:
            trains = columns_within(self.times, state.time, end) if self.times.shape[-1] > 1 else self.times
            given = options | {"current": None if current is None else within(current, state.time, end)}
            return spike_window(trains, weight, one, max_spikes=1, overflow="drop", state=state, until=end, **given)

        spikes = set(self.spikes.tolist())
        points = set(self.at.tolist())
        for end in sorted(spikes | points):
            if end > state.time:
                found = run(waiting, end, state)
                own, state = torch.minimum(own, found.trains[..., 0]), found.state
            if end in points:
                named = dict(zip(neuron.equations.states, (state.voltage, *state.current.unbind(-1)), strict=True))
                membranes.append(neuron.membrane_of(named, weight))
            if end in spikes:
                late = run(neuron, end + ahead, state).trains[..., 0]
                next_one = torch.where(own.isfinite(), own, late)
                misses.append(torch.where(next_one.isfinite(), next_one - end, ahead))
                state, own = after_spikes(neuron, state, every), torch.full_like(own, math.inf)
        lists = [torch.stack(x, dim=-1) if x else weight.new_empty(count, 0) for x in (misses, membranes)]
        return lists[0], lists[1]


def within(current: Current, start: float, end: float) -> Current:
    """The steps that matter from a start to an end."""
    first = max(0, int(torch.searchsorted(current.times, start, right=True)) - 1)
    last = max(first + 1, int(torch.searchsorted(current.times, end, right=True)))
    return Current(current.times[first:last], current.values[..., first:last])


def with_named(neuron: Neuron, values: Mapping[str, Any]) -> Neuron:
    """A neuron with other values, by the names of ``Neuron.named_values``: ``threshold_jump_0`` is the first of them."""
    unknown = [name for name in values if name not in neuron.named_values]
    if unknown:
        raise ValueError(f"the neuron has {', '.join(neuron.named_values)}, got {', '.join(unknown)}")
    changed: dict[str, Any] = {name: x for name, x in values.items() if name in neuron.values}
    for name, old in neuron.values.items():
        if isinstance(old, tuple):
            changed[name] = tuple(values.get(f"{name}_{k}", x) for k, x in enumerate(old))
    return neuron.with_values(**changed)


class _Scales(NamedTuple):
    """Bounds of values, and the numbers between which a search moves freely: their place between the bounds."""

    names: tuple[str, ...]
    low: Float[Tensor, " values"]
    high: Float[Tensor, " values"]

    @classmethod
    def of(cls, bounds: Mapping[str, tuple[float, float]]) -> "_Scales":
        for name, pair in bounds.items():
            if not (isinstance(pair, tuple | list) and len(pair) == 2 and -math.inf < pair[0] < pair[1] < math.inf):
                raise ValueError(
                    f"bounds: expected a lower and an upper one for {name}, such as (5.0, 50.0), got {pair}"
                )
        low, high = torch.tensor(list(bounds.values()), dtype=torch.float64).T
        return cls(tuple(bounds), low, high)

    def values(self, free: Float[Tensor, "starts values"]) -> dict[str, Float[Tensor, " starts"]]:
        """The values, by their logarithms where both bounds are above 0."""
        share, positive = torch.sigmoid(free), self.low > 0
        low, high = (torch.where(positive, x, 1.0).log() for x in (self.low, self.high))
        found = torch.where(positive, (low + (high - low) * share).exp(), self.low + (self.high - self.low) * share)
        return dict(zip(self.names, found.unbind(-1), strict=True))


Misses = Callable[[Tensor], Float[Tensor, "starts residuals"]]


def _cost(misses: Misses, free: Tensor) -> Float[Tensor, " starts"]:
    """Sums of squares, infinite for values with which the equations have no solution."""
    try:
        return misses(free).square().sum(dim=-1).nan_to_num(nan=math.inf)
    except ValueError:
        if len(free) == 1:
            return free.new_full((1,), math.inf)
        return torch.cat([_cost(misses, one) for one in free.split(1)])


def _slopes(misses: Misses, free: Tensor) -> tuple[Tensor, Float[Tensor, "starts residuals values"]]:
    """Residuals and their derivatives: each start has a copy for each value, which moves there."""
    starts, values = free.shape
    moves = torch.eye(values, dtype=free.dtype).repeat(starts, 1)
    with forward_ad.dual_level():
        found, moved = forward_ad.unpack_dual(
            misses(forward_ad.make_dual(free.repeat_interleave(values, dim=0), moves))
        )
        moved = torch.zeros_like(found) if moved is None else moved
    return found[::values].detach(), moved.unflatten(0, (starts, values)).mT.detach()


def _searched(misses: Misses, free: Tensor, steps: int, bar: Any) -> tuple[Tensor, Float[Tensor, " starts"]]:
    """The steps of Levenberg and Marquardt from all starts at once."""
    free, cost, damp = free.clone(), _cost(misses, free), free.new_full((len(free),), _DAMP)
    active = cost.isfinite()
    for _ in range(steps):
        bar.update()
        some = active.nonzero().squeeze(-1)
        if not len(some):
            continue
        left, slopes = _slopes(misses, free[some])
        square, down = slopes.mT @ slopes, (slopes.mT @ left.unsqueeze(-1)).squeeze(-1)
        scale = square.diagonal(dim1=-2, dim2=-1)
        scale = scale + 1e-12 * scale.amax(dim=-1, keepdim=True) + 1e-300
        for _ in range(6):
            damped = square + torch.diag_embed(damp[some].unsqueeze(-1) * scale)
            moved = free[some] - torch.linalg.solve(damped, down).clamp(-2.0, 2.0)
            trial, old = _cost(misses, moved), cost[some]
            better = trial < old
            free[some] = torch.where(better.unsqueeze(-1), moved, free[some])
            cost[some] = torch.where(better, trial, old)
            damp[some] = torch.where(better, damp[some] / 5, damp[some] * 5)
            if bool(better.any()):
                break
        ends = better & (old - trial < 1e-9 * old)
        active[some] = (damp[some] < _MOST_DAMP) & (cost[some] > _ENOUGH * left.shape[-1]) & ~ends
        bar.set_postfix_str(f"residual {math.sqrt(float(cost.min()) / left.shape[-1]):.3g}")
    return free, cost


@dataclass(frozen=True, eq=False)
class NeuronFit:
    """A neuron that was fitted. Printed, it is a table of values and standard errors.

    Args:
        neuron: the neuron with the values found, as numbers.
        values: what was found for each name.
        errors: standard errors, from the slopes of the residuals at the end (Gauss-Newton), ``inf`` for a value at one
            of its bounds. They hold if residuals are independent, and the neuron is of the kind that was recorded.
        at_spikes: root mean square of what is left at the spikes; NaN without any.
        of_voltage: and of the voltage.
        costs: mean squares of all starts that were followed to the end, the best first. If several end at the same,
            it is hardly one of many local minima.
    """

    neuron: Neuron
    values: dict[str, float]
    errors: dict[str, float]
    at_spikes: float
    of_voltage: float
    costs: tuple[float, ...]

    def __str__(self) -> str:
        width = max(map(len, self.values))
        return "\n".join(f"{name:{width}}  {x:.5g} +- {self.errors[name]:.2g}" for name, x in self.values.items())


def fit_neuron(
    neuron: Neuron,
    bounds: Mapping[str, tuple[float, float]],
    recordings: Recording | Sequence[Recording],
    *,
    noise: Noise = "membrane",
    starts: int = 64,
    keep: int = 8,
    steps: int = 40,
    seed: int = 0,
    progress_bar: bool = False,
) -> NeuronFit:
    """The values of a neuron with which it does what was recorded::

        fit = fs.fit_neuron(
            fs.LIF(refractory=2.0, unit="ms"), {"tau_mem": (5, 50), "threshold": (5, 30)},
            fs.Recording(spikes, current=current))

    Many starts between the bounds are looked at, the best are followed by steps of Levenberg and Marquardt.

    Args:
        neuron: its kind, and all values that are known.
        bounds: a lower and an upper one for each value that is not. Names are the neuron's; of several values
            ``threshold_jump_0`` is the first. ``"gain"`` multiplies weights and currents, as the resistance of a ``LIF``
            does, and ``"rest"`` adds to the membrane before it is compared with the voltage.
        recordings: one, or several of the same neuron, from rest each.
        noise: what differs from one recording to the next. ``"membrane"``: currents, so that each spike is compared
            with what follows from the recorded ones before it. ``"times"``: only when spikes were seen, so that in the
            end all spikes are compared with those of a neuron that goes on by itself.
        starts: how many points of a Sobol sequence are looked at.
        keep: how many of these are followed.
        steps: how many steps are made at most, and again once the noise of spikes and voltage is known.
        seed: of the sequence.
        progress_bar: whether to show one.

    Raises:
        ValueError: no bounds, or wrong ones, unknown names, or no start with which the neuron has spikes and membranes.
    """
    given = [recordings] if isinstance(recordings, Recording) else list(recordings)
    problems, scales = [_Problem.of(neuron, x, noise) for x in given], _Scales.of(bounds)
    with_named(neuron, {name: 1.0 for name in bounds if name not in (GAIN, REST)})

    def both(free: Tensor) -> list[Tensor]:
        found = [problem.misses(scales.values(free), alone) for problem in problems]
        return [torch.cat(x, dim=-1) for x in zip(*found, strict=True)]

    alone = False
    voltages = torch.cat([problem.voltage for problem in problems])
    gaps = torch.cat([problem.spikes.diff() for problem in problems])
    units = [1.0, float(voltages.std()) if len(voltages) > 1 else 1.0]
    if (neuron.equations is not None or noise == "times") and len(gaps):
        units[0] = float(gaps.median())

    def misses(free: Tensor) -> Tensor:
        return torch.cat([x / unit for x, unit in zip(both(free), units, strict=True)], dim=-1)

    sobol = torch.quasirandom.SobolEngine(len(bounds), scramble=True, seed=seed)
    free = torch.logit(0.02 + 0.96 * sobol.draw(starts).double())
    with tqdm(total=2 * steps, disable=not progress_bar, desc="fit", leave=False) as bar:
        cost = torch.cat([_cost(misses, some) for some in free.split(64)])
        if not bool(cost.isfinite().any()):
            raise ValueError(f"none of {starts} starts has a finite membrane: take other bounds, or more starts")
        free, cost = _searched(misses, free[cost.argsort()[:keep]], steps, bar)
        size = misses(free[:1]).shape[-1]
        best = free[cost.argsort()[: max(1, keep // 4)]]
        alone = noise == "times"
        left = [float(x.square().mean().sqrt()) for x in both(best[:1])]
        units[:] = [max(x, 1e-9 * unit) if x == x else unit for x, unit in zip(left, units, strict=True)]
        best, last = _searched(misses, best, steps, bar)
    free = torch.cat([best[last.argmin()][None], free])
    values = {name: float(x[0]) for name, x in scales.values(free).items()}
    rest, slopes = _slopes(misses, free[:1])
    spread = torch.linalg.pinv(slopes[0].mT @ slopes[0]) * rest.square().sum() / max(1, size - len(bounds))
    with forward_ad.dual_level():
        moved = scales.values(forward_ad.make_dual(free[:1], torch.ones_like(free[:1])))
        by_free = torch.stack([forward_ad.unpack_dual(x).tangent[0] for x in moved.values()])
    inside = free[0].abs() < _AT_BOUND
    errors = dict(zip(values, torch.where(inside, by_free * spread.diagonal().sqrt(), math.inf).tolist(), strict=True))
    at_spikes, of_voltage = (float(x.square().mean().sqrt()) for x in both(free[:1]))
    found = with_named(neuron, {name: x for name, x in values.items() if name not in (GAIN, REST)})
    return NeuronFit(found, values, errors, at_spikes, of_voltage, tuple((cost / size).sort().values.tolist()))
