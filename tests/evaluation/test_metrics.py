import numpy as np
import pytest
from sklearn import metrics

from ktl.evaluation.metrics import (
    SCORES,
    class_scores,
    confusion_matrix,
    converged,
    expected_calibration_error,
    reliability_bins,
    score,
    shown_scores,
)


def random_case(photos=300, classes=9, seed=0):
    """Probabilities that are right more often than chance, and labels of all classes but the last."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes - 1, photos)
    logits = generator.normal(size=(photos, classes)) + 2 * np.eye(classes)[labels]
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(1, keepdims=True), labels


def test_scores_by_hand():
    probabilities = np.array(
        [
            [0.7, 0.1, 0.1, 0.04, 0.03, 0.03],  # right
            [0.1, 0.5, 0.2, 0.1, 0.06, 0.04],  # right
            [0.3, 0.25, 0.2, 0.15, 0.06, 0.04],  # the fifth
            [0.6, 0.2, 0.1, 0.05, 0.03, 0.02],  # the last
        ]
    )
    labels = np.array([0, 1, 4, 5])
    scores = score(probabilities, labels)
    assert set(scores) == {"top1", "top5", "mean_class_accuracy", "macro_f1", "log_loss", "ece"}
    assert scores["top1"] == 2 / 4
    assert scores["top5"] == 3 / 4
    assert scores["mean_class_accuracy"] == (1 + 1 + 0 + 0) / 4
    assert scores["macro_f1"] == pytest.approx((2 / (2 + 2) + 2 / 2 + 0 + 0) / 4)  # of class 0: 1 right, 2 mistakes
    assert scores["log_loss"] == pytest.approx(-np.log([0.7, 0.5, 0.06, 0.02]).mean())
    assert scores["ece"] == pytest.approx((abs(1 - 0.7) + abs(1 - 0.5) + 0.3 + 0.6) / 4)  # each alone in its bin
    assert all(type(value) is float for value in scores.values())


def test_mean_class_accuracy_weighs_classes_and_not_photos():
    probabilities = np.array([[0.9, 0.1]] * 8 + [[0.8, 0.2]] * 2)
    scores = score(probabilities, np.array([0] * 9 + [1]))
    assert scores["top1"] == 0.9
    assert scores["mean_class_accuracy"] == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_those_of_scikit_learn(seed):
    probabilities, labels = random_case(seed=seed)
    scores, classes = score(probabilities, labels), np.arange(9)
    predictions = probabilities.argmax(1)
    assert scores["top1"] == pytest.approx(metrics.accuracy_score(labels, predictions))
    assert scores["top5"] == pytest.approx(metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=classes))
    recalls = [np.mean(predictions[labels == c] == c) for c in range(8)]  # no photo is of class 8
    assert scores["mean_class_accuracy"] == pytest.approx(np.mean(recalls))
    assert scores["log_loss"] == pytest.approx(-np.log(probabilities[np.arange(300), labels]).mean())
    assert 0 < scores["top1"] < scores["top5"] < 1


def test_the_class_without_photos_neither_warns_nor_counts(recwarn):
    probabilities = np.array([[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    scores = score(probabilities, np.array([1, 1]))
    assert scores["mean_class_accuracy"] == 0.5
    assert not recwarn.list


@pytest.mark.parametrize(("classes", "there"), [(2, False), (5, False), (6, True)])
def test_five_classes_and_fewer_have_no_top5(classes, there):
    scores = score(*random_case(classes=classes))
    assert ("top5" in scores) == there
    assert list(shown_scores(scores)) == [name for name in SCORES if name in scores]
    assert "top5" not in shown_scores(scores, score(*random_case(classes=5)))


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_classes_equal_their_definitions(seed):
    probabilities, labels = random_case(seed=seed)
    predictions = probabilities.argmax(1)
    found = class_scores(probabilities, labels)
    for label, row in enumerate(found[:8]):
        right = np.sum((predictions == label) & (labels == label))
        assert row.photos == np.sum(labels == label)
        assert row.precision == pytest.approx(right / np.sum(predictions == label))
        assert row.recall == pytest.approx(right / row.photos)
        assert row.f1 == pytest.approx(2 * row.precision * row.recall / (row.precision + row.recall))
    assert found[8] == (0, 0.0, None, 0.0)  # photos were taken for it
    assert score(probabilities, labels)["macro_f1"] == pytest.approx(np.mean([row.f1 for row in found[:8]]))


def test_what_cannot_be_divided_is_none(recwarn):
    """All photos are taken for the first class; none is of the last, and none was taken for it."""
    found = class_scores(np.array([[0.9, 0.1, 0.0]] * 4), np.array([0, 0, 0, 1]))
    assert found == [(3, 0.75, 1.0, pytest.approx(6 / 7)), (1, None, 0.0, 0.0), (0, None, None, None)]
    assert not recwarn.list


def test_among_equal_probabilities_the_first_class_wins_in_every_score():
    probabilities = np.full((6, 6), 1 / 6)
    scores = score(probabilities, np.arange(6))
    assert scores["top1"] == pytest.approx(1 / 6)
    assert scores["top5"] == pytest.approx(5 / 6)
    np.testing.assert_array_equal(confusion_matrix(probabilities, np.arange(6)).sum(0), [6, 0, 0, 0, 0, 0])


def test_a_certain_and_wrong_answer_has_a_finite_log_loss():
    scores = score(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 1]))
    assert 10 < scores["log_loss"] < 1000
    assert scores["ece"] == 0.5


def slow_calibration_error(probabilities, labels, bins):
    """Guo et al., equation 3, bin by bin, photo by photo."""
    total = 0.0
    for b in range(bins):
        inside = []
        for row, label in zip(probabilities, labels, strict=True):
            confidence = max(row)
            if b / bins <= confidence < (b + 1) / bins or (b == bins - 1 and confidence == 1):
                inside.append((confidence, float(list(row).index(confidence) == label)))
        if inside:
            confidence, accuracy = np.mean(inside, axis=0)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 2, 10, 15, 100])
def test_calibration_error_equals_the_sum_over_bins(bins):
    probabilities, labels = random_case()
    probabilities[:5] = np.eye(9)[:5]  # full confidence belongs to the last bin
    expected = slow_calibration_error(probabilities, labels, bins)
    assert expected > 0.01
    assert expected_calibration_error(probabilities, labels, bins=bins) == pytest.approx(expected)


def test_calibration_error_of_the_score_has_15_bins():
    probabilities, labels = random_case()
    assert score(probabilities, labels)["ece"] == pytest.approx(slow_calibration_error(probabilities, labels, 15))


def test_perfect_and_worst_calibration():
    eye = np.eye(4)
    assert expected_calibration_error(eye, np.arange(4)) == 0
    assert expected_calibration_error(eye, (np.arange(4) + 1) % 4) == 1


def test_a_certain_photo_is_in_the_last_bin():
    rows = reliability_bins(np.array([1.0, 0.0], np.float32), np.array([True, False]))
    assert [row["photos"] for row in rows] == [1, *[0] * 13, 1]
    assert rows[1]["accuracy"] is None


def test_confusion_matrix_counts_every_photo_in_rows_of_true_classes():
    probabilities, labels = random_case()
    expected = np.zeros((9, 9), int)
    for row, label in zip(probabilities, labels, strict=True):
        expected[label, row.argmax()] += 1
    matrix = confusion_matrix(probabilities, labels)
    np.testing.assert_array_equal(matrix, expected)
    assert matrix[8].sum() == 0 < matrix[:, 8].sum()


def test_epochs_to_convergence():
    assert converged([0.1, 0.94, 0.95, 1.0, 0.9]) == 3
    assert converged([0.5]) == 1
    assert converged([0.0, 0.0]) == 1
