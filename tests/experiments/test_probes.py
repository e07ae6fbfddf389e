"""experiments/probes.py: a row for each source and power; the power 1 is the kept layer but for its bias."""

import re

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
    sources = {"features", "logits", "probabilities", "features_and_logits", "features_and_probabilities"}
    assert set(found) - {name for name in found if "power" in name} == {
        *sources,
        "square root of features",
    }
    assert powers[1.0] == found["logits"], "shifting rows by a bias changes no probe"
