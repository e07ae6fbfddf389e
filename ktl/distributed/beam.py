"""Portions on Apache Beam: each is computed, or labelled, by one of the engine's workers, in the way of
`ktl.distributed.features` and `ktl.distributed.predictions`.

The extra `beam` brings it; it is imported when it is asked for, and nowhere else.
"""

import contextlib
import csv
import functools
import importlib
import importlib.util
import io
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ktl.distributed.portions import all_portions, portion_of
from ktl.errors import UserError, reason_of
from ktl.process import cores, prepare_process, set_up_keras

RUNNERS = {"direct": None, "flink": "FlinkRunner", "spark": "SparkRunner", "dataflow": "DataflowRunner"}
"""Name -> what Beam calls it; by the name "DirectRunner" it would look for a program of its own on the network."""

PORTIONS_FILE, BAD_PHOTOS_FILE = "portions.jsonl", "bad_photos.csv"
"""What is written: a line a portion with what was done, and the photos that cannot be read."""

COUNTED = ("there", "computed", "bad_photos")

_ONE_AT_A_TIME = threading.Lock()
"""Beam may give a process several portions at once, and each uses all of its cores."""


def _beam(module: str = "") -> Any:
    """A module of Beam's, which need not be installed."""
    return importlib.import_module(f"apache_beam{module}")


def require_beam() -> None:
    """Raises UserError where Beam is not installed."""
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError(
            "Expected Apache Beam, which `runner` needs. Received: no package apache_beam. Install it: "
            'pip install "apache-beam>=2.77"'
        )


def compute_on_beam(
    settings: Mapping[str, Any], *, runner: str, portions: int, output: str, options: Sequence[str] = ()
) -> dict[str, Any]:
    """Computes all portions; what was done is written to `output`. What a killed job has finished is found again.

    Args:
        settings: of `RunConfig`, as keywords.
        runner: a name in `RUNNERS`.
        portions: how many.
        output: a folder, or a URL that Beam writes to.
        options: flags of Beam's and of its runner.

    Returns:
        As `ktl.distributed.features.Computed.as_dict` has it, of all portions; `seconds` with the engine's own.

    Raises:
        UserError: Beam is not installed, or bad settings or photos, in the words of the first portion that has any.
    """
    require_beam()
    started = time.perf_counter()
    beam, FileSystems = _beam(), _beam(".io.filesystems").FileSystems
    done, bad = (FileSystems.join(output, name) for name in (PORTIONS_FILE, BAD_PHOTOS_FILE))
    one_file = {"num_shards": 1, "shard_name_template": ""}
    with _pipeline(runner, options) as pipeline:
        apart = _apart(pipeline, portions)
        found = apart | "compute" >> beam.Map(functools.partial(compute, settings=json.dumps(settings)))
        found | "what was done" >> beam.io.WriteToText(done, **one_file)
        named = found | "bad photos" >> beam.FlatMap(bad_rows)
        named | "their names" >> beam.io.WriteToText(bad, header="photo,reason", **one_file)
    with FileSystems.open(done) as file:
        total = _sum_of([json.loads(line) for line in io.TextIOWrapper(file, encoding="utf-8")])
    return {**total, "seconds": round(time.perf_counter() - started, 3)}


def label_on_beam(
    *,
    model: str | os.PathLike,
    names: str | os.PathLike,
    output: str | os.PathLike,
    runner: str,
    portions: int,
    options: Sequence[str] = (),
) -> None:
    """Labels all portions of a list, each unless that is done; for the first three see `ListedPhotos`, for the others
    `compute_on_beam`.

    Raises:
        UserError: Beam is not installed, or what a portion could not be labelled for; those that are done are kept.
    """
    require_beam()
    places = json.dumps({"model": os.fspath(model), "names": os.fspath(names), "output": os.fspath(output)})
    with _pipeline(runner, options) as pipeline:
        _apart(pipeline, portions) | "label" >> _beam().Map(functools.partial(label, places=places))


def _apart(pipeline: Any, portions: int) -> Any:
    """The portions' names, each for any worker."""
    names = [str(portion) for portion in all_portions(portions)]
    return pipeline | "portions" >> _beam().Create(names) | "apart" >> _beam().Reshuffle()


@contextlib.contextmanager
def _pipeline(runner: str, options: Sequence[str]) -> Iterator[Any]:
    """A pipeline that runs at the end of the block."""
    options_of = _beam(".options.pipeline_options")
    quiet = ["--default_sdk_harness_log_level=ERROR"]
    direct = ["--direct_running_mode=multi_processing", f"--direct_num_workers={cores()}"]
    parsed = options_of.PipelineOptions([*quiet, *(direct if runner == "direct" else ()), *options])
    processes = parsed.view_as(options_of.DirectOptions).direct_num_workers if runner == "direct" else 1
    try:
        with (
            _cores_divided_by(processes),
            _beam().Pipeline(runner=RUNNERS[runner] or _direct_runner(parsed), options=parsed) as pipeline,
        ):
            yield pipeline
    except Exception as error:  # each engine has types of its own
        told = re.search(r": (Expected .* Received: .*?)(?: \[while running .*)?\n", f"{error}\n")
        if told:  # a worker's own words, at the end of its traceback
            raise UserError(told[1]) from error
        reason = f"{reason_of(error).rstrip('.')}. What is complete is kept: repeat the command to continue"
        raise UserError(f"Expected the job on `runner` {runner} to end. Received: {reason}") from error


def _direct_runner(options) -> Any:
    """Beam's runner of local processes, which have these options too."""
    runners = _beam(".runners.portability.fn_api_runner.fn_runner")
    encoded = _beam(".runners.portability.portable_runner").JobServiceHandle.encode_pipeline_options(
        options.get_all_options()
    )
    provision = _beam(".portability.api").beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return runners.FnApiRunner(provision_info=runners.ExtendedProvisionInfo(provision))


def compute(portion: str, settings: str) -> str:
    """What computing a portion such as `3/64` found, as JSON; of bad input its `error`: an engine would try again."""
    with _ONE_AT_A_TIME:
        try:
            found = _pass_of(settings).compute(portion_of(portion)).as_dict()
        except UserError as error:
            return json.dumps({"shard": portion, "error": f"{error}"})
    for name in COUNTED:
        _beam(".metrics").Metrics.counter("ktl", name).inc(len(found[name]) if name == "bad_photos" else found[name])
    return json.dumps(found)


def label(portion: str, places: str) -> None:
    """Labels a portion such as `3/64` of the list in these places, as JSON. What it raises the engine tries again."""
    with _ONE_AT_A_TIME:
        done = _list_of(places).label(portion_of(portion))
    for name in ("photos", "bad_photos"):
        _beam(".metrics").Metrics.counter("ktl", name).inc(getattr(done, name))


def bad_rows(found: str) -> Iterator[str]:
    """The lines of `BAD_PHOTOS_FILE` for what `compute` gave."""
    for row in json.loads(found).get("bad_photos", ()):
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow([row["photo"], row["reason"]])
        yield text.getvalue()


@functools.lru_cache(maxsize=1)
def _pass_of(settings: str):
    """The pass of a worker's process, for all portions that come to it."""
    prepare_process()
    set_up_keras()
    from ktl.distributed.features import FeaturePass  # loads Keras
    from ktl.runs.run import session_for_features

    return FeaturePass(session_for_features(**json.loads(settings)))


@functools.lru_cache(maxsize=1)
def _list_of(places: str):
    """The list of a worker's process, and the network, for all portions that come to it."""
    prepare_process()
    set_up_keras()
    from ktl.distributed.predictions import ListedPhotos  # loads Keras
    from ktl.inference.predictor import load_predictor

    found = json.loads(places)
    return ListedPhotos(load_predictor(found["model"]), **found)


@contextlib.contextmanager
def _cores_divided_by(processes: int) -> Iterator[None]:
    """Inside, processes that are started take their part of the cores each, unless somebody has said how many."""
    threads = str(max(1, cores() // max(1, processes or cores())))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    added = [name for name in names if name not in os.environ]
    os.environ.update(dict.fromkeys(added, threads))
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _sum_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    for row in sorted(rows, key=lambda row: portion_of(row["shard"]).number):
        if "error" in row:
            raise UserError(row["error"])
    counts = {name: sum(row[name] for row in rows) for name in ("photos", "there", "computed")}
    bad, nbytes = [photo for row in rows for photo in row["bad_photos"]], max(row["bytes"] for row in rows)
    return {**rows[0], **counts, "shard": f"all {len(rows)}", "bad_photos": bad, "bytes": nbytes}
