"""What a terminal shows of long work."""

import io

import numpy as np
import pytest
from made_up_studies import LIMITS, STUDY, MadeUpStudy, study_runs
from rich.console import Console
from rich.table import Table

from ktl.cli.console import TerminalReporter, print_result, print_search, print_study
from ktl.cli.tables import output_console, visible
from ktl.config.settings import RunConfig
from ktl.data.loading import load_dataset
from ktl.evaluation.metrics import score
from ktl.runs.session import Session

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def test_the_cursor_comes_back_after_an_interrupt(photo_folder, tiny_backbone, tmp_path):
    screen = io.StringIO()
    reporter = TerminalReporter()
    reporter.console = Console(file=screen, force_terminal=True)
    config = RunConfig(dataset=str(photo_folder), backbone=str(tiny_backbone), epochs=2, cache="off")
    training = Session(config, load_dataset(config.dataset), reporter=reporter).prepare()

    def interrupt(row):
        raise KeyboardInterrupt

    reporter.epoch = interrupt
    with pytest.raises(KeyboardInterrupt):
        training.fit(tmp_path, reporter=reporter)
    assert screen.getvalue().count(HIDE) == screen.getvalue().count(SHOW) > 0


def test_names_are_shown_as_they_are_and_steer_no_terminal(capsys):
    name = "a[bold]b :key:\x1b[31m\x9b\n"
    shown = "a[bold]b :key:\\x1b[31m\\x9b\\n"
    TerminalReporter().message(name)
    assert capsys.readouterr().err == f"{shown}\n"
    console, table = output_console(), Table("photo")
    table.add_row(*visible(name))
    console.print(table)
    assert shown in capsys.readouterr().out


def result_of(scores, **more) -> dict:
    """What result.json of a run has for the terminal."""
    numbers = {"parameters": {"frozen": 1, "total": 2}, "seconds": 3.0, "best_epoch": 1, "epochs": 2}
    return {"validation": scores, "test": scores, **numbers, "frozen_up_to": "block", "photos": {"test": 340}, **more}


DUPLICATES = {
    "of version 0.1": ({}, ""),
    "none": ({"without_duplicates": {"photos": 340, "test": {"top1": 0.9}}}, ""),
    "some": (
        {"without_duplicates": {"photos": 326, "test": {"top1": 0.875}}},
        "test top-1 1.0000 on 340 photos; 0.8750 on the 326 that look like no training or validation photo; "
        "duplicates.csv has the others\n",
    ),
    "all": (
        {"without_duplicates": {"photos": 0, "test": None}},
        "every test photo looks like a training or validation photo, see duplicates.csv\n",
    ),
}


@pytest.mark.parametrize("case", DUPLICATES)
def test_scores_without_duplicates_are_told_where_there_are_some(capsys, case):
    more, said = DUPLICATES[case]
    print_result(result_of(score(np.eye(3), np.arange(3)), **more), "folder")
    assert capsys.readouterr().out.endswith(f"00:03 in all\n{said}folder\n")


@pytest.mark.parametrize(("classes", "shown"), [(5, False), (6, True)])
def test_top5_is_shown_where_there_are_more_classes(capsys, classes, shown):
    scores = score(np.eye(classes), np.arange(classes))
    print_result(result_of(scores), "folder")
    out = capsys.readouterr().out
    assert ("top-5" in out) == shown
    assert "top-1" in out
    assert "macro F1" in out


@pytest.mark.parametrize(
    ("refit", "said"),
    [
        (None, ""),
        (
            {"photos": 1024, "epochs": 1},
            "the model was trained again on 1,024 training and validation photos for 1 epoch; validation scores are "
            "those of the training before\n",
        ),
    ],
)
def test_a_search_tells_of_the_second_training_as_a_run_does(capsys, refit, said):
    result = result_of(score(np.eye(3), np.arange(3)), refit=refit, settings={})
    print_result(result, "folder")
    assert capsys.readouterr().out.endswith(f"00:03 in all\n{said}folder\n")
    print_search({**result, "oracle": "grid", "space": {}, "trials": {"completed": 1}}, [], "folder")
    assert capsys.readouterr().out.endswith(f"00:03 since the last start\n{said}folder\n")


def test_what_a_study_could_have_shown_is_said_of_each_head(capsys):
    result = MadeUpStudy(STUDY, study_runs(STUDY)).result(notice=None)
    unclear, clear = (row for row in result["best"] if row["head"] != "replaced")
    unclear |= {"verdict": "no difference shown", "limits": LIMITS}
    clear |= {"verdict": "gains 9.0 points (+8.0 to +10.0)", "limits": ""}
    print_study(result, "out")
    lines = capsys.readouterr().out.splitlines()
    assert lines.count(f"{unclear['head']}: {LIMITS}") == 1
    assert not any(line.startswith(f"{clear['head']}:") for line in lines)
    (legend,) = [line for line in lines if "Holm" in line]
    assert legend.startswith("in brackets: 95 % interval for other seeds and other photos; verdicts are adjusted")


def test_a_study_of_version_0_1_says_none_of_it(capsys):
    result = MadeUpStudy(STUDY, study_runs(STUDY)).result(notice=None)
    result["best"] = [{name: row[name] for name in row if name != "limits"} for row in result["best"]]
    print_study(result, "out")
    assert "Holm" not in capsys.readouterr().out
