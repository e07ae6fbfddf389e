"""TensorFlow Serving's predict API as JSON: what a request says, and what the answers look like.

Reference:
    TensorFlow Serving, RESTful API. https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import json
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict

import numpy as np

Form = Literal["instances", "inputs"]
"""Photos as rows, or as one column; the answer has the same form."""

MAX_PHOTOS = 256
"""Of a request: 32 MiB of tiny photos would become gigabytes of views."""

MOST_BRACKETS = 4 * MAX_PHOTOS
"""Of a request's JSON: a photo has one, and two with its name."""

VERSION = "1"
SIGNATURE = "serving_default"

TENSORS = {
    "inputs": {"photos": ("DT_STRING", 1)},
    "outputs": {
        "probabilities": ("DT_FLOAT", 2),
        "label": ("DT_STRING", 1),
        "top_k_labels": ("DT_STRING", 2),
        "top_k_probabilities": ("DT_FLOAT", 2),
    },
}
"""Name -> dtype and rank, as an exported SavedModel has them."""

_WHITESPACE = str.maketrans("", "", " \t\n\v\f\r")


class BadRequest(ValueError):
    """A request that is none of this API; the message is for its sender."""


class PredictRequest(NamedTuple):
    """The photos that a request wants classified.

    Attributes:
        form: how it lists them.
        photos: their encoded bytes.
    """

    form: Form
    photos: list[bytes]


class Answer(TypedDict):
    """What is said of one photo, under the names of `TENSORS`."""

    probabilities: list[float]
    label: str
    top_k_labels: Sequence[str]
    top_k_probabilities: Sequence[float]


def parse_predict(body: bytes | bytearray) -> PredictRequest:
    """Reads the body of a predict request.

    Raises:
        BadRequest: it is no such request.
    """
    request = _json(body)
    form = _form(request)
    values = request[form]
    if form == "inputs" and isinstance(values, dict) and values.keys() == {"photos"}:
        values = values["photos"]
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_PHOTOS:
        raise BadRequest(f'Expected "{form}" to be a list of 1 to {MAX_PHOTOS} photos')
    return PredictRequest(form, [_encoded(value, f"{form}[{index}]") for index, value in enumerate(values)])


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


def render_predictions(form: Form, answers: Sequence[Answer]) -> dict:
    """The body of the answer to a predict request of that form."""
    if form == "instances":
        return {"predictions": list(answers)}
    return {"outputs": {name: [answer[name] for answer in answers] for name in TENSORS["outputs"]}}


def render_status() -> dict:
    """The body of the answer to whether the model is available."""
    status = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": VERSION, "state": "AVAILABLE", "status": status}]}


def render_metadata(name: str) -> dict:
    """The body of the answer to what the model of that name takes and gives."""
    signature: dict = {
        side: {tensor: _tensor_info(*kind) for tensor, kind in tensors.items()} for side, tensors in TENSORS.items()
    }
    signature["method_name"] = "tensorflow/serving/predict"
    return {
        "model_spec": {"name": name, "signature_name": "", "version": VERSION},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }


def _tensor_info(dtype: str, rank: int) -> dict:
    dimensions = [{"size": "-1", "name": ""}] * rank
    return {"dtype": dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": ""}


def _json(body: bytes | bytearray):
    if body.count(b"{") + body.count(b"[") > MOST_BRACKETS:  # each would take more memory than its two bytes
        raise BadRequest(f"Expected JSON of at most {MAX_PHOTOS} photos. Received: many more parts")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"Expected JSON. Received: {error}") from error


def _form(request) -> Form:
    forms: tuple[Form, ...] = ("instances", "inputs")
    given: list[Form] = [form for form in forms if isinstance(request, dict) and form in request]
    if len(given) != 1:
        raise BadRequest('Expected an object with "instances" or "inputs", and not both')
    if request.get("signature_name") not in (None, "", SIGNATURE):
        raise BadRequest(f"Expected the signature_name {SIGNATURE}, or none")
    return given[0]


def _encoded(value, place: str) -> bytes:
    if isinstance(value, dict) and value.keys() == {"photos"}:
        value = value["photos"]
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
