"""A trained network over HTTP: a page to try it, and TensorFlow Serving's predict API; see `ktl.serving.service`.

Photos of requests that come at the same time go through the network together.

Reference:
    TensorFlow Serving, RESTful API. https://www.tensorflow.org/tfx/serving/api_rest
"""

import contextlib
import io
import re
import socket
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from ktl.arguments import checked_arguments
from ktl.data.views import view_of
from ktl.errors import UserError, reason_of
from ktl.inference.predict import BATCH_SIZE
from ktl.inference.predictor import Predictor, load_predictor
from ktl.progress import Reporter, Verbose, reporter_for
from ktl.serving.connections import TimelyProtocol
from ktl.serving.gate import ANY_ORIGIN, Gate, is_local
from ktl.serving.limits import TooLarge, TooLargeResponse
from ktl.serving.metrics import Measured
from ktl.serving.protocol import BadRequest
from ktl.serving.service import Service

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


@checked_arguments
def serve(
    path: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    allow_origins: str | Sequence[str] = (),
    verbose: Verbose = 1,
) -> None:
    """Serves a trained network until an interrupt (Ctrl-C) or SIGTERM; requests that have come are answered first.

    Nothing in the process is changed, but that the logger `uvicorn.access` writes no line a request.

    Args:
        path: see `ktl.inference.predictor.load_predictor`.
        host: address or name of this machine. There is no authentication; one that is not loopback says so.
        port: 0 for any that is free.
        allow_origins: web sites whose pages may ask too, such as `https://example.org`; `*` for all.
        verbose: see `ktl.progress.reporter_for`; the URL is told when the network is ready.

    Raises:
        UserError: no network there, or the address or port cannot be had.

    Example:
        >>> ktl.serve("runs/flowers")
        http://127.0.0.1:8501/ is the page, http://127.0.0.1:8501/v1/models/flowers:predict the API. Ctrl-C ends it.
    """
    reporter = reporter_for(verbose)
    with _listen(host, port) as listener:
        predictor = load_predictor(path)
        service = Service(predictor, channels=_warm_up(predictor))
        config = uvicorn.Config(
            make_app(service, listener=listener, reporter=reporter, allow_origins=_origins(allow_origins)),
            http=TimelyProtocol,
            loop="asyncio",
            ws="none",
            log_config=None,  # loggers are their owner's
            access_log=False,
            server_header=False,
            headers=HEADERS,
            timeout_graceful_shutdown=CLOSING,
        )
        with contextlib.suppress(KeyboardInterrupt):  # which is how it ends
            uvicorn.Server(config).run(sockets=[listener])


def make_app(
    service: Service, *, listener: socket.socket, reporter: Reporter, allow_origins: Sequence[str] = ()
) -> Starlette:
    """The application that answers on a socket, to whom `ktl.serving.gate.Gate` lets in."""
    address, port = listener.getsockname()[:2]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        if not is_local(address):
            reporter.message("WARNING: no authentication: whoever reaches this machine can use the model")
        url = f"http://{_in_url(address)}:{port}"
        reporter.message(f"{url}/ is the page, {url}/v1/models/{quote(service.name)}:predict the API. Ctrl-C ends it.")
        yield
        service.stop()

    middleware = [
        Middleware(Measured, metrics=service.metrics),
        Middleware(Gate, address=address, origins=allow_origins),
    ]
    if allow_origins:
        told = partial(CORSMiddleware, allow_methods=["GET", "POST"], allow_headers=["*"])
        middleware.append(Middleware(told, allow_origins=list(allow_origins)))
    return Starlette(
        routes=service.routes(), middleware=middleware, exception_handlers=ERROR_RESPONSES, lifespan=lifespan
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


def _origins(origins: str | Sequence[str]) -> tuple[str, ...]:
    """As browsers spell them. Raises UserError for what is none."""
    origins = [origins] if isinstance(origins, str) else list(origins)
    for origin in origins:
        if origin != ANY_ORIGIN and not re.fullmatch(r"https?://[^/?#@\s]+/?", origin):
            raise UserError(f"Expected `allow_origins` as https://example.org, or *. Received: {origin}")
    return tuple(origin.rstrip("/").lower() for origin in origins)


def _listen(host: str, port: int) -> socket.socket:
    if not host.strip():  # which would be every address of the machine
        raise UserError(f"Expected `host` to be an address of this machine. Received: {host!r}")
    try:
        if not 0 <= port < 2**16:  # with such a one, create_server would leave a socket open, and with no name at all
            raise OSError("ports go from 0 to 65535")
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, ValueError, TypeError) as error:  # the latter two of texts that are no name at all
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise UserError(
            f"Expected an address of this machine and a free port. Received: `host` {host}, `port` {port}: {reason}"
        ) from error
    # Connections inherit it. asyncio sets it on sockets that it made only, and without it an answer takes 40 ms more.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _warm_up(predictor: Predictor) -> int | None:
    """Traces what the first request would otherwise wait for; gives the channels of the features, if there are any."""
    blank = io.BytesIO()
    Image.new("RGB", (8, 8)).save(blank, "PNG")
    view = view_of(blank.getvalue(), size=predictor.image_size)
    for count in (1, BATCH_SIZE):
        predictor.classify(np.stack([view] * count))
    return None if predictor.features is None else len(predictor.features(blank.getvalue()))
