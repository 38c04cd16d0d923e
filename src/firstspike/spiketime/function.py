"""The one differentiable function: checks values, asks a backend, saves what backward needs. No maths.

Two ``autograd.Function`` classes, so that ``torch.func`` can map over the backward pass as well. Both work on tensors
of one network or with a dimension for several (see ``contract``); vmap folds a mapped dimension into it, or into the
batch where neither weight nor anything else of the network is mapped.
"""

import inspect
import math
import warnings
from collections.abc import Collection, Iterator, Sequence
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
    Windows,
    as_several,
    each_tensor,
)
from firstspike.spiketime.tangent import tangent
from firstspike.spiketime.time_constants import check_time_constants, members, resolve
from firstspike.spiketime.values import check_trains, check_values

# Whether modes record or replace calls of torch, as ``make_fx`` does; backends work on memory that they do not see
_modes = torch._C._len_torch_dispatch_stack


class Options(NamedTuple):
    """What a call fixes beside its tensors; time constants that are tensors count in place of ``constants``."""

    backend: Backend
    constants: Constants
    max_weight_grad: float | None
    max_spikes: int = 0
    """As all that follows, see ``Arguments``."""
    start: float = -math.inf
    until: float = math.inf
    overflow: str = "drop"
    windows: Windows | None = None

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
    """Spikes from the tensors of ``forward``, of which all from ``refractory`` on belong to trains, and ``Options``.

    Returns:
        First spikes and what is saved; or trains, voltage, current and refractory time at ``until`` (of no neurons
        where that is ``inf``), overflows, and what is saved.
    """

    @staticmethod
    def forward(
        times: Tensor,
        weight: Tensor,
        threshold: Tensor,
        delay: Tensor | None,
        observed: Tensor | None,
        tau_mem: Tensor | None,
        tau_syn: Tensor | None,
        refractory: Tensor | None,
        reset: Tensor | None,
        voltage: Tensor | None,
        current: Tensor | None,
        left: Tensor | None,
        options: Options,
    ) -> tuple[Tensor, ...]:
        taus, more = (tau_mem, tau_syn), (refractory, reset, voltage, current, left)
        if _modes():
            tensors = (times, weight, threshold, delay, observed, *taus, *more)
            return tuple(torch.ops.firstspike.spikes(*tensors, *options.recordable()))
        if options.max_spikes or observed is not None or not options.backend.checks:
            check_values(times, weight, threshold, delay, observed)
        check_time_constants(options.constants, *taus, weight.dtype)
        given = _arguments(times, weight, threshold, delay, observed, *taus, *more, options)
        if options.max_spikes:
            check_trains(given)
        elif observed is not None:
            return (observed.clone(),)
        found = _joined([_flat(options.backend.forward(part), part) for (part,) in _networks(given.constants, given)])
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
        grads: Any = filled(grad, ends, ctx.saved_tensors[0])
        return in_place(needs, gradients(needs, ctx.options, *grads, *ctx.saved_tensors))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        options = ctx.options._replace(max_weight_grad=None)  # it bounds gradients of a loss
        if options.windows is not None:
            raise NotImplementedError("recurrent CPU kernels have no forward mode; use backend='reference'")

        def gradients(needs: Needs, *tensors: Tensor | None) -> tuple[Tensor, ...]:
            found: tuple[Tensor, ...] = SpikeGradient.apply(needs, options, *tensors)
            return found

        spikes, *rest = ctx.saved_tensors
        moves, inputs, saved = tangents[:12], rest[:12], rest[12:]
        if not options.max_spikes:
            if spikes.ndim == 2:
                moves, spikes, inputs = as_several((tuple(moves), spikes, tuple(inputs)))
                return tangent(gradients, moves, spikes, inputs)[0][0], *(None for _ in saved)
            return *tangent(gradients, moves, spikes, inputs), *(None for _ in saved)
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
    def forward(
        needs: Needs,
        options: Options,
        grad: Tensor,
        of_voltage: Tensor | None,
        of_current: Tensor | None,
        of_left: Tensor | None,
        spikes: Tensor,
        *tensors: Any,
    ) -> tuple[Tensor, ...]:
        if _modes():
            given = (grad, of_voltage, of_current, of_left, spikes, *tensors[:12], list(tensors[12:]))
            return tuple(torch.ops.firstspike.spike_gradient(list(needs), *given, *options.recordable()))
        arguments, saved = _arguments(*tensors[:12], options), tensors[12:]  # type: ignore[call-arg]
        result = Result(spikes, saved[1:], saved[0]) if options.max_spikes else Result(spikes, saved)
        grads = Grads(grad, _held(of_voltage, of_current, of_left))
        parts = [
            options.backend.backward(asked, one, part, options.max_weight_grad, needs)
            for asked, one, part in _networks(arguments.constants, grads, result, arguments)
        ]
        found = _joined([tuple(x for x in (*part[:6], *(part.state or ())) if x is not None) for part in parts])
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
    """Which gradients are asked for, from which arguments of ``Spikes.forward`` need one."""
    times, weight, threshold, delay, _, tau_mem, tau_syn, _, _, *state = asked[:12]
    return Needs(times, weight, threshold, delay, tau_mem, tau_syn, any(state))


def in_place(needs: Needs, found: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The needed gradients in the order of the arguments of ``Spikes.forward``, None elsewhere."""
    following = iter(found)
    times, weight, threshold, delay, mem, syn = (next(following) if need else None for need in needs[:6])
    state = tuple(following) or (None, None, None)
    return times, weight, threshold, delay, None, mem, syn, None, None, *state, None


def filled(grad: Tensor | None, ends: Sequence[Tensor | None], spikes: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients by spikes and state, with zeros for None; no state if there is none for it."""
    grad = torch.zeros_like(spikes) if grad is None else grad
    if all(x is None for x in ends):
        return grad, None, None, None
    return grad, *(torch.zeros_like(spikes[..., 0]) if x is None else x for x in ends)


def _arguments(
    times: Tensor,
    weight: Tensor,
    threshold: Tensor,
    delay: Tensor | None,
    observed: Tensor | None,
    tau_mem: Tensor | None,
    tau_syn: Tensor | None,
    refractory: Any,
    reset: Any,
    voltage: Tensor | None,
    current: Tensor | None,
    left: Tensor | None,
    options: Options,
) -> Arguments:
    constants = resolve(options.constants, tau_mem, tau_syn)
    if not options.max_spikes:
        return Arguments(times, weight, threshold, delay, constants)
    _, _, _, max_spikes, start, until, _, windows = options
    return Arguments(
        times, weight, threshold, delay, constants, refractory, reset, _held(voltage, current, left), start, until,
        max_spikes, observed, windows,
    )  # fmt: skip


def _held(voltage: Tensor | None, current: Tensor | None, left: Tensor | None) -> Held | None:
    return None if voltage is None or current is None or left is None else Held(voltage, current, left)


def _flat(result: Result, given: Arguments) -> tuple[Tensor, ...]:
    """The output of ``Spikes``."""
    spikes, saved, overflows, state = result
    if overflows is None:
        # of a view that a function returns, autograd refuses changes in place
        return (spikes.clone() if spikes._is_view() else spikes, *saved)
    return spikes, *(state or (given.weight.new_empty(*spikes.shape[:2], 0),) * 3), overflows, *saved


def _joined(parts: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Those of all networks; what is saved of one may be longer than that of another, and is filled up."""
    if len(parts) == 1:
        return parts[0]
    found = []
    for tensors in zip(*parts, strict=True):
        longest = max(x.shape[-1] for x in tensors)
        found.append(torch.cat([functional.pad(x, (0, longest - x.shape[-1])) for x in tensors]))
    return tuple(found)


def _networks(constants: Constants, *given: Any) -> Iterator[tuple[Any, ...]]:
    """``given`` as a whole, or a part for each network where each has numbers of its own as time constants."""
    each = members(constants)
    if each is None:
        yield given
        return
    for number, own in enumerate(each):
        parts = each_tensor(itemgetter(slice(number, number + 1)), given)
        yield tuple(x._replace(constants=own) if isinstance(x, Arguments) else x for x in parts)


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
    overflow: str = "drop",
    windows: Windows | None = None,
) -> tuple[Any, ...]:
    """What the custom ops take in place of ``Options``; None where there is no leak, no start, no end, no windows.

    Not every format of exported programs holds ``inf``.
    """
    mem, syn = (float(tau) for tau in constants)
    bounds, lag, budget = (None, 0.0, 0) if windows is None else (list(windows.bounds), windows.lag, windows.budget)
    ends = None if start == -math.inf else start, None if until == math.inf else until
    mem_or_none = None if mem == math.inf else mem
    return mem_or_none, syn, max_weight_grad, backend, max_spikes, *ends, overflow, bounds, lag, budget


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


OF_SAMPLES = (0, 4, 9, 10, 11)
"""Places of the tensors of ``Spikes.forward`` that have a batch."""
