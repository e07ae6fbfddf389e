"""What a server is doing, as Prometheus reads it.

Reference:
    Prometheus, Exposition formats. https://prometheus.io/docs/instrumenting/exposition_formats
"""

import asyncio
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram of latencies."""


class Metrics:
    """Counts of one server; each has a registry of its own."""

    def __init__(self):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ("endpoint", "status")
        self.requests = Counter("ktl_requests", "Requests that were answered", labels, registry=self.registry)
        self.seconds = Histogram(
            "ktl_request_seconds",
            "From a request's header to its answer",
            ("endpoint",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.photos = Counter("ktl_photos", "Photos that were classified", registry=self.registry)
        self.in_progress = Gauge("ktl_requests_in_progress", "Requests that wait for an answer", registry=self.registry)

    async def show(self, request: Request) -> Response:
        """The endpoint `/metrics`."""
        return Response(generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class Measured:
    """Counts what an application answers. A request that the server's end cuts off is answered with 503."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, statuses = time.perf_counter(), []

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        self.metrics.in_progress.inc()
        try:
            await self.app(scope, receive, note)
        except asyncio.CancelledError:
            if not statuses:
                await JSONResponse({"error": "The server is ending"}, 503)(scope, receive, note)
        finally:
            self.metrics.in_progress.dec()
            endpoint = getattr(scope.get("endpoint"), "__name__", "other")
            self.metrics.requests.labels(endpoint, statuses[0] if statuses else 499).inc()
            self.metrics.seconds.labels(endpoint).observe(time.perf_counter() - began)
