"""Connections past layers and dropout in configs: shapes, errors, runs that are resumed, figures, reports."""

import pytest
import torch

import firstspike as fs
from firstspike.config import ConfigError, build, describe, load_config
from firstspike.reports.details import details
from firstspike.reports.write import write_report
from firstspike.runs import Run
from firstspike.training import Interrupted
from trained import resume, start

CONV = {"kind": "conv", "out_channels": 4, "kernel_size": 3, "padding": 1}
OUTPUT = {"kind": "lif", "out_features": 10}
LAYERS = [
    CONV,
    {"kind": "dropout", "p": 0.1},
    CONV,
    {"kind": "earliest", "over": 2},
    CONV | {"stride": 2},
    {"kind": "concatenate", "over": 1, "delay": {"bound": "sigmoid", "jitter": 0.01}, "lr": 0.02},
    {"kind": "pool", "kernel_size": 2},
    {"kind": "lif", "out_features": 12},
    {"kind": "concatenate", "over": 8, "delay": 0.5},
    OUTPUT,
]


def raw(layers=LAYERS, **training):
    return {
        "data": {"kind": "digits", "train": 40, "validation": 20, "test": 20},
        "network": layers,
        "loss": {"kind": "cross_entropy"},
        "training": {"epochs": 2, "batch_size": 20, "silent": {"limits": 0.9}, "checkpoint_every": 1} | training,
    }


def test_shapes_go_through():
    network = build(load_config(raw())).network
    merged, joined, last = (network[index] for index in (3, 5, 8))
    assert (merged.image, merged.out_image) == ((4, 8, 8), (4, 8, 8))
    assert (joined.image, joined.out_image) == ((4, 4, 4), (8, 4, 4))
    assert (last.in_features, last.skipped_features, last.image) == (12, 64, None)
    assert network[9].in_features == 76
    assert bool((last.delays.delay == 0.5).all())


def test_described_as_it_was_written():
    config = load_config(raw())
    found = describe(build(config))
    assert found.network[3].model_dump() == config.network[3].model_dump()
    assert found.network[5].model_dump() == config.network[5].model_dump()
    assert found.network[8].model_dump() == config.network[8].model_dump()
    assert found.network[1].p == 0.1


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(tmp_path, seeds):
    config = load_config(raw(n_seeds=seeds))
    start(tmp_path / "whole", config, progress_bar=False)
    asked = iter(range(3))  # in the middle of an epoch
    with pytest.raises(Interrupted):
        start(tmp_path / "parts", config, progress_bar=False, stop=lambda: next(asked, None) is None)
    resume(tmp_path / "parts", progress_bar=False)
    folders = ["."] if seeds == 1 else ["seed_0", "seed_1"]
    for folder in folders:
        whole, parts = (Run(tmp_path / run / folder).network.state_dict() for run in ("whole", "parts"))
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
    if seeds > 1:  # each network has its own dropout: as if it had been trained alone
        start(tmp_path / "alone", load_config(raw(seed=1)), progress_bar=False)
        alone, beside = (Run(tmp_path / run).network.state_dict() for run in ("alone", "whole/seed_1"))
        assert all(torch.equal(alone[name], beside[name]) for name in alone)


TRAINS = [
    {"kind": "poisson_spikes", "sources": 5, "rate": 0.3, "duration": 6.0},
    {"kind": "spike_trains", "out_features": 12, "max_spikes": 60, "overflow": "drop", "mask": 0.6},
    {"kind": "integral", "out_features": 2, "mask": 0.8},
]


def of_trains(**more):
    data = {"kind": "delayed_xor", "train": 60, "validation": 8, "test": 8}
    return raw(TRAINS) | {"data": data, "loss": {"kind": "readout_cross_entropy"}} | more


def test_a_background_in_a_config():
    config = load_config(of_trains())
    found = describe(build(config))
    assert found.network[0].model_dump() == config.network[0].model_dump()
    assert (found.network[1].mask, found.network[2].mask) == (0.6, 0.8)
    with pytest.raises(ConfigError) as error:
        load_config(of_trains(network=[TRAINS[0] | {"sources": 10**6, "rate": 1e5}, *TRAINS[1:]]))
    assert "network[0]: spike trains of 1 samples and 1000000 neurons with room for" in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("substrate", ["exact", "noisy"])
def test_a_training_with_a_background_is_resumed(tmp_path, substrate):
    """Bit for bit, with the connections that were drawn, and evaluated alike."""
    config = load_config(of_trains(substrate={"kind": substrate}))
    start(tmp_path / "whole", config, progress_bar=False)
    asked = iter(range(3))  # in the middle of an epoch
    with pytest.raises(Interrupted):
        start(tmp_path / "parts", config, progress_bar=False, stop=lambda: next(asked, None) is None)
    resume(tmp_path / "parts", progress_bar=False)
    whole, parts = (Run(tmp_path / run).network.state_dict() for run in ("whole", "parts"))
    assert {"1.connections", "2.connections"} <= whole.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not whole["1.weight"][~whole["1.connections"]].any()


@pytest.mark.slow
def test_figures_and_report(tmp_path):
    start(tmp_path / "run", load_config(raw()), progress_bar=False)
    assert len(fs.Run(tmp_path / "run").plot(["raster", "membrane", "weight_matrices", "summary", "parameters"])) == 5
    assert write_report(tmp_path / "run", tmp_path / "page.html").is_file()
    layers = details(Run(tmp_path / "run"), 10000)["samples"]["layers"]
    assert [x["name"] for x in layers if x["name"] in ("carried past", "earliest")] == [
        "earliest",
        "carried past",
        "carried past",
    ]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"kind": "concatenate", "over": 1}, OUTPUT], "network[0]: over=1 skips 1 layers, but only 0 precede it"),
        ([CONV, {"kind": "concatenate", "over": 0}, OUTPUT], "network[1].over"),
        ([CONV, {"kind": "earliest", "over": 1}, OUTPUT], "got 256 inputs and 64 that are carried past"),
        (
            [CONV | {"padding": 0}, {"kind": "concatenate", "over": 1}, OUTPUT],
            "the image 1x8x8 that is carried past must be of the same height and width as 4x6x6",
        ),
        ([OUTPUT, {"kind": "concatenate", "over": 1}], "only delay layers may follow the last lif layer"),
        ([OUTPUT, {"kind": "dropout", "p": 1.0}], "network[1].p"),
        ([CONV, {"kind": "concatenate", "over": 1, "delay": -1}, OUTPUT], "network[1].delay"),
    ],
)
def test_errors(layers, message):
    with pytest.raises(ConfigError) as error:
        load_config(raw(layers))
    assert message in str(error.value)
