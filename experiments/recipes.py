"""What each setting of the default recipe is worth: `python experiments/recipes.py --dataset PATH... --weights FILE`.

One thing at a time, or a few together, is changed, for several heads and freeze depths, always with the same photos and
seeds. The data set's training and validation photos are cut into folds; each is scored once, by a training that has
seen the others, or a few of them, and chosen its epoch by a part of these. Its test photos are never read. What a
training gave is kept in the output folder, named by its photos and all of its settings; the same command goes on.
docs/evidence.md has what it gave.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from changes import CHANGES, Place

from ktl.cli.ends import ended_by, signals_end
from ktl.cli.flags import Parser
from ktl.config.settings import RunConfig
from ktl.errors import DivergedError, UserError
from ktl.files import write_atomically
from ktl.folders import make_folder, make_place
from ktl.models.heads import HEADS, find_head
from ktl.process import prepare_process


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a trial gave for the photos that it held out.

    Attributes:
        top1: 0 to 1; 0 of a trial that diverged.
        log_loss: nats; None of a trial that diverged.
        epochs: the best one, from 1; 0 of a trial that diverged.
        correct: for each photo 1 if it was recognised, else 0.
    """

    top1: float
    log_loss: float | None
    epochs: int
    correct: list[int]


@dataclasses.dataclass(frozen=True)
class Trial(Place):
    """A training of this experiment, and what is made of it."""

    def config(self, defaults: RunConfig) -> RunConfig:
        place = {"dataset": self.dataset, "head": self.head, "freeze_depth": self.freeze_depth, "seed": self.seed}
        return dataclasses.replace(defaults, **place, **CHANGES[self.change].settings)

    def file(self, defaults: RunConfig) -> str:
        """Of the training; changes that are endings of one training have one file."""
        change = CHANGES[self.change]
        how = "-".join(filter(None, [change.refit, change.intervention])) or "as-it-is"
        return f"{self.config(defaults).fingerprint()}-{how}-{self.fold}.json"


def main() -> int:
    parser = make_parser()
    options = parser.parse_args()
    try:
        with signals_end():
            found = {}
            if options.csv:
                make_place(options.csv, argument="csv")
            for dataset in options.dataset:
                # With the cache whether or not it pays, so that a change of epochs or views changes nothing else.
                given = {name: getattr(options, name) for name in ("backbone", "weights", "cache_dir")}
                config = RunConfig(dataset=dataset, cache="on", **given)
                found |= run_all(
                    config,
                    list(trials(dataset, options)),
                    options.output,
                    folds=options.folds,
                    photos_a_class=options.photos_a_class,
                )
    except UserError as error:
        print(f"recipes.py: {parser.as_flags(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        end = ended_by(error)
        print(f"recipes.py: {end.line}", file=sys.stderr)
        return end.exit_code
    from recipe_table import add_to_csv, table

    rows = [as_row(trial, outcome, photos_a_class=options.photos_a_class) for trial, outcome in found.items()]
    if options.csv:
        add_to_csv(options.csv, rows)
    print(*table(rows), sep="\n")
    return 0


def make_parser() -> Parser:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", nargs="+", required=True, help="as of a run; several are told together")
    parser.add_argument("--backbone", default="mobilenet_0.75")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--heads", nargs="+", default=["kept", "replaced"], metavar="HEAD", choices=HEADS)
    parser.add_argument("--depths", nargs="+", default=["auto"], metavar="DEPTH", help="freeze depths")
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES), metavar="CHANGE")
    parser.add_argument("--seeds", type=int, default=1, metavar="INT", help="trainings of each fold")
    parser.add_argument("--folds", type=int, default=3, metavar="INT", help="that are held out, one after another")
    parser.add_argument(
        "--photos-a-class",
        type=int,
        metavar="INT",
        help="train and validate with so many alone, others in each fold, and hold out all others",
    )
    parser.add_argument("--output", type=Path, default=Path("runs", "recipes"), metavar="DIR")
    parser.add_argument("--cache-dir", metavar="DIR", help="as of a run")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="the rows are added here, for recipe_table.py")
    return parser


def as_row(trial: Trial, outcome: Outcome, *, photos_a_class: int | None):
    from recipe_table import Row

    few = f", {photos_a_class} a class" if photos_a_class else ""
    place = {**dataclasses.asdict(trial), "dataset": Path(trial.dataset).name + few}
    return Row(**place, top1=outcome.top1, log_loss=math.nan if outcome.log_loss is None else outcome.log_loss)


def trials(dataset: str, options: argparse.Namespace) -> Iterator[Trial]:
    """All of one seed before the next one's, so that an early end leaves comparisons that are complete."""
    for seed, fold, depth in itertools.product(range(options.seeds), range(options.folds), options.depths):
        for change in dict.fromkeys(["none", *options.changes]):
            for head in options.heads:
                if CHANGES[change].is_one(find_head(head), depth):
                    yield Trial(dataset, change, head, depth, seed, fold)


def run_all(
    config: RunConfig, chosen: list[Trial], folder: Path, *, folds: int, photos_a_class: int | None
) -> dict[Trial, Outcome]:
    """What each trial gave, from its training's file if that is there."""
    prepare_process()
    from held_out import held_out_parts

    from ktl.data.loading import load_dataset
    from ktl.progress import QuietReporter, Reporter
    from ktl.runs.session import Session

    dataset = load_dataset(config.dataset)
    parts = held_out_parts(dataset, folds, photos_a_class=photos_a_class)
    session = Session(config, dataset, trainings=len(chosen), reporter=QuietReporter(Reporter()))
    folder = folder / "-".join(
        [dataset.fingerprint[:8], str(folds), *([str(photos_a_class)] if photos_a_class else [])]
    )
    make_folder(folder)
    endings = {trial: endings_with(trial, chosen) for trial in chosen}
    found, started, trained = {}, time.perf_counter(), 0
    for number, trial in enumerate(chosen, start=1):
        path = folder / trial.file(config)
        outcomes = json.loads(path.read_text()) if path.exists() else {}
        if not endings[trial] <= outcomes.keys():
            first = found.get(dataclasses.replace(trial, change="none"))  # None: this is the first one
            epochs, checkpoint = first.epochs if first else 0, path.with_suffix(".checkpoint")
            outcomes |= run(session.on(parts[trial.fold]), trial, sorted(endings[trial]), epochs, checkpoint)
            write_atomically(path, json.dumps(outcomes) + "\n")
            trained += 1
        ending = CHANGES[trial.change].ending
        if outcomes[ending] is None:
            raise UserError(f"Expected a backbone with which {ending!r} can be done. Received: {config.backbone}")
        found[trial] = Outcome(**outcomes[ending])
        shown = ", ".join(map(str, dataclasses.astuple(trial)))
        left = (time.perf_counter() - started) / max(trained, 1) * (len(chosen) - number) / 60
        print(f"{number}/{len(chosen)}  {shown}: {found[trial].top1:.4f}  at most {left:.0f} min left", file=sys.stderr)
    return found


def endings_with(trial: Trial, chosen: Sequence[Trial]) -> set[str]:
    """The endings of a trial's training that are asked for."""
    change = CHANGES[trial.change]
    alike = [one for one in chosen if dataclasses.replace(one, change=trial.change) == trial]
    return {one.ending for one in (CHANGES[other.change] for other in alike) if one.has_training_of(change)}


def run(session, trial: Trial, endings: Sequence[str], epochs: int, checkpoint: Path) -> dict[str, dict | None]:
    """Trains, and gives each ending's answers for the photos that are held out; a run that diverges recognises none.

    Args:
        session: a `ktl.runs.session.Session` of a part.
        trial: what is trained.
        endings: names in `endings.ENDINGS`.
        epochs: that validation chose without a change.
        checkpoint: a folder of its own.

    Returns:
        Ending -> an Outcome's fields; None where the backbone takes no other image size.
    """
    from endings import ENDINGS, Trained, WeightsOfEpochs, last_epoch
    from held_out import validation_as_training

    change, held_out = CHANGES[trial.change], session.dataset.test
    if change.refit:
        session = session.on(validation_as_training(session.dataset))
    shutil.rmtree(checkpoint, ignore_errors=True)
    training = change.intervene(session.prepare(vars(trial.config(session.config))))
    weights = WeightsOfEpochs(training.inputs.trained_part(training.classifier))
    try:
        history = training.fit(
            checkpoint,
            callbacks=[weights],
            stop_after=epochs if change.refit == "refit" else None,
            keep="last",  # without patience
            reporter=session.reporter,
        )
    except DivergedError:
        return dict.fromkeys(endings, dataclasses.asdict(Outcome(0.0, None, 0, [0] * len(held_out))))
    finally:
        shutil.rmtree(checkpoint, ignore_errors=True)
    trained = Trained(training, history, weights.found, weights.average)
    outcomes: dict[str, dict | None] = dict.fromkeys(endings)
    for name in endings:
        with contextlib.suppress(UserError):  # a network that takes no other image size
            answers = (last_epoch if change.refit else ENDINGS[name])(trained, held_out)
            outcomes[name] = dataclasses.asdict(_outcome(answers, held_out.labels, trained))
    return outcomes


def _outcome(probabilities, labels, trained) -> Outcome:
    from ktl.evaluation.metrics import score

    scores, correct = score(probabilities, labels), (probabilities.argmax(axis=1) == labels).astype(int).tolist()
    return Outcome(scores["top1"], scores["log_loss"], trained.best_epoch, correct)


if __name__ == "__main__":
    sys.exit(main())
