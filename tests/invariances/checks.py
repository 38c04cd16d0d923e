"""The invariances, one function each: what has to hold for a problem of a row, or AssertionError."""

import copy
import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from comparing import (
    Found,
    Run,
    Unsettled,
    assert_same_gradients,
    assert_same_outputs,
    assert_unchanged,
    base_of,
    evaluate,
    factors_of,
    loss_of,
)
from firstspike.layers import Ensemble
from problems import Outputs, Problem, Quantity, Setting, at
from rows import Row

UNITS = (1e-9, 1e-6, 1e-3, 0.37, 5000.0, 2.0**13, 1e6)
SCALES = (1e-6, 0.3, 7.0, 1e6)


class Case(NamedTuple):
    """A problem of a row, to be computed with a backend."""

    row: Row
    setting: Setting
    backend: str
    random: random.Random

    @property
    def problem(self) -> Problem:
        return self.row.make(self.setting, 0)

    def unchanged(self, run: Run, problem: Problem | None = None, tolerance: float = 1e-5) -> None:
        problem = self.problem if problem is None else problem
        assert_unchanged(problem, self.backend, run, self.setting.seed, tolerance)


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
    def check(case: Case) -> None:
        size = case.problem.size(axis)
        order = torch.tensor(case.random.sample(range(size), size))
        case.unchanged(through(lambda q, x: at(q, x, axis, order), lambda q, x: at(q, x, axis, order.argsort())))

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
        parts = [torch.arange(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]

        def run(problem: Problem, backend: str) -> Outputs:
            found = [problem.taken(axis, part).run(backend) for part in parts]
            return {
                name: torch.cat([x[name] for x in found], dim=q.axes.index(axis))
                for name, q in problem.outputs.items()
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
    inputs = [name for name, x in problem.tensors.items() if problem.quantities[name].point and "b" in problem.quantities[name].axes]
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
        raise Unsettled  # the budget is for each piece
    first, last = problem.values.get("start", 0.0), problem.values["until"]
    cuts = [first + (last - first) * case.random.random() for _ in range(case.random.choice([1, 1, 3]))]
    exact = [x for x in (trains, problem.values["times"]) for x in x[torch.isfinite(x)].tolist()]
    if exact and case.random.random() < 0.6:
        cuts += case.random.sample(exact, min(2, len(exact)))
    if case.random.random() < 0.3:
        start = case.random.choice(cuts)
        cuts += [start + k * 0.01 for k in range(1, 20)]
    cuts = sorted({x for x in cuts if first < x < last})
    case.unchanged(lambda problem, backend: case.row.pieces(problem, cuts, backend), problem)


def budget(case: Case) -> None:
    """More spikes than there is room for are an error or a warning, or dropped; those before are the same."""
    problem = case.problem
    grown = {name: x.abs() * 20 for name, x in problem.tensors.items() if name == "weight"}
    room = {name: 300 for name in ("max_spikes", "window_spikes") if name in problem.values}
    crowd = problem.having(**grown, **room, overflow="error")
    counts = torch.isfinite(crowd.run(case.backend)["trains"]).sum(dim=-1)
    most = int(counts.max())
    if most < 2:
        raise Unsettled
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


def observed(case: Case) -> None:
    """The layer's own times as observed ones change nothing; any others have a finite gradient."""
    problem, name = case.problem, case.row.observed
    own = problem.run(case.backend)[name].detach()
    quantity = problem.outputs[name]
    known = Problem(
        {**problem.values, "observed": own},
        {**problem.quantities, "observed": quantity},
        problem.function,
        problem.outputs,
        problem.learnt,
    )
    found, steady, factors = base_of(problem, case.backend, case.setting.seed)
    other = evaluate(known, case.backend, factors)
    assert torch.equal(other.outputs[name], own)
    assert_same_outputs(other.outputs, found.outputs, steady)
    assert_same_gradients(other.gradients, found.gradients)

    source = torch.Generator().manual_seed(case.setting.seed)
    low, high = problem.values.get("start", -3.0) + 1e-3, problem.values.get("until", 5.0)
    times = low + (high - low) * torch.rand(own.shape, generator=source, dtype=torch.float64)
    times = times.masked_fill(torch.rand(own.shape, generator=source) < 0.2, math.inf)
    if case.random.random() < 0.5 and "start" not in problem.values:
        given = problem.values["times"]
        given = given[torch.isfinite(given)]
        if len(given):  # exactly at inputs
            picked = given[torch.randint(len(given), own.shape, generator=source)].detach()
            times = torch.where(torch.rand(own.shape, generator=source) < 0.3, picked, times)
    if own.ndim == len("bos") and quantity.axes == "bos":
        times = times.sort(dim=-1).values
    elsewhere = known.having(observed=times)
    found = evaluate(elsewhere, case.backend, factors_of({name: own}, 0) | factors_of(other.outputs, 0))
    assert torch.equal(found.outputs[name], times)
    for parameter, x in found.gradients.items():
        assert bool(x.isfinite().all()), f"gradient by {parameter} at observed times: {x}"
    if len(case.row.backends) > 1 and case.backend == "reference":
        case.unchanged(lambda problem, _: problem.run("cpu"), elsewhere)


def differences(case: Case) -> None:
    """Gradients are central differences, where the outputs are smooth."""
    problem, step = case.problem, 1e-6
    found, steady, factors = base_of(problem, case.backend, case.setting.seed)
    source = torch.Generator().manual_seed(case.setting.seed)
    for name in problem.learnt:
        x = problem.values[name]
        direction = torch.randn(x.shape, generator=source, dtype=torch.float64)

        def moved(by: float, name: str = name, x: Tensor = x, direction: Tensor = direction) -> Outputs:
            with torch.no_grad():
                return problem.having(**{name: x + by * direction}).run(case.backend)

        near = [moved(k * step) for k in (-2, -1, 1, 2)]
        smooth = {
            key: factors[key] * torch.stack([n[key].isfinite() == found.outputs[key].isfinite() for n in near]).all(0)
            for key in factors
        }
        far2, far1, at1, at2 = (float(loss_of(n, smooth)) for n in near)
        slope, wider = (at1 - far1) / (2 * step), (at2 - far2) / (4 * step)
        gradient = evaluate(problem, case.backend, smooth, learnt=[name]).gradients[name]
        size = max(1.0, float(gradient.abs().max())) * math.sqrt(gradient.numel())
        if abs(slope - wider) > 3e-5 * size:
            raise Unsettled
        exact = float((gradient * direction).sum())
        assert abs(exact - slope) <= 2e-4 * size, f"derivative by {name}: {exact}, differences {slope}"


def subsets(case: Case) -> None:
    """Gradients do not depend on which others are asked for."""
    problem = case.problem
    found, _, factors = base_of(problem, case.backend, case.setting.seed)
    some = case.random.sample(problem.learnt, case.random.randrange(1, len(problem.learnt) + 1))
    other = evaluate(problem, case.backend, factors, learnt=some)
    assert_same_gradients(other.gradients, {name: found.gradients[name] for name in some}, 1e-9)


def layout(case: Case) -> None:
    """Tensors that are views with gaps, transposed or expanded are the same as copies."""

    def gaps(_: Quantity, x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        return torch.stack([x, torch.full_like(x, math.nan)], dim=-1)[..., 0]

    def turned(_: Quantity, x: Any) -> Any:
        return x.mT.contiguous().mT if isinstance(x, Tensor) and x.ndim >= 2 else x

    case.unchanged(through(case.random.choice([gaps, turned]), lambda _, x: x), tolerance=1e-9)
    for axis in "bo":
        size = case.problem.size(axis)
        if size is None or any("j" in q.axes for q in case.problem.quantities.values()):
            continue
        one = case.problem.taken(axis, torch.tensor([0]))

        def copied(problem: Problem, backend: str, axis: str = axis, size: int = size) -> Outputs:
            return problem.taken(axis, torch.zeros(size, dtype=torch.int64)).run(backend)

        def expanded(problem: Problem, backend: str, axis: str = axis, size: int = size) -> Outputs:
            def wide(q: Quantity, x: Any) -> Any:
                if not isinstance(x, Tensor) or axis not in q.axes:
                    return x
                shape = [size if letter == axis else -1 for letter in q.axes]
                return x.expand(shape)

            return problem.changed(wide).run(backend)

        found, steady, factors = base_of(one, case.backend, case.setting.seed, copied)
        other = evaluate(one, case.backend, factors, expanded)
        assert_same_outputs(other.outputs, found.outputs, steady, 1e-12)
        assert_same_gradients(other.gradients, found.gradients, 1e-9)


def transforms(case: Case) -> None:
    """vmap, grad and jacrev of torch.func are loops over autograd."""
    problems = [case.row.make(case.setting, k) for k in range(3)]
    first = problems[0]
    of_samples = {name for name, x in first.tensors.items() if "b" in first.quantities[name].axes}
    mapped = case.random.choice([set(first.tensors), of_samples, set(first.tensors) - of_samples]) or of_samples
    problems = [first.having(**{name: p.values[name] for name in mapped}) for p in problems]
    found = [base_of(p, case.backend, case.setting.seed + k) for k, p in enumerate(problems)]
    stacked = {name: torch.stack([p.values[name] for p in problems]) for name in mapped}
    factors = {name: torch.stack([x[2][name] for x in found]) for name in found[0][2]}

    def loss(learnt: Mapping[str, Tensor], values: Mapping[str, Tensor], factors: Outputs) -> tuple[Tensor, Outputs]:
        outputs = first.having(**values, **learnt).run(case.backend)
        return loss_of(outputs, factors), outputs

    learnt = {name: stacked.get(name, first.values[name]) for name in first.learnt}
    values = {name: x for name, x in stacked.items() if name not in learnt}
    dims = {name: 0 if name in mapped else None for name in learnt}
    gradient = torch.func.grad(loss, has_aux=True)
    gradients, outputs = torch.func.vmap(gradient, in_dims=(dims, 0, 0), randomness="same")(learnt, values, factors)
    for k, (alone, steady, _) in enumerate(found):
        assert_same_outputs({name: x[k] for name, x in outputs.items()}, alone.outputs, steady, 1e-9)
        assert_same_gradients({name: x[k] for name, x in gradients.items()}, alone.gradients, 1e-7)

    alone, steady, _ = found[0]
    places = [(name, k) for name, x in steady.items() for k in x.flatten().nonzero().flatten().tolist()]
    places = [(n, k) for n, k in places if math.isfinite(alone.outputs[n].flatten()[k])]
    places = case.random.sample(places, min(3, len(places)))
    name = case.random.choice(first.learnt)

    def some(x: Tensor) -> Tensor:
        outputs = first.having(**{name: x}).run(case.backend)
        return torch.stack([outputs[key].flatten()[k] for key, k in places])

    if places:
        rows = _jacobian(some, first.values[name])
        leaf = first.values[name].clone().requires_grad_()
        made = some(leaf)
        for row, value in zip(rows, made, strict=True):
            one = None
            if value.requires_grad:
                (one,) = torch.autograd.grad(value, leaf, retain_graph=True, allow_unused=True)
            assert_same_gradients({name: row}, {name: torch.zeros_like(leaf) if one is None else one}, 1e-9)


def _jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``torch.func.jacrev``, whose vmap draws no random numbers."""
    found: Tensor = torch.func.jacrev(function)(x)
    return found


def nonfinite(case: Case) -> None:
    """NaN and -inf are refused in all tensors and numbers that have a unit."""
    problem = case.problem
    for name, x in problem.values.items():
        q = problem.quantities[name]
        if not (q.time or q.weight) or name in case.row.unchecked:
            continue
        for bad in (math.nan, -math.inf):
            value: Any = bad
            if isinstance(x, Tensor):
                if not x.numel():
                    continue
                value = x.clone()
                value.view(-1)[case.random.randrange(x.numel())] = bad
            try:
                problem.having(**{name: value}).run(case.backend)
            except ValueError:
                continue
            raise AssertionError(f"{bad} is accepted in {name}")


def backends(case: Case) -> None:
    other = next(name for name in case.row.backends if name != case.backend)
    case.unchanged(lambda problem, _: problem.run(other))


def together(case: Case) -> None:
    """A network in an ensemble is the network alone."""
    _compare_members(case, [{}, {}, {}])


def other_options(case: Case) -> None:
    """Members with other options are refused, or are as they are alone."""
    name, value = case.random.choice(list(case.row.others.items()))
    try:
        _compare_members(case, [{}, {name: value}])
    except ValueError as error:
        if "max_spikes" in str(error):
            raise Unsettled from None
        assert "member" in str(error)


def _compare_members(case: Case, options: list[dict[str, Any]]) -> None:
    problems = [case.row.make(case.setting, k).having(**x) for k, x in enumerate(options)]
    networks, alone = [], []
    for problem in problems:
        base_of(problem, case.backend, case.setting.seed)  # steady at all
        network = case.row.network(problem.values, case.backend)
        state = case.row.parameters(problem.values)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(state[name])
        networks.append(network)
        alone.append(_passed(network, network.named_parameters(), _flat(problem), case.setting.seed))
    ensemble = Ensemble(copy.deepcopy(networks))
    names = [name for name, _ in networks[0].named_parameters()]
    times = torch.stack([_flat(problem) for problem in problems])
    factors = torch.stack([factors_of(x.outputs, case.setting.seed)["out"] for x in alone])
    found = _passed(ensemble, zip(names, ensemble.stacked, strict=True), times, 0, factors)
    for k, one in enumerate(alone):
        all_of = {name: torch.ones_like(x, dtype=torch.bool) for name, x in one.outputs.items()}
        assert_same_outputs({name: x[k] for name, x in found.outputs.items()}, one.outputs, all_of)
        assert_same_gradients({name: x[k] for name, x in found.gradients.items()}, one.gradients)


def _flat(problem: Problem) -> Tensor:
    """Inputs of a network, of an image flat."""
    times = problem.values["times"]
    return times.flatten(1) if times.ndim == len("bixy") else times


def _passed(
    network: Callable[[Tensor], Tensor],
    parameters: Iterable[tuple[str, Tensor]],
    times: Tensor,
    seed: int,
    factors: Tensor | None = None,
) -> Found:
    """Outputs of a network, and gradients by its inputs and parameters."""
    leaves = {"times": times.clone().requires_grad_(), **dict(parameters)}
    outputs = {"out": network(leaves["times"])}
    loss = loss_of(outputs, factors_of(outputs, seed) if factors is None else {"out": factors})
    found = [None] * len(leaves)
    if loss.requires_grad:
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    gradients = {k: torch.zeros_like(x) if g is None else g for (k, x), g in zip(leaves.items(), found, strict=True)}
    return Found({"out": outputs["out"].detach()}, gradients)


INVARIANCES: dict[str, Callable[[Case], None]] = {
    "shift": shift,
    "unit": unit,
    "scale": scale,
    "inputs permuted": permuted("i"),
    "samples permuted": permuted("b"),
    "neurons permuted": permuted("o"),
    "input split": input_split,
    "silent input": silent_input,
    "neuron repeated": neuron_repeated,
    "sample alone": apart("b", True),
    "neuron alone": apart("o", False),
    "empty batch": empty_batch,
    "no inputs": no_inputs,
    "cut": cut,
    "overflow": budget,
    "observed": observed,
    "differences": differences,
    "subsets": subsets,
    "layout": layout,
    "transforms": transforms,
    "nonfinite": nonfinite,
    "backends": backends,
    "ensemble": together,
    "ensemble, other options": other_options,
}
