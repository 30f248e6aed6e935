"""Documents of the API as HTML, with headers that let a page run and load nothing but its own files."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from app.page import charts, words

HERE = Path(__file__).parent
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= words.FILTERS
    made.globals |= {
        "static": static_url,
        "ended": words.ended,
        "charts": charts,
        "quote": quote,
    }
    return made


@cache
def static_url(name: str) -> str:
    """The address of a file of ours, with its digest, so that a browser may keep it for ever."""
    digest = hashlib.sha256((HERE / "static" / name).read_bytes()).hexdigest()[:12]
    return f"/static/{digest}/{name}"


def page(request: Request, template: str, status: int = 200, **shown: Any) -> HTMLResponse:
    """The page made of `template`; with `?bare=1` only its content, for the script that keeps it fresh."""
    bare = request.query_params.get("bare") == "1"
    return HTMLResponse(
        _text(request, template, "bare.html" if bare else "base.html", shown), status, SECURITY
    )


def alone(request: Request, template: str, filename: str, **shown: Any) -> HTMLResponse:
    """The same as one file to keep or to send, with its style in it and without script."""
    style = Markup((HERE / "static" / "page.css").read_text(encoding="utf-8"))  # noqa: S704  # a file of ours
    origin = f"{request.url.scheme}://{request.url.netloc}"
    text = _text(request, template, "alone.html", shown | {"style": style, "origin": origin})
    policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    kept = {"Content-Security-Policy": policy, "Content-Disposition": f'attachment; filename="{filename}"'}
    return HTMLResponse(text, headers=SECURITY | kept)


def _text(request: Request, template: str, shell: str, shown: dict[str, Any]) -> str:
    shown = shown | {
        "shell": shell,
        "path": request.url.path,
        "keys": request.app.state.parts.settings.auth == "keys",
        "version": request.app.version,
    }
    return _environment().get_template(template).render(shown)
