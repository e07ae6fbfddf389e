"""One run from its settings to a finished folder."""

import dataclasses
import hashlib
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ktl.config.settings import RunConfig, TrainingConfig
from ktl.data import duplicates
from ktl.data.dataset import Dataset, Split
from ktl.data.duplicates import Duplicate
from ktl.data.loading import load_dataset
from ktl.errors import UserError
from ktl.evaluation import metrics
from ktl.machine import process_state_restored
from ktl.progress import Reporter, Verbose, reporter_for
from ktl.runs import attribution
from ktl.runs.environment import describe_environment
from ktl.runs.few_photos import warnings_of
from ktl.runs.finished_run import RunResult, WithoutDuplicates
from ktl.runs.run_folder import RunFolder
from ktl.runs.session import Extras, Session, Training
from ktl.training.checkpoint import EpochRow, best_epoch
from ktl.training.evaluate import predict_probabilities, predict_with_activations


def default_output(config: TrainingConfig, *, extras: Extras | None = None) -> Path:
    """runs/<data set>-<backbone>-<a run's head, or search or study>-<settings' fingerprint>: of the same settings, and
    of the same extras where there are any that are recorded."""
    what = config.head if isinstance(config, RunConfig) and config.SCRIPT == "run" else config.SCRIPT
    recorded = extras.recorded if extras else {}
    digests = [hashlib.sha256(repr(recorded).encode()).hexdigest()[:8]] if recorded else []
    names = (Path(config.dataset).stem, Path(config.backbone).stem, what, config.fingerprint(), *digests)
    return Path("runs") / "-".join(names).replace(":", "_")


# Long by what it tells of its arguments.
def run(
    config: RunConfig | None = None,
    *,
    output: str | Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    class_weight: str | Mapping[int, float] | None = None,
    augmentation: str | Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    verbose: Verbose = 1,
    **settings: Any,
) -> RunResult:
    """Fine-tunes a backbone with a new head, and scores it once on the test photos.

        result = ktl.run(dataset="photos", backbone="mobilenet_0.75", output="runs/first")
        print(result["test"]["top1"])

    Called again with the same settings and folder, it continues a killed run after its last complete epoch, and gives
    back the result of one that has ended. The process is left as it was found: Keras' global state, seeds, dtype
    policy and determinism.

    Args:
        config: the settings; or give them as keywords.
        output: the run's folder, see `ktl.runs.run_folder`; `default_output(config)` if None.
        callbacks: Keras callbacks; their `model` is the TransferClassifier.
        class_weight: the setting, or label -> weight of its photos' losses.
        augmentation: the setting, or a function of a training photo's pixels, uint8 [height, width, 3], and a NumPy
            Generator; see `ktl.data.input_pipeline.training_batches`.
        verbose: 0 for silence, 1 for lines to the logger `ktl`, or a Reporter.
        **settings: of `RunConfig`.

    Returns:
        What result.json holds.

    Raises:
        UserError (a ValueError): bad input; nothing that was there is lost.
    """
    chosen = {}
    if isinstance(class_weight, str):
        chosen["class_weight"], class_weight = class_weight, None
    if isinstance(augmentation, str):
        chosen["augmentation"], augmentation = augmentation, None
    config = dataclasses.replace(config_of_call(RunConfig, config, settings), **chosen)
    _check_extras(class_weight, augmentation)
    extras = Extras(callbacks=tuple(callbacks), class_weight=class_weight, augmentation=augmentation)
    reporter = reporter_for(verbose)
    folder = RunFolder(output or default_output(config, extras=extras), config, extras=extras.recorded)
    with folder.held():
        if folder.result is None:
            with process_state_restored():
                _train_and_score(config, extras, folder, reporter)
        folder.remove_leftovers()
    return folder.finished_result()


def _check_extras(class_weight: object, augmentation: object) -> None:
    weights = class_weight.items() if isinstance(class_weight, Mapping) else None
    if class_weight is not None and (
        weights is None or not all(isinstance(k, numbers.Integral) and isinstance(v, numbers.Real) for k, v in weights)
    ):
        raise UserError(
            f"Expected `class_weight` as none, balanced, or a mapping of label to number. Received: {class_weight!r}"
        )
    if augmentation is not None and not callable(augmentation):
        raise UserError(f"Expected `augmentation` as standard, none, or a function. Received: {augmentation!r}")


def config_of_call(kind: type, config, settings: Mapping[str, Any]):
    """The settings that a public function was given: a config, or keywords.

    Args:
        kind: the config's class.
        config: a config, or None.
        settings: keywords.

    Raises:
        UserError: both, or an unknown setting, or neither.
    """
    if "reporter" in settings:
        raise UserError("Expected `verbose`, which takes a Reporter too. Received: `reporter`, its name in version 0.1")
    if config is not None:
        if settings or type(config) is not kind:
            received = f"both, {', '.join(settings)}" if settings else type(config).__name__
            raise UserError(f"Expected a {kind.__name__}, or its settings as keywords. Received: {received}")
        return config
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise UserError(f"Expected settings of: {', '.join(known)}. Received: {', '.join(unknown)}")
    if "dataset" not in settings:
        raise UserError("Expected `dataset`, a name or a path. Received: none")
    return kind(**settings)


def begin(config: TrainingConfig, folder: RunFolder, reporter: Reporter) -> Dataset:
    """The data set, which the folder's is; tells what a reader of its results must know.

    Raises:
        UserError: there is no such data set, or the folder has work of other photos or files.
    """
    dataset = load_dataset(config.dataset, data_dir=config.data_dir)
    folder.hold_to(dataset)
    if dataset.notice:
        reporter.message(dataset.notice)
    if config.weights == "random":
        reporter.message("WARNING: random weights: there is no pre-trained layer to keep")
    for warning in warnings_of(config, dataset):
        reporter.message(warning)
    return dataset


def _train_and_score(config: RunConfig, extras: Extras, folder: RunFolder, reporter: Reporter) -> None:
    dataset = begin(config, folder, reporter)
    session = Session(config, dataset, extras=extras, reporter=reporter)
    training = session.prepare()
    history = training.fit(folder.checkpoint_dir, reporter=reporter)
    write_results(folder, training, history, reporter=reporter)
    del training
    session.close()


def write_results(folder: RunFolder, training: Training, history: Sequence[EpochRow], *, reporter: Reporter) -> None:
    """Scores the trained classifier, the test photos this once, and writes everything down; result.json last.

    Args:
        folder: where to.
        training: has ended.
        history: what it gave.
        reporter: is told of the search for duplicates.
    """
    classifier, inputs = training.classifier, training.inputs
    dataset, class_names = inputs.dataset, inputs.dataset.class_names
    folder.write_json("environment.json", describe_environment(training.machine))
    folder.write_history(history)
    folder.write_labels(class_names)
    folder.write_model(classifier.as_functional())
    scored = (dataset.validation, dataset.test)
    probabilities, activations = _predict(training, scored)
    folder.write_probabilities(probabilities, {split.name: split.labels for split in scored})
    test = dataset.test
    folder.write_predictions(test.photos, test.labels, probabilities["test"], class_names)
    folder.write_confusion(metrics.confusion_matrix(probabilities["test"], test.labels), class_names)
    folder.write_classes(metrics.class_scores(probabilities["test"], test.labels), class_names)
    if activations is not None:
        kernel = np.asarray(keras.ops.convert_to_numpy(classifier.new_layers[-1].kernel))
        folder.write_kept_layer(attribution.strongest_classes(kernel, activations, test.labels, class_names))
    found = _find_duplicates(folder, dataset, reporter)
    result: RunResult = {
        "validation": metrics.score(probabilities["validation"], dataset.validation.labels),
        "test": metrics.score(probabilities["test"], test.labels),
        "duplicates": {name: duplicates.count(found, split=name) for name in ("validation", "test")},
        "without_duplicates": _without(found, test, probabilities["test"]),
        "settings": training.config.as_dict(),
        "command": training.config.command(),
        "frozen_up_to": classifier.boundary.name,
        "parameters": {
            "total": classifier.count_params(),
            "frozen": classifier.prefix.count_params(),
            "trained": sum(math.prod(variable.shape) for variable in classifier.suffix.trainable_variables),
        },
        "photos": {split.name: len(split) for split in dataset.splits},
        "bad_photos": [{"photo": photo, "reason": reason} for photo, reason in inputs.bad_photos],
        "notice": dataset.notice,
        "warnings": warnings_of(training.config, dataset),
        "epochs": len(history),
        "best_epoch": best_epoch(history, training.config.objective),
        "seconds": inputs.seconds + sum(row["seconds"] for row in history),
        "machine": dataclasses.asdict(training.machine),
    }
    folder.write_json("result.json", result)


def _find_duplicates(folder: RunFolder, dataset: Dataset, reporter: Reporter) -> tuple[Duplicate, ...]:
    with reporter.photos("looking for duplicates", sum(map(len, dataset.splits))) as update:
        found = duplicates.find_duplicates(dataset, progress=update)
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
