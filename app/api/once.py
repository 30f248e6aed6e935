"""Answers to POST: made once for each `Idempotency-Key`, and given again to whoever repeats it."""

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.api.deps import Context
from app.services import audit, quotas
from app.services.idempotency import Answer, fingerprint, keep, reserve

RETRY_AFTER_S = 1


def accepted(view: BaseModel, location: str) -> Answer:
    """202: the work is queued and `location` will say how it went."""
    return Answer(202, view.model_dump(mode="json"), location)


def answer_once(
    request: Request,
    context: Context,
    key: str | None,
    body: Any,
    act: Callable[[Session], Answer],
    complete: Callable[[Answer], Answer] = lambda answer: answer,
) -> JSONResponse:
    """Runs `act` and remembers its answer in one transaction, unless this key was answered before.

    body: what tells this request from another with the same key; the digest of a body that was streamed.
    complete: adds what may not be kept.
    """
    with context.database.unit_of_work() as session:
        before = None
        if key is not None:
            asked = fingerprint(request.method, request.url.path, body)
            expires_s = context.settings.idempotency_expires_s
            before = reserve(session, context.workspace_id, key, asked, expires_s)
        answer = before or _within_quotas(session, context, act)
        if before is not None:
            audit.nothing_done(session)
        elif answer.location is not None:
            audit.about(session, answer.location)
        if key is not None and before is None:
            keep(session, context.workspace_id, key, answer)
    context.relay.wake()
    return _response(complete(answer))


def _within_quotas(session: Session, context: Context, act: Callable[[Session], Answer]) -> Answer:
    found, before = quotas.begin(session, context.workspace_id, context.settings)
    answer = act(session)
    if found.any:
        quotas.check(session, context.workspace_id, found, before)
    return answer


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
