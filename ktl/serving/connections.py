"""Connections that do not wait for ever: a client that is silent, or sends by drops, is let go."""

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

GRACE = 10.0
"""Seconds that a client has for a request, beside those that `LEAST_RATE` gives it."""

LEAST_RATE = 16 * 2**10
"""Bytes a second that a client sends at least, after `GRACE`."""

MAX_OPEN = 512
"""Open connections; beyond them, the one that has been silent the longest is closed."""

LAST_SECONDS = 1.0
"""That a request has to arrive once the server ends."""


class TimelyProtocol(H11Protocol):
    """uvicorn's HTTP, with an end to each request: its header and body come at `LEAST_RATE`, or it is refused."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._since, self._received = self.loop.time(), 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def awaited(self) -> bool:
        """Whether the client has a request to send, or the rest of one."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing()

    def connection_made(self, transport):  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._await_request()
        if len(self.connections) > MAX_OPEN:
            silent = [each for each in self.connections if isinstance(each, TimelyProtocol) and each.is_silent]
            if silent:
                min(silent, key=lambda each: each._since).transport.close()

    @property
    def is_silent(self) -> bool:
        """Whether nothing of a request has come yet."""
        return self.conn.their_state is h11.IDLE and not self.transport.is_closing()

    def connection_lost(self, exc):
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data):
        self._received += len(data)
        super().data_received(data)
        self._watch()

    def on_response_complete(self):
        super().on_response_complete()
        self._await_request()

    def shutdown(self):
        """A request that is under way may end; one that has not come is waited for no longer."""
        super().shutdown()
        if self.awaited:
            self.loop.call_later(LAST_SECONDS, self._close_if_awaited)

    def send_400_response(self, msg):
        self._refuse(400, b"Bad Request", msg)

    def _await_request(self) -> None:
        self._since, self._received = self.loop.time(), 0
        self._watch()

    def _watch(self) -> None:
        self._stop_timer()
        if self.awaited:
            deadline = self._since + GRACE + self._received / LEAST_RATE
            self._timer = self.loop.call_at(deadline, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._received:
            self._refuse(408, b"Request Timeout", "Expected a request that arrives in time")
        else:
            self.transport.close()

    def _close_if_awaited(self) -> None:
        if self.awaited:
            self.transport.close()

    def _refuse(self, status: int, reason: bytes, message: str) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer is on its way already
            self.transport.close()
            return
        body = json.dumps({"error": message}).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        events = h11.Response(status_code=status, headers=headers, reason=reason), h11.Data(body), h11.EndOfMessage()
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
