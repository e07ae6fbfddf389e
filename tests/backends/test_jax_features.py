"""Features in a device's memory: the rows of the disk, in their places."""

import types

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # it needs the extra `jax`


@pytest.fixture
def jax_features():
    pytest.importorskip("jax", reason='the extra "jax" is not installed')
    from ktl.backends import jax_features

    return jax_features


class Stored:
    """Rows of seven photos with two views each, 20 bytes a row."""

    labels, views, shape, dtype, at_url = np.arange(7, dtype="int32"), 2, (5,), np.dtype("float32"), False
    values = np.random.default_rng(0).random((14, 5), np.float32)
    nbytes = values.nbytes

    def __len__(self):
        return 7

    def read(self, rows):
        return self.values[rows]


@pytest.mark.parametrize("rows", [1, 3, 5, 14, 99])
def test_rows_that_come_in_chunks_are_in_their_places(jax_features, monkeypatch, rows):
    monkeypatch.setattr(jax_features, "CHUNK_BYTES", 20 * rows)
    features = jax_features.DeviceFeatures(Stored())
    np.testing.assert_array_equal(features.values, Stored.values)
    chosen = np.array([13, 0, 7, 7])
    np.testing.assert_array_equal(features.read(chosen), Stored.values[chosen])


@pytest.mark.parametrize(("free", "kept"), [(0, False), (1399, False), (1400, True)])
def test_what_does_not_fit_beside_the_training_stays_on_disk(jax_features, monkeypatch, free, kept):
    """560 bytes of two splits are four tenths of 1,400."""
    monkeypatch.setattr(jax_features, "free_bytes", lambda: free)
    splits = {"train": Stored(), "validation": Stored()}
    found = jax_features.kept(splits)
    assert all(isinstance(split, jax_features.DeviceFeatures) for split in found.values()) == kept
    assert list(found) == list(splits)


def test_without_a_gpu_nothing_is_kept(jax_features, monkeypatch):
    assert jax_features.free_bytes() == 0
    gpu = types.SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 9, "bytes_in_use": 2})
    monkeypatch.setattr(jax_features.jax, "devices", lambda: [gpu])
    assert jax_features.free_bytes() == 7
    monkeypatch.setattr(jax_features.jax, "devices", lambda: [gpu, gpu])
    assert jax_features.free_bytes() == 0
