"""``benchmarks/recordings.py`` on recordings of a neuron that is known, in files as those of the competition."""

import json
import math
import runpy
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import firstspike as fs

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "recordings.py"
NAMES, SAMPLES, DT = ("00", "04", "05", "06", "08", "11"), 2500, 0.2


@pytest.fixture(scope="module")
def benchmark():
    return runpy.run_path(str(SCRIPT))


def write(folder, name, current, trains):
    """Samples with a spike, and columns of sample, current and voltage; the voltage is not used."""
    path = folder / "Challenge_A" / "training"
    path.mkdir(parents=True, exist_ok=True)
    for repeat, train in enumerate(trains):
        samples = np.round(train / DT)
        np.savetxt(path / f"{name}-{repeat}.spiketimes", np.stack([samples, np.full(len(samples), 3.0)], axis=1))
        columns = [np.arange(len(current)), current, np.full(len(current), -60.0)]
        np.savetxt(path / f"{name}-{repeat}.voltage", np.stack(columns, axis=1))


def test_reads_stimuli(benchmark, tmp_path):
    current = np.where((np.arange(100) >= 10) & (np.arange(100) < 90), 200.0, 0.625)
    trains = [np.array([4.0, 8.0, 12.0]), np.array([4.2, 8.0]), np.array([4.0, 8.0, 12.4])]
    write(tmp_path, "05", current, trains)
    stimulus = benchmark["read"](tmp_path, "05")
    torch.testing.assert_close(stimulus.current, torch.from_numpy(current))
    assert stimulus.trains.shape == (3, 3)
    assert stimulus.trains[1].tolist() == pytest.approx([4.2, 8.0, math.inf])
    assert (stimulus.until, stimulus.duration) == pytest.approx((20.0, 16.0))
    (fold,) = benchmark["folds"]("time", {"05": stimulus})
    first, second = fold.seen[0], fold.held_out["05"]
    assert (first.until, first.duration, second.duration) == pytest.approx((10.0, 8.0, 8.0))
    assert second.score(torch.tensor([4.0, 12.1])).isclose(second.score(torch.tensor([12.1]))).all()
    with pytest.raises(SystemExit, match="no recordings 06-"):
        benchmark["read"](tmp_path, "06")


def test_reliability_by_hand(benchmark):
    current = torch.full((5000,), 200.0)  # for 1000 ms
    first, second = [100.0, 200.0, 300.0, 400.0], [102.0, 202.2, 300.0, math.inf]  # two of three coincide
    stimulus = benchmark["Stimulus"](current, torch.tensor([first, second], dtype=torch.float64))
    mean = 0.0
    for ours, theirs in ((4, 3), (3, 4)):
        chance = 2 * 2 * ours / 1000
        mean += (2 - chance * theirs) / 3.5 / (1 - chance) / 2
    assert stimulus.reliability == pytest.approx(mean, rel=1e-6)


def test_each_stimulus_is_held_out_once(benchmark):
    stimuli = {name: benchmark["Stimulus"](torch.full((50,), 200.0), torch.full((1, 1), 5.0)) for name in NAMES}
    each = benchmark["folds"]("stimuli", stimuli)
    assert sorted(name for fold in each for name in fold.held_out) == list(NAMES)
    for fold in each:
        assert len(fold.seen) == 4
        assert not any(x is y for x in fold.seen for y in fold.held_out.values())


def test_search_finds_the_best(benchmark):
    goal = torch.tensor([1.0, -0.5, 0.2])
    slopes = torch.tensor([1.0, 3.0, 10.0])
    best = benchmark["search"](lambda x: -((x - goal) * slopes).square().sum(dim=-1), torch.zeros(3), 30, seed=0)
    torch.testing.assert_close(best, goal, rtol=0, atol=1e-2)


@pytest.mark.slow
def test_fits_a_neuron_that_it_knows(tmp_path):
    """The recorded neuron is a LIF neuron, so that the fit predicts spikes that it has not seen."""
    generator = torch.Generator().manual_seed(0)
    neuron = fs.LIF(8.0, 1.0, 1.0, reset=0.5, refractory=2.0)
    for name in NAMES:
        noise = torch.randn(SAMPLES // 25, generator=generator, dtype=torch.float64).repeat_interleave(25)
        current = (300.0 + 300.0 * noise).clamp(min=60.0)
        given = {"max_spikes": 400, "until": DT * SAMPLES, "current": fs.Current.sampled(current / 200, DT)}
        none, weight = torch.full((1, 1, 1), math.inf).double(), torch.zeros(1, 1).double()
        train = fs.spike_trains(none, weight, neuron, **given)[0, 0]
        train = train[train.isfinite()].numpy()
        assert len(train) > 10
        write(tmp_path, name, current.numpy(), [train, train + DT])
    store = tmp_path / "store.json"
    command = [
        sys.executable,
        SCRIPT,
        tmp_path,
        "--only",
        "LIF",
        "--seeds",
        "1",
        "--generations",
        "15",
        "--store",
        store,
    ]
    first, again = (subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(2))
    assert first.returncode == 0, first.stderr[-3000:]
    table = [line for line in first.stdout.splitlines() if line.startswith("| ")]
    assert table == again.stdout.splitlines(), "what is stored is not measured again"
    assert [len(row.split("|")) for row in table] == [len(NAMES) + 7] * 5
    found = json.loads(store.read_text("utf-8"))
    (one,) = found.values()
    assert sorted(one["scores"]) == list(NAMES)
    assert statistics.fmean(one["scores"].values()) > 0.9, one["scores"]
