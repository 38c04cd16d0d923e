"""What a backend provides: two functions of plain tensors that know nothing of autograd::

    forward(arguments) -> result
    backward(grads, result, arguments, max_weight_grad, needs) -> gradients

First spikes are spike trains of one spike: where ``max_spikes`` is 0, inputs have one time each, ``(E, B, I)``, and
the result is ``(E, B, O)``, without a state, a start or an end. Otherwise inputs have K times, ``(E, B, I, K)``, and
neurons up to S spikes, ``(E, B, O, S)``.

All tensors share device and dtype (float32 or float64), and their values are checked, unless the backend does that in
its forward pass of first spikes (``checks``). Their shapes have E networks side by side, B samples, I inputs and O
outputs. For first spikes, the first dimension of one network alone may be missing in all of them; ``of_several`` is for
passes that need it. They may have any strides, and no backend changes one in place.

A spike time is larger than that of the last input that causes it, by one unit in the last place if it would round to
that, and at most that of the next input. The fastest time constant is between 2**-12 and 2**12, see ``units``, but for
tensors on a GPU. After its k-th spike T_k a neuron is held at ``reset`` until ``T_k + refractory``, while its current
decays and inputs arrive. Inputs outside of ``[start, until)`` never arrive. Spikes are in ``(start, until]``.

The gradient is taken at ``spikes``, whoever computed them, with the causal set ``t_i + delay_i < T``. Where the
neuron is silent, or ``V'(T) <= 0``, or within the refractory time of another spike, all derivatives are zero.
``max_weight_grad`` bounds the gradient by the weights of each spike, through this spike and for one input spike: where
the largest ``|dL/dw_i|`` exceeds it, the spike counts as fixed for that gradient, and for no other.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial, wraps
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Constants(NamedTuple):
    """The two time constants, numbers or tensors ``(E, O)``; ``tau_mem`` is ``inf`` for all neurons or for none.

    On a GPU, tensors may hold what all neurons share, and ``tau_mem`` may be the number ``inf`` beside a tensor.
    """

    tau_mem: float | Tensor
    tau_syn: float | Tensor


class Held(NamedTuple):
    """State of each neuron at a time, or gradients by it."""

    voltage: Float[Tensor, "E B O"]
    current: Float[Tensor, "E B O"]
    refractory: Float[Tensor, "E B O"]
    """Time that is left of the refractory time, 0 if none is."""


class Windows(NamedTuple):
    """How neurons see their own spikes again: time is cut into windows in which they are independent."""

    bounds: tuple[float, ...]
    """The start, the ends of all windows but the last, and the end. No window is longer than ``lag``."""
    lag: float
    """Delay of all recurrent synapses."""
    budget: int
    """Most spikes of a neuron in a window."""


Sizes = tuple[int, int, int, int]
"""Numbers of networks, samples, inputs and outputs."""


class Arguments(NamedTuple):
    """What spike times follow from. Tensors for ``constants`` only where not all neurons have the same."""

    times: Float[Tensor, "E B I *K"]
    weight: Float[Tensor, "E O I"]
    threshold: Float[Tensor, "E O"]
    delay: Float[Tensor, "E O I"] | None
    constants: Constants
    refractory: Float[Tensor, "E O"] = None  # type: ignore[assignment]
    """Of trains, as all that follows."""
    reset: Float[Tensor, "E O"] = None  # type: ignore[assignment]
    state: Held | None = None
    """At ``start``; without one the neurons are at rest until the first input."""
    start: float = -math.inf
    until: float = math.inf
    max_spikes: int = 0
    """Room for that many; 0 asks for first spikes."""
    observed: Float[Tensor, "E B O S"] | None = None
    """Trains to take the gradient at, in place of those of the neurons."""
    windows: Windows | None = None
    """Of neurons that are connected to each other: the last O columns of ``weight`` are those of their own spikes, and
    ``times`` may leave out what arrives there from before ``start``. Only the CPU kernels know this."""

    @property
    def sizes(self) -> Sizes:
        """Of all tensors."""
        outputs, inputs = self.weight.shape[-2:]
        several = self.weight.ndim == 3
        return len(self.weight) if several else 1, self.times.shape[several], inputs, outputs


class Tensors(NamedTuple):
    """The tensors of ``Arguments`` side by side, as autograd and recorded programs need them.

    The first nine have gradients, in the order of ``Needs``.
    """

    times: Tensor
    weight: Tensor
    threshold: Tensor
    delay: Tensor | None = None
    tau_mem: Tensor | None = None
    tau_syn: Tensor | None = None
    voltage: Tensor | None = None
    """Of trains, as all that follows but ``observed``."""
    current: Tensor | None = None
    left: Tensor | None = None
    """Refractory time that is left."""
    observed: Tensor | None = None
    refractory: Tensor | None = None
    reset: Tensor | None = None


class Result(NamedTuple):
    """Spike times, ``inf`` where there is none, and what backward can use again (a sorting order, say).

    Shapes begin with ``(E, B)``. Nothing is saved where first spikes were observed and no forward ran.
    """

    spikes: Float[Tensor, "E B O *S"]
    saved: tuple[Tensor, ...] = ()
    overflows: Bool[Tensor, "E B O"] = None  # type: ignore[assignment]
    """Of trains: neurons that would spike again after ``max_spikes``. They are held at ``reset`` until ``until``."""
    state: Held | None = None
    """At a finite ``until``."""


class Grads(NamedTuple):
    """Gradients of the loss by what came out; None for zero."""

    spikes: Float[Tensor, "E B O *S"]
    state: Held | None = None


class Needs(NamedTuple):
    """Which gradients are asked for."""

    times: bool
    weight: bool
    threshold: bool
    delay: bool
    tau_mem: bool = False
    tau_syn: bool = False
    state: bool = False


class Gradients(NamedTuple):
    """Gradients in the shapes of the arguments, by time constants ``(E, O)``; None where not asked for."""

    times: Tensor | None = None
    weight: Tensor | None = None
    threshold: Tensor | None = None
    delay: Tensor | None = None
    tau_mem: Tensor | None = None
    tau_syn: Tensor | None = None
    state: Held | None = None


Forward = Callable[[Arguments], Result]
Backward = Callable[[Grads, Result, Arguments, float | None, Needs], Gradients]
Run = TypeVar("Run", bound=Callable[..., Any])


class Backend(NamedTuple):
    """A pair of functions, see the module."""

    forward: Forward
    backward: Backward
    checks: bool = False
    """Whether ``forward`` raises the errors of ``check_values`` itself for first spikes."""
    saves: Callable[[Arguments], tuple[Tensor, ...]] | None = None
    """Tensors like those that ``forward`` saves of first spikes: their shapes follow from those of its arguments."""


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
        if any(isinstance(x, Arguments) and x.weight.ndim == 3 for x in given):
            return run(*given)
        return each_tensor(itemgetter(0), run(*as_several(given)))

    return either  # type: ignore[return-value]


def as_several(x: Any) -> Any:
    """``x`` with a dimension for the networks in all of its tensors that have any."""
    return each_tensor(lambda tensor: tensor[None] if tensor.ndim else tensor, x)


Samples = Callable[[Arguments], int]
"""How many samples of each network to work on at once; 0 is one, and more than there are means all."""


def forward_in_parts(forward: Forward, samples: Samples) -> Forward:
    """``forward`` on at most ``samples(given)`` samples at a time, for a backend that saves nothing."""

    def parted(given: Arguments) -> Result:
        found = [forward(_some(part, given)) for part in _parts(given, samples)]
        whole = map(partial(torch.cat, dim=1), zip(*map(_tensors, found), strict=True))
        return found[0] if len(found) == 1 else each_tensor(lambda _: next(whole), found[0])

    return parted


def backward_in_parts(backward: Backward, samples: Samples) -> Backward:
    """``backward`` in such parts. Gradients are summed in an order that depends on the shapes alone."""

    def parted(
        grads: Grads, result: Result, given: Arguments, max_weight_grad: float | None, needs: Needs
    ) -> Gradients:
        if given.sizes[1] <= samples(given):
            return backward(grads, result, given, max_weight_grad, needs)
        if given.times.ndim == 2:
            return of_several(parted)(grads, result, given, max_weight_grad, needs)
        total = zero_gradients(given, needs)
        for part in _parts(given, samples):
            found = backward(part(grads), part(result), _some(part, given), max_weight_grad, needs)
            mine = total._replace(times=part(total.times), state=part(total.state))
            for whole, x in zip(_tensors(mine), _tensors(found), strict=True):
                whole += x
        return total

    return parted


def zero_gradients(given: Arguments, needs: Needs) -> Gradients:
    """Zeros for what is needed."""
    like = (*given[:4], given.threshold, given.threshold, given.state)
    zeros: Any = (each_tensor(torch.zeros_like, x) if need else None for x, need in zip(like, needs, strict=True))
    return Gradients(*zeros)


def _parts(given: Arguments, samples: Samples) -> Iterator[Callable[[Any], Any]]:
    """Functions that give some samples of all tensors in what begins with networks and samples."""
    batch, step = given.sizes[1], max(1, samples(given))
    for start in range(0, max(1, batch), step):
        yield partial(each_tensor, itemgetter((slice(None), slice(start, start + step))))


def _some(part: Callable[[Any], Any], given: Arguments) -> Arguments:
    return given._replace(times=part(given.times), state=part(given.state), observed=part(given.observed))


def _tensors(x: Any) -> list[Tensor]:
    """All tensors in ``x``, in order."""
    found: list[Tensor] = []
    each_tensor(lambda tensor: found.append(tensor) or tensor, x)  # type: ignore[func-returns-value]
    return found
