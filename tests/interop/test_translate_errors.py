import contextlib
import copy

import pytest
import yaml
from fabricated import delay, layers_config, lif, sizes_config

from firstspike.config import load_config
from firstspike.interop.fast_and_deep.translate import import_config, translate


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "morse"}, "dataset.name: 'morse' has no counterpart here"),
        ({"network_layout__n_inputs": 5}, r"n_inputs: yin_yang has 4 inputs, got 5"),
        ({"network_layout__n_biases": [2, 1]}, "bias_times: layer 0 has 2 biases and 1 times"),
        ({"network_layout__weight_means": [1.0]}, "weight_means: expected 2 numbers"),
        ({"training_params__loss": {"type": "GHTTFS"}}, "'GHTTFS' has no counterpart here"),
        ({"training_params__optimizer": "lbfgs"}, "'lbfgs' has no counterpart here"),
        ({"training_params__lr_scheduler": {"type": "Cosine"}}, "'Cosine' has no counterpart here"),
        ({"training_params__batch_size": "many"}, "batch_size: expected a number, got 'many'"),
        ({"training_params__batch_size": None}, "training_params.batch_size is missing"),
        ({"neuron_params__threshold": -1.0}, "the threshold must be above the leak potential"),
        ({"neuron_params": [1]}, "neuron_params: expected a mapping"),
        ({"training_params__substrate": "loihi"}, "substrate: 'loihi' has no counterpart here"),
        ({"training_params__rounding_precision": -0.1}, "rounding_precision: expected a number above 0, got -0.1"),
        ({"training_params__clip_weights_max": "far"}, "clip_weights_max: expected a number, got 'far'"),
        ({"neuron_params__jitter": "much"}, "neuron_params.jitter: expected a number, got 'much'"),
        ({"network_layout": None}, "not a config of fastAndDeep"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        translate(sizes_config(**changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    "value", ["!!bool x", '!!int ""', "!!timestamp x", "!!map [a]", "0x_", "2001-99-99", "[" * 3000]
)
def test_values_that_do_not_fit_their_tags(value, tmp_path):
    (tmp_path / "theirs.yaml").write_text(f"a: {value}\n")
    with pytest.raises(ValueError, match=r"theirs.yaml: not YAML of plain values"):
        import_config(tmp_path / "theirs.yaml")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([delay("Synaptic"), {"name": "Biases", "times": [1]}, lif()], "Biases between delays and their neurons"),
        ([delay("Dendritic"), {"name": "Biases", "times": [1]}, lif()], "Biases between delays and their neurons"),
        ([delay("Synaptic"), {"name": "Multiplex", "factor": 2}, lif()], "Multiplex between delays and their neurons"),
        ([delay("Synaptic"), delay("Synaptic"), lif()], "a second synaptic delay"),
        ([delay("Axonal", presyn_sharing_factor=3), lif()], "inputs cannot share delays by 3"),
        ([delay("Axonal", jitter=-1), lif()], "jitter: expected a standard deviation >= 0, got -1"),
        ([delay("Axonal", positivity={"name": "magic"}), lif()], "positivity.name: 'magic' has no counterpart"),
        ([delay("Somatic"), lif()], "DelaySomatic is not known"),
        ([{"name": "Conv"}, lif()], r"layers\[0\]: a layer Conv is not known here"),
        ([lif(), delay("Axonal")], "has no neurons after it"),
    ],
)
def test_layers_that_cannot_be_expressed(layers, message):
    with pytest.raises(ValueError, match=message):
        translate(layers_config(layers))


def places(value, path=()):
    """Paths to everything in a nest of dicts and lists."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from places(entry, (*path, key))


ALL_LAYERS = [
    {"name": "Biases", "times": [0.9]},
    delay("Axonal", presyn_sharing_factor=5, jitter=0.1),
    delay("Synaptic"),
]
ALL_LAYERS += [delay("Dendritic"), lif(30, neuron_params={"threshold": 2, "jitter": 0.1})]
ALL_LAYERS += [{"name": "Multiplex", "factor": 2}, lif()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        sizes_config(
            training_params__training_noise={"mean": 0, "std_dev": 1}, training_params__rounding_precision=0.1
        ),
        layers_config(
            ALL_LAYERS, training_params__loss={"type": "TTFS", "xi": 1, "regulariser": [{"type": "early_output"}]}
        ),
    ],
    ids=["sizes", "layers"],
)
def test_whatever_stands_in_a_config_is_translated_or_an_error(config):
    for path in places(config):
        for value in (None, True, "x", [], [None], {}, {"a": None}, -1, 10**30, float("nan"), float("inf"), [1] * 7):
            changed = copy.deepcopy(config)
            place = changed
            for key in path[:-1]:
                place = place[key]
            if path:
                place[path[-1]] = value
            with contextlib.suppress(ValueError):  # and no other error
                load_config(translate(changed if path else value).config)


def test_what_our_config_refuses_names_the_file(tmp_path):
    (path := tmp_path / "theirs.yaml").write_text(yaml.safe_dump(sizes_config(training_params__epoch_number=0)))
    with pytest.raises(ValueError, match=r"theirs\.yaml, translated: 1 error\s+training\.epochs: should be greater"):
        import_config(path)
