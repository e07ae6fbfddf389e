"""One run from a config to a finished folder."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from ktl.config.settings import RunConfig
from ktl.data.dataset import Dataset, Split
from ktl.data.loading import load_dataset
from ktl.evaluation import metrics as evaluation
from ktl.machine import faster_on_cpu
from ktl.models.backbones import build_backbone
from ktl.models.classifier import Network, build_network
from ktl.progress import Reporter
from ktl.runs import attribution as knowledge
from ktl.runs.run_folder import RunFolder, describe_environment
from ktl.training import evaluate
from ktl.training import fit as training
from ktl.training.fit import Machine
from ktl.training.inputs import Feed, choose_feed


def default_output(config: RunConfig) -> Path:
    """runs/<data set>-<backbone>-<a run's head, or search or study>-<settings' fingerprint>: of the same settings."""
    what = config.head if config.SCRIPT == "run" else config.SCRIPT
    names = (Path(config.dataset).stem, Path(config.backbone).stem, what, config.fingerprint())
    return Path("runs") / "-".join(names).replace(":", "_")


def run(config: RunConfig, *, output: str | Path | None = None, reporter: Reporter | None = None) -> dict:
    """Fine-tunes a backbone with a new head, and scores it once on the test photos.

    Called again with the same settings and folder, it continues a killed run after its last complete epoch, and gives
    back the result of one that has ended.

    Args:
        config: the settings.
        output: the run's folder, see `ktl.runs.run_folder`; `default_output(config)` if None.
        reporter: is told of the progress.

    Returns:
        What result.json holds.

    Raises:
        UserError: bad input; nothing that was there is lost.
    """
    reporter = reporter or Reporter()
    folder = RunFolder(output or default_output(config), config)
    with folder.held():
        if folder.result is None:
            _train_and_score(config, folder, reporter)
        folder.remove_leftovers()
    return folder.result


def begin(config: RunConfig, folder: RunFolder, reporter: Reporter) -> Dataset:
    """The data set, which the folder's is; tells what a reader of its results must know.

    Raises:
        UserError: there is no such data set, or the folder has work of other photos or files.
    """
    dataset = load_dataset(config.dataset, data_dir=config.data_dir)
    folder.hold_to(dataset)
    if dataset.notice:
        reporter.message(dataset.notice)
    if config.weights == "random":
        reporter.message("WARNING: random weights: there is no pre-trained layer to keep")
    return dataset


def _train_and_score(config: RunConfig, folder: RunFolder, reporter: Reporter) -> None:
    dataset = begin(config, folder, reporter)
    prepared = prepare(config, dataset, reporter=reporter)
    history = prepared.train(folder.checkpoint_dir, reporter=reporter)
    record(prepared, folder, history)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A compiled model with the batches that train and score it.

    Attributes:
        config: the settings.
        machine: what it runs on.
        network: what is trained.
        feed: `feed.model` is what is compiled.
    """

    config: RunConfig
    machine: Machine
    network: Network
    feed: Feed

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.feed.dataset.train) / self.config.batch_size)

    def compile(self, new_variables: Sequence[keras.Variable] | None = None) -> None:
        """Compiles the model as the settings say.

        Args:
            new_variables: those that learn at the new layers' rate; the head's if None.
        """
        with self.machine.scope():
            training.compile_model(
                self.feed.model,
                head_variables=self.network.head_variables if new_variables is None else new_variables,
                config=self.config,
                steps_per_epoch=self.steps_per_epoch,
                xla=self.machine.xla,
                steps_per_execution=self.steps_per_epoch if self.feed.trains_head_alone else 1,
            )

    def train(self, checkpoint_dir: str, *, reporter: Reporter, stop_after: int | None = None, callbacks=()) -> list:
        """Trains as far as `ktl.training.fit.fit` does, and returns its history."""
        shown = reporter.training(epochs=self.config.epochs, photos=len(self.feed.dataset.train))
        with contextlib.ExitStack() as stack:
            for callback in shown:  # Keras tells of the end only where all went well
                stack.callback(callback.on_train_end)
            stack.enter_context(faster_on_cpu(self.network.suffix.layers))
            return training.fit(
                self.feed.model,
                train=self.feed.train,
                steps_per_epoch=self.steps_per_epoch,
                validation=self.feed.evaluate(self.feed.dataset.validation),
                config=self.config,
                checkpoint_dir=checkpoint_dir,
                on_epoch=reporter.epoch,
                callbacks=(*shown, *callbacks),
                stop_after=stop_after,
            )


def prepare(config: RunConfig, dataset: Dataset, *, trainings: int = 1, reporter: Reporter) -> Prepared:
    """Builds and compiles what `config` describes, and computes the frozen layers once where that pays.

    Args:
        config: the settings.
        dataset: whose photos it sees.
        trainings: about how many trainings share the frozen layers.
        reporter: is told of the progress.
    """
    machine = training.set_up_machine(config)
    with machine.scope():
        network = build(config, classes=len(dataset.class_names))
    reporter.message(_in_force(machine, network))
    feed = choose_feed(network, dataset, config, trainings=trainings, xla=machine.xla, reporter=reporter)
    prepared = Prepared(config, machine, network, feed)
    prepared.compile()
    return prepared


def build(config: RunConfig, *, classes: int) -> Network:
    """The network that the settings describe."""
    return build_network(
        build_backbone(config.backbone, weights=config.weights, image_size=config.image_size),
        classes=classes,
        head=config.head,
        scale=config.scale,
        hidden_units=config.hidden_units,
        freeze_depth=config.freeze_depth,
    )


def record(prepared: Prepared, folder: RunFolder, history: list[dict]) -> None:
    """Scores the trained model, the test photos this once, and writes everything down; result.json last."""
    config, machine, network, feed = prepared.config, prepared.machine, prepared.network, prepared.feed
    dataset = feed.dataset
    folder.write_json("environment.json", describe_environment(machine))
    folder.write_history(history)
    folder.write_labels(dataset.class_names)
    folder.write_model(network.graph)
    scored = (dataset.validation, dataset.test)
    probabilities, activations = _predict(prepared, scored)
    folder.write_probabilities(probabilities, {s.name: s.labels for s in scored})
    folder.write_predictions(dataset.test.photos, dataset.test.labels, probabilities["test"], dataset.class_names)
    folder.write_confusion(evaluation.confusion_matrix(probabilities["test"], dataset.test.labels), dataset.class_names)
    if activations is not None:
        kernel = knowledge.dense_layer(network).kernel.numpy()
        rows = knowledge.strongest_classes(kernel, activations, dataset.test.labels, dataset.class_names)
        folder.write_kept_layer(rows)
    result = {
        "validation": evaluation.score(probabilities["validation"], dataset.validation.labels),
        "test": evaluation.score(probabilities["test"], dataset.test.labels),
        "settings": config.as_dict(),
        "frozen_up_to": network.boundary.name,
        "parameters": {
            "total": network.graph.count_params(),
            "frozen": network.prefix.count_params(),
            "trained": sum(math.prod(variable.shape) for variable in network.suffix.trainable_variables),
        },
        "photos": {split.name: len(split) for split in dataset.splits},
        "bad_photos": [{"photo": photo, "reason": reason} for photo, reason in feed.bad_photos],
        "notice": dataset.notice,
        "epochs": len(history),
        "best_epoch": training.best_epoch(history),
        "seconds": feed.seconds + sum(row["seconds"] for row in history),
        "machine": dataclasses.asdict(machine),
    }
    folder.write_json("result.json", result)


def _predict(prepared: Prepared, splits: Sequence[Split]) -> tuple[dict, np.ndarray | None]:
    """Probabilities of the splits' photos by the split's name, each photo seen once; and what the new Dense layer read
    of the last split's, where its inputs have names."""
    feed = prepared.feed
    if not knowledge.has_kept_classes(prepared.network, prepared.config):
        return {s.name: evaluate.predict_probabilities(feed.model, feed.evaluate(s)) for s in splits}, None
    with prepared.machine.scope():
        model = knowledge.with_activations(prepared.network, feed.model)
    # All with this model, although the last alone needs it: a second model is a second graph to trace and to compile.
    found = {s.name: evaluate.predict_with_activations(model, feed.evaluate(s)) for s in splits}
    return {name: probabilities for name, (probabilities, _) in found.items()}, found[splits[-1].name][1]


def _in_force(machine: Machine, network: Network) -> str:
    boundary = network.boundary
    xla = "on" if machine.xla else "off"
    return (
        f"{', '.join(machine.devices)}, {machine.precision}, XLA {xla}, strategy {machine.strategy}; frozen up to "
        f"{boundary.name} (depth {boundary.depth} of {len(network.boundaries) - 1}, {boundary.cost_share:.0%} of the "
        f"forward pass), {boundary.parameters_before:,} parameters"
    )
