"""What of ktl's own code, and of the packages that it calls, decides what the network sees of a photo.

The text of the modules that crop, resize, augment and compute is part of each entry's key, and their constants as they
are now: nobody can forget to count up a version, and what a constant was set to counts, however it was set. A changed
comment costs one pass; a stale number would cost a result.
"""

import hashlib
import inspect
from types import ModuleType

import numpy as np
import PIL
from PIL import features

from ktl.backends.engines import engine_module
from ktl.data import augmentation, images, input_pipeline, png, views
from ktl.models import batchnorm_folding

MODULES: tuple[ModuleType, ...] = (png, images, views, augmentation, input_pipeline, batchnorm_folding)
"""Through which a photo goes on its way to a row, but for the engine's."""

CONSTANTS: tuple[ModuleType, ...] = (views, augmentation)
"""Of those, the ones whose constants decide pixels."""

CODECS = ("jpg", "webp")
"""Of Pillow's, those whose versions may decode other pixels from the same bytes."""


def code_identity() -> dict[str, str]:
    """Names and values of all that decides pixels and rounding but for the engine, the weights and the photo."""
    code = hashlib.sha256()
    for module in (*MODULES, engine_module()):
        code.update(inspect.getsource(module).encode())
    constants = {
        f"{module.__name__}.{name}": repr(value)
        for module in CONSTANTS
        for name, value in sorted(vars(module).items())
        if name.isupper() and isinstance(value, int | float | str | tuple)
    }
    codecs = {codec: str(features.version(codec)) for codec in CODECS if features.check(codec)}
    versions = {"pillow": PIL.__version__, "numpy": np.__version__}
    return {"code": code.hexdigest(), **constants, **codecs, **versions}
