"""What a terminal shows of long work."""

import io

import numpy as np
import pytest
from rich.console import Console

from ktl.cli.console import TerminalReporter, print_result
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


@pytest.mark.parametrize(("classes", "shown"), [(5, False), (6, True)])
def test_top5_is_shown_where_there_are_more_classes(capsys, classes, shown):
    scores = score(np.eye(classes), np.arange(classes))
    result = {"validation": scores, "test": scores, "parameters": {"frozen": 1, "total": 2}, "seconds": 3.0}
    print_result({**result, "best_epoch": 1, "epochs": 2, "frozen_up_to": "block"}, "folder")
    out = capsys.readouterr().out
    assert ("top-5" in out) == shown
    assert "top-1" in out
    assert "macro F1" in out
