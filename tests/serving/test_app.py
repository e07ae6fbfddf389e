"""The server in a process of its own, with real clients, a browser among them."""

import base64
import contextlib
import gc
import http.client
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hostile import share
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from server_process import LABELS, NAME, Server, ready, serve, write_served_model
from support import until

from ktl.data.images import decode
from ktl.data.views import evaluation_view
from ktl.errors import UserError
from ktl.inference.predictor import Predictor, load_predictor
from ktl.serving import app as server
from ktl.serving import connections, service


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_backbone) -> Path:
    return write_served_model(tmp_path_factory.mktemp("models"), tiny_backbone)


@pytest.fixture(scope="module")
def photos(photo_folder) -> list[Path]:
    return sorted(photo_folder.rglob("*.*"))[::6]


@pytest.fixture(scope="module")
def expected(model, photos) -> np.ndarray:
    predictor = load_predictor(model)
    views = [evaluation_view(decode(photo.read_bytes()), size=42) for photo in photos]
    return predictor.classify(np.stack(views))


def serve_a_bug(lines: Path, errors: Path, model: Path) -> None:
    """A network that fails on photos that are all black."""
    load = server.load_predictor

    def load_with_bug(path):
        predictor, calls = load(path), itertools.count()

        def classify(views):
            if next(calls) >= 2 and not views.any():  # after the start
                raise ArithmeticError("nothing to see")
            return predictor.classify(views)

        return Predictor(predictor.name, predictor.class_names, predictor.image_size, classify)

    server.load_predictor = load_with_bug
    serve(lines, errors, model)


def serve_impatiently(lines: Path, errors: Path, model: Path) -> None:
    """Clients have a second, and eight connections."""
    connections.GRACE, connections.MAX_OPEN = 1.0, 8
    serve(lines, errors, model)


def serve_slowly(lines: Path, errors: Path, model: Path, calls: Path) -> None:
    """Counts the photos that it decodes."""
    safe_view = service.safe_view

    def slow(*arguments):
        with calls.open("a") as file:
            file.write("1\n")
        time.sleep(0.1)
        return safe_view(*arguments)

    service.safe_view = slow
    serve(lines, errors, model)


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    with ready(serve, model, folder=tmp_path_factory.mktemp("served")) as running:
        yield running


def b64(encoded: bytes) -> dict:
    return {"b64": base64.b64encode(encoded).decode()}


def instance(path: Path) -> dict:
    return b64(path.read_bytes())


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG of that size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**6))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def check(prediction: dict, probabilities: np.ndarray) -> None:
    order = sorted(range(len(LABELS)), key=lambda index: -probabilities[index])[:5]
    np.testing.assert_allclose(prediction["probabilities"], probabilities, atol=1e-6)
    assert prediction["label"] == LABELS[order[0]]
    assert prediction["top_k_labels"] == [LABELS[index] for index in order]
    np.testing.assert_allclose(prediction["top_k_probabilities"], probabilities[order], atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"photos": value}])
def test_rows(served, photos, expected, wrap):
    status, answer = served.predict({"instances": [wrap(instance(photo)) for photo in photos]})
    assert (status, list(answer)) == (200, ["predictions"])
    assert len(answer["predictions"]) == len(photos)
    for prediction, probabilities in zip(answer["predictions"], expected, strict=True):
        check(prediction, probabilities)


def with_line_breaks(text: str) -> str:
    return "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76))


@pytest.mark.parametrize("spell", [with_line_breaks, lambda text: text.rstrip("="), lambda text: f" {text}\n"])
def test_base64_as_tensorflow_serving_takes_it(served, photos, expected, spell):
    encoded = photos[0].read_bytes()
    encoded += b"\0" * (len(encoded) % 3 == 0)  # so that there is padding; a decoder does not read behind the end
    status, answer = served.predict({"instances": [{"b64": spell(base64.b64encode(encoded).decode())}]})
    assert status == 200
    check(answer["predictions"][0], expected[0])


@pytest.mark.parametrize("wrap", [lambda values: values, lambda values: {"photos": values}])
def test_columns(served, photos, expected, wrap):
    request = {"signature_name": "serving_default", "inputs": wrap([instance(photo) for photo in photos[:3]])}
    status, answer = served.predict(request)
    assert (status, list(answer)) == (200, ["outputs"])
    outputs = answer["outputs"]
    for index in range(3):
        check({name: values[index] for name, values in outputs.items()}, expected[index])


def test_requests_at_the_same_time_get_the_answers_of_single_ones(served, photos, expected):
    with ThreadPoolExecutor(20) as clients:
        chosen = [index % len(photos) for index in range(20)]
        answers = clients.map(lambda index: served.predict({"instances": [instance(photos[index])]}), chosen)
        for index, (status, answer) in zip(chosen, answers, strict=True):
            assert status == 200
            check(answer["predictions"][0], expected[index])


def test_an_answer_does_not_wait_for_an_acknowledgement(served, photos):
    """A delayed one takes 40 ms; Linux delays none of a connection's first ones."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    body, seconds = json.dumps({"instances": [instance(photos[0])]}), []
    for _ in range(30):
        began = time.perf_counter()
        connection.request("POST", "/v1/models/my%20flowers:predict", body)
        connection.getresponse().read()
        seconds.append(time.perf_counter() - began)
    connection.close()
    assert min(seconds[20:]) < 0.035


def test_the_model_says_that_it_is_there(served):
    status, _, body = served.request("/v1/models/my%20flowers")
    assert status == 200
    (version,) = json.loads(body)["model_version_status"]
    assert version == {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def test_the_metadata_names_what_a_prediction_has(served, photos):
    status, _, body = served.request("/v1/models/my%20flowers/metadata")
    signature = json.loads(body)["metadata"]["signature_def"]["signature_def"]["serving_default"]
    (prediction,) = served.predict({"instances": [{"photos": instance(photos[0])}]})[1]["predictions"]
    assert status == 200
    assert list(signature["inputs"]) == ["photos"]
    assert signature["outputs"].keys() == prediction.keys()


PNG = png(np.zeros((9, 9, 3), np.uint8))
NOISE = png(np.random.default_rng(0).integers(256, size=(20, 20, 3), dtype=np.uint8))

BAD_REQUESTS = {
    "nothing": (b"", "Expected JSON"),
    "no JSON": (b"\xff\xfe\x00{{{", "Expected JSON"),
    "deep": (b"[" * 100_000, "Expected JSON"),
    "many": (b'{"instances": [' + b"{}," * 2000 + b"{}]}", "Expected JSON of at most 256 photos"),
    "list": ([b64(PNG)], '"instances" or "inputs"'),
    "number": (b"7", '"instances" or "inputs"'),
    "wrong key": ({"photos": [b64(PNG)]}, '"instances" or "inputs"'),
    "both": ({"instances": [b64(PNG)], "inputs": [b64(PNG)]}, "not both"),
    "signature": ({"instances": [b64(PNG)], "signature_name": "train"}, "signature_name"),
    "no list": ({"instances": b64(PNG)}, "list of 1 to 256"),
    "no photo": ({"instances": []}, "list of 1 to 256"),
    "many photos": ({"instances": [b64(PNG)] * 257}, "list of 1 to 256"),
    "column": ({"inputs": {"pixels": [b64(PNG)]}}, "list of 1 to 256"),
    "text": ({"instances": ["photo"]}, "instances[0]: expected"),
    "photo key": ({"instances": [b64(PNG), {"b32": ""}]}, "instances[1]: expected"),
    "base64": ({"instances": [{"b64": "no!!"}]}, "instances[0]: expected base64"),
    "base64 type": ({"instances": [{"b64": 7}]}, "instances[0]: expected"),
    "base64 letters": ({"instances": [{"b64": "é"}]}, "instances[0]: expected base64"),
    "empty": ({"inputs": [b64(PNG), b64(b"")]}, "inputs[1]: the file is empty"),
    "random": ({"instances": [b64(np.random.default_rng(0).bytes(5000))]}, "instances[0]: not an image"),
    "cut short": ({"instances": [b64(NOISE[:-500])]}, "instances[0]: image file is truncated"),
    "bomb": ({"instances": [b64(png_header(60_000, 60_000))]}, "pixels"),
    "large": ({"instances": [b64(png_header(10_000, 5_001))]}, "10000 x 5001 is more than 50,000,000 pixels"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_told_why(served, name):
    request, reason = BAD_REQUESTS[name]
    status, answer = served.predict(request)
    assert (status, list(answer)) == (400, ["error"])
    assert reason in answer["error"]


def test_after_many_bad_requests_a_good_one_is_answered(served, photos, expected):
    generator = np.random.default_rng(1)
    good = photos[1].read_bytes()

    def damaged(index: int) -> int:
        broken = bytearray(good[: generator.integers(1, len(good))])
        for place in generator.integers(len(broken), size=5):
            broken[place] = generator.integers(256)
        return served.predict({"instances": [b64(bytes(broken))]})[0]

    with ThreadPoolExecutor(8) as clients:
        statuses = set(clients.map(damaged, range(200)))
    assert 400 in statuses
    assert statuses <= {200, 400}
    status, answer = served.predict({"instances": [instance(photos[1])]})
    assert status == 200
    check(answer["predictions"][0], expected[1])
    assert "Traceback" not in served.errors.read_text()


REQUEST = json.dumps({"instances": [{"b64": ""}]}).encode()
REQUEST = (
    f"POST /v1/models/{NAME.replace(' ', '%20')}:predict HTTP/1.1\r\nHost: localhost\r\n"
    f"Content-Length: {len(REQUEST)}\r\n\r\n".encode()
    + REQUEST
)
CHANGED = st.builds(
    lambda start, length, new: REQUEST[:start] + new + REQUEST[start + length :],
    st.integers(0, len(REQUEST)),
    st.integers(0, 20),
    st.binary(max_size=9)
    | st.sampled_from([b"\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"%00"]),
)


@pytest.fixture(scope="module")
def patience(served) -> float:
    """Seconds after which no answer comes any more: many times what a complete request takes."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(REQUEST)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    return max(0.1, 20 * (time.monotonic() - began))


@given(sent=CHANGED | st.binary(min_size=1, max_size=99))
@share(0.6)
def test_hostile_bytes_get_a_refusal_or_nothing(served, patience, sent):
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(sent)
        connection.settimeout(patience)  # of a request that is not complete more is awaited
        with contextlib.suppress(TimeoutError):
            answer = connection.recv(65536)
            assert answer == b"" or re.match(rb"HTTP/1\.1 (200|30\d|4\d\d) ", answer), answer


def test_a_large_body_is_refused(served):
    status, answer = served.predict(b"[" + b" " * 50_000_000)
    assert status == 413
    assert "33,554,432 bytes" in answer["error"]


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_a_body_that_says_it_is_large_is_refused_before_it_comes(served, expect):
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
        connection.sendall(b"POST /v1/models/my%20flowers:predict HTTP/1.1\r\nHost: localhost\r\n" + expect)
        connection.sendall(b"Content-Length: 33554433\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 413
        assert "33,554,432 bytes" in json.loads(answer.read())["error"]


def test_a_large_body_of_unknown_length_is_refused_before_it_has_ended(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.putrequest("POST", "/v1/models/my%20flowers:predict")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    for _ in range(33):
        connection.send(b"100000\r\n" + b" " * 2**20 + b"\r\n")
    assert connection.getresponse().status == 413  # and the last chunk is still to come
    connection.close()


def test_a_client_that_goes_away_is_no_bug(served):
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(b"POST /v1/models/my%20flowers:predict HTTP/1.1\r\nHost: localhost\r\n")
        connection.sendall(b"Content-Length: 1000\r\n\r\n{")
    assert served.request("/v1/models/my%20flowers")[0] == 200
    assert "Traceback" not in served.errors.read_text()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models/other:predict", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/other/metadata", 404),
        ("POST", "/v1/models/my%20flowers:classify", 404),
        ("GET", "/labels.txt", 404),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/v1/models/my%20flowers:predict", 405),
        ("POST", "/v1/models/my%20flowers", 405),
        ("DELETE", "/", 405),
    ],
)
def test_a_wrong_address_or_method(served, method, path, status):
    got, headers, body = served.request(path, b"{}" if method == "POST" else None, method=method)
    assert (got, list(json.loads(body))) == (status, ["error"])
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:80", 200), ("localhost", 200), ("[::1]:8501", 200), ("evil.example", 400), ("127.0.0.1.nip.io", 400)],
)
def test_a_request_to_another_name_is_refused(served, host, status):
    assert served.request("/v1/models/my%20flowers", headers={"Host": host})[0] == status


@pytest.mark.parametrize("path", ["/", "/page.js", "/nowhere"])
def test_every_response_is_confined(served, path):
    headers = served.request(path, headers={"Origin": "http://evil.example"})[1]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Access-Control-Allow-Origin"] is None


def test_an_interrupt_ends_it_and_a_bug_does_not(model, photos, tmp_path):
    running = Server(serve_a_bug, model, folder=tmp_path)
    running.wait_until_ready()
    status, answer = running.predict({"instances": [b64(PNG)]})
    assert (status, list(answer)) == (500, ["error"])
    assert "nothing to see" not in answer["error"]
    until(lambda: "ArithmeticError: nothing to see" in running.errors.read_text(), limit=30)
    assert running.predict({"instances": [instance(photos[0])]})[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", running.port)  # a browser keeps its own open
    connection.request("GET", "/")
    connection.getresponse().read()
    with contextlib.closing(connection):
        assert running.interrupt() == 0
    assert "KeyboardInterrupt" not in running.errors.read_text()


@pytest.fixture(scope="module")
def impatient(model, tmp_path_factory):
    with ready(serve_impatiently, model, folder=tmp_path_factory.mktemp("impatient")) as running:
        yield running


HEADER = b"POST /v1/models/my%20flowers:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"


@pytest.mark.parametrize(
    ("sent", "answer"), [(b"", b""), (HEADER, b"HTTP/1.1 408"), (HEADER + b"\r\n{", b"HTTP/1.1 408")]
)
def test_a_client_that_stops_sending_is_let_go(impatient, sent, answer):
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=20) as connection:
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert 0.5 < time.monotonic() - began < 5
    assert received[: len(answer)] == answer
    assert not answer or list(json.loads(received.split(b"\r\n\r\n", 1)[1])) == ["error"]


def test_a_client_that_sends_by_drops_is_let_go(impatient):
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=20) as connection:
        connection.sendall(HEADER + b"\r\n")
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 20:
                connection.sendall(b" ")
                time.sleep(0.1)
    assert time.monotonic() - began < 5


def test_silent_connections_keep_nobody_out(impatient, photos, expected):
    """More than may be open at a time; the oldest silent ones make room."""
    with contextlib.ExitStack() as silent:
        for _ in range(40):
            silent.enter_context(socket.create_connection(("127.0.0.1", impatient.port)))
        began = time.monotonic()
        status, answer = impatient.predict({"instances": [instance(photos[0])]})
        assert time.monotonic() - began < 0.8  # before their time is over
    assert status == 200
    check(answer["predictions"][0], expected[0])


def test_an_interrupt_waits_for_no_body_that_does_not_come(model, tmp_path):
    running = Server(serve, model, folder=tmp_path)
    running.wait_until_ready()
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(HEADER + b"\r\n{")
        assert running.request("/healthz")[0] == 200
        began = time.monotonic()
        assert running.interrupt() == 0
        assert time.monotonic() - began < 2.5
    assert running.errors.read_text() == ""


def test_requests_that_have_come_are_answered_before_it_ends(model, photos, tmp_path):
    running = Server(serve_slowly, model, tmp_path / "calls", folder=tmp_path)
    running.wait_until_ready()
    with ThreadPoolExecutor(16) as clients:
        asked = [clients.submit(running.predict, {"instances": [instance(photos[0])] * 3}) for _ in range(16)]
        until(lambda: (tmp_path / "calls").exists(), limit=30)
        time.sleep(0.3)
        os.kill(running.process.pid, signal.SIGTERM)
        assert [request.result()[0] for request in asked] == [200] * 16
    running.process.join(30)
    assert running.process.exitcode == -signal.SIGTERM
    assert running.errors.read_text() == ""


def test_an_address_that_is_not_loopback_is_told_that_there_is_no_authentication(tmp_path, served, model):
    assert "authentication" not in served.lines.read_text()
    with ready(serve, model, "0.0.0.0", folder=tmp_path) as running:
        assert "no authentication" in running.lines.read_text().splitlines()[0]
        assert running.request("/", headers={"Host": "my-machine"})[0] == 200


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("127.0.0.1", None, "Address already in use"),
        ("203.0.113.1", 0, "`host` 203.0.113.1"),
        ("", 0, "''"),
        (" ", 0, "' '"),
        ("a" * 64, 0, "`host` aaa"),  # no name has as long a part
        ("a\0b", 0, "`host` a"),
        ("127.0.0.1", 99_999, "`port` 99999"),
    ],
)
def test_an_address_or_port_that_cannot_be_had(served, model, host, port, reason):
    with pytest.raises(UserError, match="an address of this machine") as error:
        server.serve(model, host=host, port=served.port if port is None else port)
    assert reason in f"{error.value}"
    assert "\n" not in f"{error.value}"
    del error
    gc.collect()  # a socket that was left open would be told of here


class Browser:
    """Headless Chromium, told what to do through its debugging pipe."""

    def __init__(self, folder: Path):
        reading, to_browser = os.pipe()
        from_browser, writing = os.pipe()
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run "
            f"--disable-dev-shm-usage --user-data-dir={folder} --remote-debugging-pipe"
        )
        # It reads from descriptor 3 and writes to 4.
        silence = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in (0, 1, 2)]
        pipe = [(os.POSIX_SPAWN_DUP2, reading, 3), (os.POSIX_SPAWN_DUP2, writing, 4)]
        command = ["chromium", *flags.split()]
        self.process = os.posix_spawnp("chromium", command, os.environ, file_actions=[*silence, *pipe])
        os.close(reading)
        os.close(writing)
        self.commands, self.answers = os.fdopen(to_browser, "wb", 0), os.fdopen(from_browser, "rb")
        self.numbers, self.session, self.events = itertools.count(1), None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters) -> dict:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _message(self) -> bytes:
        message = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "the browser is gone"
            message += byte
        return bytes(message)

    def evaluate(self, expression: str):
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression: str) -> None:
        deadline = time.monotonic() + 30
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"{expression}: {self.evaluate('document.body.innerText')}"
            time.sleep(0.02)

    def choose(self, photo: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(photo)])

    def complaints(self) -> list[str]:
        """What the page's console got: scripts that failed, addresses that the content security policy refused."""
        return [
            json.dumps(event["params"])
            for event in self.events
            if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
        ]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.commands.close()
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        self.answers.close()


SHOWN = "!document.getElementById('result').hidden"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not shutil.which("chromium"):
        pytest.skip("no chromium on this machine")
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.fixture
def page(browser, served):
    browser.events.clear()
    browser.call("Page.navigate", url=f"http://localhost:{served.port}/")
    browser.wait_for("document.readyState == 'complete' && document.title == 'my flowers'")
    return browser


def shown_rows(page) -> list[list[str]]:
    return page.evaluate("[...document.querySelectorAll('li')].map(item => item.innerText.split('\\n'))")


def test_a_photo_that_is_chosen_on_the_page(page, photos, expected):
    page.choose(photos[2])
    page.wait_for(SHOWN)
    order = np.argsort(-expected[2], kind="stable")[:5]
    rows = [[LABELS[index], f"{100 * expected[2][index]:.1f}%"] for index in order]
    assert shown_rows(page) == rows
    assert page.evaluate("document.getElementById('best').innerText") == rows[0][0]
    said = page.evaluate("document.querySelector('[role=status]').innerText")
    assert said == f"{photos[2].name}: {rows[0][0]}, {rows[0][1]}"
    assert page.evaluate("document.getElementById('photo').decode().then(() => true)")
    widths = page.evaluate(
        "[...document.querySelectorAll('.bar')].map(bar => bar.offsetWidth / bar.parentElement.offsetWidth)"
    )
    np.testing.assert_allclose(widths, expected[2][order], atol=0.01)
    assert page.complaints() == []


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_photo_that_is_dropped_or_pasted(page, photos, expected, event):
    transfer = "dataTransfer" if event == "drop" else "clipboardData"
    kind = "DragEvent" if event == "drop" else "ClipboardEvent"
    page.evaluate(
        f"const bytes = Uint8Array.from(atob('{instance(photos[0])['b64']}'), c => c.charCodeAt(0));"
        "const moved = new DataTransfer(); moved.items.add(new File([bytes], 'a.png'));"
        f"document.dispatchEvent(new {kind}('{event}', {{{transfer}: moved}}))"
    )
    page.wait_for(SHOWN)
    assert shown_rows(page)[0][0] == LABELS[int(expected[0].argmax())]


def test_a_bad_photo_on_the_page_is_told_why_and_the_next_one_works(page, photos, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    page.choose(tmp_path / "bad.jpg")
    page.wait_for("document.querySelector('[role=alert]').innerText")
    said = page.evaluate("document.querySelector('[role=alert]').innerText")
    assert said.startswith("bad.jpg: not an image of a known format")
    assert not page.evaluate(SHOWN)
    page.choose(photos[0])
    page.wait_for(SHOWN)
    assert page.evaluate("document.querySelector('[role=alert]').innerText") == ""


def test_the_page_has_names_for_its_parts_and_works_from_the_keyboard(page, photos):
    page.choose(photos[0])
    page.wait_for(SHOWN)
    names = {
        (node["role"]["value"], node["name"]["value"])
        for node in page.call("Accessibility.getFullAXTree")["nodes"]
        if not node["ignored"] and "name" in node
    }
    assert {("heading", "my flowers"), ("image", f"Your photo, {photos[0].name}")} <= names
    assert any(role == "button" and name.startswith("Choose a photo") for role, name in names), names
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert page.evaluate("document.activeElement.id") == "file"
    outline = page.evaluate("getComputedStyle(document.querySelector('label')).outlineStyle")
    assert outline == "solid"


def test_the_rest_of_a_refused_request_is_not_decoded(model, photos, tmp_path):
    calls = tmp_path / "calls"
    running = Server(serve_slowly, model, calls, folder=tmp_path)
    try:
        running.wait_until_ready()
        good = {"b64": base64.b64encode(photos[0].read_bytes()).decode()}
        bad = {"b64": base64.b64encode(b"no photo").decode()}
        status, answer = running.predict({"instances": [bad, *[good] * 100]})
        assert status == 400
        assert "instances[0]" in answer["error"]
        assert running.predict({"instances": [good]})[0] == 200  # after what was begun
        assert len(calls.read_text().splitlines()) < 60
    finally:
        running.process.kill()
