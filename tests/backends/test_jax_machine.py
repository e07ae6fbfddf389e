"""JAX's share of the machine, on a CPU."""

import types

import pytest

from ktl.errors import UserError

pytestmark = pytest.mark.slow  # it needs the extra `jax`


@pytest.fixture
def machine():
    pytest.importorskip("jax", reason='the extra "jax" is not installed')
    from ktl.backends import jax_machine

    return jax_machine


def test_without_a_gpu_all_is_deterministic(machine):
    assert machine.gpus() == []
    machine.be_deterministic()


def test_a_gpu_is_not_deterministic_and_says_what_to_set(machine, monkeypatch):
    gpu = types.SimpleNamespace(platform="gpu", device_kind="a GPU", compute_capability="9.0")
    monkeypatch.setattr("jax.devices", lambda: [gpu])
    assert machine.gpus() == [("a GPU", (9, 0))]
    with pytest.raises(UserError, match=r"^Expected `deterministic` to be False .* XLA_FLAGS=--xla_gpu_determ"):
        machine.be_deterministic()
