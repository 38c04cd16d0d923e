"""``Run``, one object: what ``fit`` returns and ``fs.Run`` opens, and rows in, names of classes out."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine

import firstspike as fs
from firstspike.runs.rows import input_times

WINE = load_wine()


class Frame:
    """What the frames of pandas and polars have in common."""

    def __init__(self, columns):
        self.columns = list(columns)
        self.values = columns

    def __getitem__(self, names):
        return Frame({name: self.values[name] for name in names})

    def __array__(self, dtype=None, copy=None):
        return np.stack(list(self.values.values()), axis=1).astype(dtype or float)

    def records(self):
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*self.values.values(), strict=True)]


class Words(Frame):
    """With columns of text, which arrays of NumPy hold as objects."""

    def __getitem__(self, names):
        return Words({name: self.values[name] for name in names})

    def __array__(self, dtype=None, copy=None):
        return np.stack([column.astype(object) for column in self.values.values()], axis=1)


def frame(every=1, without=()):
    columns = zip(WINE.feature_names, WINE.data[::every].T, strict=True)
    return Frame({name: column for name, column in columns if name not in without})


def trainer_of(data):
    torch.manual_seed(0)
    network = fs.Network(fs.LIFLinear(data.train.features, 20), fs.LIFLinear(20, 3))
    return fs.Trainer(network, fs.losses.TimeCrossEntropy(), torch.optim.Adam(network.parameters(), lr=0.01))


def trained(data, **options):
    options = {"epochs": 6, "batch_size": 20, "progress_bar": False} | options
    return trainer_of(data).fit(data.train, data.validation, test=data.test, **options)


@pytest.fixture(scope="module")
def wine():
    return fs.data.split(frame(), WINE.target, encode={"late": 1.5}, class_names=WINE.target_names)


@pytest.fixture
def run(wine, tmp_path):
    return trained(wine, folder=tmp_path / "run")


def test_a_folder_changes_no_number_and_no_name(wine, tmp_path):
    result, run = trained(wine), trained(wine, folder=tmp_path / "run")
    assert isinstance(run, fs.Run)
    for found in (run, fs.Run(tmp_path / "run")):
        assert found.epochs == result.epochs == 6
        assert found.best_validation_accuracy == result.best_validation_accuracy
        for name, column in result.metrics.items():
            np.testing.assert_array_equal(found.metrics[name], column)
        for name in ("validation", "test"):
            mine, other = getattr(found, name), getattr(result, name)
            assert (mine.accuracy, mine.loss, mine.silent) == (other.accuracy, pytest.approx(other.loss), other.silent)
            assert torch.equal(mine.times, other.times)
        assert len(found.validations) == len(found.tests) == 1
        assert found.seconds > 0


def test_evaluations_are_of_the_data_that_are_given(run, wine):
    assert run.evaluate(wine.validation).accuracy == run.evaluate("validation").accuracy == run.validation.accuracy
    assert run.evaluate().accuracy == run.evaluation.accuracy == run.test.accuracy


def test_rows_as_in_the_table(run, wine, tmp_path):
    rows = WINE.data[::9]
    expected = [wine.train.class_names[k] for k in run.objective.predict(run.network(wine.train.encoder(rows)))]
    assert len(set(expected)) > 1
    turned = Frame({"cultivar": np.arange(len(rows))} | dict(reversed(frame(9).values.items())))
    for given in (rows, rows.tolist(), torch.tensor(rows), frame(9), frame(9).records(), turned, turned.records()):
        assert run.predict(given).tolist() == expected
    lines = [",".join(WINE.feature_names), *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "new.csv").write_text("\n".join(lines) + "\n")
    assert run.predict(tmp_path / "new.csv").tolist() == expected


def test_rows_that_do_not_fit(run):
    lacking = frame(without=["proline"])
    for rows in (lacking, lacking.records()):
        with pytest.raises(ValueError, match=r"expected the columns of the training data, lacks proline$"):
            run.predict(rows)
    with pytest.raises(ValueError, match=r"expected the shape \(samples, 13\), got \(178, 12\)"):
        run.predict(WINE.data[:, :12])


def test_rows_of_spike_times(tmp_path):
    times = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)) + 0.2
    data = fs.data.split(times, torch.arange(60) % 3)
    run = trained(data, folder=tmp_path / "run", epochs=1)
    assert run.predict(times).tolist() == run.predict(times.tolist()).tolist()
    assert run.predict(torch.full((2, 4), torch.inf)).tolist() == ["silent", "silent"]
    with pytest.raises(ValueError, match="got nan at"):
        run.predict([[0.1, 0.2, float("nan"), 0.3]])


def test_a_run_goes_on_as_another_object(run, wine, tmp_path):
    opened, before, accuracy = run, run.network[0].weight.clone(), run.test.accuracy
    run = opened.resume(epochs=9, progress_bar=False)
    assert torch.equal(opened.network[0].weight, before)  # what it has loaded stays
    assert opened.test.accuracy == accuracy
    assert run.epochs == len(run.metrics["epoch"]) == run.config.training.epochs == 9
    assert not torch.equal(run.network[0].weight, before)
    whole = trained(wine, epochs=9, folder=tmp_path / "whole")
    assert torch.equal(run.network[1].weight, whole.network[1].weight)
    assert run.test.accuracy == whole.test.accuracy


def test_a_run_at_a_checkpoint_or_elsewhere_is_not_resumed(run):
    for options in ({"checkpoint": "best"}, {"substrate": "noisy"}):
        with pytest.raises(ValueError, match="from its newest checkpoint on its own substrate"):
            fs.Run(run.folder, **options).resume()


def test_parts_of_ones_own_stay_with_the_run(wine, tmp_path):
    def margin(times, labels):
        late = times.clamp(max=20.0)
        return (1 + late.gather(1, labels[:, None]) - late).clamp(min=0).mean()

    trainer = trainer_of(wine)
    trainer.objective.loss = margin
    run = trainer.fit(wine.train, epochs=2, batch_size=20, folder=tmp_path / "run", progress_bar=False)
    assert run.loss is margin
    assert run.resume(epochs=3, progress_bar=False).epochs == 3
    with pytest.raises(ValueError, match="pass it in Python: loss="):
        fs.Run(tmp_path / "run").resume(epochs=4)


def test_figures_and_the_report(run):
    assert run.plot(["confusion"]) == [run.folder / "figures" / "confusion.png"]
    assert run.report() == run.folder / "report.html"


def test_seeds(wine, tmp_path):
    networks = [trainer_of(wine).network for _ in range(2)]
    optimizers = [torch.optim.Adam(network.parameters(), lr=0.01) for network in networks]
    trainer = fs.Trainer(networks, fs.losses.TimeCrossEntropy(), optimizers)
    options = {"epochs": 2, "batch_size": 20, "progress_bar": False}
    run = trainer.fit(wine.train, wine.validation, **options, folder=tmp_path / "run")
    opened = fs.Run(tmp_path / "run")
    assert len(run.validations) == len(opened.validations) == len(run.best_validation_accuracy) == 2
    assert [x.accuracy for x in run.validations] == [x.accuracy for x in opened.validations]
    assert opened.tests == ()
    assert opened.test is None


def test_words_among_rows_are_named(run):
    records = [dict(record) for record in frame(60).records()]
    records[1]["proline"] = "n"
    with pytest.raises(ValueError, match=r"rows: expected numbers, got 'n' at \[1, 12\] \(column 'proline'\); encode"):
        run.predict(records)
    rows = [list(map(float, row)) for row in WINE.data[:2]]
    rows[1][3] = "n"
    with pytest.raises(ValueError, match=r"expected numbers, got 'n' at \[1, 3\]; encode names"):
        run.predict(rows)


def test_every_column_of_words_is_named(run):
    rows = frame(60)
    rows.values |= {"hue": np.array(["m", "f", "m"], dtype=object), "ash": np.array(["?", "1", "2"], dtype=object)}
    for given in (rows.records(), Words(rows.values)):
        with pytest.raises(
            ValueError, match=r"got '\?' at \[0, 2\] \(column 'ash'\); .* leave the columns 'ash', 'hue' out$"
        ):
            run.predict(given)


def test_rows_of_mappings_have_the_same_columns(run, wine):
    rows = frame(60).records()
    expected = run.predict(rows).tolist()
    assert run.predict([*rows[:1], {"more": 1.0} | rows[1], *rows[2:]]).tolist() == expected
    missing = run.predict([*rows[:1], rows[1] | {"hue": None}, *rows[2:]])
    assert missing.tolist() == run.predict(np.where(np.eye(3, 13, k=9)[[1, 0, 2]] > 0, np.nan, frame(60))).tolist()
    del rows[1]["hue"]
    with pytest.raises(ValueError, match=r"rows: expected the columns of row 0 in each, row 1 differs in 'hue'$"):
        run.predict(rows)
    with pytest.raises(ValueError, match=r"rows: expected mappings, got a list in row 1$"):
        run.predict([rows[0], [1.0] * 13])


def test_hidden_values_are_missing(run):
    values = WINE.data[:20].copy()
    hidden = np.random.default_rng(0).random(values.shape) < 0.3
    masked = np.ma.masked_array(values.copy(), hidden)
    values[hidden] = np.nan
    for given in (masked, list(masked)):
        assert torch.equal(
            input_times(given, run.data.train, run.dtype), input_times(values, run.data.train, run.dtype)
        )


def test_labelled_data_by_the_names_of_their_classes(run, wine):
    names = wine.train.class_names
    turned = fs.data.SpikeData(wine.test.times, 2 - wine.test.labels, names[::-1])
    assert run.evaluate(turned).accuracy == run.test.accuracy
    known = wine.test.labels > 0
    some = fs.data.SpikeData(wine.test.times[known], wine.test.labels[known] - 1, names[1:])
    assert run.evaluate(some).labels.tolist() == wine.test.labels[known].tolist()
    numbers = fs.data.SpikeData(wine.test.times, wine.test.labels, ("0", "1", "2"))
    assert run.evaluate(numbers).accuracy == run.test.accuracy
    other = fs.data.SpikeData(wine.test.times, wine.test.labels, (names[0], "other", names[2]))
    with pytest.raises(ValueError, match=r"labels: expected .* got 'other' for sample"):
        run.evaluate(other)


@pytest.mark.parametrize("data", [frame(), WINE.data, [WINE.data, WINE.target], {"train": 1}])
def test_data_without_labels_are_not_evaluated(run, data):
    with pytest.raises(
        TypeError, match=r"data: expected SpikeData, .* or a file, got a \w+; without labels: run.predict"
    ):
        run.evaluate(data)


def test_rows_with_names_for_a_run_without(tmp_path):
    data = fs.data.split(WINE.data, WINE.target, encode={}, test=0)
    run = trained(data, folder=tmp_path / "run", epochs=1)
    (tmp_path / "new.csv").write_text(",".join(WINE.feature_names) + "\n" + ",".join(map(str, WINE.data[0])) + "\n")
    for rows in (frame(), frame().records(), tmp_path / "new.csv"):
        with pytest.warns(
            UserWarning, match="the training data have no names of columns: these are taken in their order"
        ):
            assert run.predict(rows)[0] == run.predict(WINE.data[:1])[0]


def test_arrays_of_times_are_observed(run):
    times = run.data.test.times
    assert torch.equal(run.observe(times.double().numpy()).output, run.observe(times).output)
