"""What tests of searches share."""

import pytest

from ktl.config.settings import SearchConfig


@pytest.fixture(scope="module")
def make_config(tmp_path_factory, photo_folder, tiny_backbone):
    """Settings of short searches, which share a cache."""
    cache = str(tmp_path_factory.mktemp("cache"))

    def make(**settings):
        few = {
            "dataset": str(photo_folder),
            "backbone": str(tiny_backbone),
            "space": "scale=1,10",
            "cache_dir": cache,
            "freeze_depth": "block_relu",
            "epochs": 3,
            "seeds": 1,
            "least_steps": 1,
            "batch_size": 8,
            "learning_rate": 0.01,
            "deterministic": True,
        }
        return SearchConfig(**{**few, **settings})

    return make
