"""What JAX's pass says that its numbers depend on."""

import keras
import pytest

pytestmark = pytest.mark.slow  # it needs the extra `jax`


@pytest.fixture
def identity():
    """A function that gives the engine's identity as it is now."""
    pytest.importorskip("jax", reason='the extra "jax" is not installed')
    from ktl.backends.jax_engine import make

    return lambda: make(jit_compile=False).identity


def test_features_are_of_a_version_and_a_device(identity):
    import jax

    assert identity()["engine"] == f"jax {jax.__version__}, keras {keras.__version__}"
    assert identity()["device"] == "cpu"


@pytest.mark.parametrize("flags", ["", "--xla_cpu_enable_fast_math=true"])
def test_features_are_of_the_compiler_s_flags(identity, monkeypatch, flags):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert identity()["xla_flags"] == flags


def test_features_are_of_the_precision_of_products(identity):
    import jax

    found = set()
    for precision in ("bfloat16", "float32"):
        with jax.default_matmul_precision(precision):
            found.add(identity()["matmul_precision"])
    assert len(found | {identity()["matmul_precision"]}) == 3
