"""How photos become batches: the values that the inputs of all compared trainings share."""

import dataclasses
from pathlib import Path
from typing import Literal

from ktl.arguments import check_fields, check_number, path_of
from ktl.data.augmentation import Augmentation
from ktl.data.dataset import Dataset
from ktl.data.order import MOST_VIEWS, steps_per_epoch
from ktl.errors import UserError
from ktl.names import is_url


@dataclasses.dataclass(frozen=True, kw_only=True)
class Caching:
    """How what is frozen is computed once and kept.

    Attributes:
        mode: `auto` where it pays and fits, `on`, or `off`.
        dtype: `float32`, `float16`, or `auto`: float16 under mixed precision, whose features are 16 bits wide.
        folder: the store's folder, or its URL; ktl's own in the user's cache folder if None.
        limit_gib: the most that the folder takes, in GiB; half of the free disk if None.

    Raises:
        UserError: a value that is none of these.

    Example:
        >>> ktl.fit(classifier, dataset, caching=ktl.Caching(mode="on", folder="/scratch/ktl", limit_gib=20))
    """

    mode: Literal["auto", "on", "off"] = "auto"
    dtype: Literal["auto", "float32", "float16"] = "auto"
    folder: str | Path | None = None
    limit_gib: float | None = None

    def __post_init__(self):
        check_fields(self)
        if self.folder is not None and not is_url(self.folder):
            path_of(self.folder, argument="folder")
        if self.limit_gib is not None:
            check_number("limit_gib", self.limit_gib, least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputOptions:
    """How photos become batches; the same for all trainings that are compared.

    Attributes:
        batch_size: photos a step, over all devices.
        least_steps: optimizer steps an epoch at least: of few photos it makes several passes.
        seed: of the order, and of when each view is shown; the views are the same for all seeds.
        augmentation: of training photos: `standard`, `none`, or a function; see `ktl.data.augmentation`.
        flip: whether `standard` mirrors photos; `auto` as the data set says.
        views: augmented views of each training photo, over which passes cycle, cached or not.
        on_bad_image: `fail`, or `skip` photos that cannot be read.
        memory_gib: memory for decoded photos, in GiB.
        caching: whether and how what is frozen is computed once.

    Raises:
        UserError: a value that is none of these.
    """

    batch_size: int = 32
    least_steps: int = 32
    seed: int = 0
    augmentation: Augmentation = "standard"
    flip: bool | Literal["auto"] = "auto"
    views: int = 4
    on_bad_image: Literal["fail", "skip"] = "fail"
    memory_gib: float = 2.0
    caching: Caching = dataclasses.field(default_factory=Caching)

    def __post_init__(self):
        check_fields(self)
        for name in ("batch_size", "least_steps", "views"):
            check_number(name, getattr(self, name), least=1)
        for name in ("seed", "memory_gib"):
            check_number(name, getattr(self, name), least=0)
        if self.views > MOST_VIEWS:
            raise UserError(f"Expected `views` to be at most {MOST_VIEWS}. Received: {self.views}")

    @property
    def training_views(self) -> int:
        """Views that there are of each training photo."""
        return 1 if self.augmentation == "none" else self.views

    def flips(self, dataset: Dataset) -> bool:
        """Whether training photos of this data set are mirrored."""
        return self.augmentation == "standard" and (dataset.flip if self.flip == "auto" else self.flip)

    def steps_per_epoch(self, photos: int) -> int:
        """Optimizer steps an epoch with so many training photos, see `ktl.data.order.steps_per_epoch`."""
        return steps_per_epoch(photos, batch_size=self.batch_size, least_steps=self.least_steps)
