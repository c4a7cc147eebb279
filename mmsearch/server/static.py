"""The files of the page: what a browser gets without a question to the index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import FileResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

PAGE = Path(__file__).parent
MODULES = tuple(sorted(path.name for path in (PAGE / "page").glob("*.js")))
"""The page's modules beside the first one."""
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/manifest.webmanifest": ("manifest.webmanifest", "application/manifest+json"),
    **{f"/page/{name}": (f"page/{name}", "text/javascript; charset=utf-8") for name in MODULES},
}
"""By its address, a file beside this one and what it is: nothing else is served from there."""


def page_routes() -> list[Route]:
    """A route for each of `FILES`."""
    return [file_route(address, name, kind) for address, (name, kind) in FILES.items()]


def file_route(address: str, name: str, kind: str) -> Route:
    """Serves the file ``name`` beside this one. A browser asks each time whether it has changed; mostly it has not."""

    def send(request: Request) -> Response:
        return FileResponse(PAGE / name, media_type=kind, headers={"Cache-Control": "private, no-cache"})

    return Route(address, send, methods=["GET"])
