"""The classes of ImageNet are those that Keras' decode_predictions has, in the same order."""

import json

from ktl.data import imagenet_classes as imagenet


def test_all_classes_are_there_once():
    ids = [synset.id for synset in imagenet.synsets()]
    assert len(set(ids)) == imagenet.CLASSES
    assert ids == sorted(ids), "the order of the classification layers is that of the ids"


def test_names_belong_to_their_ids():
    """WordNet 3.0, as anyone can look it up."""
    names = {synset.id: synset.name for synset in imagenet.synsets()}
    wordnet = {"n01440764": "tench", "n02085620": "Chihuahua", "n02123597": "Siamese cat", "n11939491": "daisy"}
    assert wordnet.items() <= names.items()
    assert names["n15075141"] == "toilet tissue"


def test_the_order_is_that_of_keras(assets):
    index = json.loads((assets / "weights" / "imagenet_class_index.json").read_text())
    synsets = imagenet.synsets()
    assert [index[str(number)][0] for number in range(1000)] == [synset.id for synset in synsets]
    same = [
        index[str(number)][1].lower() == synset.name.lower().replace(" ", "_") for number, synset in enumerate(synsets)
    ]
    assert sum(same) >= 990, "names differ in spelling at most"
