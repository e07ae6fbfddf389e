"""The endpoints, in this process: signatures, versions, health, metrics, and whatever a body may hold."""

import base64
import json

import numpy as np
import pytest
import tensorflow as tf
from hostile import JSON, TEXTS, share
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from support import plain_photo, smooth_pixels

from ktl.data.views import evaluation_view
from ktl.inference.predictor import load_predictor

PIXELS = smooth_pixels(50, 60)
PHOTO = {"b64": base64.b64encode(plain_photo(7)).decode()}


def test_pixels_and_views_give_what_their_network_gives(application, tiny_predictor):
    view = evaluation_view(PIXELS, size=42)
    expected = tiny_predictor.classify(view[np.newaxis])[0]
    for signature, pixels in (("pixels", PIXELS), ("views", view)):
        status, answer = application.predict({"signature_name": signature, "instances": [pixels.tolist()]})
        assert status == 200
        np.testing.assert_allclose(answer["predictions"][0]["probabilities"], expected, atol=1e-6)


def test_metadata_and_answers_are_those_of_the_saved_model(tiny_exports, open_application):
    saved_model = tiny_exports / "savedmodel"
    predictor, loaded = load_predictor(saved_model), tf.saved_model.load(str(saved_model))
    application = open_application(predictor, channels=len(predictor.features(plain_photo(7))))
    metadata = json.loads(application.ask("GET", "/v1/models/savedmodel/metadata")[2])
    definitions = metadata["metadata"]["signature_def"]["signature_def"]
    assert set(definitions) == set(loaded.signatures)
    for name, signature in loaded.signatures.items():
        wanted = {"inputs": signature.structured_input_signature[1], "outputs": signature.structured_outputs}
        for side, tensors in wanted.items():
            assert set(definitions[name][side]) == set(tensors)
            for tensor, spec in tensors.items():
                described = definitions[name][side][tensor]
                assert described["dtype"] == f"DT_{spec.dtype.name.upper().replace('FLOAT32', 'FLOAT')}"
                lengths = [int(dim["size"]) for dim in described["tensor_shape"]["dim"]]
                assert lengths == [-1 if length is None else length for length in spec.shape]
    status, answer = application.predict({"signature_name": "features", "instances": [PHOTO, {"photos": PHOTO}]})
    assert status == 200
    expected = loaded.signatures["features"](photos=tf.constant([plain_photo(7)]))["features"].numpy()[0]
    np.testing.assert_allclose(answer["predictions"], [expected, expected], atol=1e-6)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models/{}/versions/1:predict", 200),
        ("GET", "/v1/models/{}/versions/1/metadata", 200),
        ("GET", "/v1/models/{}/versions/1", 200),
        ("GET", "/v1/models/{}/versions/2", 404),
        ("POST", "/v1/models/{}/versions/01:predict", 404),
        ("GET", "/v1/models/other/versions/1", 404),
        ("POST", "/v1/models/{}/labels/stable:predict", 404),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
    ],
)
def test_addresses_with_a_version_and_of_those_who_watch(application, method, path, status):
    body = json.dumps({"instances": [PHOTO]}).encode()
    found, headers, answer = application.ask(method, path.format(application.service.name), body)
    assert (found, headers["content-type"]) == (status, "application/json")
    assert ("error" in json.loads(answer)) == (status != 200)


def test_a_server_that_answers_no_photos_is_alive_but_not_ready(open_application):
    application = open_application()
    application.stop()
    assert application.ask("GET", "/healthz")[0] == 200
    assert application.ask("GET", "/readyz")[0] == 503


def test_prometheus_reads_how_many_requests_and_photos_there_were(open_application):
    application = open_application()
    for request in ({"instances": [PHOTO] * 3}, {"instances": [PHOTO]}, {"instances": []}):
        application.predict(request)
    application.ask("GET", "/nowhere")
    status, headers, body = application.ask("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert samples["ktl_photos_total",] == 4
    assert samples["ktl_requests_total", "predict", "200"] == 2
    assert samples["ktl_requests_total", "predict", "400"] == 1
    assert samples["ktl_requests_total", "other", "404"] == 1
    assert samples["ktl_request_seconds_count", "predict"] == 3


PHOTOS = (
    st.just(PHOTO)
    | st.builds(lambda text: {"b64": text}, TEXTS | JSON)
    | st.builds(lambda name, value: {name: value}, st.sampled_from(["photos", "pixels", "views", "b64"]), JSON)
    | st.just(PIXELS[:4, :4].tolist())
    | st.lists(st.lists(st.lists(st.integers(-1, 300), min_size=3, max_size=3), max_size=2), max_size=2)
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "instances": st.lists(PHOTOS, max_size=3) | JSON,
        "inputs": st.lists(PHOTOS, max_size=3) | PHOTOS | JSON,
        "signature_name": st.sampled_from(["", "serving_default", "pixels", "views", "features"]) | JSON,
        "other": JSON,
    },
)


@share(2)
@given(request=REQUESTS | JSON | st.binary(max_size=60))
def test_hostile_bodies_get_predictions_or_a_reason(application, request):
    status, answer = application.predict(request)
    assert status in (200, 400)
    if status == 400:
        assert list(answer) == ["error"]
        assert answer["error"]
    else:
        assert list(answer) in (["predictions"], ["outputs"])


HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "host",
            "origin",
            "sec_fetch_site",
            "sec_fetch_mode",
            "content_type",
            "content_length",
            "accept",
            "expect",
            "te",
            "x",
        ]
    ),
    TEXTS.map(lambda text: text.encode(errors="replace").decode("latin-1"))
    | st.sampled_from(["127.0.0.1:1", "[::1", "http://[", "https://localhost", "cross-site", "100-continue", "-1"]),
    max_size=3,
)
PATHS = st.sampled_from(["", "page.js", "healthz", "metrics", "v1/models/", "v1/models/m:predict", "v1//"]) | TEXTS


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS", "X"]),
    path=PATHS,
    headers=HEADERS,
    body=st.binary(),
)
@example(method="GET", path="", headers={"host": "[::1"}, body=b"")
def test_hostile_requests_get_an_answer_that_is_no_bug(applications, host, method, path, headers, body):
    asked = f"/{path}".encode(errors="replace").decode()
    status, found, answer = applications[host].ask(method, asked, body, **headers)
    assert status < 500
    if status >= 400 and method != "HEAD":
        assert found["content-type"] == "application/json"
        assert list(json.loads(answer)) == ["error"]
