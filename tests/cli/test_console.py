"""What a terminal shows of long work."""

import io

import pytest
from rich.console import Console

from ktl.cli.console import TerminalReporter
from ktl.config.settings import RunConfig
from ktl.data.loading import load_dataset
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
