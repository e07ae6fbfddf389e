"""Measurements, each in a fresh process, one at a time.

They are forked from one that has loaded TensorFlow, which takes longer than many of them, and has done nothing else.
"""

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Iterator

from benchmarks import SECTIONS
from benchmarks.measurement import send_measurement

ENVIRONMENT = {"TF_CPU_ALLOCATOR_USE_BFC": "true", "TF_CPP_MIN_LOG_LEVEL": "3"}  # as `ktl` sets it, for every way


def measurements(section: str, options: argparse.Namespace) -> Iterator[dict]:
    """Each measurement of a section, and the environment of its process, as soon as it is there."""
    for number in range(options.rounds or SECTIONS[section].ROUNDS):
        for case, ways in SECTIONS[section].cases(options).items():
            with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.cache_dir) as folder:
                earlier = {}
                for way in ways:
                    place = {"section": section, "case": case, "way": way, "round": number}
                    found = measure({**vars(options), **place, "folder": folder, "earlier": earlier})
                    earlier[way] = found["measurement"]
                    yield {**place, **found["measurement"], "environment": found["environment"]}


def measure(settings: dict) -> dict:
    """Runs one way in a fresh process; its measurement and environment."""
    os.environ.update(ENVIRONMENT)
    variables = getattr(SECTIONS[settings["section"]], "variables", None)
    if variables:  # as the backend of Keras, which is loaded but once
        os.environ.update(variables(argparse.Namespace(**settings)))
    context = multiprocessing.get_context("spawn" if variables else "forkserver")
    if not variables:
        context.set_forkserver_preload(["ktl.runs.session"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_measurement, args=(sender, settings))
    process.start()
    sender.close()  # the process has its own: where it is killed, nothing can come any more
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return {"measurement": {"failed": True, "note": f"failed: exit code {process.exitcode}"}, "environment": {}}
    finally:
        process.join()
