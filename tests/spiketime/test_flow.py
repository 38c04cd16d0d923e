"""States of linear neurons in closed form, and the pieces of time in which a value of theirs rises or falls."""

import math

import mpmath
import pytest
import torch

from firstspike.spiketime.flow import Flow, root_within

KINDS = [
    ("synapse",),
    ("synapse", "synapse"),
    ("rise", "synapse"),
    ("synapse", "threshold"),
    ("synapse", "current", "threshold"),
    ("synapse", "onset", "current", "threshold"),
    ("rise", "synapse", "rise", "synapse"),
    ("rise", "synapse", "synapse", "current", "threshold"),
]
TAUS = 0.3, 1.0, 1.0, 2.0, 7.0, 1.0 + 1e-9


def flow_and_states(kinds, number=200, leak=True, seed=0):
    source = torch.Generator().manual_seed(seed + len(kinds))

    def taus():
        return torch.tensor(TAUS).double()[torch.randint(len(TAUS), (number,), generator=source)]

    mem = taus() if leak else torch.full((number,), math.inf).double()
    bias = 0.5 * torch.randn(number, generator=source, dtype=torch.float64)
    states = [torch.randn(number, generator=source, dtype=torch.float64) for _ in range(len(kinds) + 1)]
    return Flow(kinds, mem, [taus() for _ in kinds], bias), [*states, torch.ones(number).double()]


def excess(flow, x):
    return x[0] - sum(y for kind, y in zip(flow.kinds, x[1:-1], strict=True) if kind == "threshold")


@pytest.mark.parametrize("kinds", KINDS)
def test_states_are_those_of_a_matrix_exponential(kinds):
    flow, x = flow_and_states(kinds, number=5)
    one = torch.eye(len(x), dtype=torch.float64).tolist()
    columns = [torch.stack(flow.rates([torch.full_like(flow.mem, y) for y in row]), -1) for row in one]
    for s in (0.01, 1.3, 9.0):
        after = torch.stack(flow.moved(x, torch.full_like(flow.mem, s)), -1)
        for place, matrix in enumerate(torch.stack(columns, -1).tolist()):
            with mpmath.workdps(30):
                expected = mpmath.expm(mpmath.matrix(matrix) * s) * mpmath.matrix([float(y[place]) for y in x])
            assert after[place].tolist() == pytest.approx([float(y) for y in expected], rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("leak", [True, False])
@pytest.mark.parametrize("kinds", KINDS)
def test_a_value_is_monotone_in_each_piece(kinds, leak):
    flow, x = flow_and_states(kinds, leak=leak)
    length = torch.full_like(flow.mem, 40.0)
    borders = flow.pieces(x, length)
    assert borders.shape[1] == len(kinds) + 2
    assert bool((borders.diff(dim=1) >= 0).all())
    steps = torch.linspace(0, 1, 300, dtype=torch.float64)
    wide, states = flow.each((..., None)), [y.unsqueeze(1) for y in x]
    for begin, end in zip(borders.unbind(1), borders[:, 1:].unbind(1), strict=False):
        values = excess(wide, wide.moved(states, begin[:, None] + (end - begin)[:, None] * steps))
        change, noise = values.diff(dim=1), 1e-13 * (1 + values.abs().amax(1, keepdim=True))
        assert bool(((change > -noise).all(1) | (change < noise).all(1)).all())


def test_a_value_that_only_rises_has_one_piece():
    one = torch.ones(1).double()
    borders = Flow(("synapse",), one, [one], 2 * one).pieces([0 * one, 0 * one, one], 5 * one)
    assert borders.unique().tolist() == [0.0, 5.0]


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_roots_at_any_scale(scale):
    """In brackets of any width, also of values without a useful slope."""
    low, high = torch.zeros(3).double(), torch.tensor([1.0, 700.0, 1e300]).double().clamp(min=2 * scale)

    def cube(s):
        return (s / scale) ** 3 - 1, 3 * (s / scale) ** 2 / scale

    def step(s):
        return torch.where(s < scale, -1.0, 1.0).double(), torch.zeros_like(s)

    for of in (cube, step):
        assert root_within(of, low, high).tolist() == pytest.approx([scale] * 3, rel=1e-15)
    assert root_within(cube, high, high).tolist() == high.tolist()


def test_a_peak_between_parts_without_a_value():
    """The slope keeps its sign nowhere after the fastest exponentials have underflown, long before the slowest."""
    mem, *taus = torch.tensor([0.26249660374055167, 0.9312119731967397, 0.45, 2.2, 0.944]).double().unsqueeze(1)
    none, end = torch.zeros(1).double(), torch.tensor([1542.571730568429]).double()
    flow = Flow(("synapse", "synapse", "current", "threshold"), mem, taus, none)
    for voltage in torch.linspace(0.0, 0.5, 40).double():
        state = [voltage.reshape(1), none + 2.313784982857105, none, none, none, none + 1]
        borders, dense = flow.pieces(state, end), torch.linspace(0.0, 5.0, 20001).double().unsqueeze(0)
        peak, highest = (flow.moved([x.unsqueeze(1) for x in state], s)[0].max() for s in (borders, dense))
        assert peak == pytest.approx(highest.item(), abs=1e-6)
