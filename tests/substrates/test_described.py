"""Neurons from equations on substrates: as cells of simulators, with noise, or refused."""

import pytest
import torch

import firstspike as fs
from firstspike.layers import DelayRule, Network, SpikeTrains, SpikingLinear, SpikingRecurrent
from firstspike.neurons import EIF, QIF, AdEx, AdLIF, ConductanceLIF, Izhikevich
from firstspike.substrates import SUBSTRATES, Brian2, Nest, Neuron, Noisy, SubstrateError

DOUBLE = {"dtype": torch.float64}
UNTIL, MS = 12.0, 5.0
OWN = fs.Neuron("dv/dt = i - v; di/dt = -i", threshold="v > th", receptors=["i"], reset="v = 0", th=1.0)
SIGNS = {"receptor": "sign"}
STRONG = {"weight_mean": 800.0, "weight_std": 900.0}
EACH = torch.tensor([100.0, 300.0, 700.0, 900.0], **DOUBLE)
FIRM = {"refractory": 0.2, "bias": 0.4, "reset": -0.2}
BY_NUMBER = {"receptor": [0, 0, 0, 0, 1, 1], "signs": [1] * 6, "weight_mean": 0.8, "weight_std": 0.3}
LOOP = {"window": 0.48, "overflow": "drop"}
CELLS = {
    "AdEx": (AdEx(tau_syn=(MS, 7.0), refractory=2.0, reset=-60.0, tau_w=60.0, bias=300.0), STRONG | SIGNS, SpikeTrains),
    "AdEx of each": (AdEx(tau_syn=MS, bias=EACH), STRONG, SpikeTrains),
    "AdEx, first": (AdEx(tau_syn=MS), STRONG, SpikingLinear),
    "AdEx, recurrent": (AdEx(tau_syn=MS), STRONG | LOOP | {"recurrent_std": 300.0}, SpikingRecurrent),
    "EIF": (EIF(2.0, (1.0, 1.9), **FIRM), SIGNS | {"weight_mean": 0.6, "weight_std": 0.8}, SpikeTrains),
    "AdLIF": (AdLIF(2.0, 1.0, a=2.0, **FIRM), {"weight_mean": 0.9, "weight_std": 0.6}, SpikeTrains),
    "ConductanceLIF": (ConductanceLIF(2.0, (1.0, 1.9), **FIRM), BY_NUMBER, SpikeTrains),
    "ConductanceLIF by sign": (
        ConductanceLIF(2.0, (1.0, 1.9), **FIRM),
        SIGNS | {"weight_mean": 0.3, "weight_std": 0.7},
        SpikeTrains,
    ),
    "ConductanceLIF, recurrent": (
        ConductanceLIF(2.0, (1.0, 1.9), **FIRM),
        BY_NUMBER | LOOP | {"recurrent_receptor": [1] * 4, "recurrent_signs": [1] * 4},
        SpikingRecurrent,
    ),
}
FIXED = {name: x for name, x in CELLS.items() if name.startswith("ConductanceLIF")}
FEW = {"weight_mean": 1.5, "weight_std": 0.5}
LEAP = fs.Neuron("dv/dt = -v/tau", threshold="v > 1", reset="v = 0", receptors=["v"], refractory=0.32, tau=2.0)
NATIVE = CELLS | {
    "QIF": (QIF(2.0, (1.0, 0.5)), FEW | SIGNS, SpikeTrains),
    "QIF, finite": (QIF(2.0, threshold=20.0, reset=-3.0, refractory=0.2), FEW, SpikeTrains),
    "QIF, recurrent": (QIF(2.0), FEW | LOOP | {"recurrent_std": 1.0}, SpikingRecurrent),
    "Izhikevich": (Izhikevich(bias=6.0), FEW, SpikeTrains),
    "own": (OWN, {"weight_mean": 0.5, "weight_std": 0.3, "delay": DelayRule("softplus")}, SpikeTrains),
    "own that leaps": (LEAP, {"weight_mean": 0.5, "weight_std": 0.5}, SpikeTrains),
}


def network_of(neuron, options, kind, source):
    unit = MS if isinstance(neuron, AdEx) else 1.0
    more = {SpikingLinear: (), SpikeTrains: (60,), SpikingRecurrent: (60, UNTIL * unit)}[kind]
    end = {"window": options["window"] * unit} if kind is SpikingRecurrent else {"until": UNTIL * unit}
    times = 0.6 * UNTIL * unit * torch.rand(6, 6, 4, generator=source, **DOUBLE).sort(-1).values
    layer = kind(6, 4, *more, neuron, generator=source, **options | end, **DOUBLE)
    return Network(layer).requires_grad_(False), times[..., 0] if kind is SpikingLinear else times, unit


def late(substrate, network, times):
    """How much later its spikes are, of trains with as many, and which part of them has as many."""
    with substrate.open(network) as opened:
        found = opened.run(network, times).output
    wanted = network(times)
    found, wanted = (x if x.ndim == 3 else x.unsqueeze(-1) for x in (found, wanted))
    same = torch.isfinite(found).sum(-1) == torch.isfinite(wanted).sum(-1)
    assert int(torch.isfinite(wanted).sum()) > 12
    return (found - wanted)[same.unsqueeze(-1) & torch.isfinite(wanted)], float(same.double().mean())


@pytest.mark.parametrize(("neuron", "options", "kind"), CELLS.values(), ids=CELLS)
@pytest.mark.nest
def test_errors_of_nest_fall_with_its_step(source, neuron, options, kind):
    network, times, unit = network_of(neuron, options, kind, source)
    errors = []
    for step in (0.04, 0.005):
        found, same = late(Nest(step, duration=UNTIL), network, times)
        assert same > (0.9 if step < 0.01 else 0.7)
        errors.append(float(found.abs().median()) / unit)
        assert errors[-1] < 5 * step  # half a step for each spike before
    assert errors[1] < errors[0] / 4


@pytest.mark.neuron
@pytest.mark.parametrize(("neuron", "options", "kind"), FIXED.values(), ids=FIXED)
def test_cells_of_neuron(source, neuron, options, kind):
    network, times, _ = network_of(neuron, options, kind, source)
    found, same = late(Neuron(step=0.01, duration=UNTIL), network, times)
    assert same > 0.7
    assert float(found.abs().median()) < 0.05


@pytest.fixture
def interpreted():
    """Without minutes of compiling."""
    brian2 = pytest.importorskip("brian2")
    before, brian2.prefs.codegen.target = brian2.prefs.codegen.target, "numpy"
    yield
    brian2.prefs.codegen.target = before


@pytest.mark.brian2
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("neuron", "options", "kind"), NATIVE.values(), ids=NATIVE)
def test_errors_of_brian2_fall_with_its_step(source, neuron, options, kind):
    network, times, unit = network_of(neuron, options, kind, source)
    errors = []
    for step in (0.02, 0.005):
        found, same = late(Brian2(step, duration=UNTIL), network, times)
        assert same > (0.9 if step < 0.01 else 0.7)
        errors.append(float(found.abs().median()) / unit)
        assert errors[-1] < 5 * step  # half a step for each spike before
    assert errors[1] < errors[0] / (1.5 if kind is SpikingLinear else 2.5)


@pytest.mark.brian2
@pytest.mark.usefixtures("interpreted")
def test_a_membrane_that_runs_away_from_the_steps_of_brian2(source):
    network, times, _ = network_of(EIF(threshold=3.9), CELLS["AdLIF"][1], SpikeTrains, source)
    with (
        Brian2(1.0, duration=UNTIL).open(network) as opened,
        pytest.raises(
            SubstrateError, match=r"^Brian2 failed: a state is no number any more: choose a smaller substrate\."
        ),
    ):
        opened.run(network, times)


@pytest.mark.nest
def test_the_gradient_is_that_at_the_times_of_nest(source):
    network, times, _ = network_of(*CELLS["AdEx of each"], source)
    network.requires_grad_(True)
    with Nest(0.001, duration=UNTIL).open(network) as nest:
        found = nest.record(network, times).output
    gradients = []
    for x in (found, network(times)):
        (gradient,) = torch.autograd.grad(x[torch.isfinite(x)].sum(), [network[0].weight])
        gradients.append(gradient)
    assert bool(gradients[0].any())
    torch.testing.assert_close(*gradients, rtol=0.02, atol=0.02 * float(gradients[1].abs().max()))


THREE = {"tau_syn": (1.0, 2.0, 3.0), "reversal": (4.0, -1.0, -1.0)}
REFUSED = {
    "nest": [
        (QIF(), {}, "NEST has no neurons of the kind QIF: none of its neurons has a quadratic membrane and synaptic"),
        (Izhikevich(), {}, "NEST has no neurons of the kind Izhikevich: NEST's inputs move the membrane at once"),
        (OWN, {}, "NEST has no neurons of the kind Neuron: they are your own"),
        (AdEx(tau_syn=MS, refractory=0.001), {}, "NEST has refractory times of whole steps"),
        (
            ConductanceLIF(**THREE), {"receptor": [0, 0, 1, 1, 2, 2], "signs": [1] * 6},
            "NEST has neurons with two kinds of conductances (tau_syn) at most, these have 3",
        ),
    ],
    "neuron": [(EIF(), {}, "NEURON has no neurons of the kind EIF: only NEST has its aeif_psc_exp")],
    "integrator": [(AdLIF(), {}, "the substrate integrator has no neurons of the kind AdLIF")],
    "mock_bss2": [(Izhikevich(), {}, "neurons of the kind Izhikevich; those of the chip are LIF")],
    "brainscales2": [(OWN, {}, "neurons of the kind Neuron; those of the chip are LIF")],
}  # fmt: skip
LINES = [pytest.param(kind, *row, id=f"{kind} {row[2][:40]}") for kind, rows in REFUSED.items() for row in rows]


@pytest.mark.parametrize(("kind", "neuron", "options", "line"), LINES)
def test_neurons_that_a_substrate_lacks(source, kind, neuron, options, line):
    options = {"weight_mean": 3.0, "weight_std": 0.1, "generator": source, "until": 9.0} | options
    with pytest.raises(ValueError, match=r"layer 0: ") as error:
        SUBSTRATES[kind]().open(Network(SpikeTrains(6, 4, 9, neuron, **options)))
    assert "layer 0: " + line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("neuron", [QIF(), Izhikevich(bias=6.0), OWN], ids=["QIF", "Izhikevich", "own"])
@pytest.mark.parametrize("kind", [SpikingLinear, SpikeTrains, SpikingRecurrent])
def test_the_noisy_substrate(source, neuron, kind):
    options = {"weight_mean": 1.0, "weight_std": 0.4} | LOOP if kind is SpikingRecurrent else {"weight_std": 0.5}
    network, times, _ = network_of(neuron, {"weight_mean": 1.5} | options, kind, source)
    found, same = late(Noisy(), network, times)
    assert same == 1.0
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-9, rtol=0)
    with pytest.raises(
        ValueError, match=r"layer 0: the substrate noisy has no neurons of the kind \w+ whose thresholds"
    ):
        Noisy(threshold_spread=0.1).open(network)
