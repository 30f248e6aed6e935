"""Answers to POST: made once for each `Idempotency-Key`, and given again to whoever repeats it."""

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.api.deps import Context
from app.services.idempotency import Answer, fingerprint, keep, reserve

RETRY_AFTER_S = 1


def accepted(view: BaseModel, location: str) -> Answer:
    """202: the work is queued and `location` will say how it went."""
    return Answer(202, view.model_dump(mode="json"), location)


def answer_once(
    request: Request, context: Context, key: str | None, body: Any, act: Callable[[Session], Answer]
) -> JSONResponse:
    """Runs `act` in one transaction together with the memory of its answer, unless this key was answered before.

    body: what tells this request from another with the same key; the digest of a body that was streamed.
    """
    with context.database.unit_of_work() as session:
        if key is None:
            answer = act(session)
        else:
            asked = fingerprint(request.method, request.url.path, body)
            expires_s = context.settings.idempotency_expires_s
            answer = reserve(session, context.workspace_id, key, asked, expires_s)
            if answer is None:
                answer = act(session)
                keep(session, context.workspace_id, key, answer)
    context.relay.wake()
    return _response(answer)


def _response(answer: Answer) -> JSONResponse:
    headers = {}
    if answer.location is not None:
        headers["Location"] = answer.location
    if answer.status == 202:
        headers["Retry-After"] = str(RETRY_AFTER_S)
        if job_id := answer.body.get("job_id"):
            headers["Link"] = f'</v1/jobs/{job_id}>; rel="monitor"'
    if answer.replayed:
        headers["Idempotent-Replayed"] = "true"
    return JSONResponse(answer.body, answer.status, headers)
