"""What a backend provides: two functions of plain tensors that know nothing of autograd::

    forward(times, weight, threshold, delay, constants) -> (spikes, saved)
    backward(grad, spikes, times, weight, threshold, delay, saved, constants, max_weight_grad, needs) -> Gradients

All tensors share device and dtype (float32 or float64) and are checked. Shapes, with E networks side by side (usually
1), B samples, I inputs, O outputs: ``times (E, B, I)``, ``weight (E, O, I)``, ``threshold (E, O)``, ``delay (E, O, I)``
or None, ``spikes`` and ``grad (E, B, O)``. They may have any strides, and no backend changes one in place.

``constants`` are two numbers, or two tensors ``(E, O)`` where not all neurons have the same. Gradients by them come as
tensors ``(E, O)`` in both cases, one for each neuron.

``saved`` is a tuple of tensors that backward can use again (a sorting order, say), each with leading dimensions
``(E, B)``. It is empty where the spike times were observed and no forward ran.

A spike time is larger than that of the last input that causes it, by one unit in the last place if it would round to
that, and at most that of the next input. The fastest time constant is between 2**-12 and 2**12, see ``units``.

The gradient is taken at ``spikes``, whoever computed them, with the causal set ``t_i + delay_i < T``. Where the
neuron is silent, or ``V'(T) <= 0``, all derivatives are zero. ``max_weight_grad`` sets the weight gradient of a
(sample, neuron) pair to zero if its largest ``|dL/dw_i|`` exceeds the bound, and leaves the other gradients alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Constants(NamedTuple):
    """The two time constants, both numbers or both tensors ``(E, O)``; ``tau_mem`` is ``inf`` for all or for none."""

    tau_mem: float | Tensor
    tau_syn: float | Tensor


class Needs(NamedTuple):
    """Which gradients are asked for."""

    times: bool
    weight: bool
    threshold: bool
    delay: bool
    tau_mem: bool = False
    tau_syn: bool = False


class Gradients(NamedTuple):
    """Gradients in the shapes of the inputs; None where not asked for."""

    times: Tensor | None
    weight: Tensor | None
    threshold: Tensor | None
    delay: Tensor | None
    tau_mem: Tensor | None = None
    tau_syn: Tensor | None = None


@dataclass(frozen=True)
class Backend:
    """A pair of functions, see the module, and the key under which ``BACKENDS`` has them."""

    forward: Callable[..., tuple[Tensor, tuple[Tensor, ...]]]
    backward: Callable[..., Gradients]
    name: str = ""
