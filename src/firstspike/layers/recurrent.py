"""LIF neurons that are connected to each other, exactly: window by window, each as long as the shortest delay.

A spike reaches other neurons of the layer after a delay of at least ``window``. So within a window of that length all
neurons are independent of each other, and the operator for spike trains computes them; what arrives from the layer
itself in a window is known before the window begins. The simulator NEST divides time in the same way.
"""

import math
import warnings
from collections.abc import Collection
from itertools import pairwise
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from firstspike.layers.delay import DelayRule
from firstspike.layers.init import firing_weights
from firstspike.layers.neurons import Arriving
from firstspike.layers.spiking import LIFSpikeTrains, Overflow
from firstspike.neuron import LIF
from firstspike.ranges import Finite, NotNegative, Positive, Size
from firstspike.spiketime import TrainState, spike_window
from firstspike.spiketime.trains import Windows, knows_recurrence, recurrent_window

_SPREAD = 0.05  # of recurrent weights, relative to that of weights with which most neurons spike


class RecurrentState(NamedTuple):
    """What a recurrent layer keeps from one piece of a sequence to the next."""

    neurons: TrainState
    """Of the neurons, at the time up to which they are known."""
    pending: Float[Tensor, "*batch neurons spikes"]
    """Spikes that may still have to arrive at other neurons of the layer."""

    def detach(self) -> Self:
        """The same state without its history, so that gradients end here."""
        voltage, current, refractory = (x.detach() for x in self.neurons[:3])
        return type(self)(TrainState(voltage, current, refractory, self.neurons.time), self.pending.detach())


class RecurrentDelays(nn.Module):
    """Delays of recurrent synapses beyond the window: what ``DelayRule`` needs of a module.

    Args:
        rule: how they start and stay >= 0.
        like: the weights.
    """

    def __init__(self, rule: DelayRule, like: Tensor) -> None:
        super().__init__()
        self.delay_rule = rule
        self.delay_raw = nn.Parameter(torch.empty_like(like), rule.trainable)

    @property
    def delay(self) -> Float[Tensor, "neurons neurons"]:
        """The delays, >= 0."""
        return self.delay_rule(self.delay_raw)


class LIFRecurrent(LIFSpikeTrains):
    """LIF neurons with inputs and connections to each other: ``(batch, in[, spikes]) -> (batch, out, max_spikes)``.

    The recurrent synapse from neuron i to j has the weight ``recurrent_weight[j, i]`` and the delay ``window``, or
    ``window + recurrent_delay``. The result is exact for any ``window``: it is the shortest delay, not a time step.
    Neurons are followed up to the time ``duration``, as a network with excitation may never fall silent.

    Stateless: every sample starts at rest. ``proceed`` returns the state in addition, for long sequences in pieces.

    Args:
        in_features: number of inputs.
        out_features: number of neurons.
        max_spikes: most spikes of a neuron in a sample.
        duration: time at which the layer stops, in the unit of the times; no spike is later.
        neuron: see ``LIFLinear``.
        window: shortest delay of recurrent synapses, in the unit of the times.
        window_spikes: most spikes of a neuron within a window; ``overflow`` says what happens to more: dropped, the
            neuron stays at ``reset`` until the window ends.
        recurrent_delay: rule of further delays of the recurrent synapses, bounded and without jitter; None for
            ``window`` alone.
        recurrent_mean: mean of the initial recurrent weights, which are normally distributed.
        recurrent_std: standard deviation of the initial recurrent weights; by default such that they alone rarely make
            a neuron spike.
        refractory: see ``LIFSpikeTrains``.
        reset: see ``LIFSpikeTrains``.
        overflow: see ``LIFSpikeTrains``.
        trainable: see ``LIFLinear``.
        per_neuron: whether each neuron has its own values of what is trainable; otherwise the layer shares one.
        weight_mean: see ``LIFSpikeTrains``.
        weight_std: see ``LIFSpikeTrains``.
        delay: rule of the synaptic delays of the inputs; None for no delays.
        max_weight_grad: see ``LIFSpikeTrains``.
        backend: see ``spike_trains``.
        generator: source of the initial values; torch's global one by default.
        device: as in torch.
        dtype: float32 or float64, as in torch.

    Raises:
        ValueError: sizes < 1, a window or duration that is not positive, a rule for delays without bound or with
            jitter; otherwise as ``LIFSpikeTrains``.
    """

    def __init__(
        self,
        in_features: Size,
        out_features: Size,
        max_spikes: Size,
        duration: Positive,
        neuron: LIF | None = None,
        *,
        window: Positive = 1.0,
        window_spikes: Size = 4,
        recurrent_delay: DelayRule | None = None,
        recurrent_mean: Finite = 0.0,
        recurrent_std: NotNegative | None = None,
        refractory: NotNegative = 0.0,
        reset: Finite = 0.0,
        overflow: Overflow = "error",
        trainable: Collection[str] = (),
        per_neuron: bool = False,
        weight_mean: Finite | None = None,
        weight_std: NotNegative | None = None,
        delay: DelayRule | None = None,
        max_weight_grad: Positive | None = None,
        backend: str = "auto",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        for name, value in (("duration", duration), ("window", window)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be > 0 and finite, got {value}")
        if window_spikes < 1:
            raise ValueError(f"window_spikes must be >= 1, got {window_spikes}")
        if recurrent_std is not None and recurrent_std < 0:
            raise ValueError(f"recurrent_std must be >= 0, got {recurrent_std}")
        rule = recurrent_delay
        if rule is not None and (rule.bound == "softplus" or math.isinf(rule.scale) or rule.jitter):
            raise ValueError(
                "recurrent_delay must be bounded and without jitter (bound sigmoid, or clip with a finite scale), "
                f"got {rule}"
            )
        super().__init__(
            in_features,
            out_features,
            max_spikes,
            neuron,
            refractory=refractory,
            reset=reset,
            overflow=overflow,
            trainable=trainable,
            per_neuron=per_neuron,
            weight_mean=weight_mean,
            weight_std=weight_std,
            delay=delay,
            max_weight_grad=max_weight_grad,
            backend=backend,
            generator=generator,
            device=device,
            dtype=dtype,
        )
        self.duration, self.window, self.window_spikes = duration, window, window_spikes
        self.recurrent_mean, self.recurrent_std = recurrent_mean, recurrent_std
        self.recurrent_weight = nn.Parameter(self.weight.new_empty(out_features, out_features))
        self.recurrent_delays = None
        if recurrent_delay is not None:
            self.recurrent_delays = RecurrentDelays(recurrent_delay, self.recurrent_weight)
        self._reset_recurrent_parameters(generator)

    @property
    def recurrent_delay(self) -> DelayRule | None:
        """The rule of the further delays of recurrent synapses."""
        return None if self.recurrent_delays is None else self.recurrent_delays.delay_rule

    @property
    def own_delay(self) -> Float[Tensor, "out_features out_features"]:
        """Delays of the recurrent synapses: ``window``, and what ``recurrent_delay`` adds."""
        window = torch.full_like(self.recurrent_weight, self.window)
        return window if self.recurrent_delays is None else window + self.recurrent_delays.delay

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights and delays anew; parameters of the neuron that learn start again."""
        super().reset_parameters(generator)
        if hasattr(self, "recurrent_weight"):  # not yet while the weights of the inputs are made
            self._reset_recurrent_parameters(generator)

    @torch.no_grad()
    def _reset_recurrent_parameters(self, generator: torch.Generator | None) -> None:
        if self.recurrent_weight.is_meta:
            return
        std = self.recurrent_std
        if std is None:
            mem, syn, threshold = (
                float(torch.as_tensor(x).detach().double().mean())
                for x in (self.neuron.tau_mem, self.neuron.tau_syn, self.neuron.threshold)
            )
            std = _SPREAD * threshold * firing_weights(self.out_features, LIF(mem, syn)).std
        self.recurrent_weight.normal_(self.recurrent_mean, std, generator=generator)
        if self.recurrent_delays is not None:
            self.recurrent_delays.delay_rule.draw_(self.recurrent_delays.delay_raw, generator)

    def forward(
        self,
        times: Float[Tensor, "*batch in_features"] | Float[Tensor, "*batch in_features spikes"],
        observed: Float[Tensor, "*batch out_features max_spikes"] | None = None,
    ) -> Float[Tensor, "*batch out_features max_spikes"]:
        """Spike trains up to ``duration``; with ``observed`` those, and the gradient there."""
        if self._in_one_call():
            return self._all_windows(self.seen(times), self.duration, None, observed, self.max_spikes)[0]
        trains, _ = self.proceed(times, self.duration, observed=observed)
        missing = self.max_spikes - trains.shape[-1]
        if missing >= 0:
            return functional.pad(trains, (0, missing), value=math.inf)
        return _checked(trains, self.max_spikes, self.overflow)[..., : self.max_spikes]

    def proceed(
        self,
        times: Float[Tensor, "*batch in_features"] | Float[Tensor, "*batch in_features spikes"],
        until: float,
        state: RecurrentState | None = None,
        *,
        observed: Float[Tensor, "*batch out_features observed"] | None = None,
    ) -> tuple[Float[Tensor, "*batch out_features spikes"], RecurrentState]:
        """Spike trains of a piece of a sequence, and the state that the next piece needs.

            state = None
            for until in (10.0, 20.0, 30.0):
                trains, state = layer.proceed(times, until, state)
                state = state.detach()                         # truncated gradients; without it they are exact

        Args:
            times: the inputs; only those from the time of the state up to ``until`` arrive. Where inputs have synaptic
                delays, give earlier ones again: they may arrive now.
            until: end of the piece, in the unit of the times.
            state: of the piece before; None for the start, at rest at time 0.
            observed: spikes of the piece from elsewhere, sorted, at which the gradient is taken.

        Returns:
            Spikes of the piece, as many columns as there is room for in all windows, and the state.

        Raises:
            ValueError: an end that is not after the time of the state; more spikes than there is room for.
        """
        inputs = self.seen(times)
        neurons, begin = (None, 0.0) if state is None else (state.neurons, state.neurons.time)
        if not begin < until < math.inf:
            raise ValueError(f"until must be after {begin:g}, where the state is, and finite, got {until}")
        if self._in_one_call():
            windows = len(self._bounds(begin, until)) - 1
            return self._all_windows(inputs, until, state, observed, windows * self.window_spikes)
        weight = torch.cat([self.weight, self.recurrent_weight], dim=1)
        delay = self._delays(observed is None)
        rule = self.recurrent_delay
        reach = 2 + (0 if rule is None else math.ceil((rule.shift + rule.scale) / self.window))  # windows
        nothing = inputs.new_full((*inputs.shape[:-2], self.out_features, 1), math.inf)
        inputs = inputs.sort(dim=-1).values
        longest = 0.0 if delay is None else _longest(delay[:, : self.in_features]) + 1e-3 * self.window
        sent: list[Tensor] = [] if state is None else [state.pending]
        found: list[Tensor] = []
        for number, (start, end) in enumerate(pairwise(self._bounds(begin, until)), 1):
            own = torch.cat(sent[-reach:], dim=-1) if sent else nothing
            now = within(inputs, start - longest, end)
            arriving = joined_trains(now, own if delay is not None else own + self.window)
            seen = None
            if observed is not None:
                inside = (observed <= end) & (observed > (start if number > 1 or state is not None else -math.inf))
                seen = torch.where(inside, observed, math.inf).sort(dim=-1).values
            result = spike_window(
                arriving,
                weight,
                self.neuron,
                max_spikes=self.window_spikes if seen is None else seen.shape[-1],
                delay=delay,
                observed=seen,
                refractory=self.refractory,
                reset=self.reset,
                overflow=self.overflow,
                max_weight_grad=self.max_weight_grad,
                state=neurons,
                until=end,
                backend=self.backend,
            )
            neurons = result.state
            sent.append(within(result.trains, -math.inf, math.inf))
            found.append(result.trains)
        assert neurons is not None
        trains = torch.cat(found, dim=-1).sort(dim=-1).values
        return trains, RecurrentState(neurons, torch.cat(sent[-reach:], dim=-1))

    def arriving(self, inputs: Tensor, spikes: Tensor) -> Arriving:
        """See ``LIFLayer``: inputs, and the spikes of the layer itself."""
        delay = self._delays(jitters=False)
        trains = joined_trains(self.seen(inputs), spikes if delay is not None else spikes + self.window)
        weight = torch.cat([self.weight, self.recurrent_weight], dim=1)
        return self._each_spike(trains, weight, delay, self.duration)

    def _bounds(self, begin: float, until: float) -> list[float]:
        """Where windows of a piece begin, and its end."""
        windows = max(1, math.ceil((until - begin) / self.window - 1e-9))
        return [*(begin + number * self.window for number in range(windows)), until]

    def _in_one_call(self) -> bool:
        """Whether the kernels take all windows at once: all spikes arrive after the same delay."""
        delayed = self.delay is not None or self.recurrent_delays is not None
        return not delayed and knows_recurrence(self.neuron, self.backend, self.weight.device)

    def _all_windows(
        self, inputs: Tensor, until: float, state: RecurrentState | None, observed: Tensor | None, most: int
    ) -> tuple[Tensor, RecurrentState]:
        """``proceed`` in one call, with room for ``most`` spikes of a neuron."""
        begin = 0.0 if state is None else state.neurons.time
        bounds = self._bounds(begin, until)
        budget = self.window_spikes
        if state is None:
            bounds[0] = -math.inf
        else:
            inputs = joined_trains(inputs, state.pending + self.window)
        if observed is not None:
            inside = (observed > bounds[0]) & (observed <= until)
            observed = torch.where(inside, observed, math.inf).sort(dim=-1).values
            most = budget = observed.shape[-1]
        found = recurrent_window(
            inputs,
            torch.cat([self.weight, self.recurrent_weight], dim=1),
            self.neuron,
            Windows(tuple(bounds), self.window, budget),
            max_spikes=most,
            observed=observed,
            refractory=self.refractory,
            reset=self.reset,
            overflow=self.overflow,
            max_weight_grad=self.max_weight_grad,
            state=None if state is None else state.neurons,
            backend=self.backend,
        )
        assert found.state is not None
        pending = found.trains
        if state is not None and until - begin < 2 * self.window:  # earlier spikes may still be on their way
            pending = torch.cat([state.pending, pending], dim=-1)
        pending = torch.where(pending >= until - 2 * self.window, pending, math.inf).sort(dim=-1).values
        return found.trains, RecurrentState(found.state, pending[..., : max(1, 3 * budget)])

    def _delays(self, jitters: bool) -> Tensor | None:
        """Synaptic delays of inputs and recurrent synapses together; None where those are all ``window``."""
        given = self.delay_in_pass() if jitters else self.delay
        if given is None and self.recurrent_delays is None:
            return None
        return torch.cat([torch.zeros_like(self.weight) if given is None else given, self.own_delay], dim=1)

    def extra_repr(self) -> str:
        """Sizes, budget, neuron and delays, as torch prints them."""
        further = "" if self.recurrent_delay is None else f", recurrent_delay={self.recurrent_delay}"
        return f"{super().extra_repr()}, duration={self.duration}, window={self.window}{further}"


def joined_trains(inputs: Tensor, own: Tensor) -> Float[Tensor, "*batch sources spikes"]:
    """Trains of inputs and of the layer itself, the shorter ones filled up."""
    most = max(inputs.shape[-1], own.shape[-1])
    return torch.cat([functional.pad(x, (0, most - x.shape[-1]), value=math.inf) for x in (inputs, own)], dim=-2)


def within(trains: Tensor, start: float, end: float) -> Float[Tensor, "*batch sources spikes"]:
    """A part of sorted trains that has all spikes in a window, so that few others are sorted again."""
    try:
        first, last = int((trains < start).sum(dim=-1).min()), int((trains < end).sum(dim=-1).max())
    except RuntimeError:  # values cannot be read in torch.func.vmap
        return trains
    return trains[..., min(first, trains.shape[-1] - 1) : max(last, first + 1)]


def _longest(delay: Tensor) -> float:
    """The longest of some delays; inf where that is not known."""
    try:
        return float(delay.detach().max())
    except RuntimeError:  # as above
        return math.inf


def _checked(trains: Tensor, most: int, overflow: Overflow) -> Tensor:
    """The trains; where some are longer than they may be, an error or a warning, as ``overflow`` says."""
    return trains if overflow == "drop" else _Room.apply(trains, most, overflow)


class _Room(torch.autograd.Function):
    """A look at the values of trains, which torch.func.vmap does not allow elsewhere."""

    @staticmethod
    def forward(trains: Tensor, most: int, overflow: Overflow) -> Tensor:
        count = int(torch.isfinite(trains[..., most]).sum())
        if count:
            message = (
                f"{count} of {trains[..., 0].numel()} neurons (counted in each sample) spike more than "
                f"max_spikes={most} times; raise max_spikes or lower the weights"
            )
            if overflow == "error":
                raise ValueError(f"{message}, or drop the later spikes with overflow='warn' or 'drop'")
            warnings.warn(f"{message}. Their later spikes are dropped", stacklevel=2)
        return trains.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        trains, *rest = inputs
        return _Room.apply(trains.movedim(in_dims[0] or 0, 0), *rest), 0
