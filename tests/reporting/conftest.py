"""Made-up folders and their pages, which the tests of a report share. Do not write there."""

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from html_page import HtmlPage as Page
from made_up_folders import HOSTILE, made_up, write_kept_layer, write_run, write_search
from made_up_studies import STUDY, study_runs, write_study
from support import write_photos

from ktl.config.settings import RunConfig
from ktl.data.loading import load_dataset
from ktl.reporting.page import write_report


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """A CSV of 36 test photos, of classes and photos with the names of `HOSTILE`."""
    root = tmp_path_factory.mktemp("hostile")
    sources = sorted(write_photos(root / "plain", classes=6, each=8).rglob("*.*g"))
    lines = [["path", "label", "split"]]
    for number, source in enumerate(sources):
        name = f"{number:02} <i>'\"& ö.{source.suffix}"
        shutil.copy(source, root / name)
        split = "train" if number % 8 == 0 else "validation" if number % 8 == 1 else "test"
        lines.append([name, HOSTILE[number // 8], split])
    with open(root / "photos.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return root / "photos.csv"


@pytest.fixture(scope="session")
def hostile(dataset, tmp_path_factory):
    """(folder, page, probabilities, labels, test split, class names)."""
    loaded = load_dataset(str(dataset))
    probabilities, _ = made_up(36, 6, sure=0.0, seed=3)
    labels = loaded.test.labels
    folder = tmp_path_factory.mktemp("run") / "hostile"
    write_run(
        folder,
        RunConfig(dataset=str(dataset)),
        class_names=loaded.class_names,
        photos=loaded.test.photos,
        validation=made_up(30, 6),
        test=(probabilities, labels),
        notice="<u>Made from</u> ImageNet.",
    )
    path = write_report([folder], output=folder.parent / "new" / "report.html")
    return folder, Page(path), probabilities, labels, loaded.test, loaded.class_names


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """(page, probabilities, labels) of 60 classes and 900 photos whose data set is gone."""
    probabilities, labels = made_up(900, 60)
    folder = tmp_path_factory.mktemp("many") / "run"
    write_run(
        folder,
        RunConfig(dataset="/no/such/folder"),
        class_names=[f"class {number}" for number in range(60)],
        photos=[f"{number}.jpg" for number in range(900)],
        validation=made_up(60, 60),
        test=(probabilities, labels),
    )
    return Page(write_report([folder], output=folder / "report.html")), probabilities, labels


@pytest.fixture(scope="session")
def searched(hostile, tmp_path_factory):
    """(folder, page, trials)."""
    folder = tmp_path_factory.mktemp("search") / "search"
    rows = write_search(folder, hostile[0])
    return folder, Page(write_report([folder], output=folder / "report.html")), rows


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """(folders, page): three seeds of one setting, one of another."""
    root = tmp_path_factory.mktemp("compared")
    folders = []
    base = RunConfig(dataset="/photos/flowers", backbone="/nets/tiny.keras")
    for number, config in enumerate(
        [*(dataclasses.replace(base, seed=seed) for seed in (2, 0, 1)), dataclasses.replace(base, label_smoothing=0.1)]
    ):
        folders.append(root / ("x", "y", "z", "x")[number] / ("run", "run", "run", "other")[number])
        write_run(
            folders[-1],
            config,
            class_names=["a", "b", "c", "d"],
            photos=[f"{index}.jpg" for index in range(80)],
            validation=made_up(40, 4, seed=10 + number),
            test=made_up(80, 4, seed=number),
        )
    return folders, Page(write_report(folders, output=root / "report.html"))


@pytest.fixture(scope="session")
def studied(tmp_path_factory):
    """(folder, page, runs, rows of the summary)."""
    folder = tmp_path_factory.mktemp("study") / "study"
    runs = study_runs(STUDY)
    summary = write_study(folder, STUDY, runs)
    return folder, Page(write_report([folder], output=folder.parent / "report.html")), runs, summary


@pytest.fixture(scope="session")
def explained(tmp_path_factory):
    """(page, rows of kept_layer.csv, class names) of 50 classes, of which the first 30 are recognised."""
    names = [f"class {number}" for number in range(50)]
    labels = np.repeat(np.arange(50, dtype=np.int32), 2)
    probabilities = np.eye(50)[np.where(labels < 30, labels, 0)]
    folder = tmp_path_factory.mktemp("explained") / "run"
    run = write_run(
        folder,
        RunConfig(dataset="/gone"),
        class_names=names,
        photos=[f"{number}.jpg" for number in range(100)],
        validation=(probabilities, labels),
        test=(probabilities, labels),
    )
    rows = write_kept_layer(run, names, unlike={(3, 1), (4, 2)}, faint={2, 45})
    return Page(write_report([folder], output=folder / "report.html")), rows, names


@pytest.fixture(params=["hostile", "many", "searched", "compared", "studied"])
def page(request) -> Page:
    return next(part for part in request.getfixturevalue(request.param) if isinstance(part, Page))
