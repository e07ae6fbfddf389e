"""Whole commands whose photos and features are at URLs: machines that share nothing but these."""

import csv
import json

import pytest
from support import Interrupt, Listener

import ktl
from ktl.cli.main import main
from ktl.config.settings import RunConfig
from ktl.errors import UserError
from ktl.features import shards_at
from ktl.remote import Unreachable, read_parts
from ktl.runs.run import run

pytestmark = pytest.mark.usefixtures("settled_photos")


@pytest.fixture
def ktl_on(tiny_backbone, place, tmp_path, monkeypatch, capsys):
    """Runs a command as a machine of that name, with a cache folder of its own; its exit code and what it printed."""
    monkeypatch.setattr(shards_at, "LIST_SECONDS", 0.0)
    network = ("--backbone", tiny_backbone, "--freeze-depth", "block_relu", "--views", 2)

    def ktl_on(machine, command, *arguments):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        code = main([str(argument) for argument in (command, *network, *arguments)])
        return code, *capsys.readouterr()

    return ktl_on


SCORES = ("test", "validation", "duplicates")


def test_photos_and_features_at_urls(ktl_on, place, photo_folder, tiny_backbone, tmp_path, monkeypatch):
    """Two machines compute a portion each, and a third one trains as if it had photos and features on its disk."""
    photos = place.put_folder(photo_folder, "stripes")
    at_urls = ("--dataset", photos, "--cache-dir", f"{place.url}/cache")
    for number in (1, 2):
        code, out, _ = ktl_on(f"machine {number}", "features", *at_urls, "--shard", f"{number}/2", "--json")
        found = json.loads(out)
        assert (code, found["there"], found["cache_dir"]) == (0, 0, f"{place.url}/cache")
        assert found["computed"] == found["photos"] > 0
    assert len([name for name in place.names("cache/") if name.endswith(".shard")]) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine 3"))
    places = {"there": (photos, f"{place.url}/cache"), "here": (photo_folder, tmp_path / "cache")}
    results, tasks = {}, {}
    for name, (dataset, cache) in places.items():
        listener = Listener()
        training = {"epochs": 1, "batch_size": 8, "least_steps": 1, "cache": "on", "cache_dir": cache}
        network = {"backbone": tiny_backbone, "freeze_depth": "block_relu", "views": 2}
        config = RunConfig(dataset=dataset, **network, **training)
        results[name] = run(config, output=tmp_path / name, verbose=listener)
        tasks[name] = [task for task, _ in listener.tasks]
    assert tasks["there"] == ["copying features here", "looking for duplicates"]  # and no photo was read for a digest
    assert {name: results["there"][name] for name in SCORES} == {name: results["here"][name] for name in SCORES}
    assert (tmp_path / "there" / "predictions.csv").read_text() == (tmp_path / "here" / "predictions.csv").read_text()
    _, out, _ = ktl_on("machine 3", "features", *at_urls)
    assert out.splitlines()[0] == "stripes: 72 photos, 72 were there, 0 computed"


@pytest.mark.parametrize("cache_limit", [0, 0.0001])
def test_a_store_that_is_larger_than_the_limit_here_trains_to_the_same_numbers(
    ktl_on, place, photo_folder, tiny_backbone, tmp_path, monkeypatch, cache_limit
):
    """To the bit: what is read, and in which order, is a function of the settings, not of where it is."""
    code, _, _ = ktl_on("machine 1", "features", "--dataset", photo_folder, "--cache-dir", f"{place.url}/cache")
    assert code == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine 2"))
    caches = {"there": (f"{place.url}/cache", cache_limit), "here": (tmp_path / "cache", None)}
    results, told = {}, {name: Listener() for name in caches}
    for name, (cache, limit) in caches.items():
        training = {"epochs": 3, "batch_size": 8, "least_steps": 1, "cache": "on", "cache_dir": cache}
        network = {"backbone": tiny_backbone, "freeze_depth": "block_relu", "views": 2}
        config = RunConfig(dataset=photo_folder, **network, **training, cache_limit=limit)
        results[name] = run(config, output=tmp_path / name, verbose=told[name])
    line = f"each is read at {place.url}/cache when it is needed"
    assert [line in message for message in told["there"].messages].count(True) == 1
    rows = {name: [{**row, "seconds": 0} for row in listener.rows] for name, listener in told.items()}
    assert rows["there"] == rows["here"] != []
    assert {name: results["there"][name] for name in SCORES} == {name: results["here"][name] for name in SCORES}
    assert (tmp_path / "there" / "predictions.csv").read_text() == (tmp_path / "here" / "predictions.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["search", "study"])
def test_searches_and_studies_read_rows_at_a_url(place, photo_folder, tiny_backbone, tmp_path, monkeypatch, kind):
    """At two freeze depths, of what `ktl features` has computed on another machine."""
    network = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), "augmentation": "none"}
    depths = ("stem_relu", "block_relu")
    files = {"search": "trials.csv", "study": "summary.csv"}
    kinds = {
        "search": (ktl.search, {"space": {"freeze_depth": depths, "scale": (1.0, 10.0)}, "seeds": 1}),
        "study": (ktl.study, {"depths": depths, "heads": ("kept",), "seeds": 1}),
    }
    run_it, settings = kinds[kind]
    settings |= {**network, "epochs": 2, "batch_size": 8, "least_steps": 1, "cache": "on"}
    read, caches = [], {"here": tmp_path / "cache", "there": f"{place.url}/cache"}
    monkeypatch.setattr(shards_at, "read_parts", lambda parts: read.append(len(parts)) or read_parts(parts))
    found = {}
    for name, cache in caches.items():
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"machine that computes, {name}"))
        flags = [f"--{flag}={value}" for flag, value in {**network, "freeze_depth": ",".join(depths)}.items()]
        assert main(["features", *(flag.replace("_", "-", 1) for flag in flags), f"--cache-dir={cache}"]) == 0
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"machine that trains, {name}"))
        limit = 0 if name == "there" else None
        run_it(**settings, cache_dir=str(cache), cache_limit=limit, output=tmp_path / name, verbose=0)
        with open(tmp_path / name / files[kind], newline="") as file:
            found[name] = [{**row, "seconds": ""} for row in csv.DictReader(file)]
        assert bool(read) == (name == "there")
    assert found["here"] == found["there"] != []


def test_a_server_that_goes_while_rows_are_read_ends_a_training_that_then_goes_on(
    place, photo_folder, tiny_backbone, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    training = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), "freeze_depth": "block_relu"}
    training |= {"epochs": 4, "patience": 0, "batch_size": 8, "least_steps": 1, "cache": "on"}
    training |= {"cache_dir": f"{place.url}/cache", "cache_limit": 0.01}
    whole = run(**training, output=tmp_path / "whole", verbose=0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    training["cache_limit"] = 0
    calls = iter(range(1000))

    def until_it_goes(parts):
        if next(calls) > 20:
            raise Unreachable("Expected s3://bucket to be reached. Received: nothing")
        return read_parts(parts)

    with monkeypatch.context() as patch:
        patch.setattr(shards_at, "read_parts", until_it_goes)
        with pytest.raises(UserError, match=r"^Expected s3://bucket to be reached\. Received: nothing$"):
            run(**training, output=tmp_path / "run", verbose=0)
    listener = Listener()
    resumed = run(**training, output=tmp_path / "run", verbose=listener)
    assert 0 < len(listener.rows) < 4
    assert {name: resumed[name] for name in SCORES} == {name: whole[name] for name in SCORES}


def test_a_network_at_a_url(place, photo_folder, tiny_backbone, tmp_path):
    """It trains as the same file here does; a run that was interrupted takes no other one."""
    url = place.put("tiny.keras", tiny_backbone.read_bytes())
    training = {"dataset": str(photo_folder), "epochs": 2, "patience": 0, "batch_size": 8, "least_steps": 1}
    with pytest.raises(Interrupt):
        run(backbone=url, output=tmp_path / "there", **training, verbose=Listener(interrupt_after=1))
    place.put("tiny.keras", tiny_backbone.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"^Expected the photos, classes, splits and files that the run in "):
        run(backbone=url, output=tmp_path / "there", **training)
    place.put("tiny.keras", tiny_backbone.read_bytes())
    there = run(backbone=url, output=tmp_path / "there", **training)
    here = run(backbone=str(tiny_backbone), output=tmp_path / "here", **training)
    assert {name: there[name] for name in SCORES} == {name: here[name] for name in SCORES}


def test_a_bad_photo_at_a_url_is_named_and_left_out(ktl_on, place, photo_folder, tmp_path):
    photos = place.put_folder(photo_folder, "stripes")
    place.put("stripes/class0/00.png", b"no photo")
    given = ("features", "--dataset", photos, "--cache-dir", f"{place.url}/cache")
    code, _, err = ktl_on("machine", *given)
    assert code == 2
    assert err.splitlines()[-1].startswith("ktl: Expected photos that can be decoded. Received: 1 of 72 that cannot: ")
    code, out, _ = ktl_on("machine", *given, "--on-bad-image", "skip", "--json")
    assert code == 0
    assert [bad["photo"] for bad in json.loads(out)["bad_photos"]] == ["class0/00.png"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--cache-dir", "https://a.example/b"],
            "Expected --cache-dir as a folder, or a URL that files can be written to",
        ),
        (
            ["--cache-dir", "{url}/stripes/cache"],
            "Expected --cache-dir outside of the data set {url}/stripes, of which",
        ),
        (["--output", "{url}/run"], "Expected --output on this machine. Received: {url}/run, a URL."),
        (["--export", "{url}/stripes/model"], "Expected --export outside of the data set {url}/stripes, of which it"),
    ],
)
def test_urls_that_cannot_be_are_one_line(ktl_on, place, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    photos = f"{place.url}/stripes"
    given = [argument.format(url=place.url) for argument in arguments]
    code, _, err = ktl_on("machine", "run", "--dataset", photos, *given)
    assert code == 2
    assert err.splitlines()[-1].startswith(f"ktl: {line.format(url=place.url)}")
