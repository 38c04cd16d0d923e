"""``first_spike_time``, and what it and ``spike_trains`` have in common: shapes, types and parameters of neurons."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.neuron import LIF, check_neuron
from firstspike.spiketime.contract import Tensors
from firstspike.spiketime.function import Options, spikes_of
from firstspike.spiketime.values import check_tensor

_AT_ONCE = 1 << 21  # input and output times that are worked on at once where no gradient is asked for


def first_spike_time(
    times: Float[Tensor, "*batch inputs"],
    weight: Float[Tensor, "outputs inputs"],
    neuron: LIF,
    *,
    delay: Float[Tensor, "outputs inputs"] | None = None,
    observed: Float[Tensor, "*batch outputs"] | None = None,
    max_weight_grad: float | None = None,
    backend: str = "auto",
) -> Float[Tensor, "*batch outputs"]:
    """First time at which each neuron's membrane reaches the threshold, exact and differentiable.

    ``T = min { t : V(t) >= threshold }`` with V as in ``LIF``. Inputs at equal times arrive together. The derivatives
    by weight, times, delay, threshold and time constants come from the implicit function theorem; only inputs that
    arrive before T count, and those of other inputs and of silent neurons are exactly zero. With
    ``s_i = T - t_i - delay_i`` and ``V(T) = sum_i w_i kappa(s_i)``, the response ``kappa`` to one input, any parameter
    p has ``dT/dp = -(dV/dp) / (dV/dT)``, with dV/dp taken at a fixed T. Reverse and forward mode, ``torch.func``
    transforms, ``torch.compile`` and ``torch.export`` work; second derivatives raise NotImplementedError. Under
    ``torch.autocast`` times in a lower precision are converted to the dtype of the weight.

    T is exact up to rounding for weights up to 1e30 thresholds, for any ratio ``tau_mem / tau_syn`` from 1e-30 (above
    1e30 there is no leak) and for time constants from 1e-35 to 1e35, and in float64 up to 1e200 and 1e250 instead. It
    is always larger than the time of the input that causes it: where it would round to that, it is the next number.

    Args:
        times: arrival of each input's spike, in the unit of ``neuron.tau_syn``; ``inf`` never arrives.
        weight: synaptic weights.
        neuron: time constants and threshold, each a number or a tensor ``()`` or ``(outputs,)``.
        delay: synaptic delays >= 0; synapse (j, i) sees ``times[..., i] + delay[j, i]``.
        observed: output times from elsewhere (a simulator, a chip): returned as they are, with the gradient taken
            there, and none where ``V'(observed) <= 0``: the ideal neuron could not spike there.
        max_weight_grad: bound on the gradient of the loss by the weights of one (sample, neuron) pair. Where its
            largest magnitude exceeds the bound it becomes zero: V only just reaches the threshold, and the derivative
            diverges. The gradient by the input times is left alone (``max_dw_norm`` of Göltz et al. 2021), and so are
            tangents in forward mode.
        backend: ``"auto"`` (the fastest for the device) or a key of ``BACKENDS``.

    Returns:
        Spike times; ``inf`` where the neuron stays silent.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, NaN or -inf in times, a weight that is not finite, a
            threshold or time constant <= 0, a tau_mem of inf in a tensor, a delay < 0, an unknown backend; weights and
            time constants beyond the limits above.

    Source: Göltz et al. 2021, "Fast and energy-efficient neuromorphic deep learning with first-spike times".
    """
    times, delay, observed = checked(times, weight, neuron, max_weight_grad, delay, observed)
    outputs, lead = weight.shape[0], times.shape[:-1]
    fixed, threshold, tau_mem, tau_syn = parameters_of(neuron, weight)
    if len(lead) != 1:
        samples = math.prod(lead)
        times = times.reshape(samples, times.shape[-1])
        observed = None if observed is None else observed.reshape(samples, outputs)
    if weight.is_leaf and weight.requires_grad and torch.is_grad_enabled():
        # of a parameter itself, autograd would use values that replace its own before the backward pass
        weight = weight.view_as(weight)
    tensors = Tensors(times, weight, threshold, delay, tau_mem, tau_syn, observed=observed)
    spikes = _in_parts(tensors, Options(backend, *fixed, max_weight_grad))
    return spikes if len(lead) == 1 else spikes.reshape(*lead, outputs)


def _in_parts(tensors: Tensors, options: Options) -> Tensor:
    """The spike times; without gradients some samples after the others, as nothing of them has to be kept."""
    times, outputs = tensors.times, tensors.weight.shape[0]
    samples = max(1, _AT_ONCE // max(1, times.shape[-1] + outputs))
    whole = torch.is_grad_enabled() or tensors.observed is not None or torch.compiler.is_compiling()
    if whole or len(times) <= samples:
        return spikes_of(tensors, options)[0]
    return torch.cat([spikes_of(tensors._replace(times=x), options)[0] for x in times.split(samples)])


def raised(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers of a lower precision in that dtype."""
    return x.to(dtype) if x.is_floating_point() and x.dtype.itemsize < dtype.itemsize else x


def of_neurons(value: float | Tensor, weight: Tensor) -> Tensor:
    """One number for each neuron, ``(outputs,)``."""
    if isinstance(value, Tensor):
        return value.to(dtype=weight.dtype, device=weight.device).expand(weight.shape[0])
    return torch.full((weight.shape[0],), value, dtype=weight.dtype, device=weight.device)


def parameters_of(
    neuron: LIF, weight: Tensor
) -> tuple[tuple[float | None, float], Tensor, Tensor | None, Tensor | None]:
    """Time constants for ``Options``; thresholds and, in place of these numbers, time constants ``(outputs,)``."""
    mem, syn = neuron.tau_mem, neuron.tau_syn
    tau_mem, tau_syn = (of_neurons(tau, weight) if isinstance(tau, Tensor) else None for tau in (mem, syn))
    fixed = None if isinstance(mem, Tensor) or mem == math.inf else mem, 1.0 if isinstance(syn, Tensor) else syn
    return fixed, of_neurons(neuron.threshold, weight), tau_mem, tau_syn


def checked(
    times: Tensor,
    weight: Tensor,
    neuron: LIF,
    max_weight_grad: float | None,
    delay: Tensor | None,
    observed: Tensor | None,
    copies: tuple[int, ...] = (),
    **others: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Times, delay and observed spikes whose types and shapes fit, under autocast converted to the dtype of the weight.

    Args:
        times: ``(..., inputs)``, of trains ``(..., inputs, K)``.
        weight: ``(outputs, inputs)``.
        neuron: whose parameters are one for all or one for each output.
        max_weight_grad: the bound.
        delay: ``(outputs, inputs)``.
        observed: ``(..., outputs)``, of trains ``(..., outputs, S)``.
        copies: of trains, the number of spikes of each neuron.
        others: numbers of each neuron in each sample.

    Raises:
        ValueError: types and shapes that do not fit.
        NotImplementedError: in ``torch.jit.trace``.
    """
    # a trace would record addresses of memory that is gone when its program runs
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        raise NotImplementedError("torch.jit.trace cannot record spike times; record first spikes with torch.export")
    for name, x in (("times", times), ("weight", weight), ("delay", delay), ("observed", observed)):
        if x is not None:
            check_tensor(name, x)
    if times.dtype != weight.dtype and torch.is_autocast_enabled(times.device.type):
        times = raised(times, weight.dtype)
        delay, observed = (None if x is None else raised(x, weight.dtype) for x in (delay, observed))
    check_neuron(neuron)
    if weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"weight must be float32 or float64, got {weight.dtype}")
    dims = 1 + len(copies)
    if weight.ndim != 2 or times.ndim < dims or times.shape[-dims] != weight.shape[1]:
        raise ValueError(
            f"expected times (..., inputs{', K' if copies else ''}) and weight (outputs, inputs) with the same number "
            f"of inputs, got times {tuple(times.shape)} and weight {tuple(weight.shape)}"
        )
    outputs = weight.shape[0]
    neurons = (*times.shape[:-dims], outputs)
    shaped = [("times", times, times.shape), ("delay", delay, weight.shape), ("observed", observed, neurons + copies)]
    if others:
        shaped += [(name, x, neurons) for name, x in others.items()]
    for name, x, shape in shaped:
        if x is None:
            continue
        if x.shape != shape:
            raise ValueError(f"{name} must have the shape {tuple(shape)}, got {tuple(x.shape)}")
        if x.dtype != weight.dtype or x.device != weight.device:
            raise ValueError(
                f"{name} is {x.dtype} on {x.device}, weight is {weight.dtype} on {weight.device}; "
                f"convert one of them, e.g. {name}.to(weight)"
            )
    for name in ("threshold", "tau_mem", "tau_syn"):
        value = getattr(neuron, name)
        if isinstance(value, Tensor) and value.shape not in ((), (1,), (outputs,)):
            raise ValueError(f"{name} must be one number or ({outputs},), got {tuple(value.shape)}")
    if max_weight_grad is not None and not max_weight_grad > 0:
        raise ValueError(f"max_weight_grad must be > 0 or None, got {max_weight_grad}")
    return times, delay, observed
