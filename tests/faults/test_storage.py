"""Disks that are full or can only be read, folders that somebody removes: one line, and nothing finished is lost."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chains import Command, Ended, Job, names_in, read_all
from jobs import JOBS
from support import until

import ktl
from ktl.errors import UserError

pytestmark = pytest.mark.slow


def mount(*arguments) -> bool:
    """Whether it can be done: it needs root, of a container at least."""
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path):
    """Makes a folder a disk of its own; gives what changes its options, such as `size=64k` or `ro`."""
    place = tmp_path / "out"
    place.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=1m", "none", place):
        pytest.skip("cannot mount a disk of its own: that needs root")
    yield lambda options: mount("-o", f"remount,{options}", place)
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def refused(job: Job, folder: Path) -> str:
    """The one line with which a job ends that cannot work."""
    code, printed, err = job.start(folder).wait()
    assert (code, printed) == (2, ""), err
    assert "Traceback" not in err, err
    line = err.splitlines()[-1]
    assert line.startswith("ktl: Expected "), err
    assert "Received: " in line
    return line


def ends_as(ended: Ended, folder: Path) -> None:
    """The job, once more, ends as the undisturbed one."""
    code, _, err = ended.job.start(folder).wait()
    assert code == 0, err
    assert ended.job.result(folder) == ended.result
    assert names_in(folder / "out") == names_in(ended.folder / "out")


SIZES = {"run": (0.1, 0.6), "search": (0.4,), "export": (0.5,), "report": (0.3,)}
"""Job -> sizes of disks on which it is tried one after another, as shares of what it leaves at its end."""


def needs(ended: Ended) -> int:
    """KiB that a job's files take on a disk, in blocks of 4."""
    files = [path for path in (ended.folder / "out").rglob("*") if path.is_file()]
    return sum(-(-path.stat().st_size // 4096) * 4 for path in files)


@pytest.mark.parametrize("name", SIZES)
def test_a_full_disk_loses_nothing_and_the_command_goes_on_when_there_is_room(undisturbed, disk, tmp_path, name):
    ended, done = undisturbed[name], {}
    for share in SIZES[name]:
        assert disk(f"size={int(share * needs(ended))}k")
        assert "No space left on device" in refused(ended.job, tmp_path)
        read_all(tmp_path / "out")
        now = ended.job.work_done(tmp_path)
        assert done.items() <= now.items()
        done = now
    assert disk("size=64m")
    ends_as(ended, tmp_path)
    assert done.items() <= ended.job.work_done(tmp_path).items()


def test_a_full_disk_of_the_cache_costs_the_cache_alone(undisturbed, disk, tmp_path):
    assert disk("size=256k")
    arguments = (*undisturbed["cache"].job.arguments, "--cache-dir", "out", "--cache-limit", 1, "--output", "run")
    code, _, err = Command(*arguments, folder=tmp_path).wait()
    assert code == 0, err
    assert "cache off: no space left in out" in err, err
    assert (tmp_path / "run" / "result.json").exists()
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("name", ["run", "search", "study", "export", "report"])
def test_a_disk_that_can_only_be_read_is_one_line(undisturbed, disk, tmp_path, name):
    assert disk("ro")
    line = refused(JOBS[name](undisturbed), tmp_path)
    assert "Expected a folder that can be " in line or "Expected a place that can be " in line
    assert "out" in line


def test_what_is_on_a_disk_that_can_only_be_read_is_used(undisturbed, disk, tmp_path):
    shutil.copytree(undisturbed.run, tmp_path / "out", dirs_exist_ok=True)
    assert disk("ro")
    for name in ("export", "predict", "report"):
        ended = undisturbed[name]
        arguments = [tmp_path / "out" if given == undisturbed.run else given for given in ended.job.arguments]
        arguments = ["elsewhere" + str(given)[3:] if str(given).startswith("out") else given for given in arguments]
        code, printed, err = Command(*arguments, folder=tmp_path).wait()
        assert code == 0, err
        assert not ended.job.printed or printed == ended.printed


def removed_while_at_work(ended: Ended, folder: Path, path: Path, ready: Callable[[], object]) -> tuple[int, str]:
    """Exit code and last line of a job after a folder was removed, once something was done."""
    command = ended.job.start(folder)
    until(lambda: ready() or not command.running, limit=120)
    assert command.running, command.wait()
    time.sleep(0.1)
    shutil.rmtree(path, ignore_errors=True)
    code, _, err = command.wait()
    assert "Traceback" not in err, err
    return code, err.splitlines()[-1]


def test_a_folder_that_is_removed_meanwhile_is_one_line_and_begins_anew(undisturbed, tmp_path):
    ended, out = undisturbed["run"], tmp_path / "out"
    code, line = removed_while_at_work(ended, tmp_path, out, lambda: list(out.glob("**/state.json")))
    assert code == 2, line
    assert "Expected the folder of the run to stay" in line
    shutil.rmtree(out, ignore_errors=True)
    ends_as(ended, tmp_path)


def test_a_cache_that_is_removed_meanwhile_is_one_line_and_made_again(undisturbed, tmp_path):
    ended, cache = undisturbed["cache"], tmp_path / "cache"
    code, line = removed_while_at_work(ended, tmp_path, cache, lambda: list(cache.glob("**/*.partial")))
    assert code == 2
    assert "Expected --cache-dir to stay while features are computed. Received: cache, of which" in line
    ends_as(ended, tmp_path)


def test_a_changed_byte_of_an_export_is_named_or_changes_no_answer(undisturbed, tmp_path):
    photo, export = sorted(undisturbed.photos.rglob("*.png"))[0], tmp_path / "export"
    shutil.copytree(undisturbed["export"].folder / "out", export)
    right, refused = ktl.predict(export, photo, verbose=0), {}
    for path in sorted(path for path in export.rglob("*") if path.is_file()):
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        try:
            assert ktl.predict(export, photo, verbose=0) == right
        except UserError as error:
            refused[path.name] = f"{error}"
        path.write_bytes(content)
    assert all(name in line for name, line in refused.items())
    assert {"labels.txt", "saved_model.pb", "variables.index", "variables.data-00000-of-00001"} <= set(refused)
