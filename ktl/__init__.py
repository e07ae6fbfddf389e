"""Transfer learning that keeps the ImageNet classification layer.

The public names are imported when they are first used, so that `import ktl` is quick.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "BACKBONES": "models.backbones",
    "HEADS": "models.heads",
    "RunConfig": "config.settings",
    "ScaledUnitNormalization": "models.layers",
    "SearchConfig": "config.settings",
    "StudyConfig": "config.settings",
    "TransferHyperModel": "tuning.hypermodel",
    "UserError": "errors",
    "build_backbone": "models.backbones",
    "build_network": "models.classifier",
    "export": "exporting.export",
    "find_boundaries": "models.boundaries",
    "freeze": "models.classifier",
    "load_classifier": "inference.predictor",
    "load_dataset": "data.loading",
    "load_predictor": "inference.predictor",
    "predict": "inference.predict",
    "prepare_process": "process",
    "run": "runs.run",
    "search": "tuning.search",
    "serve": "serving.app",
    "study": "studies.study",
    "write_report": "reporting.page",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'ktl' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ktl.{_HOME[name]}"), name)


def __dir__():
    return __all__
