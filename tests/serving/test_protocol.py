"""What requests say and what answers look like, without a server."""

import base64
import json

import numpy as np
import pytest

from ktl.serving.protocol import BadRequest, answer_of, decode_base64, parse_predict, render_predictions

BYTES = bytes(range(256)) + b"!"  # so that there is padding


def body(value) -> bytes:
    return json.dumps(value).encode()


def b64(encoded: bytes) -> dict:
    return {"b64": base64.b64encode(encoded).decode()}


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(BYTES).decode(),
        base64.encodebytes(BYTES).decode(),
        base64.b64encode(BYTES).decode().rstrip("="),
        "".join(f"{letter} \t\r\n" for letter in base64.b64encode(BYTES).decode()),
    ],
)
def test_base64_with_line_breaks_and_without_padding(text):
    assert decode_base64(text) == BYTES


@pytest.mark.parametrize("text", ["Q", "QQ=", "QQ==QQ==", "no!!", "caf\u00e9", "QQ\u00a0=="])
def test_what_is_no_base64_is_an_error(text):
    with pytest.raises(ValueError):  # noqa: PT011  whichever of Python's it is
        decode_base64(text)


@pytest.mark.parametrize("form", ["instances", "inputs"])
@pytest.mark.parametrize("signature", [{}, {"signature_name": ""}, {"signature_name": "serving_default"}])
def test_the_photos_of_a_request_in_their_order(form, signature):
    request = parse_predict(body({form: [b64(b"one"), {"photos": b64(b"two")}], **signature}))
    assert (request.form, request.photos) == (form, [b"one", b"two"])


def test_a_column_may_have_its_name():
    assert parse_predict(body({"inputs": {"photos": [b64(b"one")]}})).photos == [b"one"]
    with pytest.raises(BadRequest, match="list of 1 to 256"):
        parse_predict(body({"instances": {"photos": [b64(b"one")]}}))


def test_rows_and_columns_say_the_same():
    tops = [(("rose", 0.75), ("iris", 0.25)), (("iris", 0.5), ("rose", 0.5))]
    rows = [np.array([0.75, 0.25], np.float32), np.array([0.5, 0.5], np.float32)]
    answers = [answer_of(row, top) for row, top in zip(rows, tops, strict=True)]
    assert json.loads(json.dumps(render_predictions("instances", answers))) == {
        "predictions": [
            {
                "probabilities": [0.75, 0.25],
                "label": "rose",
                "top_k_labels": ["rose", "iris"],
                "top_k_probabilities": [0.75, 0.25],
            },
            {
                "probabilities": [0.5, 0.5],
                "label": "iris",
                "top_k_labels": ["iris", "rose"],
                "top_k_probabilities": [0.5, 0.5],
            },
        ]
    }
    assert json.loads(json.dumps(render_predictions("inputs", answers))) == {
        "outputs": {
            "probabilities": [[0.75, 0.25], [0.5, 0.5]],
            "label": ["rose", "iris"],
            "top_k_labels": [["rose", "iris"], ["iris", "rose"]],
            "top_k_probabilities": [[0.75, 0.25], [0.5, 0.5]],
        }
    }
