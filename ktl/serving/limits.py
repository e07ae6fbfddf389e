"""What one request may cost: bytes that are read, pixels that are decoded."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from ktl.data.images import BadPhoto, size_of
from ktl.data.views import view_of

MAX_BODY = 32 * 2**20
"""Bytes of a request. A photo takes a third more there than in its file."""

MAX_PIXELS = 50_000_000
"""Of a photo, told by its header: half a gigabyte while it is decoded, whatever the size of the file."""

LINGER = 30
"""Seconds that the rest of a body that is too large is read and thrown away: a client that is cut off while it still
sends never sees the answer."""


async def read_body(request: Request) -> bytearray:
    """The body of a request.

    Raises:
        TooLarge: it has more than `MAX_BODY` bytes, or says so before it comes.
    """
    body, chunks = bytearray(), request.stream()
    if int(request.headers.get("content-length", 0)) > MAX_BODY:  # digits, as h11 has seen to
        raise TooLarge(chunks)
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLarge(chunks)
    return body


class TooLarge(Exception):
    """A body of more than `MAX_BODY` bytes; `rest` is what of it is still to come."""

    def __init__(self, rest: AsyncIterator[bytes]):
        self.rest = rest


class TooLargeResponse(JSONResponse):
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


def safe_view(encoded: bytes, size: int) -> np.ndarray:
    """See `ktl.data.views.view_of`; a photo that is large when decoded is not decoded.

    Raises:
        BadPhoto: also for more than `MAX_PIXELS`.
    """
    try:
        width, height = size_of(encoded)
    except BadPhoto:  # then `view_of` gives the reason
        width = height = 0
    if width * height > MAX_PIXELS:
        raise BadPhoto(f"{width} x {height} is more than {MAX_PIXELS:,} pixels")
    return view_of(encoded, size=size)
