"""load_dataset: the embedded digits, and what a name's spelling means."""

import numpy as np
import pytest
from support import one_line, write_classes

from ktl.data.images import decode
from ktl.data.loading import load_dataset
from ktl.errors import UserError


def test_digits_are_scikit_learns_in_256_greys():
    from sklearn.datasets import load_digits

    dataset, reference = load_dataset("digits"), load_digits()
    assert dataset.class_names == tuple("0123456789")
    assert dataset.flip is False
    assert sum(map(len, dataset.splits)) == 1797
    split = dataset.test
    for index in (0, 100, len(split) - 1):
        number = int(split.photos[index].split("/")[1].removesuffix(".png"))
        assert split.labels[index] == reference.target[number]
        grey = decode(split.read(index))
        np.testing.assert_allclose(grey[..., 0], reference.images[number] * 255 / 16, atol=0.5)


@pytest.mark.parametrize(
    ("name", "received"),
    [
        ("stanford_dog", "Did you mean: stanford_dogs"),
        ("no such thing", "which is none of them"),
        ("huggingface:mnist", "none of them"),
        ("./leaves", "does not exist"),
        ("leaves.csv", "leaves.csv: it does not exist"),
        ("mnist:9.9.9", "version 9.9.9"),
        ("imdb_reviews", "with label, text|with text, label|imdb_reviews, with"),
    ],
)
def test_an_unknown_name_gets_one_line(tmp_path, monkeypatch, name, received):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=received) as error:
        load_dataset(name, data_dir=str(tmp_path))
    one_line(error)


def test_an_existing_folder_wins_over_tfds_but_not_over_the_named_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "cifar10", {"ash": 5, "birch": 5})
    (tmp_path / "digits").mkdir()
    assert load_dataset("cifar10").class_names == ("ash", "birch")
    assert load_dataset("digits").class_names == tuple("0123456789")
