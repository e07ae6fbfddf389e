"""The 1000 classes of ImageNet, in the order of the outputs of all pre-trained classification layers here."""

import dataclasses
import functools
import importlib.resources

CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Synset:
    """One class of ImageNet, as WordNet names it.

    Attributes:
        id: its WordNet id: `n` and eight digits; where that is not known, its number.
        synonyms: its names, the most common one first.
    """

    id: str
    synonyms: tuple[str, ...]

    @property
    def name(self) -> str:
        """The most common name."""
        return self.synonyms[0]


def are_named() -> bool:
    """Whether the classes have their names and WordNet ids, and not numbers alone: see `synsets`."""
    return synsets()[0].id == "n01440764"


@functools.cache
def synsets() -> tuple[Synset, ...]:
    """All classes. Their names come with TensorFlow Datasets: nothing is downloaded. Without it they have numbers."""
    try:
        from tensorflow_datasets.datasets.siscore.labels import IMAGENET_LABELS_LIST  # heavy: loads TensorFlow
    except ModuleNotFoundError:
        return tuple(Synset(f"{number}", (f"ImageNet class {number}",)) for number in range(CLASSES))
    ids = importlib.resources.files("tensorflow_datasets.datasets.imagenet2012").joinpath("labels.txt")
    pairs = zip(ids.read_text().split(), IMAGENET_LABELS_LIST, strict=True)
    return tuple(Synset(wordnet_id, tuple(names.split(", "))) for wordnet_id, names in pairs)
