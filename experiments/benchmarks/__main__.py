"""One measurement, in a process of its own; its settings are the only argument, as JSON."""

import argparse
import contextlib
import json
import resource
import sys

from benchmarks import SECTIONS


def main(settings: argparse.Namespace) -> dict:
    found = SECTIONS[settings.section].WAYS[settings.way](settings)
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"measurement": {"failed": False, **found}, "environment": environment(settings)}


def environment(settings: argparse.Namespace) -> dict:
    from benchmarks.work import configure, load
    from ktl.runs.environment import describe_environment
    from ktl.runs.session import Session

    return describe_environment(Session(configure(settings), load(settings)).set_up_machine())


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # KerasTuner prints
        result = main(argparse.Namespace(**json.loads(sys.argv[1])))
    print(json.dumps(result))
