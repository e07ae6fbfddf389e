"""Transfer learning that keeps the ImageNet classification layer.

    import ktl

    dataset = ktl.Dataset.from_directory("photos")
    classifier = ktl.TransferClassifier("mobilenet_0.75", class_names=dataset.class_names)
    ktl.fit(classifier, dataset, epochs=15)

The public names are imported when they are first used, so that `import ktl` is quick.
"""

import importlib
from typing import TYPE_CHECKING

from ktl.registration import register_classes

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from ktl.config.settings import RunConfig, SearchConfig, StudyConfig
    from ktl.data.dataset import Dataset, Split
    from ktl.data.loading import load_dataset
    from ktl.deprecated import build_network, freeze
    from ktl.errors import UserError
    from ktl.exporting.export import export
    from ktl.inference.predict import predict
    from ktl.inference.predictor import load_classifier
    from ktl.inference.predictor import load_predictor as load
    from ktl.models.backbones import BACKBONES, build_backbone
    from ktl.models.boundaries import find_boundaries
    from ktl.models.classifier import TransferClassifier
    from ktl.models.heads import HEADS
    from ktl.models.layers import ScaledUnitNormalization
    from ktl.models.recipe import Recipe
    from ktl.process import prepare_process
    from ktl.reporting.page import write_report
    from ktl.runs.run import run
    from ktl.serving.app import serve
    from ktl.studies.study import study
    from ktl.training.fit import fit_dataset as fit
    from ktl.training.options import Caching
    from ktl.tuning.hypermodel import TransferHyperModel
    from ktl.tuning.search import search

_HOME = {
    "BACKBONES": "models.backbones",
    "Caching": "training.options",
    "Dataset": "data.dataset",
    "HEADS": "models.heads",
    "Recipe": "models.recipe",
    "RunConfig": "config.settings",
    "ScaledUnitNormalization": "models.layers",
    "SearchConfig": "config.settings",
    "Split": "data.dataset",
    "StudyConfig": "config.settings",
    "TransferClassifier": "models.classifier",
    "TransferHyperModel": "tuning.hypermodel",
    "UserError": "errors",
    "build_backbone": "models.backbones",
    "build_network": "deprecated",
    "export": "exporting.export",
    "find_boundaries": "models.boundaries",
    "fit": "training.fit:fit_dataset",
    "freeze": "deprecated",
    "load": "inference.predictor:load_predictor",
    "load_classifier": "inference.predictor",
    "load_dataset": "data.loading",
    "predict": "inference.predict",
    "prepare_process": "process",
    "run": "runs.run",
    "search": "tuning.search",
    "serve": "serving.app",
    "study": "studies.study",
    "write_report": "reporting.page",
}
"""Public name -> the module that it is in, and its name there if that is another."""

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'ktl' has no attribute {name!r}")
    module, _, inner = _HOME[name].partition(":")
    found = getattr(importlib.import_module(f"ktl.{module}"), inner or name)
    register_classes()
    return found


def __dir__():
    return __all__


register_classes()
