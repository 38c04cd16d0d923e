import numpy as np
import torch

from firstspike import plots
from firstspike.training.evaluation import Evaluation, confusion_counts


def evaluation(labels, predictions, outputs=3):
    labels, predictions = torch.tensor(labels), torch.tensor(predictions)
    accuracy = float((labels == predictions).double().mean())
    return Evaluation(1.0, accuracy, (0.0,), torch.ones(len(labels), outputs), predictions, labels)


def test_counts():
    counts = confusion_counts(evaluation([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0]))
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 1, 0], [1, 0, 2]])


def test_silent_decisions_have_a_column():
    counts = confusion_counts(evaluation([0, 0, 1, 2], [0, -1, 1, -1]))
    np.testing.assert_array_equal(counts, [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]])


def test_every_count_stands_in_its_cell(ax):
    result = evaluation([0, 0, 1, 2], [0, -1, 1, -1])
    assert plots.confusion(result, ax, ["a", "b", "c"]) is ax
    ax.figure.draw_without_rendering()
    shown = {text.get_position(): text.get_text() for text in ax.texts}
    counts = confusion_counts(result)
    assert shown == {(column, row): str(count) for (row, column), count in np.ndenumerate(counts)}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c", "silent"]


def test_counts_of_a_run_agree_with_its_accuracy(yin_yang_run):
    counts = confusion_counts(yin_yang_run.evaluation)
    assert counts.sum() == 40
    assert np.trace(counts) / 40 == yin_yang_run.evaluation.accuracy


def test_wrong_decisions_are_shaded_by_their_fraction_of_the_class(ax):
    labels = [0] * 100 + [1] * 100
    plots.confusion(evaluation(labels, [0] * 98 + [1] * 2 + [1] * 100, 2), ax, ["a", "b"])
    shades = ax.images[1]
    np.testing.assert_allclose(shades.get_array().filled(-1), [[-1, 2], [0, -1]])
    assert shades.get_clim() == (0, 100)  # in all figures


def test_a_single_wrong_decision_is_faint_and_more_are_darker(ax):
    labels = [0] * 12 + [1] * 12
    plots.confusion(evaluation(labels, [0] * 11 + [1] * 7 + [0] * 6, 2), ax, ["a", "b"])
    shades = ax.images[1]
    none, single, half = (sum(shades.cmap(shades.norm(fraction))[:3]) for fraction in (0, 100 / 12, 50))
    assert none - 0.2 > single > half + 0.5


def test_no_wrong_decision(ax):
    plots.confusion(evaluation([0, 1, 2], [0, 1, 2]), ax).figure.draw_without_rendering()


def test_more_outputs_than_classes():
    result = evaluation([0, 1, 1], [0, 1, 0], outputs=6)
    np.testing.assert_array_equal(confusion_counts(result, 2), [[1, 0], [1, 1]])
    np.testing.assert_array_equal(confusion_counts(evaluation([0, 1], [0, 3], outputs=2), 2)[:, 3], [0, 1, 0, 0])
