"""The invariances, one function each: what has to hold for a problem of a row, or AssertionError."""

import functools
import itertools
import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from comparing import (
    Found,
    Run,
    UnsettledError,
    assert_same_gradients,
    assert_same_outputs,
    assert_unchanged,
    base_of,
    evaluate,
    factors_of,
)
from problems import Outputs, Problem, Quantity, Setting, at
from rows import Row
from torch import Tensor

UNITS = (1e-9, 1e-6, 1e-3, 0.37, 5000.0, 2.0**13, 1e6)
SCALES = (1e-6, 0.3, 7.0, 1e6)


@functools.lru_cache(maxsize=16)
def _base(row: Row, setting: Setting, backend: str) -> tuple[Found, Outputs, Outputs]:
    return base_of(row.make(setting, 0), backend, setting.seed)


class Case(NamedTuple):
    """A problem of a row, to be computed with a backend."""

    row: Row
    setting: Setting
    backend: str
    random: random.Random

    @property
    def problem(self) -> Problem:
        return self.row.make(self.setting, 0)

    @property
    def base(self) -> tuple[Found, Outputs, Outputs]:
        """``base_of`` the problem, which several invariances have."""
        return _base(self.row, self.setting, self.backend)

    def unchanged(self, run: Run, problem: Problem | None = None, tolerance: float = 1e-5) -> None:
        base = self.base if problem is None else base_of(problem, self.backend, self.setting.seed)
        assert_unchanged(problem or self.problem, self.backend, run, base, tolerance)


def through(there: Callable[[Quantity, Any], Any], back: Callable[[Quantity, Any], Any]) -> Run:
    """The outputs of a changed problem, changed back."""

    def run(problem: Problem, backend: str) -> Outputs:
        return problem.changed_outputs(problem.changed(there).run(backend), back)

    return run


def shift(case: Case) -> None:
    by = case.random.choice(case.row.shifts)
    case.unchanged(through(lambda q, x: x + by if q.point else x, lambda q, x: x - by if q.point else x))


def unit(case: Case) -> None:
    by = case.random.choice(UNITS)
    case.unchanged(through(lambda q, x: x * by**q.time if q.time else x, lambda q, x: x / by**q.time if q.time else x))


def scale(case: Case) -> None:
    by = case.random.choice(SCALES)
    case.unchanged(
        through(lambda q, x: x * by**q.weight if q.weight else x, lambda q, x: x / by**q.weight if q.weight else x)
    )


def permuted(axis: str) -> Callable[[Case], None]:
    """Along an axis; the spikes of each train are in another order, too."""

    def check(case: Case) -> None:
        orders = {}
        for each in (axis, "k"):
            size = case.problem.size(each) or 0
            orders[each] = torch.tensor(case.random.sample(range(size), size), dtype=torch.int64)

        def there(q: Quantity, x: Any) -> Any:
            return at(q, at(q, x, axis, orders[axis]), "k", orders["k"])

        def back(q: Quantity, x: Any) -> Any:
            x = at(q, at(q, x, axis, orders[axis].argsort()), "k", orders["k"].argsort())
            return x.sort(dim=-1).values if q.axes.endswith("s") else x  # trains that a layer passes on

        case.unchanged(through(there, back))

    return check


def along(quantity: Quantity, x: Tensor, axes: str, factors: Tensor) -> Tensor:
    """A tensor times factors along one of these axes."""
    for letter in axes:
        if letter in quantity.axes:
            x = x * factors.view(-1, *[1] * (len(quantity.axes) - 1 - quantity.axes.index(letter)))
    return x


def input_split(case: Case) -> None:
    size = case.problem.size("i")
    which, share = case.random.randrange(size), case.random.choice([0.5, 0.3])
    twice, shares = torch.tensor([*range(size), which]), torch.ones(size + 1, dtype=torch.float64)
    shares[which], shares[-1] = share, 1 - share

    def split(q: Quantity, x: Any) -> Any:
        x = at(q, x, "i", twice)
        return along(q, x, "i", shares) if q.weight == 1 and "i" in q.axes else x

    case.unchanged(through(split, lambda q, x: at(q, x, "i", twice[:-1])))


def silent_input(case: Case) -> None:
    """Its weight, a copy of another one's, has no gradient."""
    size = case.problem.size("i")
    more = torch.tensor([*range(size), case.random.randrange(size)])
    never = torch.zeros(size + 1, dtype=torch.float64)
    never[-1] = math.inf

    def with_silent(q: Quantity, x: Any) -> Any:
        x = at(q, x, "i", more)
        if not (q.point and "i" in q.axes):
            return x
        return x + never.view(-1, *[1] * (len(q.axes) - 1 - q.axes.index("i")))

    case.unchanged(through(with_silent, lambda q, x: at(q, x, "i", more[:-1])))


def neuron_repeated(case: Case) -> None:
    """The copy takes the place of the neuron, and half of its weights to other neurons."""
    size = case.problem.size("o")
    which = case.random.randrange(size)
    twice, shares = torch.tensor([*range(size), which]), torch.ones(size + 1, dtype=torch.float64)
    shares[which] = shares[-1] = 0.5
    back = torch.arange(size)
    back[which] = size

    def repeat(q: Quantity, x: Any) -> Any:
        x = at(q, x, "o", twice)
        return along(q, x, "j", shares) if q.weight == 1 and "j" in q.axes else x

    case.unchanged(through(repeat, lambda q, x: at(q, x, "o", back)))


def apart(axis: str, all_alone: bool) -> Callable[[Case], None]:
    """Every sample alone, or one neuron and those on both sides of it."""

    def check(case: Case) -> None:
        size = case.problem.size(axis)
        which = case.random.randrange(size)
        bounds = range(size + 1) if all_alone else sorted({0, which, which + 1, size})
        parts = [torch.arange(a, b) for a, b in itertools.pairwise(bounds)]

        def run(problem: Problem, backend: str) -> Outputs:
            found = [problem.taken(axis, part).run(backend) for part in parts]
            return {
                name: torch.cat([x[name] for x in found], dim=q.axes.index(axis)) for name, q in problem.outputs.items()
            }

        case.unchanged(run)

    return check


def empty_batch(case: Case) -> None:
    problem = case.problem.taken("b", torch.arange(0))
    outputs = problem.run(case.backend)
    found = evaluate(problem, case.backend, factors_of(outputs, 0))
    for name, q in problem.outputs.items():
        assert outputs[name].shape[q.axes.index("b")] == 0
    for name, x in found.gradients.items():
        assert x.shape == problem.values[name].shape
        assert not bool(x.any()), f"gradient by {name}: {x}"


def no_inputs(case: Case) -> None:
    """Inputs that are silent, that are none or have no spikes are all the same, and have no gradient."""
    problem = case.problem
    inputs = [
        name
        for name, x in problem.tensors.items()
        if problem.quantities[name].point and "b" in problem.quantities[name].axes
    ]
    silent = problem.having(**{name: torch.full_like(problem.values[name], math.inf) for name in inputs})
    others = [silent]
    others += [silent.taken(axis, torch.arange(0)) for axis in "ik" if case.row.empty and problem.size(axis)]
    if case.row.empty and problem.size("k"):
        others.append(problem.taken("k", torch.arange(0)))
    wanted = None
    for other in others:
        outputs = other.run(case.backend)
        found = evaluate(other, case.backend, factors_of(outputs, 0))
        wanted = wanted or found
        assert_same_outputs(found.outputs, wanted.outputs, {name: x == x for name, x in wanted.outputs.items()})
        for name, x in found.gradients.items():
            assert bool(x.isfinite().all()), f"gradient by {name}: {x}"
            if name in ("times", "weight", "delay"):
                assert not bool(x.any()), f"gradient by {name}: {x}"


def cut(case: Case) -> None:
    """Pieces end anywhere, at spikes and at inputs, or come close after one another."""
    problem = case.problem
    outputs = problem.run(case.backend)
    trains = outputs["trains"]
    if bool((torch.isfinite(trains).sum(-1) >= trains.shape[-1] - 1).any()):
        raise UnsettledError  # the budget is for each piece
    first, last = problem.values.get("start", 0.0), problem.values["until"]
    cuts = [first + (last - first) * case.random.random() for _ in range(case.random.choice([1, 1, 3]))]
    exact = [x for x in (trains, problem.values["times"]) for x in x[torch.isfinite(x)].tolist()]
    if exact and case.random.random() < 0.7:
        cuts += case.random.sample(exact, min(2, len(exact)))
    if case.random.random() < 0.6:
        start = case.random.choice(cuts)
        cuts += [start + k * 0.01 for k in range(1, 20)]
    cuts = sorted({x for x in cuts if first < x < last})
    case.unchanged(lambda problem, backend: case.row.pieces(problem, cuts, backend))


def budget(case: Case) -> None:
    """More spikes than there is room for are an error or a warning, or dropped; those before are the same."""
    problem = case.problem
    grown = {name: x.abs() * 20 for name, x in problem.tensors.items() if name == "weight"}
    room = {name: 300 for name in ("max_spikes", "window_spikes") if name in problem.values}
    crowd = problem.having(**grown, **room, overflow="error")
    counts = torch.isfinite(crowd.having(overflow="drop").run(case.backend)["trains"]).sum(dim=-1)
    most = int(counts.max())
    if not 2 <= most < 300:  # without leak and reset a neuron may spike more often than there is room for
        raise UnsettledError
    few = case.random.randrange(1, most)
    narrow = crowd.having(max_spikes=few)
    with pytest.raises(ValueError, match="max_spikes"):
        narrow.run(case.backend)
    with pytest.warns(UserWarning, match="max_spikes"):
        narrow.having(overflow="warn").run(case.backend)

    def dropped(problem: Problem, backend: str) -> Outputs:
        return {"trains": problem.having(max_spikes=few, overflow="drop").run(backend)["trains"]}

    def prefix(problem: Problem, backend: str) -> Outputs:
        return {"trains": problem.run(backend)["trains"][..., :few]}

    found, steady, factors = base_of(crowd, case.backend, case.setting.seed, prefix)
    other = evaluate(crowd, case.backend, factors, dropped)
    assert_same_outputs(other.outputs, found.outputs, steady)
    assert_same_gradients(other.gradients, found.gradients)


def backends(case: Case) -> None:
    other = next(name for name in case.row.backends if name != case.backend)
    case.unchanged(lambda problem, _: problem.run(other))
