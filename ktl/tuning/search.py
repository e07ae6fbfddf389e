"""One search from a config to a finished folder: trials, the best one's run, and a table of all."""

import dataclasses
import math
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from ktl.config.settings import SearchConfig
from ktl.config.space import size
from ktl.data.dataset import Dataset
from ktl.errors import UserError
from ktl.features.extraction import PASS_BATCH
from ktl.models.backbones import build_backbone
from ktl.models.boundaries import find_boundary, spread_depths
from ktl.models.classifier import TransferClassifier
from ktl.progress import QuietReporter, Reporter
from ktl.runs import run as runs
from ktl.runs.run_folder import RunFolder
from ktl.runs.session import Session, classifier_of
from ktl.training.checkpoint import Checkpoint
from ktl.tuning import workers
from ktl.tuning.hypermodel import TransferHyperModel
from ktl.tuning.oracles import DurableOracle, new_oracle
from ktl.tuning.search_folder import SearchFolder
from ktl.tuning.trials import Trials
from ktl.tuning.tuner import ResumableTuner


def search(
    config: SearchConfig,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    role: str | None = None,
    chief: str = "127.0.0.1:0",
    reporter: Reporter | None = None,
) -> dict | None:
    """Searches for the settings with the highest validation top-1, and scores the best trial's model on the test set.

    Called again with the same settings and folder, it continues a killed search: completed trials are kept, the others
    go on after their last complete epoch. It gives back the result of one that has ended.

    Args:
        config: the settings.
        output: the search's folder, see `ktl.runs.run_folder.SearchFolder`; `ktl.runs.run.default_output(config)` if
            None.
        overwrite: remove a search that is in that folder.
        role: None for a search on this machine; `chief` to serve workers on other machines too; `worker` to run trials
            for a chief, with the same settings and the same shared folder.
        chief: HOST:PORT where the chief is; for a search on this machine, where it listens.
        reporter: is told of the progress.

    Returns:
        What result.json holds; None of a worker.

    Raises:
        UserError: bad input, or no trial was completed; nothing that was there is lost.
    """
    reporter = reporter or Reporter()
    # A worker's chief has overwritten what was there, and has begun.
    folder = SearchFolder(output or runs.default_output(config), config, overwrite=overwrite and role != "worker")
    if role == "worker":
        _work(config, folder, chief, reporter)
        return None
    with folder.held():
        if folder.result is None:
            _search(config, folder, role, chief, reporter)
    return folder.result


def _search(config: SearchConfig, folder: SearchFolder, role: str | None, chief: str, reporter: Reporter) -> None:
    started = time.perf_counter()
    dataset = runs.begin(config, folder, reporter)
    hypermodel, places = _hypermodel(config, dataset, reporter)
    name = oracle_name(config, hypermodel.values)
    _announce(config, hypermodel, places, name, reporter)
    if role != "chief":
        hypermodel.compute_features(places)
    oracle = _oracle(config, hypermodel.values, folder.path)
    costs = _costs(hypermodel, places)
    trials = Trials(oracle, folder, names=tuple(hypermodel.values), keep=config.keep, costs=costs, reporter=reporter)
    oracle.on_trial_end = trials.tell_end
    if role == "chief" or config.workers > 1:
        with workers.serving(oracle, chief) as address:
            reporter.message(f"chief at {address}")
            command = _worker_command(config, folder, address)
            workers.supervise(oracle, workers.local_workers(config.workers if role is None else 0, command))
    else:
        _tuner(config, folder, hypermodel, oracle).search()
    trials.write()  # once more: nothing is ahead for Hyperband now
    if not trials.ranked:
        raise UserError(f"Expected at least one completed trial. Received: {trials.failures()}")
    trials.write_heatmap()
    chosen = trials.ranked[0]
    values = trials.values(chosen)
    best = _record_best(config, folder, hypermodel, values, oracle.trial_folder(chosen.trial_id))
    result = {
        "best": {"trial": chosen.trial_id, "settings": values, "validation_top1": chosen.score},
        "validation": best["validation"],
        "test": best["test"],
        "trials": trials.counts(),
        "oracle": name,
        "space": {name: list(tried) for name, tried in hypermodel.values.items()},
        "settings": config.as_dict(),
        "command": config.command(),
        "seconds": time.perf_counter() - started,
    }
    shutil.copy(folder.path / "best" / "environment.json", folder.path)
    folder.write_json("result.json", result)


def _work(config: SearchConfig, folder: SearchFolder, chief: str, reporter: Reporter) -> None:
    with workers.connected(chief):
        dataset = runs.begin(config, folder, QuietReporter(reporter))  # the chief has told what there is to know
        hypermodel, places = _hypermodel(config, dataset, reporter)
        hypermodel.compute_features(places)
        _tuner(config, folder, hypermodel, _oracle(config, hypermodel.values)).search()


Places = list[tuple[TransferClassifier, str]]
"""A classifier for each head, all of one backbone, with each freeze depth."""


def _hypermodel(config: SearchConfig, dataset: Dataset, reporter: Reporter) -> tuple[TransferHyperModel, Places]:
    """The trials' HyperModel, and the places where its space freezes."""
    keras.backend.clear_session()  # before the precision is set, which it forgets
    machine = Session(config, dataset).set_up_machine()
    values = dict(config.space)
    heads, places = values.get("head", (config.head,)), []
    with machine.scope():
        backbone = build_backbone(config.backbone, weights=config.weights, image_size=config.image_size)
        for head in heads:
            classifier = classifier_of(
                config, backbone, class_names=dataset.class_names, head=head, freeze_depth="none"
            )
            if values.get("freeze_depth", ()) is None:
                values["freeze_depth"] = spread_depths(classifier.boundaries)
            places += [(classifier, depth) for depth in values.get("freeze_depth", (config.freeze_depth,))]
    depths = len(places) / len(heads)
    trainings = math.ceil(min(size(values), config.max_trials) / depths) * config.seeds
    return TransferHyperModel(config, dataset, values, trainings=trainings, reporter=QuietReporter(reporter)), places


def _tuner(config: SearchConfig, folder: SearchFolder, hypermodel, oracle) -> ResumableTuner:
    return ResumableTuner(hypermodel, oracle, folder=folder.path, seeds=config.seeds, tensorboard=config.tensorboard)


def _oracle(config: SearchConfig, values: Mapping[str, Sequence], folder: Path | None = None) -> DurableOracle:
    """That of the search in this folder; without one, that of a worker."""
    name = oracle_name(config, values)
    limits = {"max_trials": config.max_trials, "epochs": config.epochs}
    return new_oracle(name, values, **limits, seed=config.seed, folder=folder)


def oracle_name(config: SearchConfig, values: Mapping[str, Sequence]) -> str:
    """The name in `ktl.tuning.oracles.ORACLES` that the settings stand for in a space of these values."""
    if config.oracle != "auto":
        return config.oracle
    return "grid" if size(values) <= config.max_trials else "bayesian"


def _announce(config: SearchConfig, hypermodel, places: Places, oracle: str, reporter: Reporter) -> None:
    """Tells the space, its size, and what trying it costs."""
    for name, values in hypermodel.values.items():
        reporter.message(f"{name}: {', '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)}")
    points = size(hypermodel.values)
    if oracle == "hyperband":
        reporter.message(f"{points} combinations; hyperband, trials of up to {config.epochs} epochs")
        return
    trials = min(points, config.max_trials)
    seconds = trials * config.seeds * _trial_seconds(config, hypermodel.dataset, places)
    reporter.message(
        f"{points} combinations; {oracle}, at most {trials} trials of {config.epochs} epochs: about "
        f"{seconds / 60:.0f} min for the arithmetic of the layers that are trained"
    )


def _costs(hypermodel, places: Places) -> dict[str, float]:
    """Freeze depth -> mean share of a forward pass after it over the heads; nothing if the depth is not varied."""
    depths = hypermodel.values.get("freeze_depth", ())
    shares = _trained_shares(places)
    return {depth: statistics.fmean(shares[place :: len(depths)]) for place, depth in enumerate(depths)}


def _trained_shares(places: Places) -> list[float]:
    """Of each place the share of a forward pass that is after it, 0 to 1."""
    return [1 - find_boundary(classifier.boundaries, depth).cost_share for classifier, depth in places]


def _trial_seconds(config: SearchConfig, dataset, places: Places) -> float:
    """Seconds of a mean trial's training by multiply-adds, a backward pass at twice the cost of a forward one."""
    graph = places[0][0].as_functional()
    batch = np.zeros((PASS_BATCH, *graph.input.shape[1:]), "uint8")
    graph.predict_on_batch(batch)  # traces
    started = time.perf_counter()
    graph.predict_on_batch(batch)
    forward = (time.perf_counter() - started) / PASS_BATCH
    trained = statistics.fmean(_trained_shares(places))
    return config.epochs * trained * (3 * len(dataset.train) + len(dataset.validation)) * forward


def _worker_command(config: SearchConfig, folder: SearchFolder, address: str) -> list[str]:
    place = ["--output", str(folder.path), "--role", "worker", "--chief", address]
    return [sys.executable, "-m", "ktl", "search", *config.flags(), *place]


def _record_best(config: SearchConfig, folder: SearchFolder, hypermodel, values: dict, trial: Path) -> dict:
    """Writes the best trial's run: the model that was scored, not one trained anew. Of several seeds, the first."""
    shutil.rmtree(folder.path / "best", ignore_errors=True)
    training = hypermodel.prepare(values, seed=config.seed)
    training.compile()
    checkpoint = Checkpoint(trial / f"seed-{config.seed}")
    checkpoint.restore_best(training.classifier)
    run = RunFolder(folder.path / "best", training.lasting_config)
    run.hold_to(hypermodel.dataset)
    runs.write_results(run, dataclasses.replace(training, config=training.lasting_config), checkpoint.history)
    return run.result
