"""Fixtures that several test files share."""

import atexit
import contextlib
import gc
import multiprocessing
import multiprocessing.forkserver
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from object_store import BUCKETS, GS, S3, SERVERS, Disk, with_gs, with_s3
from support import write_photos

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # the tests' processes may share a GPU
# No test reads or writes the user's own cache and Keras' own files; processes that tests start inherit this.
for variable in ("XDG_CACHE_HOME", "KERAS_HOME"):
    os.environ[variable] = tempfile.mkdtemp(prefix="ktl-tests-")
    atexit.register(shutil.rmtree, os.environ[variable], ignore_errors=True)

# Hypothesis: the same examples every time, few of them; `pytest --hypothesis-profile long` tries many, and others.
settings.register_profile("ktl", max_examples=100, derandomize=True, database=None, deadline=None)
settings.register_profile("long", max_examples=5000, database=None, deadline=None, print_blob=True)
settings.load_profile("ktl")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real weights and photos that KTL_ASSETS names."""
    if "KTL_ASSETS" not in os.environ:
        pytest.skip("KTL_ASSETS does not name the folder of real weights and photos")
    return Path(os.environ["KTL_ASSETS"])


@pytest.fixture
def settled_photos(monkeypatch):
    """Photos that were written just now count as old ones: the cache remembers their digests."""
    monkeypatch.setattr("ktl.features.digests.UNSETTLED_NS", -1)


@pytest.fixture
def float32_policy():
    """Puts the global dtype policy back."""
    import keras

    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def without_determinism_afterwards():
    """It is the process's, and keeps the next test's models from XLA."""
    yield
    from tensorflow.python.framework import config

    config.disable_op_determinism()


def pytest_collection_finish(session):
    """Spares the garbage collector the modules, and lets that process load TensorFlow while other tests run."""
    gc.freeze()
    if any("tiny_backbone" in item.fixturenames for item in session.items):
        multiprocessing.forkserver.ensure_running()


@pytest.fixture(scope="session")
def new_bucket():
    """Gives a new bucket of a kind, on a server of this test process."""
    with contextlib.ExitStack() as servers:
        running = set()

        def new_bucket(kind):
            if kind not in running:
                servers.enter_context(SERVERS[kind]())
                running.add(kind)
            return BUCKETS[kind]()

        yield new_bucket


STORES = [pytest.param(S3, marks=(pytest.mark.slow, with_s3)), pytest.param(GS, marks=(pytest.mark.slow, with_gs))]


@pytest.fixture(params=STORES)
def bucket(request, new_bucket):
    """One in an object store."""
    return new_bucket(request.param)


@pytest.fixture(params=["file", *STORES])
def place(request, tmp_path, new_bucket):
    """A folder at a URL; see `object_store`."""
    pytest.importorskip("fsspec", reason="needs fsspec")
    return Disk(tmp_path / "place") if request.param == "file" else new_bucket(request.param)


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory) -> Path:
    """72 photos of 6 classes. Do not write here."""
    return write_photos(tmp_path_factory.mktemp("photos") / "stripes")


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory) -> Path:
    """A classifier's .keras file: 42 x 42 pixels in 0..255 to 20 probabilities, 5 weight layers, a few milliseconds."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    pixels = keras.Input((42, 42, 3))
    x = layers.Rescaling(1 / 127.5, -1, name="rescale")(pixels)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.ReLU(name="depthwise_relu")(x)
    x = layers.Conv2D(16, 3, strides=2, padding="same", name="block")(x)
    x = layers.BatchNormalization(name="block_norm")(x)
    x = layers.ReLU(name="block_relu")(x)
    x = layers.Conv2D(24, 1, name="point")(x)
    x = layers.ReLU(name="point_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.1, name="dropout")(x)
    probabilities = layers.Dense(20, activation="softmax", name="predictions")(x)
    path = tmp_path_factory.mktemp("backbone") / "tiny.keras"
    keras.Model(pixels, probabilities).save(path)
    return path


@pytest.fixture(scope="session")
def tiny_exports(tmp_path_factory, tiny_backbone) -> Path:
    """The classifier of `tiny_backbone`, of 20 flowers, as the Keras file `keras` and the SavedModel `savedmodel`.

    The SavedModel's features are what its last layer reads. Do not write here.
    """
    import keras
    from tiny_predictor import write_model

    from ktl.exporting.saved_model import write_saved_model

    names = [f"flower {number}" for number in range(20)]
    folder = tmp_path_factory.mktemp("exports")
    write_model(folder / "keras", tiny_backbone, names)
    (folder / "savedmodel").mkdir()
    saved = keras.models.load_model(tiny_backbone)
    probabilities = keras.Model(saved.input, keras.layers.Softmax()(saved.output))  # as the Keras file is read
    features = saved.get_layer("pool").output
    write_saved_model(probabilities, folder / "savedmodel", features=features, class_names=names)
    return folder
