"""Training, testing and resuming on substrates other than the exact one."""

import inspect
import json

import pytest
import torch

from firstspike.substrates import SUBSTRATES, Substrate
from firstspike.training.build import build, build_substrate
from firstspike.training.config import ConfigError, load_config, with_substrate
from firstspike.training.config.substrate import Exact, Integrator, MockBss2, Noisy
from firstspike.training.loaded import load_run
from firstspike.training.report import report
from firstspike.training.seeds import member_configs
from firstspike.training.session import start
from firstspike.training.trainers import InTurn, trainer_for

SHORT = ["training.epochs=3", "training.checkpoint_every=1"]
INTEGRATOR = "substrate={kind: integrator, step: 0.02, duration: 5}"


def settings_of(section):
    return set(section.model_fields) - {"kind"}


@pytest.mark.parametrize("section", [Exact, Integrator, Noisy, MockBss2])
def test_sections_match_their_classes(section):
    kind = section.model_fields["kind"].annotation.__args__[0]
    parameters = {} if kind == "exact" else inspect.signature(SUBSTRATES[kind]).parameters
    assert settings_of(section) == set(parameters)
    for name, parameter in parameters.items():
        assert section.model_fields[name].default == parameter.default


def test_kind_in_place_of_the_configs():
    assert load_config("bars", substrate="integrator").substrate == Integrator(kind="integrator")
    own = load_config("bars", [INTEGRATOR])
    assert with_substrate(own, "integrator").substrate.step == 0.02
    assert with_substrate(own, None) is own
    assert with_substrate(own, "exact").substrate == Exact()
    with pytest.raises(ConfigError, match=r"substrate.kind: expected one of 'exact', 'integrator'"):
        load_config("bars", substrate="loihi")
    with pytest.raises(ConfigError, match=r"substrate\.stepp: unknown key, did you mean step\?"):
        load_config("bars", ["substrate={kind: integrator, stepp: 0.1}"])
    with pytest.raises(ConfigError, match=r"step must not be longer than duration, got 0.1 and 0.05"):
        load_config("bars", ["substrate={kind: integrator, step: 0.1, duration: 0.05}"])


def test_several_seeds_take_turns():
    members = [build(x) for x in member_configs(load_config("bars", [INTEGRATOR, "training.seeds=2"]))]
    assert isinstance(trainer_for(members), InTurn)


def test_the_training_step_takes_the_times_of_the_substrate():
    experiment = build(load_config("bars", [INTEGRATOR]))
    data = experiment.data.train
    _, loss, layers = experiment.objective(experiment.network, data.times[:30], data.labels[:30])
    for layer in layers:
        grid = layer[torch.isfinite(layer)].detach() / 0.02
        torch.testing.assert_close(grid, grid.round(), rtol=0, atol=1e-3)
    loss.backward()
    assert float(experiment.network[0].weight.grad.abs().max()) > 0


@pytest.fixture(scope="module")
def integrated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("substrates") / "bars"
    start(folder, load_config("bars", [*SHORT, "training.epochs=15", INTEGRATOR]), show=False)
    return folder


def test_a_run_on_the_integrator_learns(integrated):
    run = load_run(integrated)
    assert run.results["test"]["accuracy"] > 0.6  # chance is a third
    assert run.evaluation.accuracy == run.results["test"]["accuracy"]
    assert run.substrate == "integrator"
    identity = json.loads((integrated / "environment.json").read_text())["substrate"]
    assert identity == {"kind": "integrator", "step": 0.02, "duration": 5.0}


def test_evaluate_elsewhere(integrated):
    here, there = report(integrated), report(integrated, substrate="exact")
    assert (here.name, there.name) == ("test", "test_on_exact")
    assert there.numbers["substrate"] == "exact"
    difference = (here.evaluation.times - there.evaluation.times).abs()
    both = torch.isfinite(here.evaluation.times) & torch.isfinite(there.evaluation.times)
    assert 0 < float(difference[both].median()) < 0.06
    assert {path.name for path in there.save()} == {"test_on_exact.json", "test_on_exact.npz"}


class Broken(Substrate):
    kind = "exact"

    def open(self, network):
        raise OSError("no chip answers")

    def run(self, network, times):
        raise AssertionError("never open")


def test_a_substrate_that_does_not_open_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("firstspike.training.build.SUBSTRATES", {"exact": Broken})
    assert isinstance(build_substrate(load_config("bars")), Broken)
    with pytest.raises(OSError, match="no chip answers"):
        start(tmp_path / "run", load_config("bars", SHORT), show=False)
    assert not (tmp_path / "run").exists()
