"""What TensorFlow and JAX make of the device that is there: the pass, steps behind three freeze depths, a search.

Weights are random and photos made up, but for the search, which is of the flags' data set and backbone: nothing is
fetched. Of the two backends those are measured that are installed.
"""

import functools
import importlib.util
import time

ROUNDS = 1

WAYS_OF_BACKENDS = {
    "tensorflow": {"backend": "tensorflow", "xla": "off"},
    "tensorflow, XLA": {"backend": "tensorflow", "xla": "on"},
    "jax": {"backend": "jax", "xla": "on"},
}
WAYS_OF_SEARCH = ("keras_tuner", "cached")


def cases(settings) -> dict:
    return {name: list(ways) for name, (_, ways) in work_of(settings).items()}


def variables(settings) -> dict[str, str]:
    """Of a measurement's process."""
    way = WAYS_OF_BACKENDS.get(settings.way)
    return {"KERAS_BACKEND": way["backend"] if way else settings.case.rpartition(" ")[-1]}


def work_of(settings) -> dict:
    """Case -> what measures it, and its ways."""
    ways = [name for name, way in WAYS_OF_BACKENDS.items() if importlib.util.find_spec(way["backend"])]
    found = {}
    for backbone in settings.backbones:
        for precision in settings.precisions:
            for batch in settings.batches:
                measured = functools.partial(forward, backbone=backbone, precision=precision, batch=batch)
                found[f"{backbone}, pass, {precision}, batch {batch}"] = measured, ways
        for share in settings.shares:
            found[f"{backbone}, steps behind {share:.0%}"] = (
                functools.partial(steps, backbone=backbone, share=share),
                ways,
            )
    trials = len(settings.grid_depths) * len(settings.grid_scales)
    for backend in dict.fromkeys(WAYS_OF_BACKENDS[way]["backend"] for way in ways):
        found[f"search of {trials} trials on {backend}"] = search, WAYS_OF_SEARCH
    return found


def measure(settings) -> dict:
    return work_of(settings)[settings.case][0](settings)


def forward(settings, *, backbone: str, precision: str, batch: int) -> dict:
    """The pass up to the classification layer's end on one batch, from NumPy to NumPy."""
    import numpy as np

    from ktl.backends.engines import make_engine

    work = made_up(settings, backbone, "none", precision=precision)
    classifier, end = work.classifier, work.classifier.boundaries[-1].tensor
    compiled = make_engine(jit_compile=work.machine.xla).compile(classifier.input, [end])
    photos = np.random.default_rng(0).integers(0, 256, (batch, *classifier.input_shape[1:]), "uint8")
    first = seconds_of(lambda: compiled(photos))
    seconds = min(seconds_of(lambda: compiled(photos)) for _ in range(settings.repeats))
    needed, rate = 2 * multiply_adds_up_to(end) * batch / seconds, product_rate(settings, precision)
    note = (
        f"compiled in {max(0.0, first - seconds):.1f} s; {needed / 1e12:.3g} TFLOP/s, {needed / rate:.0%} of the "
        f"{rate / 1e12:.3g} of matrix products"
    )
    return {"seconds": seconds, "units": batch, "unit": "photos", "note": note, **device_peak()}


def steps(settings, *, backbone: str, share: float) -> dict:
    """Training steps of the suffix on one batch, the second of two epochs."""
    import keras

    from benchmarks.feeds import feature_inputs, random_batch
    from benchmarks.fitting import compile_part
    from ktl.data.batches import ArraySpec, Batches
    from ktl.machine import faster_on_cpu
    from ktl.training.feeds import make_feed

    work = made_up(settings, backbone, "none")
    depths = [boundary.depth for boundary in work.classifier.boundaries if boundary.cost_share <= share]
    work.classifier.freeze(depths[-1])
    suffix = compile_part(work, feature_inputs(work, {}))
    batch, times = random_batch(work), []
    specs = tuple(ArraySpec(array.shape, str(array.dtype)) for array in batch)
    batches = Batches(2 * settings.steps, lambda number: batch, specs)
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: times.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()),
    )
    with faster_on_cpu(suffix.layers), make_feed(suffix) as feed:
        training = {"epochs": 2, "steps_per_epoch": settings.steps, "callbacks": [clock], "verbose": 0}
        keras.Model.fit(suffix, feed.once(batches), shuffle=False, **training)
    first, seconds = times[1] - times[0], times[3] - times[2]
    note = f"behind {work.classifier.boundary.name}; compiled in {max(0.0, first - seconds):.1f} s"
    return {"seconds": seconds, "units": settings.steps, "unit": "steps", "note": note, **device_peak()}


def search(settings) -> dict:
    """The same trials by KerasTuner of the whole network, and of suffixes over one pass."""
    from benchmarks import grid

    return {**grid.WAYS[settings.way](settings), **device_peak()}


def made_up(settings, backbone: str, depth: str, *, precision: str = "float32"):
    from benchmarks.work import prepare

    xla = WAYS_OF_BACKENDS[settings.way]["xla"]
    changes = {"backbone": backbone, "weights": "random", "precision": precision, "xla": xla}
    return prepare(settings, depth=depth, image_size=settings.side, **changes)


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


WAYS = dict.fromkeys((*WAYS_OF_BACKENDS, *WAYS_OF_SEARCH), measure)
