"""Where results may go: not into the data set, of which they would become a class."""

import os

from ktl.data.directory import linked_folders
from ktl.data.loading import dataset_folder
from ktl.errors import UserError
from ktl.folders import is_inside
from ktl.names import is_url


def refuse_within_dataset(dataset: str, data_dir: str | None, **places: str | os.PathLike | None) -> None:
    """Refuses places within a data set that is a folder; nothing is made.

    Args:
        dataset: its name, see `ktl.data.loading.load_dataset`.
        data_dir: see there.
        **places: argument -> where it leads; None where it is not given.

    Raises:
        UserError: one is within the data set.
    """
    if is_url(dataset):
        _refuse_below(dataset, **places)
        return
    folder = dataset_folder(dataset, data_dir=data_dir)
    if folder is not None:
        refuse_within(folder, **places)


def refuse_within(folder: str | os.PathLike, **places: str | os.PathLike | None) -> None:
    """Refuses places within a folder that is a data set; see `refuse_within_dataset`.

    Raises:
        UserError: one is within it.
    """
    parts = [folder, *linked_folders(folder)]
    for argument, place in places.items():
        if place is not None and not is_url(place) and any(is_inside(place, part) for part in parts):
            raise _within(folder, argument, place)


def _refuse_below(url: str, **places: str | os.PathLike | None) -> None:
    """As `refuse_within`, of a folder at a URL."""
    for argument, place in places.items():
        if is_url(place) and f"{place}/".startswith(f"{url.rstrip('/')}/"):
            raise _within(url, argument, place)


def _within(folder: object, argument: str, place: object) -> UserError:
    return UserError(
        f"Expected `{argument}` outside of the data set {folder}, of which it would become a part. "
        f"Received: {place}. Name another `{argument}`"
    )
