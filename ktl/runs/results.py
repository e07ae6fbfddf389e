"""What a trained classifier reaches, written down in a run's folder."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import cast

import keras
import numpy as np

from ktl.data import duplicates
from ktl.data.dataset import Dataset
from ktl.data.duplicates import Duplicate
from ktl.data.split import Split
from ktl.evaluation import metrics
from ktl.features.prints import RememberedPrints
from ktl.progress import Reporter
from ktl.runs import attribution
from ktl.runs.environment import describe_environment
from ktl.runs.finished_run import MachineRecord, RefitResult, RunResult, SplitCounts, WithoutDuplicates
from ktl.runs.refit import Selected
from ktl.runs.run_folder import RunFolder
from ktl.runs.session import Training
from ktl.training.checkpoint import EpochRow, best_epoch
from ktl.training.evaluate import predict_probabilities, predict_with_activations
from ktl.training.few_photos import warnings_of
from ktl.training.inputs import Inputs


def write_results(
    folder: RunFolder,
    training: Training,
    history: Sequence[EpochRow],
    *,
    selected: Selected | None = None,
    reporter: Reporter,
) -> None:
    """Scores the trained classifier, the test photos this once, and writes everything down; result.json last.

    Args:
        folder: where to.
        training: has ended.
        history: what it gave.
        selected: what the training before it gave, where this one is a refit: its history is written, and its
            validation probabilities, since this one was fitted to these photos.
        reporter: is told of the search for duplicates, and of warnings.
    """
    classifier = training.classifier
    dataset = selected.dataset if selected else training.inputs.dataset
    folder.write_json("environment.json", describe_environment(training.machine))
    folder.write_history(selected.history if selected else history)
    folder.write_labels(dataset.class_names)
    folder.write_model(classifier.as_functional())
    probabilities, activations = _predict(training, (dataset.test,) if selected else (dataset.validation, dataset.test))
    labels = {"validation": dataset.validation.labels, "test": dataset.test.labels}
    if selected:
        probabilities["validation"], labels["validation"] = selected.validation, selected.labels
    _write_predictions(folder, dataset, probabilities, labels)
    if activations is not None:
        kernel = np.asarray(keras.ops.convert_to_numpy(classifier.new_layers[-1].kernel))
        rows = attribution.strongest_classes(kernel, activations, dataset.test.labels, dataset.class_names)
        folder.write_kept_layer(rows)
    found = _find_duplicates(folder, dataset, training.inputs, reporter)
    result = _result(training, history, selected, probabilities, found)
    for warning in result.get("warnings", ()):
        reporter.message(warning)
    folder.write_result(result)


def _result(
    training: Training,
    history: Sequence[EpochRow],
    selected: Selected | None,
    probabilities: Mapping[str, np.ndarray],
    found: Sequence[Duplicate],
) -> RunResult:
    classifier, inputs, config = training.classifier, training.inputs, training.config
    dataset = selected.dataset if selected else inputs.dataset
    chosen_from = selected.history if selected else history
    seconds = inputs.seconds + sum(row["seconds"] for row in history)
    refit: RefitResult = {"photos": len(inputs.dataset.train), "epochs": len(history), "seconds": seconds}
    return {
        "validation": metrics.score(
            probabilities["validation"], selected.labels if selected else dataset.validation.labels
        ),
        "test": metrics.score(probabilities["test"], dataset.test.labels),
        "duplicates": {name: duplicates.count(found, split=name) for name in ("validation", "test")},
        "without_duplicates": _without(found, dataset.test, probabilities["test"]),
        "refit": refit if selected else None,
        "settings": config.as_dict(),
        "command": config.command(),
        "frozen_up_to": classifier.boundary.name,
        "parameters": {
            "total": classifier.count_params(),
            "frozen": classifier.prefix.count_params(),
            "trained": sum(math.prod(variable.shape) for variable in classifier.suffix.trainable_variables),
        },
        "photos": SplitCounts(train=len(dataset.train), validation=len(dataset.validation), test=len(dataset.test)),
        "bad_photos": [{"photo": photo, "reason": reason} for photo, reason in inputs.bad_photos],
        "passed_over": [passed_over._asdict() for passed_over in dataset.found.passed_over],
        "notice": dataset.notice,
        "warnings": warnings_of("refit" if selected and selected.few else "run", dataset, folds=config.folds),
        "epochs": len(chosen_from),
        "best_epoch": best_epoch(chosen_from, config.objective),
        "seconds": seconds + (selected.seconds if selected else 0),
        "machine": cast(MachineRecord, dataclasses.asdict(training.machine)),
    }


def _write_predictions(
    folder: RunFolder, dataset: Dataset, probabilities: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> None:
    test, names = dataset.test, dataset.class_names
    folder.write_probabilities({name: probabilities[name] for name in labels}, labels)
    folder.write_predictions(test.photos, test.labels, probabilities["test"], names)
    folder.write_confusion(metrics.confusion_matrix(probabilities["test"], test.labels), names)
    folder.write_classes(metrics.class_scores(probabilities["test"], test.labels), names)


def _find_duplicates(folder: RunFolder, dataset: Dataset, inputs: Inputs, reporter: Reporter) -> tuple[Duplicate, ...]:
    """Looks for them; where features are cached, what photos are recognised by is remembered beside them."""
    memory = RememberedPrints(inputs.options.caching.folder, tell=reporter.message) if inputs.cached else None
    with reporter.photos("looking for duplicates", sum(map(len, dataset.splits))) as update:
        found = duplicates.find_duplicates(dataset, progress=update, memory=memory)
    folder.write_duplicates(found)
    return found


def _without(found: Sequence[Duplicate], test: Split, probabilities: np.ndarray) -> WithoutDuplicates:
    kept = duplicates.unlike_others(found, test.photos)
    scores = metrics.score(probabilities[kept], test.labels[kept]) if kept.any() else None
    return {"photos": int(kept.sum()), "test": scores}


def _predict(training: Training, splits: Sequence[Split]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Probabilities of the splits' photos by the split's name, each photo seen once; and what the new Dense layer read
    of the last split's, where its inputs have names."""
    classifier, inputs = training.classifier, training.inputs
    part = inputs.trained_part(classifier)
    if training.config.weights == "random" or not attribution.reads_imagenet_classes(classifier):
        return {s.name: predict_probabilities(part, inputs.evaluation_batches(s)) for s in splits}, None
    with training.machine.scope():
        model = attribution.with_activations(classifier, part)
    # All with this model, although the last alone needs it: a second model is a second graph to trace and to compile.
    found = {s.name: predict_with_activations(model, inputs.evaluation_batches(s)) for s in splits}
    return {name: probabilities for name, (probabilities, _) in found.items()}, found[splits[-1].name][1]
