"""A classifier with scikit-learn's interface: ``firstspike.sklearn.SpikingClassifier``."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from firstspike.data import LatencyEncoder, SpikeData
from firstspike.layers import Network, SpikingLinear, start_firing_
from firstspike.losses import TimeCrossEntropy
from firstspike.neurons import LIF
from firstspike.ranges import Infinite, InnerFraction, NotNegative, Positive, PositiveInt, PositiveOrInf, check_ranges
from firstspike.seeding import generator
from firstspike.text import installed_with
from firstspike.training import Augment, CosineLR, EarlyStopping, Interrupted, SilentNeurons, Trainer
from firstspike.training.evaluation import record_in_parts

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as missing:
    raise ImportError(f"scikit-learn 1.6 or newer is missing ({missing}): {installed_with('sklearn')}") from None

_AT_START = 200  # samples from which the initial weights follow
_SILENT_HIDDEN, _SILENT_OUTPUT = 0.8, 0.1  # largest silent fractions of a batch, chosen on validation data


@dataclass(eq=False, repr=False)
class SpikingClassifier(ClassifierMixin, BaseEstimator):
    """Classifies the rows of a table by a network of LIF neurons whose first output spike decides.

        classifier = SpikingClassifier(hidden_layer_sizes=(50,), random_state=0).fit(x_train, y_train)
        classifier.score(x_test, y_test)

    It has the interface of ``sklearn.neural_network.MLPClassifier``. Values are encoded by spike times, from the range
    of each column in the training data, so that no scaler is needed. Larger values are clipped to that range. Missing
    values (NaN) do not spike, so that no imputer is needed.

    Args:
        hidden_layer_sizes: neurons of each hidden layer.
        tau_mem: membrane time constant, in units of the synaptic one.
        late: time of the latest input spike, in the same unit.
        xi: width of the softmax over spike times, in the same unit, see ``TimeCrossEntropy``.
        jitter: standard deviation of noise on the input times in the training, in the same unit, without which a
            network learns samples by heart. ``"auto"`` is 0.015 times the square root of the number of columns.
        learning_rate_init: initial rate of Adam. It falls to 0 along a cosine until ``max_iter``.
        batch_size: samples per gradient step. ``"auto"`` is an eighth of the samples, from 25 to 50.
        max_iter: largest number of epochs.
        tol: smallest improvement that counts, of the loss or, with ``early_stopping``, of the accuracy.
        n_iter_no_change: epochs without such an improvement after which the training ends.
        early_stopping: set ``validation_fraction`` of the training data aside, end the training by the accuracy on
            them, and keep the weights that were best there.
        validation_fraction: see ``early_stopping``.
        warm_start: ``fit`` continues with the weights and the encoder of the last call. Classes and columns have to be
            the same.
        random_state: seed of weights, order of the samples and validation data: a number, or a ``RandomState``. The
            same number gives the same classifier.
        verbose: show a progress bar.

    Attributes:
        classes_: the classes, in the order of the outputs and of the columns of ``predict_proba``.
        class_prior_: fraction of each class in the training data, the answer if no output spikes.
        n_features_in_: number of columns.
        feature_names_in_: their names, if the training data are a frame with names.
        encoder_: the fitted ``fs.data.LatencyEncoder``: ``encoder_(X)`` are the input spike times.
        network_: the trained ``fs.Network``: ``network_(encoder_(X))`` are the spike times of the outputs, ``inf`` for
            a silent one.
        loss_curve_: training loss of every epoch.
        loss_: the last one.
        best_loss_: the lowest one; None with ``early_stopping``.
        validation_scores_: validation accuracy of every epoch; None without ``early_stopping``.
        best_validation_score_: the highest one; None without ``early_stopping``.
        n_iter_: epochs done.

    Raises:
        ImportError: on import, scikit-learn is missing: ``pip install ".[sklearn]"``.
    """

    hidden_layer_sizes: int | Sequence[int] = (100,)
    _: KW_ONLY
    tau_mem: PositiveOrInf = 2.0
    late: Positive = 1.4
    xi: Positive = 0.1
    jitter: NotNegative | Literal["auto"] = "auto"
    learning_rate_init: Positive = 0.03
    batch_size: PositiveInt | Literal["auto"] = "auto"
    max_iter: PositiveInt = 60
    tol: NotNegative = 1e-4
    n_iter_no_change: PositiveInt | Infinite = 30
    early_stopping: bool = False
    validation_fraction: InnerFraction = 0.1
    warm_start: bool = False
    random_state: int | np.random.RandomState | None = None
    verbose: bool = False

    def fit(self, X: ArrayLike, y: ArrayLike) -> "SpikingClassifier":
        """Train on a table.

        Args:
            X: ``(samples, features)``, an array or a frame of numbers. NaN is a missing value.
            y: class of each sample, ``(samples,)``: numbers or names.

        Returns:
            The classifier itself.

        Raises:
            ValueError: arguments outside their range, infinite values, another number of labels than of samples, labels
                that are not classes.
            KeyboardInterrupt: Ctrl-C. The classifier is then not fitted.
        """
        check_ranges(type(self).__init__, self.get_params())
        given = self.hidden_layer_sizes
        hidden = list(given) if isinstance(given, Iterable) else [given]
        if not all(isinstance(size, Integral) and size >= 1 for size in hidden):
            raise ValueError(f"hidden_layer_sizes must be numbers >= 1, got {given!r}")
        continued = self.warm_start and hasattr(self, "network_")
        values, y = self._checked(X, y, reset=not continued)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if continued and not np.array_equal(classes, self.classes_):
            raise ValueError(f"warm_start: expected the classes {self.classes_}, got {classes}")
        prior = np.bincount(labels) / len(labels)
        spiking = ~np.isnan(values).all(axis=1)  # the others cannot be learnt
        if not spiking.any():
            raise ValueError("X: expected numbers, got missing values (NaN) only")
        values, labels = values[spiking], labels[spiking]
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31 - 1))
        held = None
        if self.early_stopping:
            values, held, labels, held_labels = train_test_split(
                values, labels, test_size=self.validation_fraction, stratify=labels, random_state=random
            )
        encoder = self.encoder_ if continued else LatencyEncoder(late=float(self.late), on_off=True).fit(values)

        def encoded(values: NDArray[Any], labels: NDArray[Any]) -> SpikeData:
            return SpikeData(encoder(values), torch.from_numpy(labels), tuple(map(str, classes)), encoder=encoder)

        train = encoded(values, labels)
        if continued:
            network = self.network_
        else:  # one whose neurons fire
            sizes, source = [train.features, *map(int, hidden), len(classes)], generator(seed, "init")
            neuron = LIF(self.tau_mem)
            network = Network(*(SpikingLinear(i, o, neuron, generator=source) for i, o in pairwise(sizes)))
            start_firing_(network, train.times[:_AT_START], source)
        metric = "validation_accuracy" if self.early_stopping else "train_loss"
        stopping = EarlyStopping(
            int(min(self.n_iter_no_change, self.max_iter)), metric, self.tol, restore_best=self.early_stopping
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate_init, fused=True)
        limits = [_SILENT_HIDDEN] * len(hidden) + [_SILENT_OUTPUT]
        size = max(25, min(50, len(train) // 8)) if self.batch_size == "auto" else int(self.batch_size)
        jitter = 0.015 * math.sqrt(values.shape[1]) if self.jitter == "auto" else float(self.jitter)
        trainer = Trainer(
            network,
            TimeCrossEntropy(self.xi, silent_cost=math.log(len(classes))),  # as by chance: it has no gradient
            optimizer,
            schedule=CosineLR(optimizer, self.max_iter),
            augment=Augment(jitter=jitter),
            silent=SilentNeurons(limits, increment=0.005, exponential=False),
        )
        try:
            result = trainer.fit(
                train,
                None if held is None else encoded(held, held_labels),
                epochs=self.max_iter,
                batch_size=min(len(train), size),
                seed=seed,
                callbacks=[stopping],
                progress_bar=bool(self.verbose),
            )
        except Interrupted:
            raise KeyboardInterrupt from None
        earlier = (self.loss_curve_, self.validation_scores_ or []) if continued else ([], [])
        self.classes_: NDArray[Any] = classes
        self.class_prior_ = prior
        self.encoder_: LatencyEncoder = encoder
        self.network_: Network = network.eval()
        self.loss_curve_: list[float] = earlier[0] + result.metrics["train_loss"]
        self.loss_ = self.loss_curve_[-1]
        self.n_iter_ = len(self.loss_curve_)
        scores = earlier[1] + result.metrics["validation_accuracy"] if self.early_stopping else None
        self.validation_scores_: list[float] | None = scores
        self.best_validation_score_ = max(scores) if scores else None
        self.best_loss_ = None if self.early_stopping else min(self.loss_curve_)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of each class: the softmax of ``-times / xi`` over the outputs, as in the training loss.

        A silent output has probability 0. If all of them are silent, it is ``class_prior_``.

        Args:
            X: ``(samples, features)``, an array or a frame of numbers. NaN is a missing value.

        Returns:
            ``(samples, classes)``, in the order of ``classes_``.

        Raises:
            NotFittedError: before ``fit``.
            ValueError: other columns than in ``fit``, infinite values.
        """
        check_is_fitted(self)
        times = record_in_parts(self.network_, self.encoder_(self._checked(X, reset=False))).output.double()
        found = torch.softmax(-times / self.xi, dim=1).numpy()
        silent = (times == math.inf).all(dim=1).numpy()
        return np.where(silent[:, None], self.class_prior_, found)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logarithm of ``predict_proba``, ``-inf`` for silent outputs."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Class of each sample: that of the earliest output spike, the most frequent class if no output spikes."""
        probabilities = self.predict_proba(X)  # before the classes, which there are after ``fit`` only
        return self.classes_[probabilities.argmax(axis=1)]

    def _checked(self, *data: ArrayLike, reset: bool) -> Any:
        """The values as an array, and the labels if there are any."""
        if len(shape := getattr(data[0], "shape", ())) > 2:
            raise ValueError(
                f"X: expected a table (samples, features), got {tuple(shape)}: of images make X.reshape(len(X), -1); "
                "time series (samples, channels, time) are for a network of spike trains, with data by "
                'fs.data.split(X, y, encode={"kind": "level_crossing", "levels": 8})'
            )
        try:
            return validate_data(self, *data, dtype=np.float64, ensure_all_finite="allow-nan", reset=reset)
        except ValueError as error:
            if "could not convert string" not in str(error):
                raise
            hint = "encode names by numbers, for instance with sklearn's OneHotEncoder, or leave the column out"
            raise ValueError(f"X: expected numbers, {error}; {hint}") from None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
