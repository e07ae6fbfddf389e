"""`ktl.serving.app.serve` of a tiny network in a process of its own, for real clients."""

import contextlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

from support import start
from tiny_predictor import write_model

from ktl.progress import Reporter
from ktl.serving import app as server

LABELS = [f"flower {number}" for number in range(19)] + ["<b>rose & thorn</b>"]
NAME = "my flowers"


def write_served_model(root: Path, backbone: Path) -> Path:
    """The folder of a run, as far as a predictor is concerned."""
    return write_model(root / NAME, backbone, LABELS)


class Server:
    """`ktl.serving.app.serve` in a process of its own."""

    def __init__(self, target, *arguments, folder: Path):
        self.lines, self.errors = folder / "lines", folder / "errors"
        self.process = start(target, self.lines, self.errors, *arguments)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 120
        while not (self.lines.exists() and "Ctrl-C" in self.lines.read_text()):
            assert self.process.is_alive(), self.errors.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.port = int(self.lines.read_text().split("http://", 1)[1].split("/")[0].rsplit(":", 1)[1])

    def interrupt(self) -> int | None:
        os.kill(self.process.pid, signal.SIGINT)
        self.process.join(30)
        return self.process.exitcode

    def request(self, path: str, body=None, *, method: str | None = None, headers=()) -> tuple[int, dict, bytes]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data=body, method=method, headers=dict(headers)
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def predict(self, value, *, name: str = NAME) -> tuple[int, dict]:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        status, _, answer = self.request(f"/v1/models/{name.replace(' ', '%20')}:predict", body)
        return status, json.loads(answer)


class Lines(Reporter):
    def __init__(self, path: Path):
        self.path = path

    def message(self, text):
        with self.path.open("a") as file:
            file.write(text + "\n")


def serve(lines: Path, errors: Path, model: Path, host: str = "127.0.0.1") -> None:
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and we inherit that
    server.serve(model, host=host, port=0, verbose=Lines(lines))


@contextlib.contextmanager
def ready(target, *arguments, folder: Path):
    """A server that answers; it is gone afterwards."""
    running = Server(target, *arguments, folder=folder)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.process.kill()
