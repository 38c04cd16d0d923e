"""Noise, rounded weights, integration and the chip become a section ``substrate``."""

import numpy as np
import pytest
import yaml
from fabricated import delay, layers_config, lif, random_tensors, save_results, sizes_config

from firstspike.config import load_config
from firstspike.data import yin_yang
from firstspike.interop.fast_and_deep.run_folder import import_folder
from firstspike.interop.fast_and_deep.translate import translate
from firstspike.runs import Run
from trained import resume

NOISE = {
    "jitter": 0.0,
    "threshold_noise_b2b_std": 0.04,
    "threshold_noise_fp_std": 0.08,
    "threshold_noise_fp_mean": 0.13,
}
RANGE = {"name": "sigmoid", "scale": 1.5, "shift": 2.0}
DELAY = {"delay_std": 0.5, "positivity": RANGE, "jitter": 0.01}


def hardware_aware(**changes):
    """The hardware-aware simulation of DelGrad, in their form."""
    layers = [
        {"name": "Multiplex", "factor": 5},
        delay("Axonal", presyn_sharing_factor=5, **DELAY),
        lif(30, neuron_params=NOISE),
        delay("Axonal", **DELAY),
        lif(max_num_missing_spikes=0.0, neuron_params=NOISE),
    ]
    raw = layers_config(layers)
    raw["default_neuron_params"] |= {"g_leak": 1.0, "tau_mem": 1.0, "threshold": 2.6}
    raw["training_params"] |= {"batch_size": 40, "learning_rate": 0.002, "clip_weights_max": 2.1}
    raw["training_params"] |= {"rounding_precision": 1 / 30, "loss": {"type": "shift_invariant_MSE", "delta_t": 0.3}}
    raw["training_params"] |= changes
    return raw


def substrate(raw):
    return load_config(translate(raw).config).substrate.model_dump(exclude_defaults=True)


def test_hardware_aware_recipe_is_of_the_shipped_network():
    translation = translate(hardware_aware())
    published = [
        "training.dtype=float64",
        "training.silent.limits[0]=0.3",
        "training.silent.targeted=any",
        "loss={kind: shift_invariant, delta: 0.3}",
        "training.epochs=300",
        "training.optimizer.lr=0.002",
        "training.schedule={kind: step, step_size: 20, gamma: 0.95}",
    ]
    assert load_config(translation.config) == load_config("yin_yang_hardware_aware", published)
    assert translation.inexact == ["the original drew noise"]
    assert [line.split(" = ")[0] for line in translation.no_counterpart] == [
        "network_layout.layers[1].presyn_sharing_factor",
        "training_params.numpy_seed",
    ]


def test_noise_of_the_default_neuron_and_of_samples():
    noise = NOISE | {"jitter": 0.02, "threshold_noise_s2s_std": 0.03}
    raw = layers_config([lif(30), lif()])
    raw["default_neuron_params"] |= noise
    assert substrate(raw) == {
        "kind": "noisy",
        "threshold_offset": 0.13,
        "threshold_spread": 0.08,
        "threshold_batch_noise": 0.04,
        "threshold_sample_noise": 0.03,
        "spike_jitter": 0.02,
    }


def test_noise_is_in_the_unit_of_our_threshold():
    params = {"g_leak": 4.0, "leak": 0.7, "tau_syn": 1.0, "threshold": 1.08, "threshold_noise_fp_std": 0.02}
    found = substrate(sizes_config(neuron_params=params))
    assert found == {"kind": "noisy", "threshold_spread": pytest.approx(0.08, rel=1e-12)}


def test_the_exact_substrate_stays():
    nothing = {"jitter": 0.0, "threshold_noise_fp_std": None}
    raw = layers_config([delay("Axonal", jitter=0.0), lif(30, neuron_params=nothing), lif()])
    raw["training_params"] |= {"rounding_precision": False, "clip_weights_max": False}
    translation = translate(raw)
    assert "substrate" not in translation.config
    assert translation.inexact == []
    assert len(translation.no_counterpart) == 1


def test_layers_with_noise_of_their_own():
    layers = [lif(30, neuron_params=NOISE), lif(neuron_params=NOISE | {"threshold_noise_fp_mean": -0.2})]
    translation = translate(layers_config(layers))
    assert load_config(translation.config).substrate.threshold_offset == -0.2
    told = translation.no_counterpart
    assert any(x.startswith("threshold_noise_fp_mean differs between layers") for x in told)
    assert "the original shifted thresholds layer by layer" in translation.inexact


def test_delays_that_jitter_differently():
    layers = [delay("Synaptic", jitter=0.03), lif(30), delay("Dendritic", jitter=0.01), delay("Axonal"), lif()]
    translation = translate(layers_config(layers))
    assert translation.config["substrate"] == {"kind": "noisy", "delay_jitter": 0.03}
    assert any(x.startswith("jitter of delays differs between layers") for x in translation.no_counterpart)
    assert translation.inexact == ["the original drew noise"]


def test_integration_in_steps():
    raw = sizes_config(training_params__use_forward_integrator=True, training_params__resolution=0.02)
    translation = translate(raw)
    assert load_config(translation.config).substrate.model_dump() == {
        "kind": "integrator",
        "step": 0.02,
        "duration": 4.0,
    }
    assert translation.inexact == ["the original integrated in steps"]
    raw["training_params"] |= {"rounding_precision": 0.1, "clip_weights_max": 1.0}
    told = "\n".join(translate(raw).no_counterpart)
    assert "rounding_precision = 0.1: weights are not rounded" in told
    assert "clip_weights_max = 1.0: weights are not clipped" in told


@pytest.mark.parametrize("key", [{"substrate": "hx_pynn"}, {"substrate": "hx"}, {"use_hicannx": True}])
def test_the_chip(key):
    raw = hardware_aware(**key)
    raw["network_layout"]["layers"][0:1] = []
    translation = translate(raw)
    assert load_config(translation.config).substrate.kind == "brainscales2"
    assert translation.inexact == ["the original ran on the chip"]
    told = "\n".join(translation.no_counterpart)
    (name, value), *_ = key.items()
    assert f"training_params.{name} = {value!r}: the chip's own settings" in told
    assert "--substrate exact or mock_bss2" in told
    assert "the chip rounds weights to 1 / weight_scale" in told
    assert "on the chip weights reach to 63 / weight_scale" in told
    assert "threshold_noise" not in told  # it has no effect there


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A result folder of theirs with noise, imported."""
    raw = hardware_aware(epoch_number=1)
    for layer in raw["network_layout"]["layers"]:
        layer |= {"weights_std": 0.12} if layer["name"] == "NeuronLayer" else {}
    folder = tmp_path_factory.mktemp("noisy")
    inputs = yin_yang(1000, 40).times.double().numpy()
    save_results(folder / "theirs", raw, random_tensors(raw), inputs)
    return import_folder(folder / "theirs", folder / "run"), folder / "run"


def test_imported_folder_with_noise(imported):
    found, run = imported
    assert found.verdict.endswith("(but the original drew noise)")
    # the fabricated times have no noise but the rounding and the shift, and so has the comparison
    assert (found.comparison.above, found.comparison.only_theirs, found.comparison.only_ours) == (0, 0, 0)
    assert "fixed pattern of the thresholds: redrawn" in "\n".join(found.no_counterpart)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["substrate"]["kind"] == "noisy"
    loaded = Run(run)
    assert np.isfinite(loaded.record.output.numpy()).mean() > 0.3
    assert loaded.network[1].delay.shape == (20,)


@pytest.mark.slow
def test_imported_folder_goes_on_with_noise(imported):
    _, run = imported
    assert resume(run, epochs=2, progress_bar=False)["epochs"] == 2
    assert Run(run).environment["substrate"]["kind"] == "noisy"
    weights = Run(run).network[2].weight
    assert weights.abs().max() <= 2.1
