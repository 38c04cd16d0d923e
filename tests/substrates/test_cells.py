"""Neurons with receptors, alpha functions, a bias, adaptation and no reset as cells of simulators, or refused."""

import pytest
import torch

from firstspike.layers import Network, SpikeTrains, SpikingLinear, SpikingRecurrent
from firstspike.neurons import LIF, AdaptiveLIF
from firstspike.substrates import SUBSTRATES, Brian2, Nest, Neuron, Noisy

DOUBLE = {"dtype": torch.float64}
REST = {"refractory": 0.24}
TWO = (1.0, 1.7)
EACH = torch.tensor([0.1, -0.6, 0.7, 0.9], **DOUBLE)
ADAPTS = {"adaptation": [(3.0, 0.4), (8.0, 0.2)], "threshold_adaptation": [(5.0, 0.3)]}
WEIGHTS = {"weight_mean": 0.5, "weight_std": 0.6}


def random_trains(source, spikes=4):
    return (6 * torch.rand(6, 6, spikes, generator=source, **DOUBLE)).sort(-1).values


def counts(trains):
    return torch.isfinite(trains).sum(-1)


def trains_of(neuron, source, kind=SpikeTrains, **options):
    more = (15.0,) if kind is SpikingRecurrent else ()
    options = {"overflow": "drop", "generator": source} | WEIGHTS | DOUBLE | options
    return Network(kind(6, 4, 60, *more, neuron, **options)).requires_grad_(False)


def run_on(substrate, network, times):
    """What a substrate finds and the exact spikes, up to its duration."""
    with substrate.open(network) as opened:
        found = opened.run(network, times).output
    wanted = network(times)
    return found, wanted.masked_fill(wanted > (getattr(substrate, "duration", None) or torch.inf), torch.inf)


SIGNS = {"receptor": "sign"}
PRECISE = {
    "two": (LIF(2.0, TWO, **REST), SIGNS),
    "equal": (LIF(1.0, (1.0, 2.0), **REST), SIGNS),
    "of each": (LIF(2.0, (1.0, torch.tensor([0.5, 1.0, 1.5, 2.0], **DOUBLE)), **REST), SIGNS),
    "by number": (
        LIF(2.0, (1.7, 1.0), refractory=0.34),
        {"receptor": [0, 0, 0, 1, 1, 1], "signs": [-1, -1, -1, 1, 1, 1], "weight_mean": 0.0, "weight_std": 1.5},
    ),
    "one receptor": (LIF(2.0, (1.0, 3.0), **REST), {"receptor": [0] * 6}),
    "alpha": (LIF(2.0, TWO, tau_rise=TWO, **REST), SIGNS),
    "alpha of one": (LIF(2.0, 1.0, tau_rise=1.0, reset=-0.3, **REST), {}),
    "bias": (LIF(2.0, 1.0, bias=0.6, **REST), {}),
    "bias of each": (LIF(2.0, 1.0, bias=EACH, **REST), {}),
    "bias above": (LIF(2.0, 1.0, bias=1.4, **REST), {}),
    "recurrent": (LIF(2.0, TWO, bias=0.4, **REST), SIGNS | {"kind": SpikingRecurrent}),
}


@pytest.mark.parametrize(("neuron", "options"), PRECISE.values(), ids=PRECISE)
@pytest.mark.nest
def test_precise_cells_of_nest(source, neuron, options):
    network, times = trains_of(neuron, source, **options), random_trains(source) - 0.5
    found, wanted = run_on(Nest(duration=12.0), network, times)
    assert int(counts(wanted).max()) >= 3
    assert torch.equal(counts(found), counts(wanted))
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=0)


# errors of a step add up over a train
STEPPED = {
    "gif": (AdaptiveLIF(2.0, TWO, reset=-0.2, **REST, **ADAPTS), SIGNS),
    "gif of each": (AdaptiveLIF(2.0, 1.0, **REST, adaptation=[(3 + EACH, 0.4), (8.0, EACH.abs() / 2)]), {}),
    "gif with bias": (AdaptiveLIF(2.0, 1.0, bias=0.5, **REST, threshold_adaptation=[(5, 0.3), (9, 0.2), (2, 0.1)]), {}),
    "mat": (AdaptiveLIF(2.0, TWO, reset=None, **REST, threshold_adaptation=[(5.0, 0.3), (9.0, 0.2)]), SIGNS),
    "mat of one part": (AdaptiveLIF(2.0, 1.0, bias=1.3, reset=None, **REST, threshold_adaptation=[(5.0, 0.3)]), {}),
    "mat of none": (LIF(2.0, 1.0, reset=None, bias=0.3, **REST), {}),
    "recurrent": (AdaptiveLIF(2.0, 1.0, **REST, **ADAPTS), {"kind": SpikingRecurrent}),
}


@pytest.mark.parametrize(("neuron", "options"), STEPPED.values(), ids=STEPPED)
@pytest.mark.nest
def test_cells_of_nest_on_its_grid(source, neuron, options):
    network, times = trains_of(neuron, source, **options), random_trains(source)
    errors = []
    for step in (0.02, 0.005):
        found, wanted = run_on(Nest(step, duration=12.0), network, times)
        same = counts(found) == counts(wanted)
        assert int(counts(wanted).max()) >= 3
        assert float(same.double().mean()) > 0.8  # flat membranes
        late = (found - wanted)[same.unsqueeze(-1) & torch.isfinite(wanted)].abs()
        errors.append(float(late.median()))
        assert errors[-1] < 1.6 * step
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.4)


@pytest.mark.nest
def test_first_spikes_need_no_more_than_a_first_spike(source):
    """Adaptation and no reset play no part, also where the simulator lacks them."""
    neuron = AdaptiveLIF(2.0, (1.0, 0.5), bias=0.8, reset=None, **ADAPTS)
    layer = SpikingLinear(6, 4, neuron, receptor="sign", generator=source, **WEIGHTS, **DOUBLE)
    found, wanted = run_on(Nest(), Network(layer).requires_grad_(False), random_trains(source, 1)[..., 0])
    assert int(torch.isfinite(wanted).sum()) > 10
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=0)


@pytest.mark.nest
def test_a_bias_alone_makes_neurons_spike(source):
    layer = SpikingLinear(6, 4, LIF(2.0, bias=1 + EACH), generator=source, **DOUBLE)
    nothing = torch.full((3, 6), torch.inf, **DOUBLE)
    found, wanted = run_on(Nest(), Network(layer).requires_grad_(False), nothing)
    assert torch.isfinite(wanted).tolist() == 3 * [[True, False, True, True]]
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=0)


@pytest.mark.nest
def test_the_gradient_is_that_at_the_times_of_nest(source):
    neuron = LIF(2.0, TWO, bias=0.3, **REST)
    learns = {"trainable": ["tau_syn", "bias"], "receptor": "sign"}
    network = trains_of(neuron, source, **learns).requires_grad_(True)
    times = random_trains(source)
    with Nest().open(network) as nest:
        found = nest.record(network, times).output
    wanted = network(times)
    loss = [torch.where(torch.isfinite(x), x, 0.0).square().sum() for x in (found, wanted)]
    for one, other in zip(*(torch.autograd.grad(x, list(network.parameters())) for x in loss), strict=True):
        assert bool(one.any())
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "simulator", [pytest.param(Neuron, marks=pytest.mark.neuron), pytest.param(Brian2, marks=pytest.mark.brian2)]
)
@pytest.mark.parametrize("case", ["two", "alpha of one", "bias", "bias of each", "recurrent"])
def test_cells_of_fixed_steps(source, simulator, case):
    neuron, options = PRECISE[case]
    network, times = trains_of(neuron, source, **options), random_trains(source)
    found, wanted = run_on(simulator(step=0.01, duration=15.0), network, times)
    same = counts(found) == counts(wanted)
    assert float(same.double().mean()) > 0.8
    late = (found - wanted)[same.unsqueeze(-1) & torch.isfinite(wanted)]
    assert float(late.abs().median()) < 0.03


MANY = {"threshold_adaptation": [(1.0, 0.1), (2.0, 0.1), (3.0, 0.1)]}
REFUSED = {
    "neuron": [
        (LIF(reset=None, refractory=0.1), {}, "the substrate neuron has no neurons without a reset (reset=None)"),
        (AdaptiveLIF(adaptation=[(3.0, 0.4)]), {}, "the substrate neuron has no neurons with adaptation currents"),
        (AdaptiveLIF(**MANY), {}, "the substrate neuron has no neurons with an adaptive threshold"),
    ],
    "brian2": [
        (AdaptiveLIF(adaptation=[(3.0, 0.4)]), {}, "the substrate brian2 has no neurons with adaptation currents"),
        (LIF(tau_rise=0.5), {}, "Brian2 has synapses with a rise time (tau_rise) only where that is tau_syn"),
    ],
    "nest": [
        (LIF(tau_syn=TWO, tau_rise=1.0), SIGNS, "NEST has synapses with a rise time (tau_rise) only where"),
        (AdaptiveLIF(tau_rise=1.0, **ADAPTS), {}, "NEST has no neurons with adaptation currents (adaptation) and with"),
        (
            LIF(tau_rise=1.0, reset=None, refractory=0.1),
            {},
            "NEST has no neurons without a reset (reset=None) whose synapses",
        ),
        (AdaptiveLIF(reset=None, **ADAPTS), {}, "NEST has neurons without a reset (reset=None) only with at most two"),
        (AdaptiveLIF(reset=None, **MANY), {}, "NEST has neurons without a reset (reset=None) only with at most two"),
        (
            LIF(reset=None, refractory=0.01),
            {},
            "NEST has refractory times of whole steps of 0.01, at least 2, got a refractory of 0.01",
        ),
        (AdaptiveLIF(**ADAPTS, refractory=0.0), {}, "NEST has refractory times of whole steps"),
        (
            LIF(tau_syn=(1.0, 2.0, 3.0)),
            {"receptor": [0, 0, 1, 1, 2, 2]},
            "NEST has one receptor (tau_syn) for weights > 0, those here reach receptors [0, 1, 2]",
        ),
        (
            LIF(tau_syn=TWO),
            {"receptor": [0, 0, 0, 1, 1, 1], "signs": [1, 1, 1, 0, -1, -1]},
            "NEST has one receptor (tau_syn) for weights > 0, those here reach receptors [0, 1]",
        ),
    ],
    "mock_bss2": [
        (
            LIF(tau_syn=TWO),
            {"receptor": [0, 0, 0, 1, 1, 1]},
            "receptors (tau_syn) by number; the chip has one",
        ),
        (LIF(tau_rise=1.0), {}, "neurons whose synapses have a rise time (tau_rise); those of the chip have none"),
        (LIF(bias=0.3), {}, "neurons with a constant input (bias); those of the chip have none"),
        (LIF(reset=None, refractory=0.1), {}, "neurons without a reset (reset=None); those of the chip have none"),
        (AdaptiveLIF(**ADAPTS), {}, "neurons with adaptation currents (adaptation); those of the chip have none"),
        (AdaptiveLIF(**MANY), {}, "neurons with an adaptive threshold (threshold_adaptation); those of the chip have"),
    ],
}
REFUSED["brainscales2"] = REFUSED["mock_bss2"]
LINES = [pytest.param(kind, *row, id=f"{kind} {row[2][:40]}") for kind, rows in REFUSED.items() for row in rows]


@pytest.mark.parametrize(("kind", "neuron", "options", "line"), LINES)
def test_neurons_that_a_substrate_lacks(source, kind, neuron, options, line):
    """Before it loads any software."""
    options = {"weight_mean": 3.0, "weight_std": 0.1, "max_spikes": 9, "generator": source} | options
    with pytest.raises(ValueError, match=r"layer 0: ") as error:
        SUBSTRATES[kind]().open(Network(SpikeTrains(6, 4, neuron=neuron, **options)))
    assert "layer 0: " + line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("neuron", "options"),
    [pytest.param(*x, id=name, marks=[pytest.mark.slow] * (name == "recurrent")) for name, x in STEPPED.items()],
)
def test_the_noisy_substrate_without_noise_is_exact(source, neuron, options):
    network, times = trains_of(neuron, source, **options), random_trains(source)
    found, wanted = run_on(Noisy(), network, times)
    assert torch.equal(counts(found), counts(wanted))
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)
