"""EarlyStopping: which values are better, and with restore_best networks end with the weights of their best epoch."""

import math

import pytest
import torch

import firstspike as fs
from firstspike.training.callbacks import Callbacks

DATA = fs.data.DATASETS["yin_yang"](train=60, validation=40, test=20)


class Best(fs.Callback):
    """Keeps what each network was at its best epoch."""

    essential = True

    def __init__(self):
        self.weights = {}

    def on_epoch_end(self, fit, row):
        with fit.trainer.averaged():
            for k, (member, better) in enumerate(zip(fit.trainer.members, fit.improved, strict=True)):
                if better:
                    self.weights[k] = {name: x.clone() for name, x in member.network.state_dict().items()}


def trainer_of(count=1, **options):
    torch.manual_seed(3)
    nets = [fs.Network(fs.LIFLinear(DATA.train.features, 12), fs.LIFLinear(12, 3)) for _ in range(count)]
    lr = 0.3 if options.get("weight_average") else 0.6  # the sixth epoch is worse than one before
    optimizers = [torch.optim.Adam(net.parameters(), lr=lr) for net in nets]
    return fs.Trainer(nets, fs.losses.TimeCrossEntropy(xi=0.2), optimizers, **options)


def fit(trainer, epochs=6, callbacks=(), **options):
    stopping = fs.EarlyStopping(patience=50, restore_best=True)
    settings = {"batch_size": 20, "test": DATA.test, "progress_bar": False}
    both = [*callbacks, stopping]
    return trainer.fit(DATA.train, DATA.validation, epochs=epochs, callbacks=both, **settings | options)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("average", [None, 0.8])
@pytest.mark.parametrize("count", [1, 3])
def test_networks_end_with_the_weights_of_their_best_epoch(count, average):
    trainer, best = trainer_of(count, weight_average=average), Best()
    result = fit(trainer, callbacks=[best])
    for k, member in enumerate(trainer.members):
        assert same(member.network.state_dict(), best.weights[k])
        assert result.validations[k].accuracy == result.best_validation_accuracy[k]
    assert result.tests[0].loss == trainer.evaluate(DATA.test).loss
    assert result.metrics["validation_accuracy"][-1] < sum(result.best_validation_accuracy) / count


@pytest.mark.parametrize("average", [None, 0.8])
def test_a_training_goes_on_from_its_last_weights(tmp_path, average):
    whole = fit(trainer_of(weight_average=average), 8, folder=tmp_path / "whole")
    fit(trainer_of(weight_average=average), 6, folder=tmp_path / "parts")
    parts = fit(trainer_of(weight_average=average), 8, folder=tmp_path / "parts", resume=True)
    assert parts.metrics["validation_loss"].tolist() == whole.metrics["validation_loss"].tolist()
    for run in (whole, parts):
        assert run.validation.accuracy == max(run.metrics["validation_accuracy"])
        assert run.results["validation"]["accuracy"] == run.results["best_validation_accuracy"]
        again = fs.Run(run.folder)
        assert same(again.network.state_dict(), whole.network.state_dict())
        assert again.validation.accuracy == run.validation.accuracy
        assert same(again.network.state_dict(), fs.Run(run.folder, checkpoint="best").network.state_dict())
    done = fit(trainer_of(weight_average=average), 8, folder=tmp_path / "parts", resume=True)
    assert done.validation.accuracy == whole.validation.accuracy


class Higher:
    """A metric that says which values are better, as torchmetrics do."""

    higher_is_better = True

    def __call__(self, output, labels):
        return 0.0


class Seen:
    """A training whose metrics are given."""

    def __init__(self, metrics):
        own = {"f1": lambda output, labels: 0.0, "balanced_accuracy": metrics.get, "higher": Higher()}
        objective = fs.training.objective.Objective(None, metrics=own | metrics)
        self.trainer, self.finished, self.improved, self.epoch, self.epochs = Fake(objective), False, [], 0, 99


class Fake:
    def __init__(self, objective):
        self.objective, self.members = objective, []


@pytest.mark.parametrize(
    ("metric", "mode", "highest"),
    [
        ("validation_r2", None, True),
        ("validation_accuracy", None, True),
        ("train_accuracy", None, True),
        ("validation_balanced_accuracy", None, True),
        ("validation_higher", None, True),
        ("validation_loss", None, False),
        ("train_mae", None, False),
        ("silent_0", None, False),
        ("validation_f1", "max", True),
        ("validation_f1", "min", False),
        ("validation_loss", "max", True),
        ("validation_r2", "min", False),
    ],
)
def test_metrics_say_which_values_are_better(metric, mode, highest):
    stopping, fit = fs.EarlyStopping(patience=2, metric=metric, mode=mode), Seen({})
    ended = None
    stopping.on_fit_start(fit)
    for epoch in range(10):
        stopping.on_epoch_end(fit, {metric: 0.1 * epoch})
        ended = epoch if fit.finished and ended is None else ended
    assert ended == (None if highest else 2)


def test_a_metric_that_does_not_say_which_values_are_better():
    with pytest.raises(ValueError, match=r"which validation_f1 is better\? Set mode='max' or mode='min'"):
        fs.EarlyStopping(metric="validation_f1").on_fit_start(Seen({}))
    with pytest.raises(ValueError, match="mode must be one of min, max"):
        fs.EarlyStopping(metric="validation_f1", mode="highest")


def test_the_network_ends_with_the_weights_of_its_highest_r2():
    values = torch.rand(90, 3, generator=torch.Generator().manual_seed(0))
    splits = fs.data.split(values, values @ torch.tensor([1.0, -0.5, 0.2]), encode={}, regression=True)
    torch.manual_seed(1)
    net = fs.Network(fs.LIFLinear(6, 20), fs.IntegralReadout(20, 1))
    trainer = fs.Trainer(net, fs.losses.ReadoutRegression(), torch.optim.Adam(net.parameters(), lr=0.05))
    stopping = fs.EarlyStopping(patience=4, metric="validation_r2", restore_best=True)
    options = {"epochs": 15, "batch_size": 12, "progress_bar": False, "callbacks": [stopping]}
    result = trainer.fit(splits.train, splits.validation, **options)
    assert result.epochs > 5
    assert result.validation.metrics["r2"] == pytest.approx(max(result.metrics["validation_r2"]))


def test_two_of_a_class_resume_each_with_its_own_state(tmp_path):
    def pair():
        patient = fs.EarlyStopping(patience=3, metric="train_loss", min_delta=100)
        return patient, fs.EarlyStopping(patience=50, metric="validation_loss")

    def train(one, other, epochs):
        settings = {"batch_size": 20, "progress_bar": False, "folder": tmp_path / "run", "resume": True}
        return trainer_of().fit(DATA.train, DATA.validation, epochs=epochs, callbacks=[one, other], **settings)

    one, other = pair()
    train(one, other, 3)
    again = pair()
    assert train(*again, 9).epochs == 4
    assert again[0].best == one.best
    done = pair()
    assert train(*done, 9).epochs == 4  # the second one, which would go on, does not undo that the first one stopped
    assert [x.waited >= x.patience for x in done] == [True, False]


def test_states_saved_under_the_name_of_the_class_alone_are_restored():
    both = [fs.EarlyStopping(metric="validation_accuracy"), fs.EarlyStopping(metric="train_loss")]
    Callbacks(both).load_state_dict({"EarlyStopping": {"best": -0.9, "waited": 4}})
    assert [(x.best, x.waited) for x in both] == [(-0.9, 4), (math.inf, 0)]


def test_a_stopped_training_and_one_that_is_interrupted(tmp_path):
    stopping = fs.EarlyStopping(patience=1, metric="train_loss", min_delta=100, restore_best=True)
    trainer = trainer_of()
    result = trainer.fit(DATA.train, DATA.validation, epochs=9, batch_size=20, callbacks=[stopping], progress_bar=False)
    first = trainer_of()
    first.fit(DATA.train, epochs=1, batch_size=20, progress_bar=False)
    assert result.epochs == 2
    assert same(trainer.network.state_dict(), first.network.state_dict())
    calls = iter(range(100))
    with pytest.raises(fs.training.Interrupted):
        fit(trainer_of(), folder=tmp_path / "run", stop=lambda: next(calls) == 10)
    resumed = fit(trainer_of(), folder=tmp_path / "run", resume=True)
    whole = fit(trainer_of())
    assert resumed.tests[0].loss == whole.tests[0].loss
