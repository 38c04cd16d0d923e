import pytest
import yaml

from firstspike.config import ConfigError, load_config
from firstspike.configs import shipped_configs

GOOD = {
    "data": {"kind": "bars", "train": 30, "validation": 9, "test": 9},
    "network": [{"kind": "lif", "out_features": 5}, {"kind": "lif", "out_features": 3}],
    "loss": {"kind": "cross_entropy"},
    "training": {"epochs": 2, "batch_size": 10},
}


def errors_of(raw, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(raw, overrides) if isinstance(raw, str) else load_config(raw)
    return caught.value.errors


def written(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_shipped_configs_are_valid_and_survive_a_round_trip(name):
    config = load_config(name)
    assert load_config(yaml.safe_load(config.to_yaml())) == config


@pytest.mark.parametrize(
    ("setting", "errors"),
    [
        (
            "training.silent.limits=[0.1, 2]",
            [
                "training.silent.limits[1]: should be less than or equal to 1, got 2",
                "training.silent.limits: should be a valid number",
            ],
        ),
        (
            "network[0]={kind: multiplex, copies: 2, multiplex: 1}",
            ["network[0].multiplex: unknown key; valid keys: kind, copies"],
        ),
    ],
)
def test_places_of_values_of_several_kinds(setting, errors):
    assert errors_of("bars", setting)[: len(errors)] == errors


def test_overrides_change_values_at_any_depth():
    config = load_config(
        "yin_yang", ["training.optimizer.lr=1e-3", "network[1].out_features=30", "training.schedule=null"]
    )
    assert config.training.optimizer.lr == 1e-3
    assert config.network[1].out_features == 30
    assert config.training.schedule is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "expected a.b=value"),
        ("network[9].out_features=4", "the list has 4 entries"),
        ("data.kind.x=3", "cannot be set inside 'yin_yang'"),
        ("training.epochs=[1", "expected"),
        ("training.foo=1", "unknown key"),
    ],
)
def test_overrides_that_do_not_fit(setting, message):
    assert message in errors_of("yin_yang", setting)[0]


def test_all_errors_are_reported_together():
    raw = {
        "data": {"kind": "bars", "trian": 5},
        "neuron": {"tau_mem": -1, "tau_syn": float("nan")},
        "network": [{"kind": "lif", "out_features": 5, "wieght_mean": 1}, {"kind": "foo"}],
        "loss": {"kind": "cross_entropy", "xi": 0, "regularizers": [{"kind": "early_output", "alpah": 1}]},
        "training": {"epochs": 0, "silent": {"incremnt": 1}},
        "extra": 1,
    }
    errors = errors_of(raw)
    for start in (
        "data.trian: unknown key, did you mean train?",
        "neuron.tau_mem: should be greater than 0, got -1",
        "neuron.tau_syn: should be a finite number",
        "network[0].wieght_mean: unknown key, did you mean weight_mean?",
        "network[1].kind: expected one of 'lif', 'conv', 'conv1d', 'pool', 'merge_pool', 'delay', 'bias', "
        "'poisson_spikes', 'multiplex', 'dropout', 'concatenate', 'earliest', 'spike_trains', 'recurrent', "
        "'first_spike', 'integral', 'maximum', 'membrane', 'smooth_count', 'custom', got 'foo'",
        "loss.xi: should be greater than 0",
        "loss.regularizers[0].alpha: is missing",
        "training.epochs: should be greater than 0",
        "training.silent.incremnt: unknown key, did you mean increment?",
        "extra: unknown key",
    ):
        assert any(error.startswith(start) for error in errors), start


def test_a_wrong_size_is_found_beside_other_errors():
    raw = {**GOOD, "neuron": {"tau_mem": -1}, "network": [{"kind": "lif", "out_features": 4}]}
    errors = errors_of(raw)
    assert any("the last lif layer has 4 neurons, the data has 3 classes" in error for error in errors)
    assert any(error.startswith("neuron.tau_mem") for error in errors)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ([{"kind": "bias", "times": [1.0]}], "no layer of kind lif"),
        ([{"kind": "lif", "out_features": 3}, {"kind": "bias", "times": [1.0]}], "may follow the last lif layer"),
        ([{"kind": "lif", "out_features": 3, "weight_mean": 1}], "weight_mean and weight_std belong together"),
        ([{"kind": "lif", "out_features": 3, "delay_lr": 0.1}], "delay_lr needs delay"),
        (
            [{"kind": "delay", "copies": 2}, {"kind": "lif", "out_features": 3}],
            "2 copies cannot share delays among 9 features",
        ),
        (
            [
                {"kind": "multiplex", "copies": 4},
                {"kind": "bias", "times": [0.1]},
                {"kind": "delay", "copies": 4},
                {"kind": "lif", "out_features": 3},
            ],
            "network[2]: 4 copies cannot share delays among 37 features",
        ),
        (
            [{"kind": "delay", "rule": {"jitter": -1}}, {"kind": "lif", "out_features": 3}],
            "network[0].rule.jitter: should be greater than",
        ),
        (
            [{"kind": "delay", "rule": {"scale": float("inf")}}, {"kind": "lif", "out_features": 3}],
            "scale must be finite for the bound",
        ),
        (
            [{"kind": "delay", "rule": {"bound": "relu"}}, {"kind": "lif", "out_features": 3}],
            "should be 'sigmoid', 'softplus' or 'clip'",
        ),
        ([{"kind": "lif", "out_features": 3, "trainable": ["tau"]}], "network[0]: trainable must be some of tau_mem"),
        ([{"kind": "lif", "out_features": 3, "per_neuron": True}], "per_neuron=True needs trainable="),
        ([{"kind": "lif", "out_features": 3, "neuron_lr": 0.1}], "neuron_lr needs trainable"),
        (
            [{"kind": "lif", "out_features": 3, "trainable": ["tau_mem"], "neuron": {"tau_mem": float("inf")}}],
            "network[0]: tau_mem can only learn from a finite value > 0",
        ),
        ([], "at least 1 item"),
    ],
)
def test_networks_that_cannot_work(network, message):
    assert any(message in error for error in errors_of({**GOOD, "network": network}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [1]\nb: *a\n", "aliases"),
        ("a: 1\na: 2\n", "duplicate key"),
        ("[" * 5000, "nested too deeply"),
        ("a: [1,\n", "line 2"),
        ("- 1\n", "must be a mapping"),
        ("x" * 2_000_000, "larger than"),
    ],
    ids=["alias", "twice", "deep", "syntax", "list", "large"],
)
def test_files_that_are_no_config(tmp_path, text, message):
    assert message in errors_of(written(tmp_path, text))[0]


def test_errors_name_the_line(tmp_path):
    text = """
data: {kind: bars, trian: 5}
neuron: {tau_mem: -1}
network:
  - {kind: lif, out_features: 5}
  - kind: lif
    out_features: 4
loss:
  xi: 0.1
training:
  epochs: 0x_
  optimizer:
    kind: adma
"""
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, ["network[0].out_features=0", "network[1].out_feature=2"])
    assert str(caught.value).splitlines() == [
        f"{file}: 7 errors",
        "  data.trian: unknown key, did you mean train? valid keys: kind, train, validation, test, seeds, size, noise, "
        "early, late, silent_background (line 2)",
        "  neuron.tau_mem: should be greater than 0, got -1 (line 3)",
        "  network[0].out_features: should be greater than 0, got 0",
        "  network[1].out_feature: unknown key, did you mean out_features? valid keys: kind, out_features, neuron, "
        "delay, trainable, per_neuron, receptor, signs, weight_mean, weight_std, mask, synapses, max_weight_grad, "
        "until, silent, lr, neuron_lr, delay_lr",
        "  loss: needs a kind (line 8)",
        "  training.epochs: should be a valid integer, unable to parse string as an integer, got '0x_' (line 11)",
        "  training.optimizer.kind: expected one of 'adam', 'adamw', 'sgd', 'custom', got 'adma' (line 13)",
    ]


def test_sizes_that_do_not_fit_name_the_line(tmp_path):
    text = "data: {kind: bars}\nnetwork:\n- {kind: delay}\n- {kind: lif,\n   out_features: 4}\n"
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text + "loss: {kind: cross_entropy}\ntraining: {epochs: 1, batch_size: 1}\n"))
    assert [error.split(":")[0] for error in caught.value.errors] == ["network[1].out_features"]
    assert caught.value.lines == [5]


@pytest.mark.slow
def test_errors_are_lines_that_can_be_shown(tmp_path):
    text = 'data: {kind: "\\e]0;x", "a\\nb": 1}\nnetwork: [[' + "x, " * 10_000 + "x]]\n"
    errors = errors_of(written(tmp_path, text + f"loss: {{kind: {'long' * 1000}}}\n"))
    assert all(error.isprintable() and len(error) < 400 for error in errors)
    many = written(tmp_path, "data: {kind: pattern, patterns: [[" + "x, " * 10_000 + "x]]}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(many)
    assert len(str(caught.value).splitlines()) == 52
    assert "more" in str(caught.value).splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.n_seeds=1000000"], "training.n_seeds: should be less than or equal to 1000, got 1000000"),
        (["training.epochs=" + "9" * 90], "training.epochs: should be less than or equal to"),
        (["training.seed=99999999999999999999"], "training.seed: should be less than or equal to"),
        (["data.train=1000000000000"], "data.train: should be less than or equal to"),
        (["data.size=100000"], "data.size: should be less than or equal to"),
        (
            ["network[0].out_features=1000000", "network[1].out_features=3000"],
            "network[1]: 3000000000 weights are more than fit",
        ),
        (
            ["network[0]={kind: multiplex, copies: 1000000}", "network[1].out_features=1000"],
            "9000000000 weights are more than fit",
        ),
        (
            [
                "network=[{kind: spike_trains, out_features: 3000, max_spikes: 1000000}, {kind: first_spike}, "
                "{kind: lif, out_features: 3}]"
            ],
            "network[0].max_spikes: 1000000 spikes of 3000 neurons are more than fit; the most are 715827 of each",
        ),
        (
            ["network[0]={kind: spike_trains, out_features: 3000, max_spikes: 1e12}"],
            "network[0].max_spikes: should be less than or equal to 1000000",
        ),
        (["data={kind: yin_yang, r_small: 0.001}"], "r_small from r_big/20 to below r_big/2"),
        (["data={kind: yin_yang, seeds: [1, 2, 4294967296]}"], "seed must be >= 0 and <= 4294967295"),
        (
            ["data={kind: digits, train: 1790}"],
            "train, validation, test: expected at most 1797 images in total, got 2390",
        ),
        (["data={kind: pattern, patterns: [[], []]}"], "patterns: expected times >= 0 of shape"),
        (["substrate={kind: integrator, step: 1.0e-30}"], "1 to a million steps"),
        (["substrate={kind: mock_bss2, stall: 1, retries: 1000000000}"], "substrate.retries: should be less than"),
        (["training.optimizer.betas=[0.9, 1]"], "training.optimizer.betas[1]: should be less than 1"),
    ],
)
def test_bounds(settings, message):
    assert any(message in error for error in errors_of("bars", *settings)), errors_of("bars", *settings)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        (
            "training.silent=null",
            "training.silent: expected a section with the keys limits, increment, targeted, exponential, skip_step, "
            "got None; leave it out for the defaults",
        ),
        ("substrate=3", "substrate: expected a section with the key kind, got 3; leave it out for the defaults"),
        ("data=3", "data: expected a section with the key kind, got 3"),
        ("network[0]=3", "network[0]: expected a section with the key kind, got 3"),
    ],
)
def test_a_value_in_place_of_a_section(setting, error):
    assert errors_of("bars", setting) == [error]


def test_nothing_in_a_config_is_executed(tmp_path):
    mark = tmp_path / "executed"
    text = f'data: !!python/object/apply:os.system ["touch {mark}"]\n'
    assert "python/object" in errors_of(written(tmp_path, text))[0]
    assert not mark.exists()


def test_an_unknown_name_suggests_a_near_one():
    assert "did you mean yin_yang?" in errors_of("yin_yagn")[0]


def test_tau_mem_may_be_infinite():
    config = load_config("bars", ["neuron.tau_mem=.inf"])
    assert config.neuron.tau_mem == float("inf")
    assert load_config(yaml.safe_load(config.to_yaml())) == config


def test_a_neuron_without_leak_cannot_learn_to_have_one():
    train = "network[1].trainable=[threshold, tau_mem]"
    errors = errors_of("bars", "neuron.tau_mem=.inf", train)
    assert errors == ["network[1]: tau_mem can only learn from a finite value > 0, got inf"]
    assert load_config("bars", ["neuron.tau_mem=.inf", train, "network[1].neuron={tau_mem: 2}"]).network[1].trainable
