"""What a run, a search or a study was made with: versions, hardware, and what is in force on it."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import keras

from ktl.machine import Machine
from ktl.process import cores

REPORTED_PACKAGES = ("ktl", "tensorflow", "jax", "keras", "numpy", "tensorflow-datasets", "scikit-learn", "pillow")


def describe_environment(machine: Machine) -> dict[str, Any]:
    """Versions and hardware of this process, and what is in force on it."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "backend": keras.config.backend(),
        "versions": installed_versions(),
        "devices": list(machine.devices),
        "precision": machine.precision,
        "xla": machine.xla,
        "strategy": machine.strategy,
    }


def installed_versions() -> dict[str, str]:
    """The versions of the packages that decide numbers, of those that are installed: not each backend is."""
    return {name: version for name in REPORTED_PACKAGES if (version := _version(name))}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
