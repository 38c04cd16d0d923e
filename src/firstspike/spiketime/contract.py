"""A backend provides two functions of plain tensors, without autograd::

    forward(arguments) -> result
    backward(grads, result, arguments, max_weight_grad, needs) -> gradients

First spikes are spike trains of one spike: where ``max_spikes`` is 0, inputs have one time each, ``(E, B, I)``, and
the result is ``(E, B, O)``, without a state, a start or an end. Otherwise inputs have K times, ``(E, B, I, K)``, and
neurons up to S spikes, ``(E, B, O, S)``.

All tensors share device and dtype (float32 or float64), and their values are checked, unless the backend does that in
its forward pass of first spikes (``checks``). Their shapes have E networks side by side, B samples, I inputs and O
outputs. For first spikes, the first dimension of one network alone may be missing in all of them. ``of_several`` is for
passes that need it. They may have any strides, and no backend changes one in place.

A spike time is larger than that of the last input that causes it, by one unit in the last place if it would round to
that, and at most that of the next input. The fastest time constant is between 2**-12 and 2**12, see ``units``, but for
tensors on a GPU. After its k-th spike T_k a neuron is held at ``reset`` until ``T_k + refractory``, while its current
decays and inputs arrive. Inputs outside of ``[start, until)`` never arrive. Spikes are in ``(start, until]``.

Neurons that are linear between events have ``components``, exponentials y each: ``tau_syn`` then holds the time
constants of all, ``(E, O, M)``, ``current`` all y, ``(E, B, O, M)``, and time constants are tensors. An input adds its
weight to the component ``receptors[r]`` of the receptor r that it reaches. See ``neurons.Component``.

Neurons from ``equations`` have D states: ``voltage`` is the first, ``current`` all others, ``(E, B, O, D - 1)``. They
always come as trains, in float64, with a state and a finite ``until``. ``parameters`` holds the values that their
equations name, in the order of ``Equations.parameters``, and then the refractory time.

The gradient is taken at ``spikes``, whoever computed them, with the causal set ``t_i + delay_i < T``. Where the
neuron is silent, or ``V'(T) <= 0``, or within the refractory time of another spike, all derivatives are zero.
``max_weight_grad`` bounds the gradient with respect to the weights of each spike, through this spike and for one input
spike: where the largest ``|dL/dw_i|`` exceeds it, the spike counts as fixed for that gradient, and for no other.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial, wraps
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from firstspike.neurons import LIF, Neuron
from firstspike.neurons.base import Kind


class Quantity(NamedTuple):
    """Properties of an argument of spike times, in the dimensions and units of the module's docstring."""

    shape: str
    """A letter for each dimension. A gradient is summed over all that the quantity does not have."""
    time: int = 0
    """Power of the unit of time in its unit."""


DIFFERENTIABLE = {
    "times": Quantity("EBI", 1), "weight": Quantity("EOI"), "delay": Quantity("EOI", 1),
    "tau_mem": Quantity("EO", 1), "tau_syn": Quantity("EO", 1), "threshold": Quantity("EO"),
    "reset": Quantity("EO"), "bias": Quantity("EO"), "jumps": Quantity("EOM"), "parameters": Quantity("EOP"),
    "voltage": Quantity("EBO"), "current": Quantity("EBO"), "left": Quantity("EBO", 1), "refractory": Quantity("EO", 1),
}  # fmt: skip
"""The quantities with a gradient, in autograd's order. Times of trains have a dimension K more."""

QUANTITIES = DIFFERENTIABLE | {"observed": Quantity("EBO", 1), "receptor": Quantity("EI")}
"""The tensors of a call, those without a gradient last. Observed trains have a dimension S more."""

OF_SAMPLES = [name for name, quantity in QUANTITIES.items() if "B" in quantity.shape]
"""Those of which each sample has its own."""

TAUS = frozenset(("tau_mem", "tau_syn"))
CONSTANTS = TAUS | {"refractory"}
"""Gradients with respect to these cost as much as neurons that each have their own."""

Tensors = dict[str, Tensor | None]
"""All ``QUANTITIES``, in this order, as autograd and recorded programs need them."""

Needs = frozenset[str]
"""Names of the quantities whose gradients are asked for."""

Gradients = dict[str, Tensor]
"""Gradients in the shapes of the quantities, by time constants ``(E, O)``; at least those that are needed."""


class Constants(NamedTuple):
    """The two time constants, numbers or tensors ``(E, O)``. ``tau_mem`` is ``inf`` for all neurons or for none.

    On a GPU, tensors may hold values that all neurons share, and ``tau_mem`` may be the number ``inf`` beside a tensor.
    """

    tau_mem: float | Tensor
    tau_syn: float | Tensor


class Held(NamedTuple):
    """State of each neuron at a time, or gradients with respect to it."""

    voltage: Float[Tensor, "E B O"]
    current: Float[Tensor, "E B O"]
    left: Float[Tensor, "E B O"]
    """Time that is left of the refractory time, 0 if none is."""


class Recurrence(NamedTuple):
    """How neurons see their own spikes again: time is cut into windows in which they are independent."""

    bounds: tuple[float, ...]
    """The start, the ends of all windows but the last, and the end. No window is longer than ``lag``."""
    lag: float
    """Delay of all recurrent synapses where these have none of their own, otherwise at most the shortest of these."""
    budget: int
    """Most spikes of a neuron in a window."""


class Rows(NamedTuple):
    """Which synapses there are, sorted by their sources: inputs first, then the neurons themselves."""

    offsets: Int64[Tensor, " sources+1"]
    """Where the synapses of each source begin, and the end."""
    targets: Int32[Tensor, " synapses"]
    """The neuron that each reaches."""
    outputs: int
    """Number of neurons."""


Sizes = tuple[int, int, int, int]
"""Numbers of networks, samples, inputs and outputs."""


class Arguments(NamedTuple):
    """The arguments of spike times. Time constants are tensors only if they differ between neurons."""

    times: Float[Tensor, "E B I *K"]
    weight: Float[Tensor, "E O I"]
    delay: Float[Tensor, "E O I"] | None
    tau_mem: float | Float[Tensor, "E O"]
    tau_syn: float | Float[Tensor, "E O"]
    threshold: Float[Tensor, "E O"]
    reset: Float[Tensor, "E O"] = None  # type: ignore[assignment]
    """This and all fields below are for spike trains."""
    bias: Float[Tensor, "E O"] | None = None
    """The constant input of linear neurons."""
    jumps: Float[Tensor, "E O M"] | None = None
    """The jump of each component at a spike."""
    parameters: Float[Tensor, "E O P"] | None = None
    """The parameters of neurons from equations."""
    voltage: Float[Tensor, "E B O"] | None = None
    """State at ``start``, with the next two fields. Without it the neurons are at rest until the first input."""
    current: Float[Tensor, "E B O"] | None = None
    left: Float[Tensor, "E B O"] | None = None
    refractory: Float[Tensor, "E O"] = None  # type: ignore[assignment]
    observed: Float[Tensor, "E B O S"] | None = None
    """Trains to take the gradient at, in place of those of the neurons."""
    receptor: Int64[Tensor, "E I"] | None = None
    """The receptor of linear neurons for each input; None: the first if the weight is > 0, otherwise the second."""
    start: float = -math.inf
    until: float = math.inf
    max_spikes: int = 0
    """Largest number of spikes; 0 for first spikes."""
    recurrence: Recurrence | None = None
    """Connections among the neurons: the last O columns of ``weight`` are those of their own spikes, and
    ``times`` may leave out their arrivals from before ``start``. Only the CPU kernels support this."""
    components: tuple[Kind, ...] = ()
    """The components of linear neurons, empty for others."""
    resets: bool = True
    """Whether a spike resets the membrane of linear neurons."""
    equations: str = ""
    """The key of ``Equations``, of neurons that are described by them; empty for others."""
    once: bool = False
    """Whether these need not be followed after ``max_spikes`` spikes, whatever is asked for at ``until``."""
    rows: Rows | None = None
    """The synapses of a sparse network, which has a recurrence: ``weight`` and ``delay`` are then ``(1, 1, synapses)``.
    Only the CPU kernels support this."""

    @property
    def closed(self) -> bool:
        """Whether the membrane has a closed solution in units of its own: a plain LIF neuron."""
        return not self.components and not self.equations

    @property
    def constants(self) -> Constants:
        """The time constants."""
        return Constants(self.tau_mem, self.tau_syn)

    @property
    def state(self) -> Held | None:
        """The state at ``start``."""
        return None if self.voltage is None else Held(self.voltage, self.current, self.left)  # type: ignore[arg-type]

    @property
    def windows(self) -> Recurrence:
        """The recurrence, or one window without any."""
        return self.recurrence or Recurrence((self.start, self.until), 0.0, self.max_spikes)

    @property
    def sizes(self) -> Sizes:
        """The sizes E, B, I and O."""
        times, weight = self.times.shape, self.weight.shape  # of these, parts would cost more
        if self.rows is not None:
            return 1, times[1], len(self.rows.offsets) - 1, self.rows.outputs
        return (weight[0], times[1], weight[2], weight[1]) if len(weight) == 3 else (1, times[0], weight[1], weight[0])


class Result(NamedTuple):
    """Spike times, ``inf`` where there is none, and values that backward can reuse, such as a sorting order.

    Shapes begin with ``(E, B)``. Nothing is saved where first spikes were observed and no forward ran.
    """

    spikes: Float[Tensor, "E B O *S"]
    saved: tuple[Tensor, ...] = ()
    overflows: Bool[Tensor, "E B O"] = None  # type: ignore[assignment]
    """For trains: neurons that would spike again after ``max_spikes``. They are held at ``reset`` until ``until``."""
    state: Held | None = None
    """The state at a finite ``until``."""


class Grads(NamedTuple):
    """Gradients of the loss with respect to the outputs; None for zero."""

    spikes: Float[Tensor, "E B O *S"]
    state: Held | None = None


Supports = Callable[[Neuron, bool], str | None]
Forward = Callable[[Arguments], Result]
Backward = Callable[[Grads, Result, Arguments, float | None, Needs], Gradients]
Run = TypeVar("Run", bound=Callable[..., Any])


class Backend(NamedTuple):
    """A pair of functions, see the module."""

    forward: Forward
    backward: Backward
    supports: Supports
    """None for neurons that it computes, and a reason to refuse others. ``recurrent`` asks for ``recurrence``."""
    checks: bool = False
    """Whether ``forward`` raises the errors of ``check_values`` itself for first spikes."""
    saves: Callable[[Arguments], tuple[Tensor, ...]] | None = None
    """Tensors like those that ``forward`` saves of first spikes: their shapes follow from those of its arguments."""


def refuses_closed_form(neuron: Neuron) -> str | None:
    """Why the closed solution of LIF neurons does not hold for others, and their search for spikes might miss some."""
    if isinstance(neuron, LIF) and not neuron.components:
        return None
    if not neuron.concave_rise:
        return "its search for spikes needs a membrane that is concave while it rises"
    return f"it computes neurons with the parameters {', '.join(LIF.parameters)}"


def each_tensor(function: Callable[[Tensor], Tensor], x: Any) -> Any:
    """``x`` with the function's result for every tensor in it, through tuples and dicts such as ``Arguments``."""
    if isinstance(x, Tensor):
        return function(x)
    if isinstance(x, dict):
        return {name: each_tensor(function, item) for name, item in x.items()}
    if not isinstance(x, tuple):
        return x
    items = [each_tensor(function, item) if isinstance(item, Tensor | tuple | dict) else item for item in x]
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
"""How many samples of each network to work on at once. 0 is one, and more than there are means all."""


def forward_in_parts(forward: Forward, samples: Samples) -> Forward:
    """``forward`` on at most ``samples(given)`` samples at a time, for a backend that saves nothing."""

    def parted(given: Arguments) -> Result:
        found = [forward(some) for _, some in _parts(given, samples)]
        return found[0] if len(found) == 1 else joined(found, partial(torch.cat, dim=1))

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
        for part, some in _parts(given, samples):
            found = backward(part(grads), part(result), some, max_weight_grad, needs)
            for name, whole in total.items():
                mine = part(whole) if name in OF_SAMPLES else whole
                mine += found[name]
        return total

    return parted


@lru_cache(maxsize=256)
def in_order(needs: Needs) -> Sequence[str]:
    """These names, in the order of the quantities."""
    return [name for name in DIFFERENTIABLE if name in needs]


def empty_gradients(given: Arguments, needs: Needs) -> Gradients:
    """Uninitialised tensors for the needed gradients, also of numbers that all neurons share."""
    found = {}
    for name in in_order(needs):
        value = getattr(given, name)
        if value is not None:
            like = value if isinstance(value, Tensor) else given.threshold  # a time constant that all share
            found[name] = torch.empty_like(like, memory_format=torch.contiguous_format)
    return found


def zero_gradients(given: Arguments, needs: Needs) -> Gradients:
    """Zeros for the needed gradients."""
    return {name: x.zero_() for name, x in empty_gradients(given, needs).items()}


def _parts(given: Arguments, samples: Samples) -> Iterator[tuple[Callable[[Any], Any], Arguments]]:
    """Arguments of some samples, and the function that takes these from tensors that begin ``(E, B)``."""
    batch, step = given.sizes[1], max(1, samples(given))
    for start in range(0, max(1, batch), step):
        part = partial(each_tensor, itemgetter((slice(None), slice(start, start + step))))
        yield part, given._replace(**{name: part(getattr(given, name)) for name in OF_SAMPLES})


def joined(parts: Sequence[Any], cat: Callable[[Sequence[Tensor]], Tensor]) -> Any:
    """One result from those of several passes, by a function that joins tensors."""
    whole = map(cat, zip(*map(_tensors, parts), strict=True))
    return each_tensor(lambda _: next(whole), parts[0])


def _tensors(x: Any) -> list[Tensor]:
    """The tensors in ``x``, in order."""
    found: list[Tensor] = []
    each_tensor(lambda tensor: found.append(tensor) or tensor, x)  # type: ignore[func-returns-value]
    return found
