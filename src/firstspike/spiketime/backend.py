"""What a backend provides: two functions of plain tensors that know nothing of autograd::

    forward(arguments) -> result
    backward(grad, result, arguments, max_weight_grad, needs) -> gradients

All tensors share device and dtype (float32 or float64), and their values are checked, unless the backend does that in
its forward pass (``checks``). Their shapes have E networks side by side, B samples, I inputs and O outputs. The first
dimension of one network alone may be missing in all of them; ``of_several`` is for passes that need it. They may have
any strides, and no backend changes one in place.

A spike time is larger than that of the last input that causes it, by one unit in the last place if it would round to
that, and at most that of the next input. The fastest time constant is between 2**-12 and 2**12, see ``units``.

The gradient is taken at ``spikes``, whoever computed them, with the causal set ``t_i + delay_i < T``. Where the
neuron is silent, or ``V'(T) <= 0``, all derivatives are zero. ``max_weight_grad`` sets the weight gradient of a
(sample, neuron) pair to zero if its largest ``|dL/dw_i|`` exceeds the bound, and leaves the other gradients alone.
On a GPU the bound may be a tensor ``()``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from jaxtyping import Float
from torch import Tensor


class Constants(NamedTuple):
    """The two time constants, numbers or tensors ``(E, O)``; ``tau_mem`` is ``inf`` for all neurons or for none.

    On a GPU, tensors may hold what all neurons share, and ``tau_mem`` may be the number ``inf`` beside a tensor.
    """

    tau_mem: float | Tensor
    tau_syn: float | Tensor


Sizes = tuple[int, int, int, int]
"""Numbers of networks, samples, inputs and outputs."""


class Arguments(NamedTuple):
    """What spike times follow from. Tensors for ``constants`` only where not all neurons have the same."""

    times: Float[Tensor, "E B I"]
    weight: Float[Tensor, "E O I"]
    threshold: Float[Tensor, "E O"]
    delay: Float[Tensor, "E O I"] | None
    constants: Constants

    @property
    def sizes(self) -> Sizes:
        """Of all tensors."""
        outputs, inputs = self.weight.shape[-2:]
        return len(self.times) if self.times.ndim == 3 else 1, self.times.shape[-2], inputs, outputs


class Result(NamedTuple):
    """Spike times, ``inf`` where silent, and what backward can use again (a sorting order, say), ``(E, B, ...)`` each.

    Nothing is saved where the spike times were observed and no forward ran.
    """

    spikes: Float[Tensor, "E B O"]
    saved: tuple[Tensor, ...] = ()


class Needs(NamedTuple):
    """Which gradients are asked for."""

    times: bool
    weight: bool
    threshold: bool
    delay: bool
    tau_mem: bool = False
    tau_syn: bool = False


class Gradients(NamedTuple):
    """Gradients in the shapes of the arguments, by time constants ``(E, O)``; None where not asked for."""

    times: Tensor | None
    weight: Tensor | None
    threshold: Tensor | None
    delay: Tensor | None
    tau_mem: Tensor | None = None
    tau_syn: Tensor | None = None


Forward = Callable[[Arguments], Result]
Backward = Callable[[Tensor, Result, Arguments, float | None, Needs], Gradients]
Run = TypeVar("Run", bound=Callable[..., Any])


@dataclass(frozen=True)
class Backend:
    """A pair of functions, see the module.

    Args:
        forward: see the module.
        backward: see the module.
        name: key under which ``BACKENDS`` has them.
        checks: whether ``forward`` raises the errors of ``check_values`` itself.
    """

    forward: Forward
    backward: Backward
    name: str = ""
    checks: bool = False


def each_tensor(function: Callable[[Tensor], Tensor], x: Any) -> Any:
    """``x`` with the function's result for every tensor in it, through tuples such as ``Arguments`` and ``Result``."""
    if isinstance(x, Tensor):
        return function(x)
    if not isinstance(x, tuple):
        return x
    items = (each_tensor(function, item) for item in x)
    return type(x)(*items) if hasattr(x, "_fields") else tuple(items)


def of_several(run: Run) -> Run:
    """Let a pass for tensors ``(E, ...)`` also take those of one network: the dimension is added, and removed again."""

    @wraps(run)
    def either(*given: Any) -> Any:
        if any(isinstance(x, Arguments) and x.times.ndim == 3 for x in given):
            return run(*given)
        return each_tensor(itemgetter(0), run(*as_several(given)))

    return either  # type: ignore[return-value]


def as_several(x: Any) -> Any:
    """``x`` with a dimension for the networks in all of its tensors that have any."""
    return each_tensor(lambda tensor: tensor[None] if tensor.ndim else tensor, x)
