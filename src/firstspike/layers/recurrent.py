"""Recurrent neurons, computed exactly: window by window, each as long as the shortest delay.

A spike reaches other neurons of the layer after a delay of at least ``window``. So within a window of that length all
neurons are independent of each other, and the operator for spike trains computes them. What arrives from the layer
itself in a window is known before the window begins. The simulator NEST divides time in the same way.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Self, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from firstspike.connect import Synapses
from firstspike.layers import synapses
from firstspike.layers.delay import Delayed, DelayRule, checked_rule
from firstspike.layers.dense import SpikeTrainOptions, SpikeTrains
from firstspike.layers.init import firing_weights, first_response, measured_weights
from firstspike.layers.programs import MadeAgain, by_values
from firstspike.layers.synapses import Arriving, Mask, Receptors, checked_receptors, checked_signs, usual_signs
from firstspike.layers.trains import Spikes
from firstspike.layers.windows import columns_within, joined_trains, largest, only_within, window_bounds
from firstspike.neurons import LIF, Neuron
from firstspike.ranges import Finite, NotNegative, Positive, Size, checks_ranges
from firstspike.signature import takes_arguments_of
from firstspike.spiketime import TrainState, spike_window
from firstspike.spiketime.backends import accepting
from firstspike.spiketime.contract import Recurrence
from firstspike.spiketime.current import Current
from firstspike.spiketime.operator import WindowResult
from firstspike.spiketime.values import MOST_WINDOWS, check_room, real_times

_SPREAD = 0.05  # of recurrent weights, relative to that of weights with which most neurons spike


class RecurrentState(NamedTuple):
    """The state of a recurrent layer between two pieces of a sequence."""

    neurons: TrainState
    """State of the neurons, at the time up to which they are known."""
    pending: Float[Tensor, "*batch neurons spikes"]
    """Spikes that may still have to arrive at other neurons of the layer."""
    delays: tuple[Tensor | None, ...] = ()
    """Delays with gradient: at its bound, a delay takes that of all pieces together or none."""

    def detach(self) -> Self:
        """The state without its history, so that gradients end here."""
        voltage, current, refractory = (x.detach() for x in self.neurons[:3])
        return type(self)(TrainState(voltage, current, refractory, self.neurons.time), self.pending.detach())


class RecurrentDelays(Delayed):
    """Delays of recurrent synapses beyond the window: a rule, and raw values in the shape of the weights."""

    def __init__(self, rule: DelayRule, like: Tensor) -> None:
        super().__init__()
        self.delay_rule = rule
        self.delay_raw = nn.Parameter(torch.empty_like(like), rule.trainable)


@takes_arguments_of(SpikeTrains, without=("until", "silent"))
@checks_ranges
class SpikingRecurrent(SpikeTrains, MadeAgain):
    """Recurrent neurons: ``(batch, in[, spikes]) -> (batch, out, max_spikes)``.

    The recurrent synapse from neuron i to j has the weight ``recurrent_weight[j, i]`` and the delay ``window``, or
    ``window + recurrent_delay``. The result is exact for any ``window``: it is the shortest delay, not a time step.
    The simulation ends at ``duration``, as a network with excitation may never fall silent.

    Stateless: every sample starts at rest, before its first input whenever that comes, before time 0 as well as after
    it. ``proceed`` returns the state in addition, for long sequences in pieces.

    Args:
        duration: time at which the layer stops, in the unit of the times. No spike is later.
        window: shortest delay of recurrent synapses, in the unit of the times.
        window_spikes: most spikes of a neuron within a window. ``overflow`` controls what happens to more: dropped, the
            neuron stays at the reset until the window ends.
        recurrent_delay: rule of further delays of the recurrent synapses, bounded and without jitter; None for
            ``window`` alone.
        recurrent_receptor: the receptor that the spikes of each neuron reach, see ``receptor``. With ``"sign"`` there,
            that of the recurrent weights tells, too.
        recurrent_signs: signs of the recurrent weights of each source neuron, see ``signs``.
        recurrent_mean: mean of the initial recurrent weights, which are normally distributed.
        recurrent_std: standard deviation of the initial recurrent weights; by default such that they alone rarely make
            a neuron spike.
        recurrent_mask: which recurrent connections exist, see ``mask``; in states ``recurrent_connections``.
        recurrent: the recurrent synapses, see ``synapses``; in states ``recurrent_source`` and ``recurrent_target``.
            Their delays are whole ones, at least ``window``, and only learn if there is a ``recurrent_delay``.

    Raises:
        ValueError: sizes < 1, a ``max_spikes`` or ``window_spikes`` above 1000000, a window or duration that is not
            positive, a duration of more than 1000000 windows, a rule for delays without bound or with jitter, delays
            of synapses below the window;
            otherwise as ``SpikeTrains``.
    """

    passes_on = tuple(name for name in SpikeTrains.passes_on if name not in ("until", "silent"))

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        max_spikes: Size,
        duration: Positive,
        neuron: Neuron | None = None,
        *,
        window: Positive = 1.0,
        window_spikes: Size = 4,
        recurrent_delay: DelayRule | None = None,
        recurrent_receptor: Receptors = None,
        recurrent_signs: Sequence[int] | None = None,
        recurrent_mean: Finite = 0.0,
        recurrent_std: NotNegative | None = None,
        recurrent_mask: Mask = None,
        recurrent: Synapses | None = None,
        **options: Unpack[SpikeTrainOptions],
    ) -> None:
        if duration / window > MOST_WINDOWS:
            raise ValueError(
                f"duration={duration:g} and window={window:g} make {duration / window:.3g} windows, at most "
                f"{MOST_WINDOWS}: raise window or lower duration"
            )
        rule = checked_rule("recurrent_delay", recurrent_delay)
        if rule is not None and (rule.bound == "softplus" or math.isinf(rule.scale) or rule.jitter):
            raise ValueError(
                "recurrent_delay must be bounded and without jitter (bound sigmoid, or clip with a finite scale), "
                f"got {rule}"
            )
        if isinstance(neuron, Neuron) and neuron.equations is not None:
            options["until"] = duration
        super().__init__(in_features, out_features, max_spikes, neuron, **options)
        self.duration, self.window, self.window_spikes = duration, window, window_spikes
        self.recurrent_mean, self.recurrent_std = recurrent_mean, recurrent_std
        if self.receptor == "sign" and recurrent_receptor is None:
            recurrent_receptor = "sign"
        given = self.initial_neuron, recurrent_receptor, out_features, "recurrent_receptor"
        self.recurrent_receptor, own = checked_receptors(*given)
        if (self.receptor == "sign") != (self.recurrent_receptor == "sign"):
            raise ValueError('recurrent_receptor and receptor must both be "sign", or both have numbers')
        if own is not None and self.receptors is not None:
            self.receptors = torch.cat([self.receptors, own.to(self.weight.device)])
        self.recurrent_signs = checked_signs(
            "recurrent_signs",
            usual_signs(recurrent_signs, self.initial_neuron, out_features, recurrent_receptor),
            out_features,
        )
        self._signed["recurrent_weight"] = self.recurrent_signs
        shape, what = (out_features, out_features), f"weights of {out_features} neurons"
        self.recurrent_weight = synapses.parameter(self.weight.detach(), shape, recurrent, what)
        synapses.connect(self, "recurrent_weight", recurrent_mask, recurrent, shape)
        if recurrent is not None and recurrent.delay is not None and len(recurrent):
            least, most = (float(x) for x in recurrent.delay.aminmax())
            if bool((recurrent.delay < window).any()):
                raise ValueError(f"delays of recurrent must be >= window={window:g}, got {least:g}: lower window")
            if rule is None and most > window:
                rule = DelayRule("clip", most - window, std=0.0, trainable=False)
        self.recurrent_delay = rule
        self.recurrent_delays = None if rule is None else RecurrentDelays(rule, self.recurrent_weight)
        self._reset_recurrent_parameters(options.get("generator"))

    @property
    def _begin(self) -> float | None:
        """When neurons begin without a state: at 0 with a bias, which has acted for ever otherwise, or equations."""
        return 0.0 if self.neuron.begins else None

    @property
    def own_delay(self) -> Float[Tensor, "out_features out_features"]:
        """Delays of the recurrent synapses: ``window`` plus those of ``recurrent_delay``."""
        return synapses.matrix(self, "recurrent_weight", self.delays_of_synapses, rest=self.window)

    @property
    def delays_of_synapses(self) -> Float[Tensor, "*shape"]:
        """``own_delay`` in the shape of ``recurrent_weight``: of sparse synapses one for each."""
        delay = torch.full_like(self.recurrent_weight, self.window)
        return delay if self.recurrent_delays is None else delay + self.recurrent_delays.delay

    @property
    def recurrent(self) -> Synapses | None:
        """The recurrent synapses, if they are sparse."""
        return self.sparse.get("recurrent_weight")

    @property
    def recurrent_synapses(self) -> Float[Tensor, "out_features out_features"]:
        """The recurrent weights as a matrix. Those of missing connections are 0."""
        return synapses.matrix(self, "recurrent_weight")

    @torch.no_grad()
    def set_recurrent_delays_(self, delay: float | Float[Tensor, "*shape"]) -> None:
        """Set the delays of recurrent synapses, ``window`` included. See ``set_delays_``."""
        if (own := self.recurrent_delays) is None:
            raise ValueError(f"{self._get_name()} has no delays beyond window to set; give recurrent_delay a DelayRule")
        own.delay_raw.copy_(own.delay_rule.raw_of(delay, own.delay_raw, beyond=self.window))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Redraw weights and delays. Trainable parameters of the neuron start again."""
        super().reset_parameters(generator)
        self._reset_recurrent_parameters(generator)

    @torch.no_grad()
    def _reset_recurrent_parameters(self, generator: torch.Generator | None) -> None:
        if self.recurrent_weight.is_meta:
            return
        std: Any = self.recurrent_std
        usual: Any = "spread" if std is None else False
        if std is None and self.initial_neuron.equations is not None:
            std = _SPREAD * measured_weights(self.out_features, self.initial_neuron, self.duration).std
        elif std is None:
            given = (*first_response(self.neuron.values), self.neuron.threshold)
            mem, syn, threshold = (float(torch.as_tensor(x).detach().double().mean()) for x in given)
            std = _SPREAD * threshold * firing_weights(self.out_features, LIF(mem, syn)).std
        if not synapses.given_(self, "recurrent_weight"):
            synapses.draw_(self, "recurrent_weight", self.recurrent_mean, std, generator, usual)
        if self.recurrent_delays is not None:
            raw = self.recurrent_delays.delay_raw
            self.recurrent_delays.delay_rule.draw_(raw, generator)
            if self.recurrent is not None and self.recurrent.delay is not None:
                self.set_recurrent_delays_(self.recurrent.delay.to(raw).clamp(min=self.window))

    @by_values
    def forward(
        self,
        times: Spikes,
        observed: Float[Tensor, "*batch out_features max_spikes"] | None = None,
        current: Current | None = None,
    ) -> Float[Tensor, "*batch out_features max_spikes"]:
        """Spike trains up to ``duration``; with ``observed``, these times and the gradient at them.

        A current is injected into the neurons, beside the inputs.
        """
        inputs = self.seen(times)
        bounds = self._bounds(self._begin, self.duration, inputs, observed, current)
        delays = self._delays(observed is None)
        if self._in_one_call():
            return self._all_windows(inputs, bounds, None, observed, self.max_spikes, current, delays).trains
        room = math.prod(inputs.shape[:-2]), self.out_features, self.max_spikes
        check_room(*room, f"max_spikes={self.max_spikes}", inputs.dtype, inputs.device)
        return self.fitted(self._each_window(inputs, bounds, None, observed, current, delays).trains)

    @by_values
    def proceed(
        self,
        times: Spikes,
        until: float,
        state: RecurrentState | None = None,
        *,
        observed: Float[Tensor, "*batch out_features observed"] | None = None,
        current: Current | None = None,
    ) -> tuple[Float[Tensor, "*batch out_features spikes"], RecurrentState]:
        """Spike trains of a piece of a sequence, and the state that the next piece needs.

            state = None
            for until in (10.0, 20.0, 30.0):
                trains, state = layer.proceed(times, until, state)
                state = state.detach()                         # truncated gradients. Without it they are exact

        Args:
            times: the inputs. Only those from the time of the state up to ``until`` arrive. If inputs have synaptic
                delays, pass earlier ones again: they may arrive now.
            until: end of the piece, in the unit of the times.
            state: of the piece before; None for the start, with neurons at rest until the first input.
            observed: spikes of the piece from elsewhere, sorted, at which the gradient is taken.
            current: what is injected into the neurons, of this piece or as a whole.

        Returns:
            Spikes of the piece, as many columns as the capacity of all windows, and the state.

        Raises:
            ValueError: an end that is not after the time of the state; more spikes than `max_spikes`; more than
                1000000 windows.
        """
        inputs = self.seen(times)
        begin = self._begin if state is None else state.neurons.time
        bounds = self._bounds(begin, until, inputs, observed, current)
        delays = self._delays(observed is None, () if state is None else state.delays)
        if self._in_one_call():
            room = (len(bounds) - 1) * self.window_spikes
            result = self._all_windows(inputs, bounds, state, observed, room, current, delays)
        else:
            result = self._each_window(inputs, bounds, state, observed, current, delays)
        assert result.state is not None
        late = result.trains if state is None else torch.cat([state.pending, result.trains], dim=-1)
        late = torch.where(late >= until - self._reach, late, math.inf).sort(dim=-1, stable=True).values
        pending, learnt = columns_within(late, -math.inf, math.inf), (x if x.requires_grad else None for x in delays)
        return result.trains, RecurrentState(result.state, pending, tuple(learnt))

    def _bounds(
        self, begin: float | None, until: float, inputs: Tensor, observed: Tensor | None, current: Current | None
    ) -> list[float]:
        """Of the windows up to some time: what happens to the neurons may also begin with a step of a current."""
        steps = None if current is None else current.times
        return window_bounds(begin, until, self.window, self.weight.dtype, inputs, observed, steps)

    def _all_windows(
        self, inputs: Tensor, bounds: list[float], state: RecurrentState | None, observed: Tensor | None, most: int,
        current: Current | None, delays: tuple[Tensor, ...],
    ) -> WindowResult:  # fmt: skip
        """The spikes of a piece in one call, at most ``most`` per neuron."""
        budget, structure = self.window_spikes, self._structure() if current is None else None
        if structure is None:
            weight, delay = self._weights, self._matrix(delays)
        else:
            weight = structure.joined(self.weight, self.recurrent_weight)
            delay = structure.joined(*delays) if delays else None
        if state is not None:
            inputs = joined_trains(inputs, state.pending if delay is not None else state.pending + self.window)
        if observed is not None:
            observed = only_within(observed, bounds[0], bounds[-1])
            most = budget = observed.shape[-1]
        windows, before = Recurrence(tuple(bounds), self.window, budget), None if state is None else state.neurons
        options: dict[str, Any] = {"max_spikes": most, "observed": observed, "delay": delay, **self.dynamics}
        options |= {"rows": None if structure is None else structure.rows, "current": current}
        return spike_window(inputs, weight, self.neuron, windows=windows, state=before, **options)

    def _each_window(
        self, inputs: Tensor, bounds: list[float], state: RecurrentState | None, observed: Tensor | None,
        current: Current | None, delays: tuple[Tensor, ...],
    ) -> WindowResult:  # fmt: skip
        """The spikes of a piece, window by window."""
        budget = self.window_spikes if observed is None else observed.shape[-1]
        windows = len(bounds) - 1
        room, cause = windows * budget, f"window_spikes={budget} in each of {windows} windows"
        check_room(math.prod(inputs.shape[:-2]), self.out_features, room, cause, inputs.dtype, inputs.device)
        weight, delay = self._weights, self._matrix(delays)
        options: dict[str, Any] = {"max_spikes": budget, "delay": delay, "current": current, **self.dynamics}
        neurons, sent = (None, []) if state is None else (state.neurons, [(state.neurons.time, state.pending)])
        nothing = inputs.new_full((*inputs.shape[:-2], self.out_features, 1), math.inf)
        inputs = real_times(inputs).sort(dim=-1, stable=True).values  # NaN would come last, after all windows
        longest = 0.0 if delay is None else largest(delay[:, : self.in_features]) + 1e-3 * self.window
        found: list[WindowResult] = []
        for start, end in pairwise(bounds):
            sent = [(time, own) for time, own in sent if time >= start - self._reach]
            own = torch.cat([own for _, own in sent], dim=-1) if sent else nothing
            now = columns_within(inputs, start - longest, end)
            trains = joined_trains(now, own if delay is not None else own + self.window)
            seen = None if observed is None else only_within(observed, start, end)
            result = spike_window(trains, weight, self.neuron, observed=seen, state=neurons, until=end, **options)
            neurons = result.state
            sent.append((end, columns_within(result.trains, -math.inf, math.inf)))
            found.append(result)
        trains = torch.cat([window.trains for window in found], dim=-1).sort(dim=-1, stable=True).values
        return found[-1]._replace(trains=trains)

    def fed(self, inputs: Spikes, spikes: Tensor | None = None) -> Arriving:
        """The inputs and the layer's own spikes, as in ``NeuronLayer``."""
        assert spikes is not None
        delay = self._matrix(self._delays(jitters=False))
        trains = joined_trains(self.seen(inputs), spikes if delay is not None else spikes + self.window)
        return Arriving(trains, self._weights, delay, self.duration, self.reached)

    @property
    def _weights(self) -> Float[Tensor, "out_features sources"]:
        """Weights of the inputs and of the recurrent synapses together."""
        return torch.cat([self.synapses, self.recurrent_synapses], dim=1)

    @property
    def _reach(self) -> float:
        """A time after which a spike has arrived everywhere, with something to spare for rounding."""
        rule = self.recurrent_delay
        return 1.001 * (self.window + (0.0 if rule is None else rule.shift + rule.scale))

    def _in_one_call(self) -> bool:
        """Whether the kernels take all windows at once, which have no forward mode."""
        return (
            forward_ad._current_level < 0
            and accepting(self.backend, self.weight.device, self.neuron, recurrent=True)[0] is not None
        )

    def _delays(self, jitters: bool, earlier: tuple[Tensor | None, ...] = ()) -> tuple[Tensor, ...]:
        """Delays of inputs and of recurrent synapses as their weights stand; none if those are all ``window``.

        With those of ``earlier`` pieces the gradient is theirs, as ``DelayRule`` looks at its sum.
        """
        given = self._delay_values(jitters)
        if given is None and self.recurrent_delays is None:
            return ()
        both = torch.zeros_like(self.weight) if given is None else given, self.delays_of_synapses
        pairs = zip(both, earlier or (None, None), strict=True)
        return tuple(x if y is None else x.detach() + (y - y.detach()) for x, y in pairs)

    def _matrix(self, delays: tuple[Tensor, ...]) -> Tensor | None:
        """These delays as a matrix of all sources."""
        if not delays:
            return None
        given = synapses.matrix(self, "weight", delays[0]).flatten(1)
        return torch.cat([given, synapses.matrix(self, "recurrent_weight", delays[1], rest=self.window)], dim=1)
