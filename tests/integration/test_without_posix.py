"""run, predict and export where Python lacks what Windows lacks, and where an open file cannot be renamed."""

import csv
import io
import os
import subprocess
import sys

from support import REPOSITORY

# Python runs a module of this name when it starts, those processes too that the commands start.
SITECUSTOMIZE = """
import os, sys

sys.modules["fcntl"] = None
for name in ("preadv", "pwrite", "preadv2", "pwritev"):
    if hasattr(os, name):
        delattr(os, name)


def opened():
    folder = "/proc/self/fd"
    for descriptor in os.listdir(folder):
        try:
            yield os.readlink(f"{folder}/{descriptor}")
        except OSError:
            pass  # the one that lists the folder


def refusing(rename):
    def renamed(source, target, **options):
        for path in map(os.path.realpath, map(os.fspath, (source, target))):
            held = [name for name in opened() if name == path or name.startswith(path + os.sep)]
            if held:
                raise PermissionError(13, f"open in this process: {held[0]}", str(source))
        return rename(source, target, **options)

    return renamed


os.replace, os.rename = refusing(os.replace), refusing(os.rename)
"""

CHECK = """
import os, sys, tempfile
assert not hasattr(os, "preadv") and sys.modules["fcntl"] is None
with tempfile.NamedTemporaryFile() as file:
    try:
        os.replace(file.name, file.name + ".moved")
    except PermissionError:
        sys.exit(0)
sys.exit("an open file was renamed")
"""


def test_run_predict_and_export_finish(tmp_path, photo_folder, tiny_backbone):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = os.pathsep.join(map(str, (tmp_path / "site", REPOSITORY)))
    environment = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def python(*arguments) -> str:
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    python("-c", CHECK)
    flags = ["--dataset", photo_folder, "--backbone", tiny_backbone, "--freeze-depth", "block_relu"]
    flags += ["--epochs", 2, "--cache", "on", "--batch-size", 8, "--output", "run"]
    python("-m", "ktl", "run", *flags)
    assert (tmp_path / "run" / "model.keras").exists()
    python("-m", "ktl", "export", "--run", "run", "--output", "model")
    table = python("-m", "ktl", "predict", "--model", "model", photo_folder, "--csv")
    labels = {row["photo"]: row["label"] for row in csv.DictReader(io.StringIO(table))}
    assert len(labels) == 72
    with open(tmp_path / "run" / "predictions.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert labels[str(photo_folder / row["photo"])] == row["prediction"]
