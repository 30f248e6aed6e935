"""Keys: who may ask the service, and with what right."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.page.ask import Asker
from app.page.page_route import PageRoute
from app.page.render import page

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/keys")
async def keys(request: Request) -> HTMLResponse:
    """Every key, the newest first, and a form for another; the API shows them to keys of scope admin."""
    items = await Asker(request).items("/v1/keys")
    return page(request, "keys.html", items=items, follow=None)
