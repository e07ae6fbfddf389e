"""What a search's trials gave: their ranking, their table on disk, and what of them is kept."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from ktl.config.settings import SearchConfig
from ktl.config.space import parse_space
from ktl.progress import Reporter
from ktl.runs.run_folder import SearchFolder
from ktl.training.fit import Checkpoint, best_epoch
from ktl.tuning.heatmap import write_heatmap
from ktl.tuning.hypermodel import REASON

MEASURED = ("validation_top1", "validation_loss", "epochs", "seconds")

LEAST_COST = 0.02
"""Of a trial in forward passes: with everything frozen, a network is built and traced all the same."""


def ranking(trials) -> list:
    """KerasTuner's completed trials, the best first: highest score, lowest validation loss among equals."""
    completed = [trial for trial in trials if trial.status == "COMPLETED"]
    return sorted(completed, key=lambda t: (-t.score, t.metrics.get_last_value("validation_loss"), t.trial_id))


class TrialKeeper:
    """Keeps trials.csv up to date and the disk bounded, and tells of each trial's end.

    Args:
        config: the search's settings.
        folder: where trials.csv and heatmap.png go.
        oracle: from `ktl.tuning.oracles`; has the trials.
        reporter: is told a line a trial.
        costs: freeze depth -> share of a forward pass that its trials compute, 0 to 1, where the depth is varied.
    """

    def __init__(
        self, config: SearchConfig, folder: SearchFolder, oracle, reporter: Reporter, *, costs: Mapping[str, float]
    ):
        self.config, self.folder, self.oracle, self.reporter, self.costs = config, folder, oracle, reporter, costs
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
        """Writes trials.csv, the best trial first, and removes the models that are not to be kept."""
        ranked = ranking(self.oracle.trials.values())
        rows = [self._row(trial) for trial in ranked]
        rows += [self._row(trial) for trial in self.oracle.trials.values() if trial not in ranked]
        if rows:
            self.folder.write_csv("trials.csv", rows[0].keys(), (row.values() for row in rows))
        self._remove_models(ranked)

    def write_heatmap(self) -> None:
        """Writes heatmap.png if scale and freeze depth are varied: the best score over all else that is."""
        space = {hp.name: hp.values for hp in self.oracle.get_space().space}
        if {"scale", "freeze_depth"} <= set(space):
            scores = {}
            for trial in reversed(ranking(self.oracle.trials.values())):
                values = self._values(trial)
                scores[values["scale"], values["freeze_depth"]] = trial.score
            labels = ("scale", "freeze_depth", "best validation top-1")
            path = self.folder.path / "heatmap.png"
            write_heatmap(path, scores, rows=space["scale"], columns=space["freeze_depth"], labels=labels)

    def counts(self) -> dict:
        statuses = [trial.status.lower() for trial in self.oracle.trials.values()]
        return {status: statuses.count(status) for status in sorted(set(statuses))}

    def failures(self) -> str:
        failed = [trial for trial in self.oracle.trials.values() if trial.status == "FAILED"]
        reasons = sorted({self._reason(trial) for trial in failed})
        return f"{len(failed)} failed: {'; '.join(reasons)}" if failed else "none that ran"

    def _values(self, trial) -> dict:
        return {name: trial.hyperparameters.values[name] for name in parse_space(self.config.space)}

    def _row(self, trial) -> dict:
        exists = trial.metrics.exists
        metrics = {name: trial.metrics.get_last_value(name) if exists(name) else "" for name in MEASURED}
        status = trial.status.lower()
        return {
            "trial": trial.trial_id,
            **self._values(trial),
            "validation_top1": metrics["validation_top1"],
            "validation_top1_sd": self._spread(trial),
            **metrics,
            "status": status,
            "reason": self._reason(trial),
        }

    def _reason(self, trial) -> str:
        if trial.status != "FAILED":
            return ""
        try:
            return (Path(self.oracle._get_trial_dir(trial.trial_id)) / REASON).read_text()
        except FileNotFoundError:
            return (trial.message or "no reason known").strip().splitlines()[-1]

    def _spread(self, trial) -> float | str:
        """Standard deviation of validation top-1 over the seeds."""
        histories = [Checkpoint(str(folder)).history for folder in self._checkpoints(trial)]
        scores = [history[best_epoch(history) - 1]["validation_top1"] for history in histories if history]
        return statistics.stdev(scores) if len(scores) > 1 else ""

    def _checkpoints(self, trial) -> list[Path]:
        return sorted(Path(self.oracle._get_trial_dir(trial.trial_id)).glob("seed-*"))

    def _remove_models(self, ranked: list) -> None:
        """Keeps the best trials' models; Hyperband may go on with any trial until the search has ended."""
        if self._is_hyperband and not self.oracle.exhausted:
            return
        for trial in self.oracle.trials.values():
            if trial.status in ("COMPLETED", "FAILED"):
                for folder in self._checkpoints(trial):
                    Checkpoint(str(folder)).forget(best=trial not in ranked[: self.config.keep])

    @property
    def _is_hyperband(self) -> bool:
        return hasattr(self.oracle, "hyperband_iterations")

    def _time_left(self) -> str:
        """By what the trials compute: a grid begins with the shallow freeze depths, which take the longest."""
        ended = [self._cost(self.oracle.trials[trial_id]) for trial_id in self.oracle.end_order]
        mean = statistics.fmean(map(self._share, self.costs)) if self.costs else 1.0
        done, left = sum(ended[self.ended_before :]), self.oracle.most_trials * mean - sum(ended)
        if self._is_hyperband or len(ended) >= self.oracle.most_trials or left <= 0 or done <= 0:
            return ""
        seconds = (time.perf_counter() - self.started) / done * left
        return f"  about {seconds / 60:.0f} min left"

    def _cost(self, trial) -> float:
        return self._share(trial.hyperparameters.values["freeze_depth"]) if self.costs else 1.0

    def _share(self, depth: str) -> float:
        return max(self.costs[depth], LEAST_COST)
