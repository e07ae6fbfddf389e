"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real weights and photos that KTL_ASSETS names."""
    if "KTL_ASSETS" not in os.environ:
        pytest.skip("KTL_ASSETS does not name the folder of real weights and photos")
    return Path(os.environ["KTL_ASSETS"])


@pytest.fixture
def float32_policy():
    """Puts the global dtype policy back."""
    import keras

    yield
    keras.config.set_dtype_policy("float32")
