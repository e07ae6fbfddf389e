"""A run, a search, a study, or several runs compared, as one HTML page that needs nothing else to be read.

What the page has is in `PAGES`: a new section is a function that gives its template's values, in the module of its
subject, a template, and a row.
"""

import base64
import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ktl.arguments import checked_arguments, path_of
from ktl.errors import UserError, reason_of
from ktl.files import is_as_written, open_regular, read_json, write_atomically
from ktl.reporting import comparison as report_comparison
from ktl.reporting import run as report_run
from ktl.reporting import run_subject, study_subject
from ktl.reporting import search as report_search
from ktl.reporting import study as report_study
from ktl.reporting.formatting import FILTERS
from ktl.reporting.run_subject import RunSubject
from ktl.runs.places import refuse_within_dataset

GENERATOR = '<meta name="generator" content="ktl report">'
"""By this line an earlier report is known, which a new one may replace."""


@checked_arguments
def write_report(
    folders: str | os.PathLike | Sequence[str | os.PathLike], *, output: str | os.PathLike = "report.html"
) -> Path:
    """Writes one HTML page: of a run, of a search and its best run, of a study, or a comparison of runs and searches.

    The same folders and photos give the same bytes.

    Args:
        folders: of runs that have ended, or of searches; or of one study.
        output: the file; an earlier report is replaced.

    Returns:
        The file.

    Raises:
        UserError: a folder of something else, the same folder twice, or an `output` that is not a report's.

    Example:
        >>> ktl.write_report(["runs/first", "runs/second"], output="comparison.html")
        PosixPath('comparison.html')
    """
    given = [folders] if isinstance(folders, str | os.PathLike) else folders
    folders = [path_of(folder, argument="folders") for folder in given]
    output = _checked_output(path_of(output, argument="output"))
    page = PAGES[_kind(folders)]
    with _blamed_on_edits([Path(folder) for folder in folders]):
        title, subject = page.read([Path(folder) for folder in folders])
        for folder in folders:
            _refuse_within_dataset(output, folder)
        html = _render(title, page.parts(subject))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, html)
    except OSError as error:
        raise UserError(
            f"Expected a place that can be written to. Received: `output` {output} ({error.strerror})"
        ) from error
    return output


def _refuse_within_dataset(output: Path, folder: Path) -> None:
    """Refuses a page among the photos that a folder's work is of, where the next run would find it."""
    if (folder / "config.json").is_file():
        settings = read_json(folder / "config.json")
        refuse_within_dataset(settings["dataset"], settings["data_dir"], output=output)


@contextlib.contextmanager
def _blamed_on_edits(folders: Sequence[Path]) -> Iterator[None]:
    """What fails on files as ktl wrote them is a bug; on others, which may say anything, it is theirs."""
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        for folder in folders:
            if not is_as_written(folder):
                raise UserError(
                    f"Expected {folder} as ktl wrote it. Received: files that were edited, or are of version 0.1, and "
                    f"contradict each other ({type(error).__name__}: {reason_of(error)})"
                ) from error
        raise


def _kind(folders: Sequence[str | os.PathLike]) -> str:
    if not folders:
        raise UserError("Expected folders of runs, searches or a study. Received: none")
    if len(folders) > 1:
        return "comparison"
    folder = Path(folders[0])
    return next((kind for kind, is_kind in KINDS.items() if is_kind(folder)), "run")


KINDS = {"search": report_search.is_search, "study": study_subject.is_study}
"""Kind of page -> whether a folder is shown as it; a run's is what no other knows."""


def _checked_output(output: Path) -> Path:
    if output.is_dir():
        raise UserError(f"Expected a file to write. Received: `output` {output}, a folder")
    if output.exists():
        try:
            with open_regular(output) as file:
                beginning = file.read(1000)
        except OSError as error:
            raise UserError(f"Expected a file to write. Received: `output` {output} ({error.strerror})") from error
        if GENERATOR.encode() not in beginning:
            raise UserError(f"Expected a new file or an earlier report. Received: `output` {output}")
    return output


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading.
        template: the name of a file in templates/sections, without its suffix; also its anchor.
        values: subject -> the template's values, or None where there is nothing to show.
    """

    title: str
    template: str
    values: Callable[[Any], dict | None]


@dataclasses.dataclass(frozen=True)
class Page:
    """A kind of page.

    Attributes:
        read: folders -> title and subject.
        parts: subject -> the page's parts: a heading or None, sections, and what these are about.
    """

    read: Callable[[Sequence[Path]], tuple[str, Any]]
    parts: Callable[[Any], list[tuple[str | None, Sequence[Section], Any]]]


RUN_SECTIONS = (
    Section("Result", "result", report_run.result),
    Section("Learning curves", "curves", report_run.curves),
    Section("Confusion matrix", "confusion", report_run.confusion),
    Section("Most confident mistakes", "mistakes", report_run.mistakes),
    Section("Accuracy by class", "classes", report_run.classes),
    Section("What the kept layer knows", "kept", report_run.kept_layer),
    Section("Calibration", "calibration", report_run.calibration),
    Section("Duplicates", "duplicates", report_run.duplicates),
    Section("Settings", "settings", report_run.settings),
    Section("Environment", "environment", report_run.environment),
)

SEARCH_SECTIONS = (
    Section("Search", "search", report_search.search),
    Section("Best trials", "trials", report_search.trials),
    Section("Scale and freeze depth", "heatmap", report_search.heat_map),
    Section("Accuracy and cost by freeze depth", "depths", report_search.depths),
    Section("Failed trials", "failures", report_search.failures),
)

STUDY_SECTIONS = (
    Section("The answer", "answer", report_study.answer),
    Section("Accuracy by freeze depth", "freezing", report_study.freezing),
    Section("Convergence", "convergence", report_study.convergence),
    Section("Fewer training photos", "shares", report_study.shares),
    Section("Without fine-tuning", "probes", report_study.probes),
    Section("ImageNet's own answer", "zero_shot", report_study.zero_shot),
    Section("Duplicates", "duplicates", report_study.duplicates),
    Section("All means", "summary", report_study.summary),
    Section("Tuned settings", "tuned", report_study.tuned),
    Section("Settings", "settings", report_study.settings),
    Section("Environment", "environment", report_study.environment),
)

COMPARISON_SECTIONS = (Section("Comparison", "comparison", report_comparison.comparison),)

PAGES = {
    "run": Page(run_subject.read, lambda run: [(None, RUN_SECTIONS, run)]),
    "search": Page(
        report_search.read,
        lambda search: [(None, SEARCH_SECTIONS, search), ("The best trial's run", RUN_SECTIONS, search.best)],
    ),
    "study": Page(study_subject.read, lambda study: [(None, STUDY_SECTIONS, study)]),
    "comparison": Page(report_comparison.read, lambda runs: [(None, COMPARISON_SECTIONS, runs)]),
}
"""Kind of page -> how it is read, and what it has."""


def _render(title: str, parts: Sequence[tuple[str | None, Sequence[Section], Any]]) -> str:
    templates = _templates()
    script = _asset("script.js")
    rendered = []
    for heading, sections, subject in parts:
        bodies = []
        for section in sections:
            values = section.values(subject)
            if values is not None:
                body = templates.get_template(f"sections/{section.template}.html").render(values)
                bodies.append((section, Markup(body)))
        rendered.append((heading, bodies))
    photos = next((subject.photos for _, _, subject in parts if isinstance(subject, RunSubject)), {})
    return templates.get_template("page.html").render(
        title=title,
        generator=Markup(GENERATOR),
        parts=rendered,
        thumbnails={number: photo.thumbnail for number, photo in photos.items() if photo.thumbnail},
        style=_asset("style.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment


def _asset(name: str) -> Markup:
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))
