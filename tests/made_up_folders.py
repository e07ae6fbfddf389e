"""Folders of runs, searches and studies that have ended, with made-up numbers."""

import itertools
import json
import math
import shlex
import shutil
import statistics
from pathlib import Path

import numpy as np

from ktl.cli.flags import config_from
from ktl.cli.main import build_parser
from ktl.config.settings import SearchConfig, StudyConfig
from ktl.evaluation import metrics as evaluation
from ktl.runs.run_folder import RunFolder
from ktl.studies.study_folder import StudyFolder
from ktl.tuning.search_folder import SearchFolder

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{a}$ {{ 7 * 7 }} {% raw %}",
    "ひまわり & 'ö' <b>",
    "w" * 200,
    "&lt;plain&gt;",
)


def settings_in(command: str):
    """The settings that a command of a script of experiments/ stands for, and the script's name."""
    _, script, *flags = shlex.split(command)
    name = Path(script).stem
    return config_from(build_parser().parse_args([name, *flags])), name


def percent(fraction) -> str:
    return f"{100 * fraction:.1f} %"


def wilson(right, total) -> tuple[float, float]:
    """The interval by its closed form."""
    z, p = statistics.NormalDist().inv_cdf(0.975), right / total
    middle = p + z * z / (2 * total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return tuple((middle + sign * half) / (1 + z * z / total) for sign in (-1, 1))


def interval(right, total) -> str:
    low, high = wilson(right, total)
    return f"{100 * low:.1f} to {percent(high)}"


def made_up(photos, classes, *, seed=0, sure=4.0):
    """Probabilities of a classifier that is right more often than not."""
    generator = np.random.default_rng(seed)
    labels = np.arange(photos, dtype=np.int32) % classes
    logits = generator.normal(size=(photos, classes))
    logits[np.arange(photos), labels] += sure * generator.random(photos)
    exponents = np.exp(logits)
    return exponents / exponents.sum(axis=1, keepdims=True), labels


def write_run(folder, config, *, class_names, photos, validation, test, **changes) -> RunFolder:
    """A finished run's folder, but for its model."""
    run = RunFolder(folder, config)
    splits = {"validation": validation, "test": test}
    epochs = [
        {"epoch": 1, "loss": 2.5, "top1": 0.25, "validation_loss": 1.5, "validation_top1": 0.5, "seconds": 1.0},
        {"epoch": 2, "loss": 1.0, "top1": 0.75, "validation_loss": 1.25, "validation_top1": 0.625, "seconds": 1.0},
        {"epoch": 3, "loss": 0.5, "top1": 0.875, "validation_loss": 1.75, "validation_top1": 0.5625, "seconds": 1.0},
    ]
    run.write_json(
        "environment.json", {"python": "3.11.0", "devices": ["CPU"], "xla": False, "versions": {"keras": "3"}}
    )
    run.write_history(epochs)
    run.write_labels(class_names)
    run.write_probabilities({name: split[0] for name, split in splits.items()}, {n: s[1] for n, s in splits.items()})
    run.write_predictions(photos, test[1], test[0], class_names)
    result = {name: evaluation.score(*split) for name, split in splits.items()}
    result |= {
        "settings": config.as_dict(),
        "command": config.command(),
        "frozen_up_to": "block",
        "parameters": {"total": 3000, "frozen": 2000, "trained": 1000},
        "photos": {"train": 1234, "validation": len(validation[1]), "test": len(test[1])},
        "bad_photos": [],
        "notice": None,
        "epochs": 3,
        "best_epoch": 2,
        "seconds": 3.0,
    }
    run.write_json("result.json", result | changes)
    return run


SPACE = {"freeze_depth": ["none", "a$b<i>", "all"], "scale": [1.0, 10.0, 30.0], "learning_rate": [0.001, 0.01]}


def write_search(folder, best: Path, space=SPACE) -> list[dict]:
    """A finished search's folder; gives the trials as they went into trials.csv."""
    config = SearchConfig(dataset="stripes", space=" ".join(f"{n}={','.join(map(str, v))}" for n, v in space.items()))
    search = SearchFolder(folder, config)
    generator = np.random.default_rng(1)
    rows = []
    for number, values in enumerate(itertools.product(*space.values())):
        row = {"trial": f"t{number:02}", **dict(zip(space, values, strict=True))}
        measured = {"validation_top1": 0.5 + 0.4 * generator.random(), "validation_top1_sd": 0.013}
        measured |= {"validation_loss": 1 + generator.random(), "epochs": 3.0, "seconds": 100 * generator.random()}
        if number % 6 == 5:
            row |= dict.fromkeys(measured, "") | {"status": "failed", "reason": f"out of <memory> {number}"}
        else:
            row |= measured | {"status": "completed", "reason": ""}
        rows.append(row)
    rows.sort(key=lambda row: -(row["validation_top1"] or 0))
    search.write_csv("trials.csv", rows[0].keys(), (row.values() for row in rows))
    shutil.copytree(best, folder / "best")
    scores = json.loads((best / "result.json").read_text())
    result = {"best": {"trial": rows[0]["trial"], "settings": {n: rows[0][n] for n in space}, "validation_top1": 0.9}}
    result |= {name: scores[name] for name in ("validation", "test")}
    result |= {"trials": {"completed": 15, "failed": 3}, "oracle": "grid", "space": space}
    result |= {"settings": config.as_dict(), "command": config.command(), "seconds": 61.0}
    search.write_json("result.json", result)
    return rows


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
                "share": share,
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


def write_study(folder, config: StudyConfig, runs: list[dict], *, notice: str | None = None) -> list[dict]:
    """A finished study's folder; gives the rows of its summary. Intervals are made up."""
    study = StudyFolder(folder, config)
    for number, run in enumerate(runs):
        (study.path / "runs" / str(number)).mkdir(parents=True)
        study.write_json(f"runs/{number}/run.json", run)
    groups = together(runs, "head", "freeze_depth", "share")

    def difference(head, depth, share, baseline):
        if head == "replaced" or ("replaced", baseline, share) not in groups or config.seeds == 1:
            return None
        estimate = mean_of(groups[head, depth, share], "test") - mean_of(groups["replaced", baseline, share], "test")
        return {"estimate": estimate, "low": estimate - 0.04, "high": estimate + 0.02}

    def tested(group):
        known = config.seeds > 1
        estimate = mean_of(group, "test")
        return {"estimate": estimate, **{end: estimate + by if known else math.nan for end, by in ENDS.items()}}

    def verdict(found):
        if found is None:
            return "the baseline"
        if found["low"] <= 0 <= found["high"]:
            return "no difference shown"
        points, low, high = (100 * found[name] for name in ("estimate", "low", "high"))
        return f"{'gains' if points > 0 else 'loses'} {abs(points):.1f} points ({low:+.1f} to {high:+.1f})"

    best = {
        head: max(config.depths, key=lambda depth: mean_of(groups[head, depth, 1.0], "validation_top1"))
        for head in config.heads
    }
    summary = []
    for (head, depth, share), group in groups.items():
        found = difference(head, depth, share, depth if share == 1 else best.get("replaced"))
        bounds = found or dict.fromkeys(("estimate", "low", "high"), "")
        score = tested(group)
        summary.append(
            {
                "head": head,
                "freeze_depth": depth,
                "share": share,
                "photos": round(1234 * share),
                "seeds": config.seeds,
                "validation_top1": mean_of(group, "validation_top1"),
                "test_top1": score["estimate"],
                "test_low": score["low"],
                "test_high": score["high"],
                "difference": bounds["estimate"],
                "difference_low": bounds["low"],
                "difference_high": bounds["high"],
                "verdict": verdict(found),
                "converged": mean_of(group, "converged"),
                "seconds": mean_of(group, "seconds"),
            }
        )
    study.write_csv("summary.csv", summary[0].keys(), (row.values() for row in summary))
    rows = []
    for head, depth in best.items():
        found = difference(head, depth, 1.0, best.get("replaced"))
        rows.append(
            {
                "head": head,
                "freeze_depth": depth,
                "learning_rate": 3e-4,
                "scale": 3.0,
                "test_top1": tested(groups[head, depth, 1.0]),
                "difference": found,
                "verdict": verdict(found),
            }
        )
    tuned = [{"head": head, "freeze_depth": "all", "learning_rate": 3e-4, "scale": 3.0} for head in best]
    study.write_json("environment.json", {"python": "3.11.0", "devices": ["CPU"], "versions": {"keras": "3"}})
    study.write_csv("duplicates.csv", ("test", "train", "distance", "exact"), DUPLICATES)
    result = {
        "settings": config.as_dict(),
        "command": config.command(),
        "tuned": tuned,
        "best": rows,
        "notice": notice,
        "duplicates": {"exact": 1, "near": len(DUPLICATES) - 1},
        "zero_shot": ZERO_SHOT | {"heads": {row["head"]: row["test_top1"] for row in rows}},
        "seconds": 61.0,
    }
    study.write_json("result.json", result)
    return summary


DUPLICATES = [
    ("test/a/<i>&1.jpg", "train/a/1.jpg", 4, 0),
    ("test/a/2.jpg", "train/b/2.png", 0, 1),
    *((f"test/a/{number}.jpg", "train/a/3.jpg", 0, 0) for number in range(3, 210)),
]
"""Rows of duplicates.csv."""


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


def write_kept_layer(run: RunFolder, names, *, unlike=()) -> list[dict]:
    """Made-up rows: of class c the ImageNet classes c, c + 1, ..., so that neighbours share nine of ten."""
    rows = []
    for label, name in enumerate(names):
        for rank in range(1, 11):
            number = label + rank - 1
            rows.append(
                {
                    "class": name,
                    "rank": rank,
                    "synset": f"n{number:08}",
                    "imagenet_class": f"<i>thing</i> {number}",
                    "contribution": (2.03 + label / 10) / rank,  # never half a digit
                    "share": 0.2 / rank,
                    "activation": -0.5 if (label, rank) in unlike else 1.5,
                }
            )
    run.write_kept_layer(rows)
    return rows
