"""Brings the files that lie outside docs/ into the site: the figures of the results, CONTRIBUTING.md and CHANGELOG.md.

The pages link to them as they lie in the repository, so that the links hold there too; here they are turned.
"""

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
RESULTS = "experiments/results"


def on_files(files, config):
    """Adds them to the files of docs/."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text().replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    for figure in sorted((ROOT / RESULTS).glob("**/*.svg")):
        place = figure.relative_to(ROOT).as_posix()
        files.append(File.generated(config, place, abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links to them."""
    for name, target in PAGES.items():
        markdown = markdown.replace(f"](../{name}", f"]({target}")
    return markdown.replace(f"](../{RESULTS}", f"]({RESULTS}")
