"""Labels for a long list of photos, a file a portion: what is finished is kept, and the names are read in a stream."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from ktl.arguments import path_of
from ktl.distributed.outputs import open_output
from ktl.distributed.portions import Portion
from ktl.errors import UserError
from ktl.files import open_regular, write_csv, write_json
from ktl.inference.predict import COLUMNS, label_photos, printable, row_of
from ktl.inference.predictor import Predictor, digest_of_model
from ktl.names import is_url
from ktl.progress import Reporter
from ktl.remote import joined, parent_of, read_lines
from ktl.stored import read_record

BOM = b"\xef\xbb\xbf"


@dataclasses.dataclass(frozen=True)
class Labelled:
    """What was done of a portion.

    Attributes:
        path: of the predictions, or their URL.
        photos: in the portion.
        bad_photos: how many of them cannot be read.
    """

    path: Path | str
    photos: int
    bad_photos: int


class DoneJson(TypedDict):
    """What the file says that is written last: of which names and model, and how many photos."""

    of: str
    photos: int
    bad_photos: int


class ListedPhotos:
    """The photos that a text file names, a name a line, and a folder for their labels.

    A name is a URL, or a path relative to the file's folder; file and folder may be at URLs too. Portion 3 of 64 is
    `predictions-00003-of-00064.csv`, `bad_photos-00003-of-00064.csv`, and a JSON file that is written last. Any number
    of processes may work in the folder, each at other portions.

    Args:
        predictor: the network.
        model: the folder that it is from.
        names: the file.
        output: the folder; it is made.

    Raises:
        UserError: the file cannot be read, or the folder cannot be written to.
    """

    def __init__(
        self, predictor: Predictor, *, model: str | os.PathLike, names: str | os.PathLike, output: str | os.PathLike
    ):
        self._predictor = predictor
        self._names = names if is_url(names) else path_of(names, argument="list")
        next(self._lines(), None)  # says at once what is wrong with the file
        self._output = open_output(output)
        self._model = digest_of_model(model)

    def label(self, portion: Portion, *, reporter: Reporter | None = None) -> Labelled:
        """Labels a portion, unless that is done.

        Raises:
            UserError: the folder has labels of other names, of another model or in another number of portions; or a
                server cannot be reached.
        """
        end = f"-{portion.number:05}-of-{portion.count:05}"
        kinds = (f"predictions{end}.csv", f"bad_photos{end}.csv", f"done{end}.json")
        there = self._output.names()
        _check_count(there, portion)
        names = list(self._read(portion))
        of = hashlib.sha256(repr((self._model, names)).encode(errors="surrogatepass")).hexdigest()
        place = self._output.place(kinds[0])
        if there.issuperset(kinds[::2]):
            with self._output.reading(kinds[2]) as path:
                record = read_record(path, DoneJson)
            if record["of"] != of:
                raise UserError(f"Expected another `output` for other photos or another model. Received: {place}, done")
            return Labelled(place, record["photos"], record["bad_photos"])
        bad: list[tuple[str, str]] = []
        with self._output.writing(*kinds) as (predictions, bad_photos, done):
            write_csv(predictions, COLUMNS, self._rows(names, bad, reporter))
            write_csv(bad_photos, ("photo", "reason"), bad)
            write_json(done, {"of": of, "photos": len(names), "bad_photos": len(bad)})
        return Labelled(place, len(names), len(bad))

    def _rows(
        self, names: Sequence[str], bad: list[tuple[str, str]], reporter: Reporter | None
    ) -> Iterator[tuple[str, ...]]:
        """The rows of the photos that can be read; `bad` gets the others, with the reason."""
        folder = parent_of(self._names) if isinstance(self._names, str) else self._names.parent
        photos = [joined(folder, name) for name in names]
        for name, prediction in zip(names, label_photos(self._predictor, photos, reporter=reporter), strict=True):
            if prediction.reason is None:
                yield row_of(dataclasses.replace(prediction, photo=name))
            else:
                bad.append((printable(name), prediction.reason))

    def _lines(self) -> Iterator[bytes]:
        """The lines of the file of names, read one by one."""
        try:
            if isinstance(self._names, str):
                yield from read_lines(self._names)
            else:
                with open_regular(self._names) as file:
                    yield from file
        except OSError as error:
            received = f"{self._names} ({error.strerror})"
            raise UserError(f"Expected `list` to be a file that can be read. Received: {received}") from error

    def _read(self, portion: Portion) -> Iterator[str]:
        """The names of a portion."""
        for number, line in enumerate(self._lines()):
            name = os.fsdecode((line.removeprefix(BOM) if number == 0 else line).rstrip(b"\r\n"))
            if name and portion.has(name):
                yield name


def _check_count(there: Iterable[str], portion: Portion) -> None:
    """Refuses a folder in which there is another number of portions."""
    for name in there:
        found = re.fullmatch(r"predictions-\d+-of-(\d+)\.csv", name)
        if found and int(found[1]) != portion.count:
            raise UserError(
                f"Expected the number of portions that `output` has, {int(found[1])}. Received: {portion.count}"
            )
