"""Training a classifier: on photos, or its suffix on what its frozen layers give for them."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import keras

from ktl.arguments import check_number, checked_arguments
from ktl.data.dataset import Dataset
from ktl.data.input_pipeline import Augmentation
from ktl.errors import DivergedError, UserError, shown, unknown_name
from ktl.evaluation.objectives import OBJECTIVES
from ktl.machine import backend, faster_on_cpu, has_gpu, traces_forgotten
from ktl.models.classifier import TransferClassifier
from ktl.models.finite import check_finite
from ktl.models.recipe import Recipe, SmoothedCrossEntropy
from ktl.models.recipe_metrics import make_metrics
from ktl.models.recipe_training import check_callbacks
from ktl.progress import Reporter, Verbose, reporter_for
from ktl.training.callbacks import callbacks_of, weights_at_hand
from ktl.training.checkpoint import Checkpoint, EpochRow
from ktl.training.class_weights import ClassWeight, class_weight_of, weighed
from ktl.training.feeds import make_feed
from ktl.training.few_photos import warnings_of
from ktl.training.inputs import Inputs, make_inputs
from ktl.training.options import Caching, InputOptions


# Long by what it tells of its arguments.
@checked_arguments
@traces_forgotten()
def fit_dataset(
    classifier: TransferClassifier,
    dataset: Dataset,
    *,
    epochs: int = 15,
    batch_size: int = 32,
    least_steps: int = 32,
    recipe: Recipe | None = None,
    patience: int = 5,
    objective: str = "top1",
    augmentation: Augmentation = "standard",
    flip: bool | Literal["auto"] = "auto",
    views: int = 4,
    class_weight: ClassWeight = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    caching: Caching | None = None,
    on_bad_image: Literal["fail", "skip"] = "fail",
    jit_compile: bool | Literal["auto"] = "auto",
    seed: int = 0,
    verbose: Verbose = 1,
) -> list[EpochRow]:
    """Trains a classifier as `ktl.run` does, with the same numbers, and leaves it with its best epoch's weights.

        history = ktl.fit(classifier, ktl.Dataset.from_directory("photos"), epochs=15)

    What is frozen is computed once where that pays, and the rest is trained alone. Validation photos choose the epoch,
    and are not trained on: there is no refit. Test photos are not seen.

    Args:
        classifier: is compiled by this; `callback.model` is the classifier, whatever part of it is trained.
        dataset: its training and validation photos.
        epochs: the most; one is a pass over the training photos, or `least_steps` steps where that is more.
        batch_size: photos a step, over all devices.
        least_steps: optimizer steps an epoch at least.
        recipe: rates, decay and smoothing; `Recipe()` if None.
        patience: epochs without a better validation before training stops; 0 never stops.
        objective: the score of the validation photos that is to be better: top1, mean_class_accuracy, log_loss or
            macro_f1; among equals a lower log loss.
        augmentation: `standard`, `none`, or a function of a photo's pixels, uint8 [height, width, 3], and a NumPy
            Generator; see `ktl.data.augmentation`.
        flip: whether `standard` mirrors photos; `auto` as the data set says.
        views: augmented views of each training photo, over which passes cycle, cached or not.
        class_weight: label -> weight of its photos' losses, or `balanced`.
        callbacks: Keras callbacks.
        caching: whether and where features are kept; `Caching()` if None.
        on_bad_image: `fail`, or `skip` photos that cannot be read.
        jit_compile: whether to compile with XLA; `auto` for with a GPU.
        seed: of the order, and of when each view is shown.
        verbose: 0 for silence, 1 for lines to the logger `ktl`, or a Reporter.

    Returns:
        A row an epoch.

    Raises:
        UserError (a ValueError): photos that cannot be read, or a value or label out of range.
        DivergedError (a UserError): the loss is no longer a finite number; the classifier is left with its best epoch's
            weights, or those from before.
    """
    reporter = reporter_for(verbose)
    check_number("epochs", epochs, least=1)
    check_number("patience", patience, least=0)
    if objective not in OBJECTIVES:
        raise unknown_name("`objective`", objective, OBJECTIVES)
    if jit_compile not in (True, False, "auto"):
        raise UserError(f"Expected `jit_compile` to be True, False or auto. Received: {shown(jit_compile)}")
    compiled = backend.ALWAYS_COMPILES or (has_gpu() if jit_compile == "auto" else jit_compile)
    options = InputOptions(
        batch_size=batch_size,
        least_steps=least_steps,
        seed=seed,
        augmentation=augmentation,
        flip=flip,
        views=views,
        on_bad_image=on_bad_image,
        caching=caching or Caching(),
    )
    inputs = make_inputs(classifier, dataset, options, epochs=epochs, jit_compile=compiled, reporter=reporter)
    for warning in warnings_of("fit", dataset):
        reporter.message(warning)
    with tempfile.TemporaryDirectory(prefix="ktl-fit-") as folder:
        return fit(
            classifier,
            inputs,
            epochs=epochs,
            recipe=recipe,
            patience=patience,
            objective=objective,
            class_weight=class_weight,
            callbacks=callbacks,
            jit_compile=compiled,
            checkpoint_dir=folder,
            reporter=reporter,
        )


# Long by what it tells of its arguments.
def fit(
    classifier: TransferClassifier,
    inputs: Inputs,
    *,
    epochs: int,
    checkpoint_dir: str | os.PathLike,
    recipe: Recipe | None = None,
    new_variables: Sequence[keras.Variable] | None = None,
    patience: int = 5,
    objective: str = "top1",
    class_weight: ClassWeight = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    jit_compile: bool = False,
    stop_after: int | None = None,
    keep: Literal["best", "last"] = "best",
    reporter: Reporter | None = None,
) -> list[EpochRow]:
    """Trains a classifier until the epochs or the patience end; leaves it with its best epoch's weights.

    Everything that continues a killed training is written to `checkpoint_dir` after each epoch; called again with the
    same arguments it goes on after the last complete one.

    Args:
        classifier: is compiled by this.
        inputs: from `ktl.training.inputs.make_inputs`.
        epochs: the length of the schedule, and the most epochs.
        checkpoint_dir: a folder of its own.
        recipe: rates, decay and smoothing; `Recipe()` if None.
        new_variables: those that learn at `head_multiplier` times the learning rate; the new layers' if None.
        patience: epochs without a better validation before training stops; 0 never stops.
        objective: see `fit_dataset`.
        class_weight: label -> weight of its photos' losses, or `balanced`.
        callbacks: further Keras callbacks; their `model` is the classifier.
        jit_compile: whether to compile with XLA.
        stop_after: end after this epoch, counted from 1; a later call goes on.
        keep: whose weights the classifier is left with: the best epoch's or the last one's.
        reporter: is told of the progress.

    Returns:
        A row an epoch, those of earlier calls included.

    Raises:
        UserError: `class_weight` has a label that is none, or a callback sets the learning rate.
        DivergedError: the loss is no longer a finite number.
    """
    reporter = reporter or Reporter()
    check_callbacks(callbacks)
    weights = class_weight_of(class_weight, inputs.dataset)
    part = compile_for(
        classifier,
        inputs,
        recipe or Recipe(),
        epochs=epochs,
        jit_compile=jit_compile,
        new_variables=new_variables,
        objective=objective,
    )
    checkpoint = Checkpoint(checkpoint_dir, patience=patience, objective=objective, on_epoch=cast(Any, reporter.epoch))
    end = stop_after or epochs
    if len(checkpoint.history) < end and not (checkpoint.out_of_patience or checkpoint.stopped):
        first_epoch = checkpoint.restore(classifier)
        shown = reporter.training(epochs=epochs, photos=inputs.photos_per_epoch)
        with contextlib.ExitStack() as stack:
            for callback in shown:  # Keras tells of the end only where all went well
                stack.callback(callback.on_train_end)
            stack.enter_context(faster_on_cpu(classifier.suffix.layers))
            stack.enter_context(_bad_weights_blamed(classifier))
            feed = stack.enter_context(make_feed(classifier))
            stack.enter_context(weights_at_hand(classifier, part))
            keras.Model.fit(
                part,
                feed.once(weighed(inputs.training_batches(epochs=epochs, first_epoch=first_epoch), weights)),
                validation_data=feed.dataset(inputs.evaluation_batches(inputs.dataset.validation)),
                epochs=end,
                initial_epoch=first_epoch,
                steps_per_epoch=inputs.steps_per_epoch,
                callbacks=callbacks_of([checkpoint, *shown, *callbacks], part, classifier, end, inputs.steps_per_epoch),
                shuffle=False,  # the batches are shuffled already
                verbose=cast(Any, 0),
            )
    if keep == "best":
        checkpoint.restore_best(classifier)
    else:
        checkpoint.restore(classifier)
    return checkpoint.history


@contextlib.contextmanager
def _bad_weights_blamed(classifier: TransferClassifier) -> Iterator[None]:
    """A training that began with weights that are no numbers has not diverged: no rate would help it."""
    try:
        yield
    except DivergedError:  # the classifier has the weights again that it began with, or its best ones
        check_finite(classifier.variables, holder="the classifier")
        raise


def trains_head_alone(classifier: TransferClassifier, inputs: Inputs) -> bool:
    """Whether steps are so short that Python's time between them counts."""
    return inputs.cached and classifier.boundary is classifier.boundaries[-1]


def compile_for(
    classifier: TransferClassifier,
    inputs: Inputs,
    recipe: Recipe,
    *,
    epochs: int,
    jit_compile: bool,
    new_variables: Sequence[keras.Variable] | None = None,
    objective: str = "top1",
) -> keras.Model:
    """Compiles the classifier, and its suffix with the same optimizer if that is what these inputs train, which it
    gives. For the arguments see `fit`."""
    steps, classes = inputs.steps_per_epoch, len(classifier.class_names)
    part = inputs.trained_part(classifier)
    # In the scope in which it was built: the variables of several GPUs can be made there alone.
    with backend.scope_of(classifier):
        _synchronize_batch_normalization(classifier)
        classifier.compile(
            recipe=recipe,
            new_variables=new_variables,
            metrics=make_metrics(objective, classes=classes),
            jit_compile=jit_compile,
        )
        classifier.start_schedule(epochs=epochs, steps_per_epoch=steps)
        if part is not classifier:
            part.compile(
                optimizer=classifier.optimizer,
                loss=SmoothedCrossEntropy(recipe.label_smoothing),
                metrics=make_metrics(objective, classes=classes),
                jit_compile=cast(Any, jit_compile),
                # Not of the classifier: its `predict` would take as many steps of the whole network at a time.
                steps_per_execution=steps if trains_head_alone(classifier, inputs) else 1,
            )
    return part


def _synchronize_batch_normalization(classifier: TransferClassifier) -> None:
    """Lets BatchNormalization see the whole batch: on several devices each would have statistics of its own share."""
    devices = backend.devices_of(classifier)
    for layer in classifier.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = devices > 1 and not backend.SEES_WHOLE_BATCH
