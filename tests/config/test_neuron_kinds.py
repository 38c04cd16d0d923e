"""Configs of neurons from equations."""

import pytest
import torch
import yaml

import firstspike as fs
from firstspike import Neuron
from firstspike.config import ConfigError, build_data, load_config
from firstspike.config.builder import build_network
from firstspike.config.sections import NEURONS, described_neuron
from firstspike.neurons import QIF, AdEx

TEXT = {
    "kind": "equations",
    "equations": "dv/dt = (v*(v - 1) + i)/tau_m\ndi/dt = -i/tau_s",
    "threshold": "v > 10",
    "reset": "v = v_r",
    "receptors": ["i"],
    "start": {"v": "0.1*v_r"},
    "refractory": 0.2,
    "parameters": {"tau_m": 1.0, "tau_s": 0.5, "v_r": -10.0},
}


def config(neuron, **layer):
    return {
        "data": {"kind": "yin_yang", "train": 20, "validation": 10, "test": 10},
        "neuron": neuron,
        "network": [{"kind": "lif", "out_features": 5, **layer}, {"kind": "lif", "out_features": 3, **layer}],
        "loss": {"kind": "cross_entropy", "xi": 0.2},
        "training": {"epochs": 1, "seed": 1},
    }


def neuron_of(raw):
    return load_config(config(raw, until=6.0)).neuron.build()


@pytest.mark.parametrize("kind", sorted(set(NEURONS) - {"lif", "adaptive_lif", "conductance_lif", "equations"}))
def test_kinds_are_read_and_written(kind):
    found = load_config(config({"kind": kind}, until=6.0))
    assert found.neuron.build() == NEURONS[kind]()
    assert load_config(yaml.safe_load(found.to_yaml())) == found
    assert found.neuron.time_unit == NEURONS[kind]().tau_syn


def test_a_unit_is_read_and_written():
    """For all kinds; AdEx and Izhikevich are in ms unless something else is said."""
    for kind in sorted(set(NEURONS) - {"conductance_lif"}):
        raw = TEXT if kind == "equations" else {"kind": kind}
        plain = load_config(config(raw, until=6.0)).neuron
        assert plain.unit == ("ms" if kind in ("adex", "izhikevich") else None)
        found = load_config(config(raw | {"unit": "s"}, until=6.0))
        assert found.neuron.build().unit == "s"
        assert found.neuron.build() == plain.build()
        assert load_config(yaml.safe_load(found.to_yaml())) == found
        assert described_neuron(found.neuron.build())["unit"] == "s"
        network = build_network(found, build_data(found).train, 0, from_samples=False)
        assert all(layer.initial_neuron.unit == "s" for layer in network)


def test_equations():
    found = load_config(config(TEXT, until=6.0, trainable=["tau_m"]))
    assert load_config(yaml.safe_load(found.to_yaml())) == found
    neuron = found.neuron.build()
    assert neuron == Neuron(
        TEXT["equations"], threshold="v > 10", reset="v = v_r", receptors=["i"], start={"v": "0.1*v_r"}, refractory=0.2,
        **TEXT["parameters"],
    )  # fmt: skip
    again = described_neuron(neuron)
    assert load_config(config(again, until=6.0)).neuron.build() == neuron
    conducts = neuron_of(TEXT | {"conducts": True})
    assert conducts.conducts
    assert conducts != neuron
    assert neuron_of(described_neuron(conducts)) == conducts
    assert described_neuron(QIF(tau_mem=torch.ones(3))) is None
    assert load_config(config(described_neuron(AdEx()), until=60.0)).neuron.build() == AdEx()


@pytest.mark.parametrize(
    ("neuron", "layer", "message"),
    [
        ({"kind": "qiff"}, {}, "neuron.kind: expected one of 'lif'"),
        ({"kind": "qif", "tau": 1.0}, {}, "neuron.tau: unknown key, did you mean tau_syn"),
        ({"kind": "qif"}, {}, "needs a finite until, got inf"),
        ({"kind": "eif"}, {"until": 3.0, "silent": "pseudospikes"}, "needs QIF neurons"),
        (TEXT | {"parameters": {"tau_m": 1.0}}, {"until": 3.0}, "missing tau_s, v_r"),
        (TEXT | {"equations": "dv/dt = __import__('os').system('x')"}, {"until": 3.0}, "only numbers, names"),
        (TEXT, {"until": 3.0, "trainable": ["tau"]}, "trainable must be some of tau_m, tau_s, v_r"),
    ],
)
def test_errors_say_what_is_expected(neuron, layer, message):
    with pytest.raises(ConfigError, match=message):
        load_config(config(neuron, **layer))


@pytest.mark.parametrize("tau_syn", [1.0, 5.0])
@pytest.mark.parametrize("tau_m", [1.0, torch.ones(())], ids=["a number", "a tensor"])
def test_a_run_in_python_of_a_neuron_of_ones_own_and_a_loss_on_times(tmp_path, tau_syn, tau_m):
    neuron = fs.Neuron(
        "dv/dt = (i - v)/tau_m; di/dt = -i/tau_syn", threshold="v > 1", reset="v = 0", receptors=["i"], tau_m=tau_m,
        tau_syn=0.5, unit="ms",
    )  # fmt: skip
    data = fs.data.bars(samples=30)
    network = fs.Network(*(fs.SpikingLinear(*sizes, neuron, until=10.0) for sizes in ((9, 4), (4, 3))))
    loss = fs.losses.TimeCrossEntropy(tau_syn=tau_syn)
    trainer = fs.Trainer(network, loss, torch.optim.Adam(network.parameters()))
    run = trainer.fit(data, data, epochs=1, folder=tmp_path / "run", progress_bar=False)
    again = fs.Run(tmp_path / "run", **({} if isinstance(tau_m, float) else {"network": network}))
    assert again.loss.tau_syn == tau_syn
    assert again.config.neuron.unit == "ms"
    assert str(again.network) == str(network)
    assert again.evaluate("validation").loss == run.validation.loss
