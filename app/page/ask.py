"""The page's own client of the public API: the same requests that anybody can send, within the process."""

from typing import Any

import httpx
from fastapi import Request

from app.api.deps import KEY_COOKIE

Record = dict[str, Any]


class Refused(Exception):
    """The API answered with a problem document (RFC 9457)."""

    def __init__(self, problem: Record) -> None:
        super().__init__(problem.get("detail", ""))
        self.problem = problem


class Asker:
    """Asks in the name of whoever asks for a page: with the same key, under the same request id."""

    def __init__(self, request: Request, key: str | None = None) -> None:
        """`key`: to be tried in place of the one that came with the request."""
        given = None if key else request.headers.get("authorization")
        key = key or request.cookies.get(KEY_COOKIE)
        if given is None and key:
            given = f"Bearer {key}"
        self._headers = {"x-request-id": request.scope.get("request_id") or ""}
        if given is not None:
            self._headers["authorization"] = given
        self._base = f"{request.url.scheme}://{request.url.netloc}"
        self._transport = httpx.ASGITransport(app=request.app)

    async def get(self, path: str, **asked: Any) -> Any:
        """The JSON document at `path`. Raises Refused."""
        async with httpx.AsyncClient(
            transport=self._transport, base_url=self._base, headers=self._headers, trust_env=False
        ) as client:
            answer = await client.get(path, params={name: v for name, v in asked.items() if v is not None})
        if answer.status_code >= 400:
            raise Refused(answer.json())
        return answer.json()

    async def items(self, path: str, *, most: int = 100, **asked: Any) -> list[Record]:
        """The first of a list, at most `most` (or as many as fill its last page of 100). Raises Refused."""
        found: list[Record] = []
        cursor = None
        while len(found) < most:
            answer = await self.get(path, limit=100, cursor=cursor, **asked)
            found += answer["items"]
            cursor = answer["next_cursor"]
            if cursor is None:
                break
        return found

    async def items_of(self, path: str) -> list[Record]:
        """A list that has no pages. Raises Refused."""
        return (await self.get(path))["items"]

    async def get_or_none(self, path: str, **asked: Any) -> Any:
        """The JSON document at `path`; None where there is none, or not yet. Raises Refused."""
        try:
            return await self.get(path, **asked)
        except Refused as refusal:
            if refusal.problem["status"] in (404, 409):
                return None
            raise
