"""The one differentiable function: checks values, asks a backend, saves what backward needs. No maths.

Two ``autograd.Function`` classes, so that ``torch.func`` can map over the backward pass as well. Both work on tensors
of one network or with a dimension for several (see ``contract``); vmap folds a mapped dimension into it, or into the
batch where neither weight nor anything else of the network is mapped.
"""

import inspect
import math
import warnings
from collections.abc import Callable, Collection, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _functorch
from torch._functorch.autograd_function import VmapInfo
from torch._functorch.pyfunctorch import VmapInterpreter, retrieve_current_functorch_interpreter
from torch._functorch.utils import unwrap_dead_wrappers
from torch.nn import functional

from firstspike.spiketime.contract import (
    Arguments,
    Backend,
    Constants,
    Grads,
    Held,
    Needs,
    Result,
    Tensors,
    Windows,
    as_several,
    each_tensor,
)
from firstspike.spiketime.tangent import tangent
from firstspike.spiketime.time_constants import check_time_constants, members, resolve
from firstspike.spiketime.values import check_trains, check_values

# Whether modes record or replace calls of torch, as ``make_fx`` does; backends work on memory that they do not see
_modes = torch._C._len_torch_dispatch_stack


INPUTS = len(Tensors._fields)
OF_SAMPLES = [Tensors._fields.index(name) for name in ("times", "observed", "voltage", "current", "left")]
"""Places of those that have a batch."""


class Options(NamedTuple):
    """What a call fixes beside its tensors; time constants that are tensors count in place of ``constants``."""

    backend: Backend
    constants: Constants
    max_weight_grad: float | None
    max_spikes: int = 0
    """As all that follows but ``overflow``, see ``Arguments``."""
    start: float = -math.inf
    until: float = math.inf
    windows: Windows | None = None
    overflow: str = "drop"

    def recordable(self) -> tuple[Any, ...]:
        """What the custom ops take in their place."""
        return recordable(*self[1:3], self.backend.name, *self[3:])  # type: ignore[arg-type]


class Direct(torch.autograd.Function):
    """A function whose calls skip what only calls with default arguments or below ``torch.func`` need."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            found = cls._mapped(args)
            return super().apply(*args) if found is None else found
        return super(torch.autograd.Function, cls).apply(*unwrap_dead_wrappers(args))  # type: ignore[misc]

    @classmethod
    def _mapped(cls, args: tuple[Any, ...]) -> tuple[Tensor, ...] | None:
        """The call below ``vmap``, None below others: what torch does, without a look into each argument's parts."""
        interpreter = retrieve_current_functorch_interpreter()
        if not isinstance(interpreter, VmapInterpreter):
            return None
        level = interpreter.level()
        parts = [_functorch._unwrap_batched(x, level) if isinstance(x, Tensor) else (x, None) for x in args]
        inner, dims = zip(*parts, strict=True)
        if all(dim is None for dim in dims):
            return None
        info = VmapInfo(interpreter.batch_size(), interpreter.randomness())
        with interpreter.lower():
            outputs, places = cls.vmap(info, dims, *inner)
        return tuple(_functorch._add_batch_dim(x, place, level) for x, place in zip(outputs, places, strict=True))


class Spikes(Direct):
    """Spikes from ``*Tensors`` and ``Options``.

    Returns:
        First spikes and what is saved; or trains, voltage, current and refractory time at ``until`` (of no neurons
        where that is ``inf``), overflows, and what is saved.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        options: Options = inputs[-1]
        if _modes():
            return tuple(torch.ops.firstspike.spikes(*inputs[:-1], *options.recordable()))
        times, weight, threshold, delay, observed, tau_mem, tau_syn, *_ = inputs
        if options.max_spikes or observed is not None or not options.backend.checks:
            check_values(times, weight, threshold, delay, observed)
        check_time_constants(options.constants, tau_mem, tau_syn, weight.dtype)
        arguments = _arguments(inputs, options)
        if options.max_spikes:
            check_trains(arguments)
        elif observed is not None:
            return (observed.clone(),)
        found = _by_network(lambda part: _flat(options.backend.forward(part), part), arguments)
        if not options.max_spikes:
            return found
        _report(found[4], options)
        return (found[0] if observed is None else observed.clone(), *found[1:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.options = inputs
        tensors[4] = None  # observed spikes are among the output
        ctx.outputs = 4 if ctx.options.max_spikes else 1
        saved = output[ctx.outputs :]
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)
        needed = (output[0], *tensors, *saved)
        ctx.save_for_backward(*needed)
        ctx.save_for_forward(*needed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
        asked = ctx.needs_input_grad
        needs = needed(asked)
        ends = others[: ctx.outputs - 1] if ctx.options.until < math.inf else ()
        if (grad is None and all(x is None for x in ends)) or not any(needs):
            return (None,) * len(asked)
        plain = not torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()
        gradients = SpikeGradient.forward if plain else SpikeGradient.apply
        saved: Any = ctx.saved_tensors
        return in_place(needs, gradients(needs, ctx.options, *filled(grad, ends, saved[0]), *saved))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        options = ctx.options._replace(max_weight_grad=None)  # it bounds gradients of a loss
        if options.windows is not None:
            raise NotImplementedError("recurrent CPU kernels have no forward mode; use backend='reference'")

        def gradients(needs: Needs, *tensors: Tensor | None) -> tuple[Tensor, ...]:
            found: tuple[Tensor, ...] = SpikeGradient.apply(needs, options, *tensors)
            return found

        spikes, *rest = ctx.saved_tensors
        moves, inputs, saved = Tensors(*tangents[:INPUTS]), Tensors(*rest[:INPUTS]), rest[INPUTS:]
        if not options.max_spikes:
            alone = spikes.ndim == 2
            given = (moves, spikes, inputs)
            moved = tangent(gradients, *(as_several(given) if alone else given))
            return moved[0][0] if alone else moved[0], *(None for _ in saved)
        moved = tangent(gradients, moves, spikes, inputs, saved[0], options.until < math.inf)
        return *moved, *(spikes.new_zeros(*spikes.shape[:2], 0) for _ in range(4 - len(moved))), *(None for _ in saved)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        *tensors, options = inputs
        tensors, unfold = fold(info, in_dims[:-1], tensors, OF_SAMPLES)
        output = tuple(unfold(x) for x in Spikes.apply(*tensors, options))
        return output, (unfold.dim,) * len(output)


class SpikeGradient(Direct):
    """The needed gradients, from ``needs, options, grad, those by the state, spikes``, and what ``Spikes`` saved."""

    @staticmethod
    def forward(needs: Needs, options: Options, *given: Any) -> tuple[Tensor, ...]:
        first = 5 + INPUTS
        if _modes():
            found = torch.ops.firstspike.spike_gradient(
                list(needs), *given[:first], list(given[first:]), *options.recordable()
            )
            return tuple(found)
        grad, of_voltage, of_current, of_left, spikes = given[:5]
        arguments, saved = _arguments(given[5:first], options), given[first:]
        result = Result(spikes, saved[1:], saved[0]) if options.max_spikes else Result(spikes, saved)
        grads = Grads(grad, _held(of_voltage, of_current, of_left))

        def run(part: Arguments, asked: Grads, one: Result) -> tuple[Tensor, ...]:
            by = options.backend.backward(asked, one, part, options.max_weight_grad, needs)
            state = by.state if needs.state and by.state else ()
            return tuple([x for x in (*by[:6], *state) if x is not None])

        found = _by_network(run, arguments, grads, result)
        assert len(found) == sum(needs[:6]) + 3 * needs.state, f"the backend gave {len(found)} gradients for {needs}"
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(
            "spike times have first derivatives only, no Hessian; "
            "call backward() or autograd.grad() without create_graph"
        )

    jvp = backward

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        needs, options, *tensors = inputs
        tensors, unfold = fold(info, in_dims[2:], tensors)
        output = tuple(unfold(x) for x in SpikeGradient.apply(needs, options, *tensors))
        return output, (0,) * len(output)


def keep_signature(forward: Any) -> None:
    """Torch asks for the signature at every call, and ``inspect`` would find it anew each time."""
    forward.__signature__ = inspect.signature(forward)


keep_signature(Spikes.forward)
keep_signature(SpikeGradient.forward)


def needed(asked: Sequence[bool]) -> Needs:
    """Which gradients are asked for, from which of ``Tensors`` need one."""
    times, weight, threshold, delay, _, tau_mem, tau_syn, _, _, voltage, current, left = asked[:INPUTS]
    return Needs(times, weight, threshold, delay, tau_mem, tau_syn, voltage or current or left)


def in_place(needs: Needs, found: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The needed gradients in the order of ``Tensors`` and ``Options``, None elsewhere."""
    following = iter(found)
    times, weight, threshold, delay, mem, syn = (next(following) if need else None for need in needs[:6])
    state = tuple(following) or (None, None, None)
    return times, weight, threshold, delay, None, mem, syn, None, None, *state, None


def filled(grad: Tensor | None, ends: Sequence[Tensor | None], spikes: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients by spikes and state, with zeros for None; no state if there is none for it."""
    grad = torch.zeros_like(spikes) if grad is None else grad
    if not ends or all(x is None for x in ends):
        return grad, None, None, None
    return grad, *(torch.zeros_like(spikes[..., 0]) if x is None else x for x in ends)


def _arguments(given: Sequence[Any], options: Options) -> Arguments:
    times, weight, threshold, delay, observed, tau_mem, tau_syn, *more = given[:INPUTS]
    first = (times, weight, threshold, delay, resolve(options.constants, tau_mem, tau_syn))
    if not options.max_spikes:
        return Arguments(*first)
    refractory, reset, voltage, current, left = more
    state, (max_spikes, start, until, windows) = _held(voltage, current, left), options[3:7]
    return Arguments(*first, refractory, reset, state, start, until, max_spikes, observed, windows)


def _held(voltage: Tensor | None, current: Tensor | None, left: Tensor | None) -> Held | None:
    return None if voltage is None or current is None or left is None else Held(voltage, current, left)


def _flat(result: Result, given: Arguments) -> tuple[Tensor, ...]:
    """The output of ``Spikes``."""
    spikes, saved, overflows, state = result
    if overflows is None:
        # of a view that a function returns, autograd refuses changes in place
        return (spikes.clone() if spikes._is_view() else spikes, *saved)
    none = (given.weight.new_empty(*spikes.shape[:2], 0) for _ in range(3))
    return spikes, *(state or none), overflows, *saved


def _joined(parts: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Those of all networks; what is saved of one may be longer than that of another, and is filled up."""
    found = []
    for tensors in zip(*parts, strict=True):
        longest = max(x.shape[-1] for x in tensors)
        found.append(torch.cat([functional.pad(x, (0, longest - x.shape[-1])) for x in tensors]))
    return tuple(found)


def _by_network(run: Callable[..., tuple[Tensor, ...]], given: Arguments, *others: Any) -> tuple[Tensor, ...]:
    """``run`` of the arguments and others, network by network where each has constants of its own."""
    each = members(given.constants)
    if each is None:
        return run(given, *others)
    found = []
    for number, own in enumerate(each):
        part, *rest = each_tensor(itemgetter(slice(number, number + 1)), (given, *others))
        found.append(run(part._replace(constants=own), *rest))
    return _joined(found)


def _report(overflows: Tensor, options: Options) -> None:
    """Raise or warn where neurons would spike more often than they may."""
    if options.overflow == "drop" or not bool(overflows.any()):
        return
    window, names = "", "max_spikes"
    if options.windows is not None:
        window = f", or more than window_spikes={options.windows.budget} times in a window"
        names = "max_spikes or window_spikes"
    message = (
        f"{int(overflows.sum())} of {overflows.numel()} neurons (counted in each sample) spike more than "
        f"max_spikes={options.max_spikes} times{window}; raise {names} or lower the weights"
    )
    if options.overflow == "error":
        raise ValueError(f"{message}, or drop the later spikes with overflow='warn' or 'drop'")
    warnings.warn(f"{message}. Their later spikes are dropped", stacklevel=2)


def recordable(
    constants: Constants,
    max_weight_grad: float | None,
    backend: str,
    max_spikes: int = 0,
    start: float = -math.inf,
    until: float = math.inf,
    windows: Windows | None = None,
    overflow: str = "drop",
) -> tuple[Any, ...]:
    """The options as arguments of the custom ops. Infinite numbers and missing windows become None.

    Some formats of exported programs cannot store ``inf``.
    """
    mem, syn = (float(tau) for tau in constants)
    bounds, lag, budget = (None, 0.0, 0) if windows is None else (list(windows.bounds), windows.lag, windows.budget)
    ends = None if start == -math.inf else start, None if until == math.inf else until
    mem_or_none = None if mem == math.inf else mem
    return mem_or_none, syn, max_weight_grad, backend, max_spikes, *ends, bounds, lag, budget, overflow


class Unfold(NamedTuple):
    """Gives what is found for folded tensors its mapped dimension back, at ``dim``."""

    dim: int
    size: int
    merged: bool

    def __call__(self, x: Tensor) -> Tensor:
        return x.unflatten(self.dim, (self.size, -1)) if self.merged else x


def fold(
    info: Any,
    dims: Sequence[int | None],
    tensors: Sequence[Tensor | None],
    of_samples: Collection[int] = (),
) -> tuple[list[Tensor | None], Unfold]:
    """Merge a mapped dimension into that of the networks, or of samples where only tensors ``of_samples`` are mapped.

    Args:
        info: of vmap.
        dims: the mapped dimension of each tensor, or None.
        tensors: what is mapped over. If the first one has two dimensions beside the mapped one, there is none for the
            networks, and the mapped one becomes it.
        of_samples: places of the tensors that have a batch, where one network can do all the work.

    Returns:
        The tensors, and what gives results their mapped dimension back.
    """
    assert tensors[0] is not None
    alone = tensors[0].ndim - (dims[0] is not None) == 2
    batch = all(dim is None or place in of_samples for place, dim in enumerate(dims))
    into, merged = int(batch and not alone), batch or not alone
    folded: list[Tensor | None] = []
    for place, (x, dim) in enumerate(zip(tensors, dims, strict=True)):
        if x is not None and (not batch or place in of_samples):
            x = x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            if merged:
                x = x.movedim(0, into).flatten(into, into + 1)
        folded.append(x)
    return folded, Unfold(into, info.batch_size, merged)
