"""Which requests are let in: of which names, of which web sites, how many."""

import asyncio
import json

import pytest
from starlette.responses import JSONResponse

from ktl.serving.gate import MAX_REQUESTS, Gate

SITE = "https://shop.example"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost:8501", "sec_fetch_site": "same-origin"}, 200),
        ({"origin": "http://LOCALHOST:8501"}, 200),
        ({"sec_fetch_site": "none"}, 200),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, 200),
        ({"origin": SITE}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"origin": "http://localhost:8502", "sec_fetch_site": "same-site"}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"host": "shop.example", "origin": "http://shop.example"}, 400),
        ({"host": ""}, 400),
        ({"host": "[::1"}, 400),
        ({"host": "127.8.9.1:8501"}, 200),
    ],
)
def test_pages_of_other_web_sites_are_refused(application, headers, status):
    found, _, body = application.ask("GET", "/healthz", **{"host": "localhost:8501", **headers})
    assert found == status
    assert ("error" in json.loads(body)) == (status != 200)


def test_a_page_that_navigates_here_cannot_post(application):
    headers = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert application.ask("POST", "/v1/models/x:predict", b"{}", **headers)[0] == 403


@pytest.mark.parametrize("allowed", [SITE, "*"])
def test_a_web_site_that_is_allowed_may_ask_and_its_browser_is_told(open_application, allowed):
    application = open_application(allow_origins=[allowed])
    status, headers, _ = application.ask("GET", "/healthz", origin=SITE, sec_fetch_site="cross-site")
    assert (status, headers["access-control-allow-origin"]) == (200, allowed)
    asks = {"origin": SITE, "access_control_request_method": "POST", "access_control_request_headers": "content-type"}
    status, headers, _ = application.ask("OPTIONS", "/v1/models/x:predict", **asks)
    assert status == 200
    assert "POST" in headers["access-control-allow-methods"]
    other = application.ask("GET", "/healthz", origin="https://other.example")[0]
    assert other == (200 if allowed == "*" else 403)


def test_requests_beyond_the_most_are_told_to_come_again():
    statuses = []

    async def ask_all() -> None:
        leave = asyncio.Event()

        async def slow(scope, receive, send):
            await leave.wait()
            await JSONResponse({})(scope, receive, send)

        async def send(message):
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        gate = Gate(slow, address="127.0.0.1")
        scope = {"type": "http", "method": "POST", "headers": [(b"host", b"localhost")]}
        asked = [asyncio.create_task(gate(scope, None, send)) for _ in range(MAX_REQUESTS + 3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert statuses == [503] * 3
        leave.set()
        await asyncio.gather(*asked)

    asyncio.run(ask_all())
    assert statuses[3:] == [200] * MAX_REQUESTS
