"""What API users see of long work: nothing, lines in a log, or what their own reporter does with it."""

import logging
import subprocess
import sys

import pytest

from ktl.errors import UserError
from ktl.progress import LoggingReporter, Reporter, clock, reporter_for

ROW = {"epoch": 2, "loss": 1.25, "top1": 0.5, "validation_top1": 0.75, "seconds": 4.0}
LINE = "epoch 2/17  loss 1.250  top-1 0.500  validation 0.750  60 images/s  01:00 left"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00"), (59.9, "00:59"), (3599, "59:59"), (3600, "01:00:00"), (49 * 3600, "49:00:00")]
)
def test_durations_may_be_longer_than_a_day(seconds, text):
    assert clock(seconds) == text


def test_a_log_gets_the_messages_and_a_line_an_epoch(caplog, capsys):
    caplog.set_level(logging.INFO, "ktl")
    reporter = reporter_for(1)
    reporter.message("100 % done, or %s")
    assert reporter.training(epochs=17, photos=240) == ()
    with reporter.photos("photos", 3) as progress:
        progress(3)
    reporter.epoch(ROW)
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("ktl", "INFO", "100 % done, or %s"),
        ("ktl", "INFO", LINE),
    ]
    assert capsys.readouterr() == ("", "")


def test_silence(caplog, capsys):
    caplog.set_level(logging.DEBUG)
    for verbose in (0, False):
        reporter = reporter_for(verbose)
        reporter.training(epochs=2, photos=3)
        reporter.message("unheard")
        reporter.epoch(ROW)
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")


def test_a_reporter_is_itself_and_anything_else_is_refused():
    mine = Reporter()
    assert reporter_for(mine) is mine
    assert type(reporter_for(True)) is LoggingReporter
    for verbose in (2, "loud", None):
        with pytest.raises(UserError, match=f"^Expected `verbose` to be 0, 1 or a Reporter. Received: {verbose!r}$"):
            reporter_for(verbose)


@pytest.mark.parametrize(
    ("set_up", "shown"),
    [
        ("", "hello\n"),
        ("logging.basicConfig(level='INFO')", "INFO:ktl:hello\n"),
        ("logging.warning('of absl, say')", "WARNING:root:of absl, say\nhello\n"),  # as `basicConfig()` does
        ("logging.basicConfig(); logging.getLogger('ktl').setLevel('WARNING')", ""),
        ("logging.basicConfig(filename='/dev/null')", ""),
        ("logging.getLogger('ktl').addHandler(logging.StreamHandler())", ""),
    ],
)
def test_a_program_without_logging_sees_the_lines_all_the_same(set_up, shown):
    program = (
        f"import logging; from ktl.progress import reporter_for; {set_up or 'pass'}; reporter_for(1).message('hello')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", shown)
