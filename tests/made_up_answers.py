"""Networks that recognise photos or do not, drawn at random."""

import numpy as np


def answers(generator, *, heads=2, seeds, photos, seed_noise=0.0, head_noise=0.0, gain=0.0) -> np.ndarray:
    """bool [heads, seeds, photos]: which were recognised.

    Args:
        generator: draws them.
        heads: how many networks, equal but for their gains.
        seeds: trainings of each.
        photos: each with a difficulty of its own.
        seed_noise: how much a training is better or worse than others, on all photos; one number, or one a head.
        head_noise: how much a head finds a photo easier or harder than other heads do, with any seed.
        gain: by which the first head is better; or by which each is, one number a head.

    Each number is a standard deviation beside one of 1 of what is left to chance, and about 84 % are recognised.
    """
    values = 2.5 + generator.normal(0, 2, photos)
    values = values + head_noise * generator.standard_normal((heads, 1, photos))
    values = values + np.reshape(seed_noise, (-1, 1, 1)) * generator.standard_normal((heads, seeds, 1))
    values = values + generator.standard_normal((heads, seeds, photos), dtype=np.float32)
    gains = np.eye(heads)[0] * gain if np.ndim(gain) == 0 else np.asarray(gain)
    return values + gains.reshape(-1, 1, 1) > 0
