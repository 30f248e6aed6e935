"""The review of pseudo boxes: one after the other, by key or mouse."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.page.ask import Asker
from app.page.page_route import PageRoute
from app.page.render import page

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/pseudo-labellings/{id}/review")
async def review(request: Request, id: str) -> HTMLResponse:
    """Boxes to accept, reject or correct, and what the answers say of all boxes."""
    ask = Asker(request)
    found, asked = await asyncio.gather(
        ask.get(f"/v1/pseudo-labellings/{id}"), ask.get(f"/v1/pseudo-labellings/{id}/review")
    )
    return page(request, "review.html", one=found, review=asked)
