"""How far a result hangs on a choice that few photos made: the choice is made again, with these photos drawn anew.

Where validation photos choose one of several networks, others of the same kind might have chosen another. The photos
are drawn again from themselves, as often with each choice as the bootstrap has it. What a difference of two chosen
networks would then have been is compared with what it is:

    variance of the choice = mean of (difference, chosen anew - difference)^2

It is added to the squared standard error. The distance is from what was chosen, and not from the mean of all choices:
where the first choice was an unlucky one, most others are far from it. Test photos and seeds have a part in it, so it
is rather too large than too small.

Reference:
    Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 1979; Efron, "Estimation and
    Accuracy After Model Selection", JASA 2014, on resampling with the choice made again in each sample.
"""

import numpy as np

from ktl.evaluation.random_effects import Noise

RESAMPLES = 1000

AT_ONCE = 1_000_000
"""So many numbers are drawn at once: of many photos, all draws would not fit into memory."""


def drawn_again(hits: np.ndarray) -> np.ndarray:
    """Accuracies on new draws of the validation photos, the same draws for all networks.

    Args:
        hits: [networks, photos], how often the photo was recognised, 0 to 1.

    Returns:
        float [`RESAMPLES`, networks].
    """
    photos = hits.shape[1]
    generator, scores = np.random.default_rng(0), []
    rows = max(1, AT_ONCE // photos)
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        drawn = generator.integers(photos, size=(size, photos))
        scores.append(np.array([np.bincount(row, minlength=photos) for row in drawn]) @ hits.T)
    return (np.concatenate(scores) / photos).round(9)  # equals are equal, in whichever order they were added up


def choose(scores: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """The network that each draw chooses: the most accurate, of equals that of the lowest loss.

    Args:
        scores: [draws, networks], accuracies.
        losses: [networks], of all validation photos.

    Returns:
        int [draws].
    """
    order = np.argsort(losses, kind="stable")
    return order[scores[:, order].argmax(axis=1)]


def choice_noise(differences: np.ndarray, *, measured: float, photos: int) -> Noise:
    """What the choice adds to the variance of a difference.

    Args:
        differences: [`RESAMPLES`], of what each new draw of the validation photos chooses.
        measured: of what was chosen.
        photos: how many validation photos chose.
    """
    return Noise(float(np.mean(np.square(differences - measured))), max(1, photos - 1))
