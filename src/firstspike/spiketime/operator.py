"""The operator: ``first_spike_time``, and ``spike_trains`` and ``spike_window`` for several spikes of each neuron."""

import math
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from firstspike.neurons import LIF, Neuron, check_neuron
from firstspike.spiketime.backends import chosen
from firstspike.spiketime.contract import Held, Recurrence, Rows
from firstspike.spiketime.current import Current, injected, with_current, without_current
from firstspike.spiketime.function import Options, spikes_of
from firstspike.spiketime.parameters import Receptor, all_tensors, of_neurons, parameters_of, starting_state, turned
from firstspike.spiketime.values import check_spikes, checked

OVERFLOW = ("error", "warn", "drop")
Silent = Literal["inf", "pseudospikes"]
"""What silent neurons get, see ``first_spike_time``."""
_SILENT = get_args(Silent)
_AT_ONCE = 1 << 21  # input and output times that are worked on at once where no gradient is asked for


class TrainState(NamedTuple):
    """The state of neurons between two windows of time, for ``spike_window``."""

    voltage: Float[Tensor, "*batch outputs"]
    """Membrane, below the threshold."""
    current: Float[Tensor, "*batch outputs"] | Float[Tensor, "*batch outputs components"]
    """Synaptic current; of neurons with ``components``, all of these."""
    refractory: Float[Tensor, "*batch outputs"]
    """Time left of the refractory time, 0 if the neuron is not refractory."""
    time: float
    """When this holds, for all samples and neurons."""


class WindowResult(NamedTuple):
    """The result of ``spike_window``."""

    trains: Float[Tensor, "*batch outputs max_spikes"]
    """Spike times, sorted; ``inf`` after the last spike."""
    state: TrainState | None
    """The state at ``until``; None if that is ``inf``."""
    overflows: Bool[Tensor, "*batch outputs"]
    """Neurons that would spike more than ``max_spikes`` times."""


def first_spike_time(
    times: Float[Tensor, "*batch inputs"],
    weight: Float[Tensor, "outputs inputs"],
    neuron: Neuron,
    *,
    delay: Float[Tensor, "outputs inputs"] | None = None,
    receptor: Receptor = None,
    observed: Float[Tensor, "*batch outputs"] | None = None,
    max_weight_grad: float | None = None,
    until: float = math.inf,
    silent: Silent = "inf",
    backend: str = "auto",
) -> Float[Tensor, "*batch outputs"]:
    """First time at which each neuron's membrane reaches the threshold, exact and differentiable.

    ``T = min { t : V(t) >= threshold }`` with V as in ``LIF``. Inputs at equal times arrive together. The derivatives
    with respect to weight, times, delay, threshold and time constants come from the implicit function theorem. Only
    inputs that arrive before T count, and those of other inputs and of silent neurons are exactly zero. With
    ``s_i = T - t_i - delay_i`` and ``V(T) = sum_i w_i kappa(s_i)``, the response ``kappa`` to one input, any parameter
    p has ``dT/dp = -(dV/dp) / (dV/dT)``, with dV/dp taken at a fixed T. Reverse and forward mode, ``torch.func``
    transforms, ``torch.compile`` and ``torch.export`` work. Second derivatives raise NotImplementedError. Under
    ``torch.autocast`` times in a lower precision are converted to the dtype of the weight.

    T is exact up to rounding for weights up to 1e30 thresholds, for any ratio ``tau_mem / tau_syn`` from 1e-30 (above
    1e30 there is no leak) and for time constants from 1e-35 to 1e35 (as tensors on a GPU, 1e-9 to 1e9), and in float64
    up to 1e200 and 1e250 (1e60) instead. It is always larger than the time of the input that causes it: where it would
    round to that, it is the next number.

    Args:
        times: arrival of each input's spike, in the unit of ``neuron.tau_syn``. ``inf`` never arrives.
        weight: synaptic weights.
        neuron: time constants and threshold, each a number or a tensor ``()`` or ``(outputs,)``.
        delay: synaptic delays >= 0. Synapse (j, i) sees ``times[..., i] + delay[j, i]``.
        receptor: of neurons with several, the number of that which each input reaches, or ``"sign"``: the first where
            a weight is > 0, otherwise the second, of which conductances grow by the size of the weight. There the
            membrane is continuous where a weight passes 0, but not its derivative.
        observed: output times from elsewhere (a simulator, a chip): returned as they are, with the gradient taken
            there, and none where ``V'(observed) <= 0``: the ideal neuron could not spike there.
        max_weight_grad: bound on the gradient of the loss with respect to the weights of one (sample, neuron) pair.
            Where its largest magnitude exceeds the bound it becomes zero: V only just reaches the threshold, and the
            derivative diverges. The gradient with respect to the input times is left alone (``max_dw_norm`` of Göltz et
            al. 2021), and so are tangents in forward mode.
        until: when to stop: no spike is later. Neurons from equations need it.
        silent: output of neurons that do not spike: ``"inf"``, or, of ``QIF`` neurons, ``"pseudospikes"``: after
            ``until`` all inputs end, and a constant drive makes every neuron spike within about one ``tau_mem``. So a
            spike that moves beyond ``until`` becomes a pseudospike without a jump, and no neuron is ever without a
            gradient (Klos and Memmesheimer 2025, "Smooth exact gradient descent learning in spiking neural networks").
            Its gradient is that of the membrane at ``until``.
        backend: ``"auto"`` (the fastest for the device) or a key of ``BACKENDS``.

    Returns:
        Spike times; ``inf`` where the neuron stays silent.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, NaN or -inf in times, a weight that is not finite, a
            threshold or time constant <= 0, a tau_mem of inf in a tensor, a delay < 0, an unknown backend; weights and
            time constants beyond the limits above.

    Source: Göltz et al. 2021, "Fast and energy-efficient neuromorphic deep learning with first-spike times".
    """
    if observed is None and receptor is None and _is_usual(times, weight, neuron, delay):
        like = weight.shape, weight.dtype, weight.device
        given, options = _settled_once(neuron, *like, max_weight_grad, until, silent, backend)
        spikes = _in_parts(given | {"times": times, "weight": weight, "delay": delay}, options)
        return spikes if until == math.inf else torch.where(spikes > until, math.inf, spikes)
    times, delay, observed = checked(times, weight, neuron, max_weight_grad, delay, observed)
    check_end(neuron, until, silent)
    if neuron.equations is not None:
        seen = None if observed is None else observed.unsqueeze(-1)
        result = spike_window(
            times.unsqueeze(-1), weight, neuron, max_spikes=1, delay=delay, receptor=receptor, observed=seen,
            overflow="drop", max_weight_grad=max_weight_grad, until=until, backend=backend, once=True,
        )  # fmt: skip
        trains = result.trains if observed is not None else filled_up(result, neuron, silent)
        return trains.squeeze(-1)
    backend = chosen(backend, weight.device, neuron)
    outputs, lead = weight.shape[0], times.shape[:-1]
    fixed, given, kind = parameters_of(neuron, weight, receptor)
    if len(lead) != 1:
        samples = math.prod(lead)
        times = times.reshape(samples, times.shape[-1])
        observed = None if observed is None else observed.reshape(samples, outputs)
    given |= {"times": times, "weight": weight, "delay": delay, "observed": observed}
    spikes = _in_parts(all_tensors(given), Options(backend, *fixed, max_weight_grad, **kind))
    if until < math.inf and observed is None:
        spikes = torch.where(spikes > until, math.inf, spikes)
    return spikes if len(lead) == 1 else spikes.reshape(*lead, outputs)


def spike_trains(
    times: Float[Tensor, "*batch inputs K"],
    weight: Float[Tensor, "outputs inputs"],
    neuron: Neuron,
    *,
    max_spikes: int,
    delay: Float[Tensor, "outputs inputs"] | None = None,
    receptor: Receptor = None,
    observed: Float[Tensor, "*batch outputs max_spikes"] | None = None,
    current: Current | None = None,
    overflow: str = "error",
    max_weight_grad: float | None = None,
    state: TrainState | None = None,
    until: float = math.inf,
    silent: Silent = "inf",
    backend: str = "auto",
) -> Float[Tensor, "*batch outputs max_spikes"]:
    """All times at which each neuron's membrane reaches the threshold, exact and differentiable.

    The neuron of ``first_spike_time`` spikes again: at each spike its membrane is set to the neuron's ``reset`` and
    held there for the time ``refractory``, while its current decays and inputs arrive.

    The derivatives with respect to weight, times, delay, state and the neuron's parameters are those of the adjoint
    method: a spike that moves takes the reset with it, and so moves all later ones. Reverse and forward mode,
    ``torch.func`` transforms, ``torch.compile`` and ``torch.export`` work as for ``first_spike_time``. With
    ``max_spikes=1``, one time per input and ``overflow="drop"`` the spikes and gradients are bit for bit those of
    ``first_spike_time``, and cost as much.

    Args:
        times: arrivals of each input's spikes, in the unit of ``neuron.tau_syn`` and any order along K. ``inf`` never
            arrives, and fills up trains that are shorter than K.
        weight: synaptic weights.
        neuron: as in ``first_spike_time``.
        max_spikes: capacity: most spikes of a neuron, from 1 to 1000000.
        delay: synaptic delays >= 0. Synapse (j, i) sees ``times[..., i, :] + delay[j, i]``.
        receptor: see ``first_spike_time``.
        observed: trains from elsewhere (a simulator, a chip), sorted, ``inf`` after the last spike: returned as they
            are, with the gradient taken there. A spike where the ideal membrane would not rise, or within the
            refractory time of the one before, has none.
        current: what is injected into the neurons, beside the inputs.
        overflow: behaviour if a neuron would spike more than ``max_spikes`` times: ``"error"`` raises
            ValueError, ``"warn"`` warns and drops the later spikes, ``"drop"`` drops them. The neuron then stays at
            ``reset`` until ``until``.
        max_weight_grad: bound on the gradient of the loss with respect to the weights of one spike. Where the largest
            magnitude of its parts, one for each input spike, exceeds the bound, this spike counts as fixed for the
            gradient with respect to the weights: its membrane only just reaches the threshold, and the derivative
            diverges. All other gradients are left alone.
        state: of the neurons at the start, with which only inputs from then on arrive. By default they are at rest.
        until: when to stop: inputs from then on do not arrive, and no spike is later. Neurons from equations need it.
        silent: padding of a train: ``"inf"``, or ``"pseudospikes"``, see ``first_spike_time``.
        backend: ``"auto"`` (the fastest for the device), ``"cpu"``, ``"triton"`` (GPUs), or ``"reference"``, which is
            plain PyTorch and much slower.

    Returns:
        Spike times, sorted along the last dimension; ``inf`` after the last spike.

    Raises:
        ValueError: as ``first_spike_time``, more spikes than ``max_spikes``, trains that are larger than the
            memory, observed trains that are not sorted, a reset at the threshold or above, a negative refractory time.

    Source: Wunderlich and Pehle 2021, "Event-based backpropagation can compute exact gradients for spiking neural
    networks" (the adjoint).
    """
    check_neuron(neuron)
    shared: dict[str, Any] = {"max_weight_grad": max_weight_grad, "backend": backend, "delay": delay}
    shared["receptor"] = receptor
    columns = [getattr(x, "shape", ())[-1:] for x in (times, observed) if x is not None]
    # nobody asks for a second spike, nor for what comes after the first, where no reset and no refractory time acts
    alone = type(max_spikes) is int and max_spikes == 1 and columns.count((1,)) == len(columns)
    check_end(neuron, until, silent)
    alone = alone and state is None and current is None and until == math.inf
    alone = alone and not any(isinstance(neuron.values[name], Tensor) for name in neuron.resets.values())
    alone = alone and not getattr(neuron.values["refractory"], "requires_grad", False)
    if alone and (overflow == "drop" or (observed is not None and overflow in OVERFLOW)):
        seen = None if observed is None else observed.squeeze(-1)
        return first_spike_time(times.squeeze(-1), weight, neuron, observed=seen, **shared).unsqueeze(-1)
    shared |= {"max_spikes": max_spikes, "observed": observed, "overflow": overflow, "state": state, "until": until}
    shared["current"] = current
    result = spike_window(times, weight, neuron, **shared)
    return result.trains if observed is not None else filled_up(result, neuron, silent)


def filled_up(result: WindowResult, neuron: Neuron, silent: str) -> Float[Tensor, "*batch outputs max_spikes"]:
    """Trains, padded after their last spike."""
    if silent == "inf":
        return result.trains
    assert result.state is not None
    most = result.trains.shape[-1]
    pseudo = neuron.pseudospikes(*result.state, most)  # type: ignore[attr-defined]
    count = result.trains.isfinite().sum(-1, keepdim=True)
    later = pseudo.gather(-1, (torch.arange(most, device=count.device) - count).clamp(min=0))
    return torch.where(result.trains.isfinite(), result.trains, later.to(result.trains))


def check_end(neuron: Neuron, until: float, silent: str) -> None:
    """Raise a ValueError for an end that a neuron cannot do without, or pseudospikes that it does not have."""
    if neuron.equations is not None and not until < math.inf:
        raise ValueError(f"{type(neuron).__name__} needs a finite until, got {until}: its series go on until there")
    if silent not in _SILENT:
        raise ValueError(f"silent must be one of {', '.join(_SILENT)}, got {silent!r}")
    if silent != "inf" and not (hasattr(neuron, "pseudospikes") and until < math.inf):
        raise ValueError(f"silent={silent!r} needs QIF neurons and a finite until, got {neuron} and {until}")


def spike_window(
    times: Float[Tensor, "*batch inputs K"],
    weight: Float[Tensor, "outputs inputs"],
    neuron: Neuron,
    *,
    max_spikes: int,
    delay: Float[Tensor, "outputs inputs"] | None = None,
    receptor: Receptor = None,
    observed: Float[Tensor, "*batch outputs max_spikes"] | None = None,
    current: Current | None = None,
    overflow: str = "error",
    max_weight_grad: float | None = None,
    state: TrainState | None = None,
    until: float = math.inf,
    windows: Recurrence | None = None,
    rows: Rows | None = None,
    backend: str = "auto",
    once: bool = False,
) -> WindowResult:
    """``spike_trains`` of a window of time, with the state that the next window needs.

    Windows that follow one another give the spikes of one long call: inputs in ``[state.time, until)`` arrive, and
    spikes are in ``(state.time, until]``. Gradients flow through the state, by ``voltage``, ``current`` and
    ``refractory``. A recurrent layer whose delays are at least as long as its windows sees all that arrives in a
    window before the window begins::

        state = None
        for until in ends:
            trains, state, _ = spike_window(inputs, weight, neuron, max_spikes=4, state=state, until=until)

    Args:
        times: see ``spike_trains``, as for all that is not here. ``max_spikes`` and ``observed`` are of the window,
            and a ``current`` is the whole one.
        windows: of neurons that see their own spikes again, in place of ``until``: many windows in one call, where the
            backend does that. The last ``outputs`` columns of the weight are then those of the neurons themselves,
            and ``times`` may leave these inputs out. ``max_spikes`` counts those of all windows. A neuron with more
            spikes in a window than `max_spikes` stays at ``reset`` until it ends.
        rows: with windows: which synapses there are. Weights and delays have then one number for each, and receptors
            one for each input and neuron.
        once: of neurons from equations, whether the state of those with ``max_spikes`` spikes is not needed.

    Raises:
        ValueError: as ``spike_trains``, or an end that is not after the time of the state.
    """
    check_neuron(neuron)
    if current is not None:
        return injected(
            _with_current, current, times, weight, neuron, max_spikes=max_spikes, delay=delay, receptor=receptor,
            observed=observed, overflow=overflow, max_weight_grad=max_weight_grad, state=state, until=until,
            windows=windows, rows=rows, backend=backend, once=once,
        )  # fmt: skip
    check_spikes(*("max_spikes", max_spikes) if windows is None else ("spikes in a window", windows.budget))
    if overflow not in OVERFLOW:
        raise ValueError(f"overflow must be one of {', '.join(OVERFLOW)}, got {overflow!r}")
    values, lags = weight, delay
    if rows is not None:
        assert windows is not None
        weight, delay = weight.new_zeros(()).expand(rows.outputs, len(rows.offsets) - 1), None  # for its shape
    of_inputs, delays = weight, delay
    if windows is not None:  # of the neurons themselves, times may be left out
        of_inputs = weight[:, : times.shape[-2]]
        delays = None if delay is None else delay[:, : times.shape[-2]]
    states = {} if state is None else {f"state.{name}": getattr(state, name) for name in state._fields[:3]}
    times, delays, observed = checked(
        times, of_inputs, neuron, max_weight_grad, delays, observed, (max_spikes,), **states
    )
    delay = delays if windows is None else delay
    backend = chosen(backend, weight.device, neuron, windows is not None)
    lead, outputs, dtype = times.shape[:-2], weight.shape[0], weight.dtype
    samples = math.prod(lead)
    if neuron.equations is not None:
        check_end(neuron, until, "inf")
        # in single precision a membrane that runs away loses its gradients
        times, weight = times.double(), weight.double()
        delay, observed = (None if x is None else x.double() for x in (delay, observed))
        held = starting_state(neuron, samples, weight) if state is None else state[:3]
        voltage, others, left = (x.double() for x in held)
        state = TrainState(voltage, turned(neuron, receptor, others), left, 0.0 if state is None else state.time)
    fixed, network, kind = parameters_of(neuron, weight, receptor)
    resets = neuron.equations is None and kind.get("resets", True)
    refractory = of_neurons(neuron.values["refractory"], weight)  # which equations have among their parameters
    network |= {"refractory": refractory if neuron.equations is None else refractory.detach()}
    network |= {"weight": weight, "delay": delay}
    if rows is not None:
        network |= {"weight": values[None], "delay": None if lags is None else lags[None]}
    network["reset"] = of_neurons(neuron.values["reset"] if resets else 0.0, weight)

    def of_samples(x: Tensor | None, *shape: int) -> Tensor | None:
        return None if x is None else x.reshape(1, samples, *shape)

    given = {name: None if x is None else x[None] for name, x in network.items()}
    given["times"] = times.reshape(1, samples, *times.shape[-2:])
    given["observed"] = of_samples(observed, outputs, max_spikes)
    if state is not None:
        shapes = (outputs,), (outputs, *neuron.parts), (outputs,)
        given |= zip(Held._fields, (of_samples(x, *y) for x, y in zip(state[:3], shapes, strict=True)), strict=True)
        kind["start"] = state.time
    if windows is not None:
        kind |= windows._asdict()
        until = float(windows.bounds[-1])
    kind |= {"until": None if until == math.inf else float(until), "overflow": overflow, "once": once}
    options = Options(backend, *fixed, max_weight_grad, max_spikes, **kind, rows=rows)
    trains, *after, overflows = spikes_of(all_tensors(given), options)[:5]
    ends = None
    if options.until is not None:
        voltage, others, left = (x.reshape(*lead, *x.shape[2:]).to(dtype) for x in after)
        ends = TrainState(voltage, turned(neuron, receptor, others), left, options.until)
    return WindowResult(trains.reshape(*lead, outputs, max_spikes).to(dtype), ends, overflows.reshape(*lead, outputs))


def _with_current(
    current: Current, times: Tensor, weight: Tensor, neuron: Neuron, *, delay: Any, receptor: Receptor,
    state: TrainState | None, rows: Rows | None, **options: Any,
) -> WindowResult:  # fmt: skip
    """``spike_window`` with a current that all samples share. States do not show it."""
    if rows is not None:
        raise ValueError("layers of synapses take no currents yet; take a bias, or a layer with a matrix of weights")
    own, start = 0 if options["windows"] is None else len(weight), None if state is None else state.time
    given = current.add_to(times, weight, neuron, delay, receptor, start, own)
    times, weight, driven, delay, receptor = given
    if state is not None:
        held = state.current if neuron.parts else state.current.unsqueeze(-1)
        state = state._replace(current=with_current(held, driven))
    found = spike_window(times, weight, driven, delay=delay, receptor=receptor, state=state, **options)
    if found.state is None:
        return found
    held = without_current(found.state.current, driven)
    return found._replace(state=found.state._replace(current=held if neuron.parts else held.squeeze(-1)))


@lru_cache(maxsize=256)
def _settled_once(
    neuron: Neuron, shape: torch.Size, dtype: torch.dtype, device: torch.device, max_weight_grad: float | None,
    until: float, silent: str, backend: str,
) -> tuple[dict[str, Any], Options]:  # fmt: skip
    """The neuron's tensors, and the options, of all calls for a neuron with numbers and for weights of a shape."""
    with torch.inference_mode(False):
        weight = torch.empty(shape, dtype=dtype, device=device)
        checked(weight, weight, neuron, max_weight_grad, None, None)
        check_end(neuron, until, silent)
        backend = chosen(backend, device, neuron)
        fixed, given, kind = parameters_of(neuron, weight, None)
        return all_tensors(given), Options(backend, *fixed, max_weight_grad, **kind)


def _is_usual(times: Any, weight: Any, neuron: Any, delay: Any) -> bool:
    """Whether a call can be settled once: of tensors that fit, of a LIF neuron with numbers, and not recorded."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or torch._C._is_tracing():
        return False
    if not (isinstance(times, Tensor) and isinstance(weight, Tensor) and type(neuron) is LIF):
        return False
    plain = set(map(type, neuron._key)) == {float} and times.layout is weight.layout is torch.strided
    fits = times.ndim == 2 and times.shape[1:] == weight.shape[1:] and times.dtype == weight.dtype
    if delay is not None:
        like = weight.shape, weight.dtype, weight.device, weight.layout
        fits = fits and isinstance(delay, Tensor) and (delay.shape, delay.dtype, delay.device, delay.layout) == like
    return plain and fits and times.device == weight.device and not torch._C._are_functorch_transforms_active()


def _in_parts(tensors: dict[str, Any], options: Options) -> Tensor:
    """The spike times; without gradients some samples after the others, as nothing of them has to be kept."""
    times, outputs = tensors["times"], tensors["weight"].shape[0]
    samples = max(1, _AT_ONCE // max(1, times.shape[-1] + outputs))
    whole = torch.is_grad_enabled() or tensors["observed"] is not None or torch.compiler.is_compiling()
    if whole or len(times) <= samples:
        return spikes_of(tensors, options)[0]
    return torch.cat([spikes_of(tensors | {"times": x}, options)[0] for x in times.split(samples)])
