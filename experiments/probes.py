"""What a new classifier alone reaches on frozen layers: `python experiments/probes.py --dataset PATH --weights FILE`.

A linear probe of what each head reads, of the features' roots, and of the kept layer with its singular values raised to
several powers. The training photos choose the penalty, by cross-validation;
validation photos are scored, test photos never. docs/evidence.md has what it gave of three data sets.
"""

import argparse
import sys
from collections.abc import Iterator

from ktl.cli.flags import Parser
from ktl.config.settings import RunConfig
from ktl.errors import UserError
from ktl.process import prepare_process

HEADS = ("replaced", "kept", "kept_softmax", "kept_beside", "kept_softmax_beside")
"""One of each source."""

POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)

HEADER = ("what is read", "penalty C", "cross-validated log loss", "validation top-1, %")


def main() -> int:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="as of a run")
    parser.add_argument("--backbone", default="mobilenet_0.75")
    parser.add_argument("--weights", default="imagenet")
    options = parser.parse_args()
    try:
        for cells in (HEADER, ["---"] * len(HEADER), *rows(options)):
            print(f"| {' | '.join(cells)} |", flush=True)
    except UserError as error:
        print(f"probes.py: {parser.as_flags(str(error))}", file=sys.stderr)
        return 2
    return 0


def rows(options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    prepare_process()
    import dataclasses

    import keras
    import numpy as np
    from feeding import roots

    from ktl.data.loading import load_dataset
    from ktl.models.backbones import build_backbone
    from ktl.models.head_layers import soften
    from ktl.runs.probes import probe_inputs
    from ktl.runs.session import Session, classifier_of

    config = RunConfig(dataset=options.dataset, backbone=options.backbone, weights=options.weights)
    dataset = load_dataset(config.dataset)
    session = Session(config, dataset, trainings=len(HEADS))
    session.set_up_machine()
    backbone = build_backbone(config.backbone, weights=config.weights)
    classifiers = {
        head: classifier_of(config, backbone, class_names=dataset.class_names, head=head, freeze_depth="none")
        for head in HEADS
    }
    kernel = np.asarray(keras.ops.convert_to_numpy(backbone.classification_layer.kernel))
    kernel = kernel.reshape(-1, kernel.shape[-1])
    inputs = probe_inputs(session, classifiers)
    for source, found in inputs.items():
        yield cells_of(source, found)
    features = inputs["features"]
    rooted = {split: roots(values) for split, values in features.rows.items()}
    yield cells_of("square root of features", dataclasses.replace(features, rows=rooted))
    for power in POWERS:
        softened = {split: values @ soften(kernel, power) for split, values in features.rows.items()}
        yield cells_of(
            f"kept layer, singular values to the power {power:g}", dataclasses.replace(features, rows=softened)
        )


def cells_of(name: str, found) -> tuple[str, ...]:
    probe = found.fit()
    loss = "unknown" if probe.log_loss is None else f"{probe.log_loss:.4f}"
    return name, f"{probe.penalty:g}", loss, f"{100 * found.hits(probe, 'validation').mean():.1f}"


if __name__ == "__main__":
    sys.exit(main())
