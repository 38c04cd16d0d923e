"""The original's data set of one input and one output, whose spike is trained to come at a given time."""

import pytest
import torch
from fabricated import delay, layers_config, lif

from firstspike.config import ConfigError, load_config
from firstspike.interop.fast_and_deep.translate import translate
from firstspike.reports.write import write_report
from firstspike.runs import Run
from trained import start


def single(dataset, **changes):
    """A config in the form of the original's file, which has no rule that keeps delays positive."""
    layers = [delay("Synaptic", delay_mean=5.0, delay_std=0.05), lif(1, name="EqualtimeLayer", weights_mean=1.5)]
    del layers[0]["positivity"]
    raw = layers_config(layers, training_params__loss={"type": "MSE", "t_correct": 5, "t_wrong": 0}, **changes)
    raw["neuron_params"] = {"g_leak": 1.0, "leak": 0.0, "tau_syn": 1.0, "threshold": 1.0}
    del raw["dataset_params"], raw["default_neuron_params"]
    raw["dataset"] = {"name": "single_in_single_out"} | dataset
    raw["network_layout"]["n_inputs"] = 1
    return raw


PARAMETERS = {"input_mean": 1, "input_std_dev": 0.2, "num_samples": 7}


@pytest.mark.parametrize("dataset", [{"input_params": PARAMETERS}, PARAMETERS], ids=["nested", "flat"])
def test_is_a_pattern_of_one_class(dataset):
    translation = translate(single(dataset))
    config = load_config(translation.config)
    assert (config.data.kind, config.data.patterns, config.data.jitter) == ("pattern", ((1.0,),), 0.2)
    assert (config.data.train, config.data.validation, config.data.test) == (7, 7, 7)
    assert (config.loss.kind, config.loss.correct) == ("mse", 5.0)
    assert [line.split(" = ")[0] for line in translation.no_counterpart] == [
        "network_layout.layers[0].positivity is missing: delays are the parameters themselves, not below 0",
        "training_params.numpy_seed",
    ]
    (layer,) = config.network
    assert (layer.delay.bound, layer.delay.mean, layer.delay.std) == ("clip", 5.0, 0.05)


def test_defaults_and_unknown_parameters():
    data = load_config(translate(single({})).config).data
    assert (data.patterns, data.jitter, data.train) == (((1.0,),), 0.001, 1)
    told = translate(single({"input_params": {"input_mean": 2, "shape": 3}})).no_counterpart
    assert "dataset.input_params.shape = 3: unknown key" in told


def test_errors():
    raw = single({})
    raw["network_layout"]["n_inputs"] = 2
    with pytest.raises(ValueError, match="n_inputs: single_in_single_out has 1 inputs, got 2"):
        translate(raw)
    raw = single({})
    raw["network_layout"]["layers"][-1]["size"] = 2
    with pytest.raises(ConfigError, match=r"the last lif layer has 2 neurons, the data has 1 classes"):
        load_config(translate(raw).config)


@pytest.mark.slow
def test_the_spike_learns_its_time(tmp_path):
    raw = single({}, training_params__epoch_number=80, training_params__learning_rate=0.1)
    raw["dataset"]["input_std_dev"] = 0
    start(tmp_path / "run", load_config(translate(raw).config), progress_bar=False)
    run = Run(tmp_path / "run")
    assert float(run.record.output) == pytest.approx(5.0, abs=0.02)
    with torch.no_grad():
        assert float(run.network[0].delay) > 0.5
    assert write_report(tmp_path / "run").is_file()  # of a single sample
