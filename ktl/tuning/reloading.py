"""What a search left on disk, checked when another process goes on with it."""

import math
from collections.abc import Mapping, Sequence

from keras_tuner.engine.trial import Trial, TrialStatus

from ktl.files import damaged, reading, way_on
from ktl.tuning.keras_tuner_adapter import TRIAL_JSON, OpenOracle
from ktl.tuning.search_folder import ANEW

STATUSES = {
    TrialStatus.RUNNING,
    TrialStatus.IDLE,
    TrialStatus.INVALID,
    TrialStatus.STOPPED,
    TrialStatus.COMPLETED,
    TrialStatus.FAILED,
}


def reload(oracle: OpenOracle, values: Mapping[str, Sequence]) -> None:
    """Lets an oracle go on where the one that wrote its files was.

    Args:
        oracle: knows the folder.
        values: the search space, name -> values.

    Raises:
        DamagedError: a file is not as it was written.
    """
    with way_on(ANEW):
        _reload(oracle, values)


def _reload(oracle: OpenOracle, values: Mapping[str, Sequence]) -> None:
    try:
        oracle.reload()
    except FileNotFoundError as error:
        raise damaged(oracle.state_file, "no such file") from error
    space = {hp.name: list(hp.values) for hp in oracle.get_space().space}
    if space != {name: list(tried) for name, tried in values.items()}:
        raise damaged(oracle.state_file, "another space than the settings have")
    for trial in oracle.trials.values():
        with reading(oracle.trial_folder(trial.trial_id) / TRIAL_JSON):
            _check_trial(trial, values, measured=(oracle.objective.name, "validation_loss"))


def _check_trial(trial: Trial, values: Mapping[str, Sequence], *, measured: Sequence[str]) -> None:
    """Raises what `ktl.files.reading` takes for damage."""
    if trial.status not in STATUSES:
        raise ValueError(f"the status {trial.status}")
    for name, tried in values.items():
        if trial.hyperparameters.values[name] not in tried:
            raise ValueError(f"{name} {trial.hyperparameters.values[name]!r}, which is not in the space")
    if trial.status == TrialStatus.COMPLETED:
        found = [trial.score, *(trial.metrics.get_last_value(name) for name in measured)]
        if not all(number is not None and math.isfinite(number) for number in found):
            raise ValueError(f"a completed trial without {', '.join(measured)}")
