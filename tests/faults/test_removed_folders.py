"""Folders of searches and studies that somebody removes while they are filled; of runs, see test_storage.py."""

import shutil

import keras
import pytest
from support import few_tries, one_line

import ktl
from ktl.errors import UserError
from ktl.progress import Reporter

WORK = {
    "search": (ktl.search, {"space": "scale=1,3", "freeze_depth": "block_relu"}),
    "study": (ktl.study, {"heads": "kept,replaced", "depths": "block_relu"}),
}


class Removing(Reporter):
    """Removes a folder after the first epoch that it is told of."""

    def __init__(self, folder):
        self.folder = folder

    def training(self, *, epochs, photos):
        remove = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: shutil.rmtree(self.folder))
        return (remove,)


@pytest.mark.usefixtures("without_determinism_afterwards")
@pytest.mark.parametrize("name", WORK)
def test_a_folder_that_is_removed_meanwhile_is_one_line(name, tmp_path, photo_folder, tiny_backbone):
    work, settings = WORK[name]
    common = {"dataset": str(photo_folder), "backbone": str(tiny_backbone), "cache": "off", "seeds": 1, "epochs": 3}
    out = tmp_path / "out"
    with few_tries(), pytest.raises(UserError, match=f"Expected the folder of the {name} to stay") as error:
        work(**common, **settings, batch_size=8, least_steps=1, output=out, verbose=Removing(out))
    assert "Remove what is left of it" in one_line(error)
