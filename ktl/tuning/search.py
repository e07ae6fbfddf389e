"""One search from its settings to a finished folder: trials, the best one's run, and a table of all."""

import dataclasses
import shutil
import sys
import time
from pathlib import Path
from typing import Any, cast

from keras_tuner.engine.trial import Trial

from ktl.arguments import checked_arguments
from ktl.config.settings import RunConfig, SearchConfig
from ktl.data.loading import load_dataset
from ktl.errors import UserError, unknown_name
from ktl.files import read_json
from ktl.machine import process_state_restored
from ktl.progress import QuietReporter, Reporter, Verbose, reporter_for
from ktl.runs.finished_run import RunResult, has_ended, result_of
from ktl.runs.refit import is_refitted, refit, selected_by
from ktl.runs.removal import noticing_removal
from ktl.runs.results import write_results
from ktl.runs.run import begin, check_places, config_of_call, output_of, with_chosen_head
from ktl.runs.run_folder import RunFolder
from ktl.runs.session import Session
from ktl.training.few_photos import warnings_of
from ktl.tuning import workers
from ktl.tuning.oracles import DurableOracle, new_oracle
from ktl.tuning.plan import Plan, announce, make_plan
from ktl.tuning.search_folder import SearchFolder, SearchResult, checkpoint_folder
from ktl.tuning.trials import Trials
from ktl.tuning.tuner import ResumableTuner

ROLES = (None, "chief", "worker")


# Most of it is its docstring.
@checked_arguments
def search(
    config: SearchConfig | None = None,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    role: str | None = None,
    chief: str = "127.0.0.1:0",
    verbose: Verbose = 1,
    **settings: Any,
) -> SearchResult | None:
    """Searches for the settings that are the best by validation, and scores the best trial's model on the test set.

        result = ktl.search(dataset="photos", space={"scale": [1, 10], "freeze_depth": ["all", 5]}, output="runs/tuned")
        print(result["best"]["settings"], result["test"]["top1"])

    Called again with the same settings and folder, it continues a killed search: completed trials are kept, the others
    go on after their last complete epoch. It gives back the result of one that has ended. The process is left as it was
    found: Keras' global state, seeds, dtype policy and determinism.

    Args:
        config: the settings; or give them as keywords.
        output: the search's folder, see `ktl.tuning.search_folder.SearchFolder`; `ktl.runs.run.default_output(config)`
            if None.
        overwrite: remove a search that is in that folder.
        role: None for a search on this machine; `chief` to serve workers on other machines; `worker` to run trials for
            a chief, with the same settings and the same shared folder.
        chief: HOST:PORT where the chief is; for a search on this machine, where it listens.
        verbose: 0 for silence, 1 for lines to the logger `ktl`, or a Reporter.
        **settings: of `SearchConfig`, which are those of `RunConfig` and: `space`, name of a setting -> values, or None
            for its default ones; `oracle`; `max_trials`; `seeds`; `keep`; `workers`; `tensorboard`.

    Returns:
        What result.json holds; None of a worker.

    Raises:
        UserError (a ValueError): bad input, or no trial was completed; nothing that was there is lost.
    """
    config = config_of_call(SearchConfig, config, settings)
    if role not in ROLES:
        raise unknown_name("`role`", role, ROLES)
    reporter = reporter_for(verbose)
    output = output_of(output, config)
    check_places(config, output=output)
    overwrite = overwrite and role != "worker"  # a worker's chief has overwritten what was there, and has begun
    if overwrite:
        load_dataset(config.dataset, data_dir=config.data_dir)  # what is there is not given up for a wrong name
    folder = SearchFolder(output, config, overwrite=overwrite)
    if role == "worker":
        with process_state_restored(), folder.undone_on_failure(), noticing_removal(folder.path, kind=folder.KIND):
            _work(config, folder, chief, reporter)
        return None
    with folder.held(), noticing_removal(folder.path, kind=folder.KIND):
        if not has_ended(folder.path, folder.KIND):
            with process_state_restored():
                _search(config, folder, role, chief, reporter)
    return folder.search_result()


def _search(config: SearchConfig, folder: SearchFolder, role: str | None, chief: str, reporter: Reporter) -> None:
    started = time.perf_counter()
    asked, dataset = config, begin(config, folder, reporter)
    config = with_chosen_head(config, dataset, reporter)
    plan = make_plan(config, dataset)
    announce(plan, config, dataset, reporter)
    session = Session(config, dataset, trainings=plan.trainings, reporter=QuietReporter(reporter))
    if role != "chief":
        session.compute_features(plan.places)
    oracle = _oracle(config, plan, folder.path)
    kept = {"keep": config.keep, "objective": config.objective}
    trials = Trials(oracle, folder, names=tuple(plan.values), **kept, costs=plan.costs, reporter=reporter)
    oracle.on_trial_end = trials.tell_end
    if role == "chief" or config.workers > 1:
        _serve_trials(asked, folder, oracle, chief, 0 if role == "chief" else config.workers, reporter)
    else:
        _tuner(config, session, plan, oracle, folder).search()
    trials.write()  # once more: nothing is ahead for Hyperband now
    if not trials.ranked:
        raise UserError(f"Expected at least one completed trial. Received: {trials.failures()}")
    trials.write_heatmap()
    chosen = trials.ranked[0]
    best = _record_best(session, folder, trials, chosen)
    warnings = warnings_of(config.SCRIPT, dataset)
    result: SearchResult = {
        "best": {
            "trial": chosen.trial_id,
            "settings": trials.values(chosen),
            "validation_top1": trials.top1(chosen),
            "validation_score": trials.score(chosen),
        },
        "validation": best["validation"],
        "test": best["test"],
        "refit": best.get("refit"),
        "trials": trials.counts(),
        "oracle": plan.oracle,
        "space": {name: list(values) for name, values in plan.values.items()},
        "settings": config.as_dict(),
        "command": config.command(),
        "seeds": plan.seeds,
        "warnings": warnings,
        "seconds": time.perf_counter() - started,
    }
    folder.write_json("environment.json", read_json(folder.best / "environment.json"))
    for warning in warnings:
        reporter.message(warning)
    folder.write_result(result)


def _work(config: SearchConfig, folder: SearchFolder, chief: str, reporter: Reporter) -> None:
    """Runs trials for a chief until it says that there are no more."""
    quiet = QuietReporter(reporter)  # the chief has told what there is to know
    with workers.connected(chief):
        dataset = begin(config, folder, quiet)
        config = with_chosen_head(config, dataset, quiet)
        plan = make_plan(config, dataset)
        session = Session(config, dataset, trainings=plan.trainings, reporter=quiet)
        session.compute_features(plan.places)
        _tuner(config, session, plan, _oracle(config, plan), folder).search()


def _serve_trials(
    config: SearchConfig, folder: SearchFolder, oracle: DurableOracle, chief: str, count: int, reporter: Reporter
) -> None:
    """Serves the oracle, with so many workers on this machine, until all trials have ended."""
    with workers.serving(oracle, chief) as address:
        reporter.message(f"chief at {address}")
        place = ["--output", str(folder.path), "--role", "worker", "--chief", address]
        command = [sys.executable, "-m", "ktl", "search", *config.flags(), *place]
        workers.supervise(oracle, workers.local_workers(count, command))


def _oracle(config: SearchConfig, plan: Plan, folder: Path | None = None) -> DurableOracle:
    """That of the search in this folder; without one, that of a worker."""
    limits = {"max_trials": config.max_trials, "epochs": config.epochs, "objective": config.objective}
    return new_oracle(plan.oracle, plan.values, **limits, seed=config.seed, folder=folder)


def _tuner(
    config: SearchConfig, session: Session, plan: Plan, oracle: DurableOracle, folder: SearchFolder
) -> ResumableTuner:
    logs = folder.path / "tensorboard" if config.tensorboard else None
    return ResumableTuner(
        session,
        oracle,
        names=tuple(plan.values),
        folder=folder.path,
        seeds=plan.seeds,
        at_once=plan.at_once if any(plan.together) else None,
        tensorboard=logs,
    )


def _record_best(session: Session, folder: SearchFolder, trials: Trials, chosen: Trial) -> RunResult:
    """Writes the best trial's run: the model that was scored, not one trained anew, but for a refit where there is
    one. Of several seeds, the first."""
    shutil.rmtree(folder.best, ignore_errors=True)
    seed = session.config.seed
    training = session.prepare(trials.values(chosen), seed=seed)
    training.compile()
    kept = checkpoint_folder(trials.oracle.trial_folder(chosen.trial_id), seed)
    again = kept.with_name(f"refit-{seed}")  # beside it: a kill does not lose what it has
    checkpoint = trials.checkpoint(kept)
    checkpoint.restore_best(training.classifier)
    run = RunFolder(folder.best, training.lasting_config)
    run.hold_to(session.dataset)
    history, selected = checkpoint.history, None
    if is_refitted(training.config.refit, session.dataset):
        selected, values = selected_by(session, training, history), trials.values(chosen)
        del training  # makes room for the next network
        training, history = refit(session, selected, checkpoint_dir=again, values=values, reporter=session.reporter)
    lasting = dataclasses.replace(training, config=cast(RunConfig, run.config))
    write_results(run, lasting, history, selected=selected, reporter=session.reporter)
    shutil.rmtree(again, ignore_errors=True)
    return result_of(run.path)
