"""EarlyStopping(restore_best=True): networks end with the weights of their best epoch."""

import pytest
import torch

import firstspike as fs

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
    return fs.Trainer(nets, fs.losses.TimeCrossEntropy(), optimizers, **options)


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
