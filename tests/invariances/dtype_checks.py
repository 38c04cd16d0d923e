"""A problem in float32, in any unit of time, is the problem in float64 with the same numbers."""

from typing import Any

import torch
from checks import Case
from comparing import SINGLE, assert_same_gradients, assert_same_outputs, base_of, evaluate
from problems import Outputs, Problem, Quantity
from torch import Tensor

UNITS = (1.0, 1e-6, 3e-7, 1e-3, 5000.0, 1e7)


def single(case: Case) -> None:
    """Both of the same numbers, which float32 holds in that unit."""
    by = case.random.choice(UNITS)

    def there(q: Quantity, x: Any) -> Any:
        if isinstance(x, Tensor):
            return (x * by**q.time).float() if x.is_floating_point() else x
        return float(torch.tensor(x * by**q.time, dtype=torch.float32)) if isinstance(x, float) else x

    def back(q: Quantity, x: Any) -> Any:
        x = x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
        return x / by**q.time if q.time else x

    def run(problem: Problem, backend: str) -> Outputs:
        outputs = problem.changed(there).run(backend)
        assert any(x.dtype == torch.float32 for x in outputs.values())
        return problem.changed_outputs(outputs, back)

    problem = case.problem.changed(there).changed(back)
    found, steady, factors = base_of(problem, case.backend, case.setting.seed, near=SINGLE)
    other = evaluate(problem, case.backend, factors, run)
    assert_same_outputs(other.outputs, found.outputs, steady, SINGLE.outputs, 1e-5)
    assert_same_gradients(other.gradients, found.gradients, SINGLE.gradients)
