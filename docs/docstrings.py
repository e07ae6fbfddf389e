"""Shows the section `Example:` of a docstring as code; the parser of docstrings knows it as `Examples:`."""

import re

import griffe


class Examples(griffe.Extension):
    """An extension of Griffe, which reads the docstrings."""

    def on_object(self, *, obj, **kwargs):
        """Renames the section."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
