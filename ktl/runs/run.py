"""One run from its settings to a finished folder."""

import dataclasses
import hashlib
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np

from ktl.arguments import checked_arguments, path_of
from ktl.config.settings import RunConfig, TrainingConfig
from ktl.data.dataset import Dataset
from ktl.data.loading import load_dataset
from ktl.data.pooling import crossed, part_of_pooled
from ktl.errors import UserError, shown
from ktl.machine import process_state_restored
from ktl.models.heads import AUTO
from ktl.names import is_url
from ktl.progress import Reporter, Verbose, reporter_for
from ktl.remote import require_writable
from ktl.runs.finished_run import RunResult, has_ended, result_of
from ktl.runs.folds import select_by_folds
from ktl.runs.places import refuse_within_dataset
from ktl.runs.probes import CHOICE, chosen_head
from ktl.runs.refit import is_refitted, refit, selected_by
from ktl.runs.removal import noticing_removal
from ktl.runs.results import write_results
from ktl.runs.run_folder import RunFolder
from ktl.runs.session import Extras, Session
from ktl.training.class_weights import is_weight

_Runs = TypeVar("_Runs", bound=RunConfig)


def output_of(output: str | Path | None, config: TrainingConfig, *, extras: Extras | None = None) -> Path:
    """The folder that was given, or the default one. Raises UserError for an empty path."""
    return default_output(config, extras=extras) if output is None else path_of(output, argument="output")


def default_output(config: TrainingConfig, *, extras: Extras | None = None) -> Path:
    """runs/<data set>-<backbone>-<a run's head, or search or study>-<settings' fingerprint>: of the same settings, and
    of the same extras where there are any that are recorded."""
    what = config.head if isinstance(config, RunConfig) and config.SCRIPT == "run" else config.SCRIPT
    recorded = extras.recorded if extras else {}
    digests = [hashlib.sha256(repr(recorded).encode()).hexdigest()[:8]] if recorded else []
    names = (Path(config.dataset).stem, Path(config.backbone).stem, what, config.fingerprint(), *digests)
    return Path("runs") / "-".join(names).replace(":", "_")


# Long by what it tells of its arguments.
@checked_arguments
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
    output = output_of(output, config, extras=extras)
    check_places(config, output=output)
    folder = RunFolder(output, config, extras=extras.recorded)
    with folder.held(), noticing_removal(folder.path, kind=folder.KIND):
        if not has_ended(folder.path, folder.KIND):
            with process_state_restored():
                _train_and_score(config, extras, folder, reporter)
        folder.remove_leftovers()
    return result_of(folder.path)


def _check_extras(class_weight: object, augmentation: object) -> None:
    weights = class_weight.items() if isinstance(class_weight, Mapping) else None
    if class_weight is not None and (
        weights is None or not all(isinstance(k, numbers.Integral) and is_weight(v) for k, v in weights)
    ):
        raise UserError(
            "Expected `class_weight` as none, balanced, or a mapping of label to a number from 0. "
            f"Received: {shown(class_weight)}"
        )
    if augmentation is not None and not callable(augmentation):
        raise UserError(f"Expected `augmentation` as standard, none, or a function. Received: {shown(augmentation)}")


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
    for name, (in_memory, instead) in IN_MEMORY.items():
        if isinstance(settings.get(name), in_memory):
            what = in_memory.__name__
            raise UserError(
                f"Expected `{name}` as a name or a path, which a folder records. Received: a {what}. {instead}"
            )
    return kind(**settings)


IN_MEMORY = {
    "dataset": (Dataset, "`ktl.fit` trains on one"),
    "backbone": (keras.Model, "Save it as a .keras file, or give it to `ktl.TransferClassifier`"),
}
"""Setting -> what people have in memory in its place, and what takes that."""


def check_places(config: TrainingConfig, **places: str | os.PathLike | None) -> None:
    """Refuses places, and the settings' cache, within the data set, see `ktl.runs.places.refuse_within_dataset`; and a
    cache at a URL that files can only be read from."""
    cache = config.cache_dir if config.cache != "off" else None
    if is_url(cache):
        require_writable(cache, argument="cache_dir")
    refuse_within_dataset(config.dataset, config.data_dir, **places, cache_dir=cache)


def begin(config: TrainingConfig, folder: RunFolder, reporter: Reporter) -> Dataset:
    """The data set, which the folder's is, see `told_dataset`.

    Raises:
        UserError: there is no such data set, or the folder has work of other photos or files.
    """
    dataset = load_dataset(config.dataset, data_dir=config.data_dir)
    folder.hold_to(dataset)
    return told_dataset(dataset, config, reporter)


def told_dataset(dataset: Dataset, config: TrainingConfig, reporter: Reporter) -> Dataset:
    """Tells what a reader of a data set's results must know. With a refit or folds it is a part of the pooled one."""
    told = dataset.told()
    if isinstance(config, RunConfig):  # what is computed for the first training serves the later ones
        if config.folds:
            dataset = dataclasses.replace(dataset, whole=crossed(dataset))
        elif is_refitted(config.refit, dataset):
            dataset = part_of_pooled(dataset)
    for line in (*told, *([dataset.notice] if dataset.notice else [])):
        reporter.message(line)
    if config.weights == "random":
        reporter.message("WARNING: random weights: there is no pre-trained layer to keep")
    return dataset


def with_chosen_head(config: _Runs, dataset: Dataset, reporter: Reporter) -> _Runs:
    """The settings with the head that linear probes choose in place of `auto`."""
    if config.head != AUTO:
        return config
    return dataclasses.replace(
        config, head=chosen_head(Session(config, dataset, trainings=len(CHOICE), reporter=reporter))
    )


def session_for_features(config: RunConfig | None = None, *, reporter: Reporter | None = None, **settings) -> Session:
    """The session of a run whose frozen layers alone are computed, without a folder.

    Args:
        config: the settings of the run that is to find the features; `freeze_depth` may be several, with commas.
        reporter: is told of the progress.
        **settings: of `RunConfig`, in place of `config`.

    Raises:
        UserError: settings that leave nothing to compute, or there is no such data set.
    """
    config = config_of_call(RunConfig, config, settings)
    depths_of(config)
    check_places(config)
    reporter = reporter or Reporter()
    dataset = load_dataset(config.dataset, data_dir=config.data_dir)
    return Session(config, told_dataset(dataset, config, reporter), reporter=reporter)


def depths_of(config: RunConfig) -> list[str]:
    """The freeze depths whose features are computed. Raises UserError where settings leave nothing to compute."""
    if config.cache == "off":
        raise UserError("Expected `cache` auto or on: features are what it keeps. Received: off")
    if config.head == AUTO:
        raise UserError("Expected a `head` by name: where all is frozen, what it reads differs. Received: auto")
    depths = config.freeze_depth.replace(",", " ").split()
    if not depths:
        raise UserError(f"Expected at least one `freeze_depth`. Received: {config.freeze_depth}")
    return depths


def _train_and_score(config: RunConfig, extras: Extras, folder: RunFolder, reporter: Reporter) -> None:
    dataset = begin(config, folder, reporter)
    config = with_chosen_head(config, dataset, reporter)
    refitted = is_refitted(config.refit, dataset)
    trainings = 2 * config.folds + 1 if config.folds else 1 + refitted
    session = Session(config, dataset, trainings=trainings, extras=extras, reporter=reporter)
    if config.folds:
        selected = select_by_folds(session, config.folds, checkpoint_dir=folder.checkpoint_dir, reporter=reporter)
    else:
        training = session.prepare()
        history = training.fit(folder.checkpoint_dir, reporter=reporter)
        selected = selected_by(session, training, history) if refitted else None
    if selected:
        training = None  # makes room for the next network
        training, history = refit(session, selected, checkpoint_dir=folder.refit_dir, reporter=reporter)
    write_results(folder, training, history, selected=selected, reporter=reporter)
    del training
    session.close()
