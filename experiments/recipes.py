"""What each setting of the default recipe is worth: `python experiments/recipes.py --dataset PATH --weights FILE`.

One thing at a time is changed, for several heads and freeze depths, always with the same seeds. Validation photos alone
are scored, never test photos. What a run gave is kept in the output folder, named by its photos and all of its
settings; the same command goes on. docs/results.md has what it gave of two data sets.
"""

import argparse
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ktl.cli.flags import Parser
from ktl.cli.main import INTERRUPTED
from ktl.config.settings import RunConfig
from ktl.errors import DivergedError, UserError
from ktl.files import make_folder, write_atomically
from ktl.models.heads import HEADS, Head, find_head
from ktl.process import prepare_process
from ktl.reporting.formatting import points

HEADER = ("change", "head", "frozen up to", "validation top-1, %", "change of it, points", "log loss", "change of it")


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that is done otherwise than by default.

    Attributes:
        settings: of a run, that are not the default ones.
        intervention: name of a function in `interventions`, called with a `ktl.runs.session.Training` before it is
            trained; gives the variables that learn at the new layers' rate, or None for these layers' own.
        concerns: for which heads it is a change.
        pretrained: whether it is one of how pre-trained layers are trained, and none where all are frozen.
    """

    settings: Mapping = dataclasses.field(default_factory=dict)
    intervention: str | None = None
    concerns: Callable[[Head], bool] = lambda head: True
    pretrained: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a trial gave: the content of its file.

    Attributes:
        validation_top1: at the best epoch, 0 to 1; 0 of a trial that diverged.
        log_loss: of the validation photos, nats; None of a trial that diverged.
        epochs: the best one, from 1; 0 of a trial that diverged.
        correct: for each validation photo 1 if it was recognised, else 0.
    """

    validation_top1: float
    log_loss: float | None
    epochs: int
    correct: list[int]


def scaled(head: Head) -> bool:
    return head.normalization == "scaled_unit"


def kept(head: Head) -> bool:
    return head.source != "features"


CHANGES = {
    "none": Change(),
    "rates / 3": Change({"learning_rate": 3e-4}),
    "rates x 3": Change({"learning_rate": 3e-3}),
    "head multiplier 1": Change({"head_multiplier": 1.0}),
    "head multiplier 30": Change({"head_multiplier": 30.0}),
    "5 epochs": Change({"epochs": 5}),
    "10 epochs": Change({"epochs": 10}),
    "30 epochs": Change({"epochs": 30}),
    "no augmentation": Change({"augmentation": "none"}),
    "12 views": Change({"views": 12}),
    "label smoothing 0.1": Change({"label_smoothing": 0.1}),
    "weight decay 0.1": Change({"weight_decay": 0.1}),
    "weight decay 0.5": Change({"weight_decay": 0.5}),
    "SGD, rate 0.01": Change({"optimizer": "sgd", "learning_rate": 1e-2}),
    "hidden layer of 256": Change({"hidden_units": 256}),
    "scale 1": Change({"scale": 1.0}, concerns=scaled),
    "scale 10": Change({"scale": 10.0}, concerns=scaled),
    "scale 30": Change({"scale": 30.0}, concerns=scaled),
    "scale fixed": Change(intervention="fix_scale", concerns=scaled),
    "kept layer at the new layers' rate": Change(
        intervention="new_rate_for_kept_layer", concerns=kept, pretrained=True
    ),
    "start from class means": Change(intervention="start_from_class_means"),
    "start from ridge regression": Change(intervention="start_from_ridge"),
    "start from a linear probe": Change(intervention="start_from_probe"),
    "L2-SP": Change(intervention="hold_to_start", pretrained=True),
}
"""Name -> change; one thing each, all measured against the first."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A run of this experiment."""

    change: str
    head: str
    freeze_depth: str
    seed: int

    @property
    def group(self) -> tuple[str, str, str]:
        """What its seeds have in common."""
        return self.change, self.head, self.freeze_depth

    def config(self, defaults: RunConfig) -> RunConfig:
        place = {"head": self.head, "freeze_depth": self.freeze_depth, "seed": self.seed}
        return dataclasses.replace(defaults, **place, **CHANGES[self.change].settings)

    def file(self, defaults: RunConfig) -> str:
        return f"{self.config(defaults).fingerprint()}-{CHANGES[self.change].intervention or 'as-it-is'}.json"


def main() -> int:
    parser = make_parser()
    options = parser.parse_args()
    try:
        # With the cache whether or not it pays, so that a change of epochs or views changes nothing else.
        config = RunConfig(dataset=options.dataset, backbone=options.backbone, weights=options.weights, cache="on")
        found = run_all(config, list(trials(options)), options.output)
    except UserError as error:
        print(f"recipes.py: {parser.as_flags(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("recipes.py: interrupted; repeat the command to continue", file=sys.stderr)
        return INTERRUPTED
    print(*lines(found), sep="\n")
    return 0


def make_parser() -> Parser:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="as of a run")
    parser.add_argument("--backbone", default="mobilenet_0.75")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--heads", nargs="+", default=["kept", "replaced"], metavar="HEAD", choices=HEADS)
    parser.add_argument("--depths", nargs="+", default=["all"], metavar="DEPTH", help="freeze depths")
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES), metavar="CHANGE")
    parser.add_argument("--seeds", type=int, default=3, metavar="INT")
    parser.add_argument("--output", type=Path, default=Path("runs", "recipes"), metavar="DIR")
    return parser


def trials(options: argparse.Namespace) -> Iterator[Trial]:
    """All of one seed before the next one's, so that an early end leaves comparisons that are complete."""
    for seed in range(options.seeds):
        for depth in options.depths:
            for change in dict.fromkeys(["none", *options.changes]):
                for head in options.heads:
                    if is_one(CHANGES[change], head, depth):
                        yield Trial(change, head, depth, seed)


def is_one(change: Change, head: str, depth: str) -> bool:
    return change.concerns(find_head(head)) and not (change.pretrained and depth == "all")


def run_all(config: RunConfig, chosen: list[Trial], folder: Path) -> dict[Trial, Outcome]:
    """What each trial gave, from its file if that is there."""
    prepare_process()
    from ktl.data.loading import load_dataset
    from ktl.progress import QuietReporter, Reporter
    from ktl.runs.session import Session

    dataset = load_dataset(config.dataset)
    session = Session(config, dataset, reporter=QuietReporter(Reporter()))
    folder = folder / dataset.fingerprint[:8]
    make_folder(folder)
    found, started, trained = {}, time.perf_counter(), 0
    for number, trial in enumerate(chosen, start=1):
        path = folder / trial.file(config)
        if not path.exists():
            outcome = run(session, trial, path.with_suffix(".checkpoint"))
            write_atomically(path, json.dumps(dataclasses.asdict(outcome)) + "\n")
            trained += 1
        found[trial] = Outcome(**json.loads(path.read_text()))
        shown = ", ".join(map(str, dataclasses.astuple(trial)))
        left = (time.perf_counter() - started) / max(trained, 1) * (len(chosen) - number) / 60
        top1 = found[trial].validation_top1
        print(f"{number}/{len(chosen)}  {shown}: validation {top1:.4f}  about {left:.0f} min left", file=sys.stderr)
    return found


def run(session, trial: Trial, checkpoint: Path) -> Outcome:
    """Trains in a `ktl.runs.session.Session`, and scores on the validation photos; a run that diverges has recognised
    none."""
    import interventions

    from ktl.evaluation import metrics as evaluation
    from ktl.training import evaluate
    from ktl.training.checkpoint import best_epoch

    shutil.rmtree(checkpoint, ignore_errors=True)
    training = session.prepare(vars(trial.config(session.config)))
    intervention = CHANGES[trial.change].intervention
    new_variables = getattr(interventions, intervention)(training) if intervention else None
    inputs = training.inputs
    validation = inputs.dataset.validation
    try:
        history = training.fit(checkpoint, new_variables=new_variables, reporter=session.reporter)
    except DivergedError:
        return Outcome(0.0, None, 0, [0] * len(validation))
    finally:
        shutil.rmtree(checkpoint, ignore_errors=True)
    part = inputs.trained_part(training.classifier)
    probabilities = evaluate.predict_probabilities(part, inputs.evaluation_batches(validation))
    scores = evaluation.score(probabilities, validation.labels)
    correct = (probabilities.argmax(axis=1) == validation.labels).astype(int).tolist()
    return Outcome(scores["top1"], scores["log_loss"], best_epoch(history), correct)


def lines(found: Mapping[Trial, Outcome]) -> Iterator[str]:
    """A Markdown table, with the mean over seeds and the difference to no change with its 95 % interval.

    The intervals are adjusted by Holm's procedure for the number of changes of a head at a freeze depth.
    """
    groups: dict[tuple, list[Outcome]] = {}
    for trial, result in found.items():
        groups.setdefault(trial.group, []).append(result)
    for cells in (HEADER, ["---"] * len(HEADER)):
        yield f"| {' | '.join(cells)} |"
    shown = differences_of(groups)
    for (change, *place), results in groups.items():
        cells = cells_of(results, groups["none", *place], difference=shown.get((change, *place), ""))
        yield f"| {' | '.join([change, *place, *cells])} |"


def differences_of(groups: Mapping[tuple, list[Outcome]]) -> dict[tuple, str]:
    """Change, head and freeze depth -> the difference in validation top-1 to no change; of two seeds or more."""
    import numpy as np

    from ktl.evaluation.differences import LEAST_PHOTOS, holm_levels, paired_difference

    families: dict[tuple, dict] = {}
    for (change, *place), results in groups.items():
        hits, unchanged = (np.array([run.correct for run in runs]) for runs in (results, groups["none", *place]))
        if change != "none" and len(hits) > 1 and hits.shape[1] >= LEAST_PHOTOS:
            families.setdefault(tuple(place), {})[change, *place] = paired_difference(hits, unchanged)
    shown = {}
    for family in families.values():
        for key, level in zip(family, holm_levels([one.p_value for one in family.values()]), strict=True):
            estimate, low, high = map(points, dataclasses.astuple(family[key].interval(level)))
            shown[key] = f"{estimate} ({low} to {high})"
    return shown


def cells_of(results: list[Outcome], unchanged: list[Outcome], *, difference: str) -> list[str]:
    import numpy as np

    losses, before = ([run.log_loss for run in runs] for runs in (results, unchanged))
    known = None not in losses + before
    compared = known and results is not unchanged and len(results) > 1
    return [
        f"{100 * np.mean([run.validation_top1 for run in results]):.1f}",
        difference,
        f"{np.mean(losses):.3f}" if known else "not finite",
        f"{np.mean(losses) - np.mean(before):+.3f}" if compared else "",
    ]


if __name__ == "__main__":
    sys.exit(main())
