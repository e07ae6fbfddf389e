"""timm's fine-tuning of the whole network from Keras' weights, in a process of a Python that has timm.

See `timm_training.py` for how it trains, and for what is in its job.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np

from benchmarks.guide import COPIED
from ktl.config.settings import RunConfig
from ktl.data.dataset import Dataset
from ktl.data.order import steps_per_epoch

SCRIPT = Path(__file__).with_name("timm_training.py")

RATES = (3e-4, 1e-3, 3e-3)


def fine_tune(settings, config: RunConfig, dataset: Dataset) -> dict:
    """A training with the seed of the round at each rate, of which validation photos choose one, the lower of equals.

    Its seconds leave out those of the others, which are `other_seconds`; what these reach on test photos is not told.
    """
    job = make_job(config, dataset, Path(settings.folder))
    tried = {
        rate: run_training(settings.timm_python, {**job, "learning_rate": rate, "seed": settings.round})
        for rate in RATES
    }
    rate = max(tried, key=lambda each: tried[each]["validation_top1"])
    others = sum(found["seconds"] for each, found in tried.items() if each != rate)
    validation = {f"{each:g}": found["validation_top1"] for each, found in tried.items()}
    note = f"rate {rate:g}; the other two took {others:.0f} s more; {job['epochs']} epochs"
    return {**tried[rate], "rates": validation, "other_seconds": others, "note": note}


def make_job(config: RunConfig, dataset: Dataset, folder: Path) -> dict:
    """Writes the weights and all photos below the folder; the job, but for rate and seed.

    It shows as many training photos as the run does that the settings describe, in passes over all of them: where a run
    takes 32 steps of 32 for an epoch of 680 photos, 15 of its epochs are 23 passes.
    """
    shown = steps_per_epoch(len(dataset.train), batch_size=config.batch_size, least_steps=config.least_steps)
    weights = folder / "weights.npz"
    image_size = write_weights(config, weights)
    return {
        "weights": str(weights),
        "width": float(config.backbone.removeprefix(COPIED)),
        "image_size": image_size,
        "classes": len(dataset.class_names),
        "splits": {split.name: write_photos(split, folder / split.name) for split in dataset.splits},
        "epochs": round(config.epochs * shown * config.batch_size / len(dataset.train)),
        "batch_size": config.batch_size,
        "threads": len(os.sched_getaffinity(0)),
    }


def write_weights(config: RunConfig, file: Path) -> int:
    """Writes the backbone's variables, each by its layer and name; the side of its input, pixels."""
    import keras

    from ktl.models.backbones import build_backbone

    backbone = build_backbone(config.backbone, weights=config.weights, image_size=config.image_size)
    layers = keras.Model(backbone.pixels, backbone.logits).layers
    np.savez(file, **{f"{layer.name}/{each.name}": each.numpy() for layer in layers for each in layer.weights})
    return backbone.image_size


def write_photos(split, folder: Path) -> list[list]:
    """Writes a split's photos as files, wherever they are read from; [path, label] of each."""
    folder.mkdir()
    found = [[str(folder / f"{index:06}"), int(label)] for index, label in enumerate(split.labels)]
    for index, (path, _) in enumerate(found):
        Path(path).write_bytes(split.read(index))
    return found


def run_training(python: str, job: dict) -> dict:
    """What the script tells of a job.

    Raises:
        RuntimeError: it failed; the last line that it wrote.
    """
    file = Path(job["weights"]).with_name("job.json")
    file.write_text(json.dumps(job))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # of another Python
    done = subprocess.run([python, SCRIPT, file], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    return json.loads(done.stdout)
