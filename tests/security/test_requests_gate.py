"""Who may ask a service that asks for no key: this machine, and no page of another site"""

from pathlib import Path

import httpx
import pytest
from running import running
from starlette.datastructures import Headers

from app.api.gate import reason_to_refuse
from app.settings import Settings

LOCAL = {"host": "127.0.0.1:8000"}


def refused(
    headers: dict[str, str], *, method: str = "POST", client: str = "127.0.0.1", allowed: list[str] = ()
) -> bool:
    scope = {"type": "http", "method": method, "client": (client, 5000), "path": "/v1/datasets"}
    return reason_to_refuse(scope, Headers(headers), list(allowed)) is not None


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "127.0.0.1:1",
        "127.9.9.9",
        "[::1]:8000",
        "[::1]",
        "me.localhost:3",
        "LOCALHOST",
    ],
)
def test_names_of_this_machine(host: str) -> None:
    assert not refused({"host": host})


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example#localhost",
        "evillocalhost",
        "0.0.0.0:8000",
        "10.0.0.1",
        "169.254.169.254",
        "[::ffff:10.0.0.1]",
        "2130706433",
        "localhost@evil.example",
        "[",
        "[::1",
    ],
)
def test_names_made_to_point_here(host: str) -> None:
    assert refused({"host": host}, method="GET")


@pytest.mark.parametrize("client", ["10.0.0.1", "192.168.1.5", "8.8.8.8", "fe80::1", "0.0.0.0"])
def test_other_machines(client: str) -> None:
    assert refused(LOCAL, client=client, method="GET")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1:8001",
        "http://localhost:8000",
        "http://127.0.0.1:8000.evil.example",
    ],
)
def test_pages_of_other_sites(origin: str) -> None:
    assert refused(LOCAL | {"origin": origin})
    assert refused(LOCAL | {"origin": origin}, method="GET")


def test_our_own_page_and_those_allowed() -> None:
    assert not refused(LOCAL | {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"})
    assert not refused(LOCAL | {"origin": "https://friend.example"}, allowed=["https://friend.example"])


def test_forms_of_other_sites_that_hide_their_origin() -> None:
    assert refused(LOCAL | {"sec-fetch-site": "cross-site"})
    assert not refused(LOCAL | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, method="GET")
    assert not refused(LOCAL | {"sec-fetch-site": "none"})


def test_over_http(open_url: str) -> None:
    assert httpx.get(f"{open_url}/v1/datasets").status_code == 200
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        answer = httpx.get(f"{open_url}/v1/datasets", headers=headers)
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        assert "DETRANK_" in answer.json()["detail"]


def test_pages_that_are_allowed_may_read_the_answer(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, cors_origins=["https://friend.example"], min_free_disk_bytes=0)
    with running(settings) as service:
        answer = httpx.get(f"{service.url}/v1/datasets", headers={"Origin": "https://friend.example"})
        assert answer.headers["access-control-allow-origin"] == "https://friend.example"
        assert "Location" in answer.headers["access-control-expose-headers"]
        asked = {"Origin": "https://friend.example", "Access-Control-Request-Method": "PATCH"}
        assert httpx.options(f"{service.url}/v1/uploads/x", headers=asked).status_code == 200
        assert (
            httpx.get(f"{service.url}/v1/datasets", headers={"Origin": "https://x.example"}).status_code
            == 403
        )
