"""What every request passes first: its id, who may come in, how long a body may be, the log, the time."""

import ipaddress
import logging
import re
import time
import uuid
from functools import lru_cache
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import tracing
from app.api.problems import problem_response, unexpected
from app.errors import Forbidden, TooLarge
from app.settings import Settings
from app.telemetry import HTTP_SECONDS

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_SAFE = ("GET", "HEAD", "OPTIONS")
# of answers that do not say otherwise; our pages say more (app/page/render.py)
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# a browser that came by https comes back by https alone
_TRANSPORT = "max-age=31536000"
_STREAMED = re.compile(r"POST /v1/(datasets|checkpoints)|PATCH /v1/uploads/[^/]*")

log = logging.getLogger("detrank.access")


class Gate:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope["request_id"] = request_id
        answered: list[int] = []

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered.append(message["status"])
                given_back = MutableHeaders(scope=message)
                given_back["X-Request-ID"] = request_id
                for name, value in (SECURITY | scope.get("answer_headers", {})).items():
                    given_back.setdefault(name, value)
                if scope.get("scheme") == "https":
                    given_back.setdefault("Strict-Transport-Security", _TRANSPORT)
            await send(message)

        began = time.perf_counter()
        with (
            structlog.contextvars.bound_contextvars(request_id=request_id),
            tracing.span(
                scope["method"], headers.get("traceparent"), **{"detrank.request_id": request_id}
            ) as span,
        ):
            try:
                await self._pass(scope, headers, receive, send_marked)
            except Exception as failure:
                answer = await unexpected(Request(scope), failure)
                if answered:
                    raise
                await answer(scope, receive, send_marked)
            finally:
                span.update_name(f"{scope['method']} {_route(scope)}")
                span.set_attribute("http.response.status_code", answered[0] if answered else 0)
                _note(scope, answered[0] if answered else 0, time.perf_counter() - began)

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if self._settings.auth == "none" and (
            refused := reason_to_refuse(scope, headers, self._settings.cors_origins)
        ):
            await problem_response(Request(scope), Forbidden(refused))(scope, receive, send)
            return
        if not _STREAMED.fullmatch(f"{scope['method']} {scope['path']}"):
            limit = self._settings.max_json_bytes
            length = headers.get("content-length", "0")
            if length.isascii() and length.isdigit() and int(length) > limit:
                too_large = TooLarge(f"the body has {int(length):,} bytes; {limit:,} are allowed here")
                await problem_response(Request(scope), too_large)(scope, receive, send)
                return
            receive = _limited(receive, limit)
        await self._app(scope, receive, send)


def reason_to_refuse(scope: Scope, headers: Headers, allowed_origins: list[str]) -> str | None:
    """Why a request may not come in where no key is asked for; None where it may.

    Anyone who reaches the port is trusted then, so it must be this machine: not another host, not a name that
    was made to point here (DNS rebinding), not a page of another site in the browser of whoever runs the
    service.
    """
    advice = "set DETRANK_AUTH=keys to be reached by others"
    client = (scope.get("client") or ("",))[0]
    if _is_address(client) and not _is_loopback(client):
        return f"without keys only this machine may ask, and this request comes from {client}; {advice}"
    host = headers.get("host", "")
    if not _is_loopback(_hostname(host)):
        return f"without keys the Host must be localhost or a loopback address, and it is {host!r}; {advice}"
    origin = headers.get("origin")
    if origin is not None:
        same = urlsplit(origin).netloc == host
        if not same and origin not in allowed_origins:
            return f"requests from pages of {origin} are not taken; allow it with DETRANK_CORS_ORIGINS"
    elif scope["method"] not in _SAFE and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return "requests from pages of other sites are not taken"
    return None


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


@lru_cache(maxsize=256)
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=256)
def _is_loopback(host: str) -> bool:
    if _is_address(host):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _limited(receive: Receive, limit: int) -> Receive:
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise HTTPException(413, f"the body has more than the {limit:,} bytes allowed here")
        return message

    return receive_limited


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path_format", "unmatched")


def _note(scope: Scope, status: int, seconds: float) -> None:
    route = _route(scope)
    HTTP_SECONDS.labels(scope["method"] if status != 405 else "other", route, status).observe(seconds)
    level = logging.DEBUG if route in ("/healthz", "/metrics") else logging.INFO
    log.log(
        level,
        "%s %s %s",
        scope["method"],
        scope["path"],
        status,
        extra={"milliseconds": round(seconds * 1000, 1), "key_id": scope.get("key_id")},
    )
