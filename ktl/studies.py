"""The matched comparison: does keeping the ImageNet layer pay on this data, and where to freeze?

Every head gets the same data, the same budget, the same seeds, and as many tries at its settings wherever these are
chosen. Validation chooses; the test photos are scored once for each run, chosen or not, and choose nothing.
"""

import dataclasses
import itertools
import json
import math
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from ktl import duplicates, evaluation, training
from ktl.backbones import Backbone, build_backbone
from ktl.config import StudyConfig
from ktl.errors import DivergedError, UserError
from ktl.files import write_atomically
from ktl.freezing import Boundary, find_boundary, spread_depths
from ktl.heads import HEADS
from ktl.intervals import Interval, mean_interval, paired_difference
from ktl.network import build_network, freeze
from ktl.reporter import QuietReporter, Reporter
from ktl.results import StudyFolder, describe_environment
from ktl.runs import begin
from ktl.splits import Dataset, with_splits
from ktl.trials import LEAST_COST
from ktl.tuning import FAILURES, OUT_OF_MEMORY, TransferHyperModel
from ktl.zero_shot import Correspondence, find_correspondence, is_scorable, score_zero_shot

BASELINE = "replaced"

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SCALES = (3.0, 10.0)
"""Four tries: without a scale all rates, with one the middle two rates at both scales."""

DEPTHS = 6
"""Freeze depths that are compared where none are named."""

CONVERGED = 0.95
"""Share of a run's best validation top-1 that counts as converged."""

SHARE_SEED = 17
"""Fixed, so that a part of the training photos is the same one for every head and seed."""

UNLISTED = ("history", "cache", "bad_photos", "correct")
"""What run.json has of a run, and runs.csv does not."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        head: a name in `ktl.heads.HEADS`.
        freeze_depth: see `ktl.freezing.find_boundary`.
        learning_rate: of the pre-trained layers, as of a run.
        scale: as of a run.
        share: of each class's training photos, 0 to 1.
        seed: as of a run.
    """

    head: str
    freeze_depth: str
    learning_rate: float
    scale: float
    share: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(f"{value:g}" if isinstance(value, float) else f"{value}" for value in dataclasses.astuple(self))

    @property
    def values(self) -> dict:
        """The settings of a run that it stands for, but the seed."""
        return {name: getattr(self, name) for name in StudyConfig.VARIED}


def study(
    config: StudyConfig, *, output: str | Path, overwrite: bool = False, reporter: Reporter | None = None
) -> dict:
    """Compares heads at several freeze depths, and on parts of the training photos, over several seeds.

    Called again with the same settings and folder, it goes on after the last complete epoch.

    Args:
        config: the settings.
        output: the folder, see `ktl.results.StudyFolder`.
        overwrite: remove a study that is in that folder.
        reporter: is told of the progress.

    Returns:
        What result.json holds.

    Raises:
        UserError: bad input; nothing that was there is lost.
    """
    reporter = reporter or Reporter()
    folder = StudyFolder(output, config, overwrite=overwrite)
    if folder.result is None:
        _Study(config, folder, reporter).run()
    return folder.result


class _Study:
    """A study while it runs."""

    def __init__(self, config: StudyConfig, folder: StudyFolder, reporter: Reporter):
        self.config, self.folder, self.reporter = config, folder, reporter
        self.dataset = begin(config, folder, reporter)
        self.heads = config.head_names
        self.seeds = range(config.seed, config.seed + config.seeds)
        self.started = time.perf_counter()

    def run(self) -> None:
        backbone, networks = self._networks()
        known = self._correspondence(backbone)
        depths = self._depths(networks[self.heads[0]])
        model = self._model(self.dataset)
        boundaries = {head: network.boundaries for head, network in networks.items()}
        places = tuning_places(boundaries, depths)
        tunings = dict.fromkeys((head, place) for (head, _), place in places.items())
        wanted = dict.fromkeys([*places, *tunings])
        model.compute_features([freeze(networks[head], depth) for head, depth in wanted])
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
        best = {head: _best_depth(found, head) for head in self.heads}
        bad = {photo for run in found.values() for photo in run["bad_photos"]}
        for share in self.config.share_values:
            part = self._model(part_of(self.dataset, share, without=bad))
            cells = [
                Cell(head, best[head], **values[head, best[head]], share=share, seed=seed)
                for seed, head in itertools.product(self.seeds, self.heads)
            ]
            found |= self._run_all(part, cells, boundaries)
        checks = {"duplicates": counted, "zero_shot": self._zero_shot(backbone, known, found, best)}
        self._write(found, tuned, best, **checks)

    def _networks(self) -> tuple[Backbone, dict]:
        """A backbone, and a network of it for each head."""
        machine = training.set_up_machine(self.config)
        with machine.scope():
            names = ("backbone", "weights", "image_size")
            name, weights, size = (getattr(self.config, name) for name in names)
            backbone = build_backbone(name, weights=weights, image_size=size)
            classes = len(self.dataset.class_names)
            return backbone, {head: build_network(backbone, classes=classes, head=head) for head in self.heads}

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

    def _depths(self, network) -> tuple[str, ...]:
        """Those that are named, or some that every head has."""
        if self.config.depth_names:
            return self.config.depth_names
        spread = spread_depths(network.boundaries)
        chosen = np.unique(np.linspace(0, len(spread) - 1, DEPTHS).round().astype(int))
        return tuple(spread[index] for index in chosen)

    def _model(self, dataset: Dataset) -> TransferHyperModel:
        return TransferHyperModel(
            self.config,
            dataset,
            {},
            trainings=len(self.heads) * len(self.seeds),
            reporter=QuietReporter(self.reporter),
        )

    def _tune(self, model: TransferHyperModel, tunings: Collection[tuple[str, str]], boundaries: Mapping) -> dict:
        """For each head and place the rate and scale with the highest validation top-1, of equally many tries."""
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
            best = max(tried, key=lambda cell: _merit([found[cell]]))
            if found[best]["validation_top1"] <= 0:
                received = ", ".join(cell.name for cell in tried)
                raise UserError(f"Expected settings under which the head {head} learns. Received: none of {received}")
            tuned[head, place] = {"learning_rate": best.learning_rate, "scale": best.scale}
        return tuned

    def _try(self, model: TransferHyperModel, cell: Cell) -> dict:
        """As a run, without its test photos; settings that fail recognise nothing."""
        try:
            return self._run(model, cell, tested=False)
        except FAILURES as error:
            self.reporter.message(f"{cell.name} failed: {error}")
            return {"validation_top1": 0.0, "validation_loss": None}

    def _run_all(
        self, model: TransferHyperModel, cells: Sequence[Cell], boundaries: Mapping, *, tested: bool = True
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

    def _run(self, model: TransferHyperModel, cell: Cell, *, tested: bool) -> dict:
        """Trains a cell, or reads what an earlier call has found."""
        path = self._path(cell, tested=tested)
        checkpoint = path.parent / "checkpoint"
        if path.exists():
            shutil.rmtree(checkpoint, ignore_errors=True)  # a kill may have left it
            return json.loads(path.read_text())
        path.parent.mkdir(parents=True, exist_ok=True)
        prepared = model.prepare(cell.values, seed=cell.seed)
        test = prepared.feed.dataset.test
        try:
            history, failed = prepared.train(str(checkpoint), reporter=model.reporter), ""
        except DivergedError as error:  # counts as a network that knows nothing, so that every cell has its seeds
            history, failed = [], f"{error}"
            self.reporter.message(f"{cell.name} failed: {failed}")
        except OUT_OF_MEMORY as error:
            raise UserError(
                f"Expected memory for {cell.name}. Received: too little. Take a smaller --batch-size, or name deeper "
                "--depths"
            ) from error
        scores = [row["validation_top1"] for row in history]
        best = history[training.best_epoch(history) - 1] if history else {}
        found = {
            **dataclasses.asdict(cell),
            "validation_top1": best.get("validation_top1", 0.0),
            "validation_loss": best.get("validation_loss"),
            "epochs": len(history),
            "converged": converged(scores) if scores else 0,
            "seconds": sum(row["seconds"] for row in history),
            "failed": failed,
            "history": scores or [0.0],
            "cache": prepared.config.cache,
            "bad_photos": [photo for photo, _ in prepared.feed.bad_photos],
        }
        if tested and failed:
            found["correct"] = [0] * len(test)
        elif tested:
            probabilities = evaluation.predict_probabilities(prepared.feed.model, prepared.feed.evaluate(test))
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
        with training.set_up_machine(self.config).scope():
            scores = score_zero_shot(backbone, test, self.dataset.class_names, known, batch_size=self.config.batch_size)
        if scores is None:
            return None
        groups = _groups(found)
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
            "heads": {head: _interval(mean_interval(values)) for head, values in tops.items()},
            "synsets": {
                name: [{"id": synset.id, "name": synset.name} for synset in those] for name, those in known.items()
            },
        }

    def _write(self, found: Mapping[Cell, dict], tuned: Mapping[tuple[str, str], dict], best: dict, **checks) -> None:
        runs = [_row(found[cell]) for cell in found]
        self.folder.write_csv("runs.csv", runs[0].keys(), (row.values() for row in runs))
        groups = _groups(found)
        summary = [_summary(group, runs, groups, best.get(BASELINE)) for group, runs in groups.items()]
        self.folder.write_csv("summary.csv", summary[0].keys(), (row.values() for row in summary))
        at_best = {head: groups[head, best[head], 1.0] for head in self.heads}
        comparisons = {head: _difference(at_best[head], at_best.get(BASELINE)) for head in self.heads}
        head = max(self.heads, key=lambda head: _merit(at_best[head]))
        chosen = {name: at_best[head][0][name] for name in (*self.config.VARIED, "cache")}
        result = {
            "settings": self.config.as_dict(),
            "tuned": [{"head": head, "freeze_depth": place, **values} for (head, place), values in tuned.items()],
            "chosen": {**chosen, "command": self.config.run_config(chosen).command()},
            "best": [
                {
                    **{name: at_best[head][0][name] for name in self.config.VARIED},
                    "test_top1": _interval(mean_interval([np.mean(run["correct"]) for run in at_best[head]])),
                    "difference": _interval(comparisons[head]),
                    "verdict": verdict(head, comparisons[head]),
                }
                for head in self.heads
            ],
            "notice": self.dataset.notice,
            "failed": {cell.name: run["failed"] for cell, run in found.items() if run["failed"]},
            **checks,
            "seconds": time.perf_counter() - self.started,
        }
        self.folder.write_json("environment.json", describe_environment(training.set_up_machine(self.config)))
        self.folder.write_json("result.json", result)


def part_of(dataset: Dataset, share: float, *, without: Collection[str] = ()) -> Dataset:
    """The data set with a share of each class's training photos, at least one of each.

    A larger share has the photos of a smaller one, and more. Photos that are bad are to be left out.
    """
    labels = dataset.train.labels
    good = np.array([photo not in without for photo in dataset.train.photos])
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels[good]):
        members = np.random.default_rng([SHARE_SEED, label]).permutation(np.flatnonzero(good & (labels == label)))
        chosen[members[: max(1, round(share * len(members)))]] = True
    part = with_splits(dataset, {"train": dataset.train.take(np.flatnonzero(chosen))})
    return dataclasses.replace(part, whole=dataset)


def cost_of(cell: Cell, boundaries: tuple[Boundary, ...]) -> float:
    """What a run computes beside others, in forward passes over all training photos.

    Args:
        cell: the run.
        boundaries: of its head's network.
    """
    return cell.share * max(1 - find_boundary(boundaries, cell.freeze_depth).cost_share, LEAST_COST)


def converged(scores: Sequence[float]) -> int:
    """The first epoch, from 1, with at least `CONVERGED` of the best score."""
    return int(np.argmax(np.array(scores) >= CONVERGED * max(scores))) + 1


def verdict(head: str, difference: Interval | None) -> str:
    """A head's difference to the replaced layer in plain words."""
    if difference is None:
        return "the baseline" if head == BASELINE else "not compared"
    if not difference.excludes_zero:
        return "no difference shown"
    points, low, high = (100 * value for value in dataclasses.astuple(difference))
    return f"{'gains' if points > 0 else 'loses'} {abs(points):.1f} points ({low:+.1f} to {high:+.1f})"


def tuning_places(boundaries: Mapping[str, tuple[Boundary, ...]], depths: Sequence[str]) -> dict[tuple[str, str], str]:
    """Head and freeze depth -> the freeze depth at which its rate and scale are chosen.

    New layers alone want another scale than pre-trained layers under them. So a depth that leaves none of these to
    train is tuned there, and the others at the deepest one that leaves some to every head, or, where none does, to the
    head itself.

    Args:
        boundaries: of each head's network.
        depths: those that are compared.
    """

    def trains(head: str, depth: str) -> bool:
        return find_boundary(boundaries[head], depth) is not boundaries[head][-1]

    def place(head: str, depth: str) -> str:
        if not trains(head, depth):
            return "all"
        found = shared or [depth for depth in depths if trains(head, depth)]
        return max(found, key=lambda depth: find_boundary(boundaries[head], depth).depth)

    shared = [depth for depth in depths if all(trains(head, depth) for head in boundaries)]
    return {(head, depth): place(head, depth) for head in boundaries for depth in depths}


def tries_of(head: str) -> list[tuple[float, float]]:
    """Rate and scale of each try of a head."""
    if HEADS[head].normalization == "scaled_unit":
        return list(itertools.product(RATES[1:3], SCALES))
    return [(rate, SCALES[0]) for rate in RATES]


def _merit(runs: Sequence[dict]) -> tuple[float, float]:
    """What is chosen by: the highest mean validation top-1, and among equals the lowest mean validation loss."""
    losses = [math.inf if run["validation_loss"] is None else run["validation_loss"] for run in runs]
    # Rounded: means of the same numbers in another order are equals.
    return round(float(np.mean([run["validation_top1"] for run in runs])), 9), -float(np.mean(losses))


def _best_depth(found: Mapping[Cell, dict], head: str) -> str:
    """The freeze depth that validation chooses."""
    runs: dict[str, list] = {}
    for cell, run in found.items():
        if cell.head == head:
            runs.setdefault(cell.freeze_depth, []).append(run)
    return max(runs, key=lambda depth: _merit(runs[depth]))


def _groups(found: Mapping[Cell, dict]) -> dict[tuple[str, str, float], list[dict]]:
    """Runs that differ in their seed alone, in the order of the seeds, by head, freeze depth and share."""
    groups: dict[tuple[str, str, float], list] = {}
    for cell in sorted(found, key=lambda cell: cell.seed):
        groups.setdefault((cell.head, cell.freeze_depth, cell.share), []).append(found[cell])
    return groups


def _difference(runs: list[dict], baseline: list[dict] | None) -> Interval | None:
    """To the baseline with the same seeds; None if it is the baseline, or there is none, or one seed tells nothing."""
    if baseline is None or runs is baseline or len(runs) < 2:
        return None
    return paired_difference(*(np.array([run["correct"] for run in group], bool) for group in (runs, baseline)))


def _summary(group: tuple[str, str, float], runs: list[dict], groups: Mapping, best: str | None) -> dict:
    """A row of summary.csv. On a part of the data each head, the baseline too, has its best depth."""
    head, depth, share = group
    tests = mean_interval([np.mean(run["correct"]) for run in runs])
    difference = _difference(runs, groups.get((BASELINE, depth if share == 1 else best, share)))
    bounds = dataclasses.astuple(difference) if difference else ("", "", "")
    return {
        "head": head,
        "freeze_depth": depth,
        "share": share,
        "seeds": len(runs),
        "validation_top1": float(np.mean([run["validation_top1"] for run in runs])),
        **dict(zip(("test_top1", "test_low", "test_high"), dataclasses.astuple(tests), strict=True)),
        **dict(zip(("difference", "difference_low", "difference_high"), bounds, strict=True)),
        "verdict": verdict(head, difference),
        "converged": float(np.mean([run["converged"] for run in runs])),
        "seconds": float(np.mean([run["seconds"] for run in runs])),
    }


def _row(run: dict) -> dict:
    """A row of runs.csv."""
    return {name: value for name, value in run.items() if name not in UNLISTED} | {
        "test_top1": float(np.mean(run["correct"]))
    }


def _interval(interval: Interval | None) -> dict | None:
    """As JSON has it: null for what is unknown."""
    if interval is None:
        return None
    return {name: None if math.isnan(value) else value for name, value in dataclasses.asdict(interval).items()}
