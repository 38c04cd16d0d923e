"""Results as the original code leaves them: networks of classes with its names, pickled whole, and what they compute.

The spike times are computed here in NumPy from the published closed forms, with the 1e-6 that the original code adds to
its sums, so that nothing of the package is involved.
"""

import copy
import sys
import types
import warnings
from contextlib import contextmanager

import numpy as np
import torch
import yaml
from scipy.special import lambertw
from torch import nn

EPS = 1e-6


def sizes_config(**changes):
    """A config of the release 1.0.0."""
    config = {
        "dataset": "yin_yang",
        "neuron_params": {"g_leak": 1.0, "leak": 0.0, "tau_syn": 1.0, "threshold": 1.0},
        "network_layout": {
            "bias_times": [0.9],
            "layer_sizes": [30, 3],
            "n_biases": [1, 1],
            "n_inputs": 4,
            "n_layers": 2,
            "weight_means": [1.5, 0.5],
            "weight_stdevs": [0.8, 0.8],
        },
        "training_params": {
            "alpha": 0.005,
            "batch_size": 150,
            "batch_size_eval": 200,
            "beta": 1.0,
            "enforce_cpu": False,
            "epoch_number": 300,
            "epoch_snapshots": [300],
            "learning_rate": 0.005,
            "lr_scheduler": {"gamma": 0.95, "step_size": 20, "type": "StepLR"},
            "max_dw_norm": 0.2,
            "max_num_missing_spikes": [0.3, 0.0],
            "momentum": 0,
            "numpy_seed": 12345,
            "optimizer": "adam",
            "print_step_percent": 5.0,
            "resolution": 0.01,
            "sim_time": 4.0,
            "torch_seed": 2000,
            "training_noise": False,
            "use_forward_integrator": False,
            "use_hicannx": False,
            "weight_bumping_exp": True,
            "weight_bumping_targeted": True,
            "weight_bumping_value": 0.0005,
            "xi": 0.2,
        },
    }
    return _changed(config, changes)


def lif(size=3, **more):
    return {
        "name": "NeuronLayer",
        "size": size,
        "weights_mean": 1.0,
        "weights_std": 1.0,
        "max_num_missing_spikes": 0.3,
        "trainable": True,
        "monitor": True,
    } | more


def delay(kind, **more):
    return {
        "name": f"Delay{kind}",
        "delay_mean": 0.0,
        "delay_std": 0.25,
        "positivity": {"name": "sigmoid", "scale": 1.0},
        "trainable": True,
        "monitor": True,
    } | more


def layers_config(layers, **changes):
    """A config of today's form."""
    training = sizes_config()["training_params"]
    for key in ("alpha", "beta", "xi", "max_dw_norm", "max_num_missing_spikes", "use_hicannx"):
        del training[key]
    training |= {"loss": {"type": "shift_invariant_MSE", "delta_t": 0.2}, "substrate": "sim"}
    config = {
        "dataset_params": {"name": "yin_yang", "multiply_input_layer": 1},
        "default_neuron_params": {
            "g_leak": 0.5,
            "leak": 0.0,
            "max_dw_norm": 0.2,
            "tau_mem": 2.0,
            "tau_syn": 1.0,
            "threshold": 1.0,
        },
        "network_layout": {"layers": copy.deepcopy(layers), "n_inputs": 4},
        "training_params": training,
    }
    return _changed(config, changes)


def _changed(config, changes):
    """``{"training_params__xi": 1}`` sets a value inside; None removes it."""
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = config
        for key in parents:
            place = place[key]
        place[last] = value
        if value is None:
            del place[last]
    return config


@contextmanager
def original_modules():
    """Modules with the names of the original code and the classes that its pickles name; gone afterwards."""
    names = {"utils": ["NeuronLayer", "EqualtimeLayer", "DelayLayer", "BiasesLayer", "BroadcastLayer"]}
    names |= {"networks": ["Net"], "training": ["Net"]}
    names["utils"].append("MultiplexLayer")
    before = {name: sys.modules.get(name) for name in names}
    made = {}
    for module_name, classes in names.items():
        module = made[module_name] = types.ModuleType(module_name)
        for name in classes:
            kind = type(name, (nn.Module,), {"__module__": module_name})
            if name == "DelayLayer":
                kind.scaled_shift_sigmoid = lambda self, raw: raw
            setattr(module, name, kind)
    sys.modules.update(made)
    try:
        yield types.SimpleNamespace(**made)
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def random_tensors(config, seed=0):
    """Weights ``(in, out)`` and delay parameters as the original code shapes them, by index in its ``layers``."""
    random = np.random.default_rng(seed)
    layout, tensors = config["network_layout"], {}
    if "layer_sizes" in layout:
        size = layout["n_inputs"]
        for i, (out, biases) in enumerate(zip(layout["layer_sizes"], layout["n_biases"], strict=True)):
            shape = (size + biases, out)
            tensors[i] = random.normal(layout["weight_means"][i], layout["weight_stdevs"][i], shape)
            size = out
        return tensors
    size = layout["n_inputs"]
    for i, layer in enumerate(layout["layers"]):
        name = layer["name"]
        post = next((x["size"] for x in layout["layers"][i:] if "size" in x), 0)
        rows, columns = size // layer.get("presyn_sharing_factor", 1), post // layer.get("postsyn_sharing_factor", 1)
        shapes = {"Synaptic": (rows, columns), "Axonal": (rows, 1), "Dendritic": (1, columns)}
        if name.startswith("Delay"):
            tensors[i] = random.normal(layer["delay_mean"], layer["delay_std"], shapes[name.removeprefix("Delay")])
            if layer["positivity"]["name"] == "clip":
                tensors[i] = tensors[i].clip(0)
        elif name == "NeuronLayer":
            tensors[i] = random.normal(layer["weights_mean"], layer["weights_std"], (size, layer["size"]))
            size = layer["size"]
        elif name == "Biases":
            size += len(layer["times"])
        elif name == "Multiplex":
            size *= layer["factor"]
    return tensors


def save_network(path, config, tensors, *, zipped=True):
    """Pickle a whole network as the original code does."""
    layout = config["network_layout"]
    with original_modules() as original, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older form warns that it finds no source text
        old = "layer_sizes" in layout
        net = (original.training if old else original.networks).Net()
        net.n_inputs = layout["n_inputs"]
        net.device = torch.device("cpu")
        net.layers = nn.ModuleList()
        if old:
            net.sim_params = copy.deepcopy(config["neuron_params"])
            net.biases = [torch.tensor(bias_times(layout, i)) for i in range(len(layout["n_biases"]))]
        entries = [{"name": "EqualtimeLayer"} for _ in tensors] if old else layout["layers"]
        for i, entry in enumerate(entries):
            name = entry["name"]
            kind = "DelayLayer" if name.startswith("Delay") else name
            kind = {"Biases": "BiasesLayer", "Multiplex": "MultiplexLayer"}.get(kind, kind)
            layer = getattr(original.utils, kind)()
            layer.device = torch.device("cpu")
            attribute = "_delay_parameters" if kind == "DelayLayer" else "weights"
            if i in tensors:
                tensor = torch.tensor(tensors[i], dtype=torch.float64)
                learns = entry.get("trainable", True)
                setattr(layer, attribute, nn.Parameter(tensor) if learns else tensor)
            if kind == "DelayLayer":
                layer._fn_on_delay = layer.scaled_shift_sigmoid  # a method of the object, pickled through getattr
            elif kind == "BiasesLayer":
                layer._times = torch.tensor(entry["times"], dtype=torch.float64)
            elif kind == "NeuronLayer":
                layer.neuron_params = {"threshold": 1.0, "threshold_noise_fp": torch.zeros(entry["size"])}
            net.layers.append(layer)
        torch.save(net, path, _use_new_zipfile_serialization=zipped)


def bias_times(layout, layer):
    """Of a layer: the config has one list for all layers, or a list for each."""
    times = layout["bias_times"]
    return times[layer] if times and isinstance(times[0], list) else times


def save_results(folder, config, tensors, inputs=None, *, name="yin_yang", zipped=True):
    """A result folder; with ``inputs`` also the spike times that the network makes of them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.dump(config))
    save_network(folder / f"{name}_network.pt", config, tensors, zipped=zipped)
    if inputs is not None:
        np.save(folder / f"{name}_test_spiketimes.npy", spike_times(config, tensors, inputs))


def spike_times(config, tensors, inputs):
    """Output times (samples, neurons) of input times (samples, inputs), by the original code's formulas."""
    layout = config["network_layout"]
    if precision := config["training_params"].get("rounding_precision"):
        weights = {i for i, x in enumerate(layout.get("layers", tensors)) if "layer_sizes" in layout or "size" in x}
        tensors = {i: np.round(x / precision) * precision if i in weights else x for i, x in tensors.items()}
    if "layer_sizes" in layout:
        params, times = config["neuron_params"], inputs
        for i, n in enumerate(layout["n_biases"]):
            biases = np.array(bias_times(layout, i)[:n], dtype=float)
            times = np.concatenate([times, np.broadcast_to(biases, (len(times), biases.size))], axis=1)
            times = neurons(np.repeat(times[:, :, None], tensors[i].shape[1], 2), tensors[i], params)
        return times
    times = inputs[:, :, None]
    for i, layer in enumerate(layout["layers"]):
        name = layer["name"]
        if name == "Biases":
            biases = np.array(layer["times"], dtype=float)[None, :, None]
            times = np.concatenate([times, np.broadcast_to(biases, (len(times), biases.size, times.shape[2]))], axis=1)
        elif name == "Multiplex":
            times = times.repeat(layer["factor"], axis=1)
        elif name.startswith("Delay"):
            raw, positivity = tensors[i], layer["positivity"]
            if positivity["name"] == "sigmoid":
                raw = positivity.get("shift", 0.0) + positivity.get("scale", 1.0) / (1 + np.exp(-raw))
            tiles = layer.get("presyn_sharing_factor", 1), layer.get("postsyn_sharing_factor", 1)
            times = times + np.tile(raw, tiles)[None]
        elif name == "NeuronLayer":
            full = np.broadcast_to(times, (len(times), *tensors[i].shape))
            params = config["default_neuron_params"] | layer.get("neuron_params", {})
            times = neurons(full, tensors[i], params)[:, :, None]
    return times[:, :, 0]


def neurons(times, weights, params):
    """First spikes (samples, neurons) for times (samples, inputs, neurons): the earliest that its causal set allows."""
    tau = params["tau_syn"]
    ratio = params.get("model_tau_ratio", params.get("tau_mem", tau) / tau)
    threshold = params["threshold"] + params.get("threshold_noise_fp_mean", 0.0)
    c = (threshold - params["leak"]) * params["g_leak"]
    order = times.argsort(axis=1)
    t = np.take_along_axis(times, order, 1)
    w = np.take_along_axis(np.broadcast_to(weights, times.shape), order, 1)
    silent = np.isinf(t)
    finite, w = np.where(silent, 0.0, t), np.where(silent, 0.0, w)
    a1 = np.cumsum(w * np.exp(finite / tau), axis=1) + EPS
    with np.errstate(all="ignore"):
        if ratio == 1:
            b = np.cumsum(w * finite / tau * np.exp(finite / tau), axis=1) + EPS
            branch = lambertw(-c / a1 * np.exp(b / a1))
            spikes = np.where(branch.imag == 0, tau * (b / a1 - branch.real), np.inf)
        else:
            assert ratio == 2
            a2 = np.cumsum(w * np.exp(finite / (2 * tau)), axis=1) + EPS
            inside = 2 * a1 / (a2 + np.sqrt(a2**2 - 4 * a1 * c))
            spikes = np.where(inside > 0, 2 * tau * np.log(inside), np.inf)
    following = np.concatenate([t[:, 1:], np.full_like(t[:, :1], np.inf)], axis=1)
    return np.where((spikes < t) | (spikes > following), np.inf, spikes).min(axis=1)
