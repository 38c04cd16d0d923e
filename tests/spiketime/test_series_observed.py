"""Gradients of neurons from equations at trains from elsewhere, also where the model would spike earlier or more.

Those whose membranes take off at the threshold are held there until the spike that was observed.
"""

import math

import pytest
import torch
from torch.func import jacrev, jvp

from agreement import DOUBLE, Drawn, learnt, results, same
from firstspike import Neuron, spike_trains
from firstspike.neurons import EIF, QIF, AdEx, AdLIF, ConductanceLIF, Izhikevich
from firstspike.spiketime import TrainState, spike_window

INF, OUTPUTS = math.inf, 2
TAUS = (5.0, 8.0)
MADE = {
    "AdEx": lambda some: AdEx(tau_syn=TAUS, tau_w=some(144.0), b=some(80.5), c_m=some(281.0), bias=500.0),
    "EIF": lambda some: EIF(some(9.0), TAUS, delta_t=some(0.2), threshold=some(2.0), bias=0.4, refractory=some(1.0)),
    "Izhikevich": lambda some: Izhikevich(TAUS, a=some(0.02), d=some(8.0), bias=4.0),
    "QIF": lambda some: QIF(some(6.0), TAUS, bias=0.35),
    "AdLIF": lambda some: AdLIF(some(9.0), TAUS, tau_w=some(20.0), b=some(0.5), bias=0.5),
    "ConductanceLIF": lambda some: ConductanceLIF(some(9.0), TAUS, reversal=(4.0, -0.5), refractory=1.0, bias=0.6),
    "own": lambda some: Neuron(
        "dv/dt = (v*(v - 1) + i + e + 0.3) / tau_m; di/dt = -i / 5; de/dt = -e / 8", threshold="v > top",
        reset="v = -1 - 0.1*v", receptors=["i", "e"], tau_m=some(8.0), top=some(3.0),
    ),
}  # fmt: skip
SIZE = {"AdEx": 2000.0, "EIF": 1.5, "Izhikevich": 10.0, "QIF": 0.8, "AdLIF": 2.0, "ConductanceLIF": 0.5, "own": 1.2}
TAKES_OFF = ["AdEx", "EIF", "Izhikevich", "own"]
LONG = {"QIF", "own"}  # those that spike less often
# the reference takes seconds for the others, for which it is compared with the kernels alone
BOTH = [*((kind, "cpu") for kind in MADE), *((kind, "reference") for kind in ("QIF", "AdLIF", "ConductanceLIF", "own"))]


class Case:
    """A layer of neurons, its own trains, and others near them."""

    def __init__(self, kind, seed, backend="cpu"):
        draw = Drawn(seed)
        self.neuron = MADE[kind](lambda x: (x * draw.uniform(OUTPUTS, low=0.9, high=1.1)).requires_grad_())
        inputs, self.until = (10, 50.0) if kind in LONG else (6, 30.0)
        self.receptor = [int(k % 4 == 3) for k in range(inputs)]
        self.backend, sign = backend, 1 - 2 * torch.tensor(self.receptor).to(**DOUBLE)
        sign = sign.abs() if kind == "ConductanceLIF" else sign
        self.times = draw.uniform(1, inputs, 2, high=self.until)
        self.weight = SIZE[kind] * sign * draw.uniform(OUTPUTS, inputs, low=0.2)
        trains = self.call(self.times, self.weight, 60).detach()
        self.own = trains[..., : int(trains.isfinite().sum(-1).max())]

    def call(self, times, weight, most, observed=None, backend=None):
        return spike_trains(
            times, weight, self.neuron, max_spikes=most, observed=observed, receptor=self.receptor,
            until=self.until, backend=backend or self.backend,
        )  # fmt: skip

    def others(self):
        """Trains 1 % late or early, without the last spike or the second, with one more between two or in the end."""
        own, none = self.own, torch.full_like(self.own[..., :1], INF)
        last = own.isfinite().sum(-1, keepdim=True)
        columns = torch.arange(own.shape[-1])
        middle = own[..., :2].mean(-1, keepdim=True)
        found = {
            "late": torch.where(own * 1.01 <= self.until, own * 1.01, INF),
            "early": own * 0.99,
            "without the last": torch.where(columns == last - 1, INF, own),
            "without the second": torch.where(columns == 1, INF, own),
            "one more": torch.cat([own, middle], -1),
            "one more at the end": torch.cat([own, none.clamp(max=self.until - 0.1)], -1),
            "none": torch.full_like(own, INF),
        }
        return {name: x.sort(-1).values for name, x in found.items()}

    def results(self, observed, backend):
        """Trains, the state at the end, and gradients by all."""

        def run(leaves, backend, observed):
            found = spike_window(
                **leaves, neuron=self.neuron, max_spikes=observed.shape[-1], observed=observed,
                receptor=self.receptor, until=self.until, backend=backend,
            )  # fmt: skip
            return found.trains, *found.state[:3]

        return results({"times": self.times, "weight": self.weight}, learnt(self.neuron), run, backend, observed)


@pytest.mark.parametrize("seed", [0, *(pytest.param(k, marks=pytest.mark.exhaustive) for k in range(1, 12))])
@pytest.mark.parametrize("kind", MADE)
def test_backends_agree_at_any_trains(kind, seed):
    case = Case(kind, seed)
    assert case.own.isfinite().sum() >= 3
    others = case.others()
    for name in others if seed else ("late", "without the second", "one more at the end"):
        found, expected = (case.results(others[name], backend) for backend in ("cpu", "reference"))
        for x in (*found[0][1:], *found[1].values()):
            assert x.isfinite().all(), name
        same(found, expected, times=1e-8)
        assert name == "none" or found[1]["weight"].any()


@pytest.mark.parametrize(("kind", "backend"), BOTH)
def test_at_its_own_trains_the_gradient_is_its_own(kind, backend):
    """That of finite differences."""
    case = Case(kind, 5, backend)
    leaves = [case.times, case.weight, *learnt(case.neuron).values()]
    found = []
    for observed in (None, case.own):
        given = [x.detach().requires_grad_() for x in leaves[:2]]
        out = case.call(*given, case.own.shape[-1], observed)
        factors = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), **DOUBLE)
        loss = torch.where(out.isfinite(), out * factors, 0.0).sum()
        found.append(torch.autograd.grad(loss, [*given, *leaves[2:]], allow_unused=True))
    for own, there in zip(*found, strict=True):
        torch.testing.assert_close(there, own, rtol=1e-8, atol=1e-8 * float(1e-3 + own.abs().max()))


def test_a_late_spike_has_the_gradient_of_the_crossing(backend):
    """But for the slope at the threshold, which goes with the inputs until the spike."""
    neuron = Neuron("dv/dt = v*v - v + i; di/dt = -i / 2", threshold="v > 3", reset="v = -1", receptors=["i"])
    times = torch.tensor([[[0.2], [0.5], [2.75]]], **DOUBLE)
    weight = torch.tensor([[0.9, 0.4, 0.7]], **DOUBLE)

    def call(times, weight, observed):
        return spike_trains(times, weight, neuron, max_spikes=1, observed=observed, until=9.0, backend=backend)

    own = spike_trains(times, weight, neuron, max_spikes=1, overflow="drop", until=9.0, backend=backend)
    late = own + 0.4
    assert own < times[0, 2] < late  # and has no effect
    slopes = []
    for t in (own, late):
        came = times[0, :, 0] < t.item()
        slopes.append(9 - 3 + (weight[0] * torch.exp(-(t.item() - times[0, :, 0]) / 2))[came].sum())
    by, there = (jacrev(call, argnums=(0, 1))(times, weight, x) for x in (own, late))
    for x, y in zip(there, by, strict=True):
        torch.testing.assert_close(x, y * slopes[0] / slopes[1], rtol=1e-11, atol=1e-13)
        assert y.flatten()[:2].all()


def test_a_spike_where_the_membrane_hardly_rises_has_a_small_gradient(backend):
    """Long after all inputs, when it is almost at rest."""
    neuron = EIF(5.0, 2.0, refractory=torch.tensor(2.0, **DOUBLE))
    times, weight = torch.tensor([[[1.0]]], **DOUBLE), torch.tensor([[-3.0]], **DOUBLE, requires_grad=True)
    observed = torch.tensor([[[80.0, 81.0]]], **DOUBLE)
    found = spike_trains(times, weight, neuron, max_spikes=2, observed=observed, until=90.0, backend=backend)
    (by,) = torch.autograd.grad(found[..., 0].sum(), weight)
    assert 0 < by.abs() < 1e-3


@pytest.mark.parametrize(("kind", "backend"), [x for x in BOTH if x[0] in TAKES_OFF])
def test_windows_that_are_cut_where_a_neuron_waits_are_one_long_call(kind, backend):
    case = Case(kind, 1)
    observed = case.others()["without the second"]

    def of_windows(ends):
        def run(leaves, backend, _):
            state, parts = None, []
            for until in ends:
                start = 0.0 if state is None else state.time
                here = torch.where((observed > start) & (observed <= until), observed, INF).sort(-1).values
                found = spike_window(
                    **leaves, neuron=case.neuron, state=state, until=until, max_spikes=here.shape[-1], observed=here,
                    receptor=case.receptor, backend=backend,
                )  # fmt: skip
                state = found.state
                parts.append(found.trains)
            return torch.cat(parts, -1).sort(-1).values[..., : observed.shape[-1]], *state[:3]

        return run

    leaves, own = {"times": case.times, "weight": case.weight}, learnt(case.neuron)
    whole, pieces = (
        results(leaves, own, of_windows(ends), backend)
        for ends in ([case.until], [*range(5, int(case.until), 7), case.until])
    )
    same(pieces, whole, times=1e-9)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch itself, when forward mode is first used
@pytest.mark.parametrize("kind", TAKES_OFF)
def test_forward_mode_of_trains_that_are_full(kind):
    """What comes after the last spike that there is room for is not followed."""
    case = Case(kind, 1)

    def call(weight):
        found = spike_trains(
            case.times, weight, case.neuron, max_spikes=2, overflow="drop", receptor=case.receptor, until=case.until
        )
        return torch.where(found.isfinite(), found, 0.0)

    direction = case.weight * Drawn(8).normal(*case.weight.shape)
    out, moved = jvp(call, (case.weight,), (direction,))
    assert (out > 0).all()
    by = jacrev(call)(case.weight)
    torch.testing.assert_close(moved, (by * direction).sum((-1, -2)), rtol=1e-9, atol=1e-11)


def test_a_state_above_the_threshold_that_takes_off_waits(backend):
    """From the start, until the observed spike; its gradient by the state there is that of the crossing."""
    neuron = Neuron("dv/dt = v*v + i; di/dt = -i", threshold="v > 2", reset="v = -1", receptors=["i"])
    state = TrainState(
        torch.full((1, 1), 2.5, **DOUBLE, requires_grad=True), torch.zeros(1, 1, 1, **DOUBLE),
        torch.zeros(1, 1, **DOUBLE), 0.0,
    )  # fmt: skip
    none = torch.zeros(1, 0, 1, **DOUBLE), torch.zeros(1, 0, **DOUBLE)
    observed = torch.full((1, 1, 1), 3.0, **DOUBLE)
    found = spike_window(*none, neuron, state=state, max_spikes=1, observed=observed, until=4.0, backend=backend)
    (by,) = torch.autograd.grad(found.trains.sum(), state.voltage)
    assert by.item() == pytest.approx(-1 / 2.5**2, rel=1e-12)
