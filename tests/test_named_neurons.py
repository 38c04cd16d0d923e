"""Neurons with a name: their parameters, their equations, and neurons that they become at the edges of their range."""

import copy
import dataclasses
import math
import pickle

import pytest
import torch

from firstspike import LIF, Neuron, spike_trains
from firstspike.neurons import EIF, QIF, AdaptiveLIF, AdEx, AdLIF, ConductanceLIF, Izhikevich
from firstspike.spiketime import spike_window

UNTIL = 12.0
FAR = 1e6
NAMED = [EIF, QIF, AdEx, AdLIF, ConductanceLIF, Izhikevich]
MS = {AdEx: (20.0, 1500.0), Izhikevich: (20.0, 12.0)}
"""Of neurons in ms: how long the unit of the times below is, and the size of their weights."""


def drive(kind, seed=0, samples=3, inputs=15, outputs=4):
    """Times, weights and the receptor of each input, with which neurons of that kind spike some times."""
    source = torch.Generator().manual_seed(seed)
    unit, size = MS.get(kind, (1.0, 1.0))
    times = 0.8 * UNTIL * unit * torch.rand(samples, inputs, 3, generator=source, dtype=torch.float64)
    weight = size * (0.4 + torch.randn(outputs, inputs, generator=source, dtype=torch.float64))
    if kind is ConductanceLIF:
        weight = 0.3 * weight.abs()
    return times, weight, unit * UNTIL


def spikes(neuron, times, weight, until=UNTIL, **options):
    return spike_trains(times, weight, neuron, max_spikes=200, until=until, **options)


def both(inputs=15):
    """Receptors, the second for every third input."""
    return [int(k % 3 == 2) for k in range(inputs)]


@pytest.mark.parametrize("kind", NAMED)
def test_every_one_has_defaults_that_spike(kind):
    times, weight, until = drive(kind)
    trains = spikes(kind(), times, weight, until, receptor=both() if kind is ConductanceLIF else None)
    assert trains.isfinite().sum() > 12


@pytest.mark.parametrize("kind", NAMED)
def test_several_receptors_with_their_own_time_constants(kind):
    times, weight, until = drive(kind)
    one = {"tau_syn": MS.get(kind, (1.0,))[0]} | ({"reversal": 3.0} if kind is ConductanceLIF else {})
    single, equal = kind(**one), kind(**{name: (x, x) for name, x in one.items()})
    slower = equal.with_values(tau_syn=(equal.tau_syn[0], 2 * equal.tau_syn[1]))
    wanted, found, other = (
        spikes(neuron, times, weight, until, receptor=receptor)
        for neuron, receptor in ((single, None), (equal, both()), (slower, both()))
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11 * until)
    assert not torch.equal(found[..., 0], other[..., 0])


@pytest.mark.parametrize("kind", NAMED)
def test_copies_are_equal(kind):
    neuron = kind()
    for twin in (copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron)), dataclasses.replace(neuron)):
        assert twin == neuron
        assert (twin.equations, twin.start) == (neuron.equations, neuron.start)
    other = neuron.with_values(bias=0.5)
    assert other != neuron
    assert (other.bias, other.equations) == (0.5, neuron.equations)
    assert repr(neuron).startswith(f"{kind.__name__}(tau")


@pytest.mark.parametrize("kind", NAMED)
def test_each_parameter_is_a_field_in_the_equations(kind):
    names = {field.name for field in dataclasses.fields(kind)} - {"unit"}
    assert sorted(kind.parameters) == sorted(names)
    finite = {"threshold": 3.0, "reset": -1.0} if kind is QIF else {}
    neuron = kind(**finite)
    assert set(neuron.named_values) == {*neuron.equations.parameters, "refractory"}


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan, None, "1"])
def test_values_out_of_range(kind, value):
    for name, parameter in kind.parameters.items():
        if name.startswith("tau") or name in ("delta_t", "c_m"):
            assert (parameter.least, parameter.included) == (0.0, False)
            with pytest.raises(ValueError, match=rf"{name}(\[0\])? must be"):
                kind(**{name: (value, value) if parameter.several and kind is ConductanceLIF else value})


@pytest.mark.parametrize("kind", [x for x in NAMED if x is not Izhikevich])
def test_a_reset_is_below_the_threshold(kind):
    with pytest.raises(ValueError, match=r"reset must be below the threshold of 2\.0, got 2\.0"):
        kind(threshold=2.0, reset=2.0)


def test_no_receptors():
    with pytest.raises(ValueError, match="tau_syn must have a time constant for each receptor, got none"):
        QIF(tau_syn=())
    with pytest.raises(ValueError, match=r"reversal must have a potential for each tau_syn, \(1\.0, 2\.0\), got 3\.0"):
        ConductanceLIF(tau_syn=(1.0, 2.0), reversal=3.0)
    with pytest.raises(ValueError, match="reversal must have a potential for each tau_syn"):
        ConductanceLIF(reversal=(3.0, 0.0, 1.0))
    assert ConductanceLIF(tau_syn=2.0, reversal=3.0).equations.receptors == ("g",)


@pytest.mark.parametrize("weight", [[-0.2, 1.0], [1.0, math.nan]])
def test_conductances_are_not_negative(weight):
    times = torch.ones(1, 2, 1, dtype=torch.float64)
    weight = torch.tensor([weight], dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"^weights of ConductanceLIF must be >= 0, as .* conductances, got (-0\.2|nan)"
    ):
        spikes(ConductanceLIF(), times, weight, receptor=[0, 1])


CONDUCTING = "dv/dt = -v + g*(4 - v) + h*(-2 - v); dg/dt = -g / 0.7; dh/dt = (x - h) / 0.5; dx/dt = -x / 1.9"


def conducting(**more):
    """Equations of one's own, whose inhibition rises; it starts with some of it."""
    given = {"threshold": "v > 1 + 0.1*h", "reset": "v = 0; x += 0.1", "start": {"x": "x_0"}, "x_0": 0.2}
    return Neuron(CONDUCTING, receptors=["g", "x"], refractory=0.1, **given, **more)


@pytest.mark.parametrize("neuron", [ConductanceLIF(refractory=0.2), conducting(conducts=True)], ids=["named", "own"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_signs_choose_conductances(neuron, backend):
    """As in NEST: spikes, states and gradients are those of two receptors that are given."""
    times, weight, _ = drive(ConductanceLIF, samples=2, inputs=6, outputs=3)
    side = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    found, options = [], {"max_spikes": 40, "overflow": "drop", "backend": backend}
    for factor, receptor in ((1.0, [0, 1, 0, 1, 0, 0]), (side, "sign")):
        given = (2 * weight * factor).requires_grad_()
        first = spike_window(times, given, neuron, until=3.0, receptor=receptor, **options)
        second = spike_window(times, given, neuron, until=6.0, state=first.state, receptor=receptor, **options)
        trains = torch.cat([first.trains, second.trains], -1)
        ends = torch.cat([second.state.voltage.unsqueeze(-1), second.state.current], -1)
        (by,) = torch.autograd.grad(trains[trains.isfinite()].square().sum() + ends.square().sum(), given)
        found.append((trains.detach(), ends.detach(), first.state.current.detach(), by * factor))
    assert found[0][0].isfinite().sum() > 5
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


def test_signs_may_differ_between_neurons():
    """An input that excites one neuron and inhibits another: with receptors by number it would be two inputs."""
    times, weight, _ = drive(ConductanceLIF)
    weight[1::2] *= -1
    by_sign = spikes(ConductanceLIF(), times, 2 * weight, receptor="sign")
    twice = torch.cat([2 * weight.clamp(min=0), -2 * weight.clamp(max=0)], 1)
    both = spikes(ConductanceLIF(), times.repeat(1, 2, 1), twice, receptor=[0] * 15 + [1] * 15)
    assert by_sign[:, 0].isfinite().any()
    assert not by_sign[:, 1].isfinite().any()
    torch.testing.assert_close(by_sign, both, rtol=0, atol=1e-12)


def test_conductances_of_ones_own():
    neuron = conducting(conducts=True)
    assert neuron != conducting()
    assert [x.conducts for x in (neuron, neuron.with_values(x_0=0.1), neuron.without_spikes())] == [True] * 3
    times, weight, _ = drive(ConductanceLIF)
    spikes(conducting(), times, -weight, receptor=both())  # any states, for which weights may be negative
    with pytest.raises(ValueError, match=r'^weights of Neuron must be >= 0, .* got -.*: name .* by receptor="sign"$'):
        spikes(neuron, times, -weight, receptor=both())
    with pytest.raises(ValueError, match=r"^conducts needs receptors that are conductances, got the membrane, v$"):
        Neuron("dv/dt = -v", threshold="v > 1", reset="v = 0", receptors=["v"], conducts=True)


def test_membranes_are_named():
    assert [kind().membrane for kind in (EIF, QIF, AdEx, ConductanceLIF)] == ["v", "n/d", "v", "v"]
    assert LIF().membrane == "voltage"


# how v itself is written, in place of n and d
V = "dv/dt = (v*(v - 1) + bias + i) / tau_mem; di/dt = -i / tau_syn"


@pytest.mark.parametrize("refractory", [0.0, 0.4])
def test_qif_is_its_membrane(refractory):
    times, weight, until = drive(QIF)
    values = {"tau_mem": 1.3, "tau_syn": 0.8, "threshold": 6.0, "reset": -4.0, "bias": 0.1, "refractory": refractory}
    own = {"v_th" if name == "threshold" else "v_r" if name == "reset" else name: x for name, x in values.items()}
    plain = Neuron(V, threshold="v > v_th", reset="v = v_r", receptors=["i"], **own)
    found, wanted = (spikes(x, times, weight, until) for x in (QIF(**values), plain))
    assert found.isfinite().sum() > 20
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("refractory", [0.0, 0.4])
def test_spikes_at_infinity(refractory):
    """Where threshold and reset are far away, the membrane takes 2 / far for the rest of the way."""
    times, weight, until = drive(QIF)
    far = 1e9
    found, near = (
        spikes(QIF(refractory=refractory, **x), times, weight, until) for x in ({}, {"threshold": far, "reset": -far})
    )
    assert found.isfinite().sum() > 20
    torch.testing.assert_close(found, near, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [QIF, ConductanceLIF])
def test_gradients_are_differences(kind):
    times, weight, until = drive(kind, samples=1)
    options = {"receptor": both()} if kind is ConductanceLIF else {}
    names = ("tau_mem", "bias", "refractory")
    given = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (1.1, 0.2, 0.3)]
    weight.requires_grad_()

    def total(weight, *values):
        trains = spikes(kind(**dict(zip(names, values, strict=True))), times, weight, until, **options)
        return trains[trains.isfinite()].square().sum()

    assert torch.autograd.gradcheck(total, (weight, *given), eps=1e-6, atol=1e-4, rtol=1e-5)


LIMITS = {
    "EIF": (EIF(delta_t=1e-4, threshold=1.002, reset=-0.3, bias=1.5), LIF(reset=-0.3, bias=1.5), 0.015),
    "AdLIF": (
        AdLIF(1.2, 0.8, a=0.0, b=0.4, tau_w=3.0, refractory=0.2, bias=1.5),
        AdaptiveLIF(1.2, 0.8, refractory=0.2, bias=1.5, adaptation=[(3.0, 0.4 * 3.0 / 1.2)]),
        1e-11,
    ),
    "ConductanceLIF": (
        ConductanceLIF(2.0, (0.7, 1.9), reversal=(FAR, FAR), reset=-0.3, bias=1.5),
        LIF(2.0, (0.7, 1.9), reset=-0.3, bias=1.5),
        1e-4,
    ),
}


@pytest.mark.parametrize(("neuron", "lif", "tolerance"), LIMITS.values(), ids=LIMITS)
def test_neurons_that_are_nearly_lif(neuron, lif, tolerance):
    times, weight, until = drive(LIF)
    own = weight = 0.1 * weight.abs()
    options = {"receptor": both()} if isinstance(neuron, ConductanceLIF) else {}
    if options:  # one of g moves the membrane by reversal / tau_mem, one of I by 1 / tau_syn
        own = weight * torch.tensor([2.0 / (neuron.tau_syn[k] * FAR) for k in both()], dtype=torch.float64)
    found, wanted = spikes(neuron, times, own, until, **options), spikes(lif, times, weight, until, **options)
    assert wanted.isfinite().sum() > 30
    torch.testing.assert_close(found[..., :5], wanted[..., :5], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: AdEx(threshold=-0.04, reset=-0.07, e_l=-0.07, v_t=-0.05, delta_t=0.002),
            "e_l=-0.07: potentials are in mV",
        ),
        (lambda: Izhikevich(threshold=0.03, c=-0.065), "threshold=0.03, c=-0.065: potentials are in mV here; multiply"),
        (lambda: AdEx(e_l=-0.07), "the neuron starts at v=-0.07, w=0, i=0, above its threshold"),
        (lambda: EIF(threshold=-50.0, reset=-65.0), "the neuron starts at v=0, i=0, above its threshold"),
    ],
)
def test_volts_for_millivolts(make, message):
    with pytest.warns(UserWarning, match=message):
        make()
