"""experiments/probes.py: a row for each source and power; the power 1 is the kept layer but for its bias."""

import re

import numpy as np
import pytest
from support import REPOSITORY, run_script


@pytest.fixture(scope="module")
def probes():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "experiments")
        import probes
    return probes


def test_a_missing_data_set_is_one_line(probes, tmp_path):
    code, out, err = run_script(probes, "--dataset", tmp_path / "nothing")
    assert code == 2
    assert out.count("\n") <= 2
    assert "nothing" in err.splitlines()[-1]


def test_the_power_one_is_the_kept_layer_and_zero_the_features(
    probes, photo_folder, tiny_backbone, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, out, err = run_script(probes, "--dataset", photo_folder, "--backbone", tiny_backbone)
    assert code == 0, err
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()]
    assert header == list(probes.HEADER)
    found = {row[0]: row[1:] for row in rows}
    powers = {float(match[1]): row for name, row in found.items() if (match := re.search(r"power (\S+)$", name))}
    assert set(powers) == set(probes.POWERS)
    sources = {"features", "logits", "probabilities", "both"}
    assert set(found) - {name for name in found if "power" in name} == {
        *sources,
        "features and probabilities",
        "square root of features",
    }
    assert powers[1.0] == found["logits"], "shifting rows by a bias changes no probe"


def test_parts_side_by_side_have_one_length(probes):
    generator = np.random.default_rng(0)
    first, second = generator.random((4, 3)) + 1, 100 * generator.random((4, 5)) + 1
    found = probes.beside_one_another(first, second)
    np.testing.assert_allclose(found[:, :3] * np.sqrt((first**2).sum(axis=1))[:, None], first)
    np.testing.assert_allclose(found[:, 3:] * np.sqrt((second**2).sum(axis=1))[:, None], second)
