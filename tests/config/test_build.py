import math
from types import SimpleNamespace

import pytest
import torch

from firstspike.config import build, build_data, load_config
from firstspike.config.builder import build_network
from firstspike.config.sections import outline_of
from firstspike.data import DATASETS
from firstspike.layers import DelayRule
from firstspike.runs import Run
from firstspike.seeding import generator


@pytest.mark.parametrize("kind", sorted(set(DATASETS) - {"files", "shd", "spoken_digits", "ssc", "time_series"}))
def test_outlines_are_those_of_the_data(kind, image_folder):
    raw = {"kind": kind, "train": 20, "validation": 10, "test": 10}
    classes = {"delayed_xor": 2, "xor": 2, "bars": 3, "pattern": 3, "yin_yang": 3, "camera": 4}.get(kind, 10)
    first = [{"kind": "first_spike"}] if kind in ("camera", "delayed_xor") else []
    if "mnist" in kind:
        raw["folder"] = str(image_folder)
    config = load_config(
        {
            "data": raw,
            "network": [*first, {"kind": "lif", "out_features": classes}],
            "loss": {"kind": "cross_entropy"},
            "training": {"epochs": 1, "batch_size": 10},
        }
    )
    data, known = build_data(config), outline_of(config.data, [])
    assert (known.features, known.class_names) == (data.train.features, data.train.class_names)
    assert (known.image, known.blank) == (data.train.image, data.train.blank)
    assert [len(split) for split in data] == [20, 10, 10]


@pytest.mark.slow
def test_everything_of_a_network_section_arrives():
    config = load_config("yin_yang", ["training.dtype=float64", "neuron.tau_mem=2.0"])
    raw = config.model_dump()
    raw["network"] = [
        {"kind": "multiplex", "copies": 2},
        {
            "kind": "delay",
            "copies": 2,
            "rule": {"bound": "clip", "scale": 3.0, "mean": 0.2, "std": 0.0, "jitter": 0.1},
            "lr": 0.3,
        },
        {
            "kind": "lif",
            "out_features": 7,
            "delay": {"shift": 1.0},
            "delay_lr": 0.2,
            "lr": 0.1,
            "neuron": {"threshold": 2.0},
        },
        {"kind": "bias", "times": [0.5, 0.9]},
        {"kind": "lif", "out_features": 3, "weight_mean": 1.0, "weight_std": 0.0, "neuron_lr": 0.4},
    ]
    raw["network"][-1] |= {"trainable": ["tau_mem", "threshold"], "per_neuron": True}
    trainer = build(load_config(raw))
    multiplex, delay, hidden, bias, output = trainer.network
    assert multiplex.copies == 2
    assert (delay.features, delay.copies) == (8, 2)
    assert delay.rule == DelayRule("clip", scale=3.0, mean=0.2, std=0.0, jitter=0.1)
    assert delay.delay_raw.tolist() == pytest.approx([0.2] * 4)
    assert (hidden.in_features, hidden.neuron.threshold, hidden.neuron.tau_mem) == (8, 2.0, 1.0)
    assert bool((hidden.delay >= 1).all())
    assert (output.in_features, output.neuron.tau_syn, output.max_weight_grad) == (9, 1.0, 0.2)
    assert output.neuron.tau_mem.tolist() == pytest.approx([2.0] * 3)
    assert output.neuron.threshold.tolist() == [1.0] * 3
    assert bool((output.weight == 1).all())
    assert output.weight.dtype == torch.float64
    rates = {id(p): group["lr"] for group in trainer.members[0].optimizer.param_groups for p in group["params"]}
    assert rates == {
        id(delay.delay_raw): 0.3,
        id(hidden.weight): 0.1,
        id(hidden.delay_raw): 0.2,
        id(output.weight): 0.005,
        id(output.log_tau_mem): 0.4,
        id(output.log_threshold): 0.4,
    }
    assert bias.times.tolist() == [0.5, 0.9]


@pytest.mark.slow
def test_learning_rates_of_their_own_are_what_moves_delays_and_weights():
    raw = load_config("bars", ["training.optimizer={kind: sgd, lr: 1.0}"]).model_dump()
    raw["network"] = [
        {"kind": "delay", "lr": 2.0},
        {"kind": "lif", "out_features": 4, "delay": {}, "delay_lr": 3.0},
        {"kind": "lif", "out_features": 3, "lr": 5.0},
    ]
    trainer = build(load_config(raw))
    before = [p.detach().clone() for p in trainer.network.parameters()]
    for parameter in trainer.network.parameters():
        parameter.grad = torch.full_like(parameter, 0.01)
    trainer.members[0].optimizer.step()
    steps = [(old - new).mean().item() for old, new in zip(before, trainer.network.parameters(), strict=True)]
    assert steps == pytest.approx([0.02, 0.01, 0.03, 0.05], rel=1e-4)


def test_weight_decay_leaves_the_neurons_parameters_alone():
    settings = ["network[1].trainable=[tau_mem]", "training.optimizer={kind: sgd, lr: 1.0, weight_decay: 0.1}"]
    groups = build(load_config("bars", settings)).members[0].optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("{kind: step, step_size: 2, gamma: 0.5}", [1, 1, 0.5, 0.5]),
        ("{kind: multi_step, milestones: [1, 3], gamma: 0.1}", [1, 0.1, 0.1, 0.01]),
        ("{kind: exponential, gamma: 0.9}", [1, 0.9, 0.81, 0.729]),
        ("{kind: cosine, final: 0.2}", [0.2 + 0.8 * (1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)]),
        ("null", [1, 1, 1, 1]),
    ],
)
@pytest.mark.parametrize("optimizer", ["{kind: adam, lr: 1.0}", "{kind: sgd, lr: 1.0, momentum: 0.9}"])
def test_schedules(schedule, rates, optimizer):
    settings = [f"training.schedule={schedule}", f"training.optimizer={optimizer}", "training.epochs=4"]
    trainer = build(load_config("bars", settings))
    found = []
    for _ in rates:
        found.append(trainer.members[0].optimizer.param_groups[0]["lr"])
        trainer.members[0].optimizer.step()
        if trainer.members[0].schedule is not None:
            trainer.members[0].schedule.step()
    assert found == pytest.approx(rates)


def test_generators_depend_on_seed_purpose_and_epoch_alone():
    def draw(*key):
        return torch.rand(4, generator=generator(*key)).tolist()

    torch.manual_seed(3)
    first = draw(1, "order", 2)
    torch.manual_seed(4)
    assert draw(1, "order", 2) == first
    assert len({tuple(draw(*key)) for key in [(1, "order", 2), (2, "order", 2), (1, "noise", 2), (1, "order", 3)]}) == 4


def test_weights_follow_the_seed():
    config = load_config("bars")
    data = build_data(config).train
    one, same, other = (build_network(config, data, seed, from_samples=False) for seed in (1, 1, 2))
    assert torch.equal(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)


def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="device 'nonsense' cannot be used"):
        build(load_config("bars", ["training.device=nonsense"]))


def test_a_device_without_float64(monkeypatch):
    def of_mps(*shape, dtype=None, device=None):
        if dtype is torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return SimpleNamespace(device=torch.device(device))

    config = load_config("bars", ["training.device=mps"])
    monkeypatch.setattr(torch, "empty", of_mps)
    with pytest.raises(ValueError, match=r"device 'mps' cannot be used: it has no float64, .*; try cpu"):
        build(config)


def test_layers_without_given_weights_start_from_what_reaches_them():
    """Three quarters of the pixels are silent: weights for all of them would leave the layer silent, too."""
    raw = load_config("bars", ["data.silent_background=true"]).model_dump()
    raw["network"] = [{"kind": "lif", "out_features": 30}] * 6 + [
        {"kind": "lif", "out_features": 3, "weight_mean": 2, "weight_std": 0}
    ]
    raw["training"]["silent"]["limits"] = 1.0
    config = load_config(raw)
    trainer, data = build(config), build_data(config).train
    record = trainer.network.record(data.times)
    assert min(x.isfinite().double().mean().item() for x in record.layers) > 0.6
    assert bool((trainer.network[-1].weight == 2).all())
    again = build_network(config, data, config.training.seed)
    assert all(torch.equal(x, y) for x, y in zip(again.parameters(), trainer.network.parameters(), strict=True))
    usual = build_network(config, data, config.training.seed, from_samples=False)
    assert float(usual[0].weight.detach().mean()) < 0.7 * float(again[0].weight.detach().mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "small", "learnt"),
    [
        ("yin_yang_ei", ["data.train=300", "data.validation=10", "data.test=10"], ["log_tau_syn"]),
        pytest.param(
            "japanese_vowels_adaptive",
            ["data.validation=0.9", "network[0].out_features=10"],
            ["log_threshold_tau", "threshold_jump"],
            marks=pytest.mark.timeseries,
        ),
    ],
)
def test_constants_of_shipped_configs_learn(name, small, learnt, tmp_path):
    config = load_config(name, ["training.epochs=1", "training.batch_size=10", *small])
    before = dict(build(config).members[0].network.named_parameters())
    run = Run.start(tmp_path / "run", config, progress_bar=False)
    after = dict(run.network.named_parameters())
    constants = {key for key in after if key.endswith(tuple(learnt))}
    assert {key.rpartition(".")[2] for key in constants} == set(learnt)
    assert all(not torch.equal(before[key], after[key]) for key in constants)
