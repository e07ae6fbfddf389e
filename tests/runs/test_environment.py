"""What a run was made with."""

import json
import os

import keras
import numpy as np

from ktl.machine import Machine
from ktl.runs.environment import REPORTED_PACKAGES, describe_environment, installed_versions


def test_the_environment_says_what_is_in_force_and_which_versions():
    machine = Machine(devices=("CPU",), precision="float32", xla=False, strategy="none")
    environment = describe_environment(machine)
    assert environment["devices"] == ["CPU"]
    assert {key: environment[key] for key in ("precision", "xla", "strategy")} == {
        "precision": "float32",
        "xla": False,
        "strategy": "none",
    }
    assert environment["versions"]["keras"] == keras.__version__
    assert environment["versions"]["numpy"] == np.__version__
    assert environment["versions"] == installed_versions()
    assert environment["cores"] == len(os.sched_getaffinity(0))
    json.dumps(environment)


def test_of_packages_that_are_not_installed_nothing_is_said(monkeypatch):
    monkeypatch.setattr("ktl.runs.environment.REPORTED_PACKAGES", ("keras", "jax-of-another-machine"))
    assert installed_versions() == {"keras": keras.__version__}


def test_every_package_of_the_default_install_is_named():
    assert set(REPORTED_PACKAGES) - {"jax"} <= set(installed_versions())
