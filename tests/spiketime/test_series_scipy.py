"""Named neurons against their equations, written down once more, that scipy's general solver follows."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp

from firstspike import spike_trains
from firstspike.neurons import EIF, QIF, AdEx, AdLIF, ConductanceLIF, Izhikevich

INPUTS, UNTIL = 12, 12.0


def exp(x):
    return math.exp(min(x, 100.0))  # beyond the threshold the solver only looks for it


def qif(v, _, a, b):
    return v * (v - 1) / 1.3 + (0.1 + a + b) / 1.3, 0.0


def theta(x, _, a, b):
    """Of ``v = 1/2 + tan(x/2)``, whose spikes are at pi."""
    return (1 - math.cos(x) + (1 + math.cos(x)) * (a + b + 0.1 - 0.25)) / 1.3, 0.0


def eif(v, _, a, b):
    return (-v + 0.3 * exp((v - 0.9) / 0.3) + 0.2) / 1.3 + a / 0.7 + b / 1.9, 0.0


def adex(v, w, a, b):
    leak = 30 * (-(v + 70.6) + 2 * exp((v + 50.4) / 2))
    return (leak - w + a + b + 100) / 281, (4 * (v + 70.6) - w) / 144


def izhikevich(v, u, a, b):
    return 0.04 * v * v + 5 * v + 140 - u + a + b + 3, 0.03 * (0.25 * v - u)


def adlif(v, w, a, b):
    return (-v - w + 0.2) / 1.3 + a / 0.7 + b / 1.9, (2.5 * v - w) / 3


def conducting(v, _, a, b):
    return (-v + a * (4 - v) + b * (-0.5 - v) + 0.2) / 1.3, 0.0


TAUS, SHARED = (0.7, 1.9), {"tau_mem": 1.3, "tau_syn": (0.7, 1.9), "refractory": 0.3}
MS = 10.0
# the neuron, dv/dt and dw/dt by v, w and the states of two receptors, start, threshold, reset, jump of w, weights and
# the unit of time
NAMED = {
    "QIF": (QIF(**SHARED, threshold=7.0, reset=-5.0, bias=0.1), qif, (0.0, 0.0), 7.0, -5.0, 0.0, 1.0, 1.0),
    "QIF at infinity": (
        QIF(**SHARED, bias=0.1), theta, (2 * math.atan(-0.5), 0.0), math.pi, -math.pi, 0.0, 1.0, 1.0,
    ),
    "EIF": (
        EIF(**SHARED, v_t=0.9, delta_t=0.3, threshold=3.0, reset=-0.2, bias=0.2), eif,
        (0.0, 0.0), 3.0, -0.2, 0.0, 0.7, 1.0,
    ),
    "AdEx": (
        AdEx(tau_syn=(7.0, 19.0), refractory=3.0, bias=100.0), adex, (-70.6, 0.0), -40.0, -70.6, 80.5, 700.0, MS,
    ),
    "Izhikevich": (
        Izhikevich(tau_syn=(7.0, 19.0), refractory=3.0, a=0.03, b=0.25, c=-60.0, d=5.0, bias=3.0), izhikevich,
        (-70.0, -17.5), 30.0, -60.0, 5.0, 5.0, MS,
    ),
    "AdLIF": (
        AdLIF(**SHARED, tau_w=3.0, a=2.5, b=0.4, reset=-0.2, bias=0.2), adlif, (0.0, 0.0), 1.0, -0.2, 0.4, 0.9, 1.0,
    ),
    "ConductanceLIF": (
        ConductanceLIF(**SHARED, reversal=(4.0, -0.5), reset=-0.2, bias=0.2), conducting, (0.0, 0.0), 1.0, -0.2, 0.0,
        2.0, 1.0,
    ),
}  # fmt: skip


def solved(rates, start, threshold, reset, jump, taus, refractory, until, inputs):
    """The spikes, from event to event: inputs are (time, receptor, weight)."""
    held = -math.inf

    def flow(t, x):
        dv, dw = rates(*x)
        return [0.0 if t < held else dv, dw, -x[2] / taus[0], -x[3] / taus[1]]

    def reached(t, x):
        return x[0] - threshold

    reached.terminal, reached.direction = True, 1
    now, x, spikes = 0.0, [*start, 0.0, 0.0], []
    arrivals = sorted(inputs)
    while now < until:
        ends = [until, *(t for t, *_ in arrivals[:1]), *([held] if held > now else [])]
        end = min(ends)
        if end > now:
            found = solve_ivp(flow, (now, end), x, "DOP853", events=reached, rtol=1e-12, atol=1e-13)
            now, x = found.t[-1], list(found.y[:, -1])
            if found.status == 1:
                spikes.append(now)
                x[0], x[1] = reset, x[1] + jump
                held = now + refractory
                continue
        now = end
        while arrivals and arrivals[0][0] <= now:
            _, receptor, weight = arrivals.pop(0)
            x[2 + receptor] += weight
    return spikes


@pytest.mark.parametrize("kind", NAMED)
def test_named_neurons(kind):
    neuron, rates, start, threshold, reset, jump, size, unit = NAMED[kind]
    source = torch.Generator().manual_seed(11)
    times = 0.8 * UNTIL * unit * torch.rand(1, INPUTS, 2, generator=source, dtype=torch.float64)
    weight = size * (0.6 + torch.randn(4, INPUTS, generator=source, dtype=torch.float64))
    weight = weight.abs() if kind == "ConductanceLIF" else weight
    receptor = [k % 2 for k in range(INPUTS)]
    trains = spike_trains(times, weight, neuron, receptor=receptor, max_spikes=60, until=UNTIL * unit)[0]
    assert trains.isfinite().sum() > 10
    for own, row in zip(trains, weight, strict=True):
        inputs = [(t, receptor[k], w) for k, w in enumerate(row.tolist()) for t in times[0, k].tolist()]
        wanted = solved(rates, start, threshold, reset, jump, neuron.tau_syn, neuron.refractory, UNTIL * unit, inputs)
        assert own.isfinite().sum() == len(wanted)
        torch.testing.assert_close(
            own[: len(wanted)] / unit, torch.tensor(wanted, dtype=torch.float64) / unit, rtol=0, atol=1e-9
        )
