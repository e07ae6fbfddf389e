"""What a report says about a study."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ktl.config.settings import StudyConfig
from ktl.data.duplicates import NEAR, Duplicate, read_duplicates
from ktl.errors import UserError
from ktl.evaluation.metrics import CONVERGED
from ktl.files import read_csv
from ktl.models.heads import BASELINE, HEADS
from ktl.reporting import figures as report_figures
from ktl.reporting import settings as report_settings
from ktl.reporting.formatting import short_name
from ktl.studies import cells

METHOD = "kept"
"""Head whose difference to `ktl.models.heads.BASELINE` is a study's headline."""

LISTED_DUPLICATES = 200
"""Rows of the table of duplicates."""


@dataclasses.dataclass(frozen=True)
class StudySubject:
    """A study that has ended. A number that is not known, as the interval of one seed, is None.

    Attributes:
        config: its settings.
        result: what result.json holds.
        environment: what environment.json holds.
        summary: the rows of summary.csv.
        runs: what the files run.json hold.
        duplicates: what duplicates.csv holds.
    """

    config: StudyConfig
    result: dict
    environment: dict
    summary: list[dict]
    runs: list[dict]
    duplicates: Sequence[Duplicate] = ()

    @property
    def best(self) -> dict[str, dict]:
        """Head -> its row of the result, at the freeze depth that validation chose."""
        return {row["head"]: row for row in self.result["best"]}

    @property
    def best_depths(self) -> dict[str, str]:
        """Head -> the freeze depth that validation chose."""
        return {head: row["freeze_depth"] for head, row in self.best.items()}

    @cached_property
    def depths(self) -> list[str]:
        """Freeze depths from none to all; numbers by their size, and layers as the study has them."""
        ends = {"none": 0, "all": 2}
        names = dict.fromkeys(row["freeze_depth"] for row in self.summary)
        return sorted(names, key=lambda name: (ends.get(name, 1), int(name) if name.isdecimal() else 0))

    @cached_property
    def rows(self) -> dict[tuple[str, str, float], dict]:
        """(head, freeze depth, share) -> its row of the summary."""
        return {(row["head"], row["freeze_depth"], row["share"]): row for row in self.summary}

    def runs_at_best(self, head: str) -> list[dict]:
        """A head's runs at its best depth, with all training photos, by seed.

        A study that was stopped may have runs at a rate that its tries would not choose again: they do not count.
        """
        wanted = {**{name: self.best[head][name] for name in self.config.VARIED}, "share": 1}
        runs = [run for run in self.runs if wanted.items() <= run.items()]
        return sorted(runs, key=lambda run: run["seed"])


def is_study(folder: Path) -> bool:
    """Also of one that has not ended, which has no summary yet."""
    return (folder / "summary.csv").exists() or ((folder / "config.json").exists() and (folder / "runs").is_dir())


def read(folders: Sequence[Path]) -> tuple[str, StudySubject]:
    """Title and subject of the page of one study."""
    (folder,) = folders
    names = ("config.json", "result.json", "environment.json", "summary.csv", "runs")
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise UserError(f"Expected a study that has ended. Received: {folder}, without {', '.join(missing)}")
    config, result, environment = (_read_json(folder / name) for name in names[:3])
    summary = read_summary(folder / "summary.csv")
    runs = [_read_json(path) for path in sorted((folder / "runs").glob("*/run.json"))]
    counted = sum(int(row["seeds"]) for row in summary)
    if len(runs) < counted:
        raise UserError(f"Expected a study with {counted} files runs/*/run.json. Received: {folder}, with {len(runs)}")
    settings = StudyConfig.from_dict(config)
    if isinstance(result["tuned"], dict):
        raise UserError(f"Expected a study of this version of ktl. Received: {folder}, tuned at one freeze depth")
    pairs = read_duplicates(folder / "duplicates.csv") if (folder / "duplicates.csv").exists() else ()
    title = f"Study: {short_name(settings.dataset)}, {short_name(settings.backbone)}"
    return title, StudySubject(settings, result, environment, summary, runs, pairs)


def _read_json(path: Path) -> dict:
    """With None for what is not a number."""
    return json.loads(path.read_text(), parse_constant=lambda _: None)


def read_summary(path: Path) -> list[dict]:
    """The rows of a study's summary.csv, with None for what is not known."""
    return [_summary_row(row) for row in read_csv(path)]


def _summary_row(row: dict[str, str]) -> dict:
    texts = ("head", "freeze_depth", "verdict")
    return {name: text if name in texts else None if text in ("", "nan") else float(text) for name, text in row.items()}


# Sections: each gives its template's values, or None where it has nothing to show.


def answer(subject: StudySubject) -> dict:
    best = subject.best
    differences = [row["difference"] for row in best.values() if row["difference"]]
    return {
        "method": best.get(METHOD),
        "baseline": best.get(BASELINE),
        "rows": list(best.values()),
        "chosen": subject.result.get("chosen"),  # a study of an earlier version has none
        "axis": _difference_axis(differences),
        "seeds": subject.config.seeds,
        "notice": subject.result["notice"],
        "random": subject.config.weights == "random",
    }


def _difference_axis(differences: Sequence[dict]) -> tuple[float, float]:
    """The whole points between which zero and all intervals lie, and room for a dot."""
    ends = [0.0, *(row[end] for row in differences for end in ("low", "high"))]
    return (float(np.floor(100 * min(ends))) - 1) / 100, (float(np.ceil(100 * max(ends))) + 1) / 100


def freezing(subject: StudySubject) -> dict:
    depths, best = subject.depths, subject.best_depths
    table = {head: [subject.rows[head, depth, 1] for depth in depths] for head in best}
    by_depth = list(zip(*table.values(), strict=True))
    seconds = [statistics.fmean(row["seconds"] for row in rows) for rows in by_depth]
    return {
        "figure": report_figures.depth_lines(_lines(table, at=range(len(depths))), depths=depths, seconds=seconds),
        "heads": list(best),
        "rows": list(zip(depths, by_depth, seconds, strict=True)),
        "best": best,
        "seeds": subject.config.seeds,
    }


def _lines(table: Mapping[str, Sequence[dict]], *, at: Sequence[float]) -> list[report_figures.Line]:
    """Test top-1 of each head's rows of the summary, in percent."""
    return [_tested(head, rows, at=at) for head, rows in table.items()]


def _tested(head: str, rows: Sequence[dict], *, at: Sequence[float]) -> report_figures.Line:
    values, low, high = (
        [None if row[name] is None else 100 * row[name] for row in rows]
        for name in ("test_top1", "test_low", "test_high")
    )
    return report_figures.Line(head, _look(head), list(at), values, low, high)


def _look(head: str) -> int:
    """Of its lines: the same one in every study."""
    return list(HEADS).index(head)


def convergence(subject: StudySubject) -> dict | None:
    lines, rows = [], []
    for head, depth in subject.best_depths.items():
        runs = [run for run in subject.runs_at_best(head) if not run["failed"]]
        if not runs:
            continue
        # Patience ends runs at different epochs, and a mean over fewer seeds would jump.
        epochs = min(len(run["history"]) for run in runs)
        scores = 100 * np.array([run["history"][:epochs] for run in runs])
        lines.append(
            report_figures.Line(
                head,
                _look(head),
                list(range(1, epochs + 1)),
                *(f(scores, 0).tolist() for f in (np.mean, np.min, np.max)),
            )
        )
        rows.append(
            {
                "head": head,
                "freeze_depth": depth,
                "converged": [run["converged"] for run in runs],
                "epochs": [run["epochs"] for run in runs],
                "validation": statistics.fmean(run["validation_top1"] for run in runs),
            }
        )
    if not rows:
        return None
    converged = {row["head"]: statistics.fmean(row["converged"]) for row in rows}
    return {
        "figure": report_figures.convergence(lines, converged=converged),
        "rows": rows,
        "level": CONVERGED,
    }


def shares(subject: StudySubject) -> dict | None:
    parts = sorted({row["share"] for row in subject.summary})
    if len(parts) < 2:
        return None
    table = {head: [subject.rows[head, depth, part] for part in parts] for head, depth in subject.best_depths.items()}
    return {
        "figure": report_figures.share_lines(_lines(table, at=[100 * part for part in parts])),
        "heads": list(table),
        "rows": list(zip(parts, zip(*table.values(), strict=True), strict=True)),
    }


def zero_shot(subject: StudySubject) -> dict | None:
    found = subject.result.get("zero_shot")  # a study of an earlier version has none
    if not found:
        return None
    ids = {synset["id"] for synsets in found["synsets"].values() for synset in synsets}
    return {**found, "synset_count": len(ids), "depths": subject.best_depths, "seeds": subject.config.seeds}


def duplicates(subject: StudySubject) -> dict | None:
    counted = subject.result.get("duplicates")
    if counted is None:
        return None
    return {**counted, "rows": subject.duplicates[:LISTED_DUPLICATES], "most": NEAR}


def summary(subject: StudySubject) -> dict:
    return {
        "rows": subject.summary,
        "failed": subject.result.get("failed", {}),  # a study of an earlier version has none
        "depths": subject.depths,
        "best": {(head, depth, 1) for head, depth in subject.best_depths.items()},
        "baseline": BASELINE,
        "level": CONVERGED,
    }


def tuned(subject: StudySubject) -> dict:
    return {
        "rows": [(HEADS[row["head"]].normalization, row) for row in subject.result["tuned"]],
        "tries": len(cells.RATES),
        "seed": subject.config.seed,
        "seconds": subject.result["seconds"],
    }


def settings(subject: StudySubject) -> dict:
    return report_settings.settings(subject.config, without=subject.config.VARIED)


def environment(subject: StudySubject) -> dict:
    return report_settings.environment(subject.environment, kind="study")
