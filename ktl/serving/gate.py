"""Who is let in: requests to this machine's names, from its own pages, and not too many at a time."""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

MAX_REQUESTS = 128
"""With a body, at a time, so that bodies take 4 GiB at most. More are answered with 503."""

ANY_ORIGIN = "*"


def is_local(address: str) -> bool:
    """Whether only this machine reaches an address."""
    return ipaddress.ip_address(address.split("%")[0]).is_loopback


class Gate:
    """Refuses, before a body is read: a web site must not get at the model through its visitors' browsers.

    Args:
        app: what is behind the gate.
        address: at which the server listens. On loopback, requests to names of this machine alone are let in: a name of
            somebody else's may be made to point here.
        origins: web sites whose pages may ask, such as `https://example.org`, beside the server's own; `*` for all.
    """

    def __init__(self, app: ASGIApp, *, address: str, origins: Collection[str] = ()):
        self.app, self.address, self.origins = app, address, frozenset(origins)
        self.local = is_local(address)
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = scope["type"] == "http" and self._refusal(scope["method"], Headers(scope=scope))
        if refused:
            await refused(scope, receive, send)
            return
        self.requests += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.requests -= 1

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        if self.local and not self._is_here(headers.get("host", "")):
            return _refuse(400, "Expected a request to a name of this machine")
        if not self._is_welcome(method, headers):
            return _refuse(403, "Expected a request of the server's own page, or of a web site that it allows")
        if method == "POST" and self.requests >= MAX_REQUESTS:
            return _refuse(503, f"Expected at most {MAX_REQUESTS} requests at a time. Repeat it later")
        return None

    def _is_here(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in ("localhost", self.address) or ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def _is_welcome(self, method: str, headers: Headers) -> bool:
        """Only browsers send these headers, and no page can change them."""
        origin = headers.get("origin")
        if ANY_ORIGIN in self.origins or origin in self.origins:
            return True
        if origin is not None:
            return _netloc(origin) == headers.get("host", "").lower() != ""
        followed_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        return followed_link or headers.get("sec-fetch-site", "none") in ("none", "same-origin")


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _refuse(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)
