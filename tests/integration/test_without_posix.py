"""run, predict and export where Python lacks what Windows lacks, and where an open file cannot be renamed."""

import csv
import io
import json
import os
import subprocess
import sys

from support import REPOSITORY

# Python runs a module of this name when it starts, in each process: those too that commands start.
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

COMMANDS = """
import json, os, sys, tempfile

assert not hasattr(os, "preadv") and sys.modules["fcntl"] is None
with tempfile.NamedTemporaryFile() as file:
    try:
        os.replace(file.name, file.name + ".moved")
        sys.exit("an open file was renamed")
    except PermissionError:
        pass

from ktl.cli.main import main

for arguments in json.loads(sys.argv[1]):
    code = main(arguments)
    if code:
        sys.exit(f"{arguments[0]}: {code}")
"""


def test_run_predict_and_export_finish(tmp_path, photo_folder, tiny_backbone):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = os.pathsep.join(map(str, (tmp_path / "site", REPOSITORY)))
    environment = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")}

    run = ["run", "--dataset", photo_folder, "--backbone", tiny_backbone, "--freeze-depth", "block_relu"]
    run += ["--epochs", 2, "--least-steps", 1, "--cache", "on", "--batch-size", 8, "--output", "run"]
    export = ["export", "--run", "run", "--output", "model", "--json"]
    predict = ["predict", "--model", "model", photo_folder, "--csv"]
    commands = json.dumps([[str(word) for word in command] for command in (run, export, predict)])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, commands], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.keras").exists()
    table = done.stdout[done.stdout.index("photo,") :]
    labels = {row["photo"]: row["label"] for row in csv.DictReader(io.StringIO(table))}
    assert len(labels) == 72
    with open(tmp_path / "run" / "predictions.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert labels[str(photo_folder / row["photo"])] == row["prediction"]
