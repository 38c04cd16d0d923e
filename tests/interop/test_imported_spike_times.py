"""Networks pickled as the original code does compute the spike times that its formulas give."""

import numpy as np
import pytest
import torch
from fabricated import delay, layers_config, lif, random_tensors, save_results, sizes_config

from firstspike.data import yin_yang
from firstspike.interop.fast_and_deep.results import EXPECTED, Comparison
from firstspike.interop.fast_and_deep.run_folder import import_folder
from firstspike.runs import Run

INPUTS = yin_yang(1000, 40, dtype=torch.float64).times.numpy()
TILED = np.tile(INPUTS, (1, 5))  # how inputs are repeated for the chip

DELAYS_ON_COPIES = [
    {"name": "Multiplex", "factor": 3},
    delay("Axonal", presyn_sharing_factor=3, positivity={"name": "sigmoid", "scale": 1.5, "shift": 0.5}),
    lif(20, weights_mean=0.4, weights_std=0.3),
    lif(),
]
NETWORKS = {
    "release": (sizes_config(), INPUTS),
    "release, twice as slow membrane": (
        sizes_config(neuron_params={"g_leak": 0.5, "leak": 0.0, "tau_syn": 1.0, "tau_mem": 2.0, "threshold": 1.0}),
        INPUTS,
    ),
    "release, leak and conductance of their own": (
        sizes_config(neuron_params={"g_leak": 4.0, "leak": 0.7, "tau_syn": 1.0, "threshold": 0.9}),
        INPUTS,
    ),
    "release, longer time constants": (
        sizes_config(neuron_params={"g_leak": 0.5, "leak": -0.1, "tau_syn": 1.5, "threshold": 1.0}),
        INPUTS,
    ),
    "release, biases of a chip": (
        sizes_config(
            network_layout__bias_times=[[0.9] * 5, []], network_layout__n_biases=[5, 0], network_layout__n_inputs=20
        ),
        TILED,
    ),
    "no delays": (layers_config([{"name": "BroadcastLayer"}, lif(30), {"name": "BroadcastLayer"}, lif()]), INPUTS),
    "biases": (
        layers_config([{"name": "Biases", "times": [0.2, 0.9]}, lif(30), {"name": "Biases", "times": [0.5]}, lif()]),
        INPUTS,
    ),
    "axonal": (layers_config([delay("Axonal"), lif(30), delay("Axonal"), lif()]), INPUTS),
    "dendritic": (layers_config([delay("Dendritic"), lif(30), delay("Dendritic"), lif()]), INPUTS),
    "synaptic": (layers_config([delay("Synaptic"), lif(30), delay("Synaptic", trainable=False), lif()]), INPUTS),
    "delayed biases": (
        layers_config([{"name": "Biases", "times": [0.9]}, delay("Synaptic"), lif(30), delay("Axonal"), lif()]),
        INPUTS,
    ),
    "all delays": (
        layers_config([delay("Synaptic"), delay("Axonal"), delay("Dendritic"), lif(30), delay("Dendritic"), lif()]),
        INPUTS,
    ),
    "shared, on copies": (layers_config(DELAYS_ON_COPIES), INPUTS),
    "shared, on a chip's copies": (
        layers_config(
            [delay("Axonal", presyn_sharing_factor=5), lif(30, weights_mean=0.3, weights_std=0.2), lif()],
            network_layout__n_inputs=20,
        ),
        TILED,
    ),
    "rounded weights and raised thresholds": (
        layers_config(
            [delay("Axonal", presyn_sharing_factor=5), lif(30, weights_mean=0.3, weights_std=0.2), lif()],
            network_layout__n_inputs=20,
            default_neuron_params__threshold_noise_fp_mean=0.13,
            training_params__rounding_precision=1 / 30,
        ),
        TILED,
    ),
    "release, rounded weights": (sizes_config(training_params__rounding_precision=0.05), INPUTS),
    "delays of each copy": (
        layers_config(
            [delay("Synaptic"), delay("Axonal"), lif(30, weights_mean=0.3, weights_std=0.2), lif()],
            network_layout__n_inputs=20,
        ),
        TILED,
    ),
    "neurons of a layer": (
        layers_config([lif(30, neuron_params={"threshold": 2.0, "g_leak": 1.0, "tau_mem": 1.0}), lif()]),
        INPUTS,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_spike_times_are_theirs(name, tmp_path):
    config, inputs = NETWORKS[name]
    save_results(tmp_path / "theirs", config, random_tensors(config), inputs)
    imported = import_folder(tmp_path / "theirs", tmp_path / "run")
    found = imported.comparison
    assert isinstance(found, Comparison), found
    saved = np.load(tmp_path / "theirs" / "yin_yang_test_spiketimes.npy")
    assert np.isfinite(saved).mean() > 0.3
    assert found.samples == 1000
    assert (found.above, found.only_theirs, found.only_ours) == (0, 0, 0)
    assert 0 < found.largest < EXPECTED
    gap = np.abs(_finite(saved) - _finite(_outputs(tmp_path / "run")))
    assert found.largest == pytest.approx(np.nanmax(gap), rel=1e-3)


def test_delays_clipped_at_zero(tmp_path):
    layers = [delay("Axonal", positivity={"name": "clip"}), lif(30), lif()]
    config = layers_config(layers)
    tensors = random_tensors(config)
    save_results(tmp_path / "theirs", config, tensors, INPUTS)
    imported = import_folder(tmp_path / "theirs", tmp_path / "run")
    assert (imported.comparison.above, imported.comparison.only_theirs, imported.comparison.only_ours) == (0, 0, 0)


def _outputs(run):
    return Run(run).record.output.numpy()  # on the substrate of the run, which is none that draws noise


def _finite(times):
    return np.where(np.isfinite(times), times, np.nan)
