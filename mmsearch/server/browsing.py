"""The addresses that list what the index holds: by date, folder and value, duplicates, and one document in full."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field

from mmsearch.api.browsing import FIELDS, SPANS
from mmsearch.core.errors import UsageError
from mmsearch.server.parameters import Strict, number
from mmsearch.server.problems import ForbiddenError
from mmsearch.server.routes import QueryRoute, json_answer

if TYPE_CHECKING:
    from mmsearch.server.served import Served

MOST_LISTED, MOST_GROUPS, MOST_PATHS = 1000, 500, 10_000
WAIT_S = 1.0
"""So long a request for duplicates waits until all are known; then it says how far that has got."""
_FILTERS = "Filters of the query language, without words: type:image after:2021."
_COMPARED = (
    "Until all pictures are compared, `total` is null, there are no groups, and `compared` says how much is done, "
    "0 to 1: ask again."
)
_OFFSET = 1 << 53


class Filtered(Strict):
    """What can be listed in part."""

    where: str = Field("", description=_FILTERS)


class Listed(Filtered):
    """A page of documents."""

    order: Literal["newest", "path"] = Field("newest", description="By date, those without one last, or by path.")
    offset: number(int, 0, _OFFSET) = Field(0, description="How many to leave out at the beginning.")  # type: ignore[valid-type]
    limit: number(int, 1, MOST_LISTED) = Field(100, description="How many.")  # type: ignore[valid-type]


class OnePath(Strict):
    """One document."""

    path: str = Field(description="Of a document of the index.")


class Valued(Strict):
    """Values of a field."""

    field: Literal["type", "camera", "lens", "rating", "artist", "album", "folder", "date", "size", "duration"] = Field(
        description="Of the most frequent values; of date, size, duration and rating also the span."
    )
    limit: number(int, 1, MOST_LISTED) = Field(100, description="How many values.")  # type: ignore[valid-type]


class Named(Strict):
    """The beginning of a name."""

    q: str = Field("", description="What a name begins with, in any language.")
    limit: number(int, 1, 100) = Field(10, description="How many places.")  # type: ignore[valid-type]


class Compared(Filtered):
    """A page of groups of duplicates."""

    near: number(float, 0.5, 1) | None = Field(None, description="The least cosine of their vectors; 0.99 by default.")  # type: ignore[valid-type]
    offset: number(int, 0, _OFFSET) = Field(0, description="How many groups to leave out at the beginning.")  # type: ignore[valid-type]
    limit: number(int, 1, MOST_GROUPS) = Field(50, description="How many groups.")  # type: ignore[valid-type]


class Paths(Strict):
    """Documents of the index."""

    paths: Annotated[list[str], Field(min_length=1, max_length=MOST_PATHS)]


def router(served: Served) -> APIRouter:
    """The addresses, for what is served."""
    made, browse = APIRouter(tags=["Browse"], route_class=QueryRoute), served.index.browse

    @made.get("/documents", summary="A page of the documents")
    def documents(asked: Annotated[Listed, Query()]) -> Response:
        found = browse.documents(asked.where, order=asked.order, limit=asked.limit, offset=asked.offset)
        return json_answer(total=browse.count(asked.where), documents=[one.as_json() for one in found])

    @made.get("/documents/info", summary="Everything known of one document")
    def info(asked: Annotated[OnePath, Query()]) -> Response:
        from mmsearch.filters.places import place_near

        details = browse.details(Path(asked.path)) if "\0" not in asked.path and asked.path else None
        if details is None:
            raise UsageError(f"{asked.path or 'an empty path'} is not in the index")
        at = details.document.info
        known = at.latitude is not None and at.longitude is not None
        place = place_near(at.latitude, at.longitude) if known else None
        return json_answer(**details.as_json(), **({} if place is None else {"place": str(place)}))

    @made.get("/timeline", summary="How many documents there are of each month")
    def timeline(asked: Annotated[Filtered, Query()]) -> Response:
        return json_answer(months=[{"month": month, "count": count} for month, count in browse.months(asked.where)])

    @made.get("/folders", summary="How many documents lie in each folder itself")
    def folders(asked: Annotated[Filtered, Query()]) -> Response:
        return json_answer(folders=[{"path": path, "count": count} for path, count in browse.folders(asked.where)])

    @made.get("/values", summary="The most frequent values of a field, and its span")
    def values(asked: Annotated[Valued, Query()]) -> Response:
        answer: dict[str, Any] = {}
        if asked.field in FIELDS or asked.field == "folder":
            found = browse.values(asked.field, asked.limit)
            answer["values"] = [{"value": value, "count": count} for value, count in found]
        if asked.field in SPANS:
            span = browse.span(asked.field)
            answer["span"] = None if span is None else {"least": span[0], "greatest": span[1]}
        return json_answer(**answer)

    @made.get("/places", summary="Places by the beginning of a name")
    def places(asked: Annotated[Named, Query()]) -> Response:
        from mmsearch.filters.places import places_called

        try:
            found = places_called(asked.q, asked.limit)
        except UsageError as error:
            return json_answer(places=[], reason=str(error))
        shown = [{"name": str(one), "latitude": one.latitude, "longitude": one.longitude} for one in found]
        return json_answer(places=shown)

    @made.get(
        "/duplicates", summary="Groups of documents that show the same, the best of each first", description=_COMPARED
    )
    def duplicates(asked: Annotated[Compared, Query()]) -> Response:
        comparison = served.duplicates(asked.where, asked.near)
        groups = comparison.groups(WAIT_S)
        if groups is None:
            return json_answer(total=None, groups=[], next_offset=asked.offset, compared=round(comparison.share, 3))
        end = asked.offset + asked.limit
        shown = [
            {"keep": group.keep.path, "documents": [one.as_json() for one in group.documents]}
            for group in groups[asked.offset : end]
        ]
        return json_answer(total=len(groups), groups=shown, next_offset=end if end < len(groups) else None, compared=1)

    @made.post("/remove", summary="Take documents out of the index, no file from the disk")
    def remove(asked: Paths) -> Response:
        if not served.allow_changes:
            raise ForbiddenError("this server was started without --allow-changes: nothing can be removed through it")
        return json_answer(removed=served.remove(asked.paths))

    return made
