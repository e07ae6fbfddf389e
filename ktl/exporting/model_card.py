"""MODEL_CARD.md: what somebody who meets an exported model has to know about it."""

import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ktl.evaluation.intervals import CONFIDENCE, wilson_interval
from ktl.evaluation.metrics import SCORES, shown_scores
from ktl.exporting.record import Calibration, listed
from ktl.exporting.subject import Subject
from ktl.runs.environment import installed_versions
from ktl.runs.finished_run import FinishedRun

if TYPE_CHECKING:
    from ktl.exporting.export import ExportResult


def render(subject: Subject, result: "ExportResult") -> str:
    """The model card of an export, in Markdown.

    Args:
        subject: the network that is exported.
        result: what `ktl.export` gives.
    """
    run = subject.run
    sections = {
        "What it does": _purpose(subject),
        "How it was made": _making_of_run(run) if run else _table(subject.facts),
        "How good it is": _scores_of_run(run) if run else _scores_of_classifier(result),
        "This file": _verification(subject, result),
        "Limits": _limits(run),
        "Classes": [", ".join(subject.class_names)],
        "Versions": _table(_versions(run)),
    }
    origin = f"{run.settings['dataset']}: " if run else ""
    network = run.settings["backbone"] if run else subject.facts["network"]
    lines = [f"# {origin}{len(subject.class_names)} classes, {network}"]
    for title, body in sections.items():
        lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _purpose(subject: Subject) -> list[str]:
    return [
        f"It takes a photo and says which of {len(subject.class_names)} classes the photo shows, with a probability "
        "for each class. It always names one of these classes, also when the photo shows something else."
    ]


def _making_of_run(run: FinishedRun) -> list[str]:
    settings, parameters, photos = run.settings, run.result["parameters"], run.result["photos"]
    rows = {
        "data": settings["dataset"],
        "photos": ", ".join(f"{count:,} {split}" for split, count in photos.items()),
        "photos left out": f"{len(run.result['bad_photos'])}, which could not be read",
        "backbone": settings["backbone"],
        "weights": settings["weights"],
        "head": settings["head"],
        "frozen up to": f"{run.result['frozen_up_to']}, {parameters['frozen']:,} of {parameters['total']:,} parameters",
        "scale at the start": f"{settings['scale']:g}",
        "training": f"{run.result['epochs']} epochs; {_kept_weights(run)}; seed {settings['seed']}",
    }
    return [*_table(rows), "", "```", run.command, "```"]


def _kept_weights(run: FinishedRun) -> str:
    best, refit, folds = run.result["best_epoch"], run.result.get("refit"), run.settings.get("folds")
    if not refit:
        return f"the weights are those after epoch {best}, the best one"
    return (
        f"epoch {best} was the best one{f' of {folds} folds' if folds else ''}, and the weights are those of another "
        f"training, on {refit['photos']:,} training and validation photos, after epoch {refit['epochs']}"
    )


def _scores_of_run(run: FinishedRun) -> list[str]:
    test, photos = run.result["test"], run.result["photos"]["test"]
    low, high = wilson_interval(test["top1"], photos)
    rows = {title: f"{test[name]:.4f}" for name, title in shown_scores(test).items()}
    rows[SCORES["top1"]] += f" ({low:.4f} to {high:.4f}: {CONFIDENCE:.0%} interval, for {photos:,} photos)"
    folds, refit = run.settings.get("folds"), run.result.get("refit")
    if refit and not folds:
        by = "of the training before the second one, whose best epoch was chosen by it"
    else:
        by = f"by which the epoch was chosen{f', of {folds} folds' if folds else ''}"
    rows["validation top-1"] = f"{run.result['validation']['top1']:.4f}, {by}"
    return ["On the test photos. Nothing was chosen by them:", "", *_table(rows)]


def _scores_of_classifier(result: "ExportResult") -> list[str]:
    test = result["test"]
    if test["top1"] is None:
        return ["Not known: it was exported from memory, without photos whose classes are known."]
    low, high = wilson_interval(test["top1"], test["photos"])
    interval = f"{low:.4f} to {high:.4f}: {CONFIDENCE:.0%} interval, for {test['photos']:,} photos"
    return [
        f"Top-1 {test['top1']:.4f} ({interval}), on {result['verified_on']}. Whether anything was chosen by these "
        "photos is not known here."
    ]


def _verification(subject: Subject, result: "ExportResult") -> list[str]:
    test, calibration = result["test"], result["calibration"]
    network = "run" if subject.run else "classifier"
    rows = {
        "format": result["format"],
        "quantization": result["quantization"],
        "size": f"{result['mebibytes']:.1f} MiB",
        "verified on": f"{test['photos']:,}: {result['verified_on']}",
    }
    if test["top1"] is not None:
        rows["top-1 on these"] = f"{test['top1']:.4f}; of the {network} {test['run_top1']:.4f}"
    rows |= {
        "photos left out": f"{test['undecoded']}, which TensorFlow cannot decode; this file refuses such photos"
        + _names(test.get("undecoded_photos", []), test["undecoded"]),
        "photos decoded otherwise": f"{test.get('decoded_otherwise', 0)}, left out, too: this file sees other pixels"
        + _names(test.get("decoded_otherwise_photos", []), test.get("decoded_otherwise", 0)),
        "labels that differ": f"{test['labels_changed']}",
        "largest difference of a probability": f"{test['largest_difference']:.1e}",
        "temperature": "1, not calibrated" if calibration is None else _temperature(calibration),
    }
    return [f"A new process opened this file and compared its answers with those of the {network}:", "", *_table(rows)]


def _names(names: Sequence[str], count: int) -> str:
    return f" ({listed(names, count)})".replace("|", "\\|") if names else ""


def _temperature(calibration: Calibration) -> str:
    interval = f"95 % interval {calibration['low']:.2f} to {calibration['high']:.2f}"
    return (
        f"{calibration['temperature']:.3f}, fitted to {calibration['photos']} validation photos ({interval}"
        f"{': too wide to rely on' if calibration['warning'] else ''}); calibration error on the test photos "
        f"{calibration['ece_before']:.4f} before, {calibration['ece_after']:.4f} after"
    )


def _limits(run: FinishedRun | None) -> list[str]:
    lines = [
        "- A photo is made smaller until its short side is 8/7 of the network's image size. The network sees only the "
        "square in its middle.",
        "- Photos from another camera, place or time may be recognised less well than those that it was tested on.",
    ]
    if run is None:
        return lines
    lines.append("- It was trained once. Training with another seed gives somewhat different scores.")
    if run.settings["weights"] == "imagenet":
        lines.append("- The backbone was trained on ImageNet. Test photos that are in ImageNet are not new to it.")
    if run.result["notice"]:
        lines.append(f"- {run.result['notice']}")
    lines += [f"- {warning}" for warning in run.result.get("warnings", ())]
    return lines


def _versions(run: FinishedRun | None) -> dict[str, str]:
    if run:
        return {"python": run.environment["python"], **run.environment["versions"]}
    return {"python": platform.python_version(), **installed_versions()}


def _table(rows: Mapping[str, str]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
