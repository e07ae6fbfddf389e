"""What a run, a search and a study train with: one place where the settings become values."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import keras
import numpy as np

from ktl.config.settings import RunConfig, TrainingConfig
from ktl.data.dataset import Dataset
from ktl.data.input_pipeline import Augmentation
from ktl.errors import UserError
from ktl.machine import OUT_OF_MEMORY, Machine, Memory, set_up_machine
from ktl.models.classifier import TransferClassifier
from ktl.models.flat_graph import Backbone
from ktl.models.recipe import Recipe
from ktl.progress import Reporter
from ktl.training.caching import compute_features
from ktl.training.checkpoint import Checkpoint, EpochRow
from ktl.training.class_weights import ClassWeight
from ktl.training.fit import compile_for, fit
from ktl.training.inputs import Inputs, make_inputs
from ktl.training.options import Caching, InputOptions

FAILURES = (UserError, *OUT_OF_MEMORY)
"""What the values of a training's settings can be blamed for; everything else is a bug."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extras:
    """What a training takes that no setting can say.

    Attributes:
        callbacks: Keras callbacks of each training.
        class_weight: label -> weight of its photos' losses; the setting's if None.
        augmentation: a function of a training photo's pixels; the setting's if None.
    """

    callbacks: Sequence[keras.callbacks.Callback] = ()
    class_weight: Mapping[int, float] | None = None
    augmentation: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None

    @property
    def recorded(self) -> dict[str, Any]:
        """What of it decides numbers, as config.json has it; a function or a class by its name and its code."""
        found: dict[str, Any] = {}
        if self.callbacks:
            found["callbacks"] = [_name_of(type(callback)) for callback in self.callbacks]
        if self.class_weight is not None:
            found["class_weight"] = {str(label): float(weight) for label, weight in sorted(self.class_weight.items())}
        if self.augmentation is not None:
            found["augmentation"] = _name_of(self.augmentation)
        return found


def _name_of(function: Callable) -> str:
    """The name of a function or class; of a function with a digest of its code, since lambdas have one name."""
    name = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"
    code = getattr(function, "__code__", None)
    if code is None:
        return name
    written = (code.co_code, code.co_names, [part for part in code.co_consts if not hasattr(part, "co_code")])
    return f"{name} {hashlib.sha256(repr(written).encode()).hexdigest()[:8]}"


@dataclasses.dataclass(frozen=True)
class Training:
    """A classifier and what it is trained and scored on, ready to train.

    Attributes:
        config: the settings.
        machine: what it runs on.
        classifier: what is trained.
        inputs: its batches.
        extras: what else it takes.
    """

    config: RunConfig
    machine: Machine
    classifier: TransferClassifier
    inputs: Inputs
    extras: Extras

    @property
    def lasting_config(self) -> RunConfig:
        """The settings that give this training again, alone.

        Where features are cached, so they are in these settings: for one training it might not pay, and without a cache
        the rounding errors would be others, which grow step by step.
        """
        return dataclasses.replace(self.config, cache="on") if self.inputs.cached else self.config

    def compile(self) -> keras.Model:
        """Compiles as the settings say; gives the part that is trained on `inputs`: the classifier or its suffix."""
        return compile_for(
            self.classifier,
            self.inputs,
            recipe_of(self.config),
            epochs=self.config.epochs,
            jit_compile=self.machine.xla,
            objective=self.config.objective,
        )

    def fit(
        self,
        checkpoint_dir: str | os.PathLike,
        *,
        stop_after: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        new_variables: Sequence[keras.Variable] | None = None,
        keep: Literal["best", "last"] = "best",
        reporter: Reporter | None = None,
    ) -> list[EpochRow]:
        """Trains, or goes on, see `ktl.training.fit.fit`; there is no patience where the last epoch is to be kept."""
        return fit(
            self.classifier,
            self.inputs,
            epochs=self.config.epochs,
            checkpoint_dir=checkpoint_dir,
            recipe=recipe_of(self.config),
            new_variables=new_variables,
            patience=self.config.patience if keep == "best" else 0,
            objective=self.config.objective,
            class_weight=self.class_weight,
            callbacks=(*self.extras.callbacks, *callbacks),
            jit_compile=self.machine.xla,
            stop_after=stop_after,
            keep=keep,
            reporter=reporter,
        )

    def restore_best(self, checkpoint_dir: str | os.PathLike) -> None:
        """Gives the classifier the weights of the best epoch of a training of that structure, see `fit`."""
        Checkpoint(checkpoint_dir, objective=self.config.objective).restore_best(self.classifier)

    @property
    def class_weight(self) -> ClassWeight:
        """Label -> weight of its photos' losses, or how it is computed."""
        if self.extras.class_weight is not None:
            return self.extras.class_weight
        return None if self.config.class_weight == "none" else "balanced"


class Session:
    """Trainings of the same data set with the same settings but for a few.

    Args:
        config: the settings.
        dataset: whose photos the trainings see.
        trainings: about how many share a freeze depth: the more, the sooner the frozen part is computed once.
        extras: what the trainings take besides.
        reporter: is told of the progress.
    """

    def __init__(
        self,
        config: TrainingConfig,
        dataset: Dataset,
        *,
        trainings: int = 1,
        extras: Extras | None = None,
        reporter: Reporter | None = None,
    ):
        self.config = config
        self.dataset = dataset
        self.trainings = trainings
        self.extras = extras or Extras()
        self.reporter = reporter or Reporter()
        self._memory = Memory()

    def on(self, dataset: Dataset) -> "Session":
        """The same for other photos, such as a part of these."""
        other = Session(self.config, dataset, trainings=self.trainings, extras=self.extras, reporter=self.reporter)
        other._memory = self._memory
        return other

    def set_up_machine(self, config: TrainingConfig | None = None) -> Machine:
        """Seeds generators and sets the precision policy, before any layer is built."""
        config = config or self.config
        return set_up_machine(
            seed=config.seed,
            precision=config.precision,
            xla=config.xla,
            strategy=config.strategy,
            deterministic=config.deterministic,
        )

    def prepare(self, values: Mapping | None = None, *, seed: int | None = None) -> Training:
        """The training in which the settings of these names have these values. Frees what earlier ones have left.

        Args:
            values: name of a setting -> value.
            seed: in place of the settings' seed.

        Raises:
            UserError: a value that its setting does not take, or photos that cannot be read.
        """
        self._memory.free()
        config, machine, classifier = self._build(values, seed)
        self.reporter.message(_in_force(machine, classifier))
        inputs = make_inputs(
            classifier,
            self.dataset,
            self.input_options(config),
            epochs=config.epochs,
            trainings=self.trainings,
            jit_compile=machine.xla,
            reporter=self.reporter,
        )
        return Training(config, machine, classifier, inputs, self.extras)

    def build(self, values: Mapping | None = None, *, seed: int | None = None) -> TransferClassifier:
        """The classifier of the training that `prepare` would give, not compiled; for arguments see there."""
        return self._build(values, seed)[-1]

    def _build(self, values: Mapping | None, seed: int | None) -> tuple[RunConfig, Machine, TransferClassifier]:
        config = self.config.run_config({**(values or {}), **({} if seed is None else {"seed": seed})})
        machine = self.set_up_machine(config)
        self._memory.used = True
        with machine.scope():
            return config, machine, classifier_of(config, config.backbone, class_names=self.dataset.class_names)

    def close(self) -> None:
        """Frees what the trainings have left; those that are still held stay usable."""
        self._memory.free()

    def compute_features(self, places: Sequence[tuple[TransferClassifier, int | str]]) -> None:
        """Computes what is frozen for all later trainings, in one pass, where that pays.

        Args:
            places: classifiers of one backbone, and freeze depths of theirs.
        """
        compute_features(
            places,
            self.dataset,
            self.input_options(self.config),
            epochs=self.config.epochs,
            trainings=self.trainings,
            jit_compile=self.set_up_machine().xla,
            reporter=self.reporter,
        )

    def input_options(self, config: TrainingConfig) -> InputOptions:
        """How photos become batches by these settings."""
        augmentation = self.extras.augmentation or cast(Augmentation, config.augmentation)
        caching = Caching(
            mode=cast(Any, config.cache),
            dtype=cast(Any, config.cache_dtype),
            folder=config.cache_dir,
            limit_gib=config.cache_limit,
        )
        return InputOptions(
            batch_size=config.batch_size,
            least_steps=config.least_steps,
            seed=config.seed,
            augmentation=augmentation,
            flip=cast(Any, {"on": True, "off": False}.get(config.flip, config.flip)),
            views=config.views,
            on_bad_image=cast(Any, config.on_bad_image),
            memory_gib=config.memory_gib,
            caching=caching,
        )


def classifier_of(
    config: TrainingConfig, backbone: str | Backbone, *, class_names: Sequence[str], **values
) -> TransferClassifier:
    """The classifier that the settings describe.

    Args:
        config: the settings.
        backbone: its name or file, or one that several classifiers share.
        class_names: in the order of the logits.
        **values: of `head`, `scale`, `hidden_units` and `freeze_depth`, in place of the settings'.
    """
    names = ("head", "scale", "hidden_units", "freeze_depth")
    return TransferClassifier(
        backbone,
        class_names=class_names,
        **({} if isinstance(backbone, Backbone) else {"weights": config.weights, "image_size": config.image_size}),
        **{name: values[name] if name in values else getattr(config, name) for name in names},
    )


def recipe_of(config: RunConfig) -> Recipe:
    """The settings that are the recipe's."""
    return Recipe(**{field.name: getattr(config, field.name) for field in dataclasses.fields(Recipe)})


def _in_force(machine: Machine, classifier: TransferClassifier) -> str:
    boundary, deepest = classifier.boundary, len(classifier.boundaries) - 1
    xla = "on" if machine.xla else "off"
    return (
        f"{', '.join(machine.devices)}, {machine.precision}, XLA {xla}, strategy {machine.strategy}; frozen up to "
        f"{boundary.name} (depth {boundary.depth} of {deepest}, {boundary.cost_share:.0%} of the forward pass), "
        f"{boundary.parameters_before:,} parameters"
    )
