"""What requests say and what answers look like, without a server."""

import base64
import json

import numpy as np
import pytest

from ktl.serving.protocol import (
    BadRequest,
    answer_of,
    decode_base64,
    parse_predict,
    render_metadata,
    render_predictions,
    signatures,
)

KNOWN = signatures(image_size=4, classes=7, top=5, channels=9)

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


@pytest.mark.parametrize("text", ["Q", "QQ=", "-_8=", "QQ==QQ==", "no!!", "caf\u00e9", "QQ\u00a0=="])
def test_what_is_no_base64_is_an_error(text):
    with pytest.raises(ValueError):  # noqa: PT011  whichever of Python's it is
        decode_base64(text)


@pytest.mark.parametrize("form", ["instances", "inputs"])
@pytest.mark.parametrize("signature", [{}, {"signature_name": ""}, {"signature_name": "serving_default"}])
def test_the_photos_of_a_request_in_their_order(form, signature):
    request = parse_predict(body({form: [b64(b"one"), {"photos": b64(b"two")}], **signature}), KNOWN)
    assert (request.form, request.photos) == (form, [b"one", b"two"])


def test_a_column_may_have_its_name():
    assert parse_predict(body({"inputs": {"photos": [b64(b"one")]}}), KNOWN).photos == [b"one"]
    with pytest.raises(BadRequest, match="list of 1 to 256"):
        parse_predict(body({"instances": {"photos": [b64(b"one")]}}), KNOWN)


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


def test_one_photo_is_a_column_too():
    for column in (b64(b"one"), {"photos": b64(b"one")}):
        assert parse_predict(body({"inputs": column}), KNOWN).photos == [b"one"]


PIXELS = np.arange(48).reshape(4, 4, 3)


@pytest.mark.parametrize("wrap", [lambda name, value: value, lambda name, value: {name: value}])
@pytest.mark.parametrize("signature", ["pixels", "views"])
def test_pixels_of_a_signature_that_takes_them(signature, wrap):
    rows = {"signature_name": signature, "instances": [wrap(signature, PIXELS.tolist())] * 2}
    column = {"signature_name": signature, "inputs": wrap(signature, [PIXELS.tolist()])}
    for request in (rows, column):
        read = parse_predict(body(request), KNOWN)
        assert (read.signature, len(read.photos)) == (signature, 2 if request is rows else 1)
        for pixels in read.photos:
            assert pixels.dtype == np.uint8
            np.testing.assert_array_equal(pixels, PIXELS)


@pytest.mark.parametrize(
    "value",
    [
        PIXELS.astype(float).tolist(),
        (PIXELS - 1).tolist(),
        (PIXELS + 300).tolist(),
        (PIXELS > 3).tolist(),
        PIXELS[..., :2].tolist(),
        PIXELS[0].tolist(),
        [PIXELS.tolist()],
        [PIXELS.tolist(), 7],
        [],
        None,
        "pixels",
        [[[2**70] * 3] * 4] * 4,
        b64(b"one"),
    ],
)
def test_what_are_no_pixels_is_told(value):
    with pytest.raises(BadRequest, match=r"instances\[0\]: expected whole numbers in 0..255, .* \[any, any, 3\]"):
        parse_predict(body({"signature_name": "pixels", "instances": [value]}), KNOWN)


def test_views_have_the_size_of_the_network():
    with pytest.raises(BadRequest, match=r"of the shape \[4, 4, 3\]"):
        parse_predict(body({"signature_name": "views", "instances": [PIXELS[:3].tolist()]}), KNOWN)


@pytest.mark.parametrize("name", [0, False, [], {}, "train", "\ud800"])
def test_a_signature_that_is_none_lists_those_that_there_are(name):
    with pytest.raises(BadRequest, match="one of: serving_default, pixels, views, features"):
        parse_predict(body({"signature_name": name, "instances": [b64(b"one")]}), KNOWN)


def test_an_output_that_is_the_only_one_goes_without_its_name():
    answers = [{"features": [1.0, 2.0]}, {"features": [3.0, 4.0]}]
    assert render_predictions("instances", answers) == {"predictions": [[1.0, 2.0], [3.0, 4.0]]}
    assert render_predictions("inputs", answers) == {"outputs": [[1.0, 2.0], [3.0, 4.0]]}


def test_a_network_without_features_has_no_such_signature():
    known = signatures(image_size=4, classes=7, top=5)
    assert set(KNOWN) - set(known) == {"features"}
    assert list(render_metadata("m", known)["metadata"]["signature_def"]["signature_def"]) == list(known)
