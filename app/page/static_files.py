"""Style, script and icon. The digest in their address lets browsers keep them for ever."""

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from app.page.render import HERE, static_url

router = APIRouter(include_in_schema=False)

TYPES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "upload.js": "text/javascript; charset=utf-8",
    "pictures.js": "text/javascript; charset=utf-8",
    "review.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@router.get("/static/{digest}/{name}")
async def static_file(digest: str, name: str) -> Response:
    """A file of ours; one with another digest is not to be kept, for it is not what was asked for."""
    if name not in TYPES:
        return Response(status_code=404)
    kept = static_url(name) == f"/static/{digest}/{name}"
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if kept else "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    return FileResponse(HERE / "static" / name, media_type=TYPES[name], headers=headers)


@router.get("/favicon.ico")
async def favicon() -> Response:
    return FileResponse(HERE / "static" / "icon.svg", media_type=TYPES["icon.svg"])
