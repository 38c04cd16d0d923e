"""Images, convolution and pooling in configs, and a run with them, with its figures."""

import pytest

import firstspike as fs
from firstspike.config import ConfigError, build, load_config
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
        (
            [{"kind": "lif", "out_features": 4}, {"kind": "pool", "kernel_size": 2}, LAYERS[-1]],
            "network[1]: pool needs an image",
        ),
        ([LAYERS[0]], "has no layer of kind lif"),
        ([LAYERS[-1], LAYERS[0]], "conv needs an image"),
        ([{"kind": "conv", "out_channels": 0, "kernel_size": 3}, LAYERS[-1]], "network[0].out_channels"),
        (
            [{"kind": "conv", "out_channels": 2, "kernel_size": 3, "delay": {}}, LAYERS[-1]],
            "network[0].delay: unknown key",
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
