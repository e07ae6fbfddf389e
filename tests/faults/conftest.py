"""What tests of faults share."""

import pytest
from jobs import Undisturbed


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, photo_folder, tiny_backbone) -> Undisturbed:
    """Jobs that nothing disturbs."""
    return Undisturbed(tmp_path_factory.mktemp("ended"), photo_folder, tiny_backbone)
