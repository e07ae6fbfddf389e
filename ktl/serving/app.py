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
import contextlib
import html
import io
import ipaddress
import socket
import string
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
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

from ktl.data.images import WORKERS, BadPhoto
from ktl.data.views import view_of
from ktl.errors import UserError
from ktl.inference.predict import BATCH_SIZE, top_classes
from ktl.inference.predictor import Predictor, load_predictor
from ktl.progress import Reporter, Verbose, reporter_for
from ktl.serving.batching import Batcher
from ktl.serving.limits import TooLarge, TooLargeResponse, read_body, safe_view
from ktl.serving.protocol import (
    Answer,
    BadRequest,
    answer_of,
    parse_predict,
    render_metadata,
    render_predictions,
    render_status,
)

MAX_CONNECTIONS = 128
"""Open at a time, so that bodies take 4 GiB at most. More are answered with 503."""

CLOSING = 5
"""Seconds that requests have to end when the server does."""

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


def serve(path: str | Path, *, host: str = "127.0.0.1", port: int = 8501, verbose: Verbose = 1) -> None:
    """Serves a trained network until an interrupt (Ctrl-C).

    Nothing in the process is changed, but that the logger `uvicorn.access` writes no line a request.

    Args:
        path: see `ktl.inference.predictor.load_predictor`.
        host: address or name of this machine. There is no authentication; one that is not loopback says so.
        port: 0 for any that is free.
        verbose: see `ktl.progress.reporter_for`; the URL is told when the network is ready.

    Raises:
        UserError: no network there, or the address or port cannot be had.

    Example:
        >>> ktl.serve("runs/flowers")
        http://127.0.0.1:8501/ is the page, http://127.0.0.1:8501/v1/models/flowers:predict the API. Ctrl-C ends it.
    """
    reporter = reporter_for(verbose)
    with _listen(host, port) as listener, contextlib.suppress(KeyboardInterrupt):
        predictor = load_predictor(path)
        _warm_up(predictor)
        config = uvicorn.Config(
            make_app(predictor, listener=listener, reporter=reporter),
            http="h11",
            loop="asyncio",
            ws="none",
            log_config=None,  # loggers are their owner's
            access_log=False,
            server_header=False,
            headers=HEADERS,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=CLOSING,
        )
        uvicorn.Server(config).run(sockets=[listener])


class Service:
    """The endpoints of one network."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.name = model_name(predictor)
        self.batcher = Batcher(predictor.classify)
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
        return JSONResponse(render_status())

    async def metadata(self, request: Request) -> Response:
        self._check_name(request)
        return JSONResponse(render_metadata(self.name))

    async def predict(self, request: Request) -> Response:
        self._check_name(request)
        form, photos = await self._in_thread(parse_predict, await read_body(request))
        tasks = [asyncio.create_task(self._answer(photo, f"{form}[{i}]")) for i, photo in enumerate(photos)]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # of a refused request, or of a client that is gone: the rest need not be decoded
                task.cancel()
        return JSONResponse(render_predictions(form, answers))

    async def _answer(self, photo: bytes, place: str) -> Answer:
        try:
            view = await self._in_thread(safe_view, photo, self.predictor.image_size)
        except BadPhoto as error:
            raise BadRequest(f"{place}: {error}") from error
        probabilities = await self.batcher.classify(view)
        return answer_of(probabilities, top_classes(self.predictor, probabilities))

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


def model_name(predictor: Predictor) -> str:
    """What the model is called in URLs."""
    return predictor.name.replace(":", "_")


def make_app(predictor: Predictor, *, listener: socket.socket, reporter: Reporter) -> Starlette:
    """The application that answers on a socket.

    Bound to loopback, it answers requests to names of this machine alone: a web site whose name is made to point here
    must not get at the model through its visitors' browsers.
    """
    service = Service(predictor)
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
        exception_handlers=ERROR_RESPONSES,
        lifespan=lifespan,
    )


async def _refusal(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _bad_request(request: Request, error: BadRequest) -> Response:
    return JSONResponse({"error": f"{error}"}, 400)


async def _too_large(request: Request, error: TooLarge) -> Response:
    return TooLargeResponse(error.rest)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody reads it; without it, a lost connection would look like a bug


async def _bug(request: Request, error: Exception) -> Response:
    """The server goes on to log the traceback."""
    return JSONResponse({"error": "Internal error; the server's standard error has more"}, 500)


ERROR_RESPONSES: dict[Any, Any] = {
    HTTPException: _refusal,
    BadRequest: _bad_request,
    TooLarge: _too_large,
    ClientDisconnect: _gone,
    Exception: _bug,
}
"""Exception -> what answers it."""


def _page_file(path: str, service: Service) -> str:
    text = (Path(__file__).parent / "static" / (path or "page.html")).read_text(encoding="utf-8")
    if path:
        return text
    return string.Template(text).substitute(name=html.escape(service.name), classes=len(service.predictor.class_names))


def _listen(host: str, port: int) -> socket.socket:
    try:
        if not 0 <= port < 2**16:  # with such a one, create_server would leave a socket open
            raise OSError("ports go from 0 to 65535")
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"Expected an address of this machine and a free port. Received: `host` {host}, `port` {port}: {reason}"
        ) from error
    # Connections inherit it. asyncio sets it on sockets that it made only, and without it an answer takes 40 ms more.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _warm_up(predictor: Predictor) -> None:
    """Traces what the first request would otherwise wait for."""
    blank = io.BytesIO()
    Image.new("RGB", (8, 8)).save(blank, "PNG")
    view = view_of(blank.getvalue(), size=predictor.image_size)
    for count in (1, BATCH_SIZE):
        predictor.classify(np.stack([view] * count))
