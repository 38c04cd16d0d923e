"""Whether a change to a problem leaves its values and gradients as they are, where rounding cannot change them."""

import collections
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from problems import Outputs, Problem, finite
from torch import Tensor

Run = Callable[[Problem, str], Outputs]
"""A way to compute the outputs of a problem, in their original order and units."""


class Near(NamedTuple):
    """How close two ways to compute must come, by the rounding of their numbers."""

    nudge: float
    """Relative change of weights and times that rounding never reaches."""
    steady: float
    """Change of an output by which it still counts as steady."""
    outputs: float
    gradients: float
    """Relative to the largest entry of each, as all of gradients."""
    bends: float
    """Largest change of a gradient that counts as steady."""
    late: float
    """Points in time are nudged by as much as 1 is, later ones in proportion up to here."""


DOUBLE = Near(1e-9, 1e-6, 1e-7, 1e-5, 1e-4, 1.0)
SINGLE = Near(2e-6, 4e-4, 1e-3, 2e-2, 3e-3, 40.0)
COUNTS: collections.Counter[str] = collections.Counter()


class UnsettledError(Exception):
    """No output or gradient of this problem is steady under tiny changes."""


class Found(NamedTuple):
    """Outputs, and gradients of their sum with random factors."""

    outputs: Outputs
    gradients: dict[str, Tensor]


def plain(problem: Problem, backend: str) -> Outputs:
    """The outputs of the problem as it is."""
    return problem.run(backend)


def factors_of(outputs: Outputs, seed: int) -> Outputs:
    """Random factors for outputs."""
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(x.shape, generator=random, dtype=torch.float64) for name, x in outputs.items()}


def loss_of(outputs: Outputs, factors: Outputs) -> Tensor:
    """The sum of all finite outputs with their factors."""
    terms = [(finite(x) * factors[name]).sum() for name, x in outputs.items() if x.is_floating_point()]
    return torch.stack(terms).sum()


def evaluate(problem: Problem, backend: str, factors: Outputs, run: Run = plain, learnt: Iterable[str] = ()) -> Found:
    """Outputs, and gradients by what is learnt, by default by all that the problem names."""
    names = list(learnt) or problem.learnt
    leaves = {name: problem.values[name].detach().clone().requires_grad_() for name in names}
    outputs = run(problem.having(**leaves), backend)
    loss = loss_of(outputs, factors)
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True) if loss.requires_grad else [None] * 99
    zeros = (torch.zeros_like(x) for x in leaves.values())
    gradients = {name: z if g is None else g for name, g, z in zip(leaves, found, zeros, strict=False)}
    return Found({name: x.detach() for name, x in outputs.items()}, gradients)


def nudged(problem: Problem, size: float, seed: int | None = None, late: float = 1.0) -> Problem:
    """The problem with slightly other weights and times; without a seed all weights grow alike."""
    random = None if seed is None else torch.Generator().manual_seed(seed)
    learnt = {}
    for name in problem.learnt:
        x, quantity = problem.values[name], problem.quantities[name]
        if random is not None:
            by = size * torch.randn(x.shape, generator=random, dtype=x.dtype)
            learnt[name] = x + by * x.abs().clamp(1, late) if quantity.point else x * (1 + by)
        elif quantity.weight and name != "threshold":
            learnt[name] = x * (1 + size)
    return problem.having(**learnt)


def steady_parts(problem: Problem, backend: str, outputs: Outputs, run: Run = plain, near: Near = DOUBLE) -> Outputs:
    """Which outputs stay where they are when weights and times change a little."""
    steady = {name: torch.ones_like(x, dtype=torch.bool) for name, x in outputs.items()}
    with torch.no_grad():
        for size, seed in ((near.nudge, None), (-near.nudge, None), (near.nudge, 1)):
            for name, x in run(nudged(problem, size, seed, near.late), backend).items():
                steady[name] &= (x == outputs[name]) | ((x - outputs[name]).abs() < near.steady)
    return steady


def base_of(
    problem: Problem, backend: str, seed: int, run: Run = plain, near: Near = DOUBLE
) -> tuple[Found, Outputs, Outputs]:
    """What the problem gives, which outputs are steady, and factors that leave out all others.

    Raises:
        UnsettledError: there are none, or a gradient that is not steady.
    """
    with torch.no_grad():
        outputs = run(problem, backend)
    steady = steady_parts(problem, backend, outputs, run, near)
    if not any(bool(x.any()) or not x.numel() for x in steady.values()):
        raise UnsettledError
    factors = {name: x * steady[name] for name, x in factors_of(outputs, seed).items()}
    found = evaluate(problem, backend, factors, run)
    for size in (near.nudge, -near.nudge):  # inputs that come together come in one order, then in the other
        other = evaluate(nudged(problem, size, 2, near.late), backend, factors, run)
        for name, x in found.gradients.items():
            if not bool(((x - other.gradients[name]).abs() <= near.bends * scale_of(x)).all()):
                raise UnsettledError
    return found, steady, factors


def scale_of(x: Tensor) -> float:
    """A typical size of the entries of a gradient."""
    return max(1e-3, float(x.abs().max())) if x.numel() else 1.0


def assert_same_outputs(
    one: Outputs, other: Outputs, steady: Outputs, tolerance: float = 1e-7, digits: float | None = None
) -> None:
    """Raise AssertionError unless the steady outputs agree."""
    assert one.keys() == other.keys()
    for name, x in other.items():
        assert one[name].shape == x.shape, f"{name} has the shape {tuple(one[name].shape)}, expected {tuple(x.shape)}"
        part = steady[name]
        torch.testing.assert_close(
            one[name].detach()[part],
            x[part],
            rtol=tolerance if digits is None else digits,
            atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def assert_same_gradients(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Raise AssertionError unless the gradients agree, relative to the largest entry of each."""
    assert one.keys() == other.keys()
    for name, x in other.items():
        torch.testing.assert_close(
            one[name],
            x,
            rtol=0,
            atol=tolerance * scale_of(x),
            msg=lambda text, name=name: f"gradient by {name}: {text}",
        )


def assert_unchanged(
    problem: Problem, backend: str, run: Run, base: tuple[Found, Outputs, Outputs], tolerance: float = 1e-5
) -> None:
    """Raise AssertionError unless a way to compute the outputs gives the values and gradients of the problem itself."""
    found, steady, factors = base
    other = evaluate(problem, backend, factors, run)
    assert_same_outputs(other.outputs, found.outputs, steady)
    assert_same_gradients(other.gradients, found.gradients, tolerance)
