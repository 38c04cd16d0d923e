"""Checks of every call: types and shapes, values that no neuron can work with, and numbers of spikes that exceed the
machine's memory, which are then one clear error and not a failed allocation.
"""

import math
import os
import warnings
from collections.abc import Sized
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.deferred import (
    DELAY,
    OBSERVED,
    ORDER,
    RESET,
    STATE,
    TAU_MEM,
    TAU_SYN,
    THRESHOLD,
    TIMES,
    WEIGHT,
    is_host,
    read_at_once,
    require,
)
from firstspike.neurons import Neuron, check_neuron
from firstspike.spiketime.contract import Arguments
from firstspike.spiketime.shared import LARGEST_32, LARGEST_64

FROM_RASTER = (
    "a raster of 0 and 1 with the shape (steps, batch, inputs) becomes spike times by "
    "firstspike.data.first_spikes(raster, dt), or, with all spikes of each input, by "
    "firstspike.data.trains_from_raster(raster, dt)"
)
"""How to convert the inputs of other libraries for spiking networks. ``dt`` is the length of a time step."""

LARGEST = {torch.float32: LARGEST_32, torch.float64: LARGEST_64}
"""Limit of weights, in thresholds, and of ``tau_mem / tau_syn``, beyond which ``tau_mem`` counts as infinite."""

MOST_SPIKES = 10**6
"""Largest number of spikes of a neuron in a sample, or in a window of a recurrent layer."""
MOST_WINDOWS = 10**6
"""Largest number of windows of a recurrent layer."""

_TENSORS_OF = {"SpikeData": "data.dense, the times of its samples", "EventLists": "data.times.padded()"}
_NOT_FINITE = "weight must be finite, got NaN or inf; did the training diverge?"
_TENSORS = 4  # of the size of the trains that computing them takes, at least


def check_tensor(name: str, value: Any) -> None:
    """Raise a ValueError that says how to convert the value, unless it is a tensor."""
    if not isinstance(value, Tensor):
        shape = getattr(value, "shape", (len(value),) if isinstance(value, Sized) else None)
        form, kind = "" if shape is None else f" of shape {tuple(shape)}", type(value).__name__
        how = _TENSORS_OF.get(kind, f"torch.as_tensor({name}, dtype=torch.float32)")
        raise ValueError(f"{name} must be a torch tensor, got {kind}{form}; write {how}")
    if value.layout is not torch.strided:
        raise ValueError(f"{name} must be a dense tensor, got {value.layout}; write {name}.to_dense()")


def raised(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers of a lower precision in that dtype."""
    return x.to(dtype) if x.is_floating_point() and x.dtype.itemsize < dtype.itemsize else x


def checked(
    times: Tensor,
    weight: Tensor,
    neuron: Neuron,
    max_weight_grad: float | None,
    delay: Tensor | None,
    observed: Tensor | None,
    copies: tuple[int, ...] = (),
    **others: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Times, delay and observed spikes whose types and shapes fit, under autocast converted to the dtype of the weight.

    Shapes are those of ``first_spike_time``, or of ``spike_trains`` where there are ``copies``, the spikes of a neuron.
    ``others`` are numbers of each neuron in each sample.
    """
    # a trace would record addresses of memory that is gone when its program runs
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        raise NotImplementedError("torch.jit.trace cannot record spike times; write a program with fs.export")
    for name, x in (("times", times), ("weight", weight), ("delay", delay), ("observed", observed)):
        if x is not None and (not isinstance(x, Tensor) or x.layout is not torch.strided):
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
    shaped += [(name, x, neurons + neuron.parts * (name == "state.current")) for name, x in others.items()]
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
    for name, given in neuron.values.items():
        if type(given) is float:
            continue
        for value in given if isinstance(given, tuple) else (given,):
            if isinstance(value, Tensor) and value.shape not in ((), (1,), (outputs,)):
                raise ValueError(f"{name} must be one number or ({outputs},), got {tuple(value.shape)}")
    if max_weight_grad is not None and not max_weight_grad > 0:
        raise ValueError(f"max_weight_grad must be > 0 or None, got {max_weight_grad}")
    return times, delay, observed


def check_times(times: Any) -> None:
    """Raise a ValueError unless these may be spike times ``(..., inputs)``; warn of inputs that look like a raster."""
    check_tensor("times", times)
    if not times.is_floating_point():
        raise ValueError(f"times must be float32 or float64, got {times.dtype}: {not_floating(times)}")
    if times.ndim > 2 and _is_raster(times):
        warnings.warn(
            f"times of shape {tuple(times.shape)} are 0 and 1 only. Layers take the times of spikes: {FROM_RASTER}",
            stacklevel=2,
        )


def check_padding(trains: Tensor) -> None:
    """Warn of trains in which spikes at 0 come after a later one, so that 0 seems to fill them up."""
    known = trains.ndim > 2 and is_readable(trains)
    if known and bool(((trains[..., -1] == 0) & (trains[..., 0].nan_to_num(posinf=0) > 0)).any()):
        filled = f"times of shape {tuple(trains.shape)} have trains that are filled up with 0, a spike at time 0 each"
        warnings.warn(f"{filled}; fill up trains with inf", stacklevel=2)


def not_floating(times: Tensor) -> str:
    """A hint for times that are no floating-point numbers."""
    if times.ndim > 2 or times.dtype == torch.bool:
        return FROM_RASTER
    return "spike times are real numbers in the unit of tau_syn; numbers of steps become times by times * step"


def _is_raster(times: Tensor) -> bool:
    """Whether all values are 0 or 1, and both occur. Of most other tensors a single value is read, on a GPU none."""
    values = times.detach()
    if not is_readable(times) or float(values[(0,) * values.ndim]) not in (0.0, 1.0):
        return False
    ones = values == 1
    return bool((ones | (values == 0)).all()) and bool(ones.any()) and not bool(ones.all())


def check_values(given: Arguments) -> None:
    """Raise ValueError for values that no neuron can work with, on a GPU later (``raise_deferred_errors``)."""
    check_real("times", given.times, TIMES)
    if given.observed is not None:
        check_real("observed times", given.observed, OBSERVED)
    check_range(THRESHOLD, "threshold", given.threshold)
    check_weights(given.weight, given.threshold)
    if given.delay is not None:
        check_range(DELAY, "delay", given.delay, ">= 0")


def check_linear(given: Arguments) -> None:
    """Raise ValueError for time constants, jumps and a bias that no linear neuron can have, on a GPU later."""
    assert isinstance(given.tau_syn, Tensor)
    check_range(TAU_SYN, "time constants of synapses and of adaptation", given.tau_syn)
    if isinstance(given.tau_mem, Tensor):
        hint = " in a tensor; a neuron without leak has the number math.inf"
        check_range(TAU_MEM, "tau_mem", given.tau_mem, hint=hint)
    for name, x in (("bias", given.bias), ("jumps", given.jumps)):
        if x is not None:
            require(STATE, x.isfinite().all(), partial(str, f"{name} must be finite, got NaN or inf"))


def check_range(failure: int, name: str, x: Tensor, least: str = "> 0", hint: str = "") -> tuple[Any, Any]:
    """Least and largest of some numbers, which have to be finite and > 0 or >= 0. Errors come later on a GPU."""
    if not x.numel():
        return 1.0, 1.0  # of no neuron
    low, high = x.detach().aminmax()
    if read_at_once(x.device):  # numbers are compared faster than tensors
        low, high = low.item(), high.item()  # type: ignore[assignment]
    inside = (low >= 0 if least == ">= 0" else low > 0) & (high < math.inf)
    require(failure, inside, lambda: f"{name} must be {least} and finite, got {float(low)} to {float(high)}{hint}")
    return low, high


def check_real(name: str, times: Tensor, failure: int) -> None:
    """Raise ValueError for NaN or -inf, on a GPU later (``raise_deferred_errors``) as the ``failure``."""
    if times.numel():
        least = times.detach().amin()
        # numbers are compared faster than tensors
        real = (float(least) if read_at_once(times.device) else least) > -math.inf
        require(failure, real, lambda: f"{name} must be real numbers or inf (no spike), got NaN or -inf")


def check_finite_weight(weight: Tensor) -> None:
    """Raise ValueError for weights that are NaN or infinite, on a GPU later (``raise_deferred_errors``)."""
    require(WEIGHT, torch.isfinite(weight.detach()).all(), lambda: _NOT_FINITE)


def check_weights(weight: Float[Tensor, "E O I"], threshold: Float[Tensor, "E O"]) -> None:
    """Raise ValueError for weights that are not finite, or too large for arithmetic with the neuron's threshold."""
    weight, threshold, limit = weight.detach(), threshold.detach(), LARGEST[weight.dtype]
    # the norm shows any NaN or inf in one pass, and no weight is larger. It may also overflow, hence the second look
    if not weight.numel() or (
        read_at_once(weight.device) and float(torch.linalg.vector_norm(weight)) <= limit * float(threshold.amin())
    ):
        return
    largest = (weight.abs().amax(dim=-1).double() / threshold.double()).amax()

    def message() -> str:
        if not bool(torch.isfinite(weight).all()):
            return _NOT_FINITE
        return (
            f"weights must be at most {limit:g} times the threshold in {weight.dtype}, got {float(largest):g} times; "
            "did the training diverge?"
        )

    require(WEIGHT, largest <= limit, message)


def records() -> bool:
    """Whether calls are recorded, for tensors without values."""
    proxy = torch._C._TorchDispatchModeKey.PROXY
    return torch.compiler.is_compiling() or torch._C._get_dispatch_mode(proxy) is not None


def real_times(times: Tensor) -> Tensor:
    """The times, once it is clear that they are real numbers or ``inf``. Recorded code does not look at them."""
    if not records():
        check_real("times", values_of(times), TIMES)
    return times


def is_readable(x: Tensor) -> bool:
    """Whether there are numbers, and reading them does not wait for a device."""
    unknown = records() or not is_host(x.device) or not x.numel()
    return not unknown and not torch._C._functorch.is_functorch_wrapped_tensor(x)


def values_of(x: Tensor) -> Tensor:
    """The values of a tensor, also within torch.func.vmap: there those of all calls side by side, in any dimension."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x.detach()


def check_trains(given: Arguments) -> None:
    """Raise ValueError for values that only trains have, and for trains that are larger than the memory."""
    samples, spikes = len(given.times) * given.times.shape[1], given.max_spikes
    check_room(samples, given.sizes[3], spikes, f"max_spikes={spikes}", given.times.dtype, given.times.device)
    observed, reset = given.observed, given.reset
    start, until = given.start, given.until
    if observed is not None:
        order = "observed trains must be sorted along their last dimension; call observed.sort(-1).values"
        require(ORDER, (observed[..., 1:] >= observed[..., :-1]).all(), lambda: order)
        inside = observed.isinf() | ((observed > start) & (observed <= until))
        window = f"observed spikes must be after {start} and not after until={until}, or inf"
        require(ORDER, inside.all(), lambda: window)
    check_range(RESET, "refractory", given.refractory, ">= 0")
    below = ((reset < given.threshold) & (reset > -math.inf)).all()
    message = "reset must be finite and below the threshold, got {} and {}"
    require(RESET, below, lambda: message.format(float(reset.max()), float(given.threshold.min())))
    if given.state is not None:
        for name, x in zip(("voltage", "current", "refractory"), given.state, strict=True):
            require(STATE, x.isfinite().all(), partial(str, f"state.{name} must be finite, got NaN or inf"))
        check_range(STATE, "state.refractory", given.state.left, ">= 0")
    limit = torch.finfo(given.times.dtype).max
    if math.isfinite(until) and abs(until) > limit:
        raise ValueError(f"until must be inf or at most {limit:g} in {given.times.dtype}, got {until:g}")
    if not start < until:
        raise ValueError(f"until must be later than the time of the state, got {until} and {start}")


def check_spikes(name: str, value: int) -> None:
    """Raise ValueError for a number of spikes that is too small or far too large. ``name`` says of which."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
    if value > MOST_SPIKES:
        raise ValueError(f"{name} must be at most {MOST_SPIKES}, got {value}")


class FullTrainsError(ValueError):
    """Neurons spike more often than their trains have room for; ``layer`` is the one, as in ``network[0]``."""

    def __init__(self, message: str, layer: str = "") -> None:
        super().__init__(message, layer)

    def __str__(self) -> str:
        message, layer = self.args
        at, of = (f"{layer}: ", f"{layer}.") if layer else ("", "")
        return str(message.format(at=at, of=of))


def check_overflow(more: Tensor, max_spikes: int, overflow: str, budget: int = 0) -> None:
    """Raise an error, or warn, if there are neurons with ``more`` spikes, also in a window with a ``budget``."""
    if overflow == "drop" or not bool(more.any()):
        return
    window, cure = "", "raise {of}max_spikes"
    if budget:
        window, cure = f", or more than window_spikes={budget} times in a window", cure + " or {of}window_spikes"
    message = (
        f"{{at}}{int(more.sum())} of {more.numel()} neurons (counted in each sample) spike more than "
        f"max_spikes={max_spikes} times{window}; {cure} or lower the weights"
    )
    if overflow == "error":
        raise FullTrainsError(message + ", or drop the later spikes with {of}overflow='warn' or 'drop'")
    warnings.warn(f"{message.format(at='', of='')}. Their later spikes are dropped", stacklevel=2)


def check_room(samples: int, neurons: int, spikes: float, cause: str, dtype: torch.dtype, device: torch.device) -> None:
    """Raise ValueError for trains that are larger than the memory of the machine, together with their computation.

    ``cause`` is the argument that sets the number of spikes. On other devices, failed allocations are clear errors.
    """
    if is_host(device):
        needed = _TENSORS * samples * neurons * spikes * dtype.itemsize
        check_memory(needed, f"spike trains of {samples} samples and {neurons} neurons with {cause}")


def check_memory(needed: float, what: str, cure: str = "lower these numbers, or give fewer samples at a time") -> None:
    """Raise ValueError if that many bytes, for ``what``, exceed the machine's memory."""
    there = _memory()
    if needed > there:
        raise ValueError(
            f"{what} take about {needed / 1e9:.3g} GB, more than the {there / 1e9:.3g} GB of this machine; {cure}"
        )


def _memory() -> float:
    """Bytes of memory, inf where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not on Windows
        return math.inf
