"""One run from a config to a finished folder."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

from ktl.config import RunConfig
from ktl.results import RunFolder, describe_environment


class Reporter:
    """What a run tells whoever watches; this one is silent."""

    def message(self, text: str) -> None:
        """One line about what is going on."""

    def photos(self, task: str, total: int) -> Callable[[int], None]:
        """Starts a task over `total` photos; what it returns is called with the number done so far."""
        return lambda done: None

    def training(self, *, epochs: int, photos: int) -> tuple:
        """Keras callbacks that show the training's progress over `epochs` epochs of `photos` photos."""
        return ()

    def epoch(self, row: dict) -> None:
        """One finished epoch, a row of history.csv."""


def default_output(config: RunConfig) -> Path:
    """runs/<data set>-<backbone>-<head>-<settings' fingerprint>, the same for the same settings."""
    names = (Path(config.dataset).stem, Path(config.backbone).stem, config.head, config.fingerprint())
    return Path("runs") / "-".join(names).replace(":", "_")


def run(config: RunConfig, *, output: str | Path | None = None, reporter: Reporter | None = None) -> dict:
    """Fine-tunes a backbone with a new head, and scores it once on the test photos.

    Called again with the same settings and folder, it continues a killed run after its last complete epoch, and gives
    back the result of one that has ended.

    Args:
        config: the settings.
        output: the run's folder, see `ktl.results`; `default_output(config)` if None.
        reporter: is told of the progress.

    Returns:
        What result.json holds.

    Raises:
        UserError: bad input; nothing that was there is lost.
    """
    reporter = reporter or Reporter()
    folder = RunFolder(output or default_output(config), config)
    if folder.result is None:
        _train_and_score(config, folder, reporter)
    folder.remove_checkpoint()
    return folder.result


def _train_and_score(config: RunConfig, folder: RunFolder, reporter: Reporter) -> None:
    # Heavy imports wait until the settings are known to be good.
    from ktl import evaluation, training
    from ktl.backbones import build_backbone
    from ktl.datasets import load_dataset
    from ktl.network import build_network
    from ktl.pipelines import PhotoCache, check_photos, evaluation_batches, training_batches

    dataset = load_dataset(config.dataset, data_dir=config.data_dir)
    if dataset.notice:
        reporter.message(dataset.notice)
    machine = training.set_up_machine(config)
    with machine.scope():
        backbone = build_backbone(config.backbone, weights=config.weights, image_size=config.image_size)
        network = build_network(
            backbone,
            classes=len(dataset.class_names),
            head=config.head,
            scale=config.scale,
            hidden_units=config.hidden_units,
            freeze_depth=config.freeze_depth,
        )
    folder.write_json("environment.json", describe_environment(machine))
    if config.weights == "random":
        reporter.message("WARNING: random weights: there is no pre-trained layer to keep")
    reporter.message(_in_force(machine, network))

    pixels = {"image_size": backbone.image_size, "cache": PhotoCache(memory_gib=config.memory_gib)}
    photos = reporter.photos("checking photos", sum(map(len, dataset.splits)))
    dataset, bad_photos = check_photos(
        dataset, on_bad_image=config.on_bad_image, progress=lambda done, total: photos(done), **pixels
    )
    if bad_photos:
        reporter.message(f"skipped {len(bad_photos)} photos that cannot be read; result.json lists them")

    steps_per_epoch = math.ceil(len(dataset.train) / config.batch_size)
    with machine.scope():
        training.compile_model(
            network.model,
            head_variables=network.head_variables,
            config=config,
            steps_per_epoch=steps_per_epoch,
            xla=machine.xla,
        )
    validation = evaluation_batches(dataset.validation, batch_size=config.batch_size, **pixels)
    history = training.fit(
        network.model,
        train=lambda first_epoch: training_batches(
            dataset.train,
            batch_size=config.batch_size,
            epochs=config.epochs,
            first_epoch=first_epoch,
            seed=config.seed,
            augmentation=config.augmentation,
            flip=dataset.flip,
            **pixels,
        ),
        steps_per_epoch=steps_per_epoch,
        validation=validation,
        config=config,
        checkpoint_dir=folder.checkpoint_dir,
        on_epoch=reporter.epoch,
        callbacks=reporter.training(epochs=config.epochs, photos=len(dataset.train)),
    )

    folder.write_history(history)
    folder.write_labels(dataset.class_names)
    folder.write_model(network.graph)
    scores = {}
    for split in (dataset.validation, dataset.test):
        batches = evaluation_batches(split, batch_size=config.batch_size, **pixels)
        probabilities = evaluation.predict_probabilities(network.model, batches)
        scores[split.name] = evaluation.score(probabilities, split.labels)
    folder.write_predictions(dataset.test.photos, dataset.test.labels, probabilities, dataset.class_names)
    matrix = evaluation.confusion_matrix(probabilities, dataset.test.labels)
    folder.write_confusion(matrix, dataset.class_names)
    folder.write_json(
        "result.json",
        {
            **scores,
            "settings": config.as_dict(),
            "frozen_up_to": network.boundary.name,
            "parameters": {
                "total": network.graph.count_params(),
                "frozen": network.prefix.count_params(),
                "trained": sum(math.prod(v.shape) for v in network.suffix.trainable_variables),
            },
            "photos": {split.name: len(split) for split in dataset.splits},
            "bad_photos": [{"photo": photo, "reason": reason} for photo, reason in bad_photos],
            "notice": dataset.notice,
            "epochs": len(history),
            "best_epoch": training.best_epoch(history),
            "seconds": sum(row["seconds"] for row in history),
            "machine": dataclasses.asdict(machine),
        },
    )


def _in_force(machine, network) -> str:
    boundary = network.boundary
    xla = "on" if machine.xla else "off"
    return (
        f"{', '.join(machine.devices)}, {machine.precision}, XLA {xla}, strategy {machine.strategy}; frozen up to "
        f"{boundary.name} (depth {boundary.depth} of {len(network.boundaries) - 1}, {boundary.cost_share:.0%} of the "
        f"forward pass), {boundary.parameters_before:,} parameters"
    )
