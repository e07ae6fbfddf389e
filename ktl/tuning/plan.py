"""What a search is to try: the values of its space, where its trials freeze, and what trying it costs."""

import dataclasses
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ktl.backends.engines import BATCH
from ktl.config.settings import SearchConfig
from ktl.config.space import size
from ktl.data.dataset import Dataset
from ktl.data.order import steps_per_epoch
from ktl.machine import has_gpu, trains_together
from ktl.models.backbones import build_backbone
from ktl.models.boundaries import spread_depths
from ktl.models.classifier import TransferClassifier
from ktl.progress import Reporter
from ktl.runs.session import Session, classifier_of

FEW_VALIDATION, SEEDS = 200, 3
"""Of fewer validation photos a trial's score is the mean of so many seeds, unless the settings say otherwise. The
standard deviation of an accuracy of 90 % on 200 photos is 2 points, about as much as good settings differ by."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a search is to try.

    Attributes:
        values: name of a setting that is varied -> its values.
        places: a classifier for each head, all of one backbone, with each freeze depth: heads outside, depths inside.
        trained_shares: of each place the share of a forward pass that is after it, 0 to 1.
        oracle: a name in `ktl.tuning.oracles.ORACLES`.
        trainings: about how many trainings share a freeze depth.
        seeds: trainings a trial.
    """

    values: Mapping[str, Sequence]
    places: tuple[tuple[TransferClassifier, int | str], ...]
    trained_shares: tuple[float, ...]
    oracle: str
    trainings: int
    seeds: int

    @property
    def points(self) -> int:
        """The number of combinations."""
        return size(self.values)

    @property
    def costs(self) -> dict[str, float]:
        """Freeze depth -> mean of `trained_shares` over the heads; empty if the depth is not varied."""
        depths = self.values.get("freeze_depth", ())
        return {depth: statistics.fmean(self.trained_shares[i :: len(depths)]) for i, depth in enumerate(depths)}

    @property
    def together(self) -> tuple[bool, ...]:
        """Of each place, whether its trials are better done at once than one after another."""
        alone = [classifier.boundary_at(depth) is classifier.boundaries[-1] for classifier, depth in self.places]
        return tuple(trains_together(head_alone=head_alone) for head_alone in alone)

    def at_once(self, values: Mapping[str, Any]) -> bool:
        """Whether a trial of these values is better done at once with others like it."""
        index = 0
        for name in ("head", "freeze_depth"):  # as `places` are ordered
            if name in self.values:
                index = index * len(self.values[name]) + list(self.values[name]).index(values[name])
        return self.together[index]


def make_plan(config: SearchConfig, dataset: Dataset) -> Plan:
    """What the settings of a search stand for with this data set. Builds the backbone, once.

    Args:
        config: the settings.
        dataset: whose classes the new layers tell apart.

    Raises:
        UserError: no such backbone, weights or freeze depth.
    """
    space = config.space
    with Session(config, dataset).set_up_machine().scope():
        backbone = build_backbone(config.backbone, weights=config.weights, image_size=config.image_size)
        classifiers = [
            classifier_of(config, backbone, class_names=dataset.class_names, head=head, freeze_depth="none")
            for head in space.get("head") or (config.head,)
        ]
    spread = spread_depths(classifiers[0].boundaries)
    values = {name: spread if tried is None else tried for name, tried in space.items()}
    depths = values.get("freeze_depth", (config.freeze_depth,))
    places = tuple((classifier, depth) for classifier in classifiers for depth in depths)
    cuts = [classifier.boundary_at(depth) for classifier, depth in places]
    seeds = config.seeds or (SEEDS if len(dataset.validation) < FEW_VALIDATION else 1)
    return Plan(
        values=values,
        places=places,
        trained_shares=tuple(1 - boundary.cost_share for boundary in cuts),
        oracle=choose_oracle(config.oracle, size(values), max_trials=config.max_trials),
        trainings=math.ceil(min(size(values), config.max_trials) / len(depths)) * seeds,
        seeds=seeds,
    )


def choose_oracle(name: str, points: int, *, max_trials: int) -> str:
    """The oracle of that name; of `auto` the grid where a space of so many points can be tried whole, else bayesian."""
    if name != "auto":
        return name
    return "grid" if points <= max_trials else "bayesian"


def announce(plan: Plan, config: SearchConfig, dataset: Dataset, reporter: Reporter) -> None:
    """Tells the space, its size, and what trying it costs."""
    for name, values in plan.values.items():
        reporter.message(f"{name}: {', '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)}")
    if config.seeds is None and plan.seeds > 1:
        photos = len(dataset.validation)
        reporter.message(f"{plan.seeds} seeds a trial: {photos} validation photos tell too little of one training")
    if plan.oracle == "hyperband":
        reporter.message(f"{plan.points} combinations; hyperband, trials of up to {config.epochs} epochs")
        return
    trials = min(plan.points, config.max_trials)
    several = f" and {plan.seeds} seeds" if plan.seeds > 1 else ""
    # On a GPU the arithmetic is the smaller part, and to measure it would take longer than it.
    needed = "" if has_gpu() else f": {_arithmetic(plan, config, dataset, trials=trials)}"
    reporter.message(
        f"{plan.points} combinations; {plan.oracle}, at most {trials} trials of {config.epochs} epochs{several}{needed}"
    )


def _arithmetic(plan: Plan, config: SearchConfig, dataset: Dataset, *, trials: int) -> str:
    # Forward passes of an epoch; a backward one costs as much as two.
    length = {"batch_size": config.batch_size, "least_steps": config.least_steps}
    shown = steps_per_epoch(len(dataset.train), **length) * config.batch_size
    photos = config.epochs * (3 * shown + len(dataset.validation))
    seconds = trials * plan.seeds * photos * statistics.fmean(plan.trained_shares) * _seconds_forward(plan)
    return f"about {seconds / 60:.0f} min for the arithmetic of the layers that are trained"


def _seconds_forward(plan: Plan) -> float:
    """Seconds that a photo's forward pass takes, measured with one batch."""
    classifier = plan.places[0][0]
    model = classifier.as_functional()
    batch = np.zeros((BATCH, classifier.image_size, classifier.image_size, 3), "uint8")
    model.predict_on_batch(batch)  # traces
    started = time.perf_counter()
    model.predict_on_batch(batch)
    return (time.perf_counter() - started) / BATCH
