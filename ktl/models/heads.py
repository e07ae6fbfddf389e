"""HEADS: what a new Dense head is fed with. A new head is a new row; `ktl.models.classifier` builds any of them."""

import dataclasses

from ktl.errors import unknown_name


@dataclasses.dataclass(frozen=True)
class Head:
    """One way to join a new Dense layer to a backbone.

    Attributes:
        source: the backbone's tensor that the head reads: `logits` and `probabilities` of the kept ImageNet
            classification layer; `features`, that layer's input (the classification layer is then replaced);
            `features_and_logits` and `features_and_probabilities`, side by side, each of length 1; or `softened`, what
            the classification layer gives with its singular values brought closer to each other, see
            `ktl.models.head_layers.soften`.
        normalization: `scaled_unit` (`ktl.models.layers.ScaledUnitNormalization`), `batch` (Keras'
            BatchNormalization) or `none`.
        summary: one line for people.
        auto_depth: what the freeze depth `auto` is with this head: `all`, or `auto`, for which see
            `ktl.models.boundaries.find_boundary`.
    """

    source: str
    normalization: str
    summary: str
    auto_depth: str = "auto"

    def depth_of(self, freeze_depth: int | str) -> int | str:
        """The freeze depth of a network with this head, where one is asked for."""
        return self.auto_depth if freeze_depth == "auto" else freeze_depth


HEADS = {
    "kept": Head("logits", "scaled_unit", "kept ImageNet logits, normalised, each times a learned factor: the method"),
    "kept_raw": Head("logits", "none", "kept ImageNet logits as they are"),
    "kept_softmax": Head("probabilities", "none", "kept ImageNet class probabilities"),
    "kept_batchnorm": Head("logits", "batch", "kept ImageNet logits, batch-normalised"),
    "kept_beside": Head("features_and_logits", "scaled_unit", "pooled features and kept ImageNet logits side by side"),
    "replaced": Head("features", "none", "pooled features, classification layer replaced: traditional fine-tuning"),
    "replaced_normalized": Head("features", "scaled_unit", "pooled features, normalised, each times a learned factor"),
    "kept_softened": Head("softened", "scaled_unit", "kept ImageNet layer, its singular values brought together"),
    "kept_softmax_beside": Head(
        "features_and_probabilities",
        "scaled_unit",
        "pooled features and kept class probabilities side by side",
        # Better on two data sets of three, see docs/evidence.md: what is trained may forget what ImageNet knows.
        auto_depth="all",
    ),
}

AUTO = "auto"
"""In place of a head: the one that linear probes choose, see `ktl.runs.probes`."""

BASELINE = "replaced"
"""The head that the others are compared with."""


def find_head(name: str) -> Head:
    """The row of that name. Raises UserError, which lists the names, if there is none."""
    if name not in HEADS:
        raise unknown_name("`head`", name, HEADS)
    return HEADS[name]
