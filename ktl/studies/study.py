"""The matched comparison: does keeping the ImageNet layer pay on this data, and where to freeze?

Every head gets the same data, the same budget, the same seeds, and as many tries at its settings wherever these are
chosen. Validation chooses; the test photos are scored once for each run, chosen or not, and choose nothing.
"""

import dataclasses
import itertools
import json
import shutil
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ktl.config.settings import StudyConfig
from ktl.data import duplicates
from ktl.data.dataset import Dataset
from ktl.errors import DivergedError, UserError
from ktl.evaluation.intervals import mean_interval
from ktl.evaluation.metrics import converged
from ktl.files import write_atomically
from ktl.machine import OUT_OF_MEMORY
from ktl.models.backbones import Backbone, build_backbone
from ktl.models.boundaries import spread_depths
from ktl.models.classifier import TransferClassifier
from ktl.models.heads import BASELINE
from ktl.progress import QuietReporter, Reporter
from ktl.runs.environment import describe_environment
from ktl.runs.run import begin, default_output
from ktl.runs.session import FAILURES, Session, classifier_of
from ktl.studies.cells import (
    Cell,
    best_depth,
    cost_of,
    difference_of,
    groups_of,
    interval_json,
    merit,
    part_of,
    row_of,
    summary_of,
    tries_of,
    tuning_places,
    verdict,
)
from ktl.studies.study_folder import StudyFolder
from ktl.studies.zero_shot import Correspondence, find_correspondence, is_scorable, score_zero_shot
from ktl.training import evaluate
from ktl.training.checkpoint import best_epoch

DEPTHS = 6
"""Freeze depths that are compared where none are named."""


def study(
    config: StudyConfig, *, output: str | Path | None = None, overwrite: bool = False, reporter: Reporter | None = None
) -> dict:
    """Compares heads at several freeze depths, and on parts of the training photos, over several seeds.

    Called again with the same settings and folder, it goes on after the last complete epoch.

    Args:
        config: the settings.
        output: the folder, see `ktl.runs.run_folder.StudyFolder`; `ktl.runs.run.default_output(config)` if None.
        overwrite: remove a study that is in that folder.
        reporter: is told of the progress.

    Returns:
        What result.json holds.

    Raises:
        UserError: bad input; nothing that was there is lost.
    """
    reporter = reporter or Reporter()
    folder = StudyFolder(output or default_output(config), config, overwrite=overwrite)
    with folder.held():
        if folder.result is None:
            _Study(config, folder, reporter).run()
    return folder.result


class _Study:
    """A study while it runs."""

    def __init__(self, config: StudyConfig, folder: StudyFolder, reporter: Reporter):
        self.config, self.folder, self.reporter = config, folder, reporter
        self.dataset = begin(config, folder, reporter)
        self.heads = config.heads
        self.seeds = range(config.seed, config.seed + config.seeds)
        self.started = time.perf_counter()

    def run(self) -> None:
        backbone, classifiers = self._classifiers()
        known = self._correspondence(backbone)
        depths = self._depths(classifiers.values())
        model = self._model()
        boundaries = {head: classifier.boundaries for head, classifier in classifiers.items()}
        places = tuning_places(boundaries, depths)
        tunings = dict.fromkeys((head, place) for (head, _), place in places.items())
        wanted = dict.fromkeys([*places, *tunings])
        model.compute_features([(classifiers[head], depth) for head, depth in wanted])
        tuned = self._tune(model, tunings, boundaries)
        values = {(head, depth): tuned[head, place] for (head, depth), place in places.items()}
        counted = self._count_duplicates()
        cells = [
            Cell(head, depth, **values[head, depth], share=1.0, seed=seed)
            for seed, depth, head in itertools.product(self.seeds, depths, self.heads)
        ]
        counts = f"heads {len(self.heads)}, freeze depths {len(depths)}, seeds {len(self.seeds)}"
        self.reporter.message(f"{len(cells)} runs: {counts}")
        found = self._run_all(model, cells, boundaries)
        best = {head: best_depth(found, head) for head in self.heads}
        bad = {photo for run in found.values() for photo in run["bad_photos"]}
        parts = self._parts(without=bad)
        for share in list(parts)[1:]:
            cells = [
                Cell(head, best[head], **values[head, best[head]], share=share, seed=seed)
                for seed, head in itertools.product(self.seeds, self.heads)
            ]
            found |= self._run_all(model.on(parts[share]), cells, boundaries)
        checks = {"duplicates": counted, "zero_shot": self._zero_shot(backbone, known, found, best)}
        photos = {share: len(part.train) for share, part in parts.items()}
        self._write(found, tuned, best, photos, **checks)

    def _classifiers(self) -> tuple[Backbone, dict[str, TransferClassifier]]:
        """A backbone, and a classifier that is made of it for each head."""
        machine = self._model().set_up_machine()
        with machine.scope():
            names = ("backbone", "weights", "image_size")
            name, weights, size = (getattr(self.config, name) for name in names)
            backbone = build_backbone(name, weights=weights, image_size=size)
            names, values = self.dataset.class_names, {"freeze_depth": "none", "scale": 3.0}
            return backbone, {
                head: classifier_of(self.config, backbone, class_names=names, head=head, **values)
                for head in self.heads
            }

    def _correspondence(self, backbone: Backbone) -> Correspondence:
        """The classes that the backbone knows already; says so."""
        names = self.dataset.class_names
        found = find_correspondence(names, mapping=self.config.synsets)
        if not found or not is_scorable(backbone, weights=self.config.weights):
            return {}
        self.reporter.message(
            f"{len(found)} of {len(names)} classes are classes of ImageNet: their test photos may be training photos "
            "of the backbone"
        )
        return found

    def _depths(self, classifiers: Iterable[TransferClassifier]) -> tuple[str, ...]:
        """Those that are named, or as many for every head.

        A depth that leaves nothing to train of one head's network, and something of another's, is `all` once more to
        the first: a depth less to choose from.
        """
        if self.config.depths:
            return self.config.depths
        spread = spread_depths(min((classifier.boundaries for classifier in classifiers), key=len))
        chosen = np.unique(np.linspace(0, len(spread) - 1, DEPTHS).round().astype(int))
        return tuple(spread[index] for index in chosen)

    def _parts(self, *, without: Collection[str]) -> dict[float, Dataset]:
        """Share -> the data set with that share of its good training photos; all of them first."""
        parts: dict[float, Dataset] = {}
        for share in (1.0, *self.config.shares):
            part = part_of(self.dataset, share, without=without)
            photos = len(part.train)
            if any(len(other.train) == photos for other in parts.values()):  # a part of that size is the same one
                self.reporter.message(f"share {share:g} is left out: {photos} training photos, as of another share")
            else:
                parts[share] = part
        return parts

    def _model(self) -> Session:
        return Session(
            self.config,
            self.dataset,
            trainings=len(self.heads) * len(self.seeds),
            reporter=QuietReporter(self.reporter),
        )

    def _tune(self, model: Session, tunings: Collection[tuple[str, str]], boundaries: Mapping) -> dict:
        """For each head and place the rate and scale that validation chooses, of equally many tries."""
        cells = [
            Cell(head, place, rate, scale, share=1.0, seed=self.config.seed)
            for head, place in tunings
            for rate, scale in tries_of(head)
        ]
        places = dict.fromkeys(place for _, place in tunings)
        self.reporter.message(f"{len(cells)} tries of rate and scale, frozen up to {', '.join(places)}")
        found = self._run_all(model, cells, boundaries, tested=False)
        tuned = {}
        for head, place in tunings:
            tried = [cell for cell in cells if (cell.head, cell.freeze_depth) == (head, place)]
            best = max(tried, key=lambda cell: merit([found[cell]]))
            if found[best]["validation_top1"] <= 0:
                received = ", ".join(cell.name for cell in tried)
                raise UserError(f"Expected settings under which the head {head} learns. Received: none of {received}")
            tuned[head, place] = {"learning_rate": best.learning_rate, "scale": best.scale}
        return tuned

    def _try(self, model: Session, cell: Cell) -> dict:
        """As a run, without its test photos; settings that fail recognise nothing."""
        try:
            return self._run(model, cell, tested=False)
        except FAILURES as error:
            self.reporter.message(f"{cell.name} failed: {error}")
            return {"validation_top1": 0.0, "validation_loss": None}

    def _run_all(
        self, model: Session, cells: Sequence[Cell], boundaries: Mapping, *, tested: bool = True
    ) -> dict[Cell, dict]:
        """Runs them one by one, and tells how long the rest takes by what it computes."""
        costs = [cost_of(cell, boundaries[cell.head]) for cell in cells]
        found, started, done = {}, time.perf_counter(), 0.0
        of = "of runs" if tested else "of tries"
        for number, (cell, cost) in enumerate(zip(cells, costs, strict=True), start=1):
            known = self._path(cell, tested=tested).exists()
            found[cell] = self._run(model, cell, tested=True) if tested else self._try(model, cell)
            done += 0 if known else cost
            left = (time.perf_counter() - started) / done * sum(costs[number:]) if done else 0
            self.reporter.message(
                f"{number}/{len(cells)}  {cell.head}  {cell.freeze_depth}  rate {cell.learning_rate:g}  "
                f"scale {cell.scale:g}  share {cell.share:g}  seed {cell.seed}  "
                f"validation {found[cell]['validation_top1']:.4f}  about {left / 60:.0f} min {of} left"
            )
        return found

    def _path(self, cell: Cell, *, tested: bool) -> Path:
        return self.folder.path / "runs" / cell.name / ("run.json" if tested else "tried.json")

    def _run(self, model: Session, cell: Cell, *, tested: bool) -> dict:
        """Trains a cell, or reads what an earlier call has found."""
        path = self._path(cell, tested=tested)
        checkpoint = path.parent / "checkpoint"
        if path.exists():
            shutil.rmtree(checkpoint, ignore_errors=True)  # a kill may have left it
            return json.loads(path.read_text())
        path.parent.mkdir(parents=True, exist_ok=True)
        training = model.prepare(cell.values, seed=cell.seed)
        inputs = training.inputs
        test = inputs.dataset.test
        try:
            history, failed = training.fit(checkpoint, reporter=model.reporter), ""
        except DivergedError as error:  # counts as a network that knows nothing, so that every cell has its seeds
            history, failed = [], f"{error}"
            self.reporter.message(f"{cell.name} failed: {failed}")
        except OUT_OF_MEMORY as error:
            raise UserError(
                f"Expected memory for {cell.name}. Received: too little. Take a smaller --batch-size, or name deeper "
                "--depths"
            ) from error
        scores = [row["validation_top1"] for row in history]
        best = history[best_epoch(history) - 1] if history else {}
        found = {
            **dataclasses.asdict(cell),
            "validation_top1": best.get("validation_top1", 0.0),
            "validation_loss": best.get("validation_loss"),
            "epochs": len(history),
            "converged": converged(scores) if scores else 0,
            "seconds": sum(row["seconds"] for row in history),
            "failed": failed,
            "history": scores or [0.0],
            "cache": training.lasting_config.cache,
            "bad_photos": [photo for photo, _ in inputs.bad_photos],
        }
        if tested and failed:
            found["correct"] = [0] * len(test)
        elif tested:
            probabilities = evaluate.predict_probabilities(
                inputs.trained_part(training.classifier), inputs.evaluation_batches(test)
            )
            found["correct"] = (probabilities.argmax(axis=1) == test.labels).astype(int).tolist()
        write_atomically(path, json.dumps(found) + "\n")
        shutil.rmtree(checkpoint, ignore_errors=True)
        return found

    def _count_duplicates(self) -> dict[str, int]:
        """Looks for test photos among the training photos, unless an earlier call has; says how many there are."""
        path = self.folder.path / "duplicates.csv"
        if not path.exists():
            with self.reporter.photos(
                "looking for duplicates", len(self.dataset.train) + len(self.dataset.test)
            ) as update:
                found = duplicates.find_duplicates(self.dataset, progress=update)
            self.folder.write_csv(path.name, duplicates.COLUMNS, duplicates.rows(found))
        counted = duplicates.count(duplicates.read_duplicates(path))
        if any(counted.values()):
            self.reporter.message(
                f"of {len(self.dataset.test)} test photos {counted['exact']} are also among the training photos, and "
                f"{counted['near']} look like one; see {path.name}"
            )
        return counted

    def _zero_shot(
        self, backbone: Backbone, known: Correspondence, found: Mapping[Cell, dict], best: dict
    ) -> dict | None:
        """Scores of the untouched classification layer, beside those of the heads on the same photos."""
        bad = {photo for run in found.values() for photo in run["bad_photos"]}
        test = self.dataset.test
        test = test.take(np.flatnonzero([photo not in bad for photo in test.photos]))
        with self._model().set_up_machine().scope():
            scores = score_zero_shot(backbone, test, self.dataset.class_names, known, batch_size=self.config.batch_size)
        if scores is None:
            return None
        groups = groups_of(found)
        tops = {
            head: [np.mean(np.array(run["correct"])[scores.chosen]) for run in groups[head, best[head], 1.0]]
            for head in self.heads
        }
        return {
            "classes": len(known),
            "dataset_classes": len(self.dataset.class_names),
            "photos": len(scores.chosen),
            "top1": scores.top1,
            "restricted_top1": scores.restricted_top1,
            "heads": {head: interval_json(mean_interval(values)) for head, values in tops.items()},
            "synsets": {
                name: [{"id": synset.id, "name": synset.name} for synset in those] for name, those in known.items()
            },
        }

    def _write(self, found: Mapping[Cell, dict], tuned: Mapping, best: dict, photos: Mapping, **checks) -> None:
        runs = [row_of(found[cell]) for cell in found]
        self.folder.write_csv("runs.csv", runs[0].keys(), (row.values() for row in runs))
        groups = groups_of(found)
        summary = [summary_of(group, groups, best.get(BASELINE), photos=photos[group[-1]]) for group in groups]
        self.folder.write_csv("summary.csv", summary[0].keys(), (row.values() for row in summary))
        at_best = {head: groups[head, best[head], 1.0] for head in self.heads}
        comparisons = {head: difference_of(at_best[head], at_best.get(BASELINE)) for head in self.heads}
        head = max(self.heads, key=lambda head: merit(at_best[head]))
        chosen = {name: at_best[head][0][name] for name in (*self.config.VARIED, "cache")}
        result = {
            "settings": self.config.as_dict(),
            "command": self.config.command(),
            "tuned": [{"head": head, "freeze_depth": place, **values} for (head, place), values in tuned.items()],
            "chosen": {**chosen, "command": self.config.run_config(chosen).command()},
            "best": [
                {
                    **{name: at_best[head][0][name] for name in self.config.VARIED},
                    "test_top1": interval_json(mean_interval([np.mean(run["correct"]) for run in at_best[head]])),
                    "difference": interval_json(comparisons[head]),
                    "verdict": verdict(head, comparisons[head]),
                }
                for head in self.heads
            ],
            "notice": self.dataset.notice,
            "failed": {cell.name: run["failed"] for cell, run in found.items() if run["failed"]},
            **checks,
            "seconds": time.perf_counter() - self.started,
        }
        self.folder.write_json("environment.json", describe_environment(self._model().set_up_machine()))
        self.folder.write_json("result.json", result)
