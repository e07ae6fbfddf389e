"""What TensorFlow and JAX make of the device that is there: the pass, steps behind freeze depths, trials, a search.

Weights are random and photos made up, but for trials and the search, which are of the flags' data set and backbone:
nothing is fetched. Of the two backends those are measured that are installed.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import statistics
import time

from benchmarks import programs
from benchmarks.device import device_peak, multiply_adds_up_to, product_rate, seconds_of

ROUNDS = 1

WAYS_OF_BACKENDS = {
    "tensorflow": {"backend": "tensorflow", "xla": "off"},
    "tensorflow, XLA": {"backend": "tensorflow", "xla": "on"},
    "jax": {"backend": "jax", "xla": "on"},
}
WAYS_OF_TRIALS = ("one by one", "at once")
WAYS_OF_SEARCH = ("keras_tuner", "ktl")
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Of the trials of one freeze depth, each with all scales of the grid."""


def cases(settings) -> dict:
    return {name: list(ways) for name, (_, ways) in work_of(settings).items()}


def variables(settings) -> dict[str, str]:
    """Of a measurement's process."""
    way = WAYS_OF_BACKENDS.get(settings.way)
    return {"KERAS_BACKEND": way["backend"] if way else settings.case.rpartition(" ")[-1]}


def work_of(settings) -> dict:
    """Case -> what measures it, and its ways."""
    found = {}
    for part in settings.parts:
        found |= PARTS[part](settings)
    return found


def installed() -> list[str]:
    return [name for name, way in WAYS_OF_BACKENDS.items() if importlib.util.find_spec(way["backend"])]


def backends() -> list[str]:
    return list(dict.fromkeys(WAYS_OF_BACKENDS[way]["backend"] for way in installed()))


def passes(settings) -> dict:
    return {
        f"{backbone}, pass, {precision}": (
            functools.partial(forward, backbone=backbone, precision=precision),
            installed(),
        )
        for backbone in settings.backbones
        for precision in settings.precisions
    }


def steps_behind(settings) -> dict:
    return {
        f"{backbone}, steps behind {share:.0%}": (functools.partial(steps, backbone=backbone, share=share), installed())
        for backbone in settings.backbones
        for share in settings.shares
    }


def trials_at_once(settings) -> dict:
    count = len(RATES) * len(settings.grid_scales)
    name = f"{count} trials behind {settings.trials_depth} on"
    return {f"{name} {backend}": (trials, WAYS_OF_TRIALS) for backend in backends()}


def searches(settings) -> dict:
    count = len(settings.grid_depths) * len(settings.grid_scales)
    return {f"search of {count} trials on {backend}": (search, WAYS_OF_SEARCH) for backend in backends()}


def programs_of_steps(settings) -> dict:
    ways = {f"programs behind {settings.trials_depth} on jax": (programs.measure, list(programs.WAYS))}
    return ways if "jax" in backends() else {}


PARTS = {
    "passes": passes,
    "steps": steps_behind,
    "trials": trials_at_once,
    "programs": programs_of_steps,
    "search": searches,
}


def measure(settings) -> dict:
    return work_of(settings)[settings.case][0](settings)


def forward(settings, *, backbone: str, precision: str) -> dict:
    """The pass up to the classification layer's end, from NumPy to NumPy, in batches of several sizes; of the fastest
    size its seconds a batch."""
    import numpy as np

    from ktl.backends.engines import make_engine
    from ktl.data.batches import made_ahead

    work = made_up(settings, backbone, "none", precision=precision)
    classifier, end = work.classifier, work.classifier.boundaries[-1].tensor
    engine = make_engine(jit_compile=work.machine.xla)
    compiled, rate, found = engine.compile(classifier.input, [end]), product_rate(settings, precision), []
    for batch in settings.batches:
        photos = np.random.default_rng(0).integers(0, 256, (batch, *classifier.input_shape[1:]), "uint8")
        repeated = [photos] * (settings.repeats * engine.calls)

        def run(batches=repeated):
            with contextlib.closing(made_ahead(compiled, batches, threads=engine.calls)) as done:
                for _ in done:
                    pass

        first = seconds_of(lambda photos=photos: compiled(photos))
        seconds = min(seconds_of(run) for _ in range(2)) / len(repeated)
        found.append({"batch": batch, "seconds": seconds, "photos_a_second": batch / seconds, "first": first})
    best = max(found, key=lambda each: each["photos_a_second"])
    done = 2 * multiply_adds_up_to(end) * best["photos_a_second"]
    note = "; ".join(
        f"batch {each['batch']}: {each['photos_a_second']:,.0f}/s, compiled in "
        f"{max(0.0, each['first'] - each['seconds']):.1f} s"
        for each in found
    )
    return {
        "seconds": best["seconds"],
        "units": best["batch"],
        "unit": "photos",
        "note": f"{note}; {done / 1e12:.3g} TFLOP/s, {done / rate:.0%} of the {rate / 1e12:.3g} of matrix products",
        "batches": found,
        **device_peak(),
    }


def steps(settings, *, backbone: str, share: float) -> dict:
    """Training steps of the suffix on one batch, the second of two epochs."""
    import keras

    from benchmarks.feeds import feature_inputs, random_batch
    from benchmarks.fitting import compile_part
    from ktl.data.batches import ArraySpec, Batches
    from ktl.machine import faster_on_cpu
    from ktl.training.feeds import make_feed

    work = made_up(settings, backbone, "none")
    depths = [boundary.depth for boundary in work.classifier.boundaries if boundary.cost_share <= share]
    work.classifier.freeze(depths[-1])
    suffix = compile_part(work, feature_inputs(work, {}))
    batch, times = random_batch(work), []
    specs = tuple(ArraySpec(array.shape, str(array.dtype)) for array in batch)
    batches = Batches(2 * settings.steps, lambda number: batch, specs)
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: times.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()),
    )
    with faster_on_cpu(suffix.layers), make_feed(suffix) as feed:
        training = {"epochs": 2, "steps_per_epoch": settings.steps, "callbacks": [clock], "verbose": 0}
        keras.Model.fit(suffix, feed.once(batches), shuffle=False, **training)
    first, seconds = times[1] - times[0], times[3] - times[2]
    note = f"behind {work.classifier.boundary.name}; compiled in {max(0.0, first - seconds):.1f} s"
    return {"seconds": seconds, "units": settings.steps, "unit": "steps", "note": note, **device_peak()}


def trials(settings) -> dict:
    """Trainings that differ in rate and scale alone, on features that are there: each in a program of its own, of which
    some are measured, and all in one."""
    from pathlib import Path

    from benchmarks.work import configure, load
    from ktl.runs.session import Session
    from ktl.runs.together import HeadTrainer, Wanted

    config = configure(settings, freeze_depth=settings.trials_depth, cache="on", cache_dir=f"{settings.folder}/cache")
    config = dataclasses.replace(config, epochs=settings.grid_epochs)
    values = [{"scale": scale, "learning_rate": rate} for scale in settings.grid_scales for rate in RATES]
    session = Session(config, load(settings), trainings=len(values))
    session.prepare()
    started, folder = time.perf_counter(), Path(settings.folder) / settings.way
    if settings.way == "at once":
        wanted = [Wanted(each, config.seed, folder / f"{number}") for number, each in enumerate(values)]
        done = HeadTrainer(session).train(wanted)
        if done is None:
            return {"failed": True, "note": "these are not trained at once on this backend and device"}
        histories, chosen = done[1], values
    else:
        chosen = values[:: max(1, len(values) // settings.sampled)][: settings.sampled]
        histories = [session.prepare(each).fit(folder / f"{number}") for number, each in enumerate(chosen)]
    seconds = time.perf_counter() - started
    top1 = [max(row["validation_top1"] for row in history) for history in histories]
    found = [{**each, "validation_top1": score} for each, score in zip(chosen, top1, strict=True)]
    note = "" if len(chosen) == len(values) else f"{len(chosen)} measured in {seconds:.1f} s, the others computed"
    counts = {"units": len(values), "unit": "trials", "trials": found, "note": note}
    return {"seconds": seconds * len(values) / len(chosen), **counts, **device_peak()}


def search(settings) -> dict:
    """The same trials by `ktl.search`, from photos on disk to the best one's test score, and by KerasTuner of the whole
    network from decoded photos, some of them."""
    found = ktl_search(settings) if settings.way == "ktl" else keras_tuner_search(settings)
    return {**found, **device_peak()}


def ktl_search(settings) -> dict:
    import csv
    from pathlib import Path

    import ktl
    from benchmarks.work import configure

    run = configure(settings, epochs=settings.grid_epochs, cache="on", cache_dir=f"{settings.folder}/cache")
    space = f"freeze_depth={','.join(settings.grid_depths)} scale={','.join(map(str, settings.grid_scales))}"
    count = len(settings.grid_depths) * len(settings.grid_scales)
    fields = {**dataclasses.asdict(run), "oracle": "grid", "space": space, "seeds": 1, "max_trials": count}
    started, folder = time.perf_counter(), Path(settings.folder) / "search"
    result = ktl.search(ktl.SearchConfig(**fields), output=folder)
    seconds = time.perf_counter() - started
    with open(folder / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = {"scale": float, "validation_top1": float, "seconds": float}
    found = [
        {"depth": row["freeze_depth"], **{name: kind(row[name]) for name, kind in numbers.items()}} for row in rows
    ]
    ours = {(row["depth"], row["scale"]): row["validation_top1"] for row in found}
    theirs = settings.earlier["keras_tuner"]["trials"]
    differences = [abs(ours[row["depth"], row["scale"]] - row["validation_top1"]) for row in theirs]
    note = (
        f"best {result['best']['settings']}, test top-1 {result['test']['top1']:.4f}; validation top-1 of what both "
        f"trained differs by {max(differences):.4f} at most, {statistics.fmean(differences):.4f} in the mean"
    )
    return {
        "seconds": seconds,
        "units": count,
        "unit": "combinations",
        "validation_top1": result["best"]["validation_top1"],
        "trials": found,
        "note": note,
    }


def keras_tuner_search(settings) -> dict:
    from benchmarks import grid

    depths = settings.grid_depths[:: max(1, len(settings.grid_depths) // settings.sampled)][: settings.sampled]
    whole = len(settings.grid_depths) * len(settings.grid_scales)
    sampled = {"grid_depths": depths, "grid_scales": settings.grid_scales[len(settings.grid_scales) // 2 :][:1]}
    found = grid.keras_tuner(argparse.Namespace(**{**vars(settings), **sampled}))
    measured, seconds = len(found["trials"]), found["seconds"]
    note = "" if measured == whole else f"{measured} measured in {seconds:.1f} s, the others computed"
    return {**found, "seconds": seconds * whole / measured, "units": whole, "note": note}


def made_up(settings, backbone: str, depth: str, *, precision: str = "float32"):
    from benchmarks.work import prepare

    xla = WAYS_OF_BACKENDS[settings.way]["xla"]
    changes = {"backbone": backbone, "weights": "random", "precision": precision, "xla": xla}
    return prepare(settings, depth=depth, image_size=settings.side, **changes)


WAYS = dict.fromkeys((*WAYS_OF_BACKENDS, *WAYS_OF_TRIALS, *programs.WAYS, *WAYS_OF_SEARCH), measure)
