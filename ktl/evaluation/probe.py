"""A linear probe: a logistic regression on what frozen layers give, trained until it has converged."""

import dataclasses
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from threadpoolctl import threadpool_limits

PENALTIES = tuple(10.0**power for power in range(-1, 5))
"""Values of scikit-learn's C that are tried: the inverse of the penalty on the weights."""

FOLDS = 5

ONE_PHOTO = 10.0
"""C where a class has one photo alone, so that nothing is left to validate on."""

MOST_STEPS = 10_000


@dataclasses.dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Attributes:
        model: the logistic regression.
        mean: float [width], of the rows that it was fitted to.
        spread: root of the mean squared distance of these rows from their mean.
        penalty: scikit-learn's C, chosen by cross-validation.
        log_loss: nats, cross-validated; None where no cross-validation was possible.
        converged: whether the solver ended before its last step.
    """

    model: LogisticRegression
    mean: np.ndarray
    spread: float
    penalty: float
    log_loss: float | None
    converged: bool

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """float [rows, classes], of float [rows, width]."""
        with threadpool_limits(1):
            return self.model.predict_proba((rows - self.mean) / self.spread)


def fit_probe(rows: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> Probe:
    """Fits a probe, with the penalty of the lowest cross-validated log loss.

    The rows are shifted to mean 0 and divided by one number, so that a penalty means the same for every kind of row.
    There are `FOLDS` folds with all classes in each, or as many as the rarest class has rows.

    Args:
        rows: float [rows, width].
        labels: int [rows]; each class, from 0 on, has one row or more.
        seed: of the folds.

    Reference:
        Kornblith, Shlens, Le, "Do Better ImageNet Models Transfer Better?", CVPR 2019, section 3, on logistic
        regression on frozen features.
    """
    mean = rows.mean(axis=0)
    spread = float(np.sqrt(np.square(rows - mean).sum(axis=1).mean())) or 1.0
    scaled = (rows - mean) / spread
    fewest = int(np.bincount(labels).min())
    # One thread: these products are small, and threads that wait for one another make them many times slower.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by `converged`
        if fewest < 2:
            model, log_loss = LogisticRegression(C=ONE_PHOTO, max_iter=MOST_STEPS).fit(scaled, labels), None
        else:
            folds = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=seed)
            search = GridSearchCV(
                LogisticRegression(max_iter=MOST_STEPS), {"C": PENALTIES}, scoring="neg_log_loss", cv=folds
            ).fit(scaled, labels)
            model, log_loss = search.best_estimator_, -float(search.best_score_)
    return Probe(model, mean, spread, float(model.C), log_loss, converged=bool(model.n_iter_.max() < MOST_STEPS))
