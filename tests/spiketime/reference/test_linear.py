"""The reference for linear neurons: crossings to the last digit, near tangents, and where they take their time."""

import math

import mpmath as mp
import pytest
import torch

from firstspike import LIF, first_spike_time, spike_trains
from firstspike.neurons import AdaptiveLIF
from firstspike.spiketime.flow import Flow
from firstspike.spiketime.reference.linear import first_crossing

STATES = {
    "at rest": (0.0, 6.0, 1.0),
    "strong input": (0.0, 1e6, 1.0),
    "close to the threshold": (1 - 1e-9, 6.0, 1.0),
    "below rest": (-3.0, 40.0, 1.0),
    "far below rest": (-50.0, 1e3, 1.0),
    "small scale": (1e-8, 6e-6, 1e-6),
    "large scale": (1e5, 8e6, 1e6),
}
RATIOS = [1.0, 2.0, 0.5, 1.37, 10.0, 1 + 1e-9, 0.3, math.inf]


def crossing(voltage, current, threshold, length, mem, syn):
    """Of LIF neurons from states, all of them numbers or all tensors."""
    tensors = (
        torch.as_tensor(x, dtype=torch.float64).reshape(-1) for x in (voltage, current, threshold, length, mem, syn)
    )
    voltage, current, threshold, length, mem, syn = torch.broadcast_tensors(*tensors)
    flow = Flow(("synapse",), mem, [syn], torch.zeros_like(mem))
    return first_crossing(flow, [voltage, current, torch.ones_like(mem)], threshold, length)


def truth(voltage, current, threshold, ratio, exact):
    """Bisection between the state and a time before the peak."""
    with mp.workdps(exact.digits):

        def level(s):
            decay = mp.mpf(1) if math.isinf(ratio) else mp.exp(-s / mp.mpf(ratio))
            return mp.mpf(voltage) * decay + mp.mpf(current) * exact.response(s, ratio, 1.0)

        low, high = mp.mpf(0), mp.mpf(2) ** -30
        while level(high) < threshold:
            low, high = high, high * mp.mpf("1.05")
            assert high < 100
        for _ in range(150):
            middle = (low + high) / 2
            low, high = (middle, high) if level(middle) < threshold else (low, middle)
        return float(high)


@pytest.mark.parametrize("length", [math.inf, 3.0], ids=["endless", "limited"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_crossing(state, length, ratio, exact):
    expected = truth(*STATES[state], ratio, exact)
    # a wait counts from an input's time, so an error relative to tau is what matters
    found = crossing(*STATES[state], length, ratio, 1.0).item()
    assert found == pytest.approx(expected, rel=1e-13, abs=1e-15)
    scaled = crossing(*STATES[state], 5e-3 * length, 5e-3 * ratio, 5e-3).item()
    assert scaled == pytest.approx(5e-3 * expected, rel=1e-13, abs=1e-15)
    assert crossing(*STATES[state], 0.99 * expected, ratio, 1.0).item() == math.inf


@pytest.mark.parametrize("ratio", RATIOS[:-1])
def test_tangent(ratio):
    """At a threshold equal to the peak, up to rounding, the crossing is the peak, or there is none."""
    one = torch.ones(1).double()
    flow = Flow(("synapse",), ratio * one, [one], 0 * one)
    state = [0.2 * one, 5 * one, one]
    at = flow.pieces(state, 50 * one)[:, 1]
    height = flow.moved(state, at)[0].item()
    for threshold, fires in ((height * (1 - 1e-14), True), (height, True), (height * (1 + 1e-14), False)):
        found = crossing(0.2, 5.0, threshold, math.inf, ratio, 1.0).item()
        assert found == (pytest.approx(at.item(), abs=1e-6) if fires else math.inf)


def test_an_asymptote_is_never_reached():
    one = torch.ones(1).double()
    for mem, bias, current in ((math.inf, 0.0, 0.75), (math.inf, 0.0, 0.7), (1.0, 1.0, 0.0)):
        flow, state = Flow(("synapse",), mem * one, [one], bias * one), [0.25 * one, current * one, one]
        top = 0.25 + current if mem == math.inf else bias
        for threshold, fires in ((top, False), (top - 1e-12, True)):
            assert first_crossing(flow, state, threshold * one, math.inf * one).isfinite().item() == fires


def test_elements_are_independent():
    """One that converges slowly, or not at all, does not change the others."""
    voltage, current = (torch.tensor(x).double() for x in ([0.0, 0.5, -3.0, 0.0, 0.0], [6.0, 4.0, 40.0, 0.1, -5.0]))
    for ratio in RATIOS:
        together = crossing(voltage, current, 1.0, math.inf, ratio, 1.0)
        alone = [
            crossing(float(v), float(i), 1.0, math.inf, ratio, 1.0).item()
            for v, i in zip(voltage, current, strict=True)
        ]
        assert together.tolist() == alone


def test_a_bias_just_above_the_threshold():
    """Each spike takes 13.8 time constants, in which the membrane comes close to the threshold."""
    none = torch.zeros(1, 1, 1).double()
    options = {"max_spikes": 14, "until": 200.0, "backend": "reference", "overflow": "drop"}
    found = spike_trains(none, none[0], LIF(bias=1 + 1e-6), **options)
    with mp.workdps(30):
        bias = mp.mpf(1 + 1e-6)
        period = float(mp.log(bias / (bias - 1)))
    assert found.flatten().tolist() == pytest.approx([k * period for k in range(1, 15)], rel=1e-9)
    assert spike_trains(none, none[0], LIF(bias=1.0), **(options | {"until": 1e6})).isinf().all()


def test_many_steps_of_a_fast_component_before_a_spike():
    """A threshold that takes 10^6 fast time constants to fall below the bias; smaller steps would end before it."""
    neuron = AdaptiveLIF(1.0, 0.01, bias=1.5, threshold_adaptation=[(1e4, 5.0)])
    none = torch.zeros(1, 1, 1).double()
    found = spike_trains(none, none[0], neuron, max_spikes=3, until=1e5, overflow="drop", backend="reference").flatten()
    assert found[0].item() == pytest.approx(math.log(3), rel=1e-12)
    assert found[1].item() == pytest.approx(1e4 * math.log(10), rel=1e-3)
    assert found.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_spike_at_the_end_counts(dtype):
    times, weight = torch.tensor([[[0.3]]], dtype=dtype), torch.tensor([[4.0]], dtype=dtype)
    for neuron in (LIF(), LIF(1.0, (1.0, 2.0))):
        given = {
            "receptor": None if neuron == LIF() else [0],
            "max_spikes": 2,
            "backend": "reference",
            "overflow": "drop",
        }
        first = spike_trains(times, weight, neuron, **given).flatten()[0].item()
        ends = spike_trains(times, weight, neuron, until=first, **given).flatten()
        assert ends.tolist() == [pytest.approx(first, rel=2e-15), math.inf]


def test_float32_is_the_rounded_float64():
    """Near tangents, too: nothing is computed in single precision."""
    source = torch.Generator().manual_seed(0)
    times = torch.rand(40, 12, generator=source)
    weight = 0.42 * torch.rand(50, 12, generator=source)
    for neuron in (LIF(), LIF(2.0), LIF(1.375, (0.75, 2.0))):
        given = {"receptor": None if isinstance(neuron.tau_syn, float) else "sign", "backend": "reference"}
        single = first_spike_time(times, weight, neuron, **given)
        wide = first_spike_time(times.double(), weight.double(), neuron, **given)
        assert wide.isfinite().any()
        assert wide.isinf().any()
        # one that would round to its last input comes just after it
        torch.testing.assert_close(single, wide.float(), rtol=1.2e-7, atol=0)
