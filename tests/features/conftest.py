"""A classifier and its photos."""

import pytest
from tiny import tiny_classifier

from ktl.data.loading import load_dataset


@pytest.fixture
def classifier(tiny_backbone):
    return tiny_classifier(tiny_backbone, seed=1)


@pytest.fixture(scope="module")
def dataset(photo_folder):
    return load_dataset(str(photo_folder))
