"""What a search's trials gave: their ranking, their table on disk, and what of them is kept."""

import dataclasses
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from keras_tuner.engine.trial import Trial, TrialStatus

from ktl.evaluation.objectives import OBJECTIVES
from ktl.progress import LEAST_COST, Reporter
from ktl.training.checkpoint import Checkpoint
from ktl.tuning.heatmap import write_heatmap
from ktl.tuning.oracles import ENDED, DurableOracle
from ktl.tuning.search_folder import ANEW, REASON, SearchFolder, checkpoint_folders


def ranking(trials: Iterable[Trial], objective: str = "top1") -> list[Trial]:
    """The completed trials, the best by the objective first, and of equals the one with the lowest validation loss."""
    sign = -1 if OBJECTIVES[objective].higher else 1
    completed = [trial for trial in trials if trial.status == TrialStatus.COMPLETED]
    return sorted(completed, key=lambda t: (sign * (t.score or 0.0), _last(t, "validation_loss"), t.trial_id))


def _last(trial: Trial, name: str) -> float | None:
    """A number that a trial gave, the mean over its seeds; None if it gave none."""
    return trial.metrics.get_last_value(name) if trial.metrics.exists(name) else None


@dataclasses.dataclass(frozen=True)
class TrialRow:
    """A row of trials.csv.

    Attributes:
        trial: its id.
        values: of the settings that the search varies, by their names.
        validation_top1: mean over the seeds of the best epoch's, 0 to 1; None if the trial has not ended, or failed.
        validation_top1_sd: standard deviation of that over the seeds; None of a single seed.
        validation_loss: of the same epochs, their mean.
        epochs: that were trained, their mean over the seeds.
        seconds: that a run took, their mean over the seeds.
        status: running, completed or failed.
        reason: why it failed.
        others: column -> mean over the seeds, of an objective that is none of these.
    """

    trial: str
    values: Mapping[str, object]
    validation_top1: float | None
    validation_top1_sd: float | None
    validation_loss: float | None
    epochs: float | None
    seconds: float | None
    status: str
    reason: str
    others: Mapping[str, float | None] = dataclasses.field(default_factory=dict)

    @property
    def cells(self) -> dict[str, object]:
        """Header -> cell, in the order of the columns; a number that is not there is an empty cell."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values, others = fields.pop("values"), fields.pop("others")
        columns = {"trial": fields.pop("trial"), **values, **fields, **others}
        return {name: "" if cell is None else cell for name, cell in columns.items()}


@dataclasses.dataclass(frozen=True)
class TimeEstimate:
    """How long the rest of a search takes: by what the trials compute, as long as the ones before.

    A grid begins with the shallow freeze depths, which take the longest.

    Args:
        costs: freeze depth -> share of a forward pass that its trials compute, 0 to 1; empty if all trials cost the
            same.
        expected: trials of the whole search.
        ended_before: trials that an earlier call has ended, which took no time of this one.
    """

    costs: Mapping[str, float]
    expected: int
    ended_before: int = 0

    def seconds_left(self, ended: Sequence[str], elapsed: float) -> float | None:
        """Seconds until the last trial ends; None before the first and after the last.

        Args:
            ended: freeze depths of the trials that have ended, in the order of their ends.
            elapsed: seconds since this call began.
        """
        costs = [self._cost(depth) for depth in ended]
        mean = statistics.fmean(map(self._cost, self.costs)) if self.costs else 1.0
        done, left = sum(costs[self.ended_before :]), self.expected * mean - sum(costs)
        if len(ended) >= self.expected or left <= 0 or done <= 0:
            return None
        return elapsed / done * left

    def _cost(self, depth: str) -> float:
        return max(self.costs[depth], LEAST_COST) if self.costs else 1.0


class Trials:
    """Keeps trials.csv up to date and the disk bounded, and tells of each trial's end.

    Args:
        oracle: has the trials.
        folder: where trials.csv and heatmap.png go.
        names: of the settings that the search varies.
        keep: trials whose models are kept.
        objective: what is better, a name in `ktl.evaluation.objectives.OBJECTIVES`.
        costs: freeze depth -> share of a forward pass that its trials compute, 0 to 1; empty if it is not varied.
        reporter: is told a line a trial.
    """

    def __init__(
        self,
        oracle: DurableOracle,
        folder: SearchFolder,
        *,
        names: Sequence[str],
        keep: int,
        objective: str = "top1",
        costs: Mapping[str, float],
        reporter: Reporter,
    ):
        self.oracle, self.folder, self.names, self.keep, self.reporter = oracle, folder, tuple(names), keep, reporter
        self.objective = objective
        self.estimate = TimeEstimate(costs, oracle.expected_trials, ended_before=len(oracle.end_order))
        self.started = time.perf_counter()

    @property
    def ranked(self) -> list[Trial]:
        """The completed trials, the best first."""
        return ranking(self.oracle.trials.values(), self.objective)

    def values(self, trial: Trial) -> dict[str, object]:
        """A trial's values of the settings that the search varies; KerasTuner has some of its own beside them."""
        return {name: trial.hyperparameters.values[name] for name in self.names}

    def score(self, trial: Trial) -> float:
        """Of a completed trial by the objective, mean over the seeds."""
        return trial.score or 0.0

    def top1(self, trial: Trial) -> float:
        """Validation top-1 of a completed trial, mean over the seeds, 0 to 1."""
        return _last(trial, "validation_top1") or 0.0

    def checkpoint(self, folder: Path) -> Checkpoint:
        """The state of a trial's training, whose best epoch is that by the objective."""
        return Checkpoint(str(folder), objective=self.objective, if_damaged=ANEW)

    def tell_end(self, trial: Trial) -> None:
        """Writes down that a trial has ended, and tells of it."""
        self.write()
        best = self.ranked
        completed = trial.status == TrialStatus.COMPLETED
        outcome = f"validation {trial.score:.4f}" if completed else f"failed: {self._reason(trial)}"
        settings = "  ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self.values(trial).items()
        )
        so_far = f"  best {best[0].score:.4f}" if best else ""
        self.reporter.message(f"trial {trial.trial_id}  {settings}  {outcome}{so_far}{self._time_left()}")

    def write(self) -> None:
        """Writes trials.csv, the best trial first, and removes the models that are not to be kept."""
        ranked = self.ranked
        others = [trial for trial in self.oracle.trials.values() if trial not in ranked]
        rows = [self._row(trial).cells for trial in (*ranked, *others)]
        if rows:
            self.folder.write_csv("trials.csv", rows[0].keys(), (row.values() for row in rows))
        self._remove_models(ranked)

    def write_heatmap(self) -> None:
        """Writes heatmap.png if scale and freeze depth are varied: of the best trial over all else that is."""
        space = {hp.name: hp.values for hp in self.oracle.get_space().space}
        if {"scale", "freeze_depth"} <= set(space):
            scores = {}
            for trial in reversed(self.ranked):
                values = self.values(trial)
                scores[values["scale"], values["freeze_depth"]] = self.top1(trial)
            labels = ("scale", "freeze_depth", "validation top-1 of the best")
            path = self.folder.path / "heatmap.png"
            write_heatmap(path, scores, rows=space["scale"], columns=space["freeze_depth"], labels=labels)

    def counts(self) -> dict[str, int]:
        """Status -> number of trials."""
        statuses = [trial.status.lower() for trial in self.oracle.trials.values()]
        return {status: statuses.count(status) for status in sorted(set(statuses))}

    def failures(self) -> str:
        """How many trials failed, and why."""
        failed = [trial for trial in self.oracle.trials.values() if trial.status == TrialStatus.FAILED]
        reasons = sorted({self._reason(trial) for trial in failed})
        return f"{len(failed)} failed: {'; '.join(reasons)}" if failed else "none that ran"

    def _row(self, trial: Trial) -> TrialRow:
        measured = ("validation_top1", "validation_loss", "epochs", "seconds")
        metrics = {name: _last(trial, name) for name in measured}
        others = {OBJECTIVES[self.objective].column} - set(measured)
        return TrialRow(
            trial=trial.trial_id,
            values=self.values(trial),
            validation_top1_sd=self._spread(trial),
            status=trial.status.lower(),
            reason=self._reason(trial),
            others={name: _last(trial, name) for name in others},
            **metrics,
        )

    def _reason(self, trial: Trial) -> str:
        if trial.status != TrialStatus.FAILED:
            return ""
        try:
            return (self.oracle.trial_folder(trial.trial_id) / REASON).read_text(errors="replace")
        except FileNotFoundError:
            return (trial.message or "no reason known").strip().splitlines()[-1]

    def _spread(self, trial: Trial) -> float | None:
        """Standard deviation of validation top-1 over the seeds."""
        trainings = [self.checkpoint(folder) for folder in self._checkpoints(trial)]
        scores = [each.history[each.best_epoch - 1]["validation_top1"] for each in trainings if each.history]
        return statistics.stdev(scores) if len(scores) > 1 else None

    def _checkpoints(self, trial: Trial) -> list[Path]:
        return checkpoint_folders(self.oracle.trial_folder(trial.trial_id))

    def _remove_models(self, ranked: list[Trial]) -> None:
        """Keeps the best trials' models; of all trials, while the oracle may go on with any of them."""
        if self.oracle.promotes_trials and not self.oracle.exhausted:
            return
        for trial in self.oracle.trials.values():
            if trial.status in ENDED:
                for folder in self._checkpoints(trial):
                    self.checkpoint(folder).forget(best=trial not in ranked[: self.keep])

    def _time_left(self) -> str:
        if self.oracle.promotes_trials:  # its trials have different numbers of epochs
            return ""
        ended = [self.oracle.trials[trial_id] for trial_id in self.oracle.end_order]
        depths = [trial.hyperparameters.values.get("freeze_depth", "") for trial in ended]
        seconds = self.estimate.seconds_left(depths, time.perf_counter() - self.started)
        return "" if seconds is None else f"  about {seconds / 60:.0f} min left"
