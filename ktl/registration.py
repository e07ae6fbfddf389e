"""Keras opens files of ktl's classes as soon as both packages are imported, whichever comes first."""

import contextlib
import importlib
import importlib.abc
import sys

CLASSES = "ktl.models.classifier"
"""Imports every class that ktl registers with Keras."""


def register_classes() -> None:
    """Registers ktl's classes with Keras: now if it is loaded, else once it is, since loading it takes seconds."""
    if "keras" in sys.modules:
        importlib.import_module(CLASSES)
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Finds Keras where the other finders do, and registers ktl's classes when it is loaded.

    To be asked where Keras is does not mean that it is loaded next: TensorFlow asks, too.
    """

    def find_spec(self, fullname, path, target=None):
        if fullname != "keras":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next((found for finder in others if (found := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module):
                load(module)
                with contextlib.suppress(ValueError):  # gone already
                    sys.meta_path.remove(self)
                # What asks for Keras may be a module that the classes need, not whole yet: then `ktl` asks again.
                with contextlib.suppress(ImportError):
                    importlib.import_module(CLASSES)

            spec.loader.exec_module = load_and_register
        return spec
