"""A report as a browser would read it: a tree of its elements."""

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Element:
    """An element of a page, its text, and what is inside of it."""

    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent, self.children = tag, attributes, parent, []

    @property
    def text(self) -> str:
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return " ".join("".join(parts).split())

    def all(self, tag=None, **attributes) -> list["Element"]:
        """Descendants in order; `kind` stands for one of the classes."""
        kind = attributes.pop("kind", None)
        found = []
        for child in self.children:
            if isinstance(child, str):
                continue
            if (
                tag in (None, child.tag)
                and all(child.attributes.get(name) == value for name, value in attributes.items())
                and (kind is None or kind in child.attributes.get("class", "").split())
            ):
                found.append(child)
            found += child.all(tag, **attributes, **({"kind": kind} if kind else {}))
        return found

    def one(self, tag=None, **attributes) -> "Element":
        (found,) = self.all(tag, **attributes)
        return found


class HtmlPage(HTMLParser):
    """A page as a tree; an element that is not closed, or closed twice, is an error."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.root = self.open = Element("root", {}, None)
        self.feed(self.source)
        self.close()
        assert self.open is self.root, f"{self.open.tag} is never closed"

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes)
        element = Element(tag, dict(attributes), self.open)
        self.open.children.append(element)
        if tag not in VOID:
            self.open = element

    def handle_startendtag(self, tag, attributes):
        self.open.children.append(Element(tag, dict(attributes), self.open))

    def handle_endtag(self, tag):
        assert tag == self.open.tag, f"</{tag}> in {self.open.tag}"
        self.open = self.open.parent

    def handle_data(self, text):
        self.open.children.append(text)

    @property
    def sections(self) -> list[str]:
        """Their names, from top to bottom."""
        return [section.attributes["id"] for section in self.root.all("section")]

    def section(self, name) -> Element:
        return self.root.one("section", id=name)

    def rows(self, section, number=0) -> list[list[str]]:
        """The texts of a section's table, row by row, its head included."""
        table = self.section(section).all("table")[number]
        return [[cell.text for cell in row.children if not isinstance(cell, str)] for row in table.all("tr")]
