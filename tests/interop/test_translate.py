import copy

import pytest
import yaml
from fabricated import delay, layers_config, lif, sizes_config

from firstspike import LIF
from firstspike.config import load_config
from firstspike.interop.fast_and_deep.translate import import_config, translate


def network(translation):
    return load_config(translation.config).network


def kinds(translation):
    return [layer.kind for layer in network(translation)]


def test_release_recipe_is_the_shipped_one():
    """The Yin-Yang recipe of the paper, in their form, is the config that ships with this package."""
    raw = sizes_config(network_layout__layer_sizes=[120, 3])
    before = copy.deepcopy(raw)
    translation = translate(raw)
    shipped = load_config("yin_yang_goeltz2021", ["training.dtype=float64"])
    assert load_config(translation.config | {"published": shipped.published}) == shipped
    assert raw == before
    (line,) = translation.no_counterpart
    assert line.startswith("training_params.numpy_seed = 12345")
    assert translation.inexact == []


def test_todays_form():
    layers = [delay("Synaptic", learning_rate=0.003), lif(30, learning_rate=0.01), {"name": "BroadcastLayer"}, lif()]
    translation = translate(layers_config(layers))
    config = load_config(translation.config)
    assert config.neuron.build() == LIF(tau_mem=2.0)
    first, second = config.network
    assert (first.out_features, first.lr, first.delay_lr, first.weight_std) == (30, 0.01, 0.003, 1.0)
    assert config.training.silent.limits[0] == 0.3
    assert (first.delay.bound, first.delay.scale, first.delay.shift, first.delay.std) == ("sigmoid", 1.0, 0.0, 0.25)
    assert second.delay is None
    assert config.loss.kind == "shift_invariant"
    assert config.loss.delta == 0.2
    assert config.training.max_weight_grad == 0.2
    assert len(translation.no_counterpart) == 1


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"g_leak": 1.0, "leak": 0.0, "tau_syn": 1.0, "threshold": 1.0}, (1.0, 1.0, 1.0)),
        ({"g_leak": 0.5, "leak": 0.0, "tau_syn": 1.0, "tau_mem": 2.0, "threshold": 1.5}, (2.0, 1.0, 1.5)),
        # a chip whose leak is not at 0 and whose conductance does not follow the time constants
        ({"g_leak": 4.0, "leak": 0.7, "tau_syn": 1.0, "threshold": 1.08}, (1.0, 1.0, 1.52)),
        ({"g_leak": 0.1, "leak": -1.0, "tau_syn": 5.0, "tau_mem": 10.0, "threshold": 1.0}, (10.0, 5.0, 0.4)),
    ],
)
def test_neuron_normalisation(params, expected):
    neuron = load_config(translate(sizes_config(neuron_params=params)).config).neuron
    assert (neuron.tau_mem, neuron.tau_syn, neuron.threshold) == pytest.approx(expected, rel=1e-14)


def test_loss_of_the_time_between():
    loss = {"type": "TTFS", "alpha": 0.01, "beta": 3.0, "xi": 0.4}
    found = load_config(translate(sizes_config(training_params__loss=loss)).config).loss
    assert (found.xi, found.regularizers[0].alpha, found.regularizers[0].beta) == (0.4, 0.01, 3.0)
    loss = {"type": "MSE", "t_correct": 0.5, "t_wrong": 1.0}
    assert "a mean over the outputs" in "".join(translate(sizes_config(training_params__loss=loss)).no_counterpart)


def test_model_ratio_counts():
    raw = layers_config([lif()], default_neuron_params__model_tau_ratio=1, default_neuron_params__tau_mem=1.2)
    translation = translate(raw)
    assert load_config(translation.config).neuron.tau_mem == 1.0
    assert any("tau_mem = 1.2" in line for line in translation.no_counterpart)


def test_a_layer_of_its_own_neurons():
    layers = [lif(30, neuron_params={"threshold": 3.0, "jitter": 0.1, "max_dw_norm": 0.1}), lif()]
    translation = translate(layers_config(layers))
    first, second = network(translation)
    assert (first.neuron.threshold, first.neuron.tau_mem, second.neuron) == (3.0, 2.0, None)
    lacking = "\n".join(translation.no_counterpart)
    assert "jitter differs between layers ([0.1, 0.0]); here all layers have 0.1" in lacking
    assert translation.config["substrate"] == {"kind": "noisy", "spike_jitter": 0.1}
    assert "max_dw_norm differs between layers" in lacking
    assert translation.config["training"]["max_weight_grad"] == 0.1
    assert translation.inexact == ["the original drew noise"]


def test_delays_find_their_place():
    layers = [delay("Axonal"), {"name": "Biases", "times": [0.9]}, delay("Dendritic", trainable=False), lif(5)]
    layers += [{"name": "Multiplex", "factor": 2}, delay("Synaptic"), lif()]
    translation = translate(layers_config(layers))
    assert kinds(translation) == ["delay", "bias", "lif", "delay", "multiplex", "lif"]
    assert network(translation)[3].rule.trainable is False
    assert {key: (source.layer, source.kind) for key, source in translation.sources.items()} == {
        "0.delay_raw": (0, "axonal"),
        "2.weight": (3, "weight"),
        "3.delay_raw": (2, "dendritic"),
        "5.weight": (6, "weight"),
        "5.delay_raw": (5, "synaptic"),
    }


def test_copies_for_the_chip():
    layers = [delay("Axonal", presyn_sharing_factor=5), lif(30), lif()]
    raw = layers_config(layers, training_params__substrate="hx_pynn")
    for n_inputs in (4, 20):  # as it is written, and as it is saved
        raw["network_layout"]["n_inputs"] = n_inputs
        translation = translate(raw)
        assert kinds(translation) == ["multiplex", "delay", "lif", "lif"]
        assert network(translation)[1].copies == 5
        assert translation.sources["1.delay_raw"].shape == (4, 1)
        assert translation.sources["1.delay_raw"].order == (0, 1, 2, 3)
        order = translation.sources["2.weight"].order
        assert order[:6] == (0, 4, 8, 12, 16, 1)
        assert any("substrate = 'hx_pynn'" in line for line in translation.no_counterpart)
        assert translation.inexact == ["the original ran on the chip"]


def test_bias_for_the_chip():
    raw = sizes_config(training_params__use_hicannx=True, network_layout__bias_times=[[0.9], []])
    raw["network_layout"]["n_biases"] = [1, 0]
    assert network(translate(raw))[1].times == (0.9,) * 5
    assert kinds(translate(raw)) == ["multiplex", "bias", "lif", "lif"]
    saved = sizes_config(
        training_params__use_hicannx=True,
        network_layout__bias_times=[[0.9] * 5, []],
        network_layout__n_biases=[5, 0],
        network_layout__n_inputs=20,
    )
    assert network(translate(saved)) == network(translate(raw))
    raw["network_layout"] |= {"n_biases": [1, 1], "bias_times": [0.9]}  # on the chip only the first layer has them
    assert kinds(translate(raw)) == ["multiplex", "bias", "lif", "lif"]


def test_delays_shared_across_copies():
    """Their blocks of delays do not follow the copies of a Multiplex: only without a network can these share."""
    layers = [{"name": "Multiplex", "factor": 5}, delay("Axonal", presyn_sharing_factor=5), lif()]
    raw = layers_config(layers)
    for exact, copies, tiles, said in (
        (False, 5, 1, "copies of different inputs; here the copies of an input share one"),
        (True, 1, 5, "delays are not shared here"),
    ):
        translation = translate(raw, exact)
        assert kinds(translation) == ["multiplex", "delay", "lif"]
        assert network(translation)[1].copies == copies
        origin = translation.sources["1.delay_raw"]
        assert len(origin.order) == tiles * origin.shape[0]
        (line,) = [x for x in translation.no_counterpart if "presyn_sharing_factor = 5" in x]
        assert said in line


def test_delays_shared_without_copies_learn_apart():
    translation = translate(layers_config([delay("Axonal", presyn_sharing_factor=2), lif()]))
    assert network(translation)[0].copies == 1
    assert any("presyn_sharing_factor = 2: delays are not shared here" in x for x in translation.no_counterpart)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ({"type": "TTFS", "xi": 0.3}, {"kind": "cross_entropy", "xi": 0.3}),
        ({"type": "MSE", "t_correct": 1.0, "t_wrong": 2.0}, {"kind": "mse", "correct": 1.0, "wrong": 2.0}),
        ({"type": "shift_invariant_MSE", "delta_t": 0.1}, {"kind": "shift_invariant", "delta": 0.1}),
    ],
)
def test_losses(loss, expected):
    regularisers = [{"type": "early_output", "alpha": 0.1, "beta": 2.0}]
    raw = layers_config([delay("Axonal"), lif()], training_params__loss=loss | {"regulariser": regularisers})
    found = load_config(translate(raw).config).loss.model_dump()
    assert expected.items() <= found.items()
    (early,) = found["regularizers"]
    assert early == {"kind": "early_output", "alpha": 0.1, "beta": 2.0}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"type": "StepLR", "step_size": 5, "gamma": 0.9}, {"kind": "step", "step_size": 5, "gamma": 0.9}),
        ({"type": "MultiStepLR", "milestones": [3, 9], "gamma": 0.5}, {"milestones": [3, 9], "gamma": 0.5}),
        ({"type": "ExponentialLR", "gamma": 0.99}, {"kind": "exponential", "gamma": 0.99}),
    ],
)
def test_schedules(schedule, expected):
    found = load_config(translate(sizes_config(training_params__lr_scheduler=schedule)).config).training.schedule
    assert expected.items() <= found.model_dump().items()


def test_no_schedule_and_sgd():
    raw = sizes_config(training_params__lr_scheduler={"type": None}, training_params__momentum=0.9)
    raw["training_params"]["optimizer"] = "sgd"
    training = load_config(translate(raw).config).training
    assert training.schedule is None
    assert training.optimizer.model_dump()["momentum"] == 0.9


def test_xor():
    xor = sizes_config(dataset="xor", network_layout__layer_sizes=[10, 2])
    assert kinds(translate(xor)) == ["bias", "bias", "lif", "bias", "lif"]
    assert network(translate(xor))[0].times == (0.15, 2.0)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("training_noise", {"mean": 0.1, "std_dev": 0.3}, "input noise has the mean 0"),
        ("epoch_snapshots", [10, 20], "checkpoints come at equal distances"),
        ("something_new", 3, "unknown key"),
    ],
)
def test_what_has_no_counterpart_is_told(key, value, said):
    translation = translate(sizes_config(**{f"training_params__{key}": value}))
    load_config(translation.config)
    assert any(key in line and said in line for line in translation.no_counterpart)


def test_every_key_is_translated_or_told():
    """A key anywhere in a config that nobody knows is in the list."""
    raw = layers_config(
        [delay("Axonal"), lif(30, neuron_params={"unknown_a": 1}), {"name": "Biases", "times": [1]}, lif()]
    )
    places = [raw, raw["dataset_params"], raw["default_neuron_params"], raw["network_layout"], raw["training_params"]]
    places += [raw["training_params"]["loss"], raw["training_params"]["lr_scheduler"], *raw["network_layout"]["layers"]]
    places += [raw["network_layout"]["layers"][0]["positivity"]]
    for number, place in enumerate(places):
        place[f"unknown_{number}"] = number
    told = "\n".join(translate(raw).no_counterpart)
    assert told.count("unknown_") == len(places) + 1


def test_files(tmp_path):
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.dump(sizes_config()).replace("alpha: 0.005", "alpha: 5e-3"))
    config, _ = import_config(path)
    assert config.loss.regularizers[0].alpha == 0.005
    for text in ("[1, 2]", "a: !!python/object/apply:os.system ['touch harm']", "a: [", "a: b"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"theirs\.yaml") as caught:
            import_config(path)
        assert len(str(caught.value).splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["theirs.yaml"]


MNIST = {
    "dataset": "mnist",
    "network_layout__n_inputs": 784,
    "network_layout__bias_times": [],
    "network_layout__n_biases": [0, 0],
    "network_layout__layer_sizes": [350, 10],
    "network_layout__weight_means": [0.05, 0.15],
    "training_params__batch_size": 80,
    "training_params__epoch_number": 150,
    "training_params__lr_scheduler": {"gamma": 0.9, "step_size": 15, "type": "StepLR"},
    "training_params__max_num_missing_spikes": [0.15, 0.05],
    "training_params__torch_seed": 2345678,
    "training_params__training_noise": {"mean": 0.0, "std_dev": 0.3},
}


def test_recipe_for_mnist_is_the_shipped_one():
    translation = translate(sizes_config(**MNIST))
    shipped = load_config("mnist", ["training.dtype=float64"])
    assert load_config(translation.config | {"published": shipped.published}) == shipped
    assert any("validation images are the last 10000" in line for line in translation.no_counterpart)


def test_black_pixels_of_small_images_are_silent():
    small = MNIST | {"dataset": "16x16_mnist", "network_layout__n_inputs": 256}
    data = load_config(translate(sizes_config(**small)).config).data
    assert (data.kind, data.silent_background) == ("mnist_16x16", True)
    with pytest.raises(ValueError, match="16x16_mnist has 256 inputs, got 784"):
        translate(sizes_config(**MNIST | {"dataset": "16x16_mnist"}))
