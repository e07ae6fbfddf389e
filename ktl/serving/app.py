"""A trained network over HTTP: a page to try it, and TensorFlow Serving's predict API.

    GET  /                            the page
    POST /v1/models/NAME:predict      {"instances": [{"b64": "..."}, ...]}, encoded photos, or {"inputs": [...]}
    GET  /v1/models/NAME              whether the model is available, and
    GET  /v1/models/NAME/metadata     what it takes and gives

Photos of requests that come at the same time go through the network together.

Reference:
    TensorFlow Serving, RESTful API. https://www.tensorflow.org/tfx/serving/api_rest
"""

import asyncio
import base64
import contextlib
import html
import io
import ipaddress
import json
import socket
import string
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ktl.data.images import FORMATS, BadPhoto, view_of
from ktl.data.input_pipeline import WORKERS
from ktl.errors import UserError
from ktl.inference.predict import BATCH_SIZE, top_classes
from ktl.inference.predictor import Classifier, Classify, load_classifier
from ktl.progress import Reporter

MAX_BODY = 32 * 2**20
"""Bytes of a request. A photo takes a third more there than in its file."""

MAX_PIXELS = 50_000_000
"""Of a photo, told by its header: half a gigabyte while it is decoded, whatever the size of the file."""

MAX_PHOTOS = 256
"""Of a request: 32 MiB of tiny photos would become gigabytes of views."""

MOST_BRACKETS = 4 * MAX_PHOTOS
"""Of a request's JSON: a photo has one, and two with its name."""

MAX_CONNECTIONS = 128
"""Open at a time, so that bodies take 4 GiB at most. More are answered with 503."""

WAIT = 0.002
"""Seconds that a photo waits for others to share its batch; a tenth of a pass of MobileNet over one photo."""

CLOSING = 5
"""Seconds that requests have to end when the server does."""

LINGER = 30
"""Seconds that the rest of a body that is too large is read and thrown away: a client that is cut off while it still
sends never sees the answer."""

VERSION = "1"
SIGNATURE = "serving_default"

HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]
"""Of every response."""

PAGE_FILES = {"": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
"""Path -> media type; the first is page.html."""

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


def serve(path: str | Path, *, host: str = "127.0.0.1", port: int = 8501, reporter: Reporter | None = None) -> None:
    """Serves a trained network until an interrupt.

    Args:
        path: see `ktl.inference.predictor.load_classifier`.
        host: address or name of this machine. There is no authentication; one that is not loopback says so.
        port: 0 for any that is free.
        reporter: is told the URL when the network is ready.

    Raises:
        UserError: no network there, or the address or port cannot be had.
    """
    reporter = reporter or Reporter()
    with _listen(host, port) as listener, contextlib.suppress(KeyboardInterrupt):
        classifier = load_classifier(path)
        _warm_up(classifier)
        config = uvicorn.Config(
            make_app(classifier, listener=listener, reporter=reporter),
            http="h11",
            loop="asyncio",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            headers=HEADERS,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=CLOSING,
        )
        uvicorn.Server(config).run(sockets=[listener])


class Batcher:
    """Sends views of several callers through a network together.

    Args:
        classify: see `ktl.inference.predictor.Classifier`; is called in one thread of its own.
        batch_size: views at a time, at most.
        wait: seconds that the first view of a batch waits for others.
    """

    def __init__(self, classify: Classify, *, batch_size: int = BATCH_SIZE, wait: float = WAIT):
        self.batch_size, self.wait = batch_size, wait
        self._classify = classify
        self._queue: asyncio.Queue[tuple[np.ndarray, asyncio.Future]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1)

    async def classify(self, view: np.ndarray) -> np.ndarray:
        """Probabilities, float32 [classes], of one view, uint8 [size, size, 3].

        Raises:
            Exception: what `classify` raised for its batch.
        """
        answer = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((view, answer))
        return await answer

    async def run(self) -> None:
        """Answers until it is cancelled."""
        try:
            while True:
                await self._answer(await self._batch())
        finally:
            self._thread.shutdown(wait=False)

    async def _batch(self) -> list[tuple[np.ndarray, asyncio.Future]]:
        batch = [await self._queue.get()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.wait):
                while len(batch) < self.batch_size:
                    batch.append(await self._queue.get())
        return batch

    async def _answer(self, batch: list[tuple[np.ndarray, asyncio.Future]]) -> None:
        views, answers = zip(*batch, strict=True)
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._classify, np.stack(views))
        (result,) = await asyncio.gather(work, return_exceptions=True)  # an error is its callers', not this task's
        for index, answer in enumerate(answers):
            if answer.done():
                continue  # its caller is gone
            if isinstance(result, BaseException):
                answer.set_exception(result)
            else:
                answer.set_result(result[index])


class Service:
    """The endpoints of one network."""

    def __init__(self, classifier: Classifier):
        self.classifier = classifier
        self.name = model_name(classifier)
        self.batcher = Batcher(classifier.classify)
        self.pool = ThreadPoolExecutor(WORKERS)
        self.page_files = {path: _page_file(path, self) for path in PAGE_FILES}

    def routes(self) -> list[Route]:
        model = "/v1/models/{name:model_name}"
        return [
            Route(f"{model}:predict", self.predict, methods=["POST"]),
            Route(f"{model}/metadata", self.metadata),
            Route(model, self.status),
            *(Route(f"/{path}", self.page) for path in PAGE_FILES),
        ]

    async def page(self, request: Request) -> Response:
        path = request.url.path.removeprefix("/")
        return Response(self.page_files[path], media_type=PAGE_FILES[path])

    async def status(self, request: Request) -> Response:
        self._check_name(request)
        status = {"error_code": "OK", "error_message": ""}
        return JSONResponse({"model_version_status": [{"version": VERSION, "state": "AVAILABLE", "status": status}]})

    async def metadata(self, request: Request) -> Response:
        self._check_name(request)
        signature = {side: {name: _tensor_info(*tensor) for name, tensor in TENSORS[side].items()} for side in TENSORS}
        signature["method_name"] = "tensorflow/serving/predict"
        return JSONResponse(
            {
                "model_spec": {"name": self.name, "signature_name": "", "version": VERSION},
                "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
            }
        )

    async def predict(self, request: Request) -> Response:
        self._check_name(request)
        form, photos = await self._in_thread(parse, await _body(request))
        tasks = [asyncio.create_task(self._answer(photo, f"{form}[{i}]")) for i, photo in enumerate(photos)]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # of a refused request, or of a client that is gone: the rest need not be decoded
                task.cancel()
        if form == "instances":
            return JSONResponse({"predictions": answers})
        return JSONResponse({"outputs": {name: [answer[name] for answer in answers] for name in TENSORS["outputs"]}})

    async def _answer(self, photo: bytes, place: str) -> dict:
        try:
            view = await self._in_thread(safe_view, photo, self.classifier.image_size)
        except BadPhoto as error:
            raise HTTPException(400, f"{place}: {error}") from error
        probabilities = await self.batcher.classify(view)
        labels, highest = zip(*top_classes(self.classifier, probabilities), strict=True)
        return {
            "probabilities": probabilities.tolist(),
            "label": labels[0],
            "top_k_labels": labels,
            "top_k_probabilities": highest,
        }

    async def _in_thread(self, function, *arguments):
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)

    def _check_name(self, request: Request) -> None:
        name = request.path_params["name"]
        if name != self.name:
            raise HTTPException(404, f"Expected the model {self.name}. Received: {name}")


class _ModelName(StringConvertor):
    """Without the colon that stands before a verb, so that a known verb with another method is 405, not 404."""

    regex = "[^/:]+"


register_url_convertor("model_name", _ModelName())


def model_name(classifier: Classifier) -> str:
    """What the model is called in URLs."""
    return classifier.name.replace(":", "_")


def make_app(classifier: Classifier, *, listener: socket.socket, reporter: Reporter) -> Starlette:
    """The application that answers on a socket.

    Bound to loopback, it answers requests to names of this machine alone: a web site whose name is made to point here
    must not get at the model through its visitors' browsers.
    """
    service = Service(classifier)
    address, port = listener.getsockname()[:2]
    local = ipaddress.ip_address(address).is_loopback
    hosts = ["localhost", "127.0.0.1", "[::1]", _in_url(address)] if local else ["*"]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        batching = asyncio.create_task(service.batcher.run())
        if not local:
            reporter.message("WARNING: no authentication: whoever reaches this machine can use the model")
        url = f"http://{_in_url(address)}:{port}"
        reporter.message(f"{url}/ is the page, {url}/v1/models/{quote(service.name)}:predict the API. Ctrl-C ends it.")
        yield
        batching.cancel()
        service.pool.shutdown(wait=False, cancel_futures=True)

    return Starlette(
        routes=service.routes(),
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)],
        exception_handlers={
            HTTPException: _refusal,
            _TooLarge: _too_large,
            ClientDisconnect: _gone,
            Exception: _bug,
        },
        lifespan=lifespan,
    )


def parse(body: bytes) -> tuple[str, list[bytes]]:
    """A predict request: "instances" or "inputs", which tells the form of the answer, and the encoded photos.

    Raises:
        HTTPException: 400, it is no such request.
    """
    if body.count(b"{") + body.count(b"[") > MOST_BRACKETS:  # each would take more memory than its two bytes
        raise HTTPException(400, f"Expected JSON of at most {MAX_PHOTOS} photos. Received: many more parts")
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"Expected JSON. Received: {error}") from error
    forms = [form for form in ("instances", "inputs") if isinstance(request, dict) and form in request]
    if len(forms) != 1:
        raise HTTPException(400, 'Expected an object with "instances" or "inputs", and not both')
    if request.get("signature_name") not in (None, "", SIGNATURE):
        raise HTTPException(400, f"Expected the signature_name {SIGNATURE}, or none")
    (form,) = forms
    values = request[form]
    if form == "inputs" and isinstance(values, dict) and values.keys() == {"photos"}:
        values = values["photos"]
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_PHOTOS:
        raise HTTPException(400, f'Expected "{form}" to be a list of 1 to {MAX_PHOTOS} photos')
    return form, [_encoded(value, f"{form}[{index}]") for index, value in enumerate(values)]


def safe_view(encoded: bytes, size: int) -> np.ndarray:
    """See `ktl.data.images.view_of`; a photo that is large when decoded is not decoded.

    Raises:
        BadPhoto: also for more than `MAX_PIXELS`.
    """
    width, height = _size_in_header(encoded)
    if width * height > MAX_PIXELS:
        raise BadPhoto(f"{width} x {height} is more than {MAX_PIXELS:,} pixels")
    return view_of(encoded, size=size)


def _size_in_header(encoded: bytes) -> tuple[int, int]:
    try:
        return Image.open(io.BytesIO(encoded), formats=FORMATS).size
    except Exception:  # Any at all, as in `ktl.data.images.decode`, which will give the reason.
        return 0, 0


def _encoded(value, place: str) -> bytes:
    if isinstance(value, dict) and value.keys() == {"photos"}:
        value = value["photos"]
    if not isinstance(value, dict) or value.keys() != {"b64"} or not isinstance(value["b64"], str):
        raise HTTPException(400, f'{place}: expected {{"b64": "..."}}')
    try:
        return base64.b64decode(value["b64"], validate=True)
    except ValueError as error:
        raise HTTPException(400, f"{place}: expected base64. Received: {error}") from error


async def _body(request: Request) -> bytearray:
    body, chunks = bytearray(), request.stream()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BODY:
            raise _TooLarge(chunks)
    return body


def _tensor_info(dtype: str, rank: int) -> dict:
    dimensions = [{"size": "-1", "name": ""}] * rank
    return {"dtype": dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": ""}


async def _refusal(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


class _TooLarge(Exception):
    """A body over the limit; `rest` is what of it is still to come."""

    def __init__(self, rest: AsyncIterator[bytes]):
        self.rest = rest


class _TooLargeResponse(JSONResponse):
    """Is sent at once, while the rest of the body is read and thrown away."""

    def __init__(self, rest: AsyncIterator[bytes]):
        super().__init__({"error": f"Expected a request of at most {MAX_BODY:,} bytes"}, 413)
        self.rest = rest

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(LINGER):
                async for _ in self.rest:
                    pass
        await send({"type": "http.response.body"})


async def _too_large(request: Request, error: _TooLarge) -> Response:
    return _TooLargeResponse(error.rest)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody reads it; without it, a lost connection would look like a bug


async def _bug(request: Request, error: Exception) -> Response:
    """The server goes on to log the traceback."""
    return JSONResponse({"error": "Internal error; the server's standard error has more"}, 500)


def _page_file(path: str, service: Service) -> str:
    text = (Path(__file__).parent / "static" / (path or "page.html")).read_text(encoding="utf-8")
    if path:
        return text
    return string.Template(text).substitute(name=html.escape(service.name), classes=len(service.classifier.class_names))


def _listen(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"Expected an address of this machine and a free port. Received: --host {host} --port {port}: {reason}"
        ) from error
    # Connections inherit it. asyncio sets it on sockets that it made only, and without it an answer takes 40 ms more.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _warm_up(classifier: Classifier) -> None:
    """Traces what the first request would otherwise wait for."""
    blank = io.BytesIO()
    Image.new("RGB", (8, 8)).save(blank, "PNG")
    view = view_of(blank.getvalue(), size=classifier.image_size)
    for count in (1, BATCH_SIZE):
        classifier.classify(np.stack([view] * count))
