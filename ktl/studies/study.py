"""The matched comparison: does keeping the ImageNet layer pay on this data, and where to freeze?

Every head gets the same data, the same budget, the same seeds, and as many tries at its settings at each freeze depth
and with each part of the training photos. Validation chooses; the test photos are scored once for each run, chosen or
not, and choose nothing. The tries have a seed that no run has.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ktl.arguments import checked_arguments
from ktl.config.settings import StudyConfig
from ktl.data import duplicates
from ktl.data.dataset import Split
from ktl.data.duplicates import Duplicate
from ktl.data.loading import load_dataset
from ktl.machine import process_state_restored
from ktl.models.backbones import build_backbone
from ktl.models.classifier import TransferClassifier
from ktl.models.flat_graph import Backbone
from ktl.models.heads import BASELINE
from ktl.progress import QuietReporter, Reporter, Verbose, reporter_for
from ktl.runs.environment import describe_environment
from ktl.runs.finished_run import has_ended
from ktl.runs.probes import probe_inputs
from ktl.runs.removal import noticing_removal
from ktl.runs.run import begin, check_places, config_of_call, output_of
from ktl.runs.session import Session, classifier_of
from ktl.studies.analysis import bad_photos_of, best_depths, summary_of, tuned_by
from ktl.studies.conclusions import Conclusions
from ktl.studies.design import (
    Place,
    Tuned,
    cells_of,
    cells_of_tries,
    cost_of,
    default_depths,
    distinct_parts,
    part_of,
    trains_pretrained,
)
from ktl.studies.evidence import Evidence, write_evidence
from ktl.studies.probes import ProbeRow, probe_rows
from ktl.studies.records import WHOLE, Cell, CellRun, Part
from ktl.studies.results import (
    StudyResult,
    ZeroShotResult,
    best_rows,
    chosen_of,
    chosen_run,
    heads_without,
    tuned_row,
    values_of,
    warnings_of_study,
    zero_shot_result,
)
from ktl.studies.study_folder import StudyFolder
from ktl.studies.trainer import CellTrainer
from ktl.studies.zero_shot import Correspondence, known_classes, score_zero_shot


@checked_arguments
def study(
    config: StudyConfig | None = None,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    verbose: Verbose = 1,
    **settings: Any,
) -> StudyResult:
    """Compares heads at several freeze depths, and on parts of the training photos, over several seeds.

        result = ktl.study(dataset="photos", heads=("kept", "replaced"), output="runs/study")
        print(result["chosen"]["command"])

    Called again with the same settings and folder, it goes on after the last complete epoch. The process is left as it
    was found: Keras' global state, seeds, dtype policy and determinism.

    Args:
        config: the settings; or give them as keywords.
        output: the folder, see `ktl.studies.study_folder.StudyFolder`; `ktl.runs.run.default_output(config)` if None.
        overwrite: remove a study that is in that folder.
        verbose: 0 for silence, 1 for lines to the logger `ktl`, or a Reporter.
        **settings: of `StudyConfig`.

    Returns:
        What result.json holds.

    Raises:
        UserError (a ValueError): bad input; nothing that was there is lost.
    """
    config = config_of_call(StudyConfig, config, settings)
    output = output_of(output, config)
    check_places(config, output=output)
    if overwrite:
        load_dataset(config.dataset, data_dir=config.data_dir)  # what is there is not given up for a wrong name
    folder = StudyFolder(output, config, overwrite=overwrite)
    with folder.held(), noticing_removal(folder.path, kind=folder.KIND):
        if not has_ended(folder.path, folder.KIND):
            with process_state_restored():
                _Study(config, folder, reporter_for(verbose)).run()
    return folder.study_result()


class _Study:
    """A study while it runs."""

    def __init__(self, config: StudyConfig, folder: StudyFolder, reporter: Reporter):
        self.config, self.folder, self.reporter = config, folder, reporter
        self.dataset = begin(config, folder, reporter)
        self.heads = tuple(config.heads)
        self.seeds = range(config.seed, config.seed + config.seeds)
        self.started = time.perf_counter()
        self.session = Session(
            config, self.dataset, trainings=len(self.heads) * len(self.seeds), reporter=QuietReporter(reporter)
        )
        self.machine = self.session.set_up_machine()
        self.backbone, self.classifiers = self._classifiers()
        boundaries = [classifier.boundaries for classifier in self.classifiers.values()]
        self.depths = tuple(map(str, config.depths or ())) or default_depths(boundaries)
        self.places = [Place(head, depth) for depth in self.depths for head in self.heads]
        self.tries: list[list[CellRun]] = []
        self.tuned: dict[tuple[Part, Place], Tuned] = {}

    def run(self) -> None:
        known = self._known_classes()
        trainer = self._trainer()
        repeats = self._find_duplicates()
        runs = self._train(trainer, self.places, WHOLE)
        best = {head: Place(head, depth) for head, depth in best_depths(runs).items()}
        bad = bad_photos_of(runs)
        parts = self._parts(without=bad)
        drawn = trainer.on(lambda cell: part_of(self.dataset, cell.part, draw=cell.seed, without=bad))
        for part in list(parts)[1:]:
            runs += self._train(drawn, _places_of_parts(best), part)
        test = self._scored_photos(without=bad)
        names = self.dataset.class_names
        evidence = Evidence(test.photos, [names[label] for label in test.labels], runs)
        conclusions = evidence.conclusions
        zero_shot = self._zero_shot(known, conclusions, test)
        probes = self._probe(parts, without=bad)
        self.folder.write_tries(self.tries)
        self.folder.write_runs(runs)
        write_evidence(self.folder.path, evidence)
        self.folder.write_summary(
            summary_of(
                group,
                found,
                conclusions.tests[group],
                conclusions.comparisons[group],
                photos=parts[Part(group.share, group.shots)],
            )
            for group, found in conclusions.groups.items()
        )
        self._write_result(runs, conclusions, test=test, repeats=repeats, zero_shot=zero_shot, probes=probes)

    def _classifiers(self) -> tuple[Backbone, dict[str, TransferClassifier]]:
        """A backbone, and a classifier that is made of it for each head."""
        config, names = self.config, self.dataset.class_names
        with self.machine.scope():
            backbone = build_backbone(config.backbone, weights=config.weights, image_size=config.image_size)
            values = {"freeze_depth": "none", "scale": 1.0}  # of no account: nothing of these is trained
            return backbone, {
                head: classifier_of(config, backbone, class_names=names, head=head, **values) for head in self.heads
            }

    def _known_classes(self) -> Correspondence:
        """The classes that the backbone knows already; says so."""
        names = self.dataset.class_names
        known = known_classes(self.backbone, names, weights=self.config.weights, mapping=self.config.synsets)
        if known:
            self.reporter.message(
                f"{len(known)} of {len(names)} classes are classes of ImageNet: their test photos may be training "
                "photos of the backbone"
            )
        return known

    def _trainer(self) -> CellTrainer:
        """With the features of all heads and freeze depths, computed in one pass where that pays."""
        self.session.compute_features([(self.classifiers[place.head], place.freeze_depth) for place in self.places])
        return CellTrainer(
            self.session,
            self.folder,
            cost_of=self._cost_of,
            trains_head_alone=lambda cell: not self._trains_pretrained(Place(cell.head, cell.freeze_depth)),
            reporter=self.reporter,
        )

    def _cost_of(self, cell: Cell) -> float:
        return cost_of(self.classifiers[cell.head], cell.freeze_depth)

    def _train(self, trainer: CellTrainer, places: Sequence[Place], part: Part) -> list[CellRun]:
        """The runs of all seeds at these places with a part of the training photos, each place tuned there first."""
        seed = self.config.seed + self.config.seeds
        tries = [
            cells_of_tries(place, pretrained=self._trains_pretrained(place), part=part, seed=seed) for place in places
        ]
        self.reporter.message(f"{part.name}: {len(tries)} heads and freeze depths with {len(tries[0])} tries each")
        found = trainer.choose_all(tries)
        self.tries += found
        settings = dict(zip(places, map(tuned_by, found), strict=True))
        self.tuned |= {(part, place): tuned for place, tuned in settings.items()}
        cells = cells_of(settings, seeds=self.seeds, part=part)
        self.reporter.message(f"{part.name}: {len(cells)} runs, {len(self.seeds)} seeds each")
        return trainer.train_all(cells)

    def _trains_pretrained(self, place: Place) -> bool:
        return trains_pretrained(self.classifiers[place.head], place.freeze_depth)

    def _parts(self, *, without: Collection[str]) -> dict[Part, int]:
        """Part -> its number of training photos; all of them first."""
        asked = [*(Part(share) for share in self.config.shares), *(Part(shots=shots) for shots in self.config.shots)]
        parts, left_out = distinct_parts(self.dataset, [WHOLE, *asked], without=without)
        for part, photos in left_out.items():
            self.reporter.message(f"{part.name} is left out: {photos} training photos, as of another part")
        return parts

    def _find_duplicates(self) -> tuple[Duplicate, ...]:
        """Looks for photos that are in an earlier split too, unless an earlier call has; says how many are test's."""
        found = self.folder.read_duplicates()
        if found is None:
            photos = sum(map(len, self.dataset.splits))
            with self.reporter.photos("looking for duplicates", photos) as update:
                found = duplicates.find_duplicates(self.dataset, progress=update)
            self.folder.write_duplicates(found)
        counts = duplicates.count(found)
        if any(counts.values()):
            self.reporter.message(
                f"of {len(self.dataset.test)} test photos {counts['exact']} are also among the training or validation "
                f"photos, and {counts['near']} look like one; see duplicates.csv"
            )
        return found

    def _scored_photos(self, *, without: Collection[str]) -> Split:
        test = self.dataset.test
        return test.take(np.flatnonzero([photo not in without for photo in test.photos]))

    def _zero_shot(self, known: Correspondence, conclusions: Conclusions, test: Split) -> ZeroShotResult | None:
        """Scores of the untouched classification layer, beside those of the heads on the same photos."""
        names = self.dataset.class_names
        with self.session.set_up_machine().scope():
            scores = score_zero_shot(self.backbone, test, names, known, batch_size=self.config.batch_size)
        return zero_shot_result(scores, known, conclusions, dataset_classes=len(names))

    def _probe(self, parts: Iterable[Part], *, without: Collection[str]) -> list[ProbeRow]:
        """Linear probes of what the heads read; says the best of all photos by validation."""
        self.reporter.message("linear probes of what each head reads")
        found = probe_rows(probe_inputs(self.session, self.classifiers), parts, seeds=self.seeds, without=without)
        best = max(
            (row for row in found if (row["share"], row["shots"]) == WHOLE), key=lambda row: row["validation_top1"]
        )
        self.reporter.message(f"the best probe reads {best['source']}: validation {best['validation_top1']:.4f}")
        return found

    def _write_result(
        self,
        runs: Sequence[CellRun],
        conclusions: Conclusions,
        *,
        test: Split,
        repeats: Sequence[Duplicate],
        zero_shot: ZeroShotResult | None,
        probes: list[ProbeRow],
    ) -> None:
        best = chosen_run(conclusions)
        result: StudyResult = {
            "settings": self.config.as_dict(),
            "command": self.config.command(),
            "tuned": [
                tuned_row(part, place, tuned, pretrained=self._trains_pretrained(place))
                for (part, place), tuned in self.tuned.items()
            ],
            "chosen": chosen_of(best, command=self.config.run_config(values_of(best, self.dataset)).command()),
            "best": best_rows(conclusions),
            "notice": self.dataset.notice,
            "warnings": warnings_of_study(
                self.dataset, self.backbone, weights=self.config.weights, probes=probes, conclusions=conclusions
            ),
            "failed": {run.cell.name: run.failed for run in runs if run.failed},
            "duplicates": duplicates.count(repeats),
            "without_duplicates": heads_without(repeats, test.photos, conclusions),
            "zero_shot": zero_shot,
            "probes": probes,
            "seconds": time.perf_counter() - self.started,
        }
        self.folder.write_json("environment.json", describe_environment(self.machine))
        for warning in result["warnings"]:
            self.reporter.message(warning)
        self.folder.write_result(result)


def _places_of_parts(best: Mapping[str, Place]) -> list[Place]:
    """Where a part of the training photos is tried: each head at its best freeze depth, and at the baseline's."""
    depth = best[BASELINE].freeze_depth if BASELINE in best else None
    same = [] if depth is None else [Place(head, depth) for head in best]
    return list(dict.fromkeys([*best.values(), *same]))
