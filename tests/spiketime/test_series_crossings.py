"""Neurons from equations that no spike resets spike where they come from below. A reset above is refused."""

import math
import random

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from agreement import DOUBLE, Drawn, results, same
from firstspike import Neuron, spike_trains
from firstspike.neurons import AdaptiveLIF
from firstspike.spiketime import TrainState, spike_window

INF = math.inf
FITZHUGH = "dv/dt = v - v**3/3 - w + i; dw/dt = 0.08*(v + 0.7 - 0.8*w); di/dt = -i / 2"
NAGUMO = {"threshold": "v > 1", "receptors": ["i"], "start": {"v": -1.2, "w": -0.6}}
DAMPED = "dv/dt = w - 0.2*v; dw/dt = drive - 4*v; di/dt = -i / tau_s; drive = 3*i"
UNTIL, GRID = 12.0, 2000


def damped(**parameters):
    return Neuron(DAMPED, threshold="v > level", receptors=["i", "v"], tau_s=0.7, **parameters)


@pytest.mark.parametrize("refractory", [0.0, 1.0, 3.0])
def test_action_potentials_are_counted_once(refractory, backend):
    times, weight = torch.tensor([[[1.0, 40.0, 80.0]]], **DOUBLE), torch.full((1, 1), 3.0, **DOUBLE)
    neuron = Neuron(FITZHUGH, **NAGUMO, refractory=refractory)
    trains = spike_trains(times, weight, neuron, max_spikes=60, until=120.0, backend=backend)
    wanted = crossings(
        lambda x: [x[0] - x[0] ** 3 / 3 - x[1] + x[2], 0.08 * (x[0] + 0.7 - 0.8 * x[1]), -x[2] / 2], [-1.2, -0.6, 0.0],
        1.0, [(t, 2, 3.0) for t in (1.0, 40.0, 80.0)], 120.0,
    )  # fmt: skip
    assert len(wanted) == 3
    assert trains[trains.isfinite()].tolist() == pytest.approx(wanted, abs=1e-8)


def crossings(flow, x, level, inputs, until, refractory=0.0):
    """When the first state rises through a level, which an input may also lift it over, by another solver."""
    now, found, queue = 0.0, [], sorted(inputs)
    while True:
        while queue and queue[0][0] <= now:
            _, place, size = queue.pop(0)
            x = [y + size * (k == place) for k, y in enumerate(x)]
            lifted = place == 0 and x[0] - size < level <= x[0]
            if lifted and now >= (found[-1] if found else -INF) + refractory:
                found.append(now)
        if now >= until:
            return found
        end = queue[0][0] if queue else until
        done = solve_ivp(lambda _, y: flow(y), (now, end), x, "DOP853", rtol=1e-13, atol=1e-14, dense_output=True).sol
        grid = np.linspace(now, end, GRID)
        above = done(grid)[0] >= level
        for k in np.flatnonzero(~above[:-1] & above[1:]):
            time = brentq(lambda t, done=done: done(t)[0] - level, grid[k], grid[k + 1], xtol=1e-14)
            if time >= (found[-1] if found else -INF) + refractory:
                found.append(time)
        now, x = end, list(done(end))


def driven(seed, **options):
    """An oscillator with inputs that drive it, and some that lift or lower it at once."""
    gen = random.Random(seed)
    inputs = [(gen.uniform(0.01, UNTIL), gen.choice([0, 2]), gen.uniform(-1.5, 2.5)) for _ in range(8)]
    receptor = [0 if place == 2 else 1 for _, place, _ in inputs]
    times = torch.tensor([[[t] for t, *_ in inputs]], **DOUBLE)
    weight = torch.tensor([[w for *_, w in inputs]], **DOUBLE)
    given = {"receptor": receptor, "max_spikes": 40, "until": UNTIL, **options}
    return inputs, gen.uniform(0.2, 0.8), gen.choice([0.0, 0.0, 0.6]), (times, weight), given


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(k, marks=pytest.mark.exhaustive) for k in range(3, 100))])
def test_spikes_are_where_the_membrane_comes_from_below(seed, backend):
    inputs, level, refractory, tensors, given = driven(seed, backend=backend)
    trains = spike_trains(*tensors, damped(level=level, refractory=refractory), **given)
    wanted = crossings(
        lambda x: [x[1] - 0.2 * x[0], 3 * x[2] - 4 * x[0], -x[2] / 0.7], [0.0] * 3, level, inputs, UNTIL, refractory
    )
    assert trains[trains.isfinite()].tolist() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(k, marks=pytest.mark.exhaustive) for k in range(2, 60))])
def test_pieces_are_the_whole_and_backends_agree(seed):
    """Cut anywhere, also within refractory times."""
    _, level, refractory, (times, weight), given = driven(seed)
    del given["until"]
    draw = Drawn(seed)
    own = {"level": torch.tensor(level, **DOUBLE, requires_grad=True)}
    own["refractory"] = torch.tensor(0.4, **DOUBLE, requires_grad=True) if refractory else 0.0
    neuron = damped(**own)
    learnt = {name: x for name, x in own.items() if isinstance(x, torch.Tensor)}

    def of_windows(ends):
        def run(leaves, backend, observed):
            state, parts = None, []
            for until in ends:
                found = spike_window(**leaves, neuron=neuron, state=state, until=until, backend=backend, **given)
                state = found.state
                parts.append(found.trains)
            return torch.cat(parts, -1).sort(-1).values[..., : given["max_spikes"]], *state[:3]

        return run

    leaves = {"times": times, "weight": weight}
    expected = results(leaves, learnt, of_windows([UNTIL]), "cpu")
    same(results(leaves, learnt, of_windows([UNTIL]), "reference"), expected, times=1e-10)
    spikes = expected[0][0][expected[0][0].isfinite()]
    cuts = [*draw.uniform(3, high=UNTIL).tolist(), *(spikes + 0.2).clamp(max=UNTIL - 1e-3).tolist(), UNTIL]
    for backend in ("cpu", "reference"):
        same(results(leaves, learnt, of_windows(sorted(cuts)), backend), expected, times=1e-10)


def test_a_neuron_that_starts_above_its_threshold_has_to_fall_first(backend):
    voltage, others, left = torch.tensor([[0.5]], **DOUBLE), torch.zeros(1, 1, 2, **DOUBLE), torch.zeros(1, 1, **DOUBLE)
    state = TrainState(voltage, others, left, 0.0)
    none = torch.zeros(1, 0, 1, **DOUBLE), torch.zeros(1, 0, **DOUBLE)
    neuron = damped(level=0.3)
    found = spike_window(*none, neuron, state=state, max_spikes=9, until=6.0, receptor=[], backend=backend).trains
    wanted = crossings(lambda x: [x[1] - 0.2 * x[0], -4 * x[0], 0.0], [0.5, 0.0, 0.0], 0.3, [], 6.0)
    assert found[found.isfinite()].tolist() == pytest.approx(wanted, abs=1e-9)
    assert 0 < len(wanted) < 3


def test_derivatives_without_a_reset(backend):
    _, _, _, (times, weight), given = driven(1, backend=backend)
    level = torch.tensor(0.4, **DOUBLE, requires_grad=True)
    leaves = times.requires_grad_(), weight.requires_grad_(), level

    def finite(times, weight, level):
        trains = spike_trains(times, weight, damped(level=level), **given)
        return trains[trains.isfinite()]

    assert len(finite(*leaves)) > 3
    torch.autograd.gradcheck(finite, leaves, eps=1e-6, atol=1e-5, rtol=1e-5)


def test_what_a_spike_leaves_at_the_threshold_is_not_held():
    assert damped(level=1.0, refractory=1.0).equations.held == ()
    with pytest.raises(ValueError, match=r"^held must not be v: a spike leaves it at the threshold; reset it$"):
        damped(level=1.0, refractory=1.0, held=["v"])


def test_a_threshold_that_falls_below_the_reset(backend):
    """Without a refractory time it would spike again at once, and so it is refused; with one, as it is released."""
    text = "dv/dt = i - v; dh/dt = -h / 5; di/dt = -i / 2"
    falling = {"threshold": "v > 1 + h", "reset": "v = 0; h -= 0.6", "receptors": ["i"]}
    times, weight = torch.tensor([[[1.0, 2.0, 3.0]]], **DOUBLE), torch.full((1, 1), 3.0, **DOUBLE)
    with pytest.raises(ValueError, match="above its threshold right after its reset; lower the reset, or give it a"):
        spike_trains(times, weight, Neuron(text, **falling), max_spikes=20, until=12.0, backend=backend)
    neuron = Neuron(text, **falling, refractory=0.5)
    found = spike_trains(times, weight, neuron, max_spikes=40, until=6.0, backend=backend)[0, 0]
    found = found[found.isfinite()]
    assert len(found) > 5
    assert (found[3:].diff() - 0.5).abs().max() < 1e-12


FALLING = [[[0.0, 0.5, 1.0, 1.5], [0.2, 0.6, 1.1, 1.6]]]
FALLS = {"threshold_adaptation": [(3.0, -0.3)]}
ALSO_FALLS = Neuron(
    "dv/dt = -v + i; di/dt = -i; dh/dt = -h/tau", threshold="v > 1 + h", reset="v = v_r; h -= 0.3", receptors=["i"],
    tau=3.0, v_r=0.5,
)  # fmt: skip


@pytest.mark.parametrize("overflow", ["error", "drop"])
@pytest.mark.parametrize("neuron", [AdaptiveLIF(reset=0.5, **FALLS), ALSO_FALLS], ids=["linear", "equations"])
def test_a_threshold_that_falls_below_the_reset_of_linear_neurons(neuron, overflow, backend):
    """They would spike without an end: neither once, nor twice, nor as often as there is room for."""
    times, weight = torch.tensor(FALLING, **DOUBLE), torch.full((1, 2), 0.9, **DOUBLE)
    given = {"until": 6.0, "overflow": overflow, "backend": backend}
    with pytest.raises(
        ValueError, match="neuron 0 in sample 0 has no spike times: it is above its threshold right aft"
    ):
        spike_trains(times, weight, neuron, max_spikes=60, **given)
    found = spike_trains(times, weight, neuron.with_values(refractory=0.1), max_spikes=60, **given)
    assert found.isfinite().sum() > 9  # at the end of each refractory time


def test_a_threshold_that_falls_and_stays_above_the_reset(backend):
    times, weight = torch.tensor(FALLING, **DOUBLE), torch.full((1, 2), 0.9, **DOUBLE)
    one, other = (
        spike_trains(times, weight, x, max_spikes=60, until=6.0, backend=backend)
        for x in (AdaptiveLIF(reset=-0.9, **FALLS), ALSO_FALLS.with_values(v_r=-0.9))
    )
    assert one.isfinite().sum() > 2
    torch.testing.assert_close(one, other)
