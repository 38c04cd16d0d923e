"""The one differentiable function: it checks values, calls a backend, and saves the tensors for backward. No maths.

Two ``autograd.Function`` classes, so that ``torch.func`` can map over the backward pass as well. Both work on tensors
of one network or with a dimension for several (see ``contract``).
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from firstspike.spiketime.backends import resolve_backend
from firstspike.spiketime.contract import (
    DIFFERENTIABLE,
    OF_SAMPLES,
    QUANTITIES,
    Arguments,
    Constants,
    Grads,
    Held,
    Needs,
    Recurrence,
    Result,
    Rows,
    Tensors,
    as_several,
    in_order,
)
from firstspike.spiketime.statuses import check_gradients, check_repeated
from firstspike.spiketime.transforms import Direct, mapped, tangent
from firstspike.spiketime.units import check_time_constants, numbers_of, resolve
from firstspike.spiketime.values import check_linear, check_overflow, check_trains, check_values

# Whether modes record or replace calls of torch, as ``make_fx`` does. Backends work on memory that they do not see
_modes = torch._C._len_torch_dispatch_stack

INPUTS = len(QUANTITIES)
assert Arguments._fields[:INPUTS] == tuple(QUANTITIES), "arguments begin with the quantities, in their order"
_PLACES = {name: place for place, name in enumerate(QUANTITIES)}
_WEIGHT, _TAU_MEM, _TAU_SYN, _OBSERVED = (_PLACES[x] for x in ("weight", "tau_mem", "tau_syn", "observed"))


class Options(NamedTuple):
    """The arguments of a call that are no tensors, as custom ops take them.

    None stands for an infinite number, which some formats of exported programs cannot store.
    """

    backend: str
    fixed_mem: float | None
    """Time constants that are tensors count in place of these two."""
    fixed_syn: float
    max_weight_grad: float | None
    max_spikes: int = 0
    """This and the fields below, except ``overflow``, are as in ``Arguments`` and ``Recurrence``."""
    start: float | None = None
    until: float | None = None
    bounds: Sequence[float] | None = None
    lag: float = 0.0
    budget: int = 0
    overflow: str = "drop"
    components: str = ""
    """The components of linear neurons, separated by spaces. They take no ``fixed_syn``."""
    resets: bool = True
    equations: str = ""
    once: bool = False
    rows: Rows | None = None
    """The synapses of a sparse network, as in ``Arguments``. No program records these."""

    @property
    def recorded(self) -> tuple[Any, ...]:
        """What a custom op takes."""
        if self.rows is not None:
            raise NotImplementedError("sparse synapses have no custom op yet; call layers with them in eager mode")
        return self[:-1]

    @property
    def closed(self) -> bool:
        """Whether the membrane has a closed solution, as in ``Arguments``."""
        return not self.components and not self.equations

    @property
    def constants(self) -> Constants:
        """The time constants that are numbers."""
        return Constants(math.inf if self.fixed_mem is None else self.fixed_mem, self.fixed_syn)


def spikes_of(tensors: Tensors, options: Options) -> Sequence[Tensor]:
    """The output of ``Spikes``, in programs that are compiled or exported by a custom op."""
    if not torch.compiler.is_compiling():
        found: Sequence[Tensor] = Spikes.apply(*tensors.values(), options)
        return found
    if torch.autograd.forward_ad._current_level >= 0:  # torch would take the tangents of a custom op for 0
        raise NotImplementedError(
            "spike times have no forward-mode derivatives in compiled code; call torch.func.jvp outside of it"
        )
    recorded: Sequence[Tensor] = torch.ops.firstspike.spike_forward(*tensors.values(), *options.recorded)
    return recorded


def recorded_gradients(needs: Needs, options: Options, *given: Any) -> list[Tensor]:
    """The output of ``SpikeGradient`` by a custom op."""
    tensors, saved = given[: 5 + INPUTS], list(given[5 + INPUTS :])
    found: list[Tensor] = torch.ops.firstspike.spike_backward(sorted(needs), *tensors, saved, *options.recorded)
    return found


class Spikes(Direct):
    """Spikes from the values of ``Tensors`` and ``Options``: first spikes and saved tensors, or trains and more.

    Of trains these are voltage, current and refractory time at ``until`` (of no neurons where that is ``inf``),
    overflows, and the saved tensors.
    """

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        options: Options = inputs[-1]
        if _modes():
            return tuple(torch.ops.firstspike.spike_forward(*inputs[:-1], *options.recorded))
        given = Arguments(*inputs[:INPUTS])
        observed, backend = given.observed, resolve_backend(options.backend, given.times.device)
        if options.max_spikes or observed is not None or not options.closed or not backend.checks:
            check_values(given)
        if options.components:
            check_linear(given)
        elif options.closed and (given.tau_mem is not None or given.tau_syn is not None):
            check_time_constants(options.constants, given)
        arguments = _arguments(inputs, options)
        if options.max_spikes:
            check_trains(arguments)
        elif observed is not None:
            return (observed.clone(),)
        found = _flat(backend.forward(arguments), arguments)
        if not options.max_spikes:
            return found
        moving = [k for k, kind in enumerate(arguments.components) if kind == "threshold"]
        if moving and arguments.jumps is not None and observed is None and arguments.resets:
            falls = (arguments.jumps[..., moving] < 0).any(dim=-1)
            check_repeated(found[0], falls & (arguments.refractory == 0))
        check_overflow(found[4], options.max_spikes, options.overflow, options.budget)
        return (found[0] if observed is None else observed.clone(), *found[1:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.options = inputs
        tensors[_OBSERVED] = None  # observed spikes are among the output
        # of a parameter itself, autograd would use values that replace its own before the backward pass
        tensors[_WEIGHT] = tensors[_WEIGHT].detach()
        saved = output[4 if ctx.options.max_spikes else 1 :]
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)
        needed = (output[0], *tensors, *saved)
        ctx.save_for_backward(*needed)
        if torch.autograd.forward_ad._current_level >= 0:
            ctx.save_for_forward(*needed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        plain = not torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()
        return pulled_back(ctx, grads, SpikeGradient.forward if plain else SpikeGradient.apply)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        options = ctx.options._replace(max_weight_grad=None)  # it bounds gradients of a loss
        if options.bounds is not None:
            raise NotImplementedError("recurrent CPU kernels have no forward mode; use backend='reference'")

        def gradients(needs: Needs, *tensors: Tensor | None) -> Any:
            return SpikeGradient.apply(needs, options, *tensors)

        spikes, *rest = ctx.saved_tensors
        moves, inputs, saved = named(tangents), named(rest), rest[INPUTS:]
        if not options.max_spikes:
            alone = spikes.ndim == 2
            given = (moves, spikes, inputs)
            moved = tangent(gradients, *(as_several(given) if alone else given))
            return moved[0][0] if alone else moved[0], *(None for _ in saved)
        moved = tangent(gradients, moves, spikes, inputs, saved[0], options.until is not None)
        return *moved, *(spikes.new_zeros(*spikes.shape[:2], 0) for _ in range(4 - len(moved))), *(None for _ in saved)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        *tensors, options = inputs
        if options.rows is not None:
            raise NotImplementedError("torch.func.vmap takes no layers with sparse synapses")
        found, places = mapped(lambda *x: Spikes.apply(*x, options), info, in_dims[:-1], tensors, OF_SAMPLES)
        return tuple(found), tuple(places)


class SpikeGradient(Direct):
    """The needed gradients, from ``needs, options, grad, those by the state, spikes`` and the saved tensors."""

    @staticmethod
    def forward(needs: Needs, options: Options, *given: Any) -> tuple[Tensor, ...]:
        if _modes():
            return tuple(recorded_gradients(needs, options, *given))
        grad, *of_state, spikes = given[:5]
        arguments, saved = _arguments(given[5:], options), given[5 + INPUTS :]
        backend = resolve_backend(options.backend, spikes.device)
        result = Result(spikes, saved[1:], saved[0]) if options.max_spikes else Result(spikes, saved)

        state = None if of_state[0] is None else Held(*of_state)
        by = backend.backward(Grads(grad, state), result, arguments, options.max_weight_grad, needs)
        if options.equations:
            check_gradients(by.values(), [x for x in (grad, *of_state) if x is not None], options.equations)
        return tuple([by[name] for name in in_order(needs)])

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
        found, places = mapped(lambda *x: SpikeGradient.apply(needs, options, *x), info, in_dims[2:], tensors)
        return tuple(found), tuple(places)


def pulled_back(
    ctx: Any, grads: Sequence[Tensor | None], gradients: Callable[..., Sequence[Tensor]]
) -> tuple[Tensor | None, ...]:
    """The gradients with respect to all inputs of a function that saved the spikes and ``Tensors`` first.

    ``grads`` are by the output of ``Spikes``, None for zero.
    """
    asked, saved = ctx.needs_input_grad, ctx.saved_tensors
    needs = _needs_of(asked[: len(DIFFERENTIABLE)])
    grad, *ends = grads[: 1 if ctx.options.until is None else 4]
    if (grad is None and all(x is None for x in ends)) or not needs:
        return (None,) * len(asked)
    grad = torch.zeros_like(saved[0]) if grad is None else grad
    if any(x is not None for x in ends):
        each = torch.zeros_like(saved[0][..., 0])
        parts = named(saved[1:])["current" if ctx.options.equations else "jumps"]
        none = each, each if parts is None else each.unsqueeze(-1).repeat(*(1,) * each.ndim, parts.shape[-1]), each
        ends = [zero if x is None else x for x, zero in zip(ends, none, strict=True)]
    else:
        ends = [None, None, None]
    by: list[Tensor | None] = [None] * len(asked)
    for name, x in zip(in_order(needs), gradients(needs, ctx.options, grad, *ends, *saved), strict=True):
        by[_PLACES[name]] = x
    return tuple(by)


@lru_cache(maxsize=256)
def _needs_of(asked: tuple[bool, ...]) -> Needs:
    return Needs(name for name, need in zip(DIFFERENTIABLE, asked, strict=True) if need)


def named(given: Sequence[Any]) -> dict[str, Any]:
    """``Tensors``, or one value for each of them, from the beginning of a flat tuple."""
    return dict(zip(QUANTITIES, given, strict=False))


def _arguments(tensors: Sequence[Any], options: Options) -> Arguments:
    given: Any = list(tensors[:INPUTS])
    kind: dict[str, Any] = {}
    if options.equations:
        kind = {"equations": options.equations, "once": options.once}
    elif not options.components:
        mem, syn = given[_TAU_MEM], given[_TAU_SYN]
        if mem is None and syn is None:
            constants = numbers_of(options.fixed_mem, options.fixed_syn, given[0].dtype)
        else:
            constants = resolve(options.constants, mem, syn)
        given[_TAU_MEM], given[_TAU_SYN] = constants
    else:
        kind = {"components": tuple(options.components.split()), "resets": options.resets}
        if given[_TAU_MEM] is None:
            given[_TAU_MEM] = options.constants.tau_mem
    start = -math.inf if options.start is None else options.start
    if not options.max_spikes:
        given[_OBSERVED] = None
        return Arguments(*(*given, start), **kind)
    recurrence = None if options.bounds is None else Recurrence(tuple(options.bounds), options.lag, options.budget)
    until = math.inf if options.until is None else options.until
    kind["rows"] = options.rows
    return Arguments(*(*given, start, until, options.max_spikes, recurrence), **kind)


def _flat(result: Result, given: Arguments) -> tuple[Tensor, ...]:
    """The output of ``Spikes``."""
    spikes, saved, overflows, state = result
    found: tuple[Tensor, ...] = (spikes,)
    if overflows is not None:
        none = (given.weight.new_empty(*spikes.shape[:2], 0) for _ in range(3))
        found = spikes, *(state or none), overflows
    # of a view that a function returns, autograd refuses changes in place
    return *(x.clone() if x._is_view() else x for x in found), *saved
