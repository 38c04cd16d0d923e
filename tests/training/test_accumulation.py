"""Batches that share a step, and schedules by batch or by results: against large batches, and resumed bit for bit."""

from functools import partial

import pytest
import torch
from torch.optim import lr_scheduler

import firstspike as fs
from firstspike.config import build, load_config
from firstspike.config.describer import describe
from firstspike.training import Interrupted

DATA = [fs.data.bars(samples=n, seed=seed) for n, seed in ((65, 1), (30, 2))]
PLATEAU = partial(lr_scheduler.ReduceLROnPlateau, patience=0, threshold=0.5)
CYCLE = partial(lr_scheduler.OneCycleLR, max_lr=0.05, total_steps=8)


def train(
    batch_size,
    accumulate=1,
    schedule=None,
    schedule_by="epoch",
    stop=None,
    count=1,
    average=None,
    sums=False,
    **options,
):
    networks = []
    for seed in range(count):
        torch.manual_seed(seed)
        first = fs.LIFLinear(9, 12, weight_mean=0.6, weight_std=0.3)
        networks.append(fs.Network(first, fs.LIFLinear(12, 3, weight_mean=1.0, weight_std=0.4)))
    optimizers = [torch.optim.Adam(x.parameters(), lr=0.02) for x in networks]
    if sums:  # the scale of the gradient counts
        optimizers = [torch.optim.SGD(x.parameters(), lr=1e-3) for x in networks]
    schedules = None if schedule is None else [schedule(x) for x in optimizers]
    loss, off = fs.losses.TimeCrossEntropy(reduction="sum" if sums else "mean"), fs.SilentNeurons(limits=1)
    settings = {"schedule": schedules, "schedule_by": schedule_by, "accumulate": accumulate, "silent": off}
    trainer = fs.Trainer(networks, loss, optimizers, weight_average=average, **settings)
    if stop is not None:
        batches = iter(range(stop))
        options["stop"] = lambda: next(batches, None) is None
    trainer.fit(*DATA, epochs=4, batch_size=batch_size, progress_bar=False, **options)
    return trainer


def weights(trainer, member=0):
    return torch.cat([p.detach().flatten() for p in trainer.members[member].network.parameters()])


def rate(trainer, member=0):
    return trainer.members[member].optimizer.param_groups[0]["lr"]


def test_small_batches_learn_like_one_large():
    large, small = train(40), train(10, 4)  # of 65 samples: the last step has the 25 that are left
    assert torch.allclose(weights(large), weights(small), atol=1e-5)
    assert not torch.allclose(weights(large), weights(train(10)), atol=1e-3)


def test_sums_over_samples_add_up():
    large, small = train(40, sums=True), train(10, 4, sums=True)
    assert torch.allclose(weights(large), weights(small), atol=1e-5)
    assert not torch.allclose(weights(large), weights(train(10, sums=True)), atol=1e-4)


def test_weights_are_averaged_after_each_step():
    large, small = train(40, average=0.5), train(10, 4, average=0.5)
    assert [x.members[0].average.batches for x in (large, small)] == [8, 8]
    with large.averaged(), small.averaged():
        assert torch.allclose(weights(large), weights(small), atol=1e-5)


@pytest.mark.parametrize(("schedule", "by"), [(PLATEAU, "epoch"), (CYCLE, "batch")])
@pytest.mark.parametrize("stop", [2, 9, 12])
def test_a_stopped_training_continues_bit_for_bit(schedule, by, stop, tmp_path):
    whole = train(10, 4, schedule, by)
    with pytest.raises(Interrupted):
        train(10, 4, schedule, by, stop, folder=tmp_path / "run")
    train_on = train(10, 4, schedule, by, folder=tmp_path / "run", resume=True)
    assert torch.equal(weights(whole), weights(train_on))
    assert rate(whole) == rate(train_on)


def test_rates_follow_results_or_batches():
    assert rate(train(20, schedule=PLATEAU)) < 0.02
    trainer = train(20, 2, CYCLE, "batch")
    assert trainer.members[0].schedule.last_epoch == 8  # 4 epochs of 2 steps
    with pytest.raises(ValueError, match="leave out schedule_by='batch'"):
        train(20, schedule=PLATEAU, schedule_by="batch")
    with pytest.raises(ValueError, match="accumulate must be"):
        train(20, 0)


@pytest.mark.parametrize(("schedule", "by"), [(PLATEAU, "epoch"), (CYCLE, "batch")])
def test_networks_in_parallel_learn_at_the_rates_that_each_has_alone(schedule, by):
    batches = {CYCLE: partial(CYCLE, total_steps=16)}.get(schedule, schedule)
    both, alone = train(20, 1, batches, by, count=2), train(20, 1, batches, by)
    assert rate(both) == rate(alone)
    assert torch.allclose(weights(both), weights(alone), atol=1e-6)


def test_a_config_has_the_same():
    settings = ["training.accumulate=3", "training.schedule={kind: plateau, factor: 0.5, patience: 2, min_lr: 0.001}"]
    config = load_config("bars", settings)
    trainer = build(config)
    assert trainer.accumulate == 3
    assert trainer.members[0].schedule.min_lrs == [0.001]
    assert describe(trainer).training.schedule == config.training.schedule
    by_batch = ["training.schedule_by=batch", "training.schedule={kind: cosine}", "training.accumulate=3"]
    trainer = build(load_config("bars", by_batch))  # 300 samples in batches of 30
    assert trainer.members[0].schedule.epochs == 30 * 4
    assert describe(trainer).training.schedule_by == "batch"
