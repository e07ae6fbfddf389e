"""Labels for a long list of photos, a file a portion: what is finished is kept, and the names are read in a stream."""

import dataclasses
import hashlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from ktl.distributed.portions import Portion
from ktl.errors import UserError
from ktl.files import open_regular, path_of, write_csv, write_json
from ktl.folders import make_folder
from ktl.inference.predict import COLUMNS, label_photos, printable, row_of
from ktl.inference.predictor import Predictor, digest_of_model
from ktl.progress import Reporter
from ktl.stored import read_record

BOM = b"\xef\xbb\xbf"


@dataclasses.dataclass(frozen=True)
class Labelled:
    """What was done of a portion.

    Attributes:
        path: of the predictions.
        photos: in the portion.
        bad_photos: how many of them cannot be read.
    """

    path: Path
    photos: int
    bad_photos: int


class DoneJson(TypedDict):
    """What the file says that is written last: of which names and model, and how many photos."""

    of: str
    photos: int
    bad_photos: int


class ListedPhotos:
    """The photos that a text file names, a name a line, relative to the file's folder, and a folder for their labels.

    Portion 3 of 64 is `predictions-00003-of-00064.csv`, `bad_photos-00003-of-00064.csv`, and a JSON file that is
    written last. Any number of processes may work in the folder, each at other portions.

    Args:
        predictor: the network.
        model: the folder that it is from.
        names: the file.
        output: the folder; it is made.

    Raises:
        UserError: the file cannot be read, or the folder cannot be written to.
    """

    def __init__(self, predictor: Predictor, *, model: str | os.PathLike, names: str | os.PathLike, output: str | Path):
        self._predictor, self._names = predictor, path_of(names, argument="list")
        self._folder = path_of(output, argument="output")
        self._open().close()  # says at once what is wrong with the file
        make_folder(self._folder)
        self._model = digest_of_model(model)

    def label(self, portion: Portion, *, reporter: Reporter | None = None) -> Labelled:
        """Labels a portion, unless that is done.

        Raises:
            UserError: the folder has labels of other names, of another model or in another number of portions.
        """
        end = f"-{portion.number:05}-of-{portion.count:05}"
        self._check_count(portion)
        names = list(self._read(portion))
        of = hashlib.sha256(repr((self._model, names)).encode(errors="surrogatepass")).hexdigest()
        path, done = self._folder / f"predictions{end}.csv", self._folder / f"done{end}.json"
        if done.exists() and path.exists():
            record = read_record(done, DoneJson)
            if record["of"] != of:
                raise UserError(f"Expected another `output` for other photos or another model. Received: {path}, done")
            return Labelled(path, record["photos"], record["bad_photos"])
        bad: list[tuple[str, str]] = []
        root = self._names.parent
        photos = [root / name for name in names]

        def rows() -> Iterator[tuple[str, ...]]:
            for name, prediction in zip(names, label_photos(self._predictor, photos, reporter=reporter), strict=True):
                if prediction.reason is None:
                    yield row_of(dataclasses.replace(prediction, photo=name))
                else:
                    bad.append((printable(name), prediction.reason))

        write_csv(path, COLUMNS, rows())
        write_csv(self._folder / f"bad_photos{end}.csv", ("photo", "reason"), bad)
        write_json(done, {"of": of, "photos": len(names), "bad_photos": len(bad)})
        return Labelled(path, len(names), len(bad))

    def _open(self) -> io.BufferedReader:
        try:
            return open_regular(self._names)
        except OSError as error:
            received = f"{self._names} ({error.strerror})"
            raise UserError(f"Expected `list` to be a file that can be read. Received: {received}") from error

    def _read(self, portion: Portion) -> Iterator[str]:
        """The names of a portion, line by line."""
        with self._open() as file:
            for number, line in enumerate(file):
                name = os.fsdecode((line.removeprefix(BOM) if number == 0 else line).rstrip(b"\r\n"))
                if name and portion.has(name):
                    yield name

    def _check_count(self, portion: Portion) -> None:
        for path in self._folder.glob("predictions-*-of-*.csv"):
            found = re.fullmatch(r"predictions-\d+-of-(\d+)\.csv", path.name)
            if found and int(found[1]) != portion.count:
                raise UserError(
                    f"Expected the number of portions that `output` has, {int(found[1])}. Received: {portion.count}"
                )
