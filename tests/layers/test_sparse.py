"""Layers with sparse synapses are layers with a mask, of which only what exists has weights and delays."""

import copy
import math
import pickle

import pytest
import torch

import firstspike as fs
from firstspike import LIF, DelayRule, Network, SpikeTrains, SpikingLinear, SpikingRecurrent, connect
from firstspike.layers import layer_costs, rows, start_firing_, synapses
from firstspike.layers.ensembles import Ensemble
from firstspike.layers.named import named_parameters
from firstspike.training.silent import SilentNeurons

TWO = LIF(2.0, (1.0, 2.5))
SIGNS = [1, 1, -1, 1, -1]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def trains(samples=3, spikes=3, inputs=4, until=5.0):
    times = torch.rand(samples, inputs, spikes, generator=seeded(), dtype=torch.float64) * until
    times[0, 1] = math.inf
    return times.sort(-1).values


def normal(mean, std):
    return torch.distributions.Normal(torch.tensor(mean).double(), torch.tensor(std).double())


def uniform(low, high):
    return torch.distributions.Uniform(torch.tensor(low).double(), torch.tensor(high).double())


def inner(weight=None, delay=None, seed=1, **options):
    return connect.fixed_probability(5, 5, 0.6, weight=weight, delay=delay, generator=seeded(seed), **options)


def outer(weight=None, delay=None, seed=2):
    return connect.fixed_indegree(4, 5, 3, weight=weight, delay=delay, generator=seeded(seed))


ONE = LIF(2.0)


def recurrent(neuron=ONE, **options):
    make = {"window": 0.75, "window_spikes": 20, "dtype": torch.float64, "generator": seeded(5), "overflow": "drop"}
    return SpikingRecurrent(4, 5, 40, 12.0, neuron, **make | options)


def there(found):
    mask = torch.zeros(found.targets, found.sources, dtype=torch.bool)
    mask[found.target, found.source] = True
    return mask


def as_matrix(found, values, rest=0.0):
    matrix = values.new_full((found.targets, found.sources), rest)
    matrix[found.target, found.source] = values.detach()
    return matrix


def dense_of(layer, **options):
    """A layer with masks, and with the weights and delays of a sparse one."""
    given = layer.sparse
    rules = {"delay": layer.delay_rule, "signs": layer.signs, "receptor": layer.receptor, **options}
    if "weight" in given:
        rules["mask"] = there(given["weight"])
    if "recurrent_weight" in given:
        rules["recurrent_mask"] = there(given["recurrent_weight"])
    if isinstance(layer, SpikingRecurrent):
        if "recurrent_weight" not in given:
            rules["recurrent_mask"] = layer.recurrent_connections
        names = ("recurrent_delay", "recurrent_signs", "recurrent_receptor", "max_weight_grad")
        twin = recurrent(layer.initial_neuron, **rules, **{x: getattr(layer, x) for x in names})
    elif isinstance(layer, SpikeTrains):
        twin = SpikeTrains(4, 5, layer.max_spikes, layer.initial_neuron, dtype=torch.float64, overflow="drop", **rules)
    else:
        twin = SpikingLinear(4, 5, layer.initial_neuron, dtype=torch.float64, **rules)
    with torch.no_grad():
        for name, found in given.items():
            getattr(twin, name).copy_(as_matrix(found, getattr(layer, name)))
        for name, weight in layer.named_parameters():
            if name.endswith("weight") and name not in given:
                getattr(twin, name).copy_(weight)
        if layer.delay_raw is not None:
            twin.delay_raw.copy_(as_matrix(given["weight"], layer.delay_raw))
        if getattr(layer, "recurrent_delays", None) is not None:
            raw = layer.recurrent_delays.delay_raw
            twin.recurrent_delays.delay_raw.copy_(as_matrix(given["recurrent_weight"], raw))
    return twin


SOME, WEAK = normal(0.7, 0.4), normal(0.1, 0.5)
CASES = {
    "recurrent": lambda: recurrent(recurrent=inner(WEAK), weight_mean=0.6, weight_std=0.4),
    "inputs": lambda: recurrent(synapses=outer(SOME), recurrent_mask=0.6, recurrent_std=0.5),
    "both": lambda: recurrent(recurrent=inner(WEAK), synapses=outer(SOME)),
    "drawn": lambda: recurrent(
        recurrent=inner(), synapses=outer(), weight_mean=0.6, weight_std=0.4, recurrent_mean=0.1, recurrent_std=0.5
    ),
    "delays": lambda: recurrent(recurrent=inner(WEAK, uniform(0.75, 3.0)), synapses=outer(SOME, uniform(0.0, 2.0))),
    "delays that learn": lambda: recurrent(
        recurrent=inner(WEAK, uniform(1.0, 2.5)), synapses=outer(SOME, uniform(0.1, 1.9)),
        recurrent_delay=DelayRule(scale=2.0), delay=DelayRule("clip", 2.0),
    ),
    "delays by a rule": lambda: recurrent(
        recurrent=inner(WEAK), synapses=outer(SOME), recurrent_delay=DelayRule(scale=2.0), delay=DelayRule(scale=2.0)
    ),
    "signs": lambda: recurrent(
        recurrent=inner(), synapses=outer(), weight_mean=0.9, weight_std=0.4, recurrent_mean=0.1, recurrent_std=0.5,
        signs=[1, 1, -1, 0], recurrent_signs=SIGNS, max_weight_grad=0.5,
    ),
    "receptors": lambda: recurrent(
        TWO, recurrent=inner(WEAK), synapses=outer(SOME), receptor=[0, 1, 0, 1], recurrent_receptor=[0, 0, 1, 0, 1]
    ),
    "receptors by sign": lambda: recurrent(TWO, recurrent=inner(WEAK), synapses=outer(SOME), receptor="sign"),
    "trains": lambda: SpikeTrains(
        4, 5, 20, LIF(2.0), synapses=outer(SOME, uniform(0.0, 2.0)), dtype=torch.float64, overflow="drop"
    ),
    "first spikes": lambda: SpikingLinear(4, 5, LIF(2.0), synapses=outer(SOME), delay=DelayRule(), dtype=torch.float64),
}  # fmt: skip


QUICK = ("inputs", "delays", "delays that learn", "delays by a rule", "signs", "trains", "first spikes")
CASE = pytest.mark.parametrize("case", [pytest.param(x, marks=[pytest.mark.slow] * (x not in QUICK)) for x in CASES])


def inputs_of(layer):
    return trains() if layer.takes_trains else trains()[..., 0].contiguous()


def of_synapses(layer, name, gradient):
    """Entries of a matrix at the synapses of a sparse layer."""
    key = {"delay_raw": "weight", "recurrent_delays.delay_raw": "recurrent_weight"}.get(name, name)
    if (found := layer.sparse.get(key)) is None:
        return gradient
    return gradient[found.target, found.source]


@CASE
def test_a_sparse_layer_is_one_with_a_mask(case):
    """The same spikes, gradients of weights, delays and times, membranes, pieces and gradients at observed spikes."""
    layer = CASES[case]()
    twin, observed = dense_of(layer), None
    for name, found in layer.sparse.items():
        assert getattr(layer, name).shape == (len(found),)
    for _ in range(2):
        results = []
        for one in (layer, twin):
            times = inputs_of(one).requires_grad_()
            spikes = one(times, observed)
            learnt = {name: x for name, x in one.named_parameters() if x.requires_grad}
            total = torch.where(spikes.isfinite(), spikes, 0.0).sin().sum()
            results.append(
                (
                    spikes,
                    dict(zip(["times", *learnt], torch.autograd.grad(total, [times, *learnt.values()]), strict=True)),
                )
            )
        (spikes, mine), (expected, theirs) = results
        torch.testing.assert_close(spikes, expected, rtol=1e-12, atol=1e-12)
        assert spikes.isfinite().sum() > 4
        assert mine.keys() == theirs.keys()
        for name, gradient in mine.items():
            assert bool(gradient.any())
            torch.testing.assert_close(gradient, of_synapses(layer, name, theirs[name]), rtol=1e-9, atol=1e-11)
        observed = spikes.detach() + 0.01
    if layer.takes_trains:
        at = torch.linspace(0.0, 8.0, 20, dtype=torch.float64)
        membranes = [one.voltages(inputs_of(one), at) for one in (layer, twin)]
        torch.testing.assert_close(*membranes, rtol=1e-9, atol=1e-11)
    if isinstance(layer, SpikingRecurrent):
        pieces = [one.proceed(trains(), 5.0) for one in (layer, twin)]
        (one, state), (two, other) = pieces
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
        later = [lif.proceed(trains(), 9.0, x)[0] for lif, x in ((layer, state), (twin, other))]
        torch.testing.assert_close(*later, rtol=1e-12, atol=1e-12)


@CASE
def test_states_and_copies(case):
    layer, times = CASES[case](), inputs_of(CASES[case]())
    expected = layer(times)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(copied(times), expected)
    layer.load_state_dict(layer.state_dict())
    other = CASES[case]()
    with torch.no_grad():
        for x in other.parameters():
            x.mul_(0.5)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(times), expected)
    assert str(layer) == str(other)
    layer.reset_parameters(seeded(5))
    for name, found in layer.sparse.items():
        if found.weight is not None:
            assert torch.equal(getattr(layer, name), found.weight)
    if case not in QUICK:  # there are kernels of their own for float32
        assert layer.to(torch.float32)(times.float()).dtype == torch.float32


def test_other_synapses_from_a_state():
    """A state brings its own; the layer's are not written into, as others share them."""
    mine, theirs = (connect.fixed_outdegree(4, 5, 3, weight=1.0, generator=seeded(k)) for k in range(2))
    before = mine.target.clone()
    assert not torch.equal(before, theirs.target)
    layer, other = (SpikeTrains(4, 5, 9, synapses=x, dtype=torch.float64, overflow="drop") for x in (mine, theirs))
    beside = SpikeTrains(4, 5, 9, synapses=mine, dtype=torch.float64, overflow="drop")
    expected = beside(trains())
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(trains()), other(trains()))
    assert torch.equal(layer._argument("synapses").target, theirs.target)
    assert torch.equal(mine.target, before)
    assert torch.equal(beside(trains()), expected)
    state = layer.state_dict()
    for name, x, message in [
        (
            "source",
            state["source"].flip(0),
            r"^weight: synapses of a state must be in order by source, then by target$",
        ),
        ("target", state["target"] + 3, r"^target must be from 0 to 4, got \d to \d$"),
        ("source", state["source"].double(), r"^source must be whole numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            layer.load_state_dict(state | {name: x})
    with pytest.raises(RuntimeError, match="size mismatch for source"):
        layer.load_state_dict(state | {"source": state["source"][:3]})
    assert torch.equal(layer(trains()), other(trains()))


@pytest.mark.parametrize("signs", [None, [1] * 80 + [-1] * 20], ids=["any", "signs"])
def test_usual_weights(signs):
    """Those of a mask with as many connections: most neurons fire at the start, also with balanced weights."""
    found = connect.fixed_indegree(100, 200, 20, generator=seeded())
    thin = SpikingLinear(100, 200, LIF(2.0), synapses=found, signs=signs, generator=seeded())
    masked = SpikingLinear(100, 200, LIF(2.0), mask=there(found), signs=signs, generator=seeded())
    sums = [x.synapses.sum(dim=1).mean().item() for x in (thin, masked)]
    assert sums[0] == pytest.approx(sums[1], rel=0.1)
    spread = [x.synapses[there(found)].std().item() for x in (thin, masked)]
    assert spread[0] == pytest.approx(spread[1], rel=0.1)
    times = 2 * torch.rand(5, 100, generator=seeded())
    assert thin(times).isfinite().double().mean() > 0.8
    layers = [SpikingLinear(100, 100, LIF(2.0), synapses=connect.fixed_indegree(100, 100, 20)) for _ in range(10)]
    network = Network(*layers)
    start_firing_(network, times, seeded())
    assert network(times).isfinite().double().mean() > 0.8
    rows = layers[3].synapses.sum(dim=1)
    assert rows.std() < 0.3 * rows.mean()  # balanced
    own = SpikingRecurrent(4, 200, 9, 4.0, recurrent=connect.fixed_indegree(200, 200, 20), generator=seeded())
    whole = SpikingRecurrent(4, 200, 9, 4.0, generator=seeded())
    assert (own.recurrent_weight.std() / whole.recurrent_weight.std()).item() == pytest.approx(math.sqrt(10), rel=0.1)


def test_signs_are_kept():
    layer = recurrent(recurrent=inner(), synapses=outer(), signs=[1, -1, 1, 0], recurrent_signs=SIGNS)
    side = torch.tensor(SIGNS)[layer.recurrent_source]
    assert bool((layer.recurrent_weight * side >= 0).all())
    with torch.no_grad():
        layer.recurrent_weight.mul_(-1)
        layer.weight.fill_(1.0)
    layer.project_()
    assert not bool(layer.recurrent_weight.any())
    assert torch.equal(layer.weight, torch.where(layer.source == 1, 0.0, 1.0).double())
    held = inner(torch.tensor(SIGNS).double()[inner().source])
    assert torch.equal(recurrent(recurrent=held, recurrent_signs=SIGNS).recurrent_weight, held.weight)


def test_delays_can_be_set():
    layer = CASES["delays by a rule"]()
    given = torch.linspace(1.0, 2.0, len(layer.recurrent_weight), dtype=torch.float64)
    layer.set_recurrent_delays_(given)
    torch.testing.assert_close(layer.own_delay[layer.recurrent_target, layer.recurrent_source], given)
    assert bool((layer.own_delay[~there(layer.recurrent)] == layer.window).all())
    layer.set_delays_(0.5)
    torch.testing.assert_close(layer.delay, there(layer.sparse["weight"]).double() * 0.5)
    fixed = CASES["delays"]()
    assert not {name for name, x in fixed.named_parameters() if x.requires_grad} - {"weight", "recurrent_weight"}
    given = fixed.recurrent.delay
    torch.testing.assert_close(fixed.own_delay[fixed.recurrent_target, fixed.recurrent_source], given)
    shortest = recurrent(recurrent=inner(delay=0.75))
    assert shortest.recurrent_delays is None
    single = recurrent(recurrent=inner(delay=torch.tensor(0.7)), window=0.7)  # in float32 it is less
    assert float(single.own_delay.min()) == 0.7


def test_jitter_is_that_of_synapses():
    layer = SpikeTrains(4, 5, 20, synapses=outer(SOME), delay=DelayRule(jitter=0.1), dtype=torch.float64)
    torch.manual_seed(0)
    delay = layer.delay_in_pass()
    torch.manual_seed(0)
    values = layer.delay_rule(layer.delay_raw)
    moved = torch.maximum(values + 0.1 * torch.randn_like(values), torch.zeros(1))
    assert torch.equal(delay[layer.target, layer.source], moved)
    assert bool((delay[~there(layer.sparse["weight"])] == 0).all())


@pytest.mark.slow  # it has kernels of its own to compile
def test_multapses_add_up():
    twice = outer(SOME) + outer(SOME)
    one = SpikeTrains(4, 5, 20, synapses=twice, dtype=torch.float64, overflow="drop")
    two = SpikeTrains(4, 5, 20, synapses=outer(SOME), dtype=torch.float64, overflow="drop")
    with torch.no_grad():
        two.weight.mul_(2)
    assert torch.equal(one(trains()), two(trains()))
    for layer in (one, two):
        layer(trains()).nan_to_num(posinf=0).sum().backward()
    torch.testing.assert_close(one.weight.grad, two.weight.grad.repeat_interleave(2))
    same = recurrent(recurrent=inner(WEAK, 1.5) + inner(WEAK, 1.5))
    assert same(trains()).isfinite().any()
    # the kernels take each on its own, and a matrix what is one number
    parts = [recurrent(recurrent=inner(x, 1.5) + inner(0.6 - x, 1.5), generator=seeded()) for x in (0.1, 0.3)]
    torch.testing.assert_close(parts[0](trains()), parts[1](trains()), rtol=0, atol=1e-12)
    cannot = r"of one pair compute as one here: with delays that learn or differ, or with receptors by both signs"
    for layer in (
        recurrent(recurrent=inner(WEAK, 1.5) + inner(WEAK, 2.5)),
        recurrent(recurrent=inner(WEAK, 1.5) + inner(WEAK, 1.5), recurrent_delay=DelayRule(scale=2.0)),
        recurrent(TWO, recurrent=inner(1.0) + inner(-0.5), receptor="sign"),
    ):
        assert layer(trains()).isfinite().any()
        layer.backend = "reference"
        with pytest.raises(ValueError, match=cannot):
            layer(trains())
    alike = recurrent(TWO, recurrent=inner(1.0) + inner(0.5), receptor="sign")
    assert alike(trains()).isfinite().any()


def test_a_source_for_each_neuron():
    """Poisson sources, one for each neuron, beside sparse inputs."""
    found = outer(SOME).at(0, 0, 9, 5) + connect.one_to_one(5, weight=1.5).at(4)
    network = Network(
        fs.PoissonSpikes(5, 0.5, 6.0), SpikingRecurrent(9, 5, 40, 12.0, LIF(2.0), synapses=found, dtype=torch.float64)
    )
    record = network.train().record(trains())
    assert record.output.isfinite().sum() > 10
    record.output.nan_to_num(posinf=0).sum().backward()
    assert network[1].weight.grad.shape == (len(found),)
    assert bool(network[1].weight.grad[network[1].source >= 4].any())


@pytest.mark.parametrize(
    "sparse", [pytest.param(True, id="sparse", marks=pytest.mark.slow), pytest.param(False, id="mask")]
)
def test_costs_count_what_exists(sparse):
    given = {"recurrent": inner(WEAK), "synapses": outer(SOME)}
    layer = recurrent(**given)
    layer = layer if sparse else dense_of(layer)
    network = Network(layer, fs.IntegralReadout(5, 2, dtype=torch.float64))
    record = network.record(trains())
    sent, own = (x.isfinite().sum(dim=(0, 2)).double() / 3 for x in (record.inputs, record.layers[0]))
    fan = [torch.bincount(x.source, minlength=x.sources).double() for x in (given["synapses"], given["recurrent"])]
    costs = layer_costs(network, record)
    assert costs[1].events == pytest.approx(float(sent @ fan[0] + own @ fan[1]))
    assert costs[2].events == pytest.approx(2 * float(own.sum()))


@pytest.mark.slow  # it has kernels of its own to compile
def test_substrates_and_figures():
    """Devices that are simulated have the weights that there are, rounded; the rest refuses in one line."""
    network = Network(CASES["both"]())
    twin = Network(dense_of(network[0]))
    for substrate in (fs.substrates.Exact(weight_bits=5), fs.substrates.Noisy(weight_scale=8.0)):
        outputs = [substrate.open(x).record(x, trains()).output for x in (network, twin)]
        torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
    outputs = [fs.substrates.Integrator(step=0.05).open(x).record(x, trains()).output for x in (network, twin)]
    assert torch.equal(*outputs)
    with pytest.raises(ValueError, match=r"sparse synapses; give weights as a matrix, with mask and recurrent_mask"):
        fs.substrates.MockBss2().open(network)
    found = named_parameters(network)
    assert found["weights, hidden" if "weights, hidden" in found else "weights, output"].shape == (15,)


def test_trained():
    """Sections cannot hold synapses; all else of a training works, with several networks side by side as well."""
    found = connect.fixed_indegree(9, 12, 4, generator=seeded())
    signs = [1, -1, 1, 1, 1, 1, 1, -1, 1]
    networks = [
        Network(
            SpikingLinear(9, 12, LIF(2.0), synapses=found, signs=signs, generator=seeded(k)),
            SpikingLinear(12, 3, LIF(2.0), generator=seeded(k)),
        )
        for k in range(2)
    ]
    starts = copy.deepcopy(networks)
    data = fs.data.DATASETS["bars"](train=30, validation=6, test=6)
    optimizers = [torch.optim.Adam(x.parameters(), lr=0.05) for x in networks]
    silent = SilentNeurons(limits=[0.0, 1.0], increment=0.3, skip_step=False)
    trainer = fs.Trainer(networks, fs.losses.TimeCrossEntropy(), optimizers, silent=silent)
    trainer.fit(data.train, data.validation, epochs=2, batch_size=10, progress_bar=False)
    for network, start in zip(networks, starts, strict=True):
        assert not torch.equal(network[0].weight, start[0].weight)
        assert bool((network[0].weight * torch.tensor(signs)[found.source] >= 0).all())
    assert fs.config.describe(trainer).network[0].kind == "custom"
    members = copy.deepcopy(networks)
    times = 2 * torch.rand(5, 9, generator=seeded())
    assert torch.equal(Ensemble(members)(times), torch.stack([x(times) for x in networks]))
    raised = copy.deepcopy(members[0][0].weight)
    SilentNeurons(limits=0.0, increment=0.5, exponential=False).raise_layer_(members[0], 0, torch.arange(12.0) % 2)
    assert torch.equal(members[0][0].weight, raised + 0.5 * (found.target % 2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's own parts
@pytest.mark.parametrize("case", ["both", "delays that learn", "receptors", "trains"])
def test_compiled_and_exported(case):
    layer = CASES[case]().eval()
    expected = layer(trains())
    assert torch.equal(torch.compile(layer, backend="aot_eager")(trains()), expected)
    with torch.no_grad():
        program = torch.export.export(layer, (trains(),))
        assert torch.equal(program.module()(trains()), expected)


def test_readouts():
    found = outer(SOME)
    readout = fs.IntegralReadout(4, 5, synapses=found, dtype=torch.float64)
    twin = fs.IntegralReadout(4, 5, mask=there(found), dtype=torch.float64)
    with torch.no_grad():
        twin.weight.copy_(as_matrix(found, found.weight))
    assert torch.equal(readout(trains()), twin(trains()))
    assert fs.MaximumReadout(4, 5, synapses=outer()).weight.shape == (15,)


def test_what_is_too_large_for_a_matrix():
    """Such layers can be made, drawn, saved and printed, as a kernel needs no matrix."""
    found = connect.fixed_outdegree(5000, 5000, 2, delay=uniform(1.0, 2.0), generator=seeded())
    layer = SpikingRecurrent(2, 5000, 9, 5.0, recurrent=found, recurrent_signs=[1] * 5000, backend="reference")
    layer.load_state_dict(copy.deepcopy(layer).state_dict())
    assert "10000 synapses" in str(layer)
    most = synapses.MOST_DENSE
    message = rf"^Synapses\(.*\) compute as a matrix here, of at most {most} weights, and would take 0.1 GB for 10000"
    with pytest.raises(ValueError, match=message):
        layer(torch.rand(1, 2))


ERRORS = {
    "mask": (lambda: recurrent(synapses=outer(), mask=0.5), r"^synapses and mask exclude each other$"),
    "own mask": (
        lambda: recurrent(recurrent=inner(), recurrent_mask=0.5),
        r"^recurrent and recurrent_mask exclude each other$",
    ),
    "sizes": (
        lambda: recurrent(recurrent=outer()),
        r"^recurrent must fit weights \(5, 5\), \(targets, sources\), got Synapses\(4 sources, 5 targets, 15 s",
    ),
    "start": (
        lambda: recurrent(synapses=outer(1.0), weight_mean=0.5, weight_std=0.1),
        r"^synapses and weight_std exclude each other: Syn",
    ),
    "own start": (
        lambda: recurrent(recurrent=inner(1.0), recurrent_std=0.1),
        r"^recurrent and recurrent_std exclude each other: Syn",
    ),
    "signs": (
        lambda: recurrent(synapses=outer(1.0), signs=[1, 1, -1, 1]),
        r"^synapses has weights with other signs than signs$",
    ),
    "own signs": (
        lambda: recurrent(recurrent=inner(1.0), recurrent_signs=SIGNS),
        r"^recurrent has weights .* than recurrent_signs$",
    ),
    "window": (
        lambda: recurrent(recurrent=inner(delay=0.5)),
        r"^delays of recurrent must be >= window=0.75, got 0.5: lower window$",
    ),
    "bounds": (
        lambda: recurrent(recurrent=inner(delay=5.0), recurrent_delay=DelayRule()),
        r"^delays must be within scale and shift of ",
    ),
    "matrix": (
        lambda: recurrent(recurrent=torch.ones(5, 5)),
        r"^sparse weights of 5 neurons must be Synapses of fs.connect, got Tensor: from_sparse takes a matrix, ",
    ),
    "input matrix": (
        lambda: recurrent(synapses=[outer()]),
        r"^sparse weights \(5, 4\) must be Synapses .*, got list: ",
    ),
    "readout": (lambda: fs.IntegralReadout(4, 5, synapses=outer(delay=1.0)), r"has no synaptic delays, got Synapses"),
    "conv": (
        lambda: fs.SpikingConv2d((2, 3, 3), 5, 2, synapses=outer()),
        r"^synapses must fit weights \(5, 2, 2, 2\), ",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    make, message = ERRORS[name]
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("masks", ["both", "recurrent"])
@pytest.mark.parametrize("delays", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("neuron", [ONE, pytest.param(TWO, marks=pytest.mark.slow)], ids=["one", "two"])
def test_large_masks_compute_as_synapses(monkeypatch, neuron, delays, masks):
    options = {"recurrent_mask": 0.5, "mask": 0.6 if masks == "both" else None, "recurrent_std": 1.0}
    if delays:
        rule = DelayRule("sigmoid", 1.0, std=0.5)
        options |= {"delay": rule, "recurrent_delay": rule}
    if neuron is TWO:
        options |= {"receptor": [0, 1, 0, 1], "recurrent_receptor": [0, 0, 1, 1, 0]}
    layer = recurrent(neuron, **options)

    def result():
        layer.zero_grad()
        found = layer(trains())
        torch.where(found.isfinite(), found, 0.0).square().sum().backward()
        return found.detach(), [x.grad for x in layer.parameters()]

    expected, gradients = result()
    assert layer._structure() is None
    monkeypatch.setattr(rows, "MANY", 5)
    monkeypatch.setattr(rows, "FEW", 0.9)
    layer.recurrent_connections.copy_(layer.recurrent_connections.clone())  # which tells that it may have changed
    assert layer._structure() is not None
    found, others = result()
    assert torch.isfinite(found).sum() > 20
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, gradient, rtol=1e-8, atol=1e-8)
    layer.recurrent_connections.fill_(False)
    changed, (*_, gradient) = result()
    assert not torch.equal(changed, found)
    assert not layer.recurrent_weight.grad.any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_and_delays_that_a_training_ruined_are_one_line(value):
    for name, line in (
        ("recurrent_weight", "weight must be finite, got"),
        ("recurrent_delays.delay_raw", "delay must"),
    ):
        layer = recurrent(recurrent=inner(0.5, uniform(0.75, 2.0)), recurrent_delay=DelayRule("clip", 9.0))
        layer.get_parameter(name).data[3] = value
        if name == "recurrent_weight" or math.isnan(value):  # a delay is clipped
            with pytest.raises(ValueError, match=f"^{line}") as caught:
                layer(trains())
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("empty", ["inputs", *(pytest.param(x, marks=pytest.mark.slow) for x in ("recurrent", "both"))])
@pytest.mark.parametrize("delay", [pytest.param(None, marks=pytest.mark.slow), 1.5])
def test_without_synapses(empty, delay):
    """Also neurons that none reaches: as if there were only the others, with gradients of no elements."""
    nothing = {"generator": seeded(), "weight": 0.5, "delay": delay}
    own = inner(0.5, delay) if empty == "inputs" else connect.fixed_probability(5, 5, 0.0, **nothing)
    given = outer(0.9) if empty == "recurrent" else connect.fixed_probability(4, 5, 0.0, generator=seeded(), weight=0.5)
    layer = recurrent(recurrent=own, synapses=given)
    found = layer(trains())
    found[found.isfinite()].sum().backward()
    assert layer.recurrent_weight.grad.shape == (len(own),)
    assert layer.weight.grad.shape == (len(given),)
    if empty == "recurrent":
        alone = SpikeTrains(4, 5, 40, ONE, until=12.0, synapses=given, overflow="drop", dtype=torch.float64)
        torch.testing.assert_close(found, alone(trains()))
    else:
        assert not bool(found.isfinite().any())


def test_layers_of_many_neurons_are_printed_in_few_words():
    """So are errors about lists with a number for each of them."""
    signs = [1] * 800 + [-1] * 200
    own = connect.one_to_one(1000)
    layer = SpikingRecurrent(
        4, 1000, 9, 5.0, TWO, receptor=(0, 1, 0, 1), recurrent=own, recurrent_signs=signs, recurrent_receptor=[0] * 1000
    )
    assert "recurrent_signs=(1, 1, 1, ..., -1, -1, -1)" in str(layer)
    assert "receptor=(0, 1, 0, 1)" in str(layer)
    assert len(str(layer)) < 800
    for wrong in ({"recurrent_signs": [2, *signs[1:]]}, {"recurrent_receptor": [7] * 1000}):
        with pytest.raises(ValueError, match=r"\.\.\.") as caught:
            SpikingRecurrent(4, 1000, 9, 5.0, TWO, receptor=(0, 1, 0, 1), **{"recurrent_receptor": [0] * 1000} | wrong)
        assert len(str(caught.value)) < 300
