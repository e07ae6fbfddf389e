"""Keras opens files of ktl's classes in any process that has imported both, in any order."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from tiny import make_photos, tiny_classifier

import ktl
from ktl.models.recipe import Recipe

CLASSES = {
    f"ktl>{name}"
    for name in ("TransferClassifier", "ScaledUnitNormalization", "TwoRates", "WarmupCosine", "SmoothedCrossEntropy")
}


LIGHT = "import sys; sys.modules.update(dict.fromkeys(['sklearn', 'scipy', 'matplotlib', 'IPython', 'pandas'], None))"
"""What Keras imports only where it is installed: without it, a process takes two seconds less."""


def fresh_python(code, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", f"{LIGHT}\n{code}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def saved(tiny_backbone, tmp_path_factory):
    """A trained classifier's file and what it gives, beside photos."""
    folder = tmp_path_factory.mktemp("saved")
    classifier = tiny_classifier(tiny_backbone)
    classifier.compile(recipe=Recipe(learning_rate=0.003))
    pixels, labels = make_photos()
    classifier.fit(pixels, labels, epochs=1, verbose=0)
    classifier.save(folder / "model.keras")
    np.savez(folder / "photos.npz", pixels=pixels, logits=classifier.predict(pixels, verbose=0))
    return folder


AT_FIRST = [
    "import ktl, keras",
    "import tensorflow\nfrom tensorflow import keras\nimport ktl",
    "import ktl; ktl.build_backbone",  # a module that the classes need asks for Keras first
    # Where Keras is, is asked before it is imported; and a submodule is what is imported.
    "import ktl, importlib.util\nassert importlib.util.find_spec('keras')\nimportlib.reload(ktl)\nimport keras.saving",
]
LIKE_THEM = [
    "import keras, ktl",
    "import ktl\nimport tensorflow",
    "import tensorflow\nimport ktl",
    "import ktl\nfrom keras import layers",
    "import ktl.errors",
    "import ktl.layers",  # as the README of version 0.1 had it
]


@pytest.mark.parametrize(
    "imports", [*AT_FIRST, *(pytest.param(imports, marks=pytest.mark.long) for imports in LIKE_THEM)]
)
def test_keras_opens_a_classifier_whatever_is_imported_first(saved, imports):
    code = f"""
{imports}
import keras, sys, numpy
model = keras.models.load_model(sys.argv[1] + "/model.keras")
photos = numpy.load(sys.argv[1] + "/photos.npz")
numpy.testing.assert_allclose(model(photos["pixels"]), photos["logits"], rtol=1e-5, atol=1e-5)
assert type(model).__name__ == "TransferClassifier", type(model)
assert {CLASSES} <= set(keras.saving.get_custom_objects())
assert not [finder for finder in sys.meta_path if type(finder).__module__ == "ktl.registration"]
"""
    done = fresh_python(code, saved)
    assert done.returncode == 0, done.stderr


def test_importing_ktl_alone_loads_neither_keras_nor_tensorflow():
    code = "import sys, ktl; print(sorted({'keras', 'tensorflow', 'numpy'} & set(sys.modules)), ktl.__version__)"
    assert fresh_python(code).stdout == f"[] {ktl.__version__}\n"


def test_where_keras_is_not_installed_the_error_is_python_s_own(tmp_path):
    """And a later import, once it is there, works."""
    code = f"""
import sys
import ktl
found = [path for path in sys.path if not path.endswith("site-packages")]
everything, sys.path[:] = list(sys.path), found
try:
    import keras
except ModuleNotFoundError as error:
    assert error.name == "keras", error
else:
    raise AssertionError
sys.path[:] = everything
import keras
assert {CLASSES} <= set(keras.saving.get_custom_objects())
"""
    done = fresh_python(code)
    assert done.returncode == 0, done.stderr


def test_keras_has_the_classes_here_too():
    assert set(keras.saving.get_custom_objects()) >= CLASSES
    assert os.environ.get("KERAS_BACKEND", "tensorflow") == keras.config.backend()
