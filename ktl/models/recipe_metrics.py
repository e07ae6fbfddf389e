"""What is measured of a classifier of logits while it is trained, and on validation photos."""

from typing import Any

import keras
from keras import ops


def make_metrics(*names: str, classes: int) -> list[keras.metrics.Metric]:
    """New metrics of logits and integer labels: `top1`, and `log_loss`, the mean cross-entropy in nats; and others.

    The loss that is minimised may spread its labels and weigh its classes; these do not, and so can be compared.

    Args:
        *names: of `CLASS_METRICS`; those of other metrics add nothing.
        classes: how many there are.
    """
    return [
        keras.metrics.SparseCategoricalAccuracy(name="top1"),
        keras.metrics.SparseCategoricalCrossentropy(name="log_loss", from_logits=True),
        *(metric(classes) for name, metric in CLASS_METRICS.items() if name in names),
    ]


class _ClassCounts(keras.metrics.Metric):
    """Counts of each class: all of a confusion matrix that its diagonal and its sums along each side say."""

    def __init__(self, classes: int, *, name: str, **arguments):
        super().__init__(name=name, **arguments)
        self.classes = classes
        counts = ("hits", "photos", "answers")
        self.hits, self.photos, self.answers = (
            self.add_variable(shape=(classes,), initializer="zeros", name=count) for count in counts
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        true: Any = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), self.classes, dtype=self.dtype)
        given: Any = ops.one_hot(ops.argmax(y_pred, axis=-1), self.classes, dtype=self.dtype)
        weights: Any = 1.0
        if sample_weight is not None:
            weights = ops.reshape(ops.cast(sample_weight, self.dtype), (-1, 1))
        for variable, counted in ((self.hits, true * given), (self.photos, true), (self.answers, given)):
            variable.assign(variable + ops.sum(weights * counted, axis=0))

    def _mean_over_classes(self, numerator, denominator):
        """The mean of a quotient over the classes that have photos; 0 where there are none."""
        there: Any = ops.cast(self.photos > 0, self.dtype)
        quotients = there * ops.divide_no_nan(numerator, denominator)
        return ops.divide_no_nan(ops.sum(quotients), ops.sum(there))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes}


@keras.saving.register_keras_serializable(package="ktl")
class MeanClassAccuracy(_ClassCounts):
    """The mean over the classes that have photos of the share of their photos that is recognised, of logits and integer
    labels: each class counts as much as any other, however many photos it has.

    Args:
        classes: how many there are.
    """

    def __init__(self, classes: int, *, name: str = "mean_class_accuracy", **arguments):
        super().__init__(classes, name=name, **arguments)

    def result(self):
        return self._mean_over_classes(self.hits, self.photos)


@keras.saving.register_keras_serializable(package="ktl")
class MacroF1(_ClassCounts):
    """The mean of F1 over the classes that have photos, of logits and integer labels:

        F1 = 2 * hits / (photos of the class + photos that were taken for it)

    Args:
        classes: how many there are.
    """

    def __init__(self, classes: int, *, name: str = "macro_f1", **arguments):
        super().__init__(classes, name=name, **arguments)

    def result(self):
        return self._mean_over_classes(2 * self.hits, self.photos + self.answers)


CLASS_METRICS = {"mean_class_accuracy": MeanClassAccuracy, "macro_f1": MacroF1}
"""Name -> metric, which takes the number of classes."""
