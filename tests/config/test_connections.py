"""Sections for sparse synapses: the rules of fs.connect, written down."""

import pytest
import torch

import firstspike as fs
from firstspike import connect
from firstspike.config import ConfigError, build, build_data, describe, load_config
from firstspike.config.connections import CONNECTIONS, DISTRIBUTIONS
from firstspike.runs import Run
from firstspike.seeding import generator

EXCITES = {
    "kind": "fixed_probability", "probability": 0.1, "source": [0, 40],
    "weight": {"kind": "uniform", "low": 0.1, "high": 0.2}, "delay": 0.5,
}  # fmt: skip
INHIBITS = {
    "kind": "fixed_indegree", "number": 3, "source": [40, 50], "target": [0, 40], "weight": -0.5,
    "delay": {"kind": "uniform", "low": 0.5, "high": 2.0},
}  # fmt: skip
CHAIN = {"kind": "one_to_one", "number": 10, "source": [0, 10], "target": [40, 50], "weight": 0.1, "delay": 0.5}
OUTER = {"kind": "fixed_indegree", "number": 2, "weight": {"kind": "normal", "loc": 0.8, "scale": 0.2}}


POPULATIONS = [{"source": [0, 40], "sign": 1}, {"source": [40, 50], "sign": -1}]


def config(recurrent=(EXCITES, INHIBITS, CHAIN), synapses=OUTER, signs=POPULATIONS, **training):
    given = {} if recurrent is None else {"recurrent": recurrent if isinstance(recurrent, dict) else list(recurrent)}
    given |= {} if synapses is None else {"synapses": synapses}
    layer = {"kind": "recurrent", "out_features": 50, "max_spikes": 20, "duration": 12.0, "window": 0.5}
    return load_config({
        "data": {"kind": "bars", "train": 60, "validation": 20, "test": 20},
        "network": [
            layer | given | {"overflow": "drop", "recurrent_signs": signs},
            {"kind": "integral", "out_features": 3},
        ],
        "loss": {"kind": "readout_cross_entropy"},
        "training": {"epochs": 2, "batch_size": 20} | training,
    })  # fmt: skip


def layer_of(given):
    return build(given, build_data(given)).network[0]


@pytest.mark.slow
def test_it_is_only_a_way_to_write_the_python_lines_down():
    found = layer_of(config(seed=3))
    draw = generator(3, "weights")
    uniform, normal = torch.distributions.Uniform, torch.distributions.Normal
    outer = connect.fixed_indegree(9, 50, 2, weight=normal(0.8, 0.2), generator=draw)
    inner = connect.fixed_probability(40, 50, 0.1, weight=uniform(0.1, 0.2), delay=0.5, generator=draw).at(0, 0, 50, 50)
    inner += connect.fixed_indegree(
        10, 40, 3, weight=-0.5, delay=uniform(0.5, 2.0), generator=draw
    ).at(40, 0, 50, 50)  # fmt: skip
    inner += connect.one_to_one(10, weight=0.1, delay=0.5).at(0, 40, 50, 50)
    for name, expected in (("weight", outer), ("recurrent_weight", inner)):
        assert torch.equal(found.sparse[name].source, expected.source)
        assert torch.equal(found.sparse[name].target, expected.target)
        assert torch.equal(getattr(found, name), expected.weight.float())
    assert torch.allclose(found.delays_of_synapses, inner.delay.float())


@pytest.mark.parametrize("kind", CONNECTIONS)
def test_every_rule_and_back(kind):
    more = {"fixed_probability": {"probability": 0.2}, "one_to_one": {"number": 40}, "all_to_all": {"autapses": False}}
    rule = {"kind": kind, "weight": 0.1} | more.get(kind, {"number": 2, "multapses": True})
    given = config(rule | {"source": [0, 40], "target": [0, 40]})
    trainer = build(given, build_data(given))
    found = trainer.network[0].recurrent
    assert len(found) > 30
    assert int(found.source.max()) < 40
    assert (found.sources, found.targets) == (50, 50)
    described = describe(trainer).model_dump()["network"]
    assert described[0]["recurrent"] == given.model_dump()["network"][0]["recurrent"]
    assert described[0]["synapses"] == given.model_dump()["network"][0]["synapses"]


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_every_distribution(kind):
    scales = {"low": 0.2, "high": 0.4} if kind == "uniform" else {"loc": 0.4, "scale": 0.05}
    given = config({"kind": "fixed_indegree", "number": 3, "source": [0, 40], "weight": {"kind": kind} | scales})
    assert len(layer_of(given).recurrent_weight.unique()) > 50


def test_signs_of_populations_and_back():
    inner = {"kind": "fixed_indegree", "number": 3, "source": [0, 40], "weight": 0.1}
    given = config(inner)
    trainer = build(given, build_data(given))
    layer = trainer.network[0]
    assert layer.recurrent_signs == (1,) * 40 + (-1,) * 10
    with torch.no_grad():
        layer.recurrent_weight.neg_()
    layer.project_()
    assert not layer.recurrent_weight.any()
    assert describe(trainer).network[0].recurrent_signs == given.network[0].recurrent_signs
    listed = config(inner, signs=[1] * 40 + [-1] * 10)
    assert layer_of(listed).recurrent_signs == layer.recurrent_signs
    assert layer_of(config(inner, signs=POPULATIONS[1:])).recurrent_signs == (0,) * 40 + (-1,) * 10
    short = load_config({
        "data": {"kind": "bars", "train": 60, "validation": 20, "test": 20},
        "network": [{"kind": "lif", "out_features": 3, "signs": [{"source": [2, 9], "sign": 1}]}],
        "loss": {"kind": "cross_entropy"},
        "training": {"epochs": 1},
    })  # fmt: skip
    assert layer_of(short).signs == (0, 0, *[1] * 7)


WRONG_SIGNS = {
    "recurrent_signs[1].source: expected the first and the one past the last of 50, got 40, 51": [40, 51],
    "recurrent_signs[1].source: some of the neurons 39 to 49 have the other sign already": [39, 50],
    "recurrent_signs[1].source[1]: should be a valid integer": [40, 0.5],
}


@pytest.mark.parametrize("message", WRONG_SIGNS)
def test_errors_of_signs_are_one_line_with_their_place(message):
    with pytest.raises(ConfigError) as raised:
        config(signs=[POPULATIONS[0], POPULATIONS[1] | {"source": WRONG_SIGNS[message]}])
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 2
    for wrong in (3, "EI", {"source": [0, 40], "sign": 1}, [{"source": [0, 40], "sign": 2}], [1, {}]):
        with pytest.raises(ConfigError, match="recurrent_signs"):
            config(signs=wrong)


def test_inputs_of_layers_that_spike_once():
    given = load_config({
        "data": {"kind": "bars", "train": 60, "validation": 20, "test": 20},
        "network": [
            {"kind": "lif", "out_features": 20, "synapses": {"kind": "fixed_indegree", "number": 4}},
            {"kind": "lif", "out_features": 3},
        ],
        "loss": {"kind": "cross_entropy"},
        "training": {"epochs": 1},
    })  # fmt: skip
    assert layer_of(given).weight.shape == (80,)


def test_synapses_that_were_made_in_python_have_no_section():
    inner = connect.fixed_indegree(5, 5, 2, weight=0.1)
    net = fs.Network(fs.SpikingRecurrent(9, 5, 9, 9.0, recurrent=inner), fs.IntegralReadout(5, 3))
    trainer = fs.Trainer(net, fs.losses.ReadoutCrossEntropy(), torch.optim.Adam(net.parameters()))
    assert describe(trainer).network[0].kind == "custom"


@pytest.mark.slow
def test_a_run_trains_resumes_and_opens(tmp_path):
    whole = Run.start(tmp_path / "whole", config(epochs=3), progress_bar=False)
    part = Run.start(tmp_path / "part", config(epochs=2), progress_bar=False)
    again = part.resume(epochs=3, progress_bar=False)
    for name, x in whole.network.state_dict().items():
        assert torch.equal(x, again.network.state_dict()[name]), name
    opened = Run(tmp_path / "whole")
    assert torch.equal(opened.network[0].recurrent_source, whole.network[0].recurrent_source)
    assert opened.config.network[0].recurrent == config().network[0].recurrent


WRONG = {
    "number must be at most 10, as many as there are to choose from, got 99": {"number": 99},
    "source: expected the first and the one past the last of 50, got 5, 3": {"source": [5, 3]},
    "source: expected the first and the one past the last of 50, got 0, 60": {"source": [0, 60]},
    "source[0]: should be greater than or equal to 0, got -1": {"source": [-1, 3]},
    "kind: expected one of 'fixed_probability'": {"kind": "fixed_inegree"},
    "weight: low must be below high, got 2 and 1": {"weight": {"kind": "uniform", "low": 2, "high": 1}},
    "weight.scale: should be greater than 0, got -1": {"weight": {"kind": "normal", "loc": 0, "scale": -1}},
    "weight: should be a valid number, unable to parse string as a number, got 'big'": {"weight": "big"},
    "numbr: unknown key, did you mean number?": {"numbr": 3},
    "about 4e+10 synapses, a config draws at most 100000000: hand the network over": {"number": 10**9},
}


@pytest.mark.parametrize("message", WRONG)
def test_errors_are_one_line_with_their_place(message):
    with pytest.raises(ConfigError) as raised:
        config([EXCITES, INHIBITS | WRONG[message]])
    place = "network[0].recurrent[1]"
    assert any(f"{place}{by}{message}" in str(raised.value) for by in (".", ": "))
    assert len(str(raised.value).splitlines()) == 2


def test_errors_of_several_rules_together():
    with pytest.raises(ConfigError, match=r"network\[0\]: delays of recurrent must be >= window=0\.5, got 0\.1"):
        config(EXCITES | {"delay": 0.1})
    with pytest.raises(ConfigError, match=r"only one has a delay"):
        config([EXCITES, {"kind": "all_to_all", "weight": -0.1, "source": [40, 50]}])
    with pytest.raises(ConfigError, match="number must be that of each, 40 sources and 50 targets, got 40"):
        config({"kind": "one_to_one", "number": 40, "source": [0, 40]})
