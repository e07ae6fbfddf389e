"""The frozen layers of a sample of photos, in memory and without a disk: Keras' predict, and each of VARIANTS."""

import time
from pathlib import Path

from benchmarks.variants import VARIANTS, Variant

DEPTH = "all"


def predict_sample(settings) -> dict:
    """Keras' predict; what it gives is kept, for the variants to be compared with."""
    import numpy as np

    from benchmarks.work import prepare

    work = prepare(settings, depth=DEPTH, precision="float32")
    pixels = np.concatenate(batches_of(settings, work, Variant()))
    found, outputs = second_time(lambda: work.classifier.prefix.predict(pixels, batch_size=Variant.batch, verbose=0))
    np.save(f"{settings.folder}/reference.npy", outputs)
    return {**found, "note": f"largest output {np.abs(outputs).max():.3g}"}


def forward(settings) -> dict:
    """The one of VARIANTS that the way's name says."""
    import numpy as np
    import tensorflow as tf

    from benchmarks.work import prepare

    variant = VARIANTS[settings.way]
    tf.config.threading.set_inter_op_parallelism_threads(variant.inter_op_threads)
    tf.config.threading.set_intra_op_parallelism_threads(variant.intra_op_threads)
    tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": variant.onednn_bfloat16})
    work = prepare(settings, depth=DEPTH, precision=variant.precision)
    batches = batches_of(settings, work, variant)
    started = time.perf_counter()
    function = ENGINES[variant.engine](work, variant, settings.folder)
    made = time.perf_counter() - started
    found, outputs = second_time(lambda: np.concatenate([function(pixels) for pixels in batches]))
    reference = np.load(f"{settings.folder}/reference.npy")[: len(outputs)]
    difference = float(np.abs(outputs.astype("float32") - reference).max())
    note = f"largest difference {difference:.2g}, made in {made:.1f} s"
    return {**found, "difference": difference, "made_seconds": made, "note": note}


def batches_of(settings, work, variant: Variant) -> list:
    """Batches of decoded training photos, spread over the classes."""
    import numpy as np

    from ktl.data.input_pipeline import PhotoCache, evaluation_batches

    train = work.dataset.train
    spread = np.random.default_rng(0).permutation(len(train))[: int(settings.sample * variant.share)]
    photos = {"image_size": work.image_size, "batch_size": variant.batch, "cache": PhotoCache(memory_gib=0)}
    return [np.asarray(pixels) for pixels, _ in evaluation_batches(train.take(spread), **photos)]


def prefix(work, variant: Variant):
    """The frozen layers, as the pass computes them unless the variant says otherwise."""
    import keras

    from ktl.models.batchnorm_folding import fold_batch_normalization

    pixels, output = work.classifier.input, work.classifier.boundary.tensor
    return fold_batch_normalization(pixels, [output]) if variant.folded else keras.Model(pixels, output)


def in_tensorflow(work, variant: Variant, folder: str):
    """A function from a batch of pixels to an array, as all engines give."""
    import tensorflow as tf

    model = prefix(work, variant)

    @tf.function(input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8)], jit_compile=variant.xla)
    def forward(batch):
        if variant.engine == "constants":
            weights = [[tf.constant(value) for value in group] for group in values]
            return model.stateless_call(*weights, tf.cast(batch, model.input.dtype), training=False)[0]
        return model(tf.cast(batch, model.input.dtype), training=False)

    groups = model.trainable_variables, model.non_trainable_variables
    values = [[variable.numpy() for variable in group] for group in groups]
    return lambda pixels: forward(pixels).numpy()


def in_litert(work, variant: Variant, folder: str):
    """LiteRT, by the file that an export has."""
    from ktl.exporting.litert import write_litert
    from ktl.inference.formats import open_litert

    write_litert(prefix(work, variant), f"{folder}/prefix.tflite", quantization="none")
    return open_litert(Path(folder, "prefix.tflite")).classify


def in_onnx(work, variant: Variant, folder: str):
    """ONNX Runtime, by the file that an export has."""
    from ktl.exporting.onnx import write_onnx
    from ktl.inference.formats import open_onnx

    write_onnx(prefix(work, variant), f"{folder}/prefix.onnx")
    return open_onnx(Path(folder, "prefix.onnx")).classify


ENGINES = {"tensorflow": in_tensorflow, "constants": in_tensorflow, "litert": in_litert, "onnx": in_onnx}


def second_time(compute) -> tuple[dict, object]:
    """Seconds of what takes no tracing and compiling any more; and what was computed."""
    started = time.perf_counter()
    outputs = compute()
    again = time.perf_counter()
    compute()
    found = {"seconds": time.perf_counter() - again, "first_seconds": again - started}
    return {**found, "units": len(outputs), "unit": "photos"}, outputs


WAYS = {"predict_sample": predict_sample, **dict.fromkeys(VARIANTS, forward)}
