"""What is measured of a classifier of logits while it is trained, and on validation photos."""

import keras


def make_metrics() -> list[keras.metrics.Metric]:
    """New metrics of logits and integer labels: `top1`, and `log_loss`, the mean cross-entropy in nats.

    The loss that is minimised may spread its labels and weigh its classes; these do not, and so can be compared.
    """
    return [
        keras.metrics.SparseCategoricalAccuracy(name="top1"),
        keras.metrics.SparseCategoricalCrossentropy(name="log_loss", from_logits=True),
    ]
