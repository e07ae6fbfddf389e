"""A server's application without its socket: what it answers, in this process."""

import asyncio
import json
import socket

import pytest
from tiny_predictor import write_model

from ktl.inference.predictor import Predictor, load_predictor
from ktl.progress import Reporter
from ktl.serving.app import make_app
from ktl.serving.service import Service


class Application:
    """The endpoints of a network, called without HTTP between."""

    def __init__(self, predictor: Predictor, *, channels: int | None = None, host: str = "127.0.0.1", **options):
        self.loop = asyncio.new_event_loop()
        self.service = Service(predictor, channels=channels)
        with socket.create_server((host, 0)) as listener:
            self.app = make_app(self.service, listener=listener, reporter=Reporter(), **options)
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self.service.start()

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; names of headers have `_` for `-`."""
        named = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in named.items()],
        }
        sent = []

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        self.loop.run_until_complete(self.app(scope, receive, send))
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])

    def predict(self, value) -> tuple[int, dict]:
        """Status and answer of a predict request, whose body is JSON or bytes."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        status, _, answer = self.ask("POST", f"/v1/models/{self.service.name}:predict", body)
        return status, json.loads(answer)

    def stop(self) -> None:
        self.service.stop()
        self.loop.run_until_complete(asyncio.sleep(0))

    def close(self) -> None:
        self.stop()
        self.loop.close()


@pytest.fixture(scope="module")
def tiny_predictor(tmp_path_factory, tiny_backbone) -> Predictor:
    return load_predictor(write_model(tmp_path_factory.mktemp("models"), tiny_backbone))


@pytest.fixture(scope="module")
def application(tiny_predictor):
    """That of the tiny network."""
    opened = Application(tiny_predictor)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def applications(tiny_predictor):
    """That of the tiny network at an address that this machine alone reaches, and at one that all reach."""
    opened = {host: Application(tiny_predictor, host=host) for host in ("127.0.0.1", "0.0.0.0")}
    yield opened
    for each in opened.values():
        each.close()


@pytest.fixture
def open_application(tiny_predictor):
    """Makes one with options."""
    opened = []

    def open_one(predictor=tiny_predictor, **options) -> Application:
        opened.append(Application(predictor, **options))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()
