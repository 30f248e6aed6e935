"""What the `type` of a problem document leads to: a page for people, the same as JSON for programs."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from app.page.ask import Asker
from app.page.render import page

router = APIRouter(include_in_schema=False)


@router.get("/problems/{code}")
async def problem(request: Request, code: str) -> Response:
    found = await Asker(request).get(f"/v1/problems/{code}")
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse(found, headers={"Vary": "Accept"})
    return page(request, "problem.html", problem=found)


@router.get("/problems")
async def problems(request: Request) -> Response:
    found = await Asker(request).get("/v1/problems")
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse(found, headers={"Vary": "Accept"})
    return page(request, "problems.html", items=found["items"])
