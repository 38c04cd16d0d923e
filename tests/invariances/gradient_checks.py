"""Invariances of gradients: observed times, differences, layouts, transforms of functions; and what is refused."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from checks import Case, through
from comparing import (
    UnsettledError,
    assert_same_gradients,
    assert_same_outputs,
    base_of,
    evaluate,
    factors_of,
    loss_of,
)
from problems import Outputs, Problem, Quantity
from torch import Tensor


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
    found, steady, factors = case.base
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
    if quantity.axes.endswith("s"):
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
    found, _, factors = case.base
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
        bends = sum(  # as where a maximum begins to rise above rest; of each output, as those of several may cancel
            float(((near[1][key] - 2 * x + near[2][key]) * smooth[key]).nan_to_num().abs().sum()) / step
            for key, x in found.outputs.items()
            if key in smooth
        )
        if abs(slope - wider) > 3e-5 * size or bends > 1e-4 * size:
            raise UnsettledError
        exact = float((gradient * direction).sum())
        assert abs(exact - slope) <= 2e-4 * size, f"derivative by {name}: {exact}, differences {slope}"


def subsets(case: Case) -> None:
    """Gradients do not depend on which others are asked for."""
    problem = case.problem
    found, _, factors = case.base
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

        def wide(q: Quantity, x: Any, axis: str = axis, size: int = size) -> Any:
            return x.expand([size if a == axis else -1 for a in q.axes]) if isinstance(x, Tensor) else x

        def expanded(problem: Problem, backend: str, wide: Callable[[Quantity, Any], Any] = wide) -> Outputs:
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
    """NaN and -inf are refused in all tensors and numbers that have a unit, or seen in values and costs.

    Never does a spike time, where ``inf`` means that there is none, follow from them.
    """
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
                outputs = problem.having(**{name: value}).run(case.backend)
            except ValueError:
                continue
            if any(not x.isfinite().all() for key, x in outputs.items() if not problem.outputs[key].point):
                continue
            raise AssertionError(f"{bad} is accepted in {name}")
