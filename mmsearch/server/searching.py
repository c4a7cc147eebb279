"""What may be asked at ``/search``, in an address, a form or JSON, and what is answered."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from mmsearch.core.errors import UsageError
from mmsearch.core.modalities import spec_of
from mmsearch.core.types import Hit
from mmsearch.query.lists import weaker_behind
from mmsearch.query.nothing import Hits
from mmsearch.query.options import MATCH, SearchOptions
from mmsearch.query.question import Question, opened_picture
from mmsearch.server.parameters import Limit, Strict, Texts, model_of, number, options_from, read, read_json
from mmsearch.server.routes import json_answer

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from mmsearch.server.served import Served

LIMITS = {"k": Limit(10, 500), "rerank_depth": Limit(50, 500), "rerank_budget_s": Limit(1.0, 60)}
"""What is the server's own in `SearchOptions`."""
MOST_QUERIES, MOST_FIELDS, MOST_OFFSET = 100, 1000, 10_000
DEEPER = 4
"""A page that is not among the results looked for so far looks for so many times as many."""
UPLOAD_BYTES = 64 << 20
UPLOAD_S = 60
"""Seconds in which a body must arrive."""


class Query(Strict):
    """One query: all its texts and pictures together."""

    q: Texts = Field([], description="Text in the query language; several are one query for what is like all of them.")
    like: Texts = Field([], description="Paths of indexed files that results are to be like.")
    image: str | None = Field(None, description="A picture file in base64 that results are to be like.")
    raw: bool | None = Field(None, description="Take the texts literally, not in the query language.")


class _Address(Strict):
    q: list[str] = Field([], description="Text in the query language; several are one query for what is like all.")
    like: list[str] = Field([], description="Paths of indexed files that results are to be like.")
    raw: bool | None = Field(None, description="Take the texts literally, not in the query language.")
    offset: number(int, 0, MOST_OFFSET) = Field(0, description="How many results to leave out at the beginning.")  # type: ignore[valid-type]


class _Json(Query):
    queries: Annotated[list[Query], Field(max_length=MOST_QUERIES)] | None = Field(
        None, description="Many queries at once, in place of q, like and image."
    )
    offset: number(int, 0, MOST_OFFSET) = Field(0, description="How many results to leave out at the beginning.")  # type: ignore[valid-type]


if TYPE_CHECKING:

    class SearchParameters(_Address):
        """What an address or a form may hold."""

    class SearchBody(_Json):
        """What JSON may hold."""
else:
    SearchParameters = model_of(SearchOptions, LIMITS, "SearchParameters", _Address)
    SearchBody = model_of(SearchOptions, LIMITS, "SearchBody", _Json)


def search(served: Served, asked: BaseModel, queries: Sequence[Query], pictures: Sequence[bytes | None]) -> Response:
    """The hits of one query, or ``results`` of several. ``asked``: offset and options; ``pictures``: of each query one
    that was sent beside it.
    """
    notes: list[str] = []
    questions = [_question(served, query, picture) for query, picture in zip(queries, pictures, strict=True)]
    options = options_from(SearchOptions, asked, LIMITS, notes.append)
    offset = int(asked.offset)  # type: ignore[attr-defined]
    k = options.k
    found = _listed(served, questions, options, offset, notes.append)
    results = [_result(hits, query.like, offset, k) for hits, query in zip(found, queries, strict=True)]
    if getattr(asked, "queries", None) is None:
        return json_answer(**{**results[0], "notes": notes})
    return json_answer(results=results, notes=notes)


def _listed(
    served: Served, questions: Sequence[Question], options: SearchOptions, offset: int, note: Callable[[str], None]
) -> list[Hits]:
    """The hits of each question as far as a page of ``k`` after ``offset``.

    A search for more results looks at more candidates, and may then know a better one for a place that an earlier page
    has shown. So that pages of one size are parts of one list, further results are appended to nearer ones.
    """
    found = served.index.search_many(questions, options=options, note=note)
    depth = options.k
    while depth < offset + options.k:
        depth *= DEEPER
        further = served.index.search_many(questions, options=replace(options, k=depth))
        found = [_continued(one, more) for one, more in zip(found, further, strict=True)]
    return found


def _continued(found: Hits, further: Sequence[Hit]) -> Hits:
    hits, shown = list(found), {_shown(hit) for hit in found}
    least = min((hit.relevance for hit in hits if hit.relevance is not None), default=1.0)
    for hit in further:
        if _shown(hit) in shown:
            continue
        least = min(least, 1.0 if hit.relevance is None else hit.relevance)
        if hit.relevance is not None:
            hit = replace(hit, relevance=least, match=least >= MATCH)
        hits.append(replace(hit, rank=len(hits) + 1))
    return Hits(weaker_behind(hits), found.reason)


def _shown(hit: Hit) -> tuple[Any, ...]:
    """What stands in a list once: a document, or a passage of what is said in it."""
    return hit.path, hit.modality, hit.segment if spec_of(hit.modality).is_inside else None


def _result(found: Hits, like: Sequence[str], offset: int, k: int) -> dict[str, Any]:
    page = found[offset : offset + k]
    hits = ([hit for hit in page if hit.path not in like] or page) if like else page
    return {
        "hits": [
            {**hit.as_json(), "document": None if hit.document is None else hit.document.as_json()} for hit in hits
        ],
        "nothing_matches_well": not any(hit.match for hit in (hits if not offset else found)),
        "reason": found.reason,
        "next_offset": offset + k if len(page) == k and offset + k <= MOST_OFFSET else None,
        "notes": [],
    }


def _question(served: Served, query: Query, picture: bytes | None) -> Question:
    images: list[Any] = [Path(served.indexed(path)[0]) for path in query.like]
    if query.image is not None:
        try:
            images.append(opened_picture(base64.b64decode(query.image, validate=True)))
        except (binascii.Error, ValueError) as error:
            raise UsageError(f"image is no base64: {error}") from error
    if picture is not None:
        images.append(opened_picture(picture))
    return Question.of([text for text in query.q if text.strip()], images, raw=bool(query.raw))


async def posted(request: Request, parameters: SearchParameters) -> tuple[BaseModel, list[Query], list[bytes | None]]:
    """What a POST asks: JSON, a form with the file ``image``, or the bytes of a picture beside the ``parameters``.

    Raises:
        UsageError: it cannot be read, is too large, or does not arrive in time.
    """
    body = await arrived(request, "picture")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        asked = read_json(SearchBody, body)
        if request.url.query:
            raise UsageError("with JSON in the body, all parameters stand there, none in the address")
        if asked.queries is None:
            return asked, [asked], [None]
        if asked.q or asked.like or asked.image is not None:
            raise UsageError("give queries, or q, like and image, not both")
        if not asked.queries:
            raise UsageError("queries is empty: say what to search for")
        return asked, list(asked.queries), [None] * len(asked.queries)
    if kind == "multipart/form-data":
        fields, picture = await _form(request, body)
        in_form = read(SearchParameters, [*request.query_params.multi_items(), *fields])
        return in_form, [as_query(in_form)], [picture]
    return parameters, [as_query(parameters)], [body]


def as_query(parameters: SearchParameters) -> Query:
    """The query of an address."""
    return Query.model_construct(q=parameters.q, like=parameters.like, image=None, raw=parameters.raw)


async def _form(request: Request, body: bytes) -> tuple[list[tuple[str, str]], bytes | None]:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        parser = MultiPartParser(request.headers, stream(), max_fields=MOST_FIELDS, max_files=1)  # type: ignore[arg-type]
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise UsageError(f"the form cannot be read: {getattr(error, 'message', error)}") from error
    try:
        fields, picture = [], None
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                fields.append((name, value))
            elif name != "image":
                raise UsageError(f"the file of a form is called image, not {name}")
            else:
                picture = await value.read()
        return fields, picture
    finally:
        await form.close()


async def arrived(request: Request, what: str) -> bytes:
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
