"""The set of problems with 50-digit answers: firstspike solves its committed part, and the files are what they say."""

import dataclasses
import json
import sys
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest

from fifty_digits import first_spike, spike_train

FOLDER = Path(__file__).parents[1] / "benchmarks" / "exactness"
MODULES = ("check", "hard_families", "lines", "make", "other_neurons", "random_families", "score", "solver", "systems")


@pytest.fixture(scope="module")
def scripts():
    """``check`` and ``make``, imported as their commands do."""
    sys.path.insert(0, str(FOLDER))
    try:
        import check
        import make

        yield check, make
    finally:
        sys.path.remove(str(FOLDER))
        for name in [x for x in sys.modules if x.split(".")[0] in MODULES]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def layers(scripts):
    return scripts[0].read(FOLDER / "small.jsonl")


@pytest.mark.slow  # it has kernels of its own to compile
def test_firstspike_solves_all(scripts, layers):
    found = scripts[0].checked("firstspike", layers)["scores"]
    groups = {name: score for name, score in found.items() if ":" not in name}
    assert groups.keys() == {"random", "hard", "trains", "hard trains", "other neurons"}
    assert sum(x["problems"] for x in groups.values()) > 200
    for name, score in found.items():
        assert score["problems"] == score["compared"], name
        assert [score[x] for x in ("cannot", "raised", "beyond", "missed", "invented", "far")] == [0] * 6, name
        # as near as 16 units of rounding of the threshold, and one of the time, allow
        assert score["errors"] is None or score["allowed"]["largest"] < 2, name
    for name in ("random", "trains", "other neurons"):
        assert groups[name]["errors"]["largest"] < 1e-13
        assert max(groups[name][x]["largest"] for x in ("by_weight", "by_time")) < 1e-13
    assert not any(x.endswith("not_finite") for score in found.values() for x in score)


def test_a_system_is_compared_with_the_answers(scripts, layers):
    """A system that is late, silent, early or raises is found out, and what doubles cannot tell does not count."""
    from score import asked
    from systems.base import Found, System

    class Wrong(System):
        def cannot(self, layer):
            return "trains" if layer.kind == "train" else ""

        def first(self, layer, factors):
            if layer.family == "ties":
                raise ValueError("no")
            answers = [[float(x[0]) if x else np.inf for x in row] for row in layer.spikes]
            moved = {"uniform": 1e-3, "trained": 1.0, "peaks": np.inf}.get(layer.family, 0.0)
            found = np.array(answers) + moved
            if layer.family == "dips":
                found[:] = np.inf
            if layer.family == "brief":
                found[~np.isfinite(found)] = 1.0
            return Found(found, *(np.full(np.shape(x), 2.0) for x in (layer.weights, layer.times)))

    unsure = dataclasses.replace(layers[0], family="unsure", beyond=[[True] * 4] * 2)
    scores = asked(Wrong(), [*layers, unsure])
    spikes = {x.family: 0 for x in layers}
    for layer in layers:
        spikes[layer.family] += int(layer.fires.sum())
    uniform = scores["random: uniform"].summary()
    assert uniform["errors"] == {"median": 1e-3, "largest": 1e-3}
    assert uniform["by_weight"]["largest"] > 0.1
    assert scores["random: trained"].far == spikes["trained"]
    assert scores["hard: peaks"].missed == spikes["peaks"]
    assert scores["hard: dips"].missed == spikes["dips"]
    assert scores["hard: brief"].invented == sum((~x.fires).sum() for x in layers if x.family == "brief") > 0
    assert scores["hard: ties"].errors_raised == {"ValueError: no": scores["hard: ties"].raised}
    assert scores["trains"].cannot == scores["trains"].problems
    assert (scores["random: unsure"].compared, scores["random: unsure"].beyond) == (0, 8)


def test_layers_are_drawn_again(scripts, layers, tmp_path):
    """From seed and number alone, with the same answers; a file is read as it was written."""
    _, make = scripts
    import lines

    stored = {x.id: x for x in layers}
    for name, number in (("uniform", 1), ("peaks", 0), ("close", 2), ("refractory", 1)):
        again = make.cut(make.made((1000, name, number)))
        assert lines.to_json(again) == lines.to_json(stored[again.id])
    lines.write(tmp_path / "again.jsonl.gz", layers)
    assert list(map(lines.to_json, lines.read(tmp_path / "again.jsonl.gz"))) == list(map(lines.to_json, layers))
    assert (FOLDER / "small.jsonl").stat().st_size < 400_000


def test_arrays_have_the_same_values(scripts, layers, tmp_path):
    import lines

    lines.write_arrays(tmp_path / "set.npz", layers)
    with np.load(tmp_path / "set.npz") as arrays:
        assert list(arrays["id"]) == [x.id for x in layers]
        for k, layer in enumerate(layers):
            samples, neurons, inputs = arrays["shape"][k]
            begin, end = arrays["times_at"][k : k + 2]
            assert (arrays["times"][begin:end].reshape(samples, inputs) == layer.times).all()
            begin, end = arrays["by_weight_at"][k : k + 2]
            assert (
                arrays["by_weight"][begin:end].reshape(samples, neurons, inputs) == layer.gradients("by_weight")
            ).all()
            begin, end = arrays["spikes_of_at"][k : k + 2]
            assert arrays["spikes_of"][begin:end].tolist() == [len(x) for row in layer.spikes for x in row]


def test_answers_are_those_of_another_solver(layers):
    """The solver of the set and that of the tests share no code."""
    for layer in layers:
        if layer.neuron != "lif" or layer.delays is not None or layer.family == "ratios":
            continue
        neuron = layer.tau_mem, layer.tau_syn, layer.threshold
        for times, row in zip(layer.times.tolist()[:1], layer.spikes, strict=False):
            for weights, answers in zip(layer.weights.tolist()[:2], row, strict=False):
                if layer.kind == "train":
                    found, _ = spike_train(times, weights, *neuron, refractory=layer.refractory)
                else:
                    spike = first_spike(tuple(times), tuple(weights), *neuron)
                    found = [spike] if spike < np.inf else []
                assert len(found) == len(answers), layer.id
                with mp.workdps(60):
                    for spike, answer in zip(found, answers, strict=True):
                        assert abs(spike - mp.mpf(answer)) < 1e-35, layer.id


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1 + 1e-9, 10.0, np.inf])
def test_derivatives_are_those_of_differences(scripts, ratio):
    """Of a first spike and of a sum of spikes, by weights and times."""
    from solver import Neuron, first_spike, train

    random = np.random.default_rng(7)
    times, weights = random.uniform(0, 3, 6).tolist(), (3 * random.normal(1, 1, 6) / min(ratio, 1.0)).tolist()
    neuron, step = Neuron(ratio, refractory=0.3), mp.mpf(10) ** -30

    for solve in (first_spike, train):

        def total(given, solve=solve):
            return mp.fsum(solve(neuron, *given).spikes)

        with mp.workdps(120):
            given = [mp.mpf(x) for x in times], [mp.mpf(x) for x in weights]
            found = solve(neuron, *given)
            assert found.spikes
            for which, derivatives in ((1, found.by_weight), (0, found.by_time)):
                for k in range(6):
                    ends = []
                    for sign in (1, -1):
                        moved = [list(x) for x in given]
                        moved[which][k] += sign * step
                        ends.append(total(moved))
                    assert abs((ends[0] - ends[1]) / (2 * step) - derivatives[k]) < 1e-25 * (1 + abs(derivatives[k]))


@pytest.mark.slow
def test_lines_are_as_the_schema_says():
    from jsonschema import Draft202012Validator

    schema = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for line in (FOLDER / "small.jsonl").read_text(encoding="utf-8").splitlines():
        validator.validate(json.loads(line))
