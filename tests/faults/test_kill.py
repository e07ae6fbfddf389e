"""Runs that are killed or interrupted, and continued by the same command."""

import csv
import json
import os
import random
import signal
import time

import pytest
from support import Command

EPOCHS = 60


def flags(photos, backbone, output) -> list[str]:
    settings = {
        "dataset": photos,
        "backbone": backbone,
        "freeze_depth": "depthwise_relu",
        "cache": "off",
        "epochs": EPOCHS,
        "patience": 0,
        "batch_size": 2,
        "least_steps": 1,
        "learning_rate": 0.003,
        "output": output,
    }
    named = [part for name, value in settings.items() for part in ("--" + name.replace("_", "-"), str(value))]
    return ["run", *named, "--deterministic"]


def epochs_done(output, stage="checkpoint") -> int:
    try:
        return len(json.loads((output / stage / "state.json").read_text())["history"])
    except FileNotFoundError:
        return 0


def stop(command, output, with_signal, *, after: int, delay: float) -> int:
    """Sends a signal some time after `after` epochs are on disk; gives the number of epochs there afterwards."""
    limit = time.monotonic() + 300
    while epochs_done(output) < after:
        assert command.running, command.wait()
        assert time.monotonic() < limit
        time.sleep(0.01)
    time.sleep(delay)
    assert command.running, "the run ended before the signal: give it more epochs"
    os.kill(command.process.pid, with_signal)
    command.process.join(60)
    return epochs_done(output)


def read_history(output) -> list[dict]:
    with open(output / "history.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, photo_folder, tiny_backbone):
    """A run that nothing disturbs, beside one that is killed three times and interrupted once."""
    folder = tmp_path_factory.mktemp("kill")
    calm = Command(*flags(photo_folder, tiny_backbone, "calm"), folder=folder)
    chance, output, stops = random.Random(0), folder / "disturbed", []
    for with_signal in (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        before = epochs_done(output)
        command = Command(*flags(photo_folder, tiny_backbone, "disturbed"), folder=folder)
        after = stop(command, output, with_signal, after=before + 1, delay=chance.uniform(0, 0.4))
        stops.append((with_signal, before, after, command.wait(), (output / "result.json").exists()))
    last = Command(*flags(photo_folder, tiny_backbone, "disturbed"), folder=folder)
    return {"folder": folder, "stops": stops, "last": last.wait(), "calm": calm.wait()}


def test_every_stop_was_in_the_middle_and_the_next_start_went_on(outcomes):
    done = 0
    for with_signal, before, after, (code, _, err), has_result in outcomes["stops"]:
        assert code == (130 if with_signal == signal.SIGINT else -signal.SIGKILL)
        assert before == done < after < EPOCHS
        first = next(line for line in err.splitlines() if line.startswith("epoch "))
        assert first.startswith(f"epoch {before + 1}/{EPOCHS} ")
        assert not has_result
        done = after


def test_an_interrupt_is_told_in_one_line(outcomes):
    ((code, out, err),) = (answer for with_signal, _, _, answer, _ in outcomes["stops"] if with_signal == signal.SIGINT)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "ktl: interrupted; repeat the command to continue"
    assert "Traceback" not in err


def test_the_run_ends_as_the_undisturbed_one_to_the_last_bit(outcomes):
    assert outcomes["last"][0] == outcomes["calm"][0] == 0, (outcomes["last"][2], outcomes["calm"][2])
    calm, disturbed = (outcomes["folder"] / name for name in ("calm", "disturbed"))
    history = read_history(disturbed)
    assert [row["epoch"] for row in history] == [str(epoch) for epoch in range(1, EPOCHS + 1)]
    assert history == read_history(calm)
    for name in ("predictions.csv", "confusion.csv", "classes.csv", "labels.txt"):
        assert (disturbed / name).read_bytes() == (calm / name).read_bytes()
    results = [json.loads((folder / "result.json").read_text()) for folder in (disturbed, calm)]
    for part in ("validation", "test", "best_epoch", "epochs"):
        assert results[0][part] == results[1][part]
    assert results[1]["validation"]["top1"] > 0.5  # it did learn


def test_nothing_of_the_kills_stays_in_the_folder(outcomes):
    names = [set(os.listdir(outcomes["folder"] / name)) for name in ("calm", "disturbed")]
    assert names[0] == names[1]
    assert "checkpoint" not in names[0]


def test_a_run_that_is_killed_in_its_second_training_goes_on_there(tmp_path, photo_folder, tiny_backbone):
    given = [*flags(photo_folder, tiny_backbone, "out"), "--refit", "--epochs", "12"]
    command, limit = Command(*given, folder=tmp_path), time.monotonic() + 300
    while epochs_done(tmp_path / "out", "checkpoint-refit") < 1:
        assert command.running, command.wait()
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.kill(command.process.pid, signal.SIGKILL)
    command.process.join(60)
    done = epochs_done(tmp_path / "out", "checkpoint-refit")
    assert not (tmp_path / "out" / "result.json").exists()
    code, _, err = Command(*given, folder=tmp_path).wait()
    assert code == 0, err
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert not [line for line in err.splitlines() if line.startswith("epoch ")]
    told = [line for line in err.splitlines() if line.startswith("refit, epoch ")]
    assert len(told) == result["refit"]["epochs"] - done
    assert "checkpoint-refit" not in os.listdir(tmp_path / "out")
