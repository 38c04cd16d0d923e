"""The one differentiable function: checks values, asks a backend, saves what backward needs. No maths.

Two ``autograd.Function`` classes, so that ``torch.func`` can map over the backward pass as well. Both work on tensors
of one network or with a dimension for several (see ``backend``); vmap folds a mapped dimension into it, or into the
batch where neither weight nor anything else of the network is mapped.
"""

import inspect
import math
from collections.abc import Collection, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _functorch
from torch._functorch.autograd_function import VmapInfo
from torch._functorch.pyfunctorch import VmapInterpreter, retrieve_current_functorch_interpreter
from torch._functorch.utils import unwrap_dead_wrappers

from firstspike.spiketime.backend import (
    Arguments,
    Backend,
    Constants,
    Gradients,
    Needs,
    Result,
    as_several,
    each_tensor,
)
from firstspike.spiketime.tangent import tangent
from firstspike.spiketime.time_constants import check_time_constants, members, resolve
from firstspike.spiketime.values import check_values

# Whether modes record or replace calls of torch, as ``make_fx`` does; backends work on memory that they do not see
_modes = torch._C._len_torch_dispatch_stack


class Options(NamedTuple):
    """What a call fixes beside its tensors; time constants that are tensors count in place of ``constants``."""

    backend: Backend
    constants: Constants
    max_weight_grad: float | None

    def for_custom_ops(self) -> tuple[float | str | None, ...]:
        """What the custom ops take in their place."""
        return *recordable(self.constants), self.max_weight_grad, self.backend.name


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


class FirstSpikeTime(Direct):
    """``(times, weight, threshold, delay, observed, tau_mem, tau_syn, options) -> (spikes, *saved)``."""

    @staticmethod
    def forward(
        times: Tensor,
        weight: Tensor,
        threshold: Tensor,
        delay: Tensor | None,
        observed: Tensor | None,
        tau_mem: Tensor | None,
        tau_syn: Tensor | None,
        options: Options,
    ) -> tuple[Tensor, ...]:
        if _modes():
            inputs = (times, weight, threshold, delay, observed, tau_mem, tau_syn)
            return (torch.ops.firstspike.first_spike_time(*inputs, *options.for_custom_ops()),)
        if observed is not None or not options.backend.checks:
            check_values(times, weight, threshold, delay, observed)
        check_time_constants(options.constants, tau_mem, tau_syn, weight.dtype)
        if observed is not None:
            return (observed.clone(),)
        given = Arguments(times, weight, threshold, delay, resolve(options.constants, tau_mem, tau_syn))
        found = [options.backend.forward(part) for (part,) in _networks(given.constants, given)]
        # of a view that a function returns, autograd refuses changes in place
        parts = [(spikes.clone() if spikes._is_view() else spikes, *saved) for spikes, saved in found]
        return parts[0] if len(parts) == 1 else tuple(torch.cat(x) for x in zip(*parts, strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        times, weight, threshold, delay, _, tau_mem, tau_syn, ctx.options = inputs
        spikes, *saved = output
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)
        needed = (spikes, times, weight, threshold, delay, tau_mem, tau_syn, *saved)
        ctx.save_for_backward(*needed)
        ctx.save_for_forward(*needed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        needs = Needs(*ctx.needs_input_grad[:4], *ctx.needs_input_grad[5:7])
        if grad is None or not any(needs):
            return (None,) * 8
        plain = not torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()
        gradients = FirstSpikeGradient.forward if plain else FirstSpikeGradient.apply
        found = iter(gradients(needs, ctx.options, grad, *ctx.saved_tensors))
        times, weight, threshold, delay, tau_mem, tau_syn = (next(found) if need else None for need in needs)
        return times, weight, threshold, delay, None, tau_mem, tau_syn, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        options = ctx.options._replace(max_weight_grad=None)  # it bounds gradients of a loss

        def gradients(needs: Needs, *tensors: Tensor | None) -> tuple[Tensor, ...]:
            found: tuple[Tensor, ...] = FirstSpikeGradient.apply(needs, options, *tensors)
            return found

        spikes, *inputs = ctx.saved_tensors
        moves, given = (*tangents[:4], *tangents[5:7]), (spikes, *inputs[:6])
        if spikes.ndim == 2:
            moved = tangent(gradients, as_several(moves), *as_several(given))[0]
        else:
            moved = tangent(gradients, moves, *given)
        return moved, *(None for _ in inputs[6:])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        *tensors, options = inputs
        tensors, unfold = fold(info, in_dims[:-1], tensors, of_samples=(0, 4))
        output = tuple(unfold(x) for x in FirstSpikeTime.apply(*tensors, options))
        return output, (unfold.dim,) * len(output)


class FirstSpikeGradient(Direct):
    """``(needs, options, grad, spikes, times, weight, threshold, delay, taus, *saved) -> the needed gradients``."""

    @staticmethod
    def forward(
        needs: Needs,
        options: Options,
        grad: Tensor,
        spikes: Tensor,
        times: Tensor,
        weight: Tensor,
        threshold: Tensor,
        delay: Tensor | None,
        tau_mem: Tensor | None,
        tau_syn: Tensor | None,
        *saved: Tensor,
    ) -> tuple[Tensor, ...]:
        if _modes():
            tensors = (grad, spikes, times, weight, threshold, delay, tau_mem, tau_syn)
            return tuple(torch.ops.firstspike.first_spike_gradient(*tensors, list(needs), *options.for_custom_ops()))
        given = Arguments(times, weight, threshold, delay, resolve(options.constants, tau_mem, tau_syn))
        parts = [
            options.backend.backward(each, result, own, options.max_weight_grad, needs)
            for each, result, own in _networks(given.constants, grad, Result(spikes, saved), given)
        ]
        found = parts[0]
        if len(parts) > 1:
            found = Gradients(*(None if x[0] is None else torch.cat(x) for x in zip(*parts, strict=True)))
        needed = tuple(x for x in found if x is not None)
        assert len(needed) == sum(needs), f"the backend gave {len(needed)} gradients for {needs}"
        return needed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError(
            "first_spike_time has first derivatives only, no Hessian; "
            "call backward() or autograd.grad() without create_graph"
        )

    jvp = backward

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        needs, options, *tensors = inputs
        tensors, unfold = fold(info, in_dims[2:], tensors)
        output = tuple(unfold(x) for x in FirstSpikeGradient.apply(needs, options, *tensors))
        return output, (0,) * len(output)


def recordable(constants: Constants) -> tuple[float | None, float]:
    """Two numbers for the custom ops, None without leak: not every format of exported programs holds ``inf``."""
    mem, syn = (float(tau) for tau in constants)
    return None if mem == math.inf else mem, syn


def keep_signature(forward: Any) -> None:
    """Torch asks for the signature at every call, and ``inspect`` would find it anew each time."""
    forward.__signature__ = inspect.signature(forward)


keep_signature(FirstSpikeTime.forward)
keep_signature(FirstSpikeGradient.forward)


def _networks(constants: Constants, *given: Any) -> Iterator[tuple[Any, ...]]:
    """``given`` as a whole, or a part for each network where each has numbers of its own as time constants."""
    each = members(constants)
    if each is None:
        yield given
        return
    for number, own in enumerate(each):
        parts = each_tensor(itemgetter(slice(number, number + 1)), given)
        yield tuple(x._replace(constants=own) if isinstance(x, Arguments) else x for x in parts)


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
