"""What of the code is part of an entry's key."""

import ast
import inspect
import itertools

import PIL
import pytest

from ktl.data import augmentation, views
from ktl.features import code_identity as module
from ktl.features.code_identity import code_identity


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (augmentation, "CROP_AREA", (0.5, 1.0)),
        (augmentation, "CROP_ASPECT", (1.0, 1.0)),
        (augmentation, "VIEW_SEED", 1),
        (views, "EVALUATION_CROP", 0.9),
        (views, "MAX_ASPECT", 5),
        (PIL, "__version__", "99"),
    ],
)
def test_it_changes_with_constants_and_versions(monkeypatch, owner, name, value):
    before = code_identity()
    assert code_identity() == before
    monkeypatch.setattr(owner, name, value)
    assert code_identity() != before


def test_it_changes_with_the_text_of_the_modules(monkeypatch):
    before = code_identity()
    monkeypatch.setattr(module, "MODULES", module.MODULES[1:])
    assert code_identity() != before


DECIDE_NO_PIXEL = {"arrays", "batches", "dataset", "digest", "order", "split", "tf_data", "urls"}
"""Of ktl.data: which photos there are, where their bytes come from, and in which order they are shown."""


def test_it_has_all_of_data_that_its_modules_use():
    texts = {owner.__name__: inspect.getsource(owner) for owner in module.MODULES}
    used = set()
    for node in itertools.chain.from_iterable(ast.walk(ast.parse(text)) for text in texts.values()):
        if isinstance(node, ast.ImportFrom) and node.module == "ktl.data":
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ktl.data."):
            used.add(node.module.removeprefix("ktl.data."))
    assert "png" in used
    assert {f"ktl.data.{name}" for name in used - DECIDE_NO_PIXEL} <= set(texts)


def test_it_does_not_change_with_the_number_of_cores(monkeypatch):
    before = code_identity()
    monkeypatch.setattr("ktl.data.images.WORKERS", 77)
    assert code_identity() == before
