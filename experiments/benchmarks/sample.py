"""The frozen layers of a sample of photos, in memory and without a disk: Keras' predict, and each of VARIANTS."""

import time

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
    function = compiled(work, variant)
    found, outputs = second_time(lambda: np.concatenate([function(pixels).numpy() for pixels in batches]))
    reference = np.load(f"{settings.folder}/reference.npy")[: len(outputs)]
    difference = float(np.abs(outputs.astype("float32") - reference).max())
    return {**found, "difference": difference, "note": f"largest difference {difference:.2g}"}


def batches_of(settings, work, variant: Variant) -> list:
    """Batches of decoded training photos, spread over the classes."""
    import numpy as np

    from ktl.data.input_pipeline import PhotoCache, evaluation_batches

    train = work.dataset.train
    spread = np.random.default_rng(0).permutation(len(train))[: int(settings.sample * variant.share)]
    photos = {"image_size": work.image_size, "batch_size": variant.batch, "cache": PhotoCache(memory_gib=0)}
    return [pixels for pixels, _ in evaluation_batches(train.take(spread), **photos)]


def compiled(work, variant: Variant):
    """A function from a batch of pixels to a tensor."""
    import keras
    import tensorflow as tf

    from ktl.models.batchnorm_folding import fold_batch_normalization

    pixels, output = work.classifier.input, work.classifier.boundary.tensor
    model = fold_batch_normalization(pixels, [output]) if variant.folded else keras.Model(pixels, output)
    return tf.function(
        lambda batch: model(tf.cast(batch, pixels.dtype), training=False),
        input_signature=[tf.TensorSpec([None, *pixels.shape[1:]], tf.uint8)],
        jit_compile=variant.xla,
    )


def second_time(compute) -> tuple[dict, object]:
    """Seconds of what takes no tracing and compiling any more; and what was computed."""
    started = time.perf_counter()
    outputs = compute()
    again = time.perf_counter()
    compute()
    found = {"seconds": time.perf_counter() - again, "first_seconds": again - started}
    return {**found, "units": len(outputs), "unit": "photos"}, outputs


WAYS = {"predict_sample": predict_sample, **dict.fromkeys(VARIANTS, forward)}
