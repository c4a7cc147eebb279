"""What is served at which address: the page, searches, pictures and files of an index. See the README for them."""

from __future__ import annotations

import asyncio
import mimetypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from mmsearch.core.errors import MediaError, MmsearchError, UsageError
from mmsearch.core.modalities import has_pictures
from mmsearch.core.types import SCHEMA, Modality
from mmsearch.query.explain import drawn_heat
from mmsearch.query.language import QueryError
from mmsearch.query.options import SearchOptions
from mmsearch.query.question import Question
from mmsearch.server.access import Guard, is_in_place
from mmsearch.server.parameters import Limit, is_on, number, options_of
from mmsearch.server.pictures import as_jpeg, opened_picture, small_picture

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams
    from starlette.requests import Request

    from mmsearch.api import Index
    from mmsearch.models.speech import SpeechRecogniser

PAGE = Path(__file__).parent
LIMITS = {"k": Limit(10, 500), "rerank_depth": Limit(50, 500), "rerank_budget_s": Limit(1.0, 60)}
"""What is the server's own in `SearchOptions`."""
UPLOAD_BYTES = 64 << 20
UPLOADS, UPLOAD_S = 2, 60
"""So many pictures are taken in and looked at at once, whoever sends them, and each has so many seconds to arrive."""
_KEPT_BY_BROWSER = {"Cache-Control": "private, max-age=600"}


def create_app(index: Index, token: str) -> Starlette:
    """The application for one open index; see `Guard` for ``token``."""
    endpoints = _Endpoints(index)
    routes = [
        Route("/", _file_of_page("page.html")),
        Route("/page.js", _file_of_page("page.js")),
        Route("/page.css", _file_of_page("page.css")),
        Route("/icon.svg", _file_of_page("icon.svg")),
        Route("/api/search", endpoints.search, methods=["GET", "POST"]),
        Route("/api/voice", endpoints.voice, methods=["POST"]),
        Route("/api/complete", endpoints.complete),
        Route("/api/status", endpoints.status),
        Route("/api/thumbnail", endpoints.thumbnail),
        Route("/api/file", endpoints.file),
        Route("/api/heat", endpoints.heat),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={MmsearchError: _refusal, Exception: _failure},
    )


def _refusal(request: Request, error: Exception) -> Response:
    """What is wrong with a request, and in a query where."""
    position = {"position": error.position} if isinstance(error, QueryError) else {}
    return _json({"error": str(error), **position}, 400)


def _failure(request: Request, error: Exception) -> Response:
    """A fault in here: the traceback goes to the terminal, one line of it to the client."""
    return _json({"error": f"this request failed ({type(error).__name__}: {error})"}, 500)


def _file_of_page(name: str) -> Callable[[Request], Response]:
    def send(request: Request) -> Response:
        return FileResponse(PAGE / name)

    return send


class _Endpoints:
    """What is served of one index: a method for each address."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._uploads = asyncio.Semaphore(UPLOADS)
        self._recogniser: SpeechRecogniser | None = None
        self._listening = threading.Lock()

    async def search(self, request: Request) -> Response:
        """Hits for ``q`` (several are one query), for the picture in the body, or for what is ``like`` a file."""
        if request.method != "POST":
            return await run_in_threadpool(self._search, request.query_params, None)
        async with self._uploads:  # others wait unread
            picture = await _arrived(request, "picture")
            return await run_in_threadpool(self._search, request.query_params, picture)

    def _search(self, parameters: QueryParams, uploaded: bytes | None) -> Response:
        like = parameters.getlist("like")
        images: list[Any] = [Path(self._indexed(path)[0]) for path in like]
        if uploaded is not None:
            images.append(opened_picture(uploaded))
        texts = [text for text in parameters.getlist("q") if text.strip()]
        query = Question.of(texts, images, raw=is_on(parameters, "raw"))
        notes: list[str] = []
        options = options_of(SearchOptions, parameters, LIMITS, notes.append)
        found = self._index.search_many([query], options=options, note=notes.append)[0]
        hits = [hit for hit in found if hit.path not in like] or found
        is_alike = any(hit.match for hit in hits)
        values = {"hits": [hit.as_json() for hit in hits], "nothing_matches_well": not is_alike, "notes": notes}
        values["reason"] = found.reason
        return _json(values)

    async def voice(self, request: Request) -> Response:
        """The words of the question that is spoken in the body, a sound file as browsers record it."""
        async with self._uploads:
            return await run_in_threadpool(self._understood, await _arrived(request, "recording"))

    def _understood(self, recording: bytes) -> Response:
        from mmsearch.media.sound.containers import sound_of
        from mmsearch.models.speech import open_recogniser
        from mmsearch.pipeline.speech import question_of

        with self._listening:  # one at a time: a recogniser is no thread's own
            if self._recogniser is None:
                self._recogniser = open_recogniser()
            try:
                text = question_of(sound_of(Path("question.webm"), recording), self._recogniser)
            except MediaError as error:
                raise UsageError(f"the recording: {error}") from error
        return _json({"text": text.replace('"', "")})

    def complete(self, request: Request) -> Response:
        """How the query ``q`` that is being typed could go on."""
        from mmsearch.query.language import complete

        return _json({"completions": complete(request.query_params.get("q", ""))[:20]})

    def status(self, request: Request) -> Response:
        """What the index holds."""
        return _json(self._index.status())

    def thumbnail(self, request: Request) -> Response:
        """A small JPEG of the indexed file ``path``, of a video at ``t`` seconds, within ``size`` pixels."""
        parameters = request.query_params
        path, modality = self._indexed(parameters.get("path", ""))
        at_s = number(parameters, "t", None, 0, 1e7)
        data = small_picture(path, modality, int(number(parameters, "size", 320, 1, 10_000)), at_s)
        if data is None:
            return _json({"error": f"there is no picture in {path}"}, 404)
        return _jpeg(data)

    def file(self, request: Request) -> Response:
        """The indexed file ``path`` itself; of videos also parts."""
        from mmsearch.sources import read_sample

        path, modality = self._indexed(request.query_params.get("path", ""))
        kind = "text/plain; charset=utf-8" if modality == "text" else mimetypes.guess_type(path)[0]
        if Path(path).is_file():
            return FileResponse(path, media_type=kind or "application/octet-stream")
        data = read_sample(Path(path))
        if data is None:
            return _json({"error": f"{path} is not there any more"}, 404)
        return Response(data, media_type=kind or "application/octet-stream")

    def heat(self, request: Request) -> Response:
        """A JPEG of the indexed file ``path`` with a map drawn over it of where it matches the text ``q``."""
        path, modality = self._indexed(request.query_params.get("path", ""))
        if not has_pictures(modality):
            return _json({"error": f"there is no picture in {path}"}, 404)
        raw = is_on(request.query_params, "raw")
        return _jpeg(as_jpeg(drawn_heat(self._index.explain(request.query_params.get("q", ""), path, raw=raw))))

    def _indexed(self, path: str) -> tuple[str, Modality]:
        """A path and its modality; nothing else than what the index holds is read from the disk."""
        document = self._index.document_at(path) if path else None
        if document is None:
            raise UsageError(f"{path or 'an empty path'} is not in the index")
        if not is_in_place(document):
            raise UsageError(f"{path} leads to another file than the one that was indexed: index it again")
        return path, document.modality


async def _arrived(request: Request, what: str) -> bytes:
    """The body of a request.

    Raises:
        UsageError: it is too large, or does not arrive in time.
    """
    try:
        return await asyncio.wait_for(_body(request, what), UPLOAD_S)
    except asyncio.TimeoutError as error:
        raise UsageError(f"the {what} did not arrive within {UPLOAD_S} seconds") from error


async def _body(request: Request, what: str) -> bytes:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > UPLOAD_BYTES:
            raise UsageError(f"the {what} is larger than {UPLOAD_BYTES >> 20} MB")
    return bytes(data)


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg", headers=_KEPT_BY_BROWSER)


def _json(values: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse({"schema": SCHEMA, **values}, status)
