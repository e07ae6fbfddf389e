"""What is measured of a device."""

import time


def seconds_of(function) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def multiply_adds_up_to(tensor) -> int:
    """Of a photo's forward pass."""
    from ktl.models.keras_graph import multiply_adds, topological_nodes

    return sum(map(multiply_adds, topological_nodes(tensor)))


def product_rate(settings, precision: str) -> float:
    """Operations a second of the device's products of large matrices, the best of some."""
    import keras
    import numpy as np

    dtype = keras.dtype_policies.get(precision).compute_dtype
    square = np.random.default_rng(0).random((settings.product, settings.product), np.float32)
    square = keras.ops.cast(keras.ops.convert_to_tensor(square), dtype)

    def products():
        value = square
        for _ in range(4):
            value = keras.ops.matmul(value, square)
        keras.ops.convert_to_numpy(keras.ops.cast(value[:1, :1], "float32"))  # waits until it is there

    products()
    return 4 * 2 * settings.product**3 / min(seconds_of(products) for _ in range(settings.repeats))


def device_peak() -> dict:
    """The most memory of a GPU that was taken; nothing on a CPU, where that of the process is told."""
    import keras

    if keras.config.backend() == "jax":
        import jax

        peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    else:
        import tensorflow as tf

        peak = (
            tf.config.experimental.get_memory_info("GPU:0")["peak"] if tf.config.list_physical_devices("GPU") else None
        )
    return {} if peak is None else {"peak_mib": peak / 2**20}
