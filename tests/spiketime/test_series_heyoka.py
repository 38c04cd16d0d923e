"""Neurons from equations against heyoka, an independent implementation of Taylor's method with events."""

import pytest
import torch

from firstspike import Neuron, spike_trains

pytestmark = pytest.mark.heyoka

NEURONS = {
    "qif": (
        "dv/dt = (v*(v - 1) + i) / 0.6; di/dt = -i / 0.5", {"threshold": "v > 10", "reset": "v = -10"},
        lambda v, i, hy: ((v * (v - 1) + i) / 0.6, -i / 0.5), 10.0, lambda x: [-10.0, x[1]], [0.0, 0.0], 4.0,
    ),
    "izhikevich": (
        "dv/dt = 0.04*v**2 + 5*v + 140 - u + i; di/dt = -i / 2; du/dt = 0.02*(0.2*v - u)",
        {"threshold": "v > 30", "reset": "v = -65; u += 8", "start": {"v": -65.0, "u": -13.0}},
        lambda v, i, u, hy: (0.04 * v * v + 5 * v + 140 - u + i, -i / 2, 0.02 * (0.2 * v - u)), 30.0,
        lambda x: [-65.0, x[1], x[2] + 8], [-65.0, 0.0, -13.0], 25.0,
    ),
    "exponential": (
        "dv/dt = 0.3*exp((v - 1)/0.3) - v + i; di/dt = -i / 0.6", {"threshold": "v > 2", "reset": "v = 0"},
        lambda v, i, hy: (0.3 * hy.exp((v - 1) / 0.3) - v + i, -i / 0.6), 2.0, lambda x: [0.0, x[1]], [0.0, 0.0], 6.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NEURONS)
def test_spikes_are_those_of_another_program(name):
    hy = pytest.importorskip("heyoka")
    text, options, flow, level, reset, start, strength = NEURONS[name]
    until = 30.0 if name == "izhikevich" else 5.0
    random = torch.Generator().manual_seed(3)
    times = (until * torch.rand(6, generator=random, dtype=torch.float64)).sort().values
    weights = strength * (0.5 + torch.rand(6, generator=random, dtype=torch.float64))
    neuron = Neuron(text, receptors=["i"], held=[], **options)
    trains = spike_trains(times[None, :, None], weights[None], neuron, max_spikes=60, until=until)[0, 0]
    names = hy.make_vars("v", "i", "u")[: len(start)]
    rates = flow(*names, hy=hy)
    event = hy.t_event(names[0] - level, direction=hy.event_direction.positive)
    solver = hy.taylor_adaptive(list(zip(names, rates, strict=True)), start, t_events=[event])
    wanted = []
    for end, weight in zip([*times.tolist(), until], [*weights.tolist(), 0.0], strict=True):
        while solver.propagate_until(end)[0] != hy.taylor_outcome.time_limit:
            wanted.append(solver.time)
            solver.state[:] = reset(solver.state)
            solver.reset_cooldowns()
        solver.state[1] += weight
    assert len(wanted) >= 3
    assert trains[trains.isfinite()].tolist() == pytest.approx(wanted, rel=1e-12)
