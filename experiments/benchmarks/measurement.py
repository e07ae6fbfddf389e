"""One measurement, in the process that this is called in."""

import argparse
import contextlib
import resource
import sys
import traceback
from multiprocessing.connection import Connection

from benchmarks import SECTIONS


def send_measurement(sender: Connection, settings: dict) -> None:
    """Sends what a way measures, or why it failed, and what it was measured on."""
    with sender, contextlib.redirect_stdout(sys.stderr):  # KerasTuner prints
        try:
            sender.send(take_measurement(argparse.Namespace(**settings)))
        except Exception as error:
            traceback.print_exc()
            last = traceback.format_exception_only(error)[-1].strip()
            sender.send({"measurement": {"failed": True, "note": f"failed: {last}"}, "environment": {}})


def take_measurement(settings: argparse.Namespace) -> dict:
    found = SECTIONS[settings.section].WAYS[settings.way](settings)
    found.setdefault("peak_mib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # of this process
    return {"measurement": {"failed": False, **found}, "environment": environment(settings)}


def environment(settings: argparse.Namespace) -> dict:
    from benchmarks.work import configure, load
    from ktl.runs.environment import describe_environment
    from ktl.runs.session import Session

    return describe_environment(Session(configure(settings), load(settings)).set_up_machine())
