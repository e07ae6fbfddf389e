"""Commands that go on where they were stopped, small ones, for tests that stop them."""

import dataclasses
from pathlib import Path

from chains import Ended, Job, epochs_done, files_done, run_undisturbed
from support import few_tries

ONE_THREAD = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")
"""As each of two workers has on a machine with two cores: sums over threads are rounded in their order."""


def flags(**settings) -> tuple:
    return tuple(part for name, value in settings.items() for part in ("--" + name.replace("_", "-"), value))


EPOCHS = 10
"""Of the job `run`."""


class Undisturbed:
    """Jobs that nothing disturbs, each run when it is asked for first."""

    def __init__(self, folder: Path, photos: Path, backbone: Path):
        self.folder, self.photos, self.backbone = folder, photos, backbone
        self.known: dict[str, Ended] = {}

    def __getitem__(self, name: str) -> Ended:
        if name not in self.known:
            job = JOBS[name](self)
            if name in AS_OTHERS:
                other = self[AS_OTHERS[name]]
                self.known[name] = dataclasses.replace(other, job=job, seconds=2 * other.seconds)
            else:
                self.known[name] = run_undisturbed(job, self.folder / name / "ended")
        return self.known[name]

    @property
    def run(self) -> Path:
        """The folder of a finished run."""
        return self["run"].folder / "out"

    def seen(self, **settings) -> tuple:
        """Flags of photos and a network, in which a photo more or less would be seen."""
        common = {"batch_size": 4, "least_steps": 1}
        given = flags(dataset=self.photos, backbone=self.backbone, **common, **settings)
        return (*given, "--deterministic")

    def training(self, **settings) -> tuple:
        """Flags of a short training."""
        return self.seen(output="out", **settings)

    def search(self, *more, **options) -> Job:
        """A search, of whose files those are compared that don't tell which worker did what."""
        space = "scale=1,3,10"
        arguments = self.training(
            space=space, freeze_depth="block_relu", epochs=5, seeds=1, patience=0, cache_dir="cache"
        )
        return Job(
            ("search", *arguments, *more),
            epochs_done,
            is_compared=lambda name: not name.startswith("trials/"),
            environment=ONE_THREAD,
            **options,
        )


AS_OTHERS = {"workers": "search"}
"""Job -> the one that ends with the same files, and lives about half as long: its processes load TensorFlow anew."""

JOBS = {
    "run": lambda jobs: Job(
        (
            "run",
            *jobs.training(freeze_depth="depthwise_relu", cache="off", epochs=EPOCHS, patience=0),
            "--refit",
            "on",
        ),
        epochs_done,
    ),
    "cache": lambda jobs: Job(
        ("run", *jobs.training(freeze_depth="block_relu", cache="on", cache_dir="cache", epochs=1, views=150)),
        files_done("cache/**/*.shard"),
    ),
    "features": lambda jobs: Job(
        ("features", *jobs.seen(freeze_depth="block_relu", cache_dir="out", views=300), "--shard", "2/3"),
        files_done("out/**/*.shard"),
        is_compared=lambda name: not name.endswith(".shard"),  # whose names are drawn
    ),
    "search": lambda jobs: jobs.search(),
    "workers": lambda jobs: jobs.search("--workers", 2, workers=True),
    "study": lambda jobs: Job(
        (
            "study",
            *jobs.training(heads="kept,replaced", depths="block_relu", seeds=1, epochs=3, cache_dir="cache"),
        ),
        files_done("out/runs/*/*.json"),
        within=few_tries,
    ),
    "export": lambda jobs: Job(("export", "--run", jobs.run, "--output", "out")),
    "predict": lambda jobs: Job(("predict", "--model", jobs.run, "--csv", jobs.photos), printed=True),
    "report": lambda jobs: Job(("report", jobs.run, "--output", "out/report.html")),
}
"""Name -> a command that is stopped."""
