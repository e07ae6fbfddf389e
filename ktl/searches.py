"""One search from a config to a finished folder: trials, the best one's run, and a table of all."""

import contextlib
import dataclasses
import io
import math
import shutil
import sys
import time
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

from ktl.config import SearchConfig
from ktl.errors import UserError
from ktl.reporter import Reporter
from ktl.results import RunFolder, SearchFolder
from ktl.runs import default_output
from ktl.space import parse_space, size

if typing.TYPE_CHECKING:  # these load TensorFlow
    from ktl.tuning import TransferHyperModel

ROLES = ("chief", "worker")


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
    go on after their last complete epoch. That of a search that has ended gives back its result.

    Args:
        config: the settings.
        output: the search's folder, see `ktl.results.SearchFolder`; `default_output(config)` if None.
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
    folder = SearchFolder(output or default_output(config), config, overwrite=overwrite)
    if role == "worker":
        _work(config, folder, chief, reporter)
    elif folder.result is None:
        _search(config, folder, role, chief, reporter)
    return folder.result


def read_trials(path: str | Path) -> list[dict]:
    """The rows of trials.csv of a search's folder, the best first, as dictionaries of text."""
    import csv

    with open(Path(path) / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def _search(config: SearchConfig, folder: SearchFolder, role: str | None, chief: str, reporter: Reporter) -> None:
    from ktl import oracles, workers

    started = time.perf_counter()
    hypermodel = _hypermodel(config, reporter, compute=role != "chief")
    name = _oracle_name(config, hypermodel.values)
    _announce(config, hypermodel, name, reporter)
    oracle = oracles.ORACLES[name](config)
    tuner = _tuner(config, folder, hypermodel, oracle)
    keeper = _Keeper(config, folder, oracle, reporter)
    oracle.on_trial_end = keeper.trial_ended
    if role == "chief" or config.workers > 1:
        with workers.serving(oracle, chief) as address:
            reporter.message(f"chief at {address}")
            command = _worker_command(config, folder, address)
            workers.supervise(oracle, workers.local_workers(config.workers if role is None else 0, command))
    else:
        tuner.search()
    keeper.write()
    ranked = ranking(oracle.trials.values())
    if not ranked:
        raise UserError(f"Expected at least one completed trial. Received: {keeper.failures()}")
    values = {name: ranked[0].hyperparameters.values[name] for name in hypermodel.values}
    best = _record_best(config, folder, hypermodel, values, Path(tuner.get_trial_dir(ranked[0].trial_id)))
    result = {
        "best": {"trial": ranked[0].trial_id, "settings": values, "validation_top1": ranked[0].score},
        "validation": best["validation"],
        "test": best["test"],
        "trials": keeper.counts(),
        "oracle": name,
        "space": {name: list(tried) for name, tried in hypermodel.values.items()},
        "settings": config.as_dict(),
        "seconds": time.perf_counter() - started,
    }
    shutil.copy(folder.path / "best" / "environment.json", folder.path)
    folder.write_json("result.json", result)


def _work(config: SearchConfig, folder: SearchFolder, chief: str, reporter: Reporter) -> None:
    from ktl import oracles, workers

    with workers.connected(chief):
        hypermodel = _hypermodel(config, reporter, compute=True)
        oracle = oracles.ORACLES[_oracle_name(config, hypermodel.values)](config)
        _tuner(config, folder, hypermodel, oracle).search()


def ranking(trials) -> list:
    """KerasTuner's completed trials, the best first: highest score, lowest validation loss among equals."""
    completed = [trial for trial in trials if trial.status == "COMPLETED"]
    return sorted(completed, key=lambda t: (-t.score, t.metrics.get_last_value("validation_loss"), t.trial_id))


def _hypermodel(config: SearchConfig, reporter: Reporter, *, compute: bool) -> "TransferHyperModel":
    """The trials' HyperModel; if asked, with the frozen parts of all trials computed in one pass."""
    import keras

    from ktl import training
    from ktl.backbones import build_backbone
    from ktl.datasets import load_dataset
    from ktl.feeding import compute_features
    from ktl.freezing import spread_boundaries
    from ktl.network import build_network, freeze
    from ktl.tuning import TransferHyperModel

    dataset = load_dataset(config.dataset, data_dir=config.data_dir)
    machine = training.set_up_machine(config)
    keras.backend.clear_session()
    values = dict(parse_space(config.space))
    with machine.scope():
        backbone = build_backbone(config.backbone, weights=config.weights, image_size=config.image_size)
        networks = []
        for head in values.get("head", (config.head,)):
            network = build_network(backbone, classes=len(dataset.class_names), head=head)
            if "freeze_depth" in values and values["freeze_depth"] is None:
                values["freeze_depth"] = tuple(b.name for b in spread_boundaries(network.boundaries))
            networks += [freeze(network, depth) for depth in values.get("freeze_depth", (config.freeze_depth,))]
    if compute:
        compute_features(networks, dataset, config, xla=machine.xla, reporter=reporter)
    return TransferHyperModel(config, dataset, values, reporter=_TrialReporter(reporter))


def _tuner(config: SearchConfig, folder: SearchFolder, hypermodel, oracle):
    from ktl.tuning import ResumableTuner

    with contextlib.redirect_stdout(io.StringIO()):  # KerasTuner tells that it reloads
        return ResumableTuner(
            hypermodel, oracle, folder=folder.path, seeds=config.seeds, tensorboard=config.tensorboard
        )


def _oracle_name(config: SearchConfig, values: Mapping[str, Sequence]) -> str:
    if config.oracle != "auto":
        return config.oracle
    return "grid" if size(values) <= config.max_trials else "bayesian"


def _announce(config: SearchConfig, hypermodel, oracle: str, reporter: Reporter) -> None:
    for name, values in hypermodel.values.items():
        reporter.message(f"{name}: {', '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)}")
    points = size(hypermodel.values)
    trials = min(points, config.max_trials)
    reporter.message(f"{points} combinations; {oracle}, at most {trials} trials of {config.epochs} epochs")


def _worker_command(config: SearchConfig, folder: SearchFolder, address: str) -> list[str]:
    flags = ["--output", str(folder.path), "--role", "worker", "--chief", address]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        flag = "--" + field.name.replace("_", "-")
        if value is True:
            flags.append(flag)
        elif value not in (None, False):
            flags += [flag, str(value)]
        elif value == 0 and value is not False:
            flags += [flag, "0"]
    return [sys.executable, "-m", "ktl", "search", *flags]


def _record_best(config: SearchConfig, folder: SearchFolder, hypermodel, values: dict, trial: Path) -> dict:
    """Writes the best trial's run: the model that was scored, not one trained anew. Of several seeds, the first."""
    from ktl import runs
    from ktl.training import Checkpoint

    shutil.rmtree(folder.path / "best", ignore_errors=True)
    prepared = hypermodel.prepare(values, seed=config.seed)
    checkpoint = Checkpoint(str(trial / f"seed-{config.seed}"))
    checkpoint.restore_best(prepared.feed.model)
    run = RunFolder(folder.path / "best", prepared.config)
    runs.record(prepared, run, checkpoint.history)
    return run.result


class _TrialReporter(Reporter):
    """Shows a trial's bars, and leaves out its lines."""

    def __init__(self, reporter: Reporter):
        self.photos = reporter.photos
        self.training = reporter.training


class _Keeper:
    """Keeps trials.csv up to date and the disk bounded, and tells of each trial's end."""

    def __init__(self, config: SearchConfig, folder: SearchFolder, oracle, reporter: Reporter):
        self.config, self.folder, self.oracle, self.reporter = config, folder, oracle, reporter
        self.started = time.perf_counter()
        self.ended_before = len(oracle.end_order)

    def trial_ended(self, trial) -> None:
        self.write()
        best = ranking(self.oracle.trials.values())
        outcome = f"validation {trial.score:.4f}" if trial.status == "COMPLETED" else f"failed: {self._reason(trial)}"
        settings = "  ".join(
            f"{n} {v:g}" if isinstance(v, float) else f"{n} {v}" for n, v in self._values(trial).items()
        )
        so_far = f"  best {best[0].score:.4f}" if best else ""
        self.reporter.message(f"trial {trial.trial_id}  {settings}  {outcome}{so_far}{self._time_left()}")

    def write(self) -> None:
        """Writes trials.csv and heatmap.png, and removes what is not to be kept."""
        rows = [self._row(trial) for trial in self._in_order()]
        if rows:
            self.folder.write_csv("trials.csv", rows[0].keys(), (row.values() for row in rows))
            self._write_heatmap()
        self._remove_models()

    def counts(self) -> dict:
        statuses = [trial.status.lower() for trial in self.oracle.trials.values()]
        return {status: statuses.count(status) for status in sorted(set(statuses))}

    def failures(self) -> str:
        failed = [trial for trial in self.oracle.trials.values() if trial.status == "FAILED"]
        reasons = sorted({self._reason(trial) for trial in failed})
        return f"{len(failed)} failed: {'; '.join(reasons)}" if failed else "none that ran"

    def _in_order(self) -> list:
        """The best first, then those without a score."""
        ranked = ranking(self.oracle.trials.values())
        return ranked + [trial for trial in self.oracle.trials.values() if trial not in ranked]

    def _values(self, trial) -> dict:
        return {name: trial.hyperparameters.values[name] for name in parse_space(self.config.space)}

    def _row(self, trial) -> dict:
        names = ("validation_top1", "validation_loss", "epochs", "seconds")
        exists = trial.metrics.exists
        metrics = {name: trial.metrics.get_last_value(name) if exists(name) else "" for name in names}
        status = trial.status.lower()
        return {
            "trial": trial.trial_id,
            **self._values(trial),
            **metrics,
            "status": status,
            "reason": self._reason(trial),
        }

    def _reason(self, trial) -> str:
        from ktl.tuning import REASON

        if trial.status != "FAILED":
            return ""
        try:
            return (Path(self.oracle._get_trial_dir(trial.trial_id)) / REASON).read_text()
        except FileNotFoundError:
            return (trial.message or "").strip().splitlines()[-1]

    def _remove_models(self) -> None:
        """Keeps the best trials' models; Hyperband may go on with any trial until the search has ended."""
        from ktl.training import Checkpoint

        if self._is_hyperband and not self.oracle.exhausted:
            return
        kept = {trial.trial_id for trial in ranking(self.oracle.trials.values())[: self.config.keep]}
        for trial in self.oracle.trials.values():
            if trial.status in ("COMPLETED", "FAILED"):
                for folder in Path(self.oracle._get_trial_dir(trial.trial_id)).glob("seed-*"):
                    Checkpoint(str(folder)).forget(best=trial.trial_id not in kept)

    @property
    def _is_hyperband(self) -> bool:
        return hasattr(self.oracle, "hyperband_iterations")

    def _write_heatmap(self) -> None:
        from ktl.figures import write_heatmap

        space = {hp.name: hp.values for hp in self.oracle.get_space().space}
        if not {"scale", "freeze_depth"} <= set(space):
            return
        scores = {}
        for trial in reversed(ranking(self.oracle.trials.values())):
            values = self._values(trial)
            scores[values["scale"], values["freeze_depth"]] = trial.score
        if scores:
            labels = ("scale", "freeze_depth", "best validation top-1")
            path = self.folder.path / "heatmap.png"
            write_heatmap(path, scores, rows=space["scale"], columns=space["freeze_depth"], labels=labels)

    def _time_left(self) -> str:
        done = len(self.oracle.end_order) - self.ended_before
        left = min(self.config.max_trials, math.prod(len(hp.values) for hp in self.oracle.get_space().space))
        left -= len(self.oracle.end_order)
        if self._is_hyperband or left <= 0 or done <= 0:
            return ""
        seconds = (time.perf_counter() - self.started) / done * left
        return f"  about {seconds / 60:.0f} min left"
