"""What a new classifier alone reaches on what each head reads: linear probes of frozen layers, in seconds."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ktl.data.dataset import Dataset
from ktl.evaluation.probe import Probe, fit_probe
from ktl.models.backbones import build_backbone
from ktl.models.classifier import TransferClassifier
from ktl.models.heads import HEADS
from ktl.runs.session import Session, classifier_of


@dataclasses.dataclass(frozen=True)
class ProbeInput:
    """What heads of one source read of each photo, from one view without augmentation.

    Attributes:
        heads: those that read it.
        dataset: the photos, without bad ones.
        rows: split -> float [photos, width].
    """

    heads: tuple[str, ...]
    dataset: Dataset
    rows: Mapping[str, np.ndarray]

    def fit(self, part: Dataset | None = None, *, seed: int = 0) -> Probe:
        """A probe of the training photos, or of a part of them."""
        train = self.dataset.train
        chosen = np.arange(len(train)) if part is None else np.flatnonzero(np.isin(train.photos, part.train.photos))
        return fit_probe(self.rows["train"][chosen], train.labels[chosen], seed=seed)

    def hits(self, probe: Probe, split: str) -> np.ndarray:
        """bool [photos]: which photos of a split a probe recognises."""
        labels = next(one for one in self.dataset.splits if one.name == split).labels
        return probe.probabilities(self.rows[split]).argmax(axis=1) == labels


def probe_inputs(session: Session, classifiers: Mapping[str, TransferClassifier]) -> dict[str, ProbeInput]:
    """What the heads read, computed or found.

    Args:
        session: of the data set.
        classifiers: head -> one of them, all of one backbone.

    Returns:
        Source, as in `ktl.models.heads.Head` -> what its heads read.
    """
    by_source: dict[str, list[str]] = {}
    for head in classifiers:
        by_source.setdefault(HEADS[head].source, []).append(head)
    plain = Session(
        dataclasses.replace(session.config, augmentation="none"),
        session.dataset,
        trainings=session.trainings,
        reporter=session.reporter,
    )
    plain.compute_features([(classifiers[heads[0]], "all") for heads in by_source.values()])
    return {source: _input_of(plain, tuple(heads)) for source, heads in by_source.items()}


def _input_of(session: Session, heads: tuple[str, ...]) -> ProbeInput:
    training = session.prepare({"head": heads[0], "freeze_depth": "all"})
    inputs, rows = training.inputs, {}
    for split in inputs.dataset.splits:
        batches = inputs.evaluation_batches(split)
        values = [
            pixels if inputs.cached else training.classifier.prefix(pixels, training=False) for pixels, _ in batches
        ]
        rows[split.name] = np.concatenate([np.asarray(value, np.float32) for value in values]).reshape(len(split), -1)
    return ProbeInput(heads, inputs.dataset, rows)


CHOICE = {
    "softened": "kept_softened",
    "features": "replaced_normalized",
    "features_and_logits": "kept_beside",
    "features_and_probabilities": "kept_softmax_beside",
    "logits": "kept",
}
"""Source -> the head that `auto` means where the probe of that source is the best."""


def chosen_head(session: Session) -> str:
    """The head whose input has the probe of the lowest cross-validated log loss; of equals, and where no class has two
    photos to cross-validate with, the first of `CHOICE`. Says which and why.

    Test and validation photos play no part.

    Args:
        session: of the data set; its own head is of no account.
    """
    config, dataset = session.config, session.dataset
    with session.set_up_machine().scope():
        backbone = build_backbone(config.backbone, weights=config.weights, image_size=config.image_size)
        values = {"scale": 1.0, "freeze_depth": "none"}
        classifiers = {
            head: classifier_of(config, backbone, class_names=dataset.class_names, head=head, **values)
            for head in CHOICE.values()
        }
    inputs = probe_inputs(session, classifiers)
    losses = {source: inputs[source].fit(seed=config.seed).log_loss for source in CHOICE}
    known = {source: loss for source, loss in losses.items() if loss is not None}
    chosen = CHOICE[min(known, key=lambda source: known[source])] if known else next(iter(CHOICE.values()))
    told = ", ".join(f"{CHOICE[source]} {loss:.4f}" for source, loss in known.items())
    why = f"cross-validated log loss of linear probes: {told}" if told else "a class has one photo: too few to choose"
    session.reporter.message(f"head {chosen} for auto; {why}")
    session.close()
    return chosen
