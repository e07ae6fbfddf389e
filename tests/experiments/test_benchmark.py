"""experiments/benchmark.py: its table's formula, and a small benchmark from end to end."""

import argparse
import importlib.util
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from support import REPOSITORY

EXPERIMENTS = REPOSITORY / "experiments"
with_beam = pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="needs the extra beam")
COLUMNS = ["case", "way", "seconds", "rate", "times as fast", "validation top-1", "test top-1", "peak MiB", "note"]


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    from benchmarks.tables import table

    return table


def benchmark(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, EXPERIMENTS / "benchmark.py", *arguments]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=900)


def rows_of(lines: list[str]) -> list[dict]:
    """The rows of a Markdown table, its two lines of header left out."""
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    assert cells[0] == COLUMNS
    assert set("".join(cells[1])) == {"-"}
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells[2:]]


def expected_row(measured: list[dict], case: str, way: str, baseline: str) -> tuple[str, str]:
    """Seconds and ratio as the table should print them, with numpy from arrays [round]."""

    def costs(name):
        found = sorted((m["round"], m["seconds"], m.get("units", 1)) for m in measured if (m["case"], m["way"]) == name)
        return np.array([seconds for _, seconds, _ in found]), np.array([units for _, _, units in found])

    (seconds, units), (base_seconds, base_units) = costs((case, way)), costs((case, baseline))
    ratios = (base_seconds * units) / (base_units * seconds)
    return f"{np.median(seconds):.2f}", f"{np.median(ratios):.2f}"


def made_up(way: str, number: int, seconds: float, **more) -> dict:
    return {"case": "all", "way": way, "round": number, "failed": False, "seconds": seconds, **more}


def test_table_has_medians_and_ratios_of_the_same_rounds(table):
    # The ratio of the medians would be 2 / 3; the median of the ratios is 1 / 2.
    slow = [made_up("slow", number, seconds) for number, seconds in enumerate([1.0, 2.0, 9.0])]
    fast = [made_up("fast", number, seconds) for number, seconds in enumerate([2.0, 4.0, 3.0])]
    found = rows_of(table([*slow, *fast]))
    assert [(row["way"], row["seconds"], row["times as fast"]) for row in found] == [
        ("slow", "2.00", "1.00"),
        ("fast", "3.00", "0.50"),
    ]


def test_table_compares_seconds_a_unit_of_work(table):
    measured = [
        made_up("1x", 0, 2.0, units=10, unit="photos", peak_mib=5.0),
        made_up("4x", 0, 4.0, units=40, unit="photos", peak_mib=7.6, note="an epoch"),
    ]
    one, four = rows_of(table(measured))
    assert (one["rate"], one["times as fast"], one["peak MiB"], one["note"]) == ("5 photos/s", "1.00", "5", "")
    assert (four["rate"], four["times as fast"], four["peak MiB"], four["note"]) == (
        "10 photos/s",
        "2.00",
        "8",
        "an epoch",
    )


def test_table_has_the_mean_and_the_spread_of_scores_over_rounds(table):
    scores = [0.5, 0.6, 0.8]
    found = rows_of(table([made_up("run", seed, 1.0, test_top1=score) for seed, score in enumerate(scores)]))
    assert found[0]["test top-1"] == f"{np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f}"
    assert rows_of(table([made_up("run", 0, 1.0, test_top1=0.5)]))[0]["test top-1"] == "0.500"


def test_table_takes_the_first_way_of_each_case_for_its_baseline(table):
    seconds = {("a", "plain"): 4.0, ("a", "cached"): 1.0, ("b", "plain"): 6.0, ("b", "cached"): 2.0}
    measured = [{**made_up(way, 0, took), "case": case} for (case, way), took in seconds.items()]
    assert [row["times as fast"] for row in rows_of(table(measured))] == ["1.00", "4.00", "1.00", "3.00"]


def test_table_leaves_empty_what_was_not_measured(table):
    failed = {"case": "all", "way": "xla", "round": 0, "failed": True, "note": "failed: no compiler"}
    row = rows_of(table([made_up("plain", 0, 1.0, peak_mib=1.0), failed]))[1]
    assert row == dict.fromkeys(COLUMNS, "") | {"case": "all", "way": "xla", "note": "failed: no compiler"}


@pytest.mark.parametrize(
    ("flag", "place", "told"),
    [
        ("--cache-dir", "file/caches", "Expected a folder that can be made. Received: --cache-dir "),
        ("--json", "file/measured.json", "Expected a folder that can be made. Received: --json "),
        ("--json", ".", "Expected a file to write, or nothing. Received: --json "),
    ],
)
def test_places_that_cannot_be_written_to_are_told_before_anything_is_measured(tmp_path, flag, place, told):
    (tmp_path / "file").touch()
    found = benchmark("--sections", "guide", "--dataset", "nowhere", flag, tmp_path / place)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith(f"benchmark.py: {told}")
    assert found.stderr.count("\n") == 1


def test_places_that_are_not_there_are_made(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    import benchmark as module

    options = argparse.Namespace(cache_dir=str(tmp_path / "a" / "caches"), json=str(tmp_path / "b" / "measured.json"))
    module.make_places(options)
    module.make_places(options)
    assert (tmp_path / "a" / "caches").is_dir()
    assert list((tmp_path / "b").iterdir()) == []


def test_every_way_trains_as_many_steps_as_the_settings_say(monkeypatch, photo_folder, tiny_backbone):
    """One pass over 54 photos an epoch, which are 2 steps; a floor on steps would be another amount of work."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    from benchmarks.feeds import feature_inputs
    from benchmarks.work import prepare

    settings = argparse.Namespace(
        dataset=str(photo_folder), data_dir=None, backbone=str(tiny_backbone), weights="imagenet", epochs=2,
        photos_a_class=None,
    )  # fmt: skip
    work = prepare(settings, depth="block_relu")
    assert feature_inputs(work, {}).steps_per_epoch == math.ceil(54 / work.config.batch_size) == 2


def check_training(measured):
    plain, floor, cached = measured
    assert (plain["way"], floor["way"], cached["way"]) == ("plain", "floor", "cached")
    assert plain["validation_top1"] == pytest.approx(cached["validation_top1"], abs=0.2)
    assert 0 < cached["pass_seconds"] < cached["seconds"]


def check_step(measured):
    assert [row["way"] for row in measured] == ["convolution", "product", "product, graph as traced"]


def check_pass(measured):
    variants = {row["way"]: row for row in measured if "difference" in row}
    assert variants["unfolded"]["difference"] < 1e-4
    assert all(variants[way]["difference"] < 1e-3 for way in ("batch_32", "constants", "litert", "onnx"))


def check_use(measured):
    assert [row["way"] for row in measured] == ["keras_predict", "run", "saved_model"]


def check_guide(measured):
    ways = {row["way"]: row for row in measured}
    assert ways.pop("timm_fine_tuning")["note"] == "skipped: no --timm-python"
    assert list(ways) == ["keras_guide", "keras_guide_of_all", "default_run", "chosen_head", "keras_fine_tuning"]
    assert all(0 < row["test_top1"] <= 1 and row["cpu_seconds"] > 0 for row in ways.values())
    for row in ways.values():
        assert row["correct"].count("1") == pytest.approx(row["test_top1"] * len(row["correct"]))
    assert ways["default_run"]["note"] == "kept"


def check_evolve(measured):
    assert [row["way"] for row in measured] == ["again", "new"]


def check_portions(measured):
    one, two = measured
    assert (one["way"], two["way"]) == ("1 process", "2 processes")
    assert one["units"] == two["units"]
    assert all(row["cpu_seconds"] > 0 for row in measured)


def check_beam(measured):
    one, beam = measured
    assert (one["way"], beam["way"]) == ("1 process", "Beam, 2 processes")
    assert one["units"] == beam["units"] == 60
    assert "; 60 rows as those of 1 process, " in beam["note"]


def check_stages(measured):
    ways = [row["way"] for row in measured]
    assert (ways[0], ways[-1], len(ways)) == ("imports", "serve", 8)


CHECKS = {
    "training": check_training,
    "step": check_step,
    "pass": check_pass,
    "use": check_use,
    "guide": check_guide,
    "evolve": check_evolve,
    "portions": check_portions,
    "beam": check_beam,
    "stages": check_stages,
}
"""Section -> a test of its measurements."""


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param(("training", "step", "guide", "evolve", "portions"), marks=pytest.mark.slow),
        pytest.param(("pass", "use", "stages"), marks=pytest.mark.long),
        pytest.param(("beam",), marks=(pytest.mark.slow, with_beam)),
    ],
)
def test_small_benchmark(photo_folder, tiny_backbone, tmp_path, sections):
    file = tmp_path / "measured.json"
    flags = ["--quick", "--sections", *sections, "--dataset", photo_folder, "--backbone", tiny_backbone]
    flags += ["--depths", "block_relu", "--grid-depths", "block_relu", "point_relu", "--json", file]
    flags += ["--scaling-depth", "block_relu"]
    done = benchmark(*flags)
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    assert report["settings"]["epochs"] == 2
    assert report["environment"]["versions"]["keras"]
    assert not [row for row in report["measured"] if row["failed"]]
    timed = [row for row in report["measured"] if not row.get("note", "").startswith("skipped")]
    assert all(row["seconds"] > 0 and row["peak_mib"] > 100 for row in timed)
    tables = done.stdout.split("## ")[1:]
    assert len(tables) == len(sections)
    for text, name in zip(tables, sections, strict=True):
        section, *lines = text.strip().splitlines()
        assert section == name
        measured = [row for row in report["measured"] if row["section"] == section]
        CHECKS[section](measured)
        baselines = {row["case"]: row["way"] for row in reversed(measured)}
        found = rows_of(lines[1:])
        assert len(found) == len({(row["case"], row["way"]) for row in measured})
        skipped = [row for row in found if row["note"].startswith("skipped")]
        assert {(row["seconds"], row["times as fast"]) for row in skipped} <= {("", "")}
        for row in [row for row in found if row not in skipped]:
            expected = expected_row(measured, row["case"], row["way"], baselines[row["case"]])
            assert (row["seconds"], row["times as fast"]) == expected


PROGRAMS = (
    "Keras' fit",
    "Keras' fit, batches in the device's memory",
    "an epoch in one program",
    "5 vectorized",
    "30 vectorized",
)


@pytest.mark.long
def test_small_benchmark_of_the_backends_that_are_installed(photo_folder, tiny_backbone, tmp_path):
    """`.ci/run` has it where TensorFlow is not, as on the machine that experiments/gpu.sh is for."""
    ways = {"tensorflow": ("tensorflow", "tensorflow, XLA"), "jax": ("jax",)}
    installed = [backend for backend in ways if importlib.util.find_spec(backend)]
    file = tmp_path / "measured.json"
    of_search = ("--dataset", photo_folder, "--backbone", tiny_backbone, "--grid-depths", "block_relu", "point_relu")
    of_rates = ("--backbones", "mobilenet_0.25", "--precisions", "float32", "--json", file)
    done = benchmark("--quick", "--sections", "accelerator", *of_search, *of_rates)
    assert done.returncode == 0, done.stderr
    measured = json.loads(file.read_text())["measured"]
    two = {"search of 2 trials": ("keras_tuner", "ktl"), "6 trials behind all": ("one by one", "at once")}
    assert {(row["case"], row["way"]) for row in measured} == {
        *(
            (f"mobilenet_0.25, {work}", way)
            for work in ("pass, float32", "steps behind 50%")
            for backend in installed
            for way in ways[backend]
        ),
        *((f"{case} on {backend}", way) for case in two for backend in installed for way in two[case]),
        *(("programs behind all on jax", way) for way in PROGRAMS if "jax" in installed),
    }
    for row in measured:
        assert row["seconds"] > 0
        assert row["unit"] in ("combinations", "trials") or "compiled in" in row["note"]
    for row in measured:
        if row["way"] in ("keras_tuner", "one by one"):
            assert row["note"].startswith("1 measured in"), "the others are computed, and that is said"
            assert len(row["trials"]) == 1
    together = [row["trials"] for row in measured if row["way"] == "at once"]
    assert [len(trials) for trials in together] == [6] * len(installed)
    tuned = [row["validation_top1"] for row in measured if row["unit"] == "combinations"]
    assert len(tuned) == 2 * len(installed)
