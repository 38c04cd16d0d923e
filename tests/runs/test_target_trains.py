"""Runs whose labels are target trains: new samples, results, and what is no train."""

import math

import pytest
import torch

import firstspike as fs
from firstspike.data import SpikeData
from firstspike.runs.evaluate import prediction_table

INPUTS = (5 * torch.rand(12, 4, 3, generator=torch.Generator().manual_seed(0))).sort(-1).values
TARGETS = torch.tensor([[[1.0, 4.0], [2.0, math.inf]]]).repeat(12, 1, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    layer = fs.SpikeTrains(4, 2, 40, until=10.0, overflow="drop", generator=torch.Generator().manual_seed(0))
    network = fs.Network(layer)
    trainer = fs.Trainer(network, fs.losses.VanRossum(1.0), torch.optim.Adam(network.parameters(), 1e-3))
    data = SpikeData(INPUTS, TARGETS)
    return trainer.fit(data, data, epochs=1, folder=tmp_path_factory.mktemp("targets") / "run", progress_bar=False)


def test_new_samples(run):
    found = torch.from_numpy(run.predict(INPUTS[:3]))
    torch.testing.assert_close(found, run.network(INPUTS[:3]).detach(), rtol=0, atol=0)
    assert prediction_table(run, INPUTS[:3]).startswith("target 0,target 1\n")
    assert run.evaluate().loss == pytest.approx(run.evaluate("validation").loss)


def test_targets_may_all_be_at_time_1():
    """Which as inputs would look like a raster."""
    assert SpikeData(INPUTS, torch.ones(12, 2, 1)).labels.shape == (12, 2, 1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (TARGETS.flip(-1), r"^labels: expected spike trains sorted .*, sort them with labels\.sort\(dim=-1\)\.values"),
        (TARGETS * math.nan, r"^labels: expected numbers or inf \(no spike\), got NaN or -inf"),
    ],
)
def test_labels_that_are_no_trains(labels, message):
    with pytest.raises(ValueError, match=message):
        SpikeData(INPUTS, labels)
