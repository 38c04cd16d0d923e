"""``first_spike_time``: shapes, types and the choice of a backend, around ``function``."""

import logging
import math
import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.neuron import LIF, check_neuron
from firstspike.spiketime import reference
from firstspike.spiketime.contract import Backend, Constants, Tensors
from firstspike.spiketime.function import Options, Spikes, recordable
from firstspike.spiketime.times import check_tensor
from firstspike.spiketime.units import in_units

logger = logging.getLogger(__name__)

_AT_ONCE = 1 << 21  # input and output times that are worked on at once where no gradient is asked for


@cache
def _reference() -> Backend:
    return in_units(Backend(reference.forward, reference.backward, "reference"))


@cache
def _cpu() -> Backend:
    from firstspike.spiketime import cpu  # loads numba

    return in_units(Backend(cpu.forward, cpu.backward, "cpu", True, cpu.saves))


@cache
def _triton() -> Backend:
    try:
        from firstspike.spiketime import triton  # loads Triton
    except ImportError as error:
        raise ImportError("backend 'triton' needs Triton, which GPU builds of PyTorch include") from error
    return in_units(Backend(triton.forward, triton.backward, "triton", False, triton.saves))


BACKENDS: dict[str, Callable[[], Backend]] = {"reference": _reference, "cpu": _cpu, "triton": _triton}
"""Each loads its backend; whatever a backend needs is imported when it is used first."""


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
    times, delay, observed = as_tensors(times, weight, delay, observed)
    check_form(times, weight, neuron, delay, observed, max_weight_grad)
    outputs = weight.shape[0]
    threshold = of_neurons(neuron.threshold, weight)
    given, tau_mem, tau_syn = constants_of(neuron, weight)
    lead = times.shape[:-1]
    if len(lead) != 1:
        samples = math.prod(lead)
        times = times.reshape(samples, times.shape[-1])
        observed = None if observed is None else observed.reshape(samples, outputs)
    if weight.is_leaf and weight.requires_grad and torch.is_grad_enabled():
        # of a parameter itself, autograd would use values that replace its own before the backward pass
        weight = weight.view_as(weight)
    tensors = Tensors(times, weight, threshold, delay, observed, tau_mem, tau_syn)
    if torch.compiler.is_compiling():
        spikes: Tensor = recorded(tensors, given, max_weight_grad, backend)[0]
    else:
        spikes = _in_parts(tensors, Options(resolve_backend(backend, times.device), given, max_weight_grad))
    return spikes if len(lead) == 1 else spikes.reshape(*lead, outputs)


def _in_parts(tensors: Tensors, options: Options) -> Tensor:
    """The spike times; without gradients some samples after the others, as nothing of them has to be kept."""
    times, weight, _, _, observed, *_ = tensors
    samples = max(1, _AT_ONCE // max(1, times.shape[-1] + weight.shape[-2]))
    if torch.is_grad_enabled() or observed is not None or len(times) <= samples:
        spikes: Tensor = Spikes.apply(*tensors, options)[0]
        return spikes
    return torch.cat([Spikes.apply(x, *tensors[1:], options)[0] for x in times.split(samples)])


def recorded(tensors: Tensors, *options: Any) -> list[Tensor]:
    """The call as a custom op in the program that is compiled or exported; for ``options`` see ``recordable``."""
    if torch.autograd.forward_ad._current_level >= 0:  # torch would take the tangents of a custom op for 0
        raise NotImplementedError(
            "spike times have no forward-mode derivatives in compiled code; call torch.func.jvp outside of it"
        )
    found: list[Tensor] = torch.ops.firstspike.spikes(*tensors, *recordable(*options))
    return found


def resolve_backend(name: str, device: torch.device, trains: bool = False) -> Backend:
    """The backend of that name, for ``"auto"`` the fastest one for the device.

    Raises:
        ValueError: an unknown name, or a backend that does not work on the device or, if asked for, with trains.
    """
    if name == "auto":
        return _automatic(device.type, trains)
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of auto, {', '.join(BACKENDS)}, got {name!r}")
    if name == "cpu" and device.type != "cpu":
        raise ValueError(f"backend 'cpu' needs tensors on the CPU, got {device}; use auto or reference")
    if name == "triton" and device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"backend 'triton' needs tensors on a CUDA or ROCm device, got {device}; use auto")
    if name == "triton" and trains:
        raise ValueError("spike_trains has no backend 'triton'; use auto or reference")
    return BACKENDS[name]()


@cache
def _automatic(device: str, trains: bool = False) -> Backend:
    name = "cpu" if device == "cpu" else "reference"
    if device == "cuda" and not trains and find_spec("triton") is not None:  # which ROCm devices are called as well
        name = "triton"
    logger.info("backend %s for tensors on %s", name, device)
    return BACKENDS[name]()


def as_tensors(
    times: Tensor, weight: Tensor, delay: Tensor | None, observed: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Times, delays and observed times, converted to the dtype of the weight under autocast.

    Raises:
        ValueError: one of them is not a tensor.
    """
    for name, x in (("times", times), ("weight", weight), ("delay", delay), ("observed", observed)):
        if x is not None and not isinstance(x, Tensor):
            check_tensor(name, x)
    if times.dtype != weight.dtype and torch.is_autocast_enabled(times.device.type):
        times = raised(times, weight.dtype)
        delay, observed = (None if x is None else raised(x, weight.dtype) for x in (delay, observed))
    return times, delay, observed


def raised(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers of a lower precision in that dtype."""
    return x.to(dtype) if x.is_floating_point() and x.dtype.itemsize < dtype.itemsize else x


def of_neurons(value: float | Tensor, weight: Tensor) -> Tensor:
    """One number for each neuron, ``(outputs,)``."""
    if isinstance(value, Tensor):
        return value.to(dtype=weight.dtype, device=weight.device).expand(weight.shape[0])
    return torch.full((weight.shape[0],), value, dtype=weight.dtype, device=weight.device)


def constants_of(neuron: LIF, weight: Tensor) -> tuple[Constants, Tensor | None, Tensor | None]:
    """The time constants: numbers, and tensors ``(outputs,)`` for those that are tensors and count in their place."""
    given, tau_mem, tau_syn = Constants(neuron.tau_mem, neuron.tau_syn), None, None
    if isinstance(given.tau_mem, Tensor):
        tau_mem, given = of_neurons(given.tau_mem, weight), given._replace(tau_mem=1.0)
    if isinstance(given.tau_syn, Tensor):
        tau_syn, given = of_neurons(given.tau_syn, weight), given._replace(tau_syn=1.0)
    return given, tau_mem, tau_syn


def _parameters(neuron: LIF) -> tuple[tuple[str, float | Tensor], ...]:
    return ("threshold", neuron.threshold), ("tau_mem", neuron.tau_mem), ("tau_syn", neuron.tau_syn)


def check_form(
    times: Tensor,
    weight: Tensor,
    neuron: LIF,
    delay: Tensor | None,
    observed: Tensor | None,
    max_weight_grad: float | None,
) -> None:
    """Raise ValueError for types and shapes that do not fit, and NotImplementedError in ``torch.jit.trace``."""
    # a trace would record addresses of memory that is gone when its program runs
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        raise NotImplementedError("torch.jit.trace cannot record spike times; record first spikes with torch.export")
    check_neuron(neuron)
    if weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"weight must be float32 or float64, got {weight.dtype}")
    if weight.ndim != 2 or times.ndim < 1 or times.shape[-1] != weight.shape[1]:
        raise ValueError(
            "expected times (..., inputs) and weight (outputs, inputs) with the same number of inputs, "
            f"got times {tuple(times.shape)} and weight {tuple(weight.shape)}"
        )
    outputs = weight.shape[0]
    wanted = {"delay": (delay, weight.shape), "observed": (observed, (*times.shape[:-1], outputs))}
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must have the shape {tuple(shape)}, got {tuple(tensor.shape)}")
    for name, value in _parameters(neuron):
        if isinstance(value, Tensor) and value.shape not in ((), (1,), (outputs,)):
            raise ValueError(f"{name} must be one number or ({outputs},), got {tuple(value.shape)}")
    for name, tensor in (("times", times), ("delay", delay), ("observed", observed)):
        if tensor is not None and (tensor.dtype != weight.dtype or tensor.device != weight.device):
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, weight is {weight.dtype} on {weight.device}; "
                f"convert one of them, e.g. {name}.to(weight)"
            )
    if max_weight_grad is not None and not max_weight_grad > 0:
        raise ValueError(f"max_weight_grad must be > 0 or None, got {max_weight_grad}")
