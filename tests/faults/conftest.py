"""What tests of faults share."""

import pytest
from jobs import Calms


@pytest.fixture(scope="session")
def calms(tmp_path_factory, photo_folder, tiny_backbone) -> Calms:
    """Jobs that nothing disturbs."""
    return Calms(tmp_path_factory.mktemp("calm"), photo_folder, tiny_backbone)
