"""One measurement of experiments/benchmark.py, in a process of its own; its settings are the only argument, as JSON."""

import json
import resource
import sys
import tempfile
import time

from ktl.config import RunConfig

BATCH = 32


def main(settings: dict) -> dict:
    """Does the work that `settings` name once; its seconds leave out imports, building the network and decoding."""
    from ktl.backbones import build_backbone
    from ktl.datasets import load_dataset
    from ktl.network import build_network
    from ktl.pipelines import PhotoCache, check_photos

    dataset = load_dataset(settings["dataset"])
    backbone = build_backbone(settings["backbone"], weights=settings["weights"])
    network = build_network(backbone, classes=len(dataset.class_names), freeze_depth=settings["depth"])
    cache = PhotoCache(memory_gib=8)
    check_photos(dataset, image_size=backbone.image_size, on_bad_image="fail", cache=cache)
    config = RunConfig(
        dataset=settings["dataset"], epochs=settings["epochs"], batch_size=BATCH, augmentation="none", patience=0
    )
    work = {"plain": plain, "cached": cached, "warm": warm, "predict": predict}[settings["way"]]
    found = work(network, dataset, config, cache)
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def plain(network, dataset, config, cache) -> dict:
    """Keras' own fit of the whole network with its frozen layers, from decoded photos in memory."""
    from ktl.pipelines import evaluation_batches, training_batches

    photos = {"image_size": network.graph.input.shape[1], "batch_size": BATCH, "cache": cache}
    train = training_batches(dataset.train, epochs=config.epochs, seed=0, augmentation="none", flip=True, **photos)
    evaluate = lambda split: evaluation_batches(split, **photos)  # noqa: E731
    return timed_training(network, network.model, dataset, config, lambda first: train, evaluate, time.perf_counter())


def cached(network, dataset, config, cache) -> dict:
    """The pass over the frozen layers, and the same training of the suffix."""
    with tempfile.TemporaryDirectory() as folder:
        return from_features(network, dataset, config, cache, folder, time.perf_counter())


def warm(network, dataset, config, cache) -> dict:
    """The same with the features on disk already."""
    with tempfile.TemporaryDirectory() as folder:
        features_of(network, dataset, cache, folder)
        return from_features(network, dataset, config, cache, folder, time.perf_counter())


def predict(network, dataset, config, cache) -> dict:
    """The floor of a pass: Keras' predict of the frozen layers over the same decoded photos."""
    from ktl.features import PASS_BATCH
    from ktl.pipelines import evaluation_batches

    started = time.perf_counter()
    for split in dataset.splits:
        size = network.graph.input.shape[1]
        batches = evaluation_batches(split, image_size=size, batch_size=PASS_BATCH, cache=cache)
        network.prefix.predict(batches, verbose=0)
    return {"seconds": time.perf_counter() - started}


def features_of(network, dataset, cache, folder):
    from ktl.features import FeatureCache, Views, entry_key

    views = Views(network.graph.input.shape[1])
    entries = FeatureCache(folder)
    key = entry_key(network.prefix, dataset, views=views, dtype="float32", on_bad_image="fail")
    started = time.perf_counter()
    entries.build(
        {key: network.boundary}, network.graph.input, dataset, views=views, dtype="float32", photo_cache=cache
    )
    return entries.load(key, dataset)[1], time.perf_counter() - started


def from_features(network, dataset, config, cache, folder, started) -> dict:
    from ktl.features import cached_evaluation_batches, cached_training_batches

    features, pass_seconds = features_of(network, dataset, cache, folder)
    train = lambda first: cached_training_batches(  # noqa: E731
        features["train"], batch_size=BATCH, epochs=config.epochs, seed=0, memory_gib=config.memory_gib
    )
    evaluate = lambda split: cached_evaluation_batches(features[split.name], batch_size=BATCH)  # noqa: E731
    found = timed_training(network, network.suffix, dataset, config, train, evaluate, started)
    return {**found, "pass_seconds": pass_seconds}


def timed_training(network, model, dataset, config, train, evaluate, started) -> dict:
    """Seconds from `started` to the scored test photos."""
    from ktl import evaluation, training

    steps = -(-len(dataset.train) // BATCH)
    alone = model is network.suffix and network.boundary is network.boundaries[-1]
    training.compile_model(
        model,
        head_variables=network.head_variables,
        config=config,
        steps_per_epoch=steps,
        xla=False,
        steps_per_execution=steps if alone else 1,
    )
    with tempfile.TemporaryDirectory() as folder:
        validation = evaluate(dataset.validation)
        history = training.fit(
            model, train=train, steps_per_epoch=steps, validation=validation, config=config, checkpoint_dir=folder
        )
    probabilities = evaluation.predict_probabilities(model, evaluate(dataset.test))
    return {
        "seconds": time.perf_counter() - started,
        "epoch_seconds": sorted(row["seconds"] for row in history)[len(history) // 2],
        "top1": evaluation.score(probabilities, dataset.test.labels)["top1"],
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
