"""Folders that are removed while somebody works in them."""

import pytest
from support import one_line

from ktl.errors import DamagedError, UserError
from ktl.runs.removal import noticing_removal


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def lose(folder, error):
    with noticing_removal(folder, kind="run"):
        (folder / "config.json").unlink()
        if error:
            raise error


@pytest.mark.parametrize(
    "error", [FileNotFoundError("last-2.npz"), RuntimeError("of a library"), DamagedError("best-1.npz"), None]
)
def test_whatever_goes_wrong_without_the_folder_is_its_removal(folder, error):
    with pytest.raises(UserError, match=r"Expected the folder of the run to stay .* it begins anew") as caught:
        lose(folder, error)
    one_line(caught)


@pytest.mark.parametrize("error", [FileNotFoundError("photo.jpg"), UserError("bad weights"), KeyboardInterrupt()])
def test_what_goes_wrong_while_it_is_there_stays_what_it_is(folder, error):
    with pytest.raises(type(error)) as caught, noticing_removal(folder, kind="run"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [UserError("bad weights"), KeyboardInterrupt()])
def test_bad_input_and_an_interrupt_are_told_before_the_removal(folder, error):
    with pytest.raises(type(error)) as caught:
        lose(folder, error)
    assert caught.value is error
