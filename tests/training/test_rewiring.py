"""Rewiring: dead synapses move, as many as before, and weights, delays and states of the optimiser go with them."""

import math

import pytest
import torch

import firstspike as fs
from firstspike import connect
from firstspike.training import Interrupted
from firstspike.training.rewiring import Rewiring

SIGNS = [1] * 8 + [-1] * 4


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def data(samples=24):
    times = torch.rand(samples, 6, 2, generator=seeded()) * 6
    return fs.data.SpikeData(times.sort(-1).values, torch.arange(samples) % 2, ("a", "b"))


def network(recurrent_signs=SIGNS, delay=None, **options):
    draw = seeded(1)
    uniform = torch.distributions.Uniform(0.02, 0.3)
    inner = connect.fixed_indegree(12, 12, 4, weight=uniform, delay=delay, autapses=False, generator=draw)
    if recurrent_signs is not None:
        inner = inner.with_values(weight=inner.weight * torch.tensor(recurrent_signs)[inner.source])
    layer = fs.SpikingRecurrent(
        6, 12, 30, 12.0, fs.LIF(2.0), window=0.5, overflow="drop", recurrent=inner, recurrent_signs=recurrent_signs,
        synapses=connect.fixed_indegree(6, 12, 3, weight=uniform, generator=draw), signs=[1] * 6, **options,
    )  # fmt: skip
    return fs.Network(layer, fs.IntegralReadout(12, 2, generator=draw))


def trainer(net=None, lr=0.03, **options):
    net = network() if net is None else net
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    return fs.Trainer(net, fs.losses.ReadoutCrossEntropy(), optimizer, silent=fs.SilentNeurons(limits=1), **options)


def train(made, *callbacks, epochs=4, **options):
    return made.fit(data(), epochs=epochs, batch_size=6, callbacks=callbacks, progress_bar=False, **options)


def pairs(found):
    return set(zip(found.source.tolist(), found.target.tolist(), strict=True))


class Looks(fs.Callback):
    """Checks a training after each batch, behind the rewiring."""

    essential = True

    def __init__(self, check):
        self.check = check

    def on_batch_end(self, fit):
        self.check(fit)


@pytest.mark.parametrize("signs", [SIGNS, None, [1] * 4 + [0] * 4 + [-1] * 4])
def test_as_many_synapses_of_each_sign_in_order_and_no_pair_twice(signs):
    made = trainer(network(signs))
    layer, rewiring = made.network[0], fs.Rewiring(decay=0.002)
    before = dict(layer.sparse)
    start = {name: int((getattr(layer, name) < 0).sum()) for name in before}

    def check(_):
        for name, old in before.items():
            found, weight, side = layer.sparse[name], getattr(layer, name), rewiring.sides[f"0.{name}"]
            assert len(found) == len(old)
            assert not found.multapses
            assert int((side < 0).sum()) == start[name]
            assert bool((side * weight > 0).all())
            assert name == "weight" or not bool((found.source == found.target).any())
            ends = [getattr(layer, x) for x in (name.replace("weight", "source"), name.replace("weight", "target"))]
            assert torch.equal(ends[0], found.source)
            assert torch.equal(ends[1], found.target)
            of_source = layer._signed[name]
            if of_source is not None:
                assert bool((torch.tensor(of_source)[found.source] * side >= 0).all())

    train(made, rewiring, Looks(check))
    assert all(len(pairs(layer.sparse[name]) - pairs(old)) > 2 for name, old in before.items())


@pytest.mark.slow
def test_what_stays_keeps_its_weight_delay_and_state_of_the_optimiser_and_what_moves_is_new():
    delay = torch.distributions.Uniform(0.5, 2.0)
    made = trainer(network(delay=delay, recurrent_delay=fs.DelayRule("clip", scale=3.0)), weight_average=0.9)
    layer, member = made.network[0], made.members[0]
    train(made, epochs=1)
    parameters = {"recurrent_weight": layer.recurrent_weight, "delay_raw": layer.recurrent_delays.delay_raw}
    with torch.no_grad():
        layer.recurrent_weight[::5] = 0.0
    dead = layer.recurrent_weight == 0

    def seen():
        of = {name: [p.detach().clone(), *member.optimizer.state[p].values()] for name, p in parameters.items()}
        averages = member.average.averages
        of["average"] = [averages["0.recurrent_weight"], averages["0.recurrent_delays.delay_raw"]]
        keys = (layer.recurrent_source * 12 + layer.recurrent_target).tolist()
        lists = [x.tolist() for each in of.values() for x in each if x.shape == dead.shape]
        return dict(zip(keys, zip(*lists, strict=True), strict=True))

    before, gone = seen(), (layer.recurrent_source * 12 + layer.recurrent_target)[dead].tolist()
    fit = type("Fit", (), {"trainer": made, "batch": 1, "epoch": 0, "seeds": (0,)})()
    rewiring = Rewiring()
    rewiring.on_fit_start(fit)
    rewiring.on_batch_end(fit)
    after = seen()
    assert len(after) == len(before)
    assert not set(gone) & set(after)
    stayed = [key for key in before if key not in gone]
    assert all(before[key] == after[key] for key in stayed)
    new = [after[key] for key in after if key not in before]
    assert len(new) == len(gone)
    tiny = torch.finfo(torch.float32).tiny
    # weight, its two moments, delay, its two moments, the averages of both
    assert {tuple(map(abs, x[:3])) for x in new} == {(tiny, 0.0, 0.0)}
    assert sorted(x[3] for x in new) == sorted(before[key][3] for key in gone)
    assert all(x[4:6] == (0.0, 0.0) and abs(x[6]) == tiny for x in new)


def test_the_layer_computes_with_the_new_synapses():
    made = trainer(network())
    train(made, fs.Rewiring(decay=0.02), epochs=3)
    layer = made.network[0]
    twin = network()[0]
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(layer(data().times), twin(data().times))
    assert pairs(twin.recurrent) == pairs(layer.recurrent) != pairs(network()[0].recurrent)


@pytest.mark.parametrize("batches", [4, 10])
def test_a_resumed_training_continues_bit_for_bit(tmp_path, batches):
    parts = {"epochs": 4, "seed": 3}
    whole = trainer()
    train(whole, fs.Rewiring(2, 0.02), folder=tmp_path / "whole", **parts)
    left = iter(range(batches))
    with pytest.raises(Interrupted):
        train(trainer(), fs.Rewiring(2, 0.02), folder=tmp_path / "cut", stop=lambda: next(left, None) is None, **parts)
    again = trainer()
    train(again, fs.Rewiring(2, 0.02), folder=tmp_path / "cut", resume=True, **parts)
    for name, x in whole.network.state_dict().items():
        assert torch.equal(x, again.network.state_dict()[name]), name
    assert pairs(again.network[0].recurrent) != pairs(network()[0].recurrent)


def test_it_follows_from_the_seed():
    found = []
    for seed in (0, 0, 1):
        made = trainer()
        train(made, fs.Rewiring(decay=0.02), seed=seed, epochs=2)
        found.append(pairs(made.network[0].recurrent))
    assert found[0] == found[1] != found[2]


def test_the_best_weights_come_with_their_synapses():
    made = trainer(lr=0.1)
    stopping = fs.EarlyStopping(patience=2, metric="train_loss", min_delta=100, restore_best=True)
    train(made, fs.Rewiring(decay=0.02), stopping, epochs=6)
    best, layer = made.members[0].best, made.network[0]
    assert torch.equal(best["0.recurrent_source"], layer.recurrent_source)
    assert torch.equal(best["0.recurrent_weight"], layer.recurrent_weight)
    assert torch.equal(layer.recurrent.target, layer.recurrent_target)


def test_where_all_pairs_are_taken_nothing_moves():
    inner = connect.all_to_all(3, 3, weight=0.1, autapses=False)
    layer = fs.SpikingRecurrent(6, 3, 9, 9.0, window=0.5, overflow="drop", recurrent=inner, recurrent_signs=[1, 1, 1])
    made = trainer(fs.Network(layer, fs.IntegralReadout(3, 2)), lr=0.3)
    train(made, fs.Rewiring(decay=0.05), epochs=2)
    assert pairs(layer.recurrent) == pairs(inner)
    assert bool((layer.recurrent_weight > 0).all())


def test_autapses_only_if_asked():
    def diagonal(**options):
        made = trainer(lr=0.1)
        train(made, fs.Rewiring(decay=0.05, **options), epochs=6)
        found = made.network[0].recurrent
        return int((found.source == found.target).sum())

    assert diagonal() == 0
    assert diagonal(autapses=True) > 0


def test_what_it_cannot_take():
    net = fs.Network(fs.LIFSpikeTrains(6, 5, 30), fs.IntegralReadout(5, 2))
    with pytest.raises(ValueError, match=r"needs a layer with synapses of fs\.connect; those of a mask cannot move"):
        train(trainer(net), fs.Rewiring())
    networks = [network(), network()]
    optimizers = [torch.optim.Adam(x.parameters()) for x in networks]
    made = fs.Trainer(networks, fs.losses.ReadoutCrossEntropy(), optimizers)
    with pytest.raises(ValueError, match="one network at a time, got 2"):
        train(made, fs.Rewiring())
    with pytest.raises(ValueError, match="every must be > 0, got 0"):
        fs.Rewiring(0)
    with pytest.raises(ValueError, match="decay must be >= 0 and finite"):
        fs.Rewiring(decay=math.inf)
