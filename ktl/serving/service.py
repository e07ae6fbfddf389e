"""The endpoints of one network.

    GET  /                            the page
    POST /v1/models/NAME:predict      {"instances": [{"b64": "..."}, ...]}, encoded photos, or {"inputs": [...]}
    GET  /v1/models/NAME              whether the model is available, and
    GET  /v1/models/NAME/metadata     what it takes and gives
    GET  /healthz, /readyz, /metrics  for what watches the server

Each address of a model may have /versions/1 behind its NAME.
"""

import asyncio
import html
import string
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ktl.data.images import WORKERS, BadPhoto
from ktl.data.views import evaluation_view
from ktl.inference.formats import FEATURES, VIEWS
from ktl.inference.predict import printable, top_classes
from ktl.inference.predictor import TOP_K, Predictor
from ktl.serving.batching import Batcher
from ktl.serving.limits import read_body, safe_view
from ktl.serving.metrics import Metrics
from ktl.serving.protocol import (
    VERSION,
    BadRequest,
    Value,
    answer_of,
    parse_predict,
    render_metadata,
    render_predictions,
    render_status,
    signatures,
)

PAGE_FILES = {"": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
"""Path -> media type; the first is page.html."""


class Service:
    """The endpoints of one network.

    Args:
        predictor: the network.
        channels: of the features that it gives; None if it gives none.
    """

    def __init__(self, predictor: Predictor, *, channels: int | None = None):
        self.predictor = predictor
        self.name = model_name(predictor)
        classes = len(predictor.class_names)
        self.signatures = signatures(
            image_size=predictor.image_size, classes=classes, top=min(TOP_K, classes), channels=channels
        )
        self.batcher = Batcher(predictor.classify)
        self.batching: asyncio.Task | None = None
        self.metrics = Metrics()
        self.pool = ThreadPoolExecutor(WORKERS)
        self.page_files = {path: _page_file(path, self) for path in PAGE_FILES}

    def start(self) -> None:
        """Begins to answer, in the event loop that runs."""
        self.batching = asyncio.create_task(self.batcher.run())

    def stop(self) -> None:
        """Answers no more."""
        if self.batching is not None:
            self.batching.cancel()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def routes(self) -> list[Route]:
        models = [f"/v1/models/{{name:model_name}}{version}" for version in ("", "/versions/{version:model_name}")]
        return [
            *(Route(f"{model}:predict", self.predict, methods=["POST"]) for model in models),
            *(Route(f"{model}/metadata", self.metadata) for model in models),
            *(Route(model, self.status) for model in models),
            *(Route(f"/{path}", self.page) for path in PAGE_FILES),
            Route("/healthz", self.health),
            Route("/readyz", self.ready),
            Route("/metrics", self.metrics.show),
        ]

    async def page(self, request: Request) -> Response:
        path = request.url.path.removeprefix("/")
        return Response(self.page_files[path], media_type=PAGE_FILES[path])

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Whether photos are answered; a server that loads its model answers nothing at all."""
        if self.batching is None or self.batching.done():
            return JSONResponse({"error": "Photos are not answered"}, 503)
        return JSONResponse({"status": "ready"})

    async def status(self, request: Request) -> Response:
        self._check_name(request)
        return JSONResponse(render_status())

    async def metadata(self, request: Request) -> Response:
        self._check_name(request)
        return JSONResponse(render_metadata(self.name, self.signatures))

    async def predict(self, request: Request) -> Response:
        self._check_name(request)
        body = await read_body(request)
        signature, form, photos = await self._in_thread(parse_predict, body, self.signatures)
        answer = ANSWERS.get(signature, Service._labels_of_photo)
        tasks = [asyncio.create_task(self._answer(answer, photo, f"{form}[{i}]")) for i, photo in enumerate(photos)]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # of a refused request, or of a client that is gone: the rest need not be decoded
                task.cancel()
        self.metrics.photos.inc(len(photos))
        return JSONResponse(render_predictions(form, answers))

    async def _answer(self, answer, photo: Value, place: str) -> Mapping[str, Any]:
        try:
            return await answer(self, photo)
        except BadPhoto as error:
            raise BadRequest(f"{place}: {error}") from error

    async def _labels_of_photo(self, photo: bytes) -> Mapping[str, Any]:
        return await self._labels_of_view(await self._in_thread(safe_view, photo, self.predictor.image_size))

    async def _labels_of_pixels(self, pixels) -> Mapping[str, Any]:
        size = self.predictor.image_size
        return await self._labels_of_view(await self._in_thread(lambda: evaluation_view(pixels, size=size)))

    async def _labels_of_view(self, view) -> Mapping[str, Any]:
        probabilities = await self.batcher.classify(view)
        return answer_of(probabilities, top_classes(self.predictor, probabilities))

    async def _features_of_photo(self, photo: bytes) -> Mapping[str, Any]:
        await self._in_thread(safe_view, photo, self.predictor.image_size)  # refuses what is too large
        try:
            return {FEATURES: (await self._in_thread(self.predictor.features, photo)).tolist()}
        except ValueError as error:
            raise BadPhoto(f"{error}") from error

    async def _in_thread(self, function, *arguments):
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)

    def _check_name(self, request: Request) -> None:
        name, version = request.path_params["name"], request.path_params.get("version", VERSION)
        if name != self.name:
            raise HTTPException(404, f"Expected the model {self.name}. Received: {name}")
        if version != VERSION:
            raise HTTPException(404, f"Expected the version {VERSION}. Received: {version}")


ANSWERS = {
    "pixels": Service._labels_of_pixels,
    VIEWS: Service._labels_of_view,
    FEATURES: Service._features_of_photo,
}
"""Signature -> what answers one photo of it, where that is not labels of an encoded photo."""


class _ModelName(StringConvertor):
    """Without the colon that stands before a verb, so that a known verb with another method is 405, not 404."""

    regex = "[^/:]+"


register_url_convertor("model_name", _ModelName())


def model_name(predictor: Predictor) -> str:
    """What the model is called in URLs."""
    return printable(predictor.name).replace(":", "_")


def _page_file(path: str, service: Service) -> str:
    text = (Path(__file__).parent / "static" / (path or "page.html")).read_text(encoding="utf-8")
    if path:
        return text
    return string.Template(text).substitute(name=html.escape(service.name), classes=len(service.predictor.class_names))
