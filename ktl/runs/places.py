"""Where results may go: not into the data set, of which they would become a class."""

import os

from ktl.config.settings import TrainingConfig
from ktl.data.loading import dataset_folder
from ktl.errors import UserError
from ktl.files import is_inside


def check_places(config: TrainingConfig, **places: str | os.PathLike | None) -> None:
    """Refuses places within a data set that is a folder; nothing is made.

    Args:
        config: the settings, which name the data set and may name a cache.
        **places: argument -> where it leads; None where it is not given.

    Raises:
        UserError: one is within the data set.
    """
    places["cache_dir"] = config.cache_dir if config.cache != "off" else None
    refuse_within_dataset(config.dataset, config.data_dir, **places)


def refuse_within_dataset(dataset: str, data_dir: str | None, **places: str | os.PathLike | None) -> None:
    """`check_places` for a data set by its name."""
    folder = dataset_folder(dataset, data_dir=data_dir)
    for argument, place in places.items():
        if folder is not None and place is not None and is_inside(place, folder):
            raise UserError(
                f"Expected `{argument}` outside of the data set {folder}, of which it would become a part. "
                f"Received: {place}. Name another `{argument}`"
            )
