"""A grid search over freeze depth and scale: KerasTuner on whole networks, suffixes over one pass, and the limit."""

import dataclasses
import time

ROUNDS = 1


def cases(settings) -> dict:
    return {f"{len(settings.grid_depths) * len(settings.grid_scales)} trials": list(WAYS)}


def keras_tuner(settings) -> dict:
    """KerasTuner's GridSearch of the whole network, from decoded photos in memory."""
    import keras_tuner as kt

    from benchmarks.feeds import photo_inputs
    from benchmarks.tuning import WholeNetwork
    from benchmarks.work import decode, prepare

    work = prepare(settings, depth="all", epochs=settings.grid_epochs)
    inputs = photo_inputs(work, decode(work))
    hypermodel = WholeNetwork(settings, work, inputs)
    started = time.perf_counter()
    tuner = kt.GridSearch(
        hypermodel, objective=kt.Objective("val_top1", "max"), directory=settings.folder, overwrite=True
    )
    tuner.search(verbose=0)  # the model knows its photos
    return found(time.perf_counter() - started, hypermodel.trials)


def cached(settings) -> dict:
    """One pass that writes all depths, then the suffix of each trial."""
    from benchmarks.feeds import feature_inputs, write_features
    from benchmarks.fitting import fit_as_run
    from benchmarks.tuning import with_classifier
    from benchmarks.work import decode, prepare

    before = settings.earlier["keras_tuner"]["trials"]
    work = prepare(settings, depth="all", epochs=settings.grid_epochs)
    photos = decode(work)
    trials, started = [], time.perf_counter()
    features = write_features(work, settings.folder, depths=settings.grid_depths, photos=photos)
    for trial in [{key: row[key] for key in ("depth", "scale")} for row in before]:
        trial_started = time.perf_counter()
        rebuilt = with_classifier(work, **trial)
        history = fit_as_run(rebuilt, feature_inputs(rebuilt, features[trial["depth"]]))
        best = max(row["validation_top1"] for row in history)
        trials.append({**trial, "validation_top1": best, "seconds": time.perf_counter() - trial_started})
    differences = [abs(a["validation_top1"] - b["validation_top1"]) for a, b in zip(before, trials, strict=True)]
    note = f"a trial's validation top-1 differs by {max(differences):.4f} at most"
    return {**found(time.perf_counter() - started, trials), "note": note}


def limit(settings) -> dict:
    """What no search of these trials can beat: one pass, and as many steps on a batch that stays in memory."""
    from benchmarks.feeds import write_features
    from benchmarks.training import steps_in_memory
    from benchmarks.tuning import with_classifier
    from benchmarks.work import decode, prepare

    trials = settings.earlier["cached"]["trials"]
    work = prepare(settings, depth="all", epochs=settings.grid_epochs)
    photos = decode(work)
    started = time.perf_counter()
    write_features(work, settings.folder + "/limit", depths=settings.grid_depths, photos=photos)
    pass_seconds = time.perf_counter() - started
    seconds = sum(steps_in_memory(with_classifier(work, depth=row["depth"], scale=row["scale"])) for row in trials)
    ratio = settings.earlier["cached"]["seconds"] / (pass_seconds + seconds)
    note = f"{pass_seconds:.1f} s of it for the pass; cached takes {ratio:.2f} times as long"
    return {"seconds": pass_seconds + seconds, "units": len(trials), "unit": "combinations", "note": note}


def hyperband(settings) -> dict:
    """`ktl.search` over the same space with early termination, from photos on disk to the best trial's test score."""
    from pathlib import Path

    import ktl
    from benchmarks.work import configure

    before = settings.earlier["keras_tuner"]
    run = configure(settings, epochs=settings.grid_epochs, cache="on", cache_dir=f"{settings.folder}/hyperband-cache")
    space = f"freeze_depth={','.join(settings.grid_depths)} scale={','.join(map(str, settings.grid_scales))}"
    config = ktl.SearchConfig(**dataclasses.asdict(run), oracle="hyperband", space=space, seeds=1)
    started = time.perf_counter()
    result = ktl.search(config, output=Path(settings.folder) / "hyperband")
    seconds = time.perf_counter() - started
    best, trials = result["best"]["validation_top1"], sum(result["trials"].values())
    difference = best - before["validation_top1"]
    return {
        "seconds": seconds,
        "units": len(before["trials"]),
        "unit": "combinations",
        "validation_top1": best,
        "test_top1": result["test"]["top1"],
        "note": f"{trials} trials; {difference:+.4f} of KerasTuner's validation top-1",
    }


def found(seconds: float, trials: list[dict]) -> dict:
    best = max(trial["validation_top1"] for trial in trials)
    return {"seconds": seconds, "units": len(trials), "unit": "combinations", "validation_top1": best, "trials": trials}


WAYS = {"keras_tuner": keras_tuner, "cached": cached, "limit": limit, "hyperband": hyperband}
