"""Connections that do not exist, in all layers with weights."""

import copy
import math
import re

import pytest
import torch

import firstspike as fs
from firstspike import DelayRule, Network, SpikeTrains, SpikingConv2d, SpikingLinear, SpikingRecurrent
from firstspike.data import DATASETS
from firstspike.layers import start_firing_
from firstspike.layers.ensembles import Ensemble, difference_of
from firstspike.neurons import QIF
from firstspike.training.silent import SilentNeurons

REFERENCE = {"backend": "reference", "dtype": torch.float64}
GIVEN = torch.tensor([[True, False, True, True], [True, True, False, True], [False, True, True, True]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(samples=3, count=4, seed=1):
    return 2 * torch.rand(samples, count, generator=seeded(seed), dtype=torch.float64)


def recurrent(**options):
    more = {"window": 0.7, "window_spikes": 20, "recurrent_std": 0.8, "overflow": "drop", **REFERENCE, **options}
    return SpikingRecurrent(4, 3, 60, 4.0, generator=seeded(), **more)


LAYERS = {
    "first": lambda **options: SpikingLinear(4, 3, generator=seeded(), **REFERENCE, **options),
    "delayed": lambda **options: SpikingLinear(4, 3, delay=DelayRule(), generator=seeded(), **REFERENCE, **options),
    "trains": lambda **options: SpikeTrains(4, 3, 12, generator=seeded(), **REFERENCE, **options),
    "recurrent": recurrent,
    "integral": lambda **options: fs.IntegralReadout(4, 3, generator=seeded(), dtype=torch.float64, **options),
    "maximum": lambda **options: fs.MaximumReadout(4, 3, generator=seeded(), dtype=torch.float64, **options),
}


def summed(layer, times=None):
    found = layer(inputs() if times is None else times)
    return found[found.isfinite()].sum()


@pytest.mark.parametrize("make", LAYERS)
def test_missing_connections_do_nothing(make):
    """As if their weights were 0, whatever they are, and without a gradient; the others have theirs."""
    layer = LAYERS[make](mask=GIVEN, weight_mean=2.0, weight_std=0.2)
    assert torch.equal(layer.weight == 0, ~GIVEN)
    plain = LAYERS[make](weight_mean=2.0, weight_std=0.2)
    plain.load_state_dict({name: x for name, x in layer.state_dict().items() if name != "connections"})
    with torch.no_grad():
        layer.weight.add_(~GIVEN)
    assert torch.equal(layer(inputs()), plain(inputs()))
    assert layer(inputs()).isfinite().any()
    for each in (layer, plain):
        summed(each).backward()
    assert torch.equal(layer.weight.grad, torch.where(GIVEN, plain.weight.grad, 0.0))
    assert (plain.weight.grad[~GIVEN] != 0).any()
    by_call = torch.func.grad(lambda weight: summed(lambda t: torch.func.functional_call(layer, {"weight": weight}, t)))
    if make != "recurrent":
        torch.testing.assert_close(by_call(layer.weight.detach()), layer.weight.grad)


def test_missing_recurrent_connections():
    mask = ~torch.eye(3, dtype=torch.bool)
    layer = recurrent(recurrent_mask=mask, weight_mean=2.0, weight_std=0.2, recurrent_delay=DelayRule(scale=1.0))
    assert torch.equal(layer.recurrent_weight == 0, ~mask)
    summed(layer).backward()
    assert not layer.recurrent_weight.grad[~mask].any()
    assert layer.recurrent_weight.grad[mask].any()
    assert "recurrent_mask=6 of 9" in str(layer)


def test_a_probability_is_drawn_with_the_weights():
    layer = SpikingLinear(400, 300, mask=0.1, generator=seeded())
    share = layer.connections.double().mean().item()
    assert share == pytest.approx(0.1, abs=0.01)
    assert torch.equal(layer.weight == 0, ~layer.connections)
    again = SpikingLinear(400, 300, mask=0.1, generator=seeded())
    assert torch.equal(again.connections, layer.connections)
    before = layer.connections.clone()
    layer.reset_parameters(seeded(1))
    assert not torch.equal(layer.connections, before)
    assert "mask=0.1" in str(layer)
    assert "mask=9 of 12" in str(SpikingLinear(4, 3, mask=GIVEN))
    assert "mask" not in str(SpikingLinear(4, 3))
    assert SpikingLinear(4, 3, mask=0.5, device="meta").connections.is_meta
    conv = SpikingConv2d((2, 3, 3), 30, 2, mask=0.5, generator=seeded(), **REFERENCE)
    assert torch.equal(conv.weight == 0, ~conv.connections)
    conv(inputs(3, 18)).nan_to_num(posinf=0).sum().backward()
    assert not conv.weight.grad[~conv.connections].any()


@pytest.mark.parametrize("signs", [None, [1] * 80 + [-1] * 20], ids=["any", "signs"])
@pytest.mark.parametrize("neuron", [fs.LIF(2.0), QIF(reset=-2.0)], ids=["lif", "qif"])
def test_usual_weights_take_the_place_of_missing_ones(neuron, signs):
    """Most neurons fire at the start, with the weights of a full layer of as many inputs."""
    options = {"generator": seeded(), "dtype": torch.float64, "until": math.inf if neuron == fs.LIF(2.0) else 20.0}
    thin = SpikingLinear(100, 200, neuron, mask=0.2, signs=signs, **options)
    full = SpikingLinear(20, 200, neuron, signs=None if signs is None else signs[::5], **options)
    sums = [x.weight.detach().sum(dim=1).mean().item() for x in (thin, full)]
    assert sums[0] == pytest.approx(sums[1], rel=0.15)
    assert thin(inputs(5, 100)).isfinite().double().mean() > 0.8
    assert torch.equal(thin.weight == 0, ~thin.connections)
    if signs is not None:
        assert (thin.weight * torch.tensor(signs) >= 0).all()
    if neuron == fs.LIF(2.0):
        network = Network(*(SpikingLinear(100, 100, neuron, mask=0.2, generator=seeded()) for _ in range(10)))
        start_firing_(network, inputs(20, 100).float(), seeded())  # balanced
        assert all(torch.equal(x.weight == 0, ~x.connections) for x in network)
        out = network(inputs(5, 100).float())
        assert out.isfinite().double().mean() > 0.8


def test_usual_recurrent_weights_and_readouts():
    thin, full = (SpikingRecurrent(4, 200, 9, 4.0, recurrent_mask=x, generator=seeded()) for x in (0.1, None))
    ratio = thin.recurrent_weight[thin.recurrent_connections].std() / full.recurrent_weight.std()
    assert ratio.item() == pytest.approx(math.sqrt(10), rel=0.1)
    readout = fs.IntegralReadout(100, 200, mask=0.1, generator=seeded())
    assert readout.weight[readout.connections].std().item() == pytest.approx(math.sqrt(1 / 10), rel=0.1)


def test_states_hold_the_connections():
    layer, other = (SpikingLinear(20, 10, mask=0.3, generator=seeded(seed)) for seed in (0, 1))
    assert not torch.equal(layer.connections, other.connections)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer.connections, other.connections)
    assert torch.equal(copy.deepcopy(layer).connections, layer.connections)
    assert other.mask == 0.3


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (0.0, r"^mask must be > 0 and <= 1 or a Tensor, got 0\.0$"),
        (1.5, r"^mask must be > 0 and <= 1 or a Tensor, got 1\.5$"),
        (GIVEN.T, r"^mask must be a probability or a boolean tensor \(3, 4\), got torch\.bool \(4, 3\)$"),
        (GIVEN.float(), r"^mask must be a probability or a boolean tensor \(3, 4\), got torch\.float32 \(3, 4\)$"),
    ],
)
def test_errors(mask, message):
    with pytest.raises(ValueError, match=message):
        SpikingLinear(4, 3, mask=mask)
    with pytest.raises(ValueError, match=r"^recurrent_mask must be "):
        SpikingRecurrent(4, 3, 9, 4.0, recurrent_mask=mask)


def trained(networks, folder=None, epochs=3):
    data = DATASETS["bars"](train=30, validation=6, test=6)
    optimizers = [torch.optim.Adam(x.parameters(), lr=0.05) for x in networks]
    silent = fs.SilentNeurons(limits=[0.0, 1.0], increment=0.3, skip_step=False)
    trainer = fs.Trainer(networks, fs.losses.TimeCrossEntropy(), optimizers, silent=silent)
    return trainer.fit(data.train, data.validation, epochs=epochs, batch_size=10, progress_bar=False, folder=folder)


def bars_network(seed, **options):
    signs = [1, -1, 1, 1, 1, 1, 1, -1, 1]
    lif = SpikingLinear(9, 12, fs.LIF(2.0), mask=0.5, signs=signs, generator=seeded(seed), **options)
    return Network(lif, SpikingLinear(12, 3, fs.LIF(2.0), mask=0.8, generator=seeded(seed), **options))


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_training_keeps_the_connections(seeds):
    """Also where networks with other connections train side by side."""
    networks = [bars_network(seed) for seed in range(seeds)]
    starts = copy.deepcopy(networks)
    trained(networks)
    for network, start in zip(networks, starts, strict=True):
        for layer, before in zip(network, start, strict=True):
            assert torch.equal(layer.connections, before.connections)
            assert not layer.weight[~layer.connections].any()
            assert not torch.equal(layer.weight, before.weight)


def test_members_of_an_ensemble_have_their_own_connections():
    members = [bars_network(seed, **REFERENCE) for seed in range(2)]
    assert difference_of(members[1], members[0]) is None
    together, times = Ensemble(members), inputs(5, 9)
    out, alone = together(times), [member(times) for member in members]
    assert torch.equal(out, torch.stack(alone))
    out.nan_to_num(posinf=0).sum().backward()
    together.share_gradients()
    shared = [x.weight.grad.clone() for member in members for x in member]
    for member in members:
        member.zero_grad()
    sum(x.nan_to_num(posinf=0).sum() for x in alone).backward()
    for mine, layer in zip(shared, (x for member in members for x in member), strict=True):
        torch.testing.assert_close(mine, layer.weight.grad)
        assert not mine[~layer.connections].any()
    plain = Network(SpikingLinear(9, 12, fs.LIF(2.0), signs=[1, -1, 1, 1, 1, 1, 1, -1, 1], **REFERENCE), members[0][1])
    assert re.search(r"mask is None, expected 0\.5", difference_of(plain, members[0]))


def test_silent_neurons_get_no_connections():
    network = bars_network(0)
    SilentNeurons(limits=0.0, exponential=False).raise_layer_(network, 0, torch.ones(12))
    assert torch.equal(network[0].weight == 0, ~network[0].connections)


def test_a_substrate_with_rounded_weights():
    network = bars_network(0, **REFERENCE)
    for substrate in (fs.substrates.Noisy(weight_scale=8.0, spike_jitter=0.01), fs.substrates.Exact(weight_bits=5)):
        record = substrate.open(network).record(network, inputs(5, 9))
        network.zero_grad()
        record.output.nan_to_num(posinf=0).sum().backward()
        assert network[0].weight.grad.any()
        assert not network[0].weight.grad[~network[0].connections].any()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's own parts
@pytest.mark.parametrize("kind", ["first", "recurrent"])
def test_compiled_and_exported(kind):
    layer = LAYERS[kind](mask=0.7, weight_mean=2.0, weight_std=0.2).eval()
    expected = layer(inputs())
    assert torch.equal(torch.compile(layer, backend="aot_eager")(inputs()), expected)
    with torch.no_grad():
        program = torch.export.export(layer, (inputs(),))
        assert torch.equal(program.module()(inputs()), expected)


def test_sparse_masks():
    mask = torch.ones(2, 3, dtype=torch.bool).to_sparse()
    with pytest.raises(ValueError, match=r"mask must be a probability or a boolean tensor \(2, 3\), .*sparse_coo"):
        SpikingLinear(3, 2, mask=mask)
