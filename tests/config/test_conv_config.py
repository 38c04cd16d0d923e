"""Images, convolution and pooling in configs, and a run with them, with its figures."""

import pytest

import firstspike as fs
from firstspike.config import ConfigError, build, describe, load_config
from firstspike.reports.write import write_report
from trained import start

LAYERS = [
    {"kind": "conv", "out_channels": 4, "kernel_size": [3, 2], "padding": [1, 0]},
    {"kind": "delay"},
    {"kind": "pool", "kernel_size": 2},
    {"kind": "bias", "times": [0.5]},
    {"kind": "lif", "out_features": 10},
]


def raw(layers=LAYERS, **data):
    return {
        "data": {"kind": "digits", "train": 40, "validation": 20, "test": 20} | data,
        "network": layers,
        "loss": {"kind": "cross_entropy"},
        "training": {"epochs": 1, "batch_size": 20, "silent": {"limits": 0.9}},
    }


def test_shapes_go_through():
    layers = [LAYERS[0] | {"stride": [1, 2], "trainable": ["threshold"], "per_neuron": True, "weight_mean": 1.0}]
    layers[0]["weight_std"] = 0.0
    conv, delay, pool, bias, output = build(load_config(raw([*layers, *LAYERS[1:]]))).network
    assert (conv.image, conv.out_image) == ((1, 8, 8), (4, 8, 4))
    assert conv.log_threshold.shape == (4,)
    assert bool((conv.weight == 1).all())
    assert delay.features == 128
    assert (pool.image, pool.out_image) == ((4, 8, 4), (4, 4, 2))
    assert output.in_features == 32 + len(bias.times)


@pytest.mark.slow
def test_a_run_with_convolution_and_its_figures(tmp_path):
    config = raw()
    config["training"]["n_seeds"] = 2
    start(tmp_path / "run", load_config(config), progress_bar=False)
    names = ["raster", "membrane", "weight_matrices", "dataset", "summary", "parameters"]
    assert len(fs.Run(tmp_path / "run" / "seed_1").plot(names)) == 6


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [{"kind": "conv", "out_channels": 2, "kernel_size": 9}, LAYERS[-1]],
            "network[0]: a window of 9x9 does not fit into 8x8",
        ),
        (
            [LAYERS[2], LAYERS[2] | {"kernel_size": 5}, LAYERS[-1]],
            "a window of 5x5 does not fit into 4x4",
        ),
        ([LAYERS[0] | {"stride": 0}, LAYERS[-1]], "network[0].stride: should be greater than 0, got 0"),
        ([{"kind": "bias", "times": [0.5]}, *LAYERS], "network[1]: conv needs an image"),
        ([LAYERS[-1], LAYERS[0]], "in files are given in Python, SpikeData("),
        (
            [{"kind": "lif", "out_features": 4}, {"kind": "pool", "kernel_size": 2}, LAYERS[-1]],
            "network[1]: pool needs an image",
        ),
        ([LAYERS[0]], "has no layer of kind lif"),
        ([LAYERS[-1], LAYERS[0]], "conv needs an image"),
        ([{"kind": "conv", "out_channels": 0, "kernel_size": 3}, LAYERS[-1]], "network[0].out_channels"),
        (
            [{"kind": "conv", "out_channels": 2, "kernel_size": 3, "delay": {"range": 3}}, LAYERS[-1]],
            "network[0].delay.range: unknown key",
        ),
        ([{"kind": "conv1d", "out_channels": 2, "kernel_size": 3}, LAYERS[-1]], "expected (channels, length)"),
        (
            [LAYERS[0] | {"max_spikes": 5}, {"kind": "pool", "kernel_size": 2}, LAYERS[-1]],
            "expects first spikes, and gets spike trains",
        ),
    ],
)
def test_what_does_not_fit(layers, message):
    with pytest.raises(ConfigError) as error:
        load_config(raw(layers))
    assert message in str(error.value)


def test_data_without_images_and_sizes_that_are_too_large():
    with pytest.raises(ConfigError, match="conv needs an image"):
        load_config(raw() | {"data": {"kind": "xor"}})
    config = raw() | {"data": {"kind": "mnist", "train": 50_001, "test": 10_001}}
    with pytest.raises(ConfigError) as error:
        load_config(config)
    assert "data.test: should be less than or equal to 10000, got 10001" in str(error.value)
    config["data"]["test"] = 1
    with pytest.raises(ConfigError, match="train, validation: expected at most 60000 images in total, got 60001"):
        load_config(config)


TRAINS = [
    {"kind": "conv", "out_channels": 4, "kernel_size": 3, "stride": 2, "max_spikes": 10, "overflow": "drop"}
    | {"delay": {"scale": 3.0}, "delay_lr": 0.1},
    {"kind": "delay", "trains": True, "copies": 9},
    {"kind": "merge_pool", "kernel_size": 2, "stride": 1},
    {"kind": "conv", "out_channels": 3, "kernel_size": 2, "max_spikes": 8, "overflow": "drop"},
    {"kind": "integral", "out_features": 4, "tau": 10.0},
]


def camera(layers=TRAINS, **data):
    return {
        "data": {"kind": "camera", "size": 8, "train": 40, "validation": 20, "test": 20} | data,
        "network": layers,
        "loss": {"kind": "readout_cross_entropy"},
        "training": {"epochs": 1, "batch_size": 20},
    }


@pytest.mark.slow
def test_trains_of_a_camera_there_and_back():
    config = load_config(camera())
    trainer = build(config)
    conv, delay, pool, second, readout = trainer.network
    assert (conv.out_image, delay.delay_raw.shape) == ((4, 3, 3), (4,))
    assert (pool.out_image, second.out_image, readout.in_features) == ((4, 2, 2), (3, 1, 1), 3)
    assert conv.delay_raw.shape == conv.weight.shape == (4, 2, 3, 3)
    assert {group["lr"] for group in trainer.members[0].optimizer.param_groups} == {0.005, 0.1}
    found = describe(trainer)
    one, other = ([x.model_dump(exclude={"neuron"}) for x in given.network] for given in (found, config))
    assert one == other


@pytest.mark.slow
def test_first_spikes_of_trains_keep_the_image():
    layers = [
        TRAINS[0],
        {"kind": "first_spike"},
        {"kind": "pool", "kernel_size": 3},
        {"kind": "lif", "out_features": 4},
    ]
    config = camera(layers) | {"loss": {"kind": "cross_entropy"}}
    assert build(load_config(config)).network[2].out_image == (4, 1, 1)


def test_one_dimension_without_an_image():
    layers = [
        {"kind": "conv1d", "out_channels": 3, "kernel_size": 5, "stride": 2, "max_spikes": 9},
        {"kind": "merge_pool", "kernel_size": [1, 2]},
        {"kind": "conv1d", "out_channels": 2, "kernel_size": 3, "max_spikes": 9},
        {"kind": "integral", "out_features": 2, "tau": 10.0},
    ]
    data = {"kind": "pattern", "inputs": 30, "classes": 2, "train": 20, "validation": 10, "test": 10}
    first, pool, second, _ = build(load_config(camera(layers) | {"data": data})).network
    assert (first.image, first.out_image, pool.out_image) == ((1, 1, 30), (3, 1, 13), (3, 1, 6))
    assert (second.weight.shape, second.out_image) == ((2, 3, 3), (2, 1, 4))


@pytest.mark.slow
def test_a_run_of_trains_with_its_figures(tmp_path):
    config = camera()
    config["training"] |= {"n_seeds": 2, "augment": {"flip": True, "jitter": 0.1}}
    start(tmp_path / "run", load_config(config), progress_bar=False)
    run = fs.Run(tmp_path / "run" / "seed_1")
    names = {path.stem for path in run.plot()}
    assert {"raster", "spike_counts", "weight_matrices", "summary", "parameters"} <= names
    assert write_report(tmp_path / "run" / "seed_1", tmp_path / "page.html").is_file()
