"""From a config to objects and back: the round trip of everything that the registries hold."""

from itertools import cycle

import pytest
import torch
import yaml
from torch import nn

import firstspike as fs
from firstspike.config import ConfigError, build, build_data, describe, load_config
from firstspike.configs import shipped_configs
from firstspike.losses import LOSSES, REGULARIZERS
from firstspike.substrates import SUBSTRATES

IMAGE = {"kind": "digits", "train": 60, "validation": 20, "test": 20}
LAYERS = [
    {"kind": "conv", "out_channels": 3, "kernel_size": 3, "neuron": {"tau_mem": 2.0, "threshold": 0.8}, "lr": 0.3},
    {"kind": "pool", "kernel_size": 2, "stride": 1},
    {"kind": "bias", "times": [0.5, 0.9]},
    {"kind": "multiplex", "copies": 2},
    {"kind": "delay", "copies": 2, "rule": {"bound": "clip"}, "lr": 0.02},
    {
        "kind": "lif",
        "out_features": 12,
        "trainable": ["tau_mem", "threshold"],
        "per_neuron": True,
        "delay": {"bound": "softplus", "jitter": 0.1},
        "delay_lr": 0.03,
        "neuron_lr": 0.04,
        "max_weight_grad": 0.5,
        "mask": 0.5,
    },
    {"kind": "lif", "out_features": 10, "weight_mean": 0.5, "weight_std": 0.25},
]
OPTIMIZERS = [
    {"kind": "adam", "lr": 0.003, "betas": [0.8, 0.99], "amsgrad": True},
    {"kind": "adamw", "lr": 0.004, "weight_decay": 0.1},
    {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
]
SCHEDULES = [
    None,
    {"kind": "step", "step_size": 3, "gamma": 0.5},
    {"kind": "multi_step", "milestones": [2, 4, 4], "gamma": 0.3, "warmup": 2},
    {"kind": "exponential", "gamma": 0.9},
    {"kind": "cosine", "final": 0.1, "warmup": 2},
]


def again(config, data):
    """What the objects of a config are described by, with the numbers that objects do not have."""
    found = describe(build(config, data)).model_dump()
    given = config.model_dump()
    found["data"] = given["data"]
    for name in ("epochs", "batch_size", "seed", "checkpoint_every", "early_stopping"):
        found["training"][name] = given["training"][name]
    return found, given


def same_objects(raw):
    """The described config builds what it describes: equal descriptions, networks and learning rates."""
    config = load_config(raw)
    data = build_data(config)
    found, _ = again(config, data)
    other = load_config(found)
    one, two = build(config, data), build(other, data)
    assert again(other, data)[0] == found
    assert repr(one.network) == repr(two.network)
    assert repr(one.objective) == repr(two.objective)
    groups = [
        [
            {key: value for key, value in group.items() if key != "params"}
            | {"sizes": [p.shape for p in group["params"]]}
            for group in trainer.members[0].optimizer.param_groups
        ]
        for trainer in (one, two)
    ]
    assert groups[0] == groups[1]
    return found


def raw(**sections):
    base = {
        "data": IMAGE,
        "network": LAYERS,
        "loss": {"kind": "cross_entropy"},
        "training": {"epochs": 5, "batch_size": 20},
    }
    return base | sections


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "schedule"), [*zip(cycle(OPTIMIZERS), SCHEDULES)])
def test_layers_optimizers_and_schedules(optimizer, schedule):
    training = {"epochs": 5, "batch_size": 20, "optimizer": optimizer, "schedule": schedule, "clip_grad_norm": 2.0}
    silent = {"limits": [0.5, 0.4, 0.3], "increment": 0.01, "targeted": False, "skip_step": False}
    augment = {"flip": True, "shift": 1, "jitter": 0.02, "reflect": True, "dropout": 0.1}
    augment |= {"deform": 0.5, "cutout": 2}
    found = same_objects(raw(training=training | {"silent": silent, "augment": augment}))["training"]
    assert found["optimizer"].items() >= (optimizer | ({"betas": (0.8, 0.99)} if "betas" in optimizer else {})).items()
    assert schedule is None or found["schedule"].items() >= schedule.items()
    assert found["silent"]["limits"] == (0.5, 0.4, 0.3)
    assert found["augment"] == augment
    assert found["clip_grad_norm"] == 2.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOSSES)
def test_losses(kind):
    names = [x for x in REGULARIZERS if getattr(REGULARIZERS[x], "reads", LOSSES[kind].reads) == LOSSES[kind].reads]
    terms = [{"kind": name, "alpha": 0.1} | ({"scale": 1.0} if name == "spike_errors" else {}) for name in names]
    needed = {"mse": {"correct": 0.5, "wrong": 1.5}, "matched_spikes": {"scale": 1.0}, "van_rossum": {"tau": 1.0}}
    targets, trains = needed.get(kind, {}), LOSSES[kind].reads == "trains"
    weights = {} if kind == "regression" or trains else {"weight": (1.0, 2.0, *[0.5] * 8)}
    loss = {"kind": kind, **targets, **weights, "reduction": "sum", "regularizers": terms}
    readout = {"kind": "integral", "out_features": 10, "tau": 5.0, "trainable": ["tau_mem"], "neuron_lr": 0.1}
    network = [*LAYERS, readout] if LOSSES[kind].reads == "values" else LAYERS
    network = [{"kind": "spike_trains", "out_features": 10, "max_spikes": 5}] if trains else network
    found = same_objects(raw(loss=loss, network=network))["loss"]
    assert weights.items() <= found.items()
    assert [term["kind"] for term in found["regularizers"]] == names


@pytest.mark.parametrize("readout", [{"kind": "maximum"}, {"kind": "membrane", "time": 2.0}], ids=lambda x: x["kind"])
def test_readouts(readout):
    network = [{"kind": "first_spike"}, {"kind": "lif", "out_features": 12}, readout | {"out_features": 10}]
    loss = {"kind": "readout_mse", "correct": 2.0, "wrong": -1.0}
    found = same_objects(raw(network=network, loss=loss))
    assert found["network"][-1].items() >= readout.items()


@pytest.mark.slow
def test_spike_trains():
    neuron = {"tau_mem": 2.0, "refractory": 0.1, "reset": -0.5}
    trains = {"kind": "spike_trains", "max_spikes": 8, "neuron": neuron, "overflow": "drop"}
    trains |= {"trainable": ["tau_mem"], "neuron_lr": 0.1, "delay": {"scale": 2.0}, "delay_lr": 0.2}
    network = [trains | {"out_features": 12}, {"kind": "first_spike"}, {"kind": "lif", "out_features": 2}]
    data = {"kind": "delayed_xor", "train": 20, "validation": 10, "test": 10}
    recurrent = {"kind": "recurrent", "out_features": 5, "max_spikes": 8, "duration": 5.0, "window": 0.5}
    recurrent |= {"recurrent_delay": {"scale": 3.0}, "recurrent_std": 0.1, "delay_lr": 0.3}
    found = same_objects(raw(data=data, network=[recurrent, *network]))["network"]
    assert found[0].items() >= (recurrent | {"recurrent_delay": found[0]["recurrent_delay"]}).items()
    assert found[0]["recurrent_delay"]["scale"] == 3.0
    found = found[1:]
    assert {key: found[0][key] for key in ("max_spikes", "neuron", "overflow", "delay_lr")} == {
        "max_spikes": 8,
        "neuron": neuron | {"tau_syn": 1.0, "threshold": 1.0},
        "overflow": "drop",
        "delay_lr": 0.2,
    }


LINEAR = {"tau_mem": 2.0, "tau_syn": (5.0, 8.0), "threshold": 1.0, "reset": None, "refractory": 0.1}
READOUT = {"kind": "integral", "out_features": 2, "neuron": {}}
PARTS = {"adaptation": ((9.0, 0.3),), "adaptation_rise": 0.5, "threshold_adaptation": ((3.0, 0.1), (6.0, 0.2))}


def test_neurons_of_other_kinds():
    adaptive = LINEAR | PARTS | {"kind": "adaptive_lif", "bias": 0.2}
    trains = {"kind": "spike_trains", "max_spikes": 8, "out_features": 4, "neuron": adaptive, "overflow": "drop"}
    trains |= {"receptor": "sign", "signs": (1, -1), "trainable": ("tau_syn", "adaptation_jump"), "neuron_lr": 0.1}
    recurrent = {"kind": "recurrent", "out_features": 4, "max_spikes": 8, "duration": 5.0, "receptor": (0, 1, 1, 0)}
    recurrent |= {"recurrent_receptor": (0, 0, 1, 1), "recurrent_signs": (1, 1, -1, 0), "overflow": "drop"}
    trains, recurrent = (x | {"weight_mean": 0.5, "weight_std": 0.2} for x in (trains, recurrent))
    given = raw(
        data={"kind": "delayed_xor", "train": 20, "validation": 10, "test": 10},
        neuron=LINEAR | {"tau_rise": (0.5, 0.0)},
        network=[trains, recurrent, READOUT],
        loss={"kind": "readout_cross_entropy"},
    )
    found = same_objects(given)
    assert found["network"][0].items() >= trains.items()
    assert found["network"][1].items() >= (recurrent | {"neuron": LINEAR | {"tau_rise": (0.5, 0.0)}}).items()
    config = load_config(given)
    assert load_config(yaml.safe_load(config.to_yaml())) == config
    assert config.neuron.time_unit == 5.0


@pytest.mark.parametrize(
    ("neuron", "layer", "message"),
    [
        (PARTS, {}, r"neuron: adaptation, adaptation_rise and threshold_adaptation need kind: adaptive_lif"),
        ({"tau_syn": []}, {}, r"neuron: tau_syn must have a time constant for each receptor, got none"),
        ({"tau_syn": [1.0, -1.0]}, {}, r"neuron.tau_syn"),
        ({"tau_syn": [1.0, 2.0]}, {}, r"network\[0\]: LIF\(.* has 2 receptors: say which one each input reaches"),
        (
            {"tau_syn": [1.0, 2.0]},
            {"receptor": [0]},
            r"network\[0\]: receptor must have a number for each of 64 inputs, got",
        ),
        ({}, {"signs": [1, 2]}, r"network\[0\]: signs must be 1, -1 or 0 for each of 64 inputs, got 2"),
    ],
)
def test_neurons_and_receptors_that_do_not_fit(neuron, layer, message):
    with pytest.raises(ConfigError, match=message):
        load_config(raw(neuron=neuron, network=[{"kind": "lif", "out_features": 10} | layer]))


def test_a_neuron_whose_reset_is_no_reset():
    network = [{"kind": "spike_trains", "max_spikes": 3, "out_features": 3, "neuron": {"reset": 1.5}}, *LAYERS]
    expected = "reset must be finite and below the threshold of 1.0, got"
    with pytest.raises(ConfigError, match=rf"network\[0\].neuron: {expected} 1.5"):
        load_config(raw(network=network))
    with pytest.raises(ConfigError, match=f"neuron: {expected} 2.0"):
        load_config(raw(neuron={"reset": 2.0}))


@pytest.mark.parametrize(
    "kind", [kind for kind in SUBSTRATES if kind not in ("nest", "neuron", "brian2", "brainscales2")]
)
def test_substrates(kind):
    lif = [{"kind": "lif", "out_features": 12}, {"kind": "lif", "out_features": 10}]
    assert same_objects(raw(substrate={"kind": kind}, network=lif))["substrate"]["kind"] == kind


NEED_FILES = {name for name in shipped_configs() if name.startswith(("japanese_vowels", "spoken_digits"))}


@pytest.mark.slow
@pytest.mark.parametrize("name", [x for x in shipped_configs() if "mnist" not in x and x not in NEED_FILES])
def test_shipped_configs(name):
    config = load_config(name)
    data = build_data(config)
    found, given = again(config, data)
    other = build(load_config(found), data)
    assert repr(other.network) == repr(build(config, data).network)
    assert found["loss"] == given["loss"]
    assert {**found["substrate"], "seed": None} == {**given["substrate"], "seed": None}  # it follows the training's
    bound = found["training"].pop("max_weight_grad"), given["training"].pop("max_weight_grad")
    assert bound[0] is None  # it is written into each layer
    assert all(layer["max_weight_grad"] == bound[1] for layer in found["network"] if layer["kind"] == "lif")
    if given["training"]["silent"]["limits"] is None:  # those that follow from the network are written down
        assert name in ("camera", "delayed_xor", "delayed_xor_resonators", "yin_yang_qif")
        limits = {"camera": (1.0, 1.0), "yin_yang_qif": (0.5, 0.1)}
        given["training"]["silent"]["limits"] = limits.get(name, (1.0,))
    assert found["training"] == given["training"]


def test_parts_that_are_not_in_the_registries_have_names():
    class Mine(nn.Linear):
        pass

    network = Mine(4, 2)

    def my_loss(times, labels):
        return times.mean()

    optimizer = torch.optim.RMSprop(network.parameters())
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    config = describe(fs.Trainer(network, my_loss, optimizer, schedule=schedule))
    assert [(layer.kind, layer.name) for layer in config.network] == [("custom", "Mine")]
    assert (config.loss.kind, config.loss.name) == ("custom", "my_loss")
    assert config.training.optimizer.name == "RMSprop"
    assert config.training.schedule.name == "ConstantLR"
    assert config.data.kind == "given"
    assert load_config(config.model_dump()) == config


def test_layers_with_tensors_have_names():
    """Here a mask that is given; one that is drawn by its probability is described."""
    given = fs.LIFSpikeTrains(4, 3, 9, mask=torch.ones(3, 4, dtype=torch.bool))
    drawn = fs.LIFRecurrent(3, 2, 9, 4.0, mask=0.5, recurrent_mask=0.25)
    network = fs.Network(given, drawn, fs.FirstSpike())
    config = describe(fs.Trainer(network, fs.losses.TimeCrossEntropy(), torch.optim.Adam(network.parameters())))
    assert (config.network[0].kind, config.network[0].name) == ("custom", "LIFSpikeTrains")
    assert (config.network[1].mask, config.network[1].recurrent_mask) == (0.5, 0.25)
    with pytest.raises(ConfigError, match=r"network\[5\]\.mask: should be a valid number"):
        load_config(raw(network=[*LAYERS[:5], LAYERS[5] | {"mask": [[True, False]]}]))
