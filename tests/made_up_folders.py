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
from ktl.config.settings import SearchConfig
from ktl.evaluation import metrics as evaluation
from ktl.runs.run_folder import RunFolder
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
        "machine": {"devices": ["CPU"], "precision": "float32", "xla": False, "strategy": "none"},
    }
    run.write_json("result.json", result | changes)
    return run


SPACE = {"freeze_depth": ["none", "a$b<i>", "all"], "scale": [1.0, 10.0, 30.0], "learning_rate": [0.001, 0.01]}


def write_search(folder, best: Path, space=SPACE, **settings) -> list[dict]:
    """A finished search's folder; gives the trials as they went into trials.csv."""
    dimensions = " ".join(f"{n}={','.join(map(str, v))}" for n, v in space.items())
    config = SearchConfig(dataset="stripes", space=dimensions, **settings)
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
    result |= {"settings": config.as_dict(), "command": config.command(), "seeds": 3, "seconds": 61.0}
    result |= {"warnings": ["WARNING: <few> photos"]}
    search.write_json("result.json", result)
    return rows


def write_kept_layer(run: RunFolder, names, *, unlike=(), faint=()) -> list[dict]:
    """Made-up rows: of class c the ImageNet classes c, c + 1, ..., so that neighbours share nine of ten; those of a
    faint class add a hundredth."""
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
                    "contribution": (2.03 + label / 10) / rank / (100 if label in faint else 1),  # never half a digit
                    "share": 0.2 / rank,
                    "activation": -0.5 if (label, rank) in unlike else 1.5,
                }
            )
    run.write_kept_layer(rows)
    return rows
