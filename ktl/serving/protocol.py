"""TensorFlow Serving's predict API as JSON: what a request says, and what the answers look like.

A request names a signature of an exported SavedModel, see `ktl.exporting.saved_model`; without a name it is
`serving_default`, encoded photos.

Reference:
    TensorFlow Serving, RESTful API. https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np

from ktl.inference.formats import FEATURES, VIEWS

Form = Literal["instances", "inputs"]
"""Photos as rows, or as one column; the answer has the same form."""

MAX_PHOTOS = 256
"""Of a request: 32 MiB of tiny photos would become gigabytes of views."""

MOST_BRACKETS = 4 * MAX_PHOTOS
"""Of a request's JSON: a photo has one, and two with its name."""

MOST_PIXELS = 2**20
"""Of a request whose JSON lists pixels: each is a list of its own, in 90 bytes of memory."""

VERSION = "1"
DEFAULT = "serving_default"

Value = bytes | np.ndarray
"""A photo of a request: its encoded bytes, or pixels, uint8 [height, width, 3]."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a signature: its dtype, as TensorFlow calls it, and its shape, with -1 for any length."""

    dtype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a signature takes and gives.

    Attributes:
        input: name of its one input.
        taken: that input.
        given: name of an output -> the output.
    """

    input: str
    taken: Tensor
    given: Mapping[str, Tensor]


def signatures(*, image_size: int, classes: int, top: int, channels: int | None = None) -> dict[str, Signature]:
    """Name -> signature, as the exported SavedModel of such a network has them.

    Args:
        image_size: side of the views, pixels.
        classes: how many there are.
        top: how many of them an answer lists.
        channels: of the features; None for a network that gives none.
    """
    labels = {
        "probabilities": Tensor("DT_FLOAT", (-1, classes)),
        "label": Tensor("DT_STRING", (-1,)),
        "top_k_labels": Tensor("DT_STRING", (-1, top)),
        "top_k_probabilities": Tensor("DT_FLOAT", (-1, top)),
    }
    photos = Tensor("DT_STRING", (-1,))
    found = {
        DEFAULT: Signature("photos", photos, labels),
        "pixels": Signature("pixels", Tensor("DT_UINT8", (-1, -1, -1, 3)), labels),
        VIEWS: Signature(VIEWS, Tensor("DT_UINT8", (-1, image_size, image_size, 3)), labels),
    }
    if channels is not None:
        found[FEATURES] = Signature("photos", photos, {FEATURES: Tensor("DT_FLOAT", (-1, channels))})
    return found


_WHITESPACE = str.maketrans("", "", " \t\n\v\f\r")


class BadRequest(ValueError):
    """A request that is none of this API; the message is for its sender."""


class PredictRequest(NamedTuple):
    """The photos that a request wants classified.

    Attributes:
        signature: the name of what it asks for.
        form: how it lists them.
        photos: what it gives of each.
    """

    signature: str
    form: Form
    photos: list[Value]


class Answer(TypedDict):
    """What is said of one photo, under the names of the signatures' outputs."""

    probabilities: list[float]
    label: str
    top_k_labels: Sequence[str]
    top_k_probabilities: Sequence[float]


def parse_predict(body: bytes | bytearray, known: Mapping[str, Signature]) -> PredictRequest:
    """Reads the body of a predict request.

    Args:
        body: JSON.
        known: the signatures that there are.

    Raises:
        BadRequest: it is no such request.
    """
    request = _json(body)
    form = _form(request)
    name = request.get("signature_name")
    name = DEFAULT if name in (None, "") else name
    if not isinstance(name, str) or name not in known:
        raise BadRequest(f"Expected signature_name to be one of: {', '.join(known)}. Received: {name!r:.100}")
    signature, values = known[name], request[form]
    if form == "inputs":
        values = _unnamed(values, signature)
        if isinstance(values, dict) and values.keys() == {"b64"}:
            values = [values]  # one photo is a column, too
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_PHOTOS:
        raise BadRequest(f'Expected "{form}" to be a list of 1 to {MAX_PHOTOS} photos')
    read = _encoded if signature.taken.dtype == "DT_STRING" else _pixels
    return PredictRequest(name, form, [read(value, signature, f"{form}[{i}]") for i, value in enumerate(values)])


def answer_of(probabilities: np.ndarray, top: Sequence[tuple[str, float]]) -> Answer:
    """The answer for one photo.

    Args:
        probabilities: float32 [classes].
        top: (label, probability) of the most probable classes, the best first.
    """
    labels, highest = zip(*top, strict=True)
    return {
        "probabilities": probabilities.tolist(),
        "label": labels[0],
        "top_k_labels": labels,
        "top_k_probabilities": highest,
    }


def render_predictions(form: Form, answers: Sequence[Mapping[str, Any]]) -> dict:
    """The body of the answer to a predict request of that form; an output that is the only one goes without its name.

    Args:
        form: of the request.
        answers: name of an output -> its value, for each photo.
    """
    names = list(answers[0])
    if form == "instances":
        return {"predictions": [answer[names[0]] for answer in answers] if len(names) == 1 else list(answers)}
    columns = {name: [answer[name] for answer in answers] for name in names}
    return {"outputs": columns[names[0]] if len(names) == 1 else columns}


def render_status() -> dict:
    """The body of the answer to whether the model is available."""
    status = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": VERSION, "state": "AVAILABLE", "status": status}]}


def render_metadata(name: str, known: Mapping[str, Signature]) -> dict:
    """The body of the answer to what the model of that name takes and gives."""
    definitions = {
        signature: {
            "inputs": {described.input: _tensor_info(described.taken)},
            "outputs": {output: _tensor_info(tensor) for output, tensor in described.given.items()},
            "method_name": "tensorflow/serving/predict",
        }
        for signature, described in known.items()
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": VERSION},
        "metadata": {"signature_def": {"signature_def": definitions}},
    }


def _tensor_info(tensor: Tensor) -> dict:
    dimensions = [{"size": str(length), "name": ""} for length in tensor.shape]
    return {"dtype": tensor.dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": ""}


def _json(body: bytes | bytearray):
    # Each part would take more memory than its two bytes. Pixels are of signatures that have to be named.
    most = MOST_PIXELS if b'"signature_name"' in body else MOST_BRACKETS
    if body.count(b"{") + body.count(b"[") > most:
        raise BadRequest(f"Expected JSON of at most {MAX_PHOTOS} photos, or {MOST_PIXELS} pixels. Received: more parts")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"Expected JSON. Received: {error}") from error


def _form(request) -> Form:
    forms: tuple[Form, ...] = ("instances", "inputs")
    given: list[Form] = [form for form in forms if isinstance(request, dict) and form in request]
    if len(given) != 1:
        raise BadRequest('Expected an object with "instances" or "inputs", and not both')
    return given[0]


def _unnamed(value, signature: Signature):
    """A value that may have the name of the signature's input."""
    return value[signature.input] if isinstance(value, dict) and value.keys() == {signature.input} else value


def _pixels(value, signature: Signature, place: str) -> np.ndarray:
    try:
        pixels = np.asarray(_unnamed(value, signature))
    except ValueError:  # of lists of several lengths
        pixels = np.empty(0)
    wanted = signature.taken.shape[1:]
    fits = pixels.ndim == 3 and all(side in (-1, found) for side, found in zip(wanted, pixels.shape, strict=True))
    if not fits or pixels.dtype.kind != "i" or not pixels.size or pixels.min() < 0 or pixels.max() > 255:
        shape = ", ".join("any" if side == -1 else f"{side}" for side in wanted)
        raise BadRequest(f"{place}: expected whole numbers in 0..255, nested in lists of the shape [{shape}]")
    return pixels.astype(np.uint8)


def _encoded(value, signature: Signature, place: str) -> bytes:
    value = _unnamed(value, signature)
    if not isinstance(value, dict) or value.keys() != {"b64"} or not isinstance(value["b64"], str):
        raise BadRequest(f'{place}: expected {{"b64": "..."}}')
    try:
        return decode_base64(value["b64"])
    except ValueError as error:
        raise BadRequest(f"{place}: expected base64. Received: {error}") from error


def decode_base64(text: str) -> bytes:
    """The bytes that base64 stands for; with line breaks and without padding too, as TensorFlow Serving takes it.

    Raises:
        ValueError: it is no base64.
    """
    text = text.translate(_WHITESPACE)
    if "=" not in text:
        text += "=" * (-len(text) % 4)
    return base64.b64decode(text, validate=True)
