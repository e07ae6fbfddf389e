"""MODEL_CARD.md: what somebody who meets an exported model has to know of it."""

from ktl.evaluation.intervals import CONFIDENCE, wilson_interval
from ktl.evaluation.metrics import SCORES
from ktl.runs.finished_run import FinishedRun

MODEL_CARD = "MODEL_CARD.md"


def render(run: FinishedRun, export: dict) -> str:
    """The model card of an export, in Markdown.

    Args:
        run: where the model is from.
        export: what `ktl.exporting.export.export` gives.
    """
    sections = (
        ("What it does", _purpose(run)),
        ("How it was made", _making(run)),
        ("How good it is", scores(run)),
        ("This file", _export(export)),
        ("Limits", _limits(run)),
        ("Classes", [", ".join(run.class_names)]),
        ("Versions", _versions(run)),
    )
    lines = [f"# {run.settings['dataset']}: {len(run.class_names)} classes, {run.settings['backbone']}"]
    for title, body in sections:
        lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _purpose(run: FinishedRun) -> list[str]:
    return [
        f"Takes a photo and tells which of {len(run.class_names)} classes it shows, with a probability for each. It "
        "always names one of them, also for a photo of something else."
    ]


def _making(run: FinishedRun) -> list[str]:
    settings, parameters, photos = run.settings, run.result["parameters"], run.result["photos"]
    epochs = f"{run.result['epochs']} epochs, weights of the best, number {run.result['best_epoch']}"
    rows = {
        "data": settings["dataset"],
        "photos": ", ".join(f"{count:,} {split}" for split, count in photos.items()),
        "left out": f"{len(run.result['bad_photos'])} photos that could not be read",
        "backbone": settings["backbone"],
        "weights": settings["weights"],
        "head": settings["head"],
        "frozen up to": f"{run.result['frozen_up_to']}, {parameters['frozen']:,} of {parameters['total']:,} parameters",
        "scale at the start": f"{settings['scale']:g}",
        "training": f"{epochs}; seed {settings['seed']}",
    }
    return [*_table(rows), "", "```", run.command, "```"]


def scores(run: FinishedRun) -> list[str]:
    """The lines that tell how good a run is."""
    test, photos = run.result["test"], run.result["photos"]["test"]
    low, high = wilson_interval(test["top1"], photos)
    rows = {title: f"{test[name]:.4f}" for name, title in SCORES.items()}
    rows[SCORES["top1"]] += f" ({low:.4f} to {high:.4f}: {CONFIDENCE:.0%} interval, for {photos:,} photos)"
    rows["validation top-1"] = f"{run.result['validation']['top1']:.4f}, by which the epoch was chosen"
    return ["On the test photos, which nothing was chosen by:", "", *_table(rows)]


def _export(export: dict) -> list[str]:
    test, calibration = export["test"], export["calibration"]
    rows = {
        "format": export["format"],
        "quantization": export["quantization"],
        "size": f"{export['mebibytes']:.1f} MiB",
        "test top-1": f"{test['top1']:.4f} on {test['photos']:,} photos, of the run on them {test['run_top1']:.4f}",
        "left out": f"{test['undecoded']} photos that TensorFlow cannot decode; the export refuses such photos",
        "differences": f"{test['labels_changed']} labels, a probability by {test['largest_difference']:.1e} at most",
        "temperature": "1, not calibrated" if calibration is None else _temperature(calibration),
    }
    return ["Compared with the run in a fresh process:", "", *_table(rows)]


def _temperature(calibration: dict) -> str:
    return (
        f"{calibration['temperature']:.3f}, fitted to the validation photos; calibration error on the test photos "
        f"{calibration['ece_before']:.4f} before, {calibration['ece_after']:.4f} after"
    )


def _limits(run: FinishedRun) -> list[str]:
    lines = [
        "- A photo is shrunk until its short side is 8/7 of the network's, and only the central square is seen.",
        "- Photos from another camera, place or time may be recognised less well than the test photos were.",
        "- One seed; another gives somewhat other scores.",
    ]
    if run.settings["weights"] == "imagenet":
        lines.append("- The backbone was trained on ImageNet; test photos that are in it are not new to the model.")
    if run.result["notice"]:
        lines.append(f"- {run.result['notice']}")
    return lines


def _versions(run: FinishedRun) -> list[str]:
    return _table({"python": run.environment["python"], **run.environment["versions"]})


def _table(rows: dict) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
