"""What is known of some data sets of TensorFlow Datasets without loading it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a data set that its builder does not say.

    Attributes:
        class_name: the text feature that names a photo's class, if the label feature has only numbers.
        flip: whether a mirrored photo still shows its class.
        notice: what a reader of the results must know.
    """

    class_name: str | None = None
    flip: bool = True
    notice: str | None = None


_CUB = Facts(class_name="label_name")
_CHARACTERS = Facts(flip=False)

FACTS = {
    "stanford_dogs": Facts(
        notice="The photos of Stanford Dogs come from ImageNet: a backbone trained on ImageNet may have been trained "
        "on these test photos, so its scores here say little about new photos."
    ),
    "oxford_flowers102": Facts(),
    "caltech_birds2010": _CUB,
    "caltech_birds2011": _CUB,
    "oxford_iiit_pet": Facts(),
    "caltech101": Facts(),
    "caltech256": Facts(),
    "emnist": _CHARACTERS,
    "kmnist": _CHARACTERS,
    "mnist": _CHARACTERS,
    "mnist_corrupted": _CHARACTERS,
    "omniglot": _CHARACTERS,
    "svhn_cropped": _CHARACTERS,
}
