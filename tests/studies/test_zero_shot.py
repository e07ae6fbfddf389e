"""ImageNet's own classes and answers, against names read by hand and one photo at a time."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from support import REPOSITORY

from ktl.data.imagenet_classes import synsets
from ktl.data.loading import load_dataset
from ktl.data.views import view_of
from ktl.errors import UserError
from ktl.models.backbones import build_backbone
from ktl.studies.zero_shot import find_correspondence, is_scorable, known_classes, score_zero_shot, unnamed_classes

PETS_BY_NAME = {
    "Siamese",
    "american_pit_bull_terrier",
    "basset_hound",
    "beagle",
    "boxer",
    "chihuahua",
    "english_cocker_spaniel",
    "english_setter",
    "great_pyrenees",
    "keeshond",
    "miniature_pinscher",
    "newfoundland",
    "pomeranian",
    "pug",
    "saint_bernard",
    "samoyed",
    "scottish_terrier",
    "staffordshire_bull_terrier",
    "yorkshire_terrier",
}

PETS_BY_FILE = {
    "Persian": "Persian cat",
    "german_shorthaired": "German short-haired pointer",
    "japanese_chin": "Japanese spaniel",
    "leonberger": "Leonberg",
    "wheaten_terrier": "soft-coated wheaten terrier",
}


def ids(class_name: str, **arguments) -> list[str]:
    found = find_correspondence(["other thing", class_name], **arguments)
    assert "other thing" not in found
    return [synset.id for synset in found.get(class_name, ())]


@pytest.mark.parametrize(
    ("class_name", "expected"),
    [
        ("n02085620-chihuahua", ["n02085620"]),
        ("001.n02085620", ["n02085620"]),
        ("n02085620_boxer", ["n02085620"]),
        ("n00000001-boxer", []),  # an id that ImageNet's thousand do not have
        ("n020856201", []),
        ("goldfish", ["n01443537"]),
        ("Carassius_Auratus", ["n01443537"]),
        ("great-white SHARK", ["n01484850"]),
        ("whiteshark", ["n01484850"]),
        ("maillot", []),  # a swimsuit, and a dancer's
        ("Cardigan", []),  # a dog, and a jacket
        ("crane", []),  # a bird, and a machine
        ("goldfishes", []),
        ("7", []),
        ("", []),
    ],
)
def test_a_class_is_known_by_its_id_or_its_name(class_name, expected):
    assert ids(class_name) == expected


def write(folder: Path, text: str) -> str:
    (folder / "synsets.csv").write_text(text, encoding="utf-8")
    return str(folder / "synsets.csv")


def test_a_file_takes_the_place_of_names_for_the_classes_that_it_names(tmp_path):
    mapping = write(
        tmp_path, "\ufeffclass,synset\n\nboxer,n03944341\nboxer,n02102318\nboxer,n02102318\nn02085620,n02108089\n"
    )
    found = find_correspondence(["boxer", "pug", "n02085620", "thing"], mapping=mapping)
    assert {name: [synset.id for synset in those] for name, those in found.items()} == {
        "boxer": ["n03944341", "n02102318"],
        "pug": ["n02110958"],
        "n02085620": ["n02108089"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,synset\npugs,n02110958\n", "Expected classes of the data set in .*'pugs'"),
        ("class,synset\npug,n00000000\n", "Expected WordNet ids of the 1000 classes.*'n00000000'"),
        ("class,synset\npug,\n", "Expected WordNet ids.*''"),
        ("pug,n02110958\n", "Expected `synsets` to have the columns class,synset"),
        ("class,synset\npug\n", "Expected `synsets` to have the columns class,synset"),
        ("class,synset\npug,n02110958,1\n", "Expected `synsets` to have the columns class,synset"),
        ("", "Expected `synsets` to have the columns class,synset"),
        ('class,synset\n"pug', "Expected `synsets` to be a readable CSV file"),
    ],
)
def test_a_bad_file_is_one_line(text, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        find_correspondence(["pug"], mapping=write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="Expected `synsets` to be a readable CSV file"):
        find_correspondence(["pug"], mapping=str(tmp_path / "none.csv"))


def test_the_file_for_the_pets_names_those_that_names_do_not_find(tmp_path):
    import tensorflow_datasets

    classes = tensorflow_datasets.builder("oxford_iiit_pet", data_dir=tmp_path).info.features["label"].names
    assert sorted(find_correspondence(classes)) == sorted(PETS_BY_NAME)
    found = find_correspondence(classes, mapping=str(REPOSITORY / "experiments" / "synsets" / "oxford_iiit_pet.csv"))
    assert sorted(found) == sorted([*PETS_BY_NAME, *PETS_BY_FILE])
    assert {name: found[name][0].name for name in PETS_BY_FILE} == PETS_BY_FILE
    assert all(len(those) == 1 for those in found.values())


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    keras.utils.set_random_seed(0)
    pixels = keras.Input((40, 40, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(pixels)
    x = keras.layers.Conv2D(16, 7, strides=3, activation="relu", kernel_initializer="he_normal")(x)
    logits = keras.layers.Dense(1000, kernel_initializer="he_normal")(keras.layers.Flatten()(x))
    path = tmp_path_factory.mktemp("backbone") / "thousand.keras"
    keras.Model(pixels, logits).save(path)
    return build_backbone(str(path))


def test_scores_are_those_of_one_photo_at_a_time(backbone, photo_folder, tmp_path):
    dataset = load_dataset(str(photo_folder))
    numbers = {"class1": range(500), "class3": range(400, 700), "class4": [7]}
    lines = [f"{name},{synsets()[number].id}\n" for name, those in numbers.items() for number in those]
    known = find_correspondence(dataset.class_names, mapping=write(tmp_path, "class,synset\n" + "".join(lines)))
    split = dataset.train.take(np.arange(0, len(dataset.train), 2))
    found = score_zero_shot(backbone, split, dataset.class_names, known, batch_size=4)
    chosen, hits, among = [], [], []
    for index, label in enumerate(split.labels):
        if f"class{label}" in numbers:
            logits = backbone.model(view_of(split.read(index), size=40)[np.newaxis].astype("float32")).numpy()[0]
            chosen.append(index)
            hits.append(int(logits.argmax()) in numbers[f"class{label}"])
            allowed = sorted({number for those in numbers.values() for number in those}, key=lambda k: -logits[k])
            among.append(allowed[0] in numbers[f"class{label}"])
    assert list(found.chosen) == chosen
    assert 0 < found.top1 == pytest.approx(np.mean(hits))
    assert found.restricted_top1 == pytest.approx(np.mean(among))
    assert found.top1 < found.restricted_top1 < 1


def test_without_a_photo_of_a_known_class_there_is_no_score(backbone, photo_folder):
    dataset = load_dataset(str(photo_folder))
    assert score_zero_shot(backbone, dataset.test, dataset.class_names, {}, batch_size=4) is None
    known = {"class5": (synsets()[0],)}
    part = dataset.test.take(np.flatnonzero(dataset.test.labels != 5))
    assert score_zero_shot(backbone, part, dataset.class_names, known, batch_size=4) is None


def test_only_a_trained_layer_of_a_thousand_classes_is_scored(backbone, tiny_backbone):
    assert is_scorable(backbone, weights="imagenet")
    assert not is_scorable(backbone, weights="random")
    assert not is_scorable(build_backbone(str(tiny_backbone)), weights="imagenet")


def test_a_layer_of_other_classes_knows_none(backbone, tiny_backbone, tmp_path):
    names = ["goldfish", "thing"]
    assert list(known_classes(backbone, names, weights="imagenet")) == ["goldfish"]
    assert known_classes(backbone, names, weights="random") == {}
    tiny = build_backbone(str(tiny_backbone))
    assert known_classes(tiny, names, weights="imagenet") == {}
    with pytest.raises(UserError, match="n00000000"):
        known_classes(tiny, names, weights="imagenet", mapping=write(tmp_path, "class,synset\nthing,n00000000\n"))


@pytest.fixture
def without_names(monkeypatch):
    """As where TensorFlow Datasets is not installed."""
    monkeypatch.setitem(sys.modules, "tensorflow_datasets.datasets.siscore.labels", None)
    synsets.cache_clear()
    yield
    monkeypatch.undo()
    synsets.cache_clear()


def test_where_no_class_has_a_name_this_is_told(backbone, tiny_backbone, without_names, tmp_path):
    (told,) = unnamed_classes(backbone, weights="imagenet")
    assert told.startswith("WARNING: which classes are classes of ImageNet was not looked at: ")
    assert unnamed_classes(backbone, weights="random") == []
    assert unnamed_classes(build_backbone(str(tiny_backbone)), weights="imagenet") == []
    with pytest.raises(UserError, match=r"Expected TensorFlow Datasets, which .* `synsets`"):
        known_classes(backbone, ["thing"], weights="imagenet", mapping=write(tmp_path, "class,synset\n"))


def test_where_classes_have_names_nothing_is_told(backbone):
    assert unnamed_classes(backbone, weights="imagenet") == []


@pytest.mark.slow
def test_mobilenet_knows_most_pets_that_imagenet_has(assets):
    pets = load_dataset(str(assets / "data/oxford_pets37"))
    backbone = build_backbone("mobilenet_0.75", weights=str(assets / "weights/mobilenet_0_75_224.weights.h5"))
    mapping = REPOSITORY / "experiments" / "synsets" / "oxford_iiit_pet.csv"
    known = find_correspondence(pets.class_names, mapping=str(mapping))
    found = score_zero_shot(backbone, pets.test, pets.class_names, known, batch_size=32)
    assert len(found.chosen) == 24 * 5
    assert 0.65 < found.top1 < found.restricted_top1
    assert found.restricted_top1 > 0.85
