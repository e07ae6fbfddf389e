"""Folders of studies that have ended, with made-up numbers and intervals."""

import csv
import dataclasses
import itertools
import json
import statistics
from pathlib import Path

import numpy as np

from ktl.config.settings import StudyConfig
from ktl.files import write_csv, write_json
from ktl.studies.study_folder import StudyFolder

STUDY = StudyConfig(
    dataset="/photos/<b>wild & 'ö' {{ 7 * 7 }}",
    backbone="/nets/tiny.keras",
    heads="kept,kept_raw,replaced",
    depths="all,block$2,block10,none",
    shares="0.1,0.5",
    seeds=3,
    seed=4,
)


def study_runs(config: StudyConfig, *, photos=40, seed=0) -> list[dict]:
    """Made-up runs, as the files run.json have them; every head is best at a depth of its own."""
    generator = np.random.default_rng(seed)
    heads, depths = config.heads, config.depths
    best = {head: depths[place % len(depths)] for place, head in enumerate(heads)}
    cells = [*itertools.product(heads, depths, [1.0])]
    cells += [(head, best[head], share) for head, share in itertools.product(heads, config.shares)]
    runs = []
    for (head, depth, share), number in itertools.product(cells, range(config.seeds)):
        level = 0.75 - 0.03 * heads.index(head) + 0.05 * (depth == best[head]) + 0.08 * np.log10(share)
        epochs = int(generator.integers(6, config.epochs + 1))
        rising = 1 - np.exp(-(1 + np.arange(epochs)) / (1.2 + 0.5 * heads.index(head)))
        history = (level * rising + generator.normal(0, 0.004, epochs)).clip(0, 1).tolist()
        runs.append(
            {
                "head": head,
                "freeze_depth": depth,
                "learning_rate": 3e-4,
                "scale": 3.0,
                "head_multiplier": 10.0,
                "share": share,
                "shots": None,
                "seed": config.seed + number,
                "validation_top1": max(history),
                "epochs": epochs,
                "converged": 1 + next(at for at, score in enumerate(history) if score >= 0.95 * max(history)),
                "seconds": 5.0 + 20 * depths.index(depth) + generator.random(),
                "failed": "",
                "history": history,
                "correct": (generator.random(photos) < level).astype(int).tolist(),
            }
        )
    return runs


def together(runs, *names) -> dict[tuple, list[dict]]:
    """Values of these settings -> the runs that have them, in the order of the first of each."""
    groups: dict[tuple, list[dict]] = {}
    for run in runs:
        groups.setdefault(tuple(run[name] for name in names), []).append(run)
    return groups


def mean_of(runs, name) -> float:
    return statistics.fmean(statistics.fmean(run["correct"]) if name == "test" else run[name] for run in runs)


def best_depths(runs) -> dict[str, str]:
    """Head -> freeze depth with the highest mean validation top-1, with all photos."""
    groups = together([run for run in runs if run["share"] == 1], "head", "freeze_depth")
    heads = dict.fromkeys(head for head, _ in groups)
    return {
        head: max((mean_of(group, "validation_top1"), depth) for (one, depth), group in groups.items() if one == head)[
            1
        ]
        for head in heads
    }


@dataclasses.dataclass(frozen=True)
class MadeUpStudy:
    """What made-up runs come to, as the files of a study have it."""

    config: StudyConfig
    runs: list[dict]

    @property
    def groups(self) -> dict[tuple, list[dict]]:
        """(head, freeze depth, share) -> its runs."""
        return together(self.runs, "head", "freeze_depth", "share")

    def tested(self, group: list[dict]) -> dict:
        """Test top-1 and its interval."""
        estimate = mean_of(group, "test")
        return {"estimate": estimate, **{end: estimate + by for end, by in ENDS.items()}}

    @property
    def baseline_depth(self) -> str | None:
        """The best one of the replaced layer."""
        return best_depths(self.runs).get("replaced")

    def difference(self, head: str, depth: str, share: float, *, to: str | None) -> dict | None:
        """Of test top-1 to the replaced layer at a freeze depth."""
        groups, baseline = self.groups, ("replaced", to, share)
        if head == "replaced" or baseline not in groups or self.config.seeds == 1:
            return None
        estimate = mean_of(groups[head, depth, share], "test") - mean_of(groups[baseline], "test")
        return {"estimate": estimate, "low": estimate - 0.04, "high": estimate + 0.02}

    def summary(self) -> list[dict]:
        """The rows of summary.csv."""
        rows = []
        for (head, depth, share), group in self.groups.items():
            found = self.difference(head, depth, share, to=depth if share == 1 else self.baseline_depth)
            score = self.tested(group)
            bounds = found or dict.fromkeys(("estimate", "low", "high"), "")
            means = {name: mean_of(group, name) for name in ("validation_top1", "converged", "seconds")}
            rows.append(
                {
                    "head": head,
                    "freeze_depth": depth,
                    "share": share,
                    "shots": "",
                    "photos": round(1234 * share),
                    "seeds": self.config.seeds,
                    "validation_top1": means["validation_top1"],
                    **dict(zip(("test_top1", "test_low", "test_high"), score.values(), strict=True)),
                    **dict(zip(("difference", "difference_low", "difference_high"), bounds.values(), strict=True)),
                    **said(head, found, seeds=self.config.seeds, unknown=""),
                    "converged": means["converged"],
                    "seconds": means["seconds"],
                }
            )
        return rows

    def best(self) -> list[dict]:
        """What result.json has of each head at its best depth."""
        rows = []
        for head, depth in best_depths(self.runs).items():
            found = self.difference(head, depth, 1.0, to=self.baseline_depth)
            rows.append(
                {
                    "head": head,
                    "freeze_depth": depth,
                    "learning_rate": 3e-4,
                    "scale": 3.0,
                    "head_multiplier": 10.0,
                    "test_top1": self.tested(self.groups[head, depth, 1.0]),
                    "difference": found,
                    **said(head, found, seeds=self.config.seeds, unknown=None),
                    "choice": 0.01 if found else 0.0,
                }
            )
        return rows

    def result(self, *, notice: str | None) -> dict:
        """What result.json holds."""
        best = self.best()
        names = ("head", "freeze_depth", "learning_rate", "scale", "head_multiplier")
        varied = [{name: row[name] for name in names} for row in best]
        return {
            "settings": self.config.as_dict(),
            "command": self.config.command(),
            "tuned": [row | {"share": 1.0, "shots": None, "edges": ["learning_rate"]} for row in varied],
            "chosen": varied[0] | {"cache": "auto", "command": "ktl run"},
            "best": best,
            "notice": notice,
            "failed": {},
            "probes": PROBES,
            "warnings": ["WARNING: <few> photos"],
            "duplicates": {"exact": 1, "near": len(DUPLICATES) - 1},
            "without_duplicates": {"photos": 131, "heads": {row["head"]: row["test_top1"] for row in best}},
            "zero_shot": ZERO_SHOT | {"heads": {row["head"]: row["test_top1"] for row in best}},
            "seconds": 61.0,
        }


def said(head: str, found: dict | None, *, seeds: int, unknown: str | None) -> dict:
    """What a study says of a difference."""
    numbers = {"p_value": 0.5, "smallest": 0.05, "photos_needed": 1000} if found else {}
    limits = LIMITS if found and found["low"] <= 0 <= found["high"] else ""
    verdict = verdict_of(head, found, seeds=seeds)
    return {**dict.fromkeys(("p_value", "smallest", "photos_needed"), unknown), **numbers} | {
        "verdict": verdict,
        "limits": limits,
    }


LIMITS = "this study could have shown 5.0 points or more; about 1,000 test photos would be needed for 1 point"


def verdict_of(head: str, found: dict | None, *, seeds: int) -> str:
    """A difference in words."""
    if found is None:
        unknown = "not compared" if seeds > 1 else "nothing can be said of one seed"
        return "the baseline" if head == "replaced" else unknown
    if found["low"] <= 0 <= found["high"]:
        return "no difference shown"
    points, low, high = (100 * found[name] for name in ("estimate", "low", "high"))
    return f"{'gains' if points > 0 else 'loses'} {abs(points):.1f} points ({low:+.1f} to {high:+.1f})"


def as_version_0_1_wrote(folder: Path) -> None:
    """Takes out of a study's folder what that version did not write."""
    later = ("p_value", "smallest", "photos_needed", "limits")
    result = json.loads((folder / "result.json").read_text())
    for row in result["best"]:
        for name in (*later, "choice"):
            del row[name]
    write_json(folder / "result.json", result)
    with open(folder / "summary.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    write_csv(
        folder / "summary.csv",
        [name for name in rows[0] if name not in later],
        ([value for name, value in row.items() if name not in later] for row in rows),
    )


def write_study(folder, config: StudyConfig, runs: list[dict], *, notice: str | None = None) -> list[dict]:
    """A finished study's folder; gives the rows of its summary."""
    study = StudyFolder(folder, config)
    for number, run in enumerate(runs):
        (study.path / "runs" / str(number)).mkdir(parents=True)
        study.write_json(f"runs/{number}/run.json", run)
    made_up = MadeUpStudy(config, runs)
    study.write_csv("runs.csv", ("head", "seed"), ((run["head"], run["seed"]) for run in runs))
    summary = made_up.summary()
    study.write_csv("summary.csv", summary[0].keys(), (row.values() for row in summary))
    study.write_json("environment.json", {"python": "3.11.0", "devices": ["CPU"], "versions": {"keras": "3"}})
    study.write_csv("duplicates.csv", ("test", "train", "distance", "exact"), DUPLICATES)
    study.write_json("result.json", made_up.result(notice=notice))
    return summary


DUPLICATES = [
    ("test/a/<i>&1.jpg", "train/a/1.jpg", 4, 0),
    ("test/a/2.jpg", "train/b/2.png", 0, 1),
    *((f"test/a/{number}.jpg", "train/a/3.jpg", 0, 0) for number in range(3, 210)),
]
"""Rows of duplicates.csv."""


PROBES = [
    {
        "source": source,
        "heads": heads,
        "share": 1.0,
        "shots": None,
        "penalties": [10.0],
        "converged": converged,
        "validation_top1": 0.6,
        "test_top1": {"estimate": 0.61, "low": 0.52, "high": 0.7},
    }
    for source, heads, converged in (("logits", ["kept", "kept_raw"], True), ("features", ["replaced"], False))
]

ZERO_SHOT = {
    "classes": 2,
    "dataset_classes": 7,
    "photos": 1234,
    "top1": 0.5,
    "restricted_top1": 0.875,
    "synsets": {
        "<b>crane": [{"id": "n02012849", "name": "crane (bird)"}, {"id": "n03126707", "name": "crane (machine)"}],
        "bird": [{"id": "n02012849", "name": "crane (bird)"}],
    },
}
"""What result.json has of it, but the heads."""


ENDS = {"low": -0.03, "high": 0.03}
"""End of a made-up interval -> how far it is from the mean."""
