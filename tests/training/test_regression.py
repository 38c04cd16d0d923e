"""Labels that are numbers: data, loss, metrics, training, runs."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

import firstspike as fs
from firstspike.data import file_splits

VALUES = np.random.default_rng(1).random((90, 3))
TARGETS = np.stack([VALUES @ [1.0, -0.5, 0.2], VALUES[:, 0] ** 2], axis=1)


@pytest.fixture(scope="module")
def splits():
    return fs.data.split(VALUES, TARGETS, encode={}, regression=True, class_names=("sum", "square"))


def trainer(outputs=2, **options):
    torch.manual_seed(1)
    network = fs.Network(fs.LIFLinear(6, 20), fs.IntegralReadout(20, outputs))
    return fs.Trainer(
        network, fs.losses.ReadoutRegression(), torch.optim.Adam(network.parameters(), lr=0.01), **options
    )


def test_data(splits):
    assert splits.train.regression
    assert (splits.train.labels.shape, splits.train.labels.dtype) == ((72, 2), torch.float32)
    assert repr(splits.train) == "SpikeData(72 samples, 6 inputs, 2 targets)"
    assert splits.train.to(dtype=torch.float64).labels.dtype == torch.float64
    alone = fs.data.SpikeData([[0.1], [0.2]], [0.5, 1.5])
    assert (alone.labels.tolist(), alone.class_names) == ([[0.5], [1.5]], ("target",))
    with pytest.raises(ValueError, match=r"labels: expected finite numbers \(2, 1\), a row per sample and a column"):
        fs.data.SpikeData([[0.1], [0.2]], [0.5, np.nan])
    with pytest.raises(ValueError, match="labels: expected int64"):
        fs.data.SpikeData([[0.1], [0.2]], [0.0, 1.0], ("a", "b"))  # classes, by their names


def test_files(tmp_path):
    rows = "".join(f"{a},{b},{c},{t}\n" for (a, b, c), t in zip(VALUES, TARGETS[:, 0], strict=True))
    (tmp_path / "table.csv").write_text("a,b,c,sum\n" + rows)
    found = file_splits(tmp_path / "table.csv", encode={}, regression=True, class_names=("sum",))
    assert (found.train.labels.shape, found.train.class_names) == ((72, 1), ("sum",))
    np.savez(tmp_path / "table.npz", values=VALUES, labels=TARGETS)
    assert file_splits(tmp_path / "table.npz", encode={}, regression=True).train.labels.shape == (72, 2)
    (tmp_path / "wrong.csv").write_text("a,b,sum\n1,2,many\n")
    with pytest.raises(ValueError, match=r"wrong.csv: labels: expected a finite number, got 'many' for line 2"):
        file_splits(tmp_path / "wrong.csv", encode={}, regression=True)


@pytest.mark.parametrize(
    ("error", "of_torch"),
    [("squared", torch.nn.MSELoss()), ("absolute", torch.nn.L1Loss()), ("huber", torch.nn.HuberLoss())],
)
def test_losses_are_those_of_torch(error, of_torch):
    output, labels = torch.randn(7, 2), 2 * torch.randn(7, 2)
    torch.testing.assert_close(fs.losses.ReadoutRegression(error)(output, labels), of_torch(output, labels))
    with pytest.raises(ValueError, match=r"labels: expected a number for each output, \(7, 2\), got torch.int64"):
        fs.losses.ReadoutRegression(error)(output, torch.zeros(7, dtype=torch.int64))


def test_training(splits):
    using = trainer(metrics={"worst": lambda output, labels: (output - labels).abs().amax()})
    result = using.fit(splits.train, splits.validation, epochs=40, batch_size=12, test=splits.test, progress_bar=False)
    found, labels, values = result.test, splits.test.labels, result.test.predictions
    assert found.metrics["mae"] == pytest.approx(mean_absolute_error(labels, values), rel=1e-5)
    assert found.metrics["mse"] == pytest.approx(mean_squared_error(labels, values), rel=1e-5)
    assert found.metrics["r2"] == pytest.approx(r2_score(labels, values), rel=1e-5)
    assert found.metrics["worst"] == pytest.approx(float((labels - values).abs().max()))
    assert found.score == found.metrics["r2"]
    assert result.metrics["validation_r2"][-1] > max(0.3, result.metrics["validation_r2"][0])
    assert result.metrics["train_mae"][-1] < result.metrics["train_mae"][0]
    assert "accuracy" not in " ".join([*result.metrics, repr(found), repr(result)])


def test_torchs_own_losses_train_the_same(splits):
    found = []
    for loss in (fs.losses.ReadoutRegression(), torch.nn.MSELoss()):
        using = trainer()
        using.objective.loss = loss
        found.append(using.fit(splits.train, splits.validation, epochs=2, batch_size=12, progress_bar=False))
    assert found[0].metrics["validation_mse"] == pytest.approx(found[1].metrics["validation_mse"], rel=1e-5)


def test_early_stopping_keeps_the_best(splits):
    using = trainer()
    stopping = fs.EarlyStopping(patience=3, restore_best=True)
    result = using.fit(
        splits.train, splits.validation, epochs=12, batch_size=12, progress_bar=False, callbacks=[stopping]
    )
    assert result.validation.score == pytest.approx(max(result.metrics["validation_r2"]))


def test_runs(splits, tmp_path, command_here):
    run = trainer().fit(
        splits.train, splits.validation, epochs=2, batch_size=12, test=splits.test, progress_bar=False,
        folder=tmp_path / "run",
    )  # fmt: skip
    opened = fs.Run(tmp_path / "run")
    values = opened.predict(VALUES[:4])
    assert values.shape == (4, 2)
    assert opened.results["test"]["metrics"]["r2"] == pytest.approx(run.test.score)
    assert opened.evaluate("test").metrics == run.test.metrics
    assert np.isnan(opened.best_validation_accuracy)
    whole = opened.resume(epochs=3, progress_bar=False)
    assert whole.epochs == 3
    shown = command_here("evaluate", tmp_path / "run").stdout
    assert "test mae " in shown
    assert "r2 " in shown
    assert "accuracy" not in shown
    np.save(tmp_path / "new.npy", VALUES[:2])
    assert command_here("predict", tmp_path / "run", tmp_path / "new.npy").stdout.splitlines()[0] == "sum,square"


def test_networks_side_by_side_learn_as_alone(splits):
    def pair():
        torch.manual_seed(1)
        networks = [fs.Network(fs.LIFLinear(6, 8), fs.IntegralReadout(8, 2)) for _ in range(2)]
        optimizers = [torch.optim.Adam(network.parameters(), lr=0.01) for network in networks]
        return networks, optimizers

    networks, optimizers = pair()
    both = fs.Trainer(networks, fs.losses.ReadoutRegression(), optimizers)
    found = both.fit(splits.train, splits.validation, epochs=2, batch_size=12, progress_bar=False)
    networks, optimizers = pair()
    alone = fs.Trainer(networks[0], fs.losses.ReadoutRegression(), optimizers[0])
    wanted = alone.fit(splits.train, splits.validation, epochs=2, batch_size=12, progress_bar=False)
    assert found.validations[0].metrics == pytest.approx(wanted.validation.metrics, rel=1e-5)


def test_figures_and_report(splits, tmp_path):
    run = trainer().fit(
        splits.train, splits.validation, epochs=2, batch_size=12, test=splits.test, progress_bar=False,
        folder=tmp_path / "run",
    )  # fmt: skip
    names = {path.stem for path in run.plot()}
    assert names >= {"summary", "loss_and_error", "confusion", "membrane", "raster"}
    assert not names & {"dataset", "margins", "output_times"}
    figure = fs.plots.PLOTS["confusion"](run)
    (ax,) = figure.axes
    assert [line.get_label() for line in ax.lines[:2]] == ["sum", "square"]
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), splits.test.labels[:, 1])
    page = run.report().read_text()
    assert "Predictions" in page
    assert "test mae" in page
    assert "accuracy" not in page.partition("<script")[0]
