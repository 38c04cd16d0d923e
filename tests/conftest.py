"""What all tests share: the backends that must work, poisoned memory, how hypothesis searches."""

import functools
import math

import hypothesis
import pytest
import torch

# Every backend that must pass. One that is missing fails; none is skipped.
BACKENDS_UNDER_TEST = ["reference", "cpu"]

# Ratios tau_mem / tau_syn: the closed forms, and some that have none.
RATIOS = [1.0, 2.0, 0.5, math.inf, 1.37, 10.0, 100.0, 1 + 1e-9, 0.3]

hypothesis.settings.register_profile(
    "firstspike", deadline=None, derandomize=True, database=None, max_examples=60, print_blob=False
)
hypothesis.settings.load_profile("firstspike")


@pytest.fixture(scope="session")
def backends_under_test():
    return list(BACKENDS_UNDER_TEST)


@pytest.fixture(scope="session", params=BACKENDS_UNDER_TEST)
def backend(request):
    return request.param


@pytest.fixture(scope="session", params=RATIOS, ids=lambda ratio: f"ratio={ratio:.10g}")
def ratio(request):
    return request.param


@pytest.fixture(scope="module")
def poisoned_memory():
    """What torch hands out uninitialised is full of NaN, so that a result that was never written shows."""

    def poisoned(allocate):
        @functools.wraps(allocate)
        def wrapper(*args, **kwargs):
            memory = allocate(*args, **kwargs)
            if memory.is_floating_point():
                with torch.no_grad():
                    memory.fill_(math.nan)
            return memory

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        for name in ("empty", "empty_like", "empty_strided"):
            patch.setattr(torch, name, poisoned(getattr(torch, name)))
        for name in ("new_empty", "new_empty_strided"):
            patch.setattr(torch.Tensor, name, poisoned(getattr(torch.Tensor, name)))
        yield
