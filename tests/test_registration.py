import subprocess
import sys

import pytest

NAMES = {"ktl>TransferClassifier", "ktl>ScaledUnitNormalization"}


@pytest.mark.parametrize(
    "lines",
    [
        "import ktl, keras",
        "import keras, ktl",
        "import ktl; ktl.build_backbone; import keras",  # a module that the classes need asks for Keras first
    ],
)
def test_keras_knows_the_classes_whatever_is_imported_first(lines):
    code = f"{lines}\nassert {NAMES} <= set(keras.saving.get_custom_objects())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
