"""Trials that train a head alone: one by one as a search does its others, and at once."""

import dataclasses
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ktl.runs.session import Session

ROUNDS = 1
TRIALS = {"scale": (1.0, 2.0, 3.0, 5.0, 10.0, 30.0), "learning_rate": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)}
QUICK_TRIALS = {"scale": (1.0, 10.0), "learning_rate": (1e-3,)}


def cases(settings) -> dict:
    return {f"{len(trials(settings))} trials": list(WAYS)}


def trials(settings) -> list[dict[str, float]]:
    values = QUICK_TRIALS if settings.quick else TRIALS
    return [{"scale": scale, "learning_rate": rate} for scale in values["scale"] for rate in values["learning_rate"]]


def one_by_one(settings) -> dict:
    """Each trial's network built and trained; how much of that its epochs take after the first, which is traced."""
    from pathlib import Path

    session, found, busy = begin(settings), [], 0.0
    started = time.perf_counter()
    for number, values in enumerate(trials(settings)):
        history = session.prepare(values).fit(Path(settings.folder) / f"alone-{number}")
        busy += len(history) * min(row["seconds"] for row in history)
        found.append(best(values, history))
    seconds = time.perf_counter() - started
    return {**told(found, seconds), "note": f"{1 - busy / seconds:.0%} of it are networks, graphs and checkpoints"}


def at_once(settings) -> dict:
    """The same trials, with the time that the search's own bookkeeping takes left out on both sides."""
    from pathlib import Path

    from ktl.runs.together import HeadTrainer, Wanted

    session, wanted = begin(settings), []
    for number, values in enumerate(trials(settings)):
        wanted.append(Wanted(values, session.config.seed, Path(settings.folder) / f"at-once-{number}"))
    started = time.perf_counter()
    _, outcomes = HeadTrainer(session).train(wanted)
    seconds = time.perf_counter() - started
    found = [best(each.values, history) for each, history in zip(wanted, outcomes, strict=True)]
    before = settings.earlier["one_by_one"]["trials"]
    differences = [abs(a["validation_top1"] - b["validation_top1"]) for a, b in zip(before, found, strict=True)]
    same = sum(difference == 0 for difference in differences)
    note = f"{same} of {len(found)} trials have the same validation top-1, the others differ by {max(differences):.4f}"
    return {**told(found, seconds), "note": note}


def begin(settings) -> "Session":
    """With the features there, which the ways share."""
    from benchmarks.work import configure, load
    from ktl.runs.session import Session

    config = configure(settings, freeze_depth="all", cache="on", cache_dir=f"{settings.folder}/cache")
    config = dataclasses.replace(config, epochs=settings.grid_epochs, least_steps=32, patience=5)
    session = Session(config, load(settings), trainings=len(trials(settings)))
    session.prepare()
    return session


def best(values: dict, history: list) -> dict:
    return {**values, "validation_top1": max(row["validation_top1"] for row in history), "epochs": len(history)}


def told(found: list[dict], seconds: float) -> dict:
    top1 = max(trial["validation_top1"] for trial in found)
    return {"seconds": seconds, "units": len(found), "unit": "trials", "validation_top1": top1, "trials": found}


WAYS = {"one_by_one": one_by_one, "at_once": at_once}
