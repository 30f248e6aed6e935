"""Where keys are asked for: the browser keeps its key in a cookie that no script can read.

The API takes the cookie in place of the header; what changes something it takes only from our own pages (app/api/deps.py).
"""

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import StringConstraints

from app.api.deps import KEY_COOKIE, from_own_page
from app.api.problems import problem_response
from app.errors import Forbidden
from app.page.ask import Asker, Refused
from app.page.render import page
from app.schemas.common import Body

router = APIRouter(include_in_schema=False)
KEPT_S = 30 * 24 * 3600


class SignIn(Body):
    key: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


@router.get("/sign-in")
async def form(request: Request) -> Response:
    return page(request, "sign_in.html", problem=None)


@router.post("/sign-in")
async def sign_in(request: Request, body: SignIn) -> Response:
    """Keeps a key that the API takes. A problem document where it does not."""
    if not from_own_page(request):
        return problem_response(request, Forbidden("a key is taken only from this service's own page"))
    try:
        await Asker(request, key=body.key).get("/v1/datasets", limit=1)
    except Refused as refusal:
        return JSONResponse(refusal.problem, refusal.problem["status"], media_type="application/problem+json")
    answer = Response(status_code=204)
    answer.set_cookie(
        KEY_COOKIE,
        body.key,
        max_age=KEPT_S,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    answer = Response(status_code=204)
    if from_own_page(request):
        answer.delete_cookie(KEY_COOKIE)
    return answer
