"""Exports of a real run: what they give against the run's own numbers, and clients that know nothing of ktl."""

import dataclasses
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support import Command

import ktl
from ktl.cli.flags import config_from
from ktl.cli.main import build_parser, main
from ktl.config.settings import RunConfig
from ktl.data.images import decode
from ktl.data.views import evaluation_view
from ktl.errors import UserError
from ktl.evaluation.calibration import fit_temperature, with_temperature
from ktl.exporting.export import ExportError, export, export_once
from ktl.exporting.model_card import render
from ktl.exporting.place import make_partial
from ktl.exporting.run_subject import evidence_of_run
from ktl.exporting.saved_model import write_saved_model
from ktl.exporting.subject import deployed, head_input
from ktl.exporting.writers import WRITERS
from ktl.files import read_lines, write_json
from ktl.inference.predictor import load_predictor
from ktl.models.backbones import BACKBONES
from ktl.models.batchnorm_folding import fold_batch_normalization
from ktl.models.classifier import TransferClassifier
from ktl.runs.finished_run import read_run

SIGNATURES = {
    "serving_default": (("photos", tf.string, [None]), "answer"),
    "pixels": (("pixels", tf.uint8, [None, None, None, 3]), "answer"),
    "views": (("views", tf.uint8, [None, 42, 42, 3]), "answer"),
    "features": (("photos", tf.string, [None]), "features"),
}
OUTPUTS = {
    "answer": {
        "probabilities": (tf.float32, [None, 6]),
        "label": (tf.string, [None]),
        "top_k_labels": (tf.string, [None, 5]),
        "top_k_probabilities": (tf.float32, [None, 5]),
    },
    "features": {"features": (tf.float32, [None, 20])},
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """What `ktl run FLAGS --output run --export deep/model` left in a folder, and what it printed."""

    folder: Path
    flags: tuple
    printed: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photo_folder, tiny_backbone) -> Trained:
    """A run of 6 classes, 42 pixels, the kept layer's 20 classes; and its export."""
    folder = tmp_path_factory.mktemp("trained")
    flags = ("--dataset", photo_folder, "--backbone", tiny_backbone, "--freeze-depth", "stem_relu", "--epochs", 3)
    flags += ("--batch-size", 8, "--learning-rate", 0.003, "--cache", "off")
    flags += ("--memory-gib", 1, "--export", "deep/model")  # of which none decides a number
    code, printed, err = Command("run", *flags, "--output", "run", folder=folder).wait()
    assert code == 0, err
    return Trained(folder, flags, printed)


@pytest.fixture(scope="module")
def run_folder(trained) -> Path:
    return trained.folder / "run"


@pytest.fixture(scope="module")
def exported(trained) -> tuple[Path, dict]:
    """Its SavedModel, and what was found when it was made: asked for again, it is there."""
    folder = trained.folder / "deep" / "model"
    before = (folder / "saved_model.pb").stat().st_mtime_ns
    found = export(trained.folder / "run", output=folder)
    assert (folder / "saved_model.pb").stat().st_mtime_ns == before
    return folder, found


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported[0]))


@pytest.fixture(scope="module")
def photo_bytes(run_folder, photo_folder) -> list[bytes]:
    return [(photo_folder / photo).read_bytes() for photo in read_run(run_folder).test_photos]


def test_the_signatures_are_those_that_clients_rely_on(served):
    assert set(served.signatures) == set(SIGNATURES)
    for name, ((argument, dtype, shape), kind) in SIGNATURES.items():
        signature = served.signatures[name]
        (found,) = signature.structured_input_signature[1].values()
        assert (found.name, found.dtype, found.shape.as_list()) == (argument, dtype, shape)
        outputs = {key: (value.dtype, value.shape.as_list()) for key, value in signature.structured_outputs.items()}
        assert outputs == OUTPUTS[kind]


def test_encoded_photos_give_what_the_run_gave(served, run_folder, photo_bytes):
    run = read_run(run_folder)
    answer = served.signatures["serving_default"](photos=tf.constant(photo_bytes))
    np.testing.assert_allclose(answer["probabilities"], run.probabilities["test"], atol=1e-5)
    with open(run_folder / "predictions.csv") as file:
        predictions = [line.split(",")[2] for line in file.read().splitlines()[1:]]
    assert [label.decode() for label in answer["label"].numpy()] == predictions


def test_the_top_five_are_the_highest_in_order(served, run_folder, photo_bytes):
    answer = served.signatures["serving_default"](photos=tf.constant(photo_bytes[:3]))
    names = np.array(read_run(run_folder).class_names)
    for row, labels, values in zip(
        answer["probabilities"].numpy(),
        answer["top_k_labels"].numpy(),
        answer["top_k_probabilities"].numpy(),
        strict=True,
    ):
        order = np.argsort(-row)[:5]
        assert [label.decode() for label in labels] == list(names[order])
        np.testing.assert_array_equal(values, row[order])


def test_pixels_of_any_size_and_views_give_the_same_as_bytes(served, photo_bytes):
    pixels = decode(photo_bytes[0])[np.newaxis]
    view = tf.constant(evaluation_view(pixels[0], size=42)[np.newaxis])
    expected = served.signatures["serving_default"](photos=tf.constant(photo_bytes[:1]))["probabilities"]
    np.testing.assert_allclose(
        served.signatures["pixels"](pixels=tf.constant(pixels))["probabilities"], expected, atol=1e-6
    )
    np.testing.assert_allclose(served.signatures["views"](views=view)["probabilities"], expected, atol=1e-6)


def test_features_are_the_normalised_kept_logits(served, run_folder, photo_bytes):
    received = served.signatures["features"](photos=tf.constant(photo_bytes[:4]))["features"].numpy()
    model = keras.models.load_model(run_folder / "model.keras")
    layer = model.get_layer("head_normalization")
    views = np.stack([evaluation_view(decode(photo), size=42) for photo in photo_bytes[:4]])
    logits = keras.Model(model.input, layer.input).predict(views, verbose=0)
    expected = layer.gamma.numpy() * logits / np.linalg.norm(logits, axis=1, keepdims=True)
    np.testing.assert_allclose(received, expected, atol=1e-4)


def test_an_empty_batch_gives_an_empty_answer(served):
    answer = served.signatures["serving_default"](photos=tf.constant([], tf.string))
    assert answer["probabilities"].shape == (0, 6)


def test_what_is_handed_over_is_complete(exported):
    folder, found = exported
    assert set(os.listdir(folder)) == {
        "saved_model.pb",
        "fingerprint.pb",
        "variables",
        "assets",
        "MODEL_CARD.md",
        "export.json",
        "checksums.json",
    }
    assert os.listdir(folder.parent) == ["model"]
    assert read_lines(folder / "assets" / "labels.txt") == tuple(f"class{k}" for k in range(6))
    assert found["verified_on"] == "test photos of the run"
    assert found["test"]["photos"] == 12
    assert found["test"]["top1"] == found["test"]["run_top1"]
    assert found["test"]["largest_difference"] < 1e-4
    assert found["mebibytes"] > 0.1


def test_export_json_says_what_it_is_of(exported, run_folder):
    folder, found = exported
    record, run = json.loads((folder / "export.json").read_text()), read_run(run_folder)
    assert record["format_version"] == 1
    assert (record["format"], record["quantization"], record["temperature"]) == ("savedmodel", "none", 1)
    assert (record["class_names"], record["image_size"]) == (list(run.class_names), 42)
    assert (record["verified_on"], record["verification"]) == (found["verified_on"], found["test"])
    assert record["run"]["settings"] == run.settings
    for split in ("validation", "test"):
        assert record["run"][split] == {name: round(run.result[split][name], 4) for name in record["run"][split]}
        assert {"top1", "log_loss"} <= record["run"][split].keys()


def without_ktl(folder: Path) -> dict:
    """An environment in which ktl cannot be imported."""
    (folder / "ktl").mkdir()
    (folder / "ktl" / "__init__.py").write_text("raise ImportError('ktl is not installed here')")
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_tensorflows_own_command_line_runs_it_without_ktl(exported, run_folder, photo_bytes, tmp_path):
    environment, model = without_ktl(tmp_path), str(exported[0])
    assert (
        subprocess.run(
            [sys.executable, "-c", "import ktl"], env=environment, cwd=tmp_path, capture_output=True
        ).returncode
        == 1
    )
    cli = [shutil.which("saved_model_cli", path=os.path.dirname(sys.executable))]
    np.save(tmp_path / "photos.npy", np.array(photo_bytes[:3]))
    flags = ["--dir", model, "--tag_set", "serve", "--signature_def", "serving_default"]
    inputs = ["--inputs", f"photos={tmp_path / 'photos.npy'}", "--outdir", str(tmp_path)]
    done = subprocess.run([*cli, "run", *flags, *inputs], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        np.load(tmp_path / "probabilities.npy"), read_run(run_folder).probabilities["test"][:3], atol=1e-5
    )
    labels = [label.decode() for label in np.load(tmp_path / "label.npy", allow_pickle=True)]  # its own file
    names = read_run(run_folder).class_names
    assert labels == [names[k] for k in read_run(run_folder).probabilities["test"][:3].argmax(axis=1)]


def edited(run_folder: Path, folder: Path, **changes) -> Path:
    """A copy of a run that wrote down other probabilities: split -> what becomes of them."""
    shutil.copytree(run_folder, folder)
    with np.load(folder / "probabilities.npz") as file:
        arrays = dict(file)
    arrays |= {split: change(arrays[split]) for split, change in changes.items()}
    np.savez(folder / "probabilities.npz", **arrays)
    return folder


@pytest.fixture(scope="module")
def too_sure(run_folder, tmp_path_factory) -> Path:
    """A run that was sure of the class of each of its validation photos, and wrong about half of them."""
    sure = 0.94 * np.eye(6, dtype=np.float32) + 0.01
    half_wrong = np.concatenate([np.roll(sure[:3], 1, axis=1), sure[3:]])
    return edited(run_folder, tmp_path_factory.mktemp("run") / "too sure", validation=lambda rows: half_wrong)


@pytest.fixture(scope="module")
def calibrated(too_sure, tmp_path_factory) -> tuple[Path, dict, int]:
    """A calibrated Keras file behind a link to a folder that is there, what was found, and the folder's inode.

    A folder may be a mount, or where somebody's shell is; a kill may have left something in it.
    """
    folder = tmp_path_factory.mktemp("calibrated") / "model"
    make_partial(folder / ".ktl-partial")
    (folder / ".ktl-partial" / "model.onnx").touch()
    inode, link = folder.stat().st_ino, folder.with_name("link")
    link.symlink_to(folder)
    return folder, export(too_sure, output=link, format="keras", calibrate=True), inode


def test_a_calibrated_model_divides_its_logits(too_sure, calibrated, photo_bytes):
    found, run = calibrated[1]["calibration"], read_run(too_sure)
    fitted = fit_temperature(run.probabilities["validation"], run.probabilities["validation_labels"])
    assert (found["temperature"], found["low"], found["high"]) == (fitted.value, fitted.low, fitted.high)
    assert fitted.value > 1.2
    assert found["photos"] == 6
    assert found["warning"].startswith("WARNING: 6 validation photos do not tell the temperature, which may be ")
    card = (calibrated[0] / "MODEL_CARD.md").read_text()
    assert (
        f"| temperature | {fitted.value:.3f}, fitted to 6 validation photos (95 % interval {fitted.low:.2f} to" in card
    )
    assert ": too wide to rely on)" in card
    views = np.stack([evaluation_view(decode(photo), size=42) for photo in photo_bytes])
    expected = np.exp(np.log(run.probabilities["test"]) / found["temperature"])
    received = load_predictor(calibrated[0]).classify(views)
    np.testing.assert_allclose(received, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)


def test_a_folder_that_is_there_is_filled(calibrated):
    folder, _, inode = calibrated
    assert folder.stat().st_ino == inode
    files = {"model.keras", "labels.txt", "MODEL_CARD.md", "export.json", "checksums.json"}
    assert set(os.listdir(folder)) == files
    assert sorted(os.listdir(folder.parent)) == ["link", "model"]


def test_the_command_line_gives_an_export_that_is_there_and_says_what_was_found(too_sure, calibrated, capsys):
    """It would refuse the folder if the flags asked for another export."""
    flags = ["--run", too_sure, "--output", calibrated[0], "--format", "keras", "--calibrate"]
    before = (calibrated[0] / "model.keras").stat().st_mtime_ns
    assert main(["export", *map(str, flags)]) == 0
    out = capsys.readouterr().out
    assert (calibrated[0] / "model.keras").stat().st_mtime_ns == before
    assert "keras, quantization none" in out
    assert "WARNING: 6 validation photos do not tell the temperature" in out
    assert out.splitlines()[-1] == f"{calibrated[0]}"


def test_an_export_opens_as_the_run_does(run_folder, exported, photo_bytes):
    views = np.stack([evaluation_view(decode(photo), size=42) for photo in photo_bytes[:2]])
    run, other = load_predictor(run_folder), load_predictor(exported[0])
    assert run.class_names == other.class_names
    assert run.image_size == other.image_size == 42
    np.testing.assert_allclose(run.classify(views), other.classify(views), atol=1e-6)


def test_an_export_that_differs_from_the_run_is_removed(run_folder, tmp_path):
    other = edited(
        run_folder,
        tmp_path / "other",
        test=lambda rows: np.concatenate([rows[:3], np.roll(rows[3:4], 1, axis=1), rows[4:]]),
    )
    with pytest.raises(
        ExportError, match=r"gives what the run gives.*: a probability that differs by 0\.\d+, over 0\.0001"
    ) as error:
        export(other, output=tmp_path / "model", format="keras")
    assert f"the photo that differs most is {read_run(other).test_photos[3]}." in f"{error.value}"
    assert os.listdir(tmp_path) == ["other"]


def test_a_run_of_version_0_1_is_compared_with_what_its_network_gives_now(run_folder, tmp_path):
    """What it wrote down was of photos that another filter has shrunk."""
    old = tmp_path / "old"
    shutil.copytree(run_folder, old)
    (old / "checksums.json").unlink()
    for name in ("config.json", "result.json", "environment.json"):
        value = json.loads((old / name).read_text())
        (old / name).write_text(json.dumps({key: value[key] for key in value.keys() - {"format_version", "checksum"}}))
    written = read_run(run_folder).probabilities
    np.savez(old / "probabilities.npz", **{**written, "test": (written["test"] * 0.9 + 0.1 / 6).astype("float32")})
    for folder in (run_folder, old):
        evidence = evidence_of_run(read_run(folder), tmp_path, temperature=2.0)
        expected = with_temperature(written["test"], 2.0)
        np.testing.assert_allclose(evidence.expected, expected, atol=1e-5)


def test_an_export_that_does_not_load_is_removed(run_folder, tmp_path, monkeypatch):
    write = WRITERS["keras"]

    def damage(subject, folder, quantization):
        write(subject, folder, quantization)
        (folder / "model.keras").write_bytes(b"PK")

    monkeypatch.setitem(WRITERS, "keras", damage)
    with pytest.raises(ExportError, match=r"Expected an export that works in a fresh process\. Received: .*keras"):
        export(run_folder, output=tmp_path / "model", format="keras")
    assert os.listdir(tmp_path) == []


def test_an_export_does_not_go_into_the_data_set(run_folder, photo_folder):
    """It would be a class of the next run."""
    before = sorted(photo_folder.rglob("*"))
    for place in (photo_folder / "model", photo_folder / "class0", photo_folder / "new" / "model"):
        with pytest.raises(UserError, match="Expected `output` outside of the data set"):
            export(run_folder, output=place)
    assert sorted(photo_folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "pickle"}, "Expected `format` to be one of: savedmodel, litert, onnx, keras. Received: pickle"),
        ({"quantization": "int4"}, "Expected `quantization` to be one of: none, float16, int8. Received: int4"),
        ({"quantization": "int8"}, "Expected `format` to be litert with `quantization` int8. Received: savedmodel"),
        ({"photos": ["a.jpg"]}, "Expected no `photos` with a run, which is verified on its test photos"),
        ({"run": "runs/base"}, "Expected either `classifier` or `run`. Received: both"),
    ],
)
def test_bad_settings_are_refused(run_folder, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        export(run_folder, output=tmp_path / "model", **arguments)
    assert os.listdir(tmp_path) == []


def test_what_is_exported_and_where_to_must_be_named(run_folder):
    with pytest.raises(UserError, match="Expected either `classifier` or `run`"):
        export(output="model")
    with pytest.raises(UserError, match="Expected `output`, a new or empty folder"):
        export(run_folder)


def test_a_folder_with_something_in_it_is_left_alone(run_folder, tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="Expected a new or empty folder"):
        export(run_folder, output=tmp_path)
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_a_run_that_has_not_ended_is_refused(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(
        UserError, match=r"Expected the folder of a run that has ended\. Received: .*without result.json"
    ):
        export(tmp_path / "run", output=tmp_path / "model")


def test_photos_that_are_gone_are_named(run_folder, tmp_path, photo_folder):
    shutil.copytree(photo_folder, tmp_path / "photos")
    shutil.copytree(run_folder, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text()) | {"dataset": str(tmp_path / "photos")}
    write_json(tmp_path / "run" / "config.json", config)
    photo = read_run(run_folder).test_photos[5]
    (tmp_path / "photos" / photo).unlink()
    with pytest.raises(UserError, match=r"Expected the photos that the run was tested on\. Received: none named"):
        export(tmp_path / "run", output=tmp_path / "model", format="keras")
    assert sorted(os.listdir(tmp_path)) == ["photos", "run"]


def test_the_model_card_tells_what_a_stranger_must_know(exported, run_folder, photo_folder):
    card, run = (exported[0] / "MODEL_CARD.md").read_text(), read_run(run_folder)
    for fact in (
        str(photo_folder),
        f"{run.result['test']['top1']:.4f}",
        f"{run.result['test']['ece']:.4f}",
        "stem_relu",
        "class0, class1, class2, class3, class4, class5",
        "python experiments/run.py --dataset",
        "--freeze-depth stem_relu",
        keras.__version__,
        "savedmodel",
        "not calibrated",
        "trained on ImageNet",
        "WARNING: few photos choose the epoch: 6 for validation",
    ):
        assert fact in card


def test_the_model_card_says_which_training_a_validation_score_is_of(exported, run_folder):
    run = read_run(run_folder)
    for refit, folds, told in (
        (None, 0, "by which the epoch was chosen |"),
        ({"photos": 60, "epochs": 9}, 5, "by which the epoch was chosen, of 5 folds |"),
        ({"photos": 60, "epochs": 9}, 0, "of the training before the second one, whose best epoch was chosen by it |"),
    ):
        other = dataclasses.replace(
            run, settings={**run.settings, "folds": folds}, result={**run.result, "refit": refit}
        )
        card = render(types.SimpleNamespace(run=other, class_names=run.class_names), exported[1])
        assert f"| validation top-1 | {run.result['validation']['top1']:.4f}, {told}" in card


def test_the_model_cards_command_gives_the_same_settings(exported, run_folder):
    card = (exported[0] / "MODEL_CARD.md").read_text()
    (line,) = [line for line in card.splitlines() if line.startswith("python experiments/run.py")]
    options = build_parser().parse_args(["run", *shlex.split(line)[2:]])
    assert config_from(options).as_dict() == read_run(run_folder).settings


def test_the_command_line_exports_what_it_trains_once_and_no_other_run(trained):
    saved_model = trained.folder / "deep" / "model" / "saved_model.pb"
    before = saved_model.stat().st_mtime_ns
    code, again, err = Command("run", *trained.flags, "--output", "run", folder=trained.folder).wait()
    assert (code, again) == (0, trained.printed), err
    assert saved_model.stat().st_mtime_ns == before
    flags = (*trained.flags, "--seed", 1, "--output", "another")
    code, out, err = Command("run", *flags, folder=trained.folder).wait()
    assert (code, out) == (2, "")
    assert "--export deep/model, an export of another run" in err.splitlines()[-1]
    assert not (trained.folder / "another").exists(), "it trained before it looked"


def test_an_export_is_kept_if_it_is_a_saved_model_of_the_same_run(exported, run_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(exported[0], folder)
    before = (folder / "saved_model.pb").stat().st_mtime_ns
    export_once(run_folder, output=folder)
    assert (folder / "saved_model.pb").stat().st_mtime_ns == before
    record = json.loads((folder / "export.json").read_text())
    record["run"]["test"]["log_loss"] += 0.001  # trained anew, on other photos perhaps
    write_json(folder / "export.json", record)
    with pytest.raises(UserError, match="the SavedModel of this run"):
        export_once(run_folder, output=folder)
    shutil.copy(exported[0] / "export.json", folder)
    (folder / "saved_model.pb").rename(folder / "model.onnx")
    with pytest.raises(UserError, match="the SavedModel of this run"):
        export_once(run_folder, output=folder)


def test_a_place_that_is_taken_is_told_before_the_training(tmp_path, photo_folder, tiny_backbone):
    (tmp_path / "thesis.txt").touch()
    flags = ["--dataset", photo_folder, "--backbone", tiny_backbone, "--output", "run", "--export", "."]
    code, out, err = Command("run", *flags, folder=tmp_path).wait()
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "ktl: Expected a new or empty folder. Received: --export ."
    assert not (tmp_path / "run").exists()


CLASSES = tuple(f"class{k}" for k in range(7))

HEADS = {
    "kept_beside": {"class_names": CLASSES[:2]},
    "kept_batchnorm": {},
    "kept_raw": {},
    "kept_softmax": {},
    "kept_softmax_beside": {},
    "kept_softened": {},
    "replaced": {"hidden_units": 3},
    "replaced_normalized": {},
}
"""Head -> what its classifier has besides; the head `kept` is that of the run."""

IN_GRAPHS = ("kept_beside", "kept_batchnorm")
"""Heads whose layers differ in kind: one that reads two tensors, and one with statistics, which is folded away."""


def saved_and_asked(classifier: TransferClassifier, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a SavedModel for an encoded photo, and of the classifier for its view."""
    size = classifier.image_size
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 255, (size + 30, size + 50, 3), np.uint8)).save(folder / "noise.png")
    encoded = (folder / "noise.png").read_bytes()
    model = deployed(classifier.as_functional())
    names = classifier.class_names
    (folder / "model").mkdir()
    write_saved_model(model, folder / "model", features=head_input(classifier), class_names=names)
    signature = tf.saved_model.load(str(folder / "model")).signatures["serving_default"]
    view = evaluation_view(decode(encoded), size=size)[np.newaxis]
    answer = signature(photos=tf.constant([encoded]))
    assert answer["top_k_labels"].shape == (1, min(5, len(names)))
    return answer["probabilities"].numpy(), model.predict(view, verbose=0)


@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=() if head in IN_GRAPHS else pytest.mark.long) for head in HEADS]
)
def test_every_head_is_exported(head, tiny_backbone, tmp_path):
    classifier = TransferClassifier(tiny_backbone, **{"class_names": CLASSES, "head": head, **HEADS[head]})
    received, expected = saved_and_asked(classifier, tmp_path)
    np.testing.assert_allclose(received, expected, atol=1e-5)


@pytest.mark.parametrize("head", [head for head in HEADS if head not in IN_GRAPHS])
def test_every_head_is_deployed_as_it_is(head, tiny_backbone):
    """The network that is written, before it is."""
    classifier = TransferClassifier(tiny_backbone, **{"class_names": CLASSES, "head": head, **HEADS[head]})
    views = np.random.default_rng(0).integers(0, 256, (2, 42, 42, 3), np.uint8)
    model = deployed(classifier.as_functional())
    network = fold_batch_normalization(model.inputs[0], [model.outputs[0], head_input(classifier)])
    received, features = (output.numpy() for output in network(views, training=False))
    np.testing.assert_allclose(received, tf.nn.softmax(classifier(views, training=False)), atol=1e-5)
    kernel, bias = classifier.new_layers[-1].get_weights()
    np.testing.assert_allclose(tf.nn.softmax(features @ kernel + bias), received, atol=1e-5)


FAMILIES = [
    "vgg16",
    "resnet50",
    "resnet50v2",
    "inceptionv3",
    "inceptionresnetv2",
    "xception",
    "mobilenet_0.25",
    "mobilenetv2_0.35",
    "mobilenetv3small",
    "densenet121",
    "nasnetmobile",
    "efficientnetb0",
    "efficientnetv2b0",
    "convnexttiny",
    "efficientnet_lite0",
]


EXPORTED = ("mobilenetv3small", "efficientnet_lite0")
"""One with activations of its own, and ktl's own graph."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in EXPORTED else pytest.mark.long) for name in FAMILIES]
)
def test_one_of_each_family_is_exported(name, tmp_path):
    keras.utils.set_random_seed(0)
    classifier = TransferClassifier(name, class_names=CLASSES, weights="random")
    received, expected = saved_and_asked(classifier, tmp_path)
    assert received.shape == (1, 7)
    np.testing.assert_allclose(received, expected, atol=1e-4)


def test_the_families_are_those_of_the_table():
    assert {BACKBONES[name].module for name in FAMILIES} | {"vgg19"} == {row.module for row in BACKBONES.values()}


@pytest.mark.slow
def test_mobilenet_on_real_photos_has_exactly_the_runs_accuracy(assets, tmp_path):
    flowers = assets / "data" / "flowers17"
    names = sorted(path.name for path in (flowers / "test").iterdir())[:6]
    for split, name in itertools.product(("train", "validation", "test"), names):
        shutil.copytree(flowers / split / name, tmp_path / "photos" / split / name)
    config = RunConfig(
        dataset=str(tmp_path / "photos"),
        backbone="mobilenet_0.75",
        weights=str(assets / "weights/mobilenet_0_75_224.weights.h5"),
        freeze_depth="all",
        epochs=3,
        augmentation="none",
    )
    ktl.run(config, output=tmp_path / "run")
    found = export(tmp_path / "run", output=tmp_path / "model")["test"]
    assert found["photos"] == 120
    assert found["top1"] == found["run_top1"] == read_run(tmp_path / "run").result["test"]["top1"] > 0.85
