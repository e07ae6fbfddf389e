"""Using a trained network: Keras' predict on decoded photos, and `ktl predict` and a SavedModel from files."""

import time
from pathlib import Path

ROUNDS = 3


def cases(settings) -> dict:
    return {"test photos": list(WAYS)}


def keras_predict(settings) -> dict:
    """Keras' predict of the whole network; the run's files that the other ways read are written here."""
    from benchmarks.work import decode, prepare
    from ktl.data.input_pipeline import evaluation_batches
    from ktl.data.tf_data import TensorFlowFeed
    from ktl.inference.predict import BATCH_SIZE

    work = prepare(settings, depth="all")
    model = work.classifier.as_functional()
    write_run(work, model, Path(settings.folder))
    test = work.dataset.test
    batches = evaluation_batches(test, image_size=work.image_size, batch_size=BATCH_SIZE, cache=decode(work))
    dataset = TensorFlowFeed().dataset(batches)
    model.predict(dataset, verbose=0)  # traces, and fills the cache
    started = time.perf_counter()
    model.predict(dataset, verbose=0)
    return rate(len(test), started)


def from_files(settings) -> dict:
    """`ktl.inference.predict.label_photos` on the photos' files, decoding included."""
    from ktl.inference.predict import label_photos
    from ktl.inference.predictor import load_predictor

    predictor = load_predictor(Path(settings.folder, settings.way))
    photos = sorted(Path(settings.folder, "photos").iterdir())
    list(label_photos(predictor, photos[:64]))  # traces
    started = time.perf_counter()
    list(label_photos(predictor, photos))
    return rate(len(photos), started)


def write_run(work, model, folder: Path) -> None:
    """The network as a run's folder has it and as a SavedModel, and the test photos as files."""
    from ktl.exporting.saved_model import write_saved_model
    from ktl.exporting.subject import head_input
    from ktl.files import write_lines
    from ktl.inference.formats import KERAS_MODEL, LABELS, probabilities_of

    for name in ("run", "saved_model", "photos"):
        (folder / name).mkdir()
    names = work.dataset.class_names
    model.save(folder / "run" / KERAS_MODEL)
    write_lines(folder / "run" / LABELS, names)
    served = probabilities_of(model)
    write_saved_model(served, folder / "saved_model", features=head_input(model), class_names=names)
    for index in range(len(work.dataset.test)):
        (folder / "photos" / f"{index:06}").write_bytes(work.dataset.test.read(index))


def rate(photos: int, started: float) -> dict:
    return {"seconds": time.perf_counter() - started, "units": photos, "unit": "photos"}


WAYS = {"keras_predict": keras_predict, "run": from_files, "saved_model": from_files}
